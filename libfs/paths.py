"""Paths to inodes, for transports that speak of paths (libfuse 2's high-level layer does).

Does: resolve a path component by component as the caller, so that every directory on the way must
be searchable by the caller; remember what was resolved; know the files that libfuse "hides".
Does not: touch the file system except by `Posix.lookup`. Below this module there are no paths.
Relies on: being told of every change of a name (`removed`, `renamed`) or of permissions
(`permissions_changed`). All requests pass through one server, so the memory is exact, not timed.

What is remembered is kept per user, since a resolved path says "this user may search all of that".

Hidden files. When a file that is open is removed, libfuse renames it to `.fuse_hiddenNNN` and
removes it on the last close; without that (`hard_remove`) it can no longer name the file to us, and
a plain fstat(2) of the open file fails with ESTALE. We play along without ever making such a name:
a file would reappear after a crash, and its directory could not be removed. The name is only kept
here.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Callable
from typing import Final

from libfs.posix.interface import NAME_MAX, FsError, Ino, User

_HIDDEN: Final = re.compile(rb"\.fuse_hidden[0-9a-f]{16}\Z")


def split(path: bytes) -> tuple[bytes, bytes]:
    """Parent and last name of an absolute path. Raises: ENAMETOOLONG, EINVAL for the root."""
    parent, _, name = path.rpartition(b"/")
    if len(name) > NAME_MAX:
        # The host kernel lets such names through to the server.
        raise FsError(errno.ENAMETOOLONG)
    if not name:
        raise FsError(errno.EINVAL)
    return parent, name


class Paths:
    """Resolves paths; `lookup(user, directory, name)` raises FsError."""

    LIMIT: Final = 1 << 15  # paths of one user: a few megabytes
    USERS: Final = 64

    def __init__(self, root: Ino, lookup: Callable[[User, Ino, bytes], Ino]) -> None:
        self._root = root
        self._lookup = lookup
        self._known: dict[User, dict[bytes, Ino]] = {}
        self._hidden: dict[bytes, Ino] = {}

    def inode(self, user: User, path: bytes) -> Ino:
        """The inode at an absolute path; "/" is the root. Raises: FsError."""
        known = self._known.get(user)
        if known is not None:
            ino = known.get(path)
            if ino is not None:
                return ino
        return self._resolve(user, path)

    def parent(self, user: User, path: bytes) -> tuple[Ino, bytes]:
        """The directory that holds the last name, and the name. Raises: FsError."""
        parent, name = split(path)
        return self.inode(user, parent), name

    def _resolve(self, user: User, path: bytes) -> Ino:
        if path in (b"/", b""):
            return self._root
        parent, name = split(path)
        if self._hidden and name in self._hidden:
            return self._hidden[name]
        # A loop, not a recursion: a path may have two thousand components.
        if user not in self._known and len(self._known) >= self.USERS:
            self._known.clear()
        known = self._known.setdefault(user, {})
        todo = [name]
        directory = known.get(parent)
        while parent and directory is None:
            parent, name = split(parent)
            todo.append(name)
            directory = known.get(parent)
        ino = self._root if directory is None else directory
        if len(known) >= self.LIMIT:
            known.clear()
        while todo:
            name = todo.pop()
            ino = self._lookup(user, ino, name)
            parent = parent + b"/" + name
            known[parent] = ino
        return ino

    def removed(self, path: bytes) -> None:
        """The last name of `path`, no directory with entries, is gone or names another inode."""
        for known in self._known.values():
            known.pop(path, None)

    def renamed(self, old: bytes, new: bytes, *, directory: bool) -> None:
        """`old` and `new` may name other inodes now; so may all below, if one was a directory."""
        if directory:
            self._known.clear()
        else:
            self.removed(old)
            self.removed(new)

    def permissions_changed(self) -> None:
        """A directory may have become unsearchable for somebody."""
        self._known.clear()

    # -- hidden files

    @staticmethod
    def is_hiding(old: bytes, new: bytes) -> bool:
        """Whether this rename looks like libfuse hiding an open file that is being removed."""
        directory, _, name = new.rpartition(b"/")
        return (
            name.startswith(b".fuse_hidden")
            and old.rpartition(b"/")[0] == directory
            and _HIDDEN.match(name) is not None
        )

    def hide(self, path: bytes, ino: Ino) -> None:
        """From now on the last name of `path`, in whatever directory, means `ino`."""
        self._hidden[path.rpartition(b"/")[2]] = ino

    def unhide(self, path: bytes) -> bool:
        """Forget a hidden name; False if it was none."""
        return self._hidden.pop(path.rpartition(b"/")[2], None) is not None
