"""What a pickle would be if it were written out, found without making any of its objects.

A pickle can hold one tuple many times over, and a tuple of such tuples: a few hundred bytes then stand for more entries
than can be counted, and whoever hashes it, as a dictionary does with its keys, visits each of them.
"""

import pickletools
from itertools import takewhile
from typing import IO, Any

from benchmark.networks.errors import CheckpointError

MOST_ENTRIES = 20_000_000
"""Of all objects of a file: hashing as many takes about a second."""

NEWEST = 3
"""Protocol of pickles that torch reads without running them; those that torch.save writes by itself are of 2."""

_GROWING = ([pickletools.pylist], [pickletools.pydict])


class _Machine:
    """The stack on which a pickle makes its objects, with the number of entries of each in the object's place.

    A number stands in a list of its own, so that an object which grows does so wherever it stands.
    """

    def __init__(self) -> None:
        self.stack: list[list[int]] = []
        self.marks: list[int] = []
        self.memo: dict[int, list[int]] = {}
        self.entries = 0

    def do(self, opcode: Any, argument: Any) -> None:
        """Follow one instruction."""
        if opcode.name == "PROTO" and argument > NEWEST:
            raise CheckpointError(f"it is a pickle of protocol {argument}: save it again without pickle_protocol")
        if opcode.name == "MARK":
            self.marks.append(len(self.stack))
        elif opcode.name.endswith("PUT"):
            self.memo[argument] = self.stack[-1]
        elif opcode.name.endswith("GET"):
            self._push(self.memo[argument])
        else:
            self._make(opcode)

    def _make(self, opcode: Any) -> None:
        taken = self._take(opcode.stack_before)
        grows = opcode.stack_before[:1] == opcode.stack_after and opcode.stack_after in _GROWING
        made = taken[0] if grows else [1]
        made[0] += sum(size for (size,) in taken[grows:])
        for _ in opcode.stack_after:
            self._push(made)

    def _take(self, before: list[Any]) -> list[list[int]]:
        """What an instruction takes from the stack, the last of it up to the last mark if it asks for that."""
        single = len(list(takewhile(lambda kind: kind is not pickletools.markobject, before)))
        start = (len(self.stack) if single == len(before) else self.marks.pop()) - single
        if start < 0:
            raise CheckpointError("it is damaged, or no file of torch.save")
        taken = self.stack[start:]
        del self.stack[start:]
        return taken

    def _push(self, made: list[int]) -> None:
        self.stack.append(made)
        self.entries += made[0]
        if self.entries > MOST_ENTRIES:
            raise CheckpointError(
                f"its tuples and lists stand in each other so often that they have over {MOST_ENTRIES:,} entries: save "
                "net.state_dict() alone"
            )


def refuse_swollen(file: IO[bytes], pickles: int = 1) -> None:
    """Read so many pickles that follow each other in a file, and refuse what would be too much if written out.

    Raises:
        CheckpointError: it would be, or something is taken that is not there, or the protocol is too new.
        ValueError, LookupError: no pickle.
    """
    machine = _Machine()
    for _ in range(pickles):
        for opcode, argument, _ in pickletools.genops(file):
            machine.do(opcode, argument)
