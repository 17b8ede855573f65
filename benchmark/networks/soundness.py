"""Whether a network is what everybody here takes it for, found out with a few samples before any long work.

Two things are taken for granted wherever a network is trained, compressed or measured: its neurons are reset before
each batch, and samples of a batch do not see each other. Where one of them is not so, every figure depends on the size
and order of the batches. And a neuron in single-step mode that is given all time steps at once knows no time.
"""

import copy
import random
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.seed import isolate_rng
from spikingjelly.activation_based.base import MemoryModule
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.utils._pytree import tree_leaves

from benchmark.networks.classifier import SNNClassifier, scores
from benchmark.networks.errors import NetworkError
from compressors.network.layers import evaluating, hooks

SAMPLES = 3
"""Samples looked at."""

TOLERANCE = 1e-5
"""Relative difference of two outputs that are taken for equal: an accelerator may add up in another order."""

Look = Callable[[Tensor], Tensor]


class SoundNetwork(Callback):
    """Refuses an unsound network (:func:`require_sound`) before a fit or a test begins, on a few samples of its data.

    It stands before all other callbacks. The random numbers of the fit are those without it.
    """

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Look at the network, on the device of the fit or test."""
        if not isinstance(pl_module, SNNClassifier):
            return
        pl_module.to(trainer.strategy.root_device)
        with isolate_rng():
            x = _few_samples(trainer.datamodule, stage)  # type: ignore[attr-defined]
            if x is not None:
                require_sound(pl_module, x.to(pl_module.device))


def _few_samples(data: Any, stage: str) -> Tensor | None:
    """The first samples of the calibration data, or else of what the stage is about: ``x [SAMPLES, ...]``.

    None if there are none: who needs them says so.
    """
    names = ("test_dataloader",) if stage == "test" else ("calibration_dataloader", "train_dataloader")
    loader = next(getattr(data, name) for name in names if hasattr(data, name))()
    generator = getattr(loader, "generator", None)
    state = None if generator is None else generator.get_state()
    batch = next(iter(loader), None)
    if state is not None:
        generator.set_state(state)  # type: ignore[union-attr]
    return None if batch is None else data.on_after_batch_transfer(batch, 0)[0][:SAMPLES]


def require_sound(module: SNNClassifier, x: Tensor) -> None:
    """Refuse a network in which a sample's outputs depend on what was shown before it, or is shown beside it.

    A batch is shown twice, with the same random numbers, and then its last sample by itself.

    Args:
        module: the classifier around the network; its neurons are reset.
        x: a few samples, ``[B, ...]``.

    Raises:
        NetworkError: names the module, and says what to do.
    """
    network = module.network
    if len(x) == module.timesteps:
        x = x[1:]  # so that no number of samples is one of time steps
    if len(x) == 0:
        return

    def run(samples: Tensor, on: nn.Module = network) -> Tensor:
        return scores(on, samples, module.classes, module.timesteps)

    with evaluating(network):
        with _requiring_time(network, len(x)):
            random_numbers = _run(run, x)
        once, twice = (_seen(network, lambda: _run(run, x), len(x)) for _ in range(2))
        _require_no_memory(network, once, twice)
        alone = _seen(network, lambda: _run(run, x[-1:]), len(x))
        if random_numbers:
            warnings.warn(
                f"the network {type(network).__name__} draws random numbers when it is evaluated: its scores depend on "
                "the seed",
                stacklevel=2,
            )
        elif _mixing(alone, once) is not None:
            _require_separate_samples(network, run, x)


def _run(run: Look, x: Tensor) -> bool:
    """Whether random numbers are drawn for the scores of ``x``; they are always the same ones.

    Raises:
        NetworkError: the network fails on such samples.
    """
    with isolate_rng():
        before = _random_state()
        try:
            run(x)
        except Exception as error:  # whatever the forward pass of a network of somebody else raises
            if hasattr(error, "exit_status"):
                raise
            reason = (str(error) or type(error).__name__).splitlines()[0]
            raise NetworkError(f"the network does not run on {len(x)} samples {list(x.shape)}: {reason}") from error
        return _random_state() != before


def _random_state() -> tuple[Any, ...]:
    gpu = [state.tolist() for state in torch.cuda.get_rng_state_all()] if torch.cuda.is_initialized() else []
    return torch.get_rng_state().tolist(), gpu, repr(np.random.get_state()), random.getstate()  # noqa: NPY002


@contextmanager
def _requiring_time(network: nn.Module, samples: int) -> Iterator[None]:
    """Refuse a neuron, or another module with memory, in single-step mode that is given several steps as one."""
    steps = 1

    def note_steps(_: nn.Module, inputs: tuple[Any, ...]) -> None:
        nonlocal steps
        steps = len(inputs[0])

    def look(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        shape = tuple(inputs[0].shape)
        if module.step_mode == "s" and steps > 1 and (shape[:2] == (steps, samples) or shape[0] == steps * samples):
            raise NetworkError(
                f"{_named(network, module)} is in single-step mode, and is given all {steps} time steps at once: its "
                "neurons would have no memory; set step_mode='m' (functional.set_step_mode(network, 'm')) and give it "
                "[T, B, ...]"
            )

    with hooks([network], note_steps, before=True), hooks(_memories(network), look, before=True):
        yield


@dataclass(frozen=True)
class _Seen:
    """One output of a module, as sums (:func:`_digest`) of all of it, and of what may be its last sample's part.

    The batch may be any axis whose length allows it, or share one with time, before it or after it: ``parts`` has, by
    axis, the digest of the last sample in either case.
    """

    shape: tuple[int, ...]
    whole: Tensor
    parts: dict[int, tuple[Tensor, Tensor]]

    @classmethod
    def of(cls, output: Tensor, samples: int) -> "_Seen":
        """Look at an output for so many samples."""
        parts = {}
        for axis, size in enumerate(output.shape):
            if size and size % samples == 0:
                after = output.unflatten(axis, (-1, samples)).select(axis + 1, -1)
                before = output.unflatten(axis, (samples, -1)).select(axis, -1)
                parts[axis] = (_digest(after), _digest(before))
        return cls(tuple(output.shape), _digest(output), parts)

    def holds(self, alone: "_Seen") -> bool:
        """Whether the last sample's part is what that sample gives by itself; True where shapes do not say."""
        if len(self.shape) != len(alone.shape):
            return True
        axes = [axis for axis, (own, other) in enumerate(zip(self.shape, alone.shape, strict=True)) if own != other]
        if len(axes) != 1 or axes[0] not in self.parts:
            return True
        return any(_close(part, alone.whole) for part in self.parts[axes[0]])


