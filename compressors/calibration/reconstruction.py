"""What ``aftercare: reconstruct`` does after any method: what is left learns to act as the dense network did.

With masks and grids held, the remaining weights and the scales and shifts of BatchNorm follow the surrogate gradient of
the distance between the compressed network and the dense one on calibration inputs. No label takes part: the dense
network is the teacher (block reconstruction for quantising: BRECQ, arXiv 2102.05426; for spiking networks: Li and
others, "A Free Lunch From ANN", ICML 2021). The distance is

    D = KL(p* || p) + mean_l |F_l (s_l - s_l*)|^2 / |F_l s_l*|^2

with p the softmax of the scores in units of the dense scores' spread, s_l the spikes after layer l and F_l the filter
over time of the neuron that sends them: the van Rossum distance relative to the dense trains' own energy.

How fast and how long is rehearsed on a copy of the network, compressed by four fifths of the calibration samples
(:meth:`Teacher.reconstruct`). Adam starts there once with each of :data:`LEARNING_RATES`; after a few looks at the
samples that were held out the nearest start goes on alone, as if the others had not been. Where the distance on them
was smallest, be it before the first step, says what to do: the network itself, compressed by all samples, learns from
all of them at that rate and for so many steps (:meth:`Teacher.repeat`). What is looked at and kept is a mean of where
the last steps led to (:data:`AVERAGED`).
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, replace
from itertools import count, islice
from typing import Any

import torch
import torch.nn.functional as F
from lightning.pytorch import LightningModule
from torch import Tensor

from compressors.calibration.augmentation import augmented
from compressors.calibration.held_out import split
from compressors.calibration.network import Network
from compressors.calibration.pairs import neuron_pairs, run
from compressors.compression import LayerCompression
from compressors.network.layers import Layer, evaluating
from compressors.quantization.grids import Grid
from compressors.quantization.learnt_step import gradients

BATCH = 10
"""Samples of a step."""

MEMORY_BYTES = 2 * 2**30
"""What may be kept of a forward pass for the backward pass. Where a step's samples keep more, they go through the
network in parts, one sample at least, and their gradients are added up."""

LEARNING_RATES = (0.1, 0.03)
"""Of Adam at the start, relative to the root mean square of the weights that a layer has left."""

STEP_SHARE = 0.1
"""Learning rate of a grid's scale, relative to it, in units of that of weights: it moves all of a row at once."""

LOOKS = 8
"""Looks at the held-out samples on the way."""

TRIAL = 2
"""Looks after which one learning rate goes on."""

PATIENCE = 4
"""Looks without a smaller distance after which it ends."""

AVERAGED = 1 / 16
"""Share of the steps over which the values are averaged, the last ones most: Adam at a rate that is worth taking hops
about what it is after, and the mean of its hops is nearer to that than any of them (Polyak averaging)."""


@dataclass(frozen=True)
class Course:
    """How the compressed network learns.

    Args:
        steps: of Adam, at most, of the start that goes on; its rate falls along a cosine to zero.
        augment: names of :data:`~compressors.calibration.augmentation.AUGMENTATIONS`: a step sees samples that were
            changed so, and the dense network the same ones. Held-out samples stay as they are.
        starts: how many of :data:`LEARNING_RATES` are tried, from the first on.
    """

    steps: int
    augment: tuple[str, ...] = ()
    starts: int = len(LEARNING_RATES)


@dataclass(frozen=True)
class Distance:
    """How far the compressed network is from the dense one, on some samples: means over them.

    Args:
        output: Kullback-Leibler divergence of the scores, in nats.
        spikes: of each neuron layer, relative to the dense spikes' energy: ``[layers]``.
    """

    output: Tensor
    spikes: Tensor

    @property
    def total(self) -> Tensor:
        """What is made small."""
        return self.output + self.spikes.mean() if len(self.spikes) else self.output

    @property
    def known_total(self) -> float:
        """The total to compare by: one that is not a number is further away than any."""
        return float(self.total.nan_to_num(nan=torch.inf))

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return {"output": float(self.output), "spikes": self.spikes.tolist()}

    def figures(self) -> dict[str, Tensor]:
        """What charts show of it, on held-out samples."""
        spikes = self.spikes.mean() if len(self.spikes) else self.output.new_zeros(())
        return {"held_out/distance": self.total, "held_out/output": self.output, "held_out/spikes": spikes}


