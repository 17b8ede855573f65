"""The dense network of a question: trained once, kept by the hash of what it was trained on and how."""

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock
from lightning.pytorch import Callback, Trainer, seed_everything
from lightning.pytorch.callbacks import EarlyStopping
from spikingjelly.activation_based import functional

from benchmark.networks.classifier import SNNClassifier
from benchmark.networks.errors import CheckpointError
from benchmark.networks.nir.reading import stated_reset
from benchmark.networks.precision import computes_bfloat16
from benchmark.networks.soundness import SoundNetwork
from benchmark.networks.weights import checkpoints
from benchmark.networks.weights.checkpoints import Checkpoint
from benchmark.questions import build
from benchmark.questions.suite import Question
from benchmark.records import DenseNetwork
from benchmark.runs import memory
from benchmark.runs.distributed import DeviceGroup, Devices
from benchmark.runs.opening import OpenedData, OpenedRun
from benchmark.runs.resuming import VALIDATION, KeptTraining, kept_training
from compressors.network.anew import begin_anew
from datamodules.base import BenchmarkDataModule

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Dense:
    """A dense network, ready to be compressed, and where it came from."""

    module: SNNClassifier
    origin: DenseNetwork


def dense_network(
    run: OpenedRun,
    data: OpenedData,
    cache: Path,
    callbacks: Sequence[Callback] = (),
    group: DeviceGroup | None = None,
) -> Dense:
    """Load the dense network that a run starts from, or train and keep it; two processes never train the same one.

    One that comes with its weights is kept in the same place, for all that looks for dense networks there.

    Args:
        run: what network, on what data, trained how.
        data: the data set, and the weights that the network comes with.
        cache: folder of the kept networks.
        callbacks: for the training, such as a progress bar; left out where a group of processes does it.
        group: what it is trained on; by default one device.

    Raises:
        CheckpointError: the kept file is damaged, or a checkpoint does not fit its network; names it.
        StoreError: the cache cannot be written to.
    """
    path, kept = dense_path(cache, run.dense_id), None
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_suffix(".lock")):
        if not path.exists() and run.weights_sha256 is not None:
            kept = _adopt(run, data, path)
        elif not path.exists():
            kept = _train(run, data.of(run.question), path, callbacks, group or DeviceGroup())
    module = _untrained(run.question, data.of(run.question))
    try:
        kept = kept or checkpoints.load(path)
        checkpoints.restore(module.network, kept, path)
    except CheckpointError as error:
        raise CheckpointError(f"{error}; delete {path}, and the network is trained again") from error
    module.timesteps = kept.description.get("timesteps", module.timesteps)  # it may have been compressed in time
    known = {key: kept.description.get(key) for key in ("validation_accuracy", "epochs", "seconds")}
    known |= {"tensors_sha256": kept.tensors_sha256, "reset": stated_reset(module.network)}
    return Dense(module, DenseNetwork(id=run.dense_id, sha256=kept.sha256, **known))


def dense_path(cache: Path, dense_id: str) -> Path:
    """Where a dense network is kept."""
    return cache / "checkpoints" / f"{dense_id}.safetensors"


def _untrained(question: Question, data: BenchmarkDataModule) -> SNNClassifier:
    net = build.network(question.model, data.input_shape, data.num_classes)
    return build.classifier(net, data, question.training)


def new_network(question: Question, data: BenchmarkDataModule) -> SNNClassifier:
    """A question's network with the weights that its dense network's training began with.

    One that comes with its weights in a file has others drawn in their place.
    """
    seed_everything(question.seed, workers=True, verbose=False)
    module = _untrained(question, data)
    if question.model.weights is not None:
        begin_anew(module.network, question.seed)
    return module


def _adopt(run: OpenedRun, data: OpenedData, path: Path) -> Checkpoint:
    """Keep a network that comes with its weights, under its own description.

    Raises:
        CheckpointError: the weights do not fit the network, or are others than when the run was opened.
    """
    model, weights = run.question.model, data.weights(run.question.model)
    if weights is None or weights.sha256 != run.weights_sha256:
        raise CheckpointError(f"{model.weights} has changed since the suite began: run the suite again")
    module = _untrained(run.question, data.of(run.question))
    checkpoints.restore(module.network, weights, model.weights)
    description = {**weights.description, "model": model.model_dump(), "data": run.data}
    return checkpoints.save(path, module.network, description)


def _train(
    run: OpenedRun, data: BenchmarkDataModule, path: Path, callbacks: Sequence[Callback], group: DeviceGroup
) -> Checkpoint:
    """Train, and keep the best weights with a description of how; one that was cut off goes on after its last epoch."""
    question, going = run.question, path.with_suffix(".training")
    shown = () if group.devices.grouped else callbacks
    module, trained = group.call(_fit, question, data, going, shown, group.devices)
    description = {
        "model": question.model.model_dump(),
        "data": run.data,
        "training": question.training.model_dump(),
        "seed": question.seed,
        **trained,
    }
    checkpoint = checkpoints.save(path, module.network, description)
    going.unlink(missing_ok=True)
    return checkpoint


def _fit(
    question: Question, data: BenchmarkDataModule, going: Path, callbacks: Sequence[Callback], devices: Devices
) -> tuple[SNNClassifier, dict[str, Any]]:
    """Train with early stop on the validation accuracy: the best epoch's weights, its accuracy, epochs, seconds."""
    memory.keep_freed()
    with quiet():
        seed_everything(question.seed, workers=True, verbose=False)
        module = _untrained(question, data)
        kept = KeptTraining(going)
        stop = EarlyStopping(VALIDATION, mode="max", patience=question.training.patience)
        trainer = Trainer(
            max_epochs=question.training.epochs,
            callbacks=[SoundNetwork(), *callbacks, stop, kept],
            precision=question.training.precision,
            **trainer_settings(devices),
        )
        if question.training.precision == "bf16-mixed" and not computes_bfloat16(trainer.strategy.root_device):
            log.warning("bfloat16 is emulated on this processor: training.precision 32-true is faster here")
        trainer.fit(module, datamodule=data, ckpt_path=kept_training(going), weights_only=True)
        module.load_state_dict(kept.best)
    functional.reset_net(module)
    known = {"validation_accuracy": kept.accuracy, "epochs": trainer.current_epoch, "seconds": kept.seconds}
    return module, known


def trainer_settings(devices: Devices | None = None) -> dict[str, Any]:
    """What every Trainer of a run has in common: its devices, no files, no logs, no bars of its own."""
    return {
        **(devices or Devices()).trainer_settings(),
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
    }


@contextmanager
def quiet() -> Iterator[None]:
    """Keep Lightning's notices about the machine and its advice on workers out of the progress display."""
    loggers = [logging.getLogger(f"lightning.{part}") for part in ("pytorch", "fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*does not have many workers.*")
            warnings.filterwarnings("ignore", message=".*`max_epochs=0`.*")
            warnings.filterwarnings("ignore", message=".*treespec, LeafSpec.*")
            # about samplers that repeat samples, and metrics that differ between processes: the project has neither
            warnings.filterwarnings("ignore", message="Using `DistributedSampler` with the dataloaders.*")
            warnings.filterwarnings("ignore", message=".*sync_dist=True.*")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
