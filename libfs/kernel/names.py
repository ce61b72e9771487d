"""Requests that look up, make, move and remove names.

A name that is not there is answered with an entry of node 0, which the host kernel remembers: names
come into being only through the kernel, or with a notification.
"""

from __future__ import annotations

import errno
from typing import Final

from libfs.kernel import abi
from libfs.kernel.attributes import split_name
from libfs.kernel.nodes import VALID_SECONDS, Nodes
from libfs.posix import FsError, Posix, User

_ABSENT: Final = abi.ENTRY.pack(0, 0, VALID_SECONDS, 0, *[0] * 16)


class Names:
    """See the module. Each method is one opcode: parent's node, user, fixed fields, the tail."""

    def __init__(self, posix: Posix, nodes: Nodes) -> None:
        self._posix = posix
        self._nodes = nodes

    def lookup(self, parent: int, user: User, tail: bytes) -> bytes:
        """One step of a path."""
        nodes = self._nodes
        try:
            attr = self._posix.lookup(user, nodes.ino(parent), tail[:-1])
        except FsError as error:
            if error.errno != errno.ENOENT:
                raise
            return _ABSENT
        nodes.habit.looked_up(nodes.ino(parent), attr)
        return nodes.entry(attr)

    def mknod(
        self, parent: int, user: User, mode: int, rdev: int, umask: int, tail: bytes
    ) -> bytes:
        """mknod(2), and open(2) that creates: `files` says why."""
        nodes = self._nodes
        made = self._posix.mknod(user, nodes.ino(parent), tail[:-1], mode, rdev, umask)
        nodes.uncapable.add(made.ino)
        return nodes.entry(made)

    def mkdir(self, parent: int, user: User, mode: int, umask: int, tail: bytes) -> bytes:
        """mkdir(2)."""
        nodes = self._nodes
        return nodes.entry(self._posix.mkdir(user, nodes.ino(parent), tail[:-1], mode, umask))

    def symlink(self, parent: int, user: User, tail: bytes) -> bytes:
        """symlink(2): name, target."""
        name, rest = split_name(tail)
        target, _ = split_name(rest)
        nodes = self._nodes
        return nodes.entry(self._posix.symlink(user, nodes.ino(parent), name, target))

    def link(self, parent: int, user: User, old: int, tail: bytes) -> bytes:
        """link(2)."""
        nodes = self._nodes
        made = self._posix.link(user, nodes.ino(old), nodes.ino(parent), tail[:-1])
        return nodes.entry(made)

    def unlink(self, parent: int, user: User, tail: bytes) -> bytes:
        """unlink(2). The kernel knows the inode, so it lives on until it is forgotten."""
        self._posix.unlink(user, self._nodes.ino(parent), tail[:-1])
        return b""

    def rmdir(self, parent: int, user: User, tail: bytes) -> bytes:
        """rmdir(2)."""
        self._posix.rmdir(user, self._nodes.ino(parent), tail[:-1])
        return b""

    def rename(self, parent: int, user: User, new_parent: int, tail: bytes) -> bytes:
        """rename(2)."""
        return self.rename2(parent, user, new_parent, 0, tail)

    def rename2(self, parent: int, user: User, new_parent: int, flags: int, tail: bytes) -> bytes:
        """renameat2(2)."""
        name, rest = split_name(tail)
        new_name, _ = split_name(rest)
        nodes = self._nodes
        source, target = nodes.ino(parent), nodes.ino(new_parent)
        self._posix.rename(user, source, name, target, new_name, flags)
        return b""
