"""Open files: which inodes are in use, by whom and how, and what happens when the last user goes.

Does: number handles, count handles and lookups of each inode, free nameless inodes at the end.
Does not: decide who may open what (`opening`), or release locks (`locks`).
Guarantees: while an inode is held, its number means that inode, unlinked or not.

What holds an inode: a handle, and a lookup counted with `remember` until `forget`. A FUSE transport
calls both, because the host kernel may come back with a number it was told, for as long as it has
not forgotten it: were the number freed and given to a new file meanwhile, an open that raced
with an unlink would reach the wrong file. Callers that keep no numbers need not call `remember`.
"""

from __future__ import annotations

import errno
import os
from typing import NewType

from libfs.posix.interface import FileSystem, FsError, Ino, User

Fh = NewType("Fh", int)

_ALWAYS_SYNC = os.O_SYNC | os.O_DSYNC

#: Beside the flags of open(2), for a host kernel that keeps a file's times itself and brings them
#: with `setattr`: writing leaves them alone.
KEEP_TIMES = 1 << 40


class Handle:
    """One open file description. Only its rights are here: positions belong to the caller."""

    __slots__ = (
        *("append", "directory", "ino", "keep_times", "noatime", "readable", "sync", "user"),
        "writable",
    )

    def __init__(self, ino: Ino, user: User, flags: int, *, directory: bool) -> None:
        mode = flags & os.O_ACCMODE
        self.ino = ino
        self.user = user
        self.directory = directory
        self.readable = mode != os.O_WRONLY
        self.writable = mode != os.O_RDONLY
        self.append = bool(flags & os.O_APPEND)
        self.noatime = bool(flags & os.O_NOATIME)
        self.keep_times = bool(flags & KEEP_TIMES)
        self.sync = bool(flags & _ALWAYS_SYNC)


class Handles:
    """The table of all of them."""

    def __init__(self, fs: FileSystem) -> None:
        self._fs = fs
        self._table: dict[Fh, Handle] = {}
        self._opens: dict[Ino, int] = {}
        self._lookups: dict[Ino, int] = {}
        self._orphans: set[Ino] = set()  # held, and without a name
        self._linkable: set[Ino] = set()  # orphans of O_TMPFILE, which may get a name
        self._last = 0

    def add(self, handle: Handle) -> Fh:
        """Give `handle` a number; it holds its inode from now on."""
        self._last += 1
        fh = Fh(self._last)
        self._table[fh] = handle
        self._opens[handle.ino] = self._opens.get(handle.ino, 0) + 1
        return fh

    def get(self, fh: Fh) -> Handle:
        """Raises: EBADF."""
        handle = self._table.get(fh)
        if handle is None:
            raise FsError(errno.EBADF)
        return handle

    def remove(self, fh: Fh) -> bool:
        """Close `fh`; whether that was the last handle of its inode. Raises: EBADF."""
        ino = self.get(fh).ino
        del self._table[fh]
        count = self._opens[ino]
        if count > 1:
            self._opens[ino] = count - 1
            return False
        del self._opens[ino]
        self._free_if_unused(ino)
        return True

    def remember(self, ino: Ino) -> None:
        """Count one lookup."""
        self._lookups[ino] = self._lookups.get(ino, 0) + 1

    def forget(self, ino: Ino, count: int) -> None:
        """Take `count` lookups back; more than there were are ignored."""
        left = self._lookups.get(ino, 0) - count
        if left > 0:
            self._lookups[ino] = left
        elif self._lookups.pop(ino, None) is not None:
            self._free_if_unused(ino)

    def held(self, ino: Ino) -> bool:
        """Whether anybody may still come back to `ino`."""
        return ino in self._opens or ino in self._lookups

    def orphaned(self, ino: Ino, *, linkable: bool = False) -> None:
        """Note that the held `ino` has no name."""
        self._orphans.add(ino)
        if linkable:
            self._linkable.add(ino)

    def is_orphan(self, ino: Ino) -> bool:
        """Whether `ino` is held without a name."""
        return ino in self._orphans

    def is_linkable(self, ino: Ino) -> bool:
        """Whether `ino` never had a name and may get one."""
        return ino in self._linkable

    def named(self, ino: Ino) -> None:
        """Note that `ino` got its first name."""
        self._orphans.discard(ino)
        self._linkable.discard(ino)

    def close(self) -> None:
        """Drop everything; free what has no name."""
        self._table.clear()
        self._opens.clear()
        self._lookups.clear()
        for ino in sorted(self._orphans):
            self._free_if_unused(ino)

    def _free_if_unused(self, ino: Ino) -> None:
        if ino in self._orphans and not self.held(ino):
            self.named(ino)
            self._fs.forget(ino)
