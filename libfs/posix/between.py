"""A name goes from one file system to another, where the two can do that without copying.

What moves the name is the caller's to bring; here is what only the POSIX layer knows: both file
systems stand still meanwhile, both may be changed, and nobody has the inode open or remembers its
number, which would mean nothing any more. Nor could a name that stays behind.
"""

from __future__ import annotations

import errno
import stat
from collections.abc import Callable

from libfs.posix import names
from libfs.posix.interface import FsError, Ino
from libfs.posix.posix import Posix

#: Moves (parent, name) of the one file system to (parent, name) of the other.
Move = Callable[[Ino, bytes, Ino, bytes], None]


def send(
    src: Posix, parent: Ino, name: bytes, dst: Posix, target: Ino, new_name: bytes, move: Move
) -> None:
    """Move a name by `move`. The caller has asked for permissions.

    Raises: EISDIR, EMLINK (it has other names), EBUSY (it is held), EEXIST, ENOENT, EROFS, and what
    `move` raises.
    """
    # By a fixed order: another thread may want to go the other way.
    first, second = sorted((src, dst), key=id)
    with first.locked(), second.locked():
        here, there = src.core, dst.core
        for each in (name, new_name):
            names.check_name(each)
        here.check_writable()
        there.check_writable()
        ino = here.fs.lookup(parent, name)
        if ino is None:
            raise FsError(errno.ENOENT)
        if there.fs.lookup(target, new_name) is not None:
            raise FsError(errno.EEXIST)
        attr = here.fs.getattr(ino)
        if stat.S_ISDIR(attr.mode):
            raise FsError(errno.EISDIR)
        if attr.nlink > 1:
            raise FsError(errno.EMLINK)
        if here.handles.held(ino):
            raise FsError(errno.EBUSY)
        here.changing_name(parent, name)
        there.changing_name(target, new_name)
        move(parent, name, target, new_name)
        here.names_changed((parent,))
        there.names_changed((target,))
