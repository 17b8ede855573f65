"""A network of a user's own: a checkpoint, what network it is, and the data it is calibrated and tested on."""

from dataclasses import dataclass
from functools import cached_property
from math import prod
from pathlib import Path
from typing import Any

from benchmark.networks.classifier import SNNClassifier
from benchmark.networks.errors import CheckpointError
from benchmark.networks.outline import values
from benchmark.networks.weights import checkpoints
from benchmark.networks.weights.checkpoints import Checkpoint
from benchmark.questions import build
from benchmark.questions.names import Data, Named, Told, ToldData
from benchmark.questions.suite import Training
from compressors.budget import OptionError
from datamodules.base import BenchmarkDataModule

DATA_SETTINGS = ("name", "timesteps", "split", "binning", "window_us", "frame_size", "binarize", "image_size")
"""What a checkpoint's description of its data says about how they are shown."""


SMALL = 2**26
"""Values of a network that is built whatever its file holds, and of a sample: a quarter of a gigabyte."""

MOST_REMOVED = 100
"""Values of a dense network, for each that is left of it in a file."""


@dataclass(frozen=True)
class Source:
    """Where a subject comes from. ``model`` and ``data`` (name and options) may be left to the checkpoint."""

    checkpoint: Path
    model: dict[str, Any] | None
    data: dict[str, Any] | None
    data_root: Path | None
    calibration_samples: int
    seed: int


@dataclass(frozen=True)
class Subject:
    """A checkpoint with its network's name, its data and how it was trained."""

    path: Path
    checkpoint: Checkpoint
    model: Named
    data: BenchmarkDataModule
    training: Training

    def module(self) -> SNNClassifier:
        """The network with the checkpoint's weights, anew at every call.

        Raises:
            CheckpointError: the weights do not fit the network; found before memory is spent on it.
            OptionError: the network cannot be built.
        """
        self._check_size()
        network = build.network(self.model, self.data.input_shape, self.data.num_classes)
        checkpoints.restore(network, self.checkpoint, self.path)
        module = build.classifier(network, self.data, self.training)
        steps = self.checkpoint.description.get("timesteps", module.timesteps)
        if type(steps) is not int or not 1 <= steps <= module.timesteps:
            raise CheckpointError(f"{self.path}: its time steps are {steps!r}, not 1 to the data's {module.timesteps}")
        module.timesteps = steps
        return module

    def _check_size(self) -> None:
        """Compare the network's names and shapes with the file's, and what a file names with what it holds."""
        state = self.checkpoint.state
        if state is None:
            return
        told = isinstance(self.model, Told)
        try:
            outline = build.outline(
                self.model, self.data.input_shape, self.data.num_classes, 2 * len(state) + 100 if told else None
            )
        except OptionError as error:
            if told:
                raise CheckpointError(
                    f"{self.path} names a network that cannot be built: {error}; name it yourself with --model"
                ) from error
            return  # a builder of the user's own may need values
        dense, held = values(outline), sum(tensor.numel() for tensor in state.values())
        compressed = "compressed" in self.checkpoint.description
        if told and compressed and dense > max(SMALL, MOST_REMOVED * held):  # for the dense network is made first
            raise CheckpointError(
                f"{self.path} names a network of {dense:,} values and holds {held:,} of them: if you trust it, name it "
                "yourself with --model and its options"
            )
        checkpoints.fitted(outline, state, self.checkpoint.description, self.path)

    @cached_property
    def description(self) -> dict[str, Any]:
        """What a checkpoint derived from this one says about itself; the data are hashed for it, once."""
        return {
            "model": self.model.model_dump(),
            "data": self.data.describe(),
            "training": self.training.model_dump(),
        }


def open_subject(source: Source) -> Subject:
    """Read the checkpoint and open its data.

    Raises:
        CheckpointError: the file cannot be read, or does not say what network or data it belongs to.
        BuilderError: the network's builder takes something else than builders are given.
        DataMissing, OptionError, UnknownName: see there.
    """
    checkpoint = checkpoints.load(source.checkpoint)
    model = _model(source, checkpoint)
    build.builder_of(model)  # one that cannot be called is found before the data are read
    training = build.validated("training", Training, checkpoint.description.get("training", {}))
    data = build.datamodule(
        _data(source, checkpoint),
        batch_size=training.batch_size,
        calibration_samples=source.calibration_samples,
        seed=source.seed,
        root=source.data_root,
    )
    if source.data is None:
        _check_samples(source.checkpoint, data)
    data.prepare_data()
    return Subject(source.checkpoint, checkpoint, model, data, training)


def _check_samples(path: Path, data: BenchmarkDataModule) -> None:
    """Refuse samples that a file wants larger than whoever opens it has expected."""
    entries = data.timesteps * prod(data.input_shape)
    if entries > SMALL:
        raise CheckpointError(
            f"{path} names samples of {data.timesteps:,} steps of {list(data.input_shape)}, which are {entries:,} "
            "values: if you trust it, name the data set yourself with --data and its options"
        )


def _model(source: Source, checkpoint: Checkpoint) -> Named:
    """The network as the user names it, else as the checkpoint does."""
    if source.model is not None:
        return build.validated("model", Named, source.model)
    told = _told("model", checkpoint, source.checkpoint)
    return build.validated("model", Named if checkpoint.described_by_us else Told, told)


def _data(source: Source, checkpoint: Checkpoint) -> Data:
    """The data set as the user names it, else as the checkpoint does."""
    if source.data is not None:
        return build.validated("data set", Data, source.data)
    description = _told("data", checkpoint, source.checkpoint)
    settings = {name: description[name] for name in DATA_SETTINGS if name in description}
    return build.validated("data set", Data if checkpoint.described_by_us else ToldData, settings)


def _told(what: str, checkpoint: Checkpoint, path: Path) -> dict[str, Any]:
    """What the checkpoint's description says about itself."""
    if what not in checkpoint.description:
        raise CheckpointError(f"{path} does not say which {what} it belongs to: give --{what} and its options")
    told = checkpoint.description[what]
    if not isinstance(told, dict):
        raise CheckpointError(f"{path}: its {what} is no mapping with a name: give --{what} and its options")
    return told
