"""NoteFs with mistakes that XN can't know to be any: what the crash explorer is for.

Most mistakes are refused before they do harm: a pointer to a block that was never claimed, a block
freed that is still named, one lent twice, somebody else's block. And in whatever order blocks are
written, XN writes no pointer before what it names. What it can't know is what a file system has
promised to its users. Each class here breaks one promise, with one method.
"""

from __future__ import annotations

from collections.abc import Sequence

from examples.notefs import NoteFs
from examples.notefs.format import SLOTS
from libfs.posix.interface import Ino, User


class Forgetful(NoteFs):
    """Syncs the node and trusts that the bytes go along. New blocks do: the node points at them.
    Bytes that were written over old ones do not: nothing has told XN that they belong together."""

    def _order(self, block: int, ino: Ino) -> None:
        pass


class Hasty(NoteFs):
    """Has an fdatasync that takes no time. The bytes were written, and that is what was asked for?
    A disk has a cache of its own: what no flush has followed may be gone after a power cut."""

    def sync(self, inos: Sequence[Ino] | None, *, data_only: bool = False) -> None:
        if inos is None or not data_only:
            super().sync(inos)
            return
        slots = [self.nodes[ino].at(slot) for ino in inos for slot in range(SLOTS)]
        self.xn.writeback(self.who, [block for block in slots if block])


class StepByStep(NoteFs):
    """Plays it safe in rename: first the old file goes, and that is made sure of; then the new one
    takes its name. In between there is neither."""

    def rename(
        self, user: User, src: Ino, name: bytes, dst: Ino, new_name: bytes, *, keep: bool
    ) -> None:
        if self.lookup(dst, new_name) is not None:
            self.unlink(user, dst, new_name, keep=keep)
            self.sync([dst])
        super().rename(user, src, name, dst, new_name, keep=keep)
