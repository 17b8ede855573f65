"""Work on many files at once, results in order."""

import os
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from typing import Any, TypeVar

from torch.utils.data import DataLoader, Dataset

Item = TypeVar("Item")
Result = TypeVar("Result")

ITEMS_WORTH_A_PROCESS = 50
"""Fewer items than this are done before another process has started."""

ITEMS_AT_ONCE = 16
"""Items whose results travel together: sending each alone would cost as much as reading a small recording."""


class _Mapped(Dataset):
    def __init__(self, function: Callable[[Any], Any], items: Sequence[Any]) -> None:
        self.function = function
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Any:
        return self.function(self.items[index])


def map_in_order(
    function: Callable[[Item], Result], items: Sequence[Item], workers: int | None = None
) -> Iterator[Result]:
    """Yield ``function(item)`` for each item, in order, computed in worker processes where that pays.

    Only a few results wait at any time. `function` must be picklable and return arrays or plain objects, not
    raise: an error crosses processes badly and is better returned.

    Args:
        function: applied to each item.
        items: what it is applied to.
        workers: number of processes; by default one a core, none for few items.
    """
    if workers is None:
        workers = min(os.cpu_count() or 1, len(items) // ITEMS_WORTH_A_PROCESS)
        workers = workers if workers > 1 else 0  # one would only work instead of this process
    loader = DataLoader(_Mapped(function, items), batch_size=ITEMS_AT_ONCE, num_workers=workers, collate_fn=_as_is)
    return chain.from_iterable(loader)


def _as_is(results: list[Any]) -> list[Any]:
    return results
