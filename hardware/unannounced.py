"""Operations that no function of PyTorch announces: those inside scripted functions and modules, and of extensions."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode, _get_current_dispatch_mode


class Unannounced(TorchDispatchMode):
    """Shows the operations that a network runs beside PyTorch's functions, while it is the active dispatch mode.

    Args:
        show: takes an operation's name (``mm``), its arguments (positional ones, named ones), and what it made.
    """

    def __init__(self, show: Callable[[str, tuple[Any, ...], dict[str, Any], Any], None]) -> None:
        super().__init__()
        self._show = show

    def __torch_dispatch__(
        self, operation: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run an operation and show it."""
        with torch._C.DisableTorchFunction():  # it would be taken for a function that the network calls
            output = operation(*args, **(kwargs or {}))
            self._show(operation.overloadpacket.__name__, args, kwargs or {}, output)
        return output

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Show nothing inside, and be out of the way: what runs there was announced."""
        if _get_current_dispatch_mode() is not self:  # a mode of the network's own is active inside this one
            yield
            return
        self.__exit__(None, None, None)
        try:
            yield
        finally:
            self.__enter__()