Outputs = list[tuple[nn.Module, list[_Seen]]]


def _seen(network: nn.Module, forward: Callable[[], Any], samples: int) -> Outputs:
    """What modules put out in a forward pass, in the order in which they are done: parts before what they are part of.

    ``samples`` are those of the batch.
    """
    found: Outputs = []

    def note(module: nn.Module, _: tuple[Any, ...], output: Any) -> None:
        tensors = [leaf.detach() for leaf in tree_leaves(output) if isinstance(leaf, Tensor)]
        found.append((module, [_Seen.of(tensor, samples) for tensor in tensors]))

    inside = {part for memory in _memories(network) for part in memory.modules() if part is not memory}
    with hooks([module for module in network.modules() if module not in inside], note):
        forward()
    return found


def _memories(network: nn.Module) -> list[MemoryModule]:
    """Neurons and what else remembers; how often the parts inside of them run is their own affair."""
    return [module for module in network.modules() if isinstance(module, MemoryModule)]


def _digest(output: Tensor) -> Tensor:
    """Three sums, which other values would hardly have in common: float64 ``[3]``."""
    values = output.double().flatten()
    places = torch.linspace(1, 2, len(values), dtype=values.dtype, device=values.device)
    return torch.stack([values.sum(), values.abs().sum(), values @ places])


def _close(one: Tensor, other: Tensor) -> bool:
    """Whether two digests are equal up to rounding; what is not finite is found out elsewhere."""
    largest = float(other.nan_to_num(0.0, 0.0, 0.0).abs().max())
    return torch.allclose(one, other, rtol=TOLERANCE, atol=TOLERANCE * largest, equal_nan=True)


def _require_no_memory(network: nn.Module, once: Outputs, twice: Outputs) -> None:
    for (module, first), (_, second) in zip(once, twice, strict=False):
        if not all(_close(one.whole, other.whole) for one, other in zip(first, second, strict=False)):
            raise NetworkError(
                f"{_named(network, module)} gives another output when the same batch is shown again: what it remembers "
                "outlives a batch, so scores depend on batch size and order; give it a reset(), or register_memory() "
                "what it remembers in a module of spikingjelly.activation_based.base.MemoryModule"
            )


def _mixing(alone: Outputs, batch: Outputs) -> nn.Module | None:
    """The first module that gives a sample another output by itself than in a batch; None if all give the same."""
    for (twin, single), (module, several) in zip(alone, batch, strict=False):
        if twin is not module or not all(one.holds(other) for one, other in zip(several, single, strict=False)):
            return module
    return None


def _require_separate_samples(network: nn.Module, run: Callable[..., Tensor], x: Tensor) -> None:
    """Refuse a network whose last sample has other outputs by itself, unless in double precision it has not.

    A batch of one is computed in another order, and a spike hangs on the last bit of a potential.
    """
    exact = copy.deepcopy(network).double()
    try:
        alone, batch = (
            _seen(exact, lambda part=part: _run(lambda x: run(x, exact), part), len(x))  # type: ignore[misc]
            for part in (x[-1:].double(), x.double())
        )
    except NetworkError as error:
        warnings.warn(
            f"the network {type(network).__name__} gives a sample another output in a batch than by itself; whether "
            f"that is rounding is not known, since in double precision {error}",
            stacklevel=2,
        )
        return
    found = _mixing(alone, batch)
    if found is None:
        return
    module = dict(zip(exact.modules(), network.modules(), strict=True))[found]
    remedy = "let no function of it mix the batch axis, which is the second, [T, B, ...]"
    if isinstance(module, _NormBase):
        remedy = "it normalises by the batch: build it with track_running_stats=True"
    elif isinstance(module, MemoryModule) and module.step_mode == "m":
        remedy = "in multi-step mode its first axis is time: give it [T, B, ...], or set step_mode='s'"
    raise NetworkError(
        f"{_named(network, module)} gives a sample another output in a batch than by itself, so scores depend on the "
        f"batches: {remedy}"
    )


def _named(network: nn.Module, module: nn.Module) -> str:
    name = next(name for name, part in network.named_modules() if part is module)
    return f"module {name!r} ({type(module).__name__})" if name else f"the network {type(module).__name__}"
