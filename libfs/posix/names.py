"""Names: look them up, make them, remove them. (`rename` has a room of its own.)

Each function checks in the order of Linux, because programs look at which errno wins: the name
itself, search permission, existence, read-only, the directory being removed, write permission,
sticky, kinds. Atomicity, times and link counts are the file system's.
"""

from __future__ import annotations

import errno
import stat

from libfs.posix import perms
from libfs.posix.core import SEARCH, WRITE, Core
from libfs.posix.interface import NAME_MAX, Attr, FsError, Ino, New, User

TARGET_MAX = 4095  # PATH_MAX without its NUL
_DOTS = (b".", b"..")
_MAY_MAKE = (stat.S_IFREG, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFIFO, stat.S_IFSOCK)
_DEVICES = (stat.S_IFCHR, stat.S_IFBLK)


def check_name(name: bytes) -> None:
    """Raises: ENAMETOOLONG, ENOENT (empty), EINVAL (holds `/` or NUL)."""
    if len(name) > NAME_MAX:
        raise FsError(errno.ENAMETOOLONG)
    if not name:
        raise FsError(errno.ENOENT)
    if b"/" in name or b"\0" in name:
        raise FsError(errno.EINVAL)


def find(core: Core, user: User, parent: Ino, name: bytes) -> Ino:
    """The inode of `name`, also of `.` and `..`.

    Raises: ENOENT, ENOTDIR, EACCES, and as `check_name`.
    """
    check_name(name)
    core.search(user, parent)
    if name in _DOTS:
        return _find_dot(core, parent, name)
    ino = core.fs.lookup(parent, name)
    if ino is None:
        raise FsError(errno.ENOENT)
    return ino


def _find_dot(core: Core, parent: Ino, name: bytes) -> Ino:
    attr = core.fs.getattr(parent)
    if not stat.S_ISDIR(attr.mode):
        raise FsError(errno.ENOTDIR)
    if name == b".":
        return parent
    if attr.nlink == 0:
        raise FsError(errno.ENOENT)
    return core.fs.parent(parent)


def lookup(core: Core, user: User, parent: Ino, name: bytes) -> Attr:
    """The attributes of `name`. Raises: as `find`."""
    return core.fs.getattr(find(core, user, parent, name))


# -- making


def check_may_make(core: Core, user: User, parent: Ino, name: bytes) -> Attr:
    """The attributes of `parent`, in which `user` may make `name`.

    Whether the name is free is left to the file system's own EEXIST, except where another errno
    would hide it. Raises: EEXIST, EROFS, ENOENT, EACCES, ENOTDIR, and as `check_name`.
    """
    check_name(name)
    if name in _DOTS:
        core.search(user, parent)
        raise FsError(errno.EEXIST)
    attr = core.fs.getattr(parent)
    if not stat.S_ISDIR(attr.mode):
        raise FsError(errno.ENOTDIR)
    try:
        core.check_writable()
        if attr.nlink == 0:
            raise FsError(errno.ENOENT)
        core.fs.access(user, parent, WRITE | SEARCH)
    except FsError:
        core.fs.access(user, parent, SEARCH)
        if core.fs.lookup(parent, name) is not None:
            raise FsError(errno.EEXIST) from None
        raise
    return attr


def make(
    core: Core, user: User, parent: Ino, name: bytes, mode: int, umask: int, rdev: int = 0
) -> Ino:
    """Make an inode of `mode` (with type) under `name`. Raises: as `check_may_make`, EEXIST."""
    attr = check_may_make(core, user, parent, name)
    new = perms.new_inode(user, attr, core.default_acl(parent), mode, umask, rdev)
    return _make(core, user, parent, name, new)


def _make(core: Core, user: User, parent: Ino, name: bytes, new: New) -> Ino:
    core.changing_name(parent, name)
    ino = core.fs.create(user, parent, name, new)
    if core.sync_names:
        core.names_changed((parent, ino))
    return ino


def mknod(
    core: Core, user: User, parent: Ino, name: bytes, mode: int, rdev: int, umask: int
) -> Attr:
    """Make a file, FIFO, socket or (uid 0) device; no type means a file.

    Raises: EPERM for a device or a directory, EINVAL for another type, and as `make`.
    """
    kind = stat.S_IFMT(mode) or stat.S_IFREG
    if kind == stat.S_IFDIR:
        raise FsError(errno.EPERM)
    if kind not in _MAY_MAKE:
        raise FsError(errno.EINVAL)
    if kind in _DEVICES:
        if user.uid != 0:
            check_may_make(core, user, parent, name)
            if core.fs.lookup(parent, name) is not None:
                raise FsError(errno.EEXIST)
            raise FsError(errno.EPERM)
    else:
        rdev = 0
    ino = make(core, user, parent, name, kind | mode & 0o7777, umask, rdev)
    return core.fs.getattr(ino)


