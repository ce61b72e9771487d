"""Newest versions: which number the stamp of each block of metadata must have, at the least.

A write that the disk has lost leaves an older version, whole and with a right checksum. So the
kernel remembers for each block of metadata, and of its own tables, a lower bound of its version,
the number of the transaction that wrote it. What is read with a lower number is refused.

New versions are *pending*: in memory, and listed by every transaction in the log. When there are
many they go where they belong, beside the reference counts (`numbers.py`). A bound may be behind,
never ahead of what a durable pointer leads to; to be behind harms nothing but what it is good for.
That what is written gets its version here, and when, is up to `commit.py`.

Source: DESIGN section 6.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from xnfs.disk.numbers import VERSION, Numbers
from xnfs.errors import CorruptionError

#: So many new versions wait in the log before they are written to where they belong.
MOST_PENDING: Final = 40
#: Bits of a version that are kept, and how many of these the blocks of the map have of their own.
BITS: Final = 32
MAP_BITS: Final = 24


class Versions:
    """The newest versions of one image."""

    def __init__(self, numbers: Numbers) -> None:
        self._numbers = numbers
        #: block -> its newest version, which the blocks of numbers don't have yet
        self.pending: dict[int, int] = {}

    def set(self, block: int, seq: int) -> None:
        """A version of the block with this number in its stamp is written, and no later one."""
        self.pending[block] = seq

    def newest(self, block: int) -> int:
        """The newest version that is known, of an old one its low bits. Raises CorruptionError,
        DeviceError.
        """
        newest = self.pending.get(block)
        return self._numbers.get(VERSION, block) if newest is None else newest

    def lag(self, block: int, seq: int, bits: int = BITS) -> int:
        """How far a block with this stamp is behind the newest version that is known; 0 if it is
        not. Raises CorruptionError, DeviceError.
        """
        lag = (self.newest(block) - seq) % (1 << bits)
        return lag if lag < 1 << bits - 1 else 0

    def check(self, block: int, seq: int) -> None:
        """Raises CorruptionError if `seq` is older than the newest version that is known: a whole
        block that is was left by a write that was lost, or read from a wrong place.
        """
        if (lag := self.lag(block, seq)) > 0:
            raise CorruptionError(block, "version", f"transaction {seq}", f"{seq + lag} or later")

    def is_damaged(self, block: int) -> bool:
        """For fsck: the newest version of the block, nobody knows."""
        return block not in self.pending and self._numbers.is_damaged(VERSION, block)

    # --- writing

    def homes(self, more: Iterable[int] = ()) -> Mapping[int, list[int]]:
        """Device block -> those of the pending blocks, and of some more, that have their version
        there.
        """
        homes: dict[int, list[int]] = {}
        for block in (*self.pending, *more):
            homes.setdefault(self._numbers.home(VERSION, block), []).append(block)
        return homes

    def move(self, bno: int) -> None:
        """Put pending versions where they belong, in one device block. They stay pending until
        that is written. Raises CorruptionError, DeviceError.
        """
        for block in self.homes().get(bno, ()):
            self._numbers.put(VERSION, block, self.pending[block] % (1 << BITS))

    def mark_written(self, bno: int) -> None:
        """What `move` has put there is written, or in the log."""
        for block in self.homes().get(bno, ()):
            del self.pending[block]