@dataclass(frozen=True)
class Reached:
    """The state that was kept.

    Args:
        learning_rate: that led to it.
        steps: after so many of them.
        before: distance of the compressed network as it came, on held-out samples.
        after: that of the state.
    """

    learning_rate: float
    steps: int
    before: Distance
    after: Distance

    def to_dict(self) -> dict[str, Any]:
        """JSON-able, for the account of a compression."""
        distances = {"before": self.before.to_dict(), "after": self.after.to_dict()}
        return {"stage": "reconstruct", "learning_rate": self.learning_rate, "steps": self.steps, **distances}


@dataclass
class _Start:
    """A learning rate on its way.

    Args:
        rate: relative to the weights that a layer has left.
        looks: steps taken, the mean of where the last ones led to, and the held-out distance there.
        values: where the last step led to, to go on from.
        distance: at the last look.
        steps: after which it was nearest; none, before the first.
    """

    rate: float
    looks: Iterator[tuple[int, list[Tensor], Distance]]
    values: list[Tensor]
    distance: Distance
    steps: int = 0

    def __post_init__(self) -> None:
        self.kept, self.nearest = self.values, self.distance


class Teacher:
    """The dense network, kept as it was before it is compressed, on the network's own device.

    Args:
        module: it; a copy is kept.
    """

    def __init__(self, module: LightningModule) -> None:
        self.module = deepcopy(module).eval().requires_grad_(False)

    def reconstruct(self, network: Network, accounts: Sequence[LayerCompression], course: Course) -> Reached:
        """Let a compressed network learn, in place, from four fifths of the samples, and judge it by the others.

        Args:
            network: the compressed network, with the samples it learns from.
            accounts: what was done to each layer: masks, grids and outputs that are left.
            course: how it learns.

        Raises:
            CalibrationError: an augmentation of samples that are no pictures.
        """
        x, held = (torch.cat(parts) for parts in zip(*split(network.calibration()), strict=True))
        return _Pupil(network, accounts, self.module, x).learn(held if len(held) else x, course)

    def repeat(
        self, reached: Reached, network: Network, accounts: Sequence[LayerCompression], course: Course
    ) -> tuple[LayerCompression, ...]:
        """Let the compressed network learn, in place, from all samples, at the rate and for the steps that were best.

        Args:
            reached: where :meth:`reconstruct` came to on a part of the samples.
            network, accounts, course: see there.

        Returns:
            The accounts of the layers with their grids of now.

        Raises:
            CalibrationError: see there.
        """
        pupil = _Pupil(network, accounts, self.module, torch.cat([*network.calibration()]))
        pupil.walk(reached, course)
        return pupil.learnt.on_grids(accounts)


