"""What a network is trained to make small: losses of its outputs at every time step."""

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor

Loss = Callable[[Tensor, Tensor, float], Tensor]
"""Of outputs ``[T, B, K]``, the target (below) and label smoothing, 0 to 1; a mean over the batch.

The target is a class ``[B]`` or, after mixup, a share of each class ``[B, K]``. Label smoothing takes that share from
the target and deals it out to all classes evenly.
"""

TET_LAMBDA, TET_MEAN = 0.05, 1.0
"""Weight of the regulariser in :func:`temporal_efficient_training`, and the output that it draws to: the threshold."""


def rate_mse(outputs: Tensor, target: Tensor, smoothing: float = 0.0) -> Tensor:
    """Squared distance of firing rates, the mean over time, to the target (rate 1, the others 0), summed over classes.

    That of SBC (arXiv 2506.03996) and of SpikingJelly's examples.
    """
    rates = outputs.mean(0)
    wanted = (target if target.ndim == 2 else F.one_hot(target, rates.shape[1])).to(rates)
    if smoothing:
        wanted = wanted * (1 - smoothing) + smoothing / rates.shape[1]
    return F.mse_loss(rates, wanted) * rates.shape[1]


def cross_entropy(outputs: Tensor, target: Tensor, smoothing: float = 0.0) -> Tensor:
    """Cross-entropy of the mean output over time."""
    return F.cross_entropy(outputs.mean(0), target, label_smoothing=smoothing)


def temporal_efficient_training(outputs: Tensor, target: Tensor, smoothing: float = 0.0) -> Tensor:
    """TET: the mean over time of each step's cross-entropy, and a pull of all outputs to the threshold.

    (1 - lambda) mean_t CE(o_t, y) + lambda mean_t MSE(o_t, phi) with lambda 0.05, phi 1 (Deng et al., ICLR 2022,
    arXiv 2202.11946, equations 11 to 13).
    """
    steps, batch = outputs.shape[:2]
    every = target.repeat(steps, *(1,) * (target.ndim - 1))
    entropy = F.cross_entropy(outputs.reshape(steps * batch, -1), every, label_smoothing=smoothing)
    return (1 - TET_LAMBDA) * entropy + TET_LAMBDA * (outputs - TET_MEAN).square().mean()


LOSSES: dict[str, Loss] = {
    "rate_mse": rate_mse,
    "cross_entropy": cross_entropy,
    "tet": temporal_efficient_training,
}
