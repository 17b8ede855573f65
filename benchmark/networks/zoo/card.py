"""What a network of the zoo says about itself: the data it was made for, its time steps, its source."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

Builder = TypeVar("Builder", bound=Callable)

SHAPES: dict[str, tuple[tuple[int, int, int], int]] = {
    "nmnist": ((2, 34, 34), 10),
    "digits_dvs": ((2, 34, 34), 10),
    "cifar10_dvs": ((2, 128, 128), 10),
    "dvs_gesture": ((2, 128, 128), 11),
    "cifar10": ((3, 32, 32), 10),
    "cifar100": ((3, 32, 32), 100),
    "tiny_imagenet": ((3, 64, 64), 200),
    "imagenet": ((3, 224, 224), 1000),
}
"""Input shape (channels, height, width) and number of classes of each data set as it comes."""


@dataclass(frozen=True)
class Card:
    """Where a network comes from and what it is usually run on.

    Args:
        data: name of the data set.
        timesteps: T.
        source: paper or library.
        input_shape: (channels, height, width), where the network is not run at the data set's own size.
    """

    data: str
    timesteps: int
    source: str
    input_shape: tuple[int, int, int] | None = None

    @property
    def shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of the input."""
        return self.input_shape or SHAPES[self.data][0]

    @property
    def classes(self) -> int:
        """Number of classes."""
        return SHAPES[self.data][1]


def card(
    data: str, timesteps: int, source: str, input_shape: tuple[int, int, int] | None = None
) -> Callable[[Builder], Builder]:
    """Give a builder its :class:`Card`, as the attribute ``card``."""

    def give(builder: Builder) -> Builder:
        builder.card = Card(data, timesteps, source, input_shape)  # type: ignore[attr-defined]
        return builder

    return give
