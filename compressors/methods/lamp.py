"""LAMP: magnitude pruning with layer-adaptive sparsities."""

from collections.abc import Mapping
from functools import partial
from typing import Any

from compressors.budget import OptionError
from compressors.calibration.network import Network
from compressors.methods.magnitude import Magnitude
from compressors.weights.allocation import Allocation, lamp


class LAMP(Magnitude):
    """Keeps the weights with the largest squared magnitude relative to what survives them in their layer.

    Lee, Park, Mo, Ahn and Shin, "Layer-adaptive sparsity for the magnitude-based pruning" (ICLR 2021, arXiv
    2010.07611): the score of a weight is ``w_u^2`` over the sum of ``w_v^2`` of the weights of its layer that are not
    smaller, and the largest scores of the network stay, in each layer always its largest weights. No data are looked
    at. The authors prune in rounds of 20 % with training between them: ``schedule: 0.8`` and fine-tuning.

    It *is* magnitude pruning with ``allocation: lamp``, but for :meth:`factors`, which SLAMP replaces.

    The options are those of :class:`~compressors.weights.pruner.Pruner`; ``allocation`` is ``lamp`` and nothing else.
    """

    control = False

    allocation: str = "lamp"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.allocation != "lamp":
            raise OptionError(
                f"{type(self).__name__} splits the budget by its own scores: leave out `allocation`, "
                f"or take 'magnitude' with allocation {self.allocation!r}"
            )

    def factors(self, network: Network, statistics: Mapping[str, Any]) -> dict[str, float]:
        """What the scores of each layer are multiplied with: one."""
        return dict.fromkeys(statistics, 1.0)

    def rule(self, network: Network, statistics: Mapping[str, Any]) -> Allocation:
        """The best scores of the whole network, each layer's multiplied by its factor."""
        return partial(lamp, factors=self.factors(network, statistics))
