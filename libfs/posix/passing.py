"""The passing directories of copies: where what is being copied lies until it is whole.

They lie in the root of the file system, whatever the target, so that a mount finds with a few
look-ups what a power cut has left of a copy, and removes it in small steps. Each carries a mark
that only the superuser can make: what somebody else has given such a name is his.
"""

from __future__ import annotations

import errno
import stat

from libfs.posix import names, perms
from libfs.posix.core import Core
from libfs.posix.interface import FsError, Ino, User

NAME = b".xnfs-cp-%d"
MARK = b"trusted.xnfs.copying"
_SUPERUSER = User(0, 0)
#: A mount makes one copy at a time; more names are needed only while a left one is being removed.
_NAMES = 8
_REMOVED = 64  # entries in one step
Doomed = tuple[Ino, bytes, Ino]  # where, by which name, what


def make(core: Core, user: User, parent: Ino) -> Doomed:
    """A directory of `user`'s, with what is inherited in `parent`. Raises: FsError."""
    root = core.fs.root
    if core.fs.getattr(root).nlink >= core.fs.link_max:
        raise FsError(errno.EMLINK)
    inherits = core.fs.getattr(parent), core.default_acl(parent)
    new = perms.new_inode(user, *inherits, stat.S_IFDIR | 0o700, 0)
    new.xattrs += ((MARK, b"1"),)
    for number in range(_NAMES):
        name = NAME % number
        if core.fs.lookup(root, name) is None:
            core.changing_name(root, name)
            return root, name, core.fs.create(_SUPERUSER, root, name, new)
    raise FsError(errno.EEXIST)


def remove_some(core: Core, doomed: list[Doomed]) -> bool:
    """A step of removing the directories in the list, which it uses; whether they are gone. Raises:
    FsError.
    """
    if not doomed:
        return True
    parent, name, ino = doomed[-1]
    below = []
    for count, entry in enumerate(core.fs.readdir(ino, 0)):
        if count == _REMOVED:
            break
        below.append(entry)
    for entry in below:
        if entry.d_type == stat.S_IFDIR >> 12:
            doomed.append((ino, entry.name, entry.ino))
        else:
            names.unlink(core, _SUPERUSER, ino, entry.name)
    if not below:
        names.rmdir(core, _SUPERUSER, parent, name)
        doomed.pop()
    return not doomed


def find_left(core: Core) -> None:
    """Note what copies have left that a power cut has ended, if it may be removed."""
    root = core.fs.root
    for number in range(0 if core.readonly else _NAMES):
        ino = core.fs.lookup(root, NAME % number)
        if ino is not None and stat.S_ISDIR(core.fs.getattr(ino).mode) and _marked(core, ino):
            core.left.append((root, NAME % number, ino))


def remove_left(core: Core) -> None:
    """A step of removing it. Where somebody has been at it, the next mount tries again."""
    try:
        if not core.readonly:
            remove_some(core, core.left)
    except FsError:
        core.left.clear()


def _marked(core: Core, ino: Ino) -> bool:
    try:
        return core.fs.getxattr(ino, MARK) == b"1"
    except FsError as error:
        if error.errno not in (errno.ENODATA, errno.EOPNOTSUPP):
            raise
        return False
