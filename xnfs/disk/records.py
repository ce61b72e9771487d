"""The plain data that crosses the system-call line: callers, extents, diffs, type descriptions.

Nothing here holds a live object of the kernel; all of it could be sent over a socket.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NewType

BLOCK = 4096
SECTOR = 512

BlockNo = NewType("BlockNo", int)
TypeNo = NewType("TypeNo", int)

#: (type number, first block, number of blocks)
Extent = tuple[int, int, int]
#: (offset in the block, new bytes), in any order, not overlapping
Diff = Sequence[tuple[int, bytes]]

#: Blocks of this type can be owned but neither read nor written (preallocation).
T_UNREADABLE = 1

#: What an `acl` is asked (its parameter `op`). `mask`: of an access, read 4, write 2, search 1; of
#: a change, 1 if the block also dies in it; of a death, 1 if the temporary root lets go of the
#: block, 0 if a change drops its last pointer.
OP_ACCESS, OP_CHANGE, OP_BIRTH, OP_DEATH = 0, 1, 2, 3


@dataclass(frozen=True, slots=True)
class Caller:
    """Who makes a system call: a capability, and the user on whose behalf."""

    cap: bytes
    uid: int = 0
    gid: int = 0
    groups: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class TypeSpec:
    """A block type, as installed (SOSP 1997, section 4.2). Never changes afterwards.

    `parts`: groups of partitions (base, stride, length, count): partition i of the group reads the
    bytes [base + i*stride, +length). Partitions are numbered through all groups in order. `raw`:
    [lo, hi), bytes that anyone with access may write without a check; (0, 0) = none. `stamp`:
    offset of the 16 bytes that belong to the kernel; None = the blocks are plain data and own
    nothing. `refs`: names of the types that `owns` may emit, by index; resolved when used.
    """

    name: str
    owns: str = ""
    acl: str = ""
    size: str = ""
    parts: tuple[tuple[int, int, int, int], ...] = ()
    raw: tuple[int, int] = (0, 0)
    stamp: int | None = None
    refs: tuple[str, ...] = ()
    flags: int = 0


@dataclass(frozen=True, slots=True)
class RootEntry:
    """One entry of the root catalogue."""

    name: str
    block: int
    type: int
    temporary: bool


@dataclass(frozen=True, slots=True)
class RootInfo:
    """A mounted root: its first block and the capability for everything below it."""

    name: str
    block: int
    type: int
    cap: bytes


@dataclass(frozen=True, slots=True)
class CollectStatus:
    """Progress of the background collection of leaks."""

    done: bool
    visited: int
    freed: int


@dataclass(frozen=True, slots=True)
class Registered:
    """What the registry exposes of one cached block."""

    block: int
    type: int
    frame: int
    parent: int
    dirty: bool
    fresh: bool
    pinned: int
    locked: bool
    persistence: str  # "volatile" | "reachable" | "persistent"
    extra: Mapping[str, int] = field(default_factory=dict)
