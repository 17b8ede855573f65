"""numba's compiled loops: how many threads they may use, and what becomes of their code."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, wraps
from typing import Any

import torch


def parallel_loop(loop: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a loop that runs in parallel, and keep its code for the next process where there is a place for it.

    numba keeps it beside the source or in the user's home, and refuses to compile where neither can be written, as in
    a container that is read-only; then it is compiled for this process alone.
    """
    from numba import njit  # takes half a second, which only those pay who run a loop

    try:
        compiled = njit(parallel=True, cache=True, error_model="numpy")(loop)
    except RuntimeError:  # "no locator available"
        compiled = njit(parallel=True, error_model="numpy")(loop)

    @wraps(loop)
    def run(*arguments: Any) -> Any:
        _start()
        return compiled(*arguments)

    run.compiled = compiled  # type: ignore[attr-defined]
    return run


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Let compiled loops inside use ``count`` threads, or as many as numba has."""
    import numba

    _start()
    before = numba.get_num_threads()
    numba.set_num_threads(min(count, numba.config.NUMBA_NUM_THREADS))  # type: ignore[attr-defined]
    try:
        yield
    finally:
        numba.set_num_threads(before)


@cache
def _start() -> None:
    """Start numba's threads, and leave torch as many as it had.

    Where both use OpenMP, numba asks it for a thread for every core as it starts its own. Torch would take them all
    from there on, whatever it had been told: on a machine that has other work, each of its operations then waits for
    the slowest thread.
    """
    import numba

    own = torch.get_num_threads()
    numba.set_num_threads(numba.get_num_threads())  # it starts them here
    torch.set_num_threads(own)
