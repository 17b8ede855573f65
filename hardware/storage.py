"""How a layer's weights are stored, noted on the layer itself by whoever quantised it.

A note goes wherever its module goes: through `copy.deepcopy`, pickling and moves between devices. It is believed only
while the weights lie on the grid it describes; a layer that was trained on since then is one of floats again.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from hardware.memory import WeightCoding

_ATTRIBUTE = "stored_weights"


@dataclass(frozen=True, eq=False)
class StoredWeights:
    """Weights on the levels `scale * (code - zero)`, for the codes 0 to 2^bits - 1.

    Args:
        coding: the bits of a code, and of what stands beside the codes.
        scale: the step between two levels, [rows, 1] (one for each output) or [1, 1].
        zero: the code of the value zero, of the same shape; a half more than a whole number on grids without zero.
    """

    coding: WeightCoding
    scale: Tensor
    zero: Tensor

    def hold(self, weight: Tensor) -> bool:
        """Whether every weight [rows, ...] lies on the grid to the bit, or is a zero that was pruned."""
        rows = weight.detach().flatten(1)
        scale, zero = self.scale.to(rows.device), self.zero.to(rows.device)
        if len(scale) not in (1, len(rows)):
            return False
        codes = (rows.to(scale.dtype) / scale + zero).round_().clamp_(0, 2**self.coding.bits - 1)
        levels = codes.sub_(zero).mul_(scale).to(rows.dtype)
        return bool(torch.all((levels == rows) | (rows == 0)))


def note(module: nn.Module, stored: StoredWeights) -> None:
    """Note on a layer how its weights are stored."""
    setattr(module, _ATTRIBUTE, stored)


def noted(net: nn.Module) -> dict[str, tuple[nn.Module, StoredWeights]]:
    """The layers of a network that carry a note, by name; a network that is a single layer goes by its class."""
    stored_layers = {}
    for name, module in net.named_modules():
        stored = vars(module).get(_ATTRIBUTE)
        if isinstance(stored, StoredWeights):
            stored_layers[name or type(net).__name__] = (module, stored)
    return stored_layers
