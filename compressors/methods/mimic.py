"""Mimic: SBC by small steps, after each of which what is left learns to act as the dense network did."""

from dataclasses import replace
from typing import ClassVar

from compressors.base import Texts
from compressors.budget import Budget
from compressors.calibration.network import Network
from compressors.calibration.reconstruction import Course
from compressors.methods.sbc import SBC
from compressors.weights.schedule import Schedule

FACTOR = 0.5  # of the weights that are left: what stays in each round, unless a pattern fixes the density


class Mimic(SBC):
    """SBC's cut in rounds, each followed by gradients towards the dense network's spikes and answers; no label.

    SBC judges a weight by the membrane of the layer that it feeds, on the inputs of the dense network, as if neurons
    were never reset, and as if an error of one layer were no matter of the next. The weights it leaves can do better
    than that problem says. So this method goes on from there:

    1. *Objective.* After a cut, masks are held, and what is left follows the surrogate gradient of

           D = KL(p* || p) + mean_l |F_l (s_l - s_l*)|^2 / |F_l s_l*|^2

       over the calibration samples, p the softmax of the scores and s_l the spikes after layer l, with a star those of
       the dense network, F_l the filter over time of the neuron that sends them
       (:mod:`compressors.calibration.reconstruction`). The second term is SBC's own measure, the van Rossum distance,
       of the spikes themselves: with the reset, behind all layers before, and relative to what the layer sends, so
       that no layer drowns another. The first says which of the errors that are left matter.
    2. *Held out.* A fifth of the samples takes no part. The state nearest to the dense network on them is kept, be it
       the one before the first step: no round ends further away than its cut left it.
    3. *Rounds.* The density falls by :attr:`schedule`'s factor. Each round judges the weights that are left by the
       curvature of the network that has learnt, not of the dense one, and begins nearer to the goal. Earlier rounds
       learn for a part of the steps only.
    4. *Shifts.* A hundred samples are soon known by heart; pictures moved by up to a sixteenth of their side are not,
       and the dense network answers them too. ``augment=()`` where the place of things decides their class. Inputs that
       are no pictures stay as they are.

    Nothing here sees a label: the dense network is the teacher. A gradient is taken all the same, though not of the
    task's loss, so that its runs stand in the division "post-training, reconstructed".

    Every choice was made on the embedded digits before an event camera, on which no table of this project's comparisons
    rests. What was tried there and left: one cut with as many steps (further away), rounds without shifts (as well, not
    better than one cut), larger shifts and twice the learning rate (worse).

    Args:
        schedule: the share of its weights that a round leaves; None for one cut.
        augment: see :class:`~compressors.base.Compressor`.

    The other options are those of :class:`~compressors.methods.sbc.SBC`.
    """

    reconstructs: ClassVar[bool] = True

    schedule: Schedule = FACTOR
    augment: Texts = ("shift",)

    def __post_init__(self) -> None:
        care = (self.aftercare,) if isinstance(self.aftercare, str) else tuple(self.aftercare)
        self._set("aftercare", care if "reconstruct" in care else (*care, "reconstruct"))
        super().__post_init__()

    @property
    def idle(self) -> bool:
        """Whether there is no budget, so that there is nothing to learn, and no other care is asked for."""
        return self.goal == Budget() and self.aftercare == ("reconstruct",)

    @property
    def rounds(self) -> tuple[Budget, ...]:
        """The budgets of all rounds; a pattern fixes the density, and is cut at once."""
        if self.layer_solver.pattern.groups and self.schedule == FACTOR:
            return (self.goal,)
        return super().rounds

    def rounds_at_once(self, epochs: int) -> bool:
        """All rounds are done before the first epoch, if there is any."""
        return True

    def course(self, network: Network) -> Course:
        """As its options say; inputs that are no pictures stay as they are."""
        course = super().course(network)
        return course if next(iter(network.calibration())).dim() >= 4 else replace(course, augment=())