class _Pupil:
    """The compressed network, what of it may change, and what it is held against."""

    def __init__(
        self, network: Network, accounts: Sequence[LayerCompression], dense: LightningModule, x: Tensor
    ) -> None:
        self.module, self.dense, self.x = network.module, dense, x
        self.track, self.note = network.track, network.note
        self.neurons = [*neuron_pairs(network, accounts, dense)]
        self.learnt = _Learnt(network.layers, accounts)
        self.at_once = max(1, min(BATCH, MEMORY_BYTES // self._bytes_kept(x[:1])))
        spread, self.energies = self._of_dense(x)
        self.sharpness = 1 / spread

    def learn(self, held: Tensor, course: Course) -> Reached:
        """Start with each learning rate, go on with the one that is ahead; keep the best state of any."""
        rates = LEARNING_RATES[: course.starts]
        start, before = self.learnt.values(), self._held_out(held)
        look_every = max(1, course.steps // LOOKS)
        most = course.steps + max(0, len(rates) - 1) * TRIAL * look_every
        steps = iter(self.track(range(most), "reconstructing what the dense network does"))
        unmoved = _Start(0.0, iter(()), start, before)
        starts = [_Start(rate, self._looks(rate, held, course, look_every, steps), start, before) for rate in rates]
        with self.learnt.watched():
            for one in starts:
                self._follow(one, TRIAL)
            self._follow(min(starts, key=lambda one: one.distance.known_total, default=unmoved), None)
        best = min([unmoved, *starts], key=lambda one: one.nearest.known_total)
        self.learnt.set(best.kept)
        return Reached(best.rate, best.steps, before, best.nearest)

    def _follow(self, start: "_Start", looks: int | None) -> None:
        """Go on from where a start is, for so many looks or to its end."""
        self.learnt.set(start.values)
        for steps, mean, distance in islice(start.looks, looks):
            start.distance, start.values = distance, self.learnt.values()
            if distance.known_total < start.nearest.known_total:
                start.nearest, start.kept, start.steps = distance, mean, steps

    def walk(self, reached: Reached, course: Course) -> None:
        """The same number of steps at the same rate, judged by nothing."""
        mean, steps = self.learnt.values(), self._steps(reached.learning_rate, course)
        with self.learnt.watched():
            for _ in self.track(range(reached.steps), "reconstructing with all samples"):
                _, mean = next(steps)
        self.learnt.set(mean)

    def _looks(
        self, rate: float, held: Tensor, course: Course, look_every: int, numbers: Iterator[int]
    ) -> Iterator[tuple[int, list[Tensor], Distance]]:
        """What a :class:`_Start` looks at, from look to look, until the distance has not fallen for a while."""
        smallest, since = float("inf"), 0
        for (step, mean), _ in zip(self._steps(rate, course), numbers, strict=False):
            if step % look_every == 0:
                distance = self._held_out_at(mean, held)
                self.note(distance.figures())
                since = 0 if distance.known_total < smallest else since + 1
                smallest = min(smallest, distance.known_total)
                yield step, [value.clone() for value in mean], distance
                if since == PATIENCE:
                    return

    def _steps(self, rate: float, course: Course) -> Iterator[tuple[int, list[Tensor]]]:
        """Numbers of the steps, each after it was taken, and the mean of where the last ones led to."""
        optimizer = torch.optim.Adam(self.learnt.groups(rate))
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, course.steps)
        batches, mean, memory = _batches(self.x), self.learnt.values(), max(1.0, AVERAGED * course.steps)
        for step in range(1, course.steps + 1):
            loss = self._step(augmented(next(batches), course.augment, step), optimizer)
            self.note({"reconstruct/loss": loss, "reconstruct/start_rate": rate})
            schedule.step()
            for average, value in zip(mean, self.learnt.all, strict=True):
                average.lerp_(value, 1 / min(step, memory))
            yield step, mean

    def _step(self, x: Tensor, optimizer: torch.optim.Optimizer) -> Tensor:
        """One step down the distance; the distance before it, on these samples."""
        with evaluating(self.module), torch.enable_grad():
            parts = (len(part) / len(x) * self._distance(part).total for part in x.split(self.at_once))
            distance = self.learnt.take_gradients(parts)
        optimizer.step()
        self.learnt.hold()
        return distance

    def _held_out_at(self, values: Sequence[Tensor], x: Tensor) -> Distance:
        """The distance with other values than those of now, which stay."""
        now = self.learnt.values()
        self.learnt.set(values)
        distance = self._held_out(x)
        self.learnt.set(now)
        return distance

    def _held_out(self, x: Tensor) -> Distance:
        with evaluating(self.module):
            parts = [(len(part), self._distance(part)) for part in x.split(self.at_once)]
        return Distance(
            torch.stack([n * part.output for n, part in parts]).sum() / len(x),
            torch.stack([n * part.spikes for n, part in parts]).sum(0) / len(x),
        )

    def _distance(self, x: Tensor) -> Distance:
        with torch.no_grad():
            wanted, dense = run(self.dense, x, [neuron.dense for neuron in self.neurons])
        scores, own = run(self.module, x, [neuron.own for neuron in self.neurons])
        divergence = F.kl_div(
            F.log_softmax(scores * self.sharpness, 1),
            F.log_softmax(wanted * self.sharpness, 1),
            reduction="batchmean",
            log_target=True,
        )
        errors = [
            neuron.energy(spikes - neuron.left(trains)) / (len(x) * energy)
            for neuron, spikes, trains, energy in zip(self.neurons, own, dense, self.energies, strict=True)
        ]
        return Distance(divergence, torch.stack(errors) if errors else divergence.new_zeros(0))

    def _bytes_kept(self, x: Tensor) -> int:
        """What a backward pass would need of the forward pass of some samples."""
        kept: dict[int, int] = {}

        def note(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            kept[storage.data_ptr()] = storage.nbytes()
            return tensor

        saved = torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor)
        with self.learnt.watched(), evaluating(self.module), torch.enable_grad(), saved:
            _ = run(self.module, x, [neuron.own for neuron in self.neurons])  # held, so that no address comes twice
        return max(1, sum(kept.values()))

    def _of_dense(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Spread of the dense scores, and the mean energy of the spikes of each neuron that are left."""
        scores, energies = [], [x.new_zeros(()) for _ in self.neurons]
        with evaluating(self.dense):
            for part in x.split(self.at_once):
                found, trains = run(self.dense, part, [neuron.dense for neuron in self.neurons])
                scores.append(found)
                for place, neuron in enumerate(self.neurons):
                    energies[place] += neuron.energy(neuron.left(trains[place])) / len(x)
        return torch.cat(scores).std().clamp_min(1e-12), [energy.clamp_min(1e-12) for energy in energies]


class _Learnt:
    """What may change: the weights that are left, biases, scales and shifts of BatchNorm, and the scales of grids.

    A quantised weight is the nearest level of a latent one. The gradients of both are LSQ's
    (:func:`compressors.quantization.learnt_step.gradients`).
    """

    def __init__(self, layers: Sequence[Layer], accounts: Sequence[LayerCompression]) -> None:
        of_layer = {account.name: account for account in accounts}
        self.account: dict[int, LayerCompression] = {}
        self.parameters: list[Tensor] = []
        self.scales: list[float] = []
        for layer in layers:
            account = of_layer[layer.name]
            self.account[len(self.parameters)] = account
            self._add(layer.module.weight, layer.module.bias, layer.module.weight.detach()[account.mask])
            if layer.norm is not None and layer.norm.weight is not None:
                self._add(layer.norm.weight, layer.norm.bias, layer.norm.weight.detach())
        self.latent = [parameter.detach().clone() for parameter in self.parameters]
        grids = {place: account.grid for place, account in self.account.items() if account.grid is not None}
        self.steps = {place: grid.scale.clone() for place, grid in grids.items()}  # of a parameter's grid

    def _add(self, weight: Tensor, bias: Tensor | None, left: Tensor) -> None:
        scale = float(left.square().mean().sqrt()) if left.numel() else 0.0
        self.parameters += [weight] if bias is None else [weight, bias]
        self.scales += [scale] * (len(self.parameters) - len(self.scales))

    def groups(self, rate: float) -> list[dict[str, Any]]:
        """The latent values and the scales of grids for an optimizer, each with its own rate."""
        sizes = [*self.scales, *(STEP_SHARE * float(step.square().mean().sqrt()) for step in self.steps.values())]
        return [{"params": [value], "lr": rate * size} for value, size in zip(self.all, sizes, strict=True)]

    @property
    def all(self) -> list[Tensor]:
        """The latent values and the scales themselves."""
        return [*self.latent, *self.steps.values()]

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Gradients reach the network's values inside, those that are frozen too."""
        frozen = [parameter for parameter in self.parameters if not parameter.requires_grad]
        try:
            for parameter in frozen:
                parameter.requires_grad_(True)
            yield
        finally:
            for parameter in frozen:
                parameter.requires_grad_(False)

    def take_gradients(self, distances: Iterable[Tensor]) -> Tensor:
        """The gradient of the sum of some distances, masked, to the latent values; the sum."""
        total, sums = torch.zeros(()), [torch.zeros_like(latent) for latent in self.latent]
        for distance in distances:
            found = torch.autograd.grad(distance, self.parameters, allow_unused=True)
            sums = [known if new is None else known + new for known, new in zip(sums, found, strict=True)]
            total = total + distance.detach()
        for place, (latent, gradient) in enumerate(zip(self.latent, sums, strict=True)):
            latent.grad = gradient
            if place in self.account:
                latent.grad *= self.account[place].mask
            if place in self.steps:
                latent.grad, self.steps[place].grad = gradients(self._grid(place), latent.grad, latent)
        return total

    def hold(self) -> None:
        """The network's values are the latent ones, on their grids and masks."""
        with torch.no_grad():
            for place, (parameter, latent) in enumerate(zip(self.parameters, self.latent, strict=True)):
                parameter.copy_(self._rounded(place, latent) if place in self.steps else latent)

    def _rounded(self, place: int, latent: Tensor) -> Tensor:
        return self._grid(place).nearest(latent.flatten(1)).view_as(latent) * self.account[place].mask

    def _grid(self, place: int) -> Grid:
        """A parameter's grid of now; its scale stays above 0 wherever learning has taken it."""
        grid = self.account[place].grid
        assert grid is not None
        least = torch.finfo(grid.scale.dtype).tiny * 2**grid.bits
        return replace(grid, scale=self.steps[place].clamp_min(least))

    def on_grids(self, accounts: Sequence[LayerCompression]) -> tuple[LayerCompression, ...]:
        """The accounts with the grids of now."""
        grids = {self.account[place].name: self._grid(place) for place in self.steps}
        return tuple(replace(account, grid=grids.get(account.name)) for account in accounts)

    def values(self) -> list[Tensor]:
        """A copy of the latent values and the scales."""
        return [value.clone() for value in self.all]

    def set(self, values: Sequence[Tensor]) -> None:
        """Go back to such a copy."""
        for now, value in zip(self.all, values, strict=True):
            now.copy_(value)
        self.hold()


def _batches(x: Tensor) -> Iterator[Tensor]:
    """Batches without end, in an order drawn anew each time round."""
    for round_ in count():
        order = torch.randperm(len(x), generator=torch.Generator().manual_seed(round_))
        yield from (x[part] for part in order.split(BATCH))
