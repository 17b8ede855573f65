"""A network begun anew: weights drawn again, as if it had never been trained."""

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from compressors.network.layers import COMPRESSIBLE


def begin_anew(network: nn.Module, seed: int) -> None:
    """Draw the weights of layers and BatchNorms again, as their classes do."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        for module in network.modules():
            if isinstance(module, (*COMPRESSIBLE, _BatchNorm)):
                module.reset_parameters()
