"""A network of a user's own: a checkpoint, what network it is, and the data it is calibrated and tested on."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from benchmark.networks.classifier import SNNClassifier
from benchmark.networks.errors import CheckpointError
from benchmark.networks.weights import checkpoints
from benchmark.networks.weights.checkpoints import Checkpoint
from benchmark.questions import build
from benchmark.questions.suite import Data, Named, Training
from datamodules.base import BenchmarkDataModule

DATA_SETTINGS = ("name", "timesteps", "split", "binning", "window_us", "frame_size", "binarize", "image_size")
"""What a checkpoint's description of its data says about how they are shown."""


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
            CheckpointError: the weights do not fit the network.
        """
        network = build.network(self.model, self.data.input_shape, self.data.num_classes)
        checkpoints.restore(network, self.checkpoint, self.path)
        module = build.classifier(network, self.data, self.training)
        module.timesteps = self.checkpoint.description.get("timesteps", module.timesteps)
        return module

    def description(self) -> dict[str, Any]:
        """What a checkpoint derived from this one says about itself."""
        return {
            "model": self.model.model_dump(),
            "data": self.data.describe(),
            "training": self.training.model_dump(),
        }


def open_subject(source: Source) -> Subject:
    """Read the checkpoint and open its data.

    Raises:
        CheckpointError: the file cannot be read, or does not say what network or data it belongs to.
        DataMissing, OptionError, UnknownName: see there.
    """
    checkpoint = checkpoints.load(source.checkpoint)
    model = Named.model_validate(source.model or _told("model", checkpoint, source.checkpoint))
    training = Training.model_validate(checkpoint.description.get("training", {}))
    data = build.datamodule(
        _data(source, checkpoint),
        batch_size=training.batch_size,
        calibration_samples=source.calibration_samples,
        seed=source.seed,
        root=source.data_root,
    )
    data.prepare_data()
    return Subject(source.checkpoint, checkpoint, model, data, training)


def _data(source: Source, checkpoint: Checkpoint) -> Data:
    settings = source.data
    if settings is None:
        description = _told("data", checkpoint, source.checkpoint)
        settings = {name: description[name] for name in DATA_SETTINGS if name in description}
    try:
        return Data.model_validate(settings)
    except ValidationError as error:
        first = error.errors()[0]
        raise build.OptionError(f"the data set's {'.'.join(map(str, first['loc']))}: {first['msg']}") from None


def _told(what: str, checkpoint: Checkpoint, path: Path) -> dict[str, Any]:
    """What the checkpoint's description says about itself."""
    if what not in checkpoint.description:
        raise CheckpointError(f"{path} does not say which {what} it belongs to: give --{what} and its options")
    return dict(checkpoint.description[what])
