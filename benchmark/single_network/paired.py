"""How sure a difference of two networks' accuracies is that answered the same samples: a score interval for pairs."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from math import ceil, sqrt
from typing import Any

from scipy.optimize import brentq
from scipy.stats import norm
from torch import Tensor

from benchmark.wording import points

CONFIDENCE = 0.95
NEAREST = 1e-12
"""How near to the estimate an end of the interval is looked for: at the estimate itself the equation may hold too."""


@dataclass(frozen=True)
class PairedChange:
    """What a change of the network did to the same samples, with an interval of :data:`CONFIDENCE`.

    Both networks answer every sample, so only those count of which one is right and the other wrong. The interval for
    the difference of their shares is Tango's score interval (Statistics in Medicine 17 (1998), 891-908): all
    differences that a score test of size 5 % does not refute. It needs no continuity, has an answer when no sample
    changed, and keeps its coverage for the small shares that matter here.

    Args:
        samples: how many there are.
        gained: those that only the changed network has right.
        lost: those that only the network before had right.
    """

    samples: int
    gained: int
    lost: int

    @classmethod
    def of(cls, before: Tensor, after: Tensor) -> "PairedChange":
        """From whether each sample is classified right before and after: bool ``[samples]``, in the same order."""
        return cls(len(before), int((after & ~before).sum()), int((before & ~after).sum()))

    @property
    def change(self) -> float:
        """The change of accuracy: a share, below zero where accuracy is lost."""
        return (self.gained - self.lost) / self.samples

    @property
    def low(self) -> float:
        """Lower end of the interval of the change."""
        return -upper_end(self.samples, self.lost, self.gained)

    @property
    def high(self) -> float:
        """Upper end of the interval of the change."""
        return upper_end(self.samples, self.gained, self.lost)

    def verdict(self, most: float) -> str:
        """Whether the accuracy falls by at most ``most`` (a share): ``yes``, ``no``, or ``undecided``."""
        if self.low >= -most:
            return "yes"
        return "no" if self.high < -most else "undecided"

    def samples_to_decide(self, most: float) -> int | None:
        """About how many samples like these would decide the same question; None where the change is at the limit."""
        distance = abs(self.change + most)
        half = self.high - self.change if self.change < -most else self.change - self.low
        return None if distance < NEAREST else ceil(self.samples * max(1.0, (half / distance) ** 2))

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return asdict(self) | {"change": self.change, "low": self.low, "high": self.high}

    def __str__(self) -> str:
        return f"{points(self.change)} points, {CONFIDENCE:.0%} between {points(self.low)} and {points(self.high)}"


def upper_end(samples: int, gained: int, lost: int) -> float:
    """Upper end of Tango's interval for the difference of the shares ``gained`` and ``lost``; see `PairedChange`."""
    estimate = (gained - lost) / samples
    outside = _distance(samples, gained, lost)
    start = estimate + NEAREST
    return 1.0 if start >= 1 else brentq(outside, start, 1.0, xtol=NEAREST)


def _distance(samples: int, gained: int, lost: int) -> Callable[[float], float]:
    """How far a difference lies inside the interval: above zero where the score test keeps it, below where not."""
    z = norm.ppf((1 + CONFIDENCE) / 2)

    def distance(difference: float) -> float:
        # the share of lost samples that is likeliest if this is the difference: a quadratic's larger root
        linear = -gained - lost + (2 * samples - gained + lost) * difference
        constant = -lost * difference * (1 - difference)
        likeliest = (sqrt(max(0.0, linear**2 - 8 * samples * constant)) - linear) / (4 * samples)
        variance = samples * (2 * likeliest + difference * (1 - difference))
        return gained - lost - samples * difference + z * sqrt(max(0.0, variance))

    return distance
