"""Synthetic records, made of the same classes as real ones."""

import json
from dataclasses import MISSING, fields
from hashlib import sha256
from math import prod
from typing import Any, get_origin, get_type_hints

from benchmark.questions.suite import Data, Named, NamedNetwork, Question, Training
from benchmark.records import DenseNetwork, RunRecord
from hardware.report import CostReport, LayerCost, NeuronCost

CONTROLS = {"identity", "random", "magnitude"}
SAMPLES, TIMESTEPS = 100, 20
SHAPES = {"conv1": (16, 2, 3, 3), "fc": (10, 256)}


def filled(kind: type, /, **known: Any) -> Any:
    """A dataclass with the given fields; the others are the zero of their type."""
    zeros = {int: 0, float: 0.0, str: "", tuple: (), dict: {}}
    hints = get_type_hints(kind)
    unknown = {f.name: zeros.get(get_origin(hints[f.name]) or hints[f.name], ()) for f in fields(kind)
               if f.default is MISSING and f.default_factory is MISSING}  # fmt: skip
    return kind(**{**unknown, **known})


def spread_evenly(operations: int) -> tuple[int, ...]:
    """Operations by time step, which add up."""
    early = [operations // TIMESTEPS] * (TIMESTEPS - 1)
    return (*early, operations - sum(early))


def make_layer(name: str, density: float, *, real_input: bool = False) -> LayerCost:
    """A layer of which the share ``density`` of weights is kept, and whose operations follow it."""
    shape = SHAPES[name]
    rows, columns = shape[0], prod(shape[1:])
    weights = rows * columns
    kept = max(1, round(weights * density))
    events = 1000 * SAMPLES
    operations = events * kept * rows // weights
    return filled(
        LayerCost, name=name, kind="conv2d" if len(shape) == 4 else "linear", weight_shape=shape,
        input_shape=shape[1:], output_shape=shape[:1], fan_in=columns, fan_out=rows, weights=weights, nonzero=kept,
        bits=32, calls=TIMESTEPS, inputs="real" if real_input else "spikes", input_entries=10 * events,
        input_events=events, ac=0 if real_input else operations, ac_by_value=0 if real_input else operations,
        mac=operations if real_input else 0, dense=10 * events * rows,
        synops_per_step=spread_evenly(operations), sample_mean=operations / SAMPLES, sample_std=1.5,
        sample_max=operations, memory_bits={"dense": weights * 32, "csr16": kept * 48},
    )  # fmt: skip


def make_cost(density: float = 1.0) -> CostReport:
    """Two layers, the first of which receives real values."""
    layers = (make_layer("conv1", density, real_input=True), make_layer("fc", density))
    neuron = filled(NeuronCost, name="lif1", kind="LIFNode", neurons=256, states=1, state_bits=256 * 32,
                    updates=256 * TIMESTEPS * SAMPLES, spikes=12_345)  # fmt: skip
    return filled(CostReport, samples=SAMPLES, timesteps=TIMESTEPS, layers=layers, neurons=(neuron,), sample_std=2.5,
                  sample_max=99_999)  # fmt: skip


def make_record(
    method: str | dict[str, Any] = "identity",
    density: float = 1.0,
    seed: int = 0,
    *,
    accuracy: float = 0.9,
    data: str | dict[str, Any] = "nmnist",
    model: str | dict[str, Any] = "conv",
    fingerprint: str = "f" * 64,
    checkpoint: str | None = None,
    version: int = 1,
    calibration_samples: int = 100,
    suite: str = "nmnist",
    training: Training | None = None,
    asked: dict[str, Any] | None = None,
    **changes: Any,
) -> RunRecord:
    """A finished record, as a store gives it back.

    ``checkpoint`` names the dense network, else its seed does; ``asked`` are further fields of the question,
    ``changes`` fields of the record.
    """
    question = Question(
        data=Data.model_validate({"name": data} if isinstance(data, str) else data),
        model=NamedNetwork.model_validate(model),
        training=training or Training(),
        compressor=Named.model_validate(method),
        density=density,
        calibration_samples=calibration_samples,
        seed=seed,
        **(asked or {}),
    )
    cost = make_cost(density)
    layers = [
        {"name": layer.name, "shape": list(layer.weight_shape), "weights": layer.weights, "kept": layer.nonzero,
         "density": layer.density, "loss": 0.5}
        for layer in cost.layers
    ]  # fmt: skip
    achieved = sum(layer.nonzero for layer in cost.layers) / sum(layer.weights for layer in cost.layers)
    dense_id = question.dense_id(fingerprint)
    fields: dict[str, Any] = {
        "id": question.id(fingerprint, version),
        "suite": suite,
        "status": "done",
        "question": question,
        "version": version,
        "control": question.compressor.name in CONTROLS,
        "data": {"name": question.data.name, "split": question.data.options.get("split", "official"),
                 "timesteps": question.data.timesteps, "fingerprint": fingerprint},
        "dense": DenseNetwork(id=dense_id, sha256=sha256((checkpoint or dense_id).encode()).hexdigest(), epochs=3,
                              seconds=12.5, validation_accuracy=0.91),
        "metrics": {"accuracy": accuracy, "loss": 0.3},
        "compression": {"density": achieved, "seconds": 2.5, "layers": layers},
        "cost": cost.to_dict(),
        "seconds": {"fit": 2.6, "test": 1.5, "compress": 2.5},
        "environment": {"python": "3.11.9", "packages": {"torch": "2.15.0"}, "git": "0123abcd"},
        "created": "2026-01-02T03:04:05+00:00",
    }  # fmt: skip
    made = RunRecord(**{**fields, **changes})
    return RunRecord.model_validate(json.loads(json.dumps(made.model_dump(mode="json"), sort_keys=True)))


def make_failed(
    method: str | dict[str, Any], density: float, seed: int = 0, error: str = "ValueError: broken"
) -> RunRecord:
    """The record of a run that failed."""
    return make_record(
        method, density, seed, status="failed", error=error, dense=None, metrics={}, compression={}, cost={}, seconds={}
    )


def make_suite_records(seeds: tuple[int, ...] = (0, 1, 2), **options: Any) -> list[RunRecord]:
    """A plausible suite: dense, random, magnitude, OBC and SBC at five densities."""
    worth = {"random": 0.9, "magnitude": 0.35, "obc": 0.05, "sbc": 0.045}
    records = []
    for seed in seeds:
        dense = 0.9 + 0.004 * seed
        records.append(make_record(seed=seed, accuracy=dense, **options))
        for method, harm in worth.items():
            for density in (0.5, 0.2, 0.1, 0.05, 0.03):
                accuracy = max(0.1, dense - harm * (1 - density) ** 6 - 0.003 * seed * harm)
                records.append(make_record(method, density, seed, accuracy=accuracy, **options))
    return records
