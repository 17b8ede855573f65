"""Progress of long work, shown by whoever runs it: bars on a terminal, lines in a file, figures in a chart."""

import threading
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from typing import Any, SupportsFloat, TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, Task, TextColumn, TimeElapsedColumn

Item = TypeVar("Item")
Track = Callable[[Iterable[Any], str], Iterable[Any]]
"""Takes items and what is done with them, and yields the items; on the way it shows how far they are."""

Note = Callable[[Mapping[str, SupportsFloat]], None]
"""Takes the figures of one step of long work, by names such as ``reconstruct/loss``, while it goes on."""

FIRST_LINE_S, LINE_EVERY_S = 5.0, 30.0


class ShownProgress(Progress):
    """Bars that go away when the work is done; where the console is no terminal, lines say the same.

    Args:
        console: where to show them.
        every: seconds between two lines; the first comes sooner.
    """

    def __init__(self, console: Console, every: float = LINE_EVERY_S) -> None:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        super().__init__(*columns, console=console, transient=True, disable=not console.is_terminal)
        self._every, self._ended = every, threading.Event()
        self._speaker = threading.Thread(target=self._speak, daemon=True)

    def start(self) -> None:
        """Show the bars, or begin to say how far the work is."""
        super().start()
        if self.disable:
            self._speaker.start()

    def stop(self) -> None:
        """Take the bars away."""
        super().stop()
        self._ended.set()
        if self._speaker.is_alive():
            self._speaker.join()

    def _speak(self) -> None:
        pause = min(FIRST_LINE_S, self._every)
        while not self._ended.wait(pause):
            pause = self._every
            said = "; ".join(_said(task) for task in self.tasks if not task.finished)
            if said:
                self.console.print(said, highlight=False, soft_wrap=True, markup=False)


def _said(task: Task) -> str:
    """How far a task is, in words; the time left is that at the speed of its last steps."""
    done = f"{task.completed:.0f}" if task.total is None else f"{task.completed:.0f} of {task.total:.0f}"
    left = f", about {task.time_remaining / 60:.0f} min left" if task.time_remaining else ""
    return f"{task.description}: {done}{left}"


@cache
def _console() -> Console:
    return Console(stderr=True)


def track(items: Iterable[Item], description: str) -> Iterable[Item]:
    """The default way of showing progress, on stderr."""
    with ShownProgress(_console()) as progress:
        yield from progress.track(items, description=description)


def unnoted(figures: Mapping[str, SupportsFloat]) -> None:
    """The default way of taking figures: nobody looks at them, and none is computed for it."""
