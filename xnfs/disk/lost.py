"""What fsck tells the file systems of a destroyed block, so that they may say what stood in it.

The kernel knows no format, so it can't. A file system whose blocks say what they are may: it looks
through what is *orphaned*, blocks in use that nobody names, with a right stamp, and proposes the
bytes. They are believed like those of any block. What they name must be orphans as the type that
their own stamps say; so nobody gains a block that is another's, or bytes that were never written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple


class Orphan(NamedTuple):
    """A block that nobody names. `type`: as its stamp has it."""

    block: int
    type: str
    raw: bytes


@dataclass(frozen=True, slots=True)
class Lost:
    """A destroyed block: `part` of `parent` names it as of this type; both lie below `root`."""

    block: int
    type: str
    parent: int
    part: int
    root: int
    #: the bytes of any block
    read: Callable[[int], bytes]
    #: those in [lo, hi)
    orphans: Callable[[int, int], Iterator[Orphan]]


#: What stood in a block (the place of the stamp is the kernel's); None if that can't be told.
Rebuild = Callable[[Lost], bytes | None]
