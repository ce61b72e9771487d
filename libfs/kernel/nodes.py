"""The inodes that the host kernel knows: their numbers on both sides, how often it was told of
each, and the open file that stands behind each one.

Node 1 is the root for the kernel, whatever number the file system gives it; if another inode has
number 1, it trades places with the root. Otherwise numbers are the same on both sides.

The kernel is not asked to announce opening and closing (`dispatch` says why), so bytes are read and
written by inode. The POSIX layer reads and writes through handles; so each inode gets one when its
first bytes are asked for, and keeps it until the kernel forgets the inode. It belongs to uid 0:
who may open what was decided when the file was opened, by the host kernel, from the attributes and
lists that the POSIX layer gave it.
"""

from __future__ import annotations

import os
import stat
import struct
from typing import Final

from libfs.kernel import abi
from libfs.posix import Attr, Fh, Ino, Posix, User
from libfs.posix.handles import KEEP_TIMES

SUPERUSER: Final = User(0, 0)
#: Names and attributes change only through the kernel that caches them, or with a notification.
VALID_SECONDS: Final = 10 * 365 * 86400
#: Packed attributes kept: some 30 MB at most.
_PACKED_MAX: Final = 50_000
#: Listings answered in full after one where that would have been better; and how many listings of
#: names only are remembered.
_CREDIT: Final = 16
_BARE_MAX: Final = 64

_SECOND: Final = 1_000_000_000
_pack_entry = abi.ENTRY.pack
_attr_head = struct.pack("=Q8x", VALID_SECONDS)


class Habit:
    """Whether those who list directories also ask for attributes of what they find.

    The host kernel begins each listing with READDIRPLUS, also for who wants names only, and inodes
    that are not in memory cost far more than names. So such a listing begins with names; if files
    in it are then looked up one by one, the next ones are answered in full.
    """

    def __init__(self) -> None:
        self._bare: set[Ino] = set()
        self._credit = 0

    def wanted(self, directory: Ino) -> bool:
        """A listing begins: whether to read inodes for it."""
        if self._credit:
            self._credit -= 1
            return True
        if len(self._bare) >= _BARE_MAX:
            self._bare.clear()
        self._bare.add(directory)
        return False

    def looked_up(self, directory: Ino, attr: Attr) -> None:
        """A name was looked up. Directories are looked up also by who only walks a tree."""
        if directory in self._bare and not stat.S_ISDIR(attr.mode):
            self._bare.discard(directory)
            self._credit = _CREDIT


class Nodes:
    """See the module. Relies on being used by one thread."""

    def __init__(self, posix: Posix) -> None:
        self._posix = posix
        self.root = posix.root
        self._lookups: dict[Ino, int] = {}
        self._handles: dict[Ino, Fh] = {}
        self._directories: dict[Ino, Fh] = {}
        self._packed: dict[Ino, tuple[Attr, bytes]] = {}
        #: Files of which a write was lost, and the errno that the next one gets.
        self.failed: dict[Ino, int] = {}
        #: Files made through this mount, to which no extended attribute was given since.
        self.uncapable: set[Ino] = set()
        #: Agreed on with the write-back cache.
        self.kernel_keeps_times = False
        self.habit = Habit()

    def ino(self, node: int) -> Ino:
        """The inode number of a node."""
        if node == abi.ROOT_ID:
            return self.root
        return Ino(abi.ROOT_ID) if node == self.root else Ino(node)

    def node(self, ino: Ino) -> int:
        """The node of an inode number. The mapping trades two numbers: it is its own inverse."""
        return self.ino(ino)

    # -- what the kernel was told

    def entry(self, attr: Attr) -> bytes:
        """The answer that makes an inode known; one more lookup to be forgotten later."""
        self.count(attr.ino)
        return self.packed(attr)

    def count(self, ino: Ino) -> None:
        """The kernel was told of an inode once more."""
        lookups = self._lookups
        known = lookups.get(ino)
        if known is None:
            self._posix.remember(ino)
            lookups[ino] = 1
        else:
            lookups[ino] = known + 1

    def forget(self, node: int, count: int) -> None:
        """The kernel takes back `count` lookups."""
        ino = self.ino(node)
        left = self._lookups.get(ino, 0) - count
        if left > 0:
            self._lookups[ino] = left
        elif self._lookups.pop(ino, None) is not None:
            self._packed.pop(ino, None)
            self.failed.pop(ino, None)
            self.uncapable.discard(ino)
            for table in (self._handles, self._directories):
                fh = table.pop(ino, None)
                if fh is not None:
                    self._posix.release(fh)
            self._posix.forget(ino)

    def clear(self) -> None:
        """The kernel is gone, and with it all that it knew."""
        for ino, count in list(self._lookups.items()):
            self.forget(self.node(ino), count)
        for table in (self._handles, self._directories):
            for fh in table.values():  # of the root, which is never looked up
                self._posix.release(fh)
            table.clear()

    def known(self, ino: Ino) -> bool:
        """Whether the kernel may have something cached of an inode."""
        return ino in self._lookups or ino == self.root

    # -- attributes

    def packed(self, attr: Attr) -> bytes:
        """A `fuse_entry_out`. A file system that gives the same object again while nothing
        changed, as FFS does, has it packed once."""
        ino = attr.ino
        found = self._packed.get(ino)
        if found is not None and found[0] is attr:
            return found[1]
        made = self._pack(attr)
        if len(self._packed) >= _PACKED_MAX:
            self._packed.clear()
        self._packed[ino] = attr, made
        return made

    def attr(self, attr: Attr) -> bytes:
        """A `fuse_attr_out`."""
        return _attr_head + self.packed(attr)[abi.ENTRY_ATTR_AT :]

    def _pack(self, a: Attr) -> bytes:
        atime, atime_ns = divmod(a.atime, _SECOND)
        mtime, mtime_ns = divmod(a.mtime, _SECOND)
        ctime, ctime_ns = divmod(a.ctime, _SECOND)
        return _pack_entry(
            *(self.node(a.ino), a.generation, VALID_SECONDS, VALID_SECONDS),
            *(a.ino, a.size, a.blocks, atime, mtime, ctime, atime_ns, mtime_ns, ctime_ns),
            *(a.mode, a.nlink, a.uid, a.gid, a.rdev & 0xFFFFFFFF, 4096, 0),
        )

    # -- bytes

    def handle(self, ino: Ino) -> Fh:
        """The handle through which a file's bytes are read and written."""
        fh = self._handles.get(ino)
        if fh is None:
            fh = self._handles[ino] = self._open(ino)
        return fh

    def _open(self, ino: Ino) -> Fh:
        # Not O_APPEND: the kernel knows the size, and where it wants its bytes.
        flags = os.O_RDWR | (KEEP_TIMES if self.kernel_keeps_times else 0)
        try:
            return self._posix.open(SUPERUSER, ino, flags)
        except OSError:
            return self._posix.open(SUPERUSER, ino, os.O_RDONLY)  # a read-only mount

    def directory(self, ino: Ino) -> Fh:
        """The handle through which a directory is read."""
        fh = self._directories.get(ino)
        if fh is None:
            fh = self._directories[ino] = self._posix.opendir(SUPERUSER, ino)
        return fh

    def reopen(self) -> None:
        """Forget all handles: the mount was made read-only or writable."""
        handles, self._handles = self._handles, {}
        for fh in handles.values():
            self._posix.release(fh)
