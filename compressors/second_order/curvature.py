"""What a layer's loss is measured with: its least-squares problem, from calibration data."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from compressors.calibration.hessians import CalibrationError, drift, hessians, parts_of
from compressors.calibration.network import Network
from compressors.network.layers import Layer
from compressors.options import require_known
from compressors.second_order import obs
from compressors.second_order.problem import Problem

CORRECTION = 0.5  # of the way to the target that makes up for the changed inputs; QEP's default (arXiv 2504.09629)
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

    Raises:
        OptionError: a precision that there is not.
    """

    damping: float
    precision: str
    weigh_rows: bool
    max_memory: int

    def __post_init__(self) -> None:
        require_known("precision", self.precision, PRECISIONS)

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
            by_layer = hessians(
                network.module, part, responses, network.calibration, dtype=self.dtype, parameters=dense
            )
            return {layer.name: self.problem(layer, dense, by_layer.pop(layer.name)) for layer in part}

        parts = parts_of(network.layers, self.dtype, self.max_memory)
        return ProblemsInParts({layer.name: part for part in parts for layer in part}, measured)

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
        self, network: Network, layer: Layer, response: Tensor | None, dense: Mapping[str, Tensor]
    ) -> Problem:
        """The problem on the inputs that the compressed layers before this one leave it with.

        With inputs ``z'`` in place of ``z``, the least-squares weight for the dense output is
        ``W + W E[(z - z') z'^T] E[z' z'^T]^-1``; the damping keeps it near ``W``.
        """
        seen, change = drift(network.module, layer, response, network.calibration, dense, dtype=self.dtype)
        problem = self.problem(layer, dense, seen)
        groups, _, columns = problem.hessian.shape
        step = problem.weight.view(groups, -1, columns) @ change @ obs.inverse(problem.hessian)
        return replace(problem, weight=problem.weight + CORRECTION * step.reshape(problem.weight.shape))


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

    def __getitem__(self, name: str) -> Problem:
        if name not in self._held:
            self._held = {}  # first, so that two parts are never held at once
            self._held = self._measure(self._parts[name])
        return self._held[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._parts)

    def __len__(self) -> int:
        return len(self._parts)