def mkdir(core: Core, user: User, parent: Ino, name: bytes, mode: int, umask: int) -> Attr:
    """Make a directory; set-id bits of `mode` are ignored. Raises: EMLINK, and as `make`."""
    attr = check_may_make(core, user, parent, name)
    if attr.nlink >= core.fs.link_max:
        if core.fs.lookup(parent, name) is not None:
            raise FsError(errno.EEXIST)
        raise FsError(errno.EMLINK)
    mode = stat.S_IFDIR | mode & 0o1777
    new = perms.new_inode(user, attr, core.default_acl(parent), mode, umask)
    return core.fs.getattr(_make(core, user, parent, name, new))


def symlink(core: Core, user: User, parent: Ino, name: bytes, target: bytes) -> Attr:
    """Make a symbolic link. Raises: ENOENT or ENAMETOOLONG for the target, and as `make`."""
    if not target:
        raise FsError(errno.ENOENT)
    if len(target) > TARGET_MAX:
        raise FsError(errno.ENAMETOOLONG)
    if b"\0" in target:
        raise FsError(errno.EINVAL)
    attr = check_may_make(core, user, parent, name)
    new = perms.new_inode(user, attr, None, stat.S_IFLNK | 0o777, 0)
    new.target = target
    return core.fs.getattr(_make(core, user, parent, name, new))


def link(core: Core, user: User, ino: Ino, parent: Ino, name: bytes) -> Attr:
    """Give `ino` another name.

    Raises: EPERM for a directory, ENOENT for an unlinked inode, EMLINK, and as `make`.
    """
    check_may_make(core, user, parent, name)
    attr = core.fs.getattr(ino)
    if core.fs.lookup(parent, name) is not None:
        raise FsError(errno.EEXIST)
    if stat.S_ISDIR(attr.mode):
        raise FsError(errno.EPERM)
    if attr.nlink == 0 and not core.handles.is_linkable(ino):
        raise FsError(errno.ENOENT)
    if attr.nlink >= core.fs.link_max:
        raise FsError(errno.EMLINK)
    core.changing_name(parent, name)
    core.changing(ino)
    core.fs.link(user, ino, parent, name)
    core.handles.named(ino)
    core.names_changed((parent, ino))
    return core.fs.getattr(ino)


# -- removing


def check_may_remove(core: Core, user: User, parent: Ino, victim: Attr) -> None:
    """Raises: EACCES, EPERM (sticky)."""
    core.fs.access(user, parent, WRITE | SEARCH)
    directory = core.fs.getattr(parent)
    if directory.mode & stat.S_ISVTX:
        perms.check_sticky(user, directory, victim)


def unlink(core: Core, user: User, parent: Ino, name: bytes) -> None:
    """Remove a name of a non-directory; while held, the inode lives on.

    Raises: EISDIR, and as `find` and `check_may_remove`.
    """
    check_name(name)
    core.search(user, parent)
    if name in _DOTS:
        raise FsError(errno.EISDIR)
    victim = _victim(core, user, parent, name)
    if stat.S_ISDIR(victim.mode):
        raise FsError(errno.EISDIR)
    core.changing_name(parent, name)
    core.changing(victim.ino)
    core.fs.unlink(user, parent, name, keep=core.handles.held(victim.ino))
    core.removed(victim)
    core.names_changed((parent,))


def rmdir(core: Core, user: User, parent: Ino, name: bytes) -> None:
    """Remove an empty directory; while held, it lives on, empty for ever.

    Raises: ENOTDIR, ENOTEMPTY (also for `..`), EINVAL for `.`, and as `unlink`.
    """
    check_name(name)
    core.search(user, parent)
    if name in _DOTS:
        raise FsError(errno.EINVAL if name == b"." else errno.ENOTEMPTY)
    victim = _victim(core, user, parent, name)
    if not stat.S_ISDIR(victim.mode):
        raise FsError(errno.ENOTDIR)
    if core.fs.entries(victim.ino):
        raise FsError(errno.ENOTEMPTY)
    core.changing_name(parent, name)
    core.changing(victim.ino)
    core.fs.unlink(user, parent, name, keep=core.handles.held(victim.ino))
    core.removed(victim)
    core.names_changed((parent,))


def _victim(core: Core, user: User, parent: Ino, name: bytes) -> Attr:
    """What `name` names, when `user` may remove it."""
    core.check_writable()
    ino = core.fs.lookup(parent, name)
    if ino is None:
        raise FsError(errno.ENOENT)
    victim = core.fs.getattr(ino)
    check_may_remove(core, user, parent, victim)
    return victim
