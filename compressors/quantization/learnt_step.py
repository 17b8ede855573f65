"""LSQ's quantiser: a grid whose step is learnt, with the gradient that its authors give it.

Esser, McKinstry, Bablani, Appuswamy and Modha, "Learned Step Size Quantization" (ICLR 2020, arXiv 1902.08153).
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from compressors.quantization.grids import Grid


@dataclass(frozen=True, eq=False)
class LearntStep:
    """``W -> s round(clamp(W / s, -2^(b-1), 2^(b-1) - 1))`` with a step ``s`` that is trained.

    Args:
        bits: b, 2 to 8.
        step: ``s``, ``[out, 1]`` or ``[1, 1]``; its gradient is written to ``step.grad``.
        power_of_two: round the step to the nearest power of two (in its logarithm); its gradient passes straight
            through that rounding.
    """

    bits: int
    step: nn.Parameter
    power_of_two: bool = False

    @classmethod
    def of(cls, weight: Tensor, bits: int, per: str, power_of_two: bool) -> "LearntStep":
        """With the step that training begins at: ``2 mean|W| / sqrt(2^(b-1) - 1)``; 1 where all weights are zero.

        Args:
            weight: ``[out, ...]``.
            bits: 2 to 8.
            per: a step for each output ``channel``, or one for the whole ``tensor``.
            power_of_two: of the step.
        """
        rows = weight.detach().flatten(1)
        rows = rows if per == "channel" else rows.reshape(1, -1)
        step = 2 * rows.abs().mean(1, keepdim=True) / (2 ** (bits - 1) - 1) ** 0.5
        return cls(bits, nn.Parameter(torch.where(step > 0, step, 1.0)), power_of_two)

    @property
    def scale(self) -> Tensor:
        """The step that weights are rounded with; above 0 wherever training has taken it."""
        step = self.step.detach().clamp_min(torch.finfo(self.step.dtype).tiny * 2**self.bits)
        return step.log2().round().exp2() if self.power_of_two else step

    def grid(self) -> Grid:
        """The levels of now."""
        scale = self.scale
        return Grid(self.bits, scale, torch.full_like(scale, 2 ** (self.bits - 1)))

    def value(self, latent: Tensor) -> Tensor:
        """A weight ``[out, ...]`` on the grid."""
        return self.grid().nearest(latent.flatten(1)).view_as(latent)

    def backward(self, gradient: Tensor, latent: Tensor) -> Tensor:
        """The gradient of the weight behind, see :func:`gradients`; writes that of the step.

        That is multiplied by ``1 / sqrt(n q)``, n the number of weights of a step and q the highest level.
        """
        of_weight, of_step = gradients(self.grid(), gradient, latent)
        high = 2 ** (self.bits - 1) - 1
        self.step.grad = of_step / (latent.numel() / len(self.step) * high) ** 0.5
        return of_weight


def gradients(grid: Grid, gradient: Tensor, latent: Tensor) -> tuple[Tensor, Tensor]:
    """The gradients of the weight behind ``[out, ...]`` and of the grid's scale, from that of the rounded weight.

    That of the weight goes straight through where it is not clamped. With ``v = W / s`` the value's derivative by the
    scale is ``round(v) - v`` between the outermost levels, and they themselves at and beyond them; it is added up over
    the weights of a scale.
    """
    low, high = -grid.zero, 2**grid.bits - 1 - grid.zero
    steps = latent.flatten(1) / grid.scale
    inside = (steps > low) & (steps < high)
    slope = torch.where(inside, steps.round() - steps, torch.minimum(torch.maximum(steps, low), high))
    of_scale = (gradient.flatten(1) * slope).reshape(len(grid.scale), -1).sum(1, keepdim=True)
    return gradient * inside.view_as(gradient), of_scale
