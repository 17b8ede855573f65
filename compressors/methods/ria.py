"""RIA: Wanda with each magnitude relative to those of its row and of its column (control)."""

from torch import Tensor

from compressors.annotations import NotNegative
from compressors.methods.wanda import Wanda


class RIA(Wanda):
    """Wanda by *relative* importance: what a weight is of its row's magnitude, and of its column's.

    Zhang and others, "Plug-and-Play: An Efficient Post-training Pruning Method for Large Language Models" (ICLR 2024):
    ``(|w_ij| / sum_i |w_ij| + |w_ij| / sum_j |w_ij|) ||x_j||_2^a``, so that no input and no output loses all its
    weights because they are small. A column of a grouped convolution is one of its group. Taken is the score; the
    paper's permutation of channels for N:M patterns is not. Rivals are those of a row by default, as in
    :class:`~compressors.methods.wanda.Wanda`, so that the two differ in the score alone.

    Args:
        power: a, of the norm of the inputs; the authors' is 1/2.

    The other options are those of :class:`~compressors.methods.wanda.Wanda`.
    """

    power: NotNegative = 0.5

    def scores(self, magnitudes: Tensor, norms: Tensor) -> Tensor:
        """Relative magnitudes times a power of the norms; nothing is relative to a row or column of zeros."""
        of_column, of_row = magnitudes.sum(1, keepdim=True), magnitudes.sum(2, keepdim=True)
        relative = sum((magnitudes / whole).nan_to_num(0.0) for whole in (of_column, of_row))
        return relative * norms.pow(self.power)
