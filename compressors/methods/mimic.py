"""Mimic: SBC's cut, made up for layer by layer, after which what is left learns to act as the dense network did."""

from dataclasses import replace
from typing import ClassVar, Literal

from compressors.annotations import Count, Share
from compressors.base import Texts
from compressors.budget import Budget
from compressors.calibration.network import Network
from compressors.calibration.reconstruction import Course
from compressors.methods.sbc import SBC


class Mimic(SBC):
    """SBC's cut, then gradients towards the dense network's spikes and answers; no label.

    SBC judges a weight by the membrane of the layer that it feeds, on the inputs of the dense network, as if neurons
    were never reset, and as if an error of one layer were no matter of the next. The weights it leaves can do better
    than that problem says. So this method goes on from there:

    1. *Inputs as they will be.* A layer is cut on what the layers before it, already cut, leave it with, and aims at
       the dense membranes from there, as far as held-out samples bear it out (``propagate="auto"``).
    2. *Objective.* Then masks are held, and what is left follows the surrogate gradient of

           D = KL(p* || p) + mean_l |F_l (s_l - s_l*)|^2 / |F_l s_l*|^2

       over the calibration samples, p the softmax of the scores and s_l the spikes after layer l, with a star those of
       the dense network, F_l the filter over time of the neuron that sends them
       (:mod:`compressors.calibration.reconstruction`). The second term is SBC's own measure, the van Rossum distance,
       of the spikes themselves: with the reset, behind all layers before, and relative to what the layer sends, so
       that no layer drowns another. The first says which of the errors that are left matter.
    3. *Rehearsal.* How fast and how long to learn is found on a copy of the network, cut and taught by four fifths of
       the samples: where it was nearest to the dense network on the fifth that took no part, be it before the first
       step. Then the network itself is cut and learns so by all samples.
    4. *Shifts.* A hundred samples are soon known by heart; pictures moved by up to a sixteenth of their side are not,
       and the dense network answers them too. ``augment=()`` where the place of things decides their class. Inputs that
       are no pictures stay as they are.

    Nothing here sees a label: the dense network is the teacher. A gradient is taken all the same, though not of the
    task's loss, so that its runs stand in the division "post-training, reconstructed".

    Every choice was made on the embedded digits before an event camera, and on a network for CIFAR-100 that is in no
    table of this project's comparisons. What was tried there and left: the solvers ``refined`` and ``exact``, which
    leave it further away on the digits; rounds of falling density (``schedule``), each judged by the network that has
    learnt, which take several times as long and end no nearer; masks that move while it learns, the smallest weights
    going and those of the largest gradients coming; larger shifts, and other learning rates.

    Args:
        solver: see :class:`~compressors.methods.obc.OBC`; the pattern ``block4`` and the paper's variant want
            ``exact``.
        propagate: see there; the Fisher Hessian wants False.
        augment, reconstruction_steps: see :class:`~compressors.base.Compressor`.

    The other options are those of :class:`~compressors.methods.sbc.SBC`.
    """

    reconstructs: ClassVar[bool] = True

    version = 6  # after those of OBC and its patterns

    solver: str = "admm"
    propagate: bool | Share | Literal["auto"] = "auto"
    augment: Texts = ("shift",)
    reconstruction_steps: Count = 300

    def __post_init__(self) -> None:
        care = (self.aftercare,) if isinstance(self.aftercare, str) else tuple(self.aftercare)
        self._set("aftercare", care if "reconstruct" in care else (*care, "reconstruct"))
        super().__post_init__()

    @property
    def idle(self) -> bool:
        """Whether there is no budget, so that there is nothing to learn, and no other care is asked for."""
        return self.goal == Budget() and self.aftercare == ("reconstruct",)

    def rounds_at_once(self, epochs: int) -> bool:
        """All rounds are done before the first epoch, if there is any."""
        return True

    def course(self, network: Network) -> Course:
        """As its options say; inputs that are no pictures stay as they are."""
        course = super().course(network)
        return course if next(iter(network.calibration())).dim() >= 4 else replace(course, augment=())
