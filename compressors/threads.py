"""How many threads numba's compiled loops may use."""

from collections.abc import Iterator
from contextlib import contextmanager


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
