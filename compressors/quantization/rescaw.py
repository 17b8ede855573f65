"""ReScaW, the weight quantiser of QP-SNN: weights are rescaled before rounding, so that they use all codes.

Wei and others, "QP-SNN: Quantized and Pruned Spiking Neural Networks" (ICLR 2025, arXiv 2502.05905).
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from compressors.quantization.grids import Grid
from hardware.memory import WeightCoding

GRADIENTS = ("masked", "scaled")


class MidRise(Grid):
    """A symmetric grid without zero: levels ``scale * (code - (2^b - 1) / 2)``, the outermost ones ``-gamma, gamma``.

    ``zero`` is a half: no code stands for zero, and a grid has as many levels above it as below.
    """

    @classmethod
    def of(cls, gamma: Tensor, bits: int) -> "MidRise":
        """The grid from ``-gamma`` to ``gamma``, ``[rows, 1]`` or ``[1, 1]``; gamma > 0."""
        top = 2**bits - 1
        return cls(bits, 2 * gamma / top, torch.full_like(gamma, top / 2))

    def _codes(self, weight: Tensor) -> Tensor:
        return (weight / self.scale + self.zero).clamp_(0, 2**self.bits - 1).round_()

    def coding(self) -> WeightCoding:
        """How hardware stores weights on this grid: codes and scales; a pruned weight would need a mask."""
        return WeightCoding(
            self.bits, scales=self.scale.numel(), scale_bits=8 * self.scale.element_size(), has_zero=False
        )


def mean_magnitude(rows: Tensor, quantile: float) -> Tensor:
    """``|W|_1 / |W|`` of each row: QP-SNN's choice of gamma."""
    return rows.abs().mean(1, keepdim=True)


def largest_magnitude(rows: Tensor, quantile: float) -> Tensor:
    """``max |W|`` of each row."""
    return rows.abs().amax(1, keepdim=True)


def percentile(rows: Tensor, quantile: float) -> Tensor:
    """The larger magnitude of two quantiles of each row, such as the 0.99 and the 0.01 quantile."""
    both = torch.tensor([quantile, 1 - quantile], dtype=torch.float64, device=rows.device)
    ends = torch.quantile(rows.double(), both, 1)
    return ends.abs().amax(0)[:, None].to(rows)


def unscaled(rows: Tensor, quantile: float) -> Tensor:
    """1: the plain quantiser that ReScaW is compared with, whose codes reach from -1 to 1."""
    return torch.ones_like(rows[:, :1])


GAMMAS: dict[str, Callable[[Tensor, float], Tensor]] = {
    "mean": mean_magnitude,
    "max": largest_magnitude,
    "percentile": percentile,
    "none": unscaled,
}
"""Gamma ``[rows, 1]`` of a weight ``[rows, d]`` and the quantile, which ``percentile`` alone looks at."""


@dataclass(frozen=True)
class ReScaW:
    """``W -> gamma (2/s round(s/2 (clamp(W/gamma, -1, 1) + 1)) - 1)`` with ``s = 2^bits - 1``.

    Gamma takes no gradient. With the mean magnitude for gamma, 42 % of the weights of a Gaussian layer end at the two
    outermost levels, and none at zero: a network that was trained without ReScaW is mostly clipped, and has to be
    trained again; ``max`` and ``percentile`` hardly clip.

    Args:
        bits: 2 to 8.
        gamma: ``mean`` (the paper's default), ``max``, ``percentile``, or ``none`` (1: no rescaling).
        per: one gamma for each output ``channel``, as in the published code, or for the whole ``tensor``, as the
            paper's formula reads.
        gradient: ``masked``, the paper's straight-through gradient: 1 where ``|W| <= gamma``, else 0; or ``scaled``,
            that of the published code: ``1 / gamma`` everywhere.
        quantile: of the weights that gamma is with ``percentile``, 0.5 to 1.
    """

    bits: int
    gamma: str = "mean"
    per: str = "channel"
    gradient: str = "masked"
    quantile: float = 0.99

    def scale(self, weight: Tensor) -> Tensor:
        """Gamma of a weight ``[out, ...]``: ``[out, 1]`` or ``[1, 1]``; above 0, as good as 0 for a row of zeros."""
        rows = weight.detach().flatten(1)
        gamma = GAMMAS[self.gamma](rows if self.per == "channel" else rows.reshape(1, -1), self.quantile)
        return gamma.clamp_min(torch.finfo(gamma.dtype).tiny * 2**self.bits)

    def grid(self, weight: Tensor) -> MidRise:
        """The grid of a weight ``[out, ...]``."""
        return MidRise.of(self.scale(weight), self.bits)

    def value(self, latent: Tensor) -> Tensor:
        """A weight ``[out, ...]`` on its grid."""
        return self.grid(latent).nearest(latent.flatten(1)).view_as(latent)

    def backward(self, gradient: Tensor, latent: Tensor) -> Tensor:
        """The straight-through gradient of the weight behind, from that of the rounded one."""
        return gradient * self.slope(latent).to(gradient)

    def slope(self, weight: Tensor) -> Tensor:
        """The factor from the gradient of the quantised weight to that of the weight; of its shape."""
        gamma = self.scale(weight).reshape(-1, *[1] * (weight.ndim - 1))
        if self.gradient == "scaled":
            return (1 / gamma).expand_as(weight)
        return (weight.detach().abs() <= gamma).to(weight)
