"""What a layer's loss is measured with: its least-squares problem, from calibration data."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from compressors.budget import OptionError
from compressors.calibration.augmentation import with_copies
from compressors.calibration.fisher import fisher_hessians, groups_of
from compressors.calibration.held_out import fitted, held_out
from compressors.calibration.hessians import CalibrationError, Drift, drift, hessians, parts_of
from compressors.calibration.network import Network
from compressors.network.layers import Layer
from compressors.options import require_known
from compressors.second_order import obs
from compressors.second_order.problem import Problem

CORRECTION = 0.5
"""How far a layer goes to the target that makes up for its changed inputs; QEP's default (arXiv 2504.09629)."""

PRECISIONS = {"float64": torch.float64, "float32": torch.float32}

Response = Callable[[Layer], Tensor | None]
"""Layer -> the filter over time ``[T]`` through which its inputs are seen; None where they are seen as they are."""


@dataclass(frozen=True)
class Curvature:
    """Which Hessian: what a layer's loss is measured with.

    Args:
        damping: added to the Hessian's diagonal, in units of its mean.
        precision: ``float64`` or ``float32``.
        weigh_rows: whether rows compete by the factor with which BatchNorm passes their output on.
        max_memory: bytes of the Hessians held at once.
        fisher: whether an input counts by what an error of the output would cost the network
            (:mod:`compressors.calibration.fisher`).
        copies: of each sample that are seen besides it, changed as ``augment`` says.
        augment: see :func:`~compressors.calibration.augmentation.augmented`.

    Raises:
        OptionError: a precision that there is not, or copies that nothing changes.
    """

    damping: float
    precision: str
    weigh_rows: bool
    max_memory: int
    fisher: bool = False
    copies: int = 0
    augment: Sequence[str] = ()

    def __post_init__(self) -> None:
        require_known("precision", self.precision, PRECISIONS)
        if self.copies and not self.augment:
            raise OptionError("copies are of samples that `augment` changes: say how, or leave them out")

    @property
    def dtype(self) -> torch.dtype:
        """Of the Hessians and the solver."""
        return PRECISIONS[self.precision]

    def problems(self, network: Network, response: Response, dense: Mapping[str, Tensor]) -> "ProblemsInParts":
        """Every layer's least-squares problem on the inputs that the dense network leaves it with.

        Args:
            network: with its calibration data.
            response: of each layer.
            dense: weights by qualified name (``conv1.weight``).
        """
        responses = {layer.name: response(layer) for layer in network.layers}

        def measured(part: Sequence[Layer]) -> dict[str, Problem]:
            measure = fisher_hessians if self.fisher else hessians
            batches = lambda: self._seen(network.calibration())  # noqa: E731
            by_layer = measure(network.module, part, responses, batches, dtype=self.dtype, parameters=dense)
            return {layer.name: self.problem(layer, dense, by_layer.pop(layer.name)) for layer in part}

        parts = parts_of(network.layers, {layer.name: self._bytes(layer) for layer in network.layers}, self.max_memory)
        return ProblemsInParts({layer.name: part for part in parts for layer in part}, measured)

    def _seen(self, batches: Iterable[Tensor]) -> Iterator[Tensor]:
        return with_copies(batches, self.augment, self.copies)

    def _bytes(self, layer: Layer) -> int:
        """What a layer's Hessians take."""
        groups = groups_of(layer) if self.fisher else layer.groups
        return groups * layer.rows.shape[1] ** 2 * self.dtype.itemsize

    def problem(self, layer: Layer, dense: Mapping[str, Tensor], hessian: Tensor) -> Problem:
        """A layer's problem from its dense weight and its Hessian ``[groups, d, d]`` without damping.

        Raises:
            CalibrationError: the Hessian is not finite.
        """
        weight = dense[f"{layer.name}.weight"].flatten(1).to(hessian)
        factor = layer.batchnorm_factor().to(weight) if self.weigh_rows else weight.new_ones(len(weight))
        try:
            return Problem.of(weight, hessian, factor, self.damping)
        except obs.HessianError as error:
            raise CalibrationError(f"layer {layer.name!r}: {error}") from error

    def problem_as_compressed(
        self,
        network: Network,
        layer: Layer,
        response: Tensor | None,
        dense: Mapping[str, Tensor],
        strength: float | None = CORRECTION,
    ) -> tuple[Problem, float]:
        """The problem on the inputs that the compressed layers before this one leave it with, and the strength.

        With inputs ``z'`` in place of ``z``, the least-squares weight for the dense output is ``W + S`` with
        ``S = W E[(z - z') z'^T] E[z' z'^T]^-1``; the damping keeps it near ``W``. The problem's weight is
        ``W + strength S``. Where the strength is None it is the one, between 0 and 1, that brings the layer nearest
        to its dense output on held-out samples when ``S`` is that of the others (:func:`best_strength`).
        """

        def measured(samples: Callable[[Iterable[Tensor]], Iterable[Tensor]]) -> Drift:
            batches = lambda: self._seen(samples(network.calibration()))  # noqa: E731
            return drift(network.module, layer, response, batches, dense, dtype=self.dtype)

        if strength is None:
            others, held = measured(fitted), measured(held_out)
            problem = self.problem(layer, dense, others.seen)
            strength = best_strength(problem.weight, _step(problem, others), held)
            found = others + held
        else:
            found = measured(iter)
        problem = self.problem(layer, dense, found.seen)
        return replace(problem, weight=problem.weight + strength * _step(problem, found)), strength


def _step(problem: Problem, found: Drift) -> Tensor:
    """From the dense weight to the least-squares one on the changed inputs: ``[rows, d]``."""
    groups, _, columns = problem.hessian.shape
    step = problem.weight.view(groups, -1, columns) @ found.change @ obs.inverse(problem.hessian)
    return step.reshape(problem.weight.shape)


def best_strength(weight: Tensor, step: Tensor, held: Drift) -> float:
    """The ``a`` in [0, 1] for which ``(W + a S) z'`` is nearest to ``W z`` on the samples of ``held``.

    The error ``|W (z - z') - a S z'|^2`` is a parabola in a, least at ``<W C, S> / <S G, S>`` with C the change and
    G the second moments of ``z'``.

    Args:
        weight: W ``[rows, d]``.
        step: S ``[rows, d]``.
        held: of samples that S does not know.
    """
    groups, _, columns = held.seen.shape
    w, s = (matrix.view(groups, -1, columns) for matrix in (weight, step))
    curvature = float((s @ held.seen * s).sum())
    if curvature <= 0:  # the inputs have not changed
        return 0.0
    return min(max(float((w @ held.change * s).sum()) / curvature, 0.0), 1.0)


class ProblemsInParts(Mapping[str, Problem]):
    """The layers' problems by name, measured part by part: when one is asked for, with those of its part.

    Those of the last part are held, so that memory is that of one part.

    Args:
        parts: each layer's part, by name, in the order in which they are worked on.
        measure: a part's problems by layer name.
    """

    def __init__(
        self, parts: Mapping[str, Sequence[Layer]], measure: Callable[[Sequence[Layer]], dict[str, Problem]]
    ) -> None:
        self._parts, self._measure = parts, measure
        self._held: dict[str, Problem] = {}

    @property
    def in_one_part(self) -> bool:
        """Whether all of them are held at once."""
        return len({tuple(layer.name for layer in part) for part in self._parts.values()}) == 1

    def __getitem__(self, name: str) -> Problem:
        if name not in self._held:
            self._held = {}  # first, so that two parts are never held at once
            self._held = self._measure(self._parts[name])
        return self._held[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._parts)

    def __len__(self) -> int:
        return len(self._parts)
