"""Requests that list directories. Opening one is never announced (see `files`), so all is by node.

READDIRPLUS answers with the attributes of each entry, so that a stat of each needs no request; the
host kernel asks for it where it saw that entries are looked up. Every entry given counts as a
lookup, but for `.` and `..`, whose node is 0 here.
"""

from __future__ import annotations

from typing import Final

from libfs.kernel import abi
from libfs.kernel.nodes import Nodes
from libfs.kernel.replies import Durable
from libfs.posix import Dirent, Posix, User

_pack = abi.DIRENT.pack
#: What a name needs at least, padded: to know how many entries may fit.
_SHORTEST: Final = abi.DIRENT.size + 8
#: by the length of a name, of which 3 bits matter
_PADDING: Final = [bytes(-length & 7) for length in range(8)]
_NOTHING: Final = bytes(abi.ENTRY.size)


class Directories:
    """See the module."""

    def __init__(self, posix: Posix, nodes: Nodes) -> None:
        self._posix = posix
        self._nodes = nodes

    def readdir(self, node: int, user: User, fh: int, cookie: int, size: int) -> bytes:
        """Entries after `cookie`, as many as fit."""
        parts: list[bytes] = []
        for entry in self._entries(node, cookie, size // _SHORTEST):
            record = _record(entry)
            size -= len(record)
            if size < 0:
                break
            parts.append(record)
        return b"".join(parts)

    def readdirplus(self, node: int, user: User, fh: int, cookie: int, size: int) -> bytes:
        """As `readdir`, each entry as if it had been looked up.

        One without attributes (damaged, or not worth reading) does not hide the others; the kernel
        will ask for it by name.
        """
        nodes = self._nodes
        ino = nodes.ino(node)
        found, attrs = self._posix.readdirplus(
            nodes.directory(ino),
            cookie,
            size // (_SHORTEST + abi.ENTRY.size),
            # The kernel goes on with READDIRPLUS only where entries were looked up meanwhile.
            lambda: cookie != 0 or nodes.habit.wanted(ino),
        )
        parts: list[bytes] = []
        for entry, attr in zip(found, attrs, strict=True):
            record = _record(entry)
            size -= len(record) + abi.ENTRY.size
            if size < 0:
                break
            parts += (_NOTHING if attr is None else nodes.entry(attr), record)
        return b"".join(parts)

    def _entries(self, node: int, cookie: int, count: int) -> list[Dirent]:
        return self._posix.readdir(self._nodes.directory(self._nodes.ino(node)), cookie, count)

    def fsyncdir(self, node: int, user: User, fh: int, flags: int) -> Durable:
        """fsync(2) of a directory. Of the root it makes everything durable: sync(2) and syncfs(2)
        do not reach a FUSE server on a plain mount, so `sync DIR` is the way to ask."""
        ino = self._nodes.ino(node)
        if ino == self._nodes.root:
            return Durable(None)
        return Durable(ino, bool(flags & abi.FSYNC_DATA))


def _record(entry: Dirent) -> bytes:
    name = entry.name
    length = len(name)
    return _pack(entry.ino, entry.next, length, entry.d_type) + name + _PADDING[length & 7]
