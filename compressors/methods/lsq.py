"""LSQ: quantisation-aware training with a learnt step."""

from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import nn

from compressors.budget import Budget
from compressors.calibration.network import Network
from compressors.compression import LayerCompression
from compressors.options import require_known
from compressors.quantization.grids import SCOPES
from compressors.quantization.learnt_step import LearntStep
from compressors.weights.latent import LatentTraining


class LSQ(LatentTraining):
    """Trains the network on rounded weights, and with them the steps of their grids.

    Esser and others, "Learned Step Size Quantization" (ICLR 2020, arXiv 1902.08153): the quantiser, the step that
    training begins at, and the scaled gradient of the step. This is what guides to deployment mean by
    quantisation-aware training. Taken for weights alone: between spiking layers there is nothing to quantise. The
    steps are trained by the network's own optimizer, each with the settings (rate, weight decay) of its layer's
    weights. The authors give the first and the last layer 8 bits; here all layers get the same, and ``exclude`` leaves
    some alone.

    Without fine-tuning the steps stay as training would begin: ``rtn`` rounds better then.

    Args:
        bits: width of a weight, 2 to 8.
        per: a step for each output ``channel``, or one for the whole ``tensor`` (the authors').
        power_of_two: steps are powers of two, so that hardware can shift in place of multiplying.

    The other options are those of :class:`~compressors.base.Compressor`.
    """

    budgets: ClassVar[tuple[str, ...]] = ("bits",)

    per: str = "channel"
    power_of_two: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        require_known("per", self.per, SCOPES)

    @property
    def idle(self) -> bool:
        """Whether no width is given, and nothing else is to be done."""
        return self.goal == Budget() and not self.aftercare

    def compress(self, network: Network) -> tuple[LayerCompression, ...]:
        """Give every layer a step, and leave rounded weights in place."""
        if self.bits is not None:
            self.latent.rules = {
                layer.name: LearntStep.of(layer.module.weight, self.bits, self.per, self.power_of_two)
                for layer in network.layers
            }
        self.latent.put(network.module)
        weights = {layer.name: layer.module.weight for layer in network.layers}
        return tuple(
            self.account(LayerCompression(name, tuple(weight.shape), torch.ones_like(weight, dtype=torch.bool)))
            for name, weight in weights.items()
        )

    def account(self, entry: LayerCompression) -> LayerCompression:
        """The account of a layer with its grid and codes."""
        behind, rule = self.latent.kept.get(entry.name), self.latent.rules.get(entry.name)
        if behind is None or not isinstance(rule, LearntStep):
            return entry
        grid = rule.grid()
        return replace(entry, grid=grid, codes=grid.codes(behind.flatten(1)).view_as(behind))

    def beside(self) -> dict[str, list[nn.Parameter]]:
        """The steps."""
        return {name: [step] for name, step in self._steps().items()}

    def _steps(self) -> dict[str, nn.Parameter]:
        return {name: rule.step for name, rule in self.latent.rules.items() if isinstance(rule, LearntStep)}

    def state_dict(self) -> dict[str, Any]:
        """The account, the weights behind the rounded ones, and the steps."""
        return super().state_dict() | {"steps": {name: step.detach() for name, step in self._steps().items()}}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on where the checkpoint was saved."""
        super().load_state_dict(state_dict)
        if self.bits is not None:
            steps = {name: nn.Parameter(step.clone()) for name, step in state_dict["steps"].items()}
            self.latent.rules = {name: LearntStep(self.bits, step, self.power_of_two) for name, step in steps.items()}
