"""Progress of long work, shown by whoever runs it."""

from collections.abc import Callable, Iterable
from functools import cache
from typing import Any, TypeVar

from rich.console import Console
from rich.progress import track as rich_track

Item = TypeVar("Item")
Track = Callable[[Iterable[Any], str], Iterable[Any]]
"""Takes items and what is done with them, and yields the items; on the way it shows how far they are."""


@cache
def _console() -> Console:
    return Console(stderr=True)


def track(items: Iterable[Item], description: str) -> Iterable[Item]:
    """The default progress bar: on a terminal, and it goes away when the work is done."""
    console = _console()
    return rich_track(items, description, transient=True, console=console, disable=not console.is_terminal)
