"""Time and memory of pruning networks of ImageNet's size on one machine."""

import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from lightning.pytorch import Trainer

from benchmark.perf.inference import normalise
from benchmark.questions import build
from benchmark.questions.suite import Data, NamedNetwork, Training
from benchmark.runs.dense import quiet, trainer_settings
from compressors.calibration.reconstruction import LEARNING_RATES
from compressors.methods.magnitude import Magnitude
from compressors.methods.sbc import SBC
from compressors.network.layers import Layer
from compressors.second_order.problem import Problem
from compressors.weights.parts import LayerBudget, LayerResult
from compressors.weights.pruner import Pruner

PRUNED = (("spike_driven_transformer", 16), ("sew_resnet18", 16), ("sew_resnet152", 8))
RECONSTRUCTED = (("sew_resnet18", 16), ("sew_resnet152", 16))
DENSITY, STEPS, BATCH = 0.35, 4, 4
LEARNING_STEPS = 1


def cases() -> Iterator[Callable[[], dict[str, Any]]]:
    """SBC with the fast solver on whole networks, and the learning of reconstruction after magnitude pruning.

    Calibrated with photographs of 224 x 224 pixels at T = 4. Weights are random, and every BatchNorm has the statistics
    of photographs, so that neurons of all layers fire. Accuracy would mean nothing, and is not measured.

    Rows have ``method``, ``photographs``, ``layers`` and ``weights`` that are compressed, and ``seconds`` of the whole
    compression: for pruning with ``solving_s`` of it for all layers, and ``longest_s`` for one layer; for
    reconstruction with its ``steps``, each on :data:`~compressors.calibration.reconstruction.BATCH` photographs.

    Raises:
        DataMissing: ImageNet is not there.
    """
    yield from (partial(_prune, *case) for case in PRUNED)
    yield from (partial(_reconstruct, *case) for case in RECONSTRUCTED)


def _prune(name: str, photographs: int) -> dict[str, Any]:
    compressor = TimedSBC(DENSITY, solver="fast")
    row = _compress(name, photographs, compressor)
    return row | {"solving_s": sum(compressor.seconds), "longest_s": max(compressor.seconds)}


def _reconstruct(name: str, photographs: int) -> dict[str, Any]:
    compressor = Magnitude(DENSITY, aftercare="reconstruct", reconstruction_steps=LEARNING_STEPS)
    return _compress(name, photographs, compressor) | {"steps": LEARNING_STEPS * len(LEARNING_RATES)}


def _compress(name: str, photographs: int, compressor: Pruner) -> dict[str, Any]:
    settings = Data(name="imagenet", timesteps=STEPS)
    data = build.datamodule(settings, batch_size=BATCH, calibration_samples=photographs, seed=0)
    data.prepare_data()
    data.setup()
    network = build.network(NamedNetwork(name=name), data.input_shape, data.num_classes)
    images, _ = data.on_after_batch_transfer(next(iter(data.calibration_dataloader())), 0)
    normalise(network, images)
    with quiet():
        trainer = Trainer(max_epochs=0, callbacks=[compressor], enable_checkpointing=False, **trainer_settings())
        trainer.fit(build.classifier(network, data, Training()), datamodule=data)
    done = compressor.compression
    if done is None:
        raise RuntimeError(f"{type(compressor).__name__} left no account of {name}: the fit ended before it began")
    return {
        "method": " ".join([type(compressor).__name__, *done.aftercare]),
        "network": name,
        "photographs": photographs,
        "layers": len(done.layers),
        "weights": sum(layer.weights for layer in done.layers),
        "density": done.density,
        "seconds": done.seconds,
    }


class TimedSBC(SBC):
    """SBC with the seconds that each layer took."""

    def __init__(self, density: float, **options: Any) -> None:
        super().__init__(density, **options)
        self.seconds: list[float] = []

    def compress_layer(self, network: Any, layer: Layer, part: LayerBudget, statistics: Problem) -> LayerResult:
        """Prune a layer by the clock."""
        started = time.perf_counter()
        result = super().compress_layer(network, layer, part, statistics)
        self.seconds.append(time.perf_counter() - started)
        return result
