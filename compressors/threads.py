"""numba's compiled loops: how many threads they may use, and what becomes of their code."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


def parallel_loop(loop: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a loop that runs in parallel, and keep its code for the next process where there is a place for it.

    numba keeps it beside the source or in the user's home, and refuses to compile where neither can be written, as in
    a container that is read-only; then it is compiled for this process alone.
    """
    from numba import njit  # takes half a second, which only those pay who run a loop

    try:
        return njit(parallel=True, cache=True, error_model="numpy")(loop)
    except RuntimeError:  # "no locator available"
        return njit(parallel=True, error_model="numpy")(loop)


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Let compiled loops inside use ``count`` threads, or as many as numba has."""
    import numba  # takes half a second, which only those pay who run a loop

    before = numba.get_num_threads()
    numba.set_num_threads(min(count, numba.config.NUMBA_NUM_THREADS))  # type: ignore[attr-defined]
    try:
        yield
    finally:
        numba.set_num_threads(before)
