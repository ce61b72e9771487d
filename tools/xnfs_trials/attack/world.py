"""The words of the specification: the small world in which it holds, and what is known of a block.

Two file systems, "a" and "b", each of nodes with `SLOTS` pointers, of data blocks, and of blocks of
a type that can be owned but not read. Every extent is one block. Blocks 0 and 1 are the roots;
`KERNEL` and `OUTSIDE` stand for a block of the kernel's own and one that is not on the disk.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

SLOTS = 2
KERNEL, OUTSIDE = -1, -2
NODE, DATA, HIDDEN = "node", "data", "hidden"
#: rights of each caller over the file system that his first letter names
RIGHTS = {"a": "rwag", "b": "rwag", "a'": "rw", "b'": "rw"}

Pointer = tuple[str, int]
Edits = Iterable[tuple[int, Iterable[tuple[int, Pointer | None]]]]
Claims = Iterable[Pointer]
Call = tuple[str, str, tuple[Any, ...]]


class No(Exception):
    """The call must be refused."""


class Go(Exception):
    """All checks have passed."""


def need(*rules: object) -> None:
    """Refuse unless all of them hold."""
    if not all(rules):
        raise No


@dataclass(slots=True)
class Block:
    """A block that somebody owns, as memory has it, and what is known of its page."""

    kind: str
    home: str
    slots: list[Pointer | None] = field(default_factory=list)
    text: str = ""
    cached: bool = True
    filled: bool = True
    dirty: bool = True
    fresh: bool = True  # a node that no durable pointer can name
    pins: int = 0
    lock: str | None = None
    held: bool = False
    young: list[int] = field(default_factory=list)  # pointers here that never went to the disk
    adrift: bool = False  # was not reached by the last commit
    reserved: bool = False  # hidden, or hidden until it became data, since the last commit

    def copy(self) -> Block:
        """Made for each call: `dataclasses.replace` takes four times as long."""
        return Block(
            self.kind, self.home, self.slots[:], self.text, self.cached, self.filled, self.dirty,
            self.fresh, self.pins, self.lock, self.held, self.young[:], self.adrift, self.reserved,
        )  # fmt: skip


def node(home: str, **rest: Any) -> Block:
    """An empty one."""
    return Block(NODE, home, [None] * SLOTS, **rest)
