"""Opening and closing: what open(2)'s flags demand, creation through open, directories.

Handles know rights only; positions are the caller's, as in pread. Nothing is durable on return.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from itertools import islice

from libfs.posix import names, perms
from libfs.posix.core import READ, SEARCH, WRITE, Core
from libfs.posix.handles import Fh, Handle
from libfs.posix.interface import Attr, Dirent, FsError, Ino, User

_WANT = {os.O_RDONLY: READ, os.O_WRONLY: WRITE, os.O_RDWR: READ | WRITE}
# O_TMPFILE contains O_DIRECTORY; alone, the bit has no name in `os`.
_TMPFILE_ONLY = os.O_TMPFILE & ~os.O_DIRECTORY

# `readdir` has no cookies 1 and 2 of its own: those are the places after `.` and `..`
_AFTER_DOT, _AFTER_DOTDOT = 1, 2
_DT_DIR = 4


def _want(flags: int) -> int:
    want = _WANT.get(flags & os.O_ACCMODE)
    if want is None:
        raise FsError(errno.EINVAL)
    return want | WRITE if flags & os.O_TRUNC else want


def open_inode(core: Core, user: User, ino: Ino, flags: int) -> Fh:
    """Open an existing inode; O_TRUNC empties it.

    Raises: ELOOP (a symbolic link), ENOTDIR, EISDIR, ENXIO (FIFO, socket, device: the host's
    business), EROFS, EACCES, EPERM (O_NOATIME by another), EINVAL.
    """
    want = _want(flags)
    attr = core.fs.getattr(ino)
    _check_kind(attr, flags, want)
    if want & WRITE:
        core.check_writable()
    core.fs.access(user, ino, want)
    if flags & os.O_NOATIME:
        perms.check_owner(user, attr)
    directory = stat.S_ISDIR(attr.mode)
    if flags & os.O_TRUNC:
        core.changing(ino, data=True)
        core.fs.truncate(user, ino, 0, kill_suid=user.uid != 0)
        core.data_changed(ino)
    return core.handles.add(Handle(ino, user, flags, directory=directory))


def _check_kind(attr: Attr, flags: int, want: int) -> None:
    kind = stat.S_IFMT(attr.mode)
    if kind == stat.S_IFLNK:
        raise FsError(errno.ELOOP)
    if kind == stat.S_IFDIR:
        if want & WRITE or flags & os.O_CREAT:
            raise FsError(errno.EISDIR)
    elif flags & os.O_DIRECTORY:
        raise FsError(errno.ENOTDIR)
    elif kind != stat.S_IFREG:
        raise FsError(errno.ENXIO)


def create(
    core: Core, user: User, parent: Ino, name: bytes, mode: int, flags: int, umask: int
) -> tuple[Attr, Fh]:
    """open(2) with O_CREAT: make a regular file and open it, or open what is there.

    A file just made may be opened in any way, whatever its mode says.
    Raises: EEXIST with O_EXCL, and as `open_inode` and `names.make`.
    """
    _want(flags)
    if flags & os.O_DIRECTORY:
        raise FsError(errno.EINVAL)
    try:
        ino = names.make(core, user, parent, name, stat.S_IFREG | mode & 0o7777, umask)
    except FsError as error:
        if error.errno != errno.EEXIST or flags & os.O_EXCL:
            raise
        ino = names.find(core, user, parent, name)
        fh = open_inode(core, user, ino, flags | os.O_CREAT)
    else:
        fh = core.handles.add(Handle(ino, user, flags, directory=False))
    return core.fs.getattr(ino), fh


def tmpfile(
    core: Core, user: User, parent: Ino, mode: int, flags: int, umask: int
) -> tuple[Attr, Fh]:
    """open(2) with O_TMPFILE: a regular file without a name, which `link` may name unless O_EXCL.

    Raises: EINVAL without write access, ENOTDIR, ENOENT (removed directory), EROFS, EACCES.
    """
    if not _want(flags) & WRITE:
        raise FsError(errno.EINVAL)
    directory = core.fs.getattr(parent)
    if not stat.S_ISDIR(directory.mode):
        raise FsError(errno.ENOTDIR)
    core.check_writable()
    if directory.nlink == 0:
        raise FsError(errno.ENOENT)
    core.fs.access(user, parent, WRITE | SEARCH)
    mode = stat.S_IFREG | mode & 0o7777
    new = perms.new_inode(user, directory, core.default_acl(parent), mode, umask)
    ino = core.fs.make_anonymous(user, new)
    fh = core.handles.add(Handle(ino, user, flags & ~_TMPFILE_ONLY, directory=False))
    core.handles.orphaned(ino, linkable=not flags & os.O_EXCL)
    return core.fs.getattr(ino), fh


def flush(core: Core, fh: Fh, owner: int) -> None:
    """close(2) of one descriptor: drop the byte-range locks of `owner`. Makes nothing durable."""
    core.locks.unlock_owner(core.handles.get(fh), owner)


def release(core: Core, fh: Fh) -> None:
    """The last descriptor is gone: drop the flock lock, and the inode if it has no name."""
    handle = core.handles.get(fh)
    last = core.handles.remove(fh)
    core.locks.release(handle, fh, last=last)


# -- directories


def opendir(core: Core, user: User, ino: Ino, flags: int) -> Fh:
    """Open for `readdir`. Raises: ENOTDIR, EACCES."""
    return open_inode(core, user, ino, flags & ~os.O_ACCMODE | os.O_DIRECTORY)


def directory(core: Core, fh: Fh) -> Handle:
    """The handle of an open directory. Raises: EBADF, ENOTDIR."""
    handle = core.handles.get(fh)
    if not handle.directory:
        raise FsError(errno.ENOTDIR)
    return handle


def readdir(core: Core, fh: Fh, cookie: int, count: int) -> list[Dirent]:
    """At most `count` entries after `cookie` (0 = start), `.` and `..` first; none at the end.

    An entry that exists throughout is given exactly once. A removed directory has none at all.
    Raises: EINVAL for a negative cookie.
    """
    handle = directory(core, fh)
    if cookie < 0 or count < 0:
        raise FsError(errno.EINVAL)
    ino = handle.ino
    if core.handles.is_orphan(ino):
        return []
    if not handle.noatime:
        core.touch(handle.user, core.fs.getattr(ino))
    found: list[Dirent] = []
    if cookie < _AFTER_DOT:
        found.append(Dirent(b".", ino, _DT_DIR, _AFTER_DOT))
    if cookie < _AFTER_DOTDOT:
        found.append(Dirent(b"..", core.fs.parent(ino), _DT_DIR, _AFTER_DOTDOT))
    del found[count:]
    entries = core.fs.readdir(ino, max(0, cookie - _AFTER_DOTDOT))
    found += [
        Dirent(entry.name, entry.ino, entry.d_type, entry.next + _AFTER_DOTDOT)
        for entry in islice(entries, count - len(found))
    ]
    return found


def readdirplus(
    core: Core, fh: Fh, cookie: int, count: int, wanted: Callable[[], bool]
) -> tuple[list[Dirent], list[Attr | None]]:
    """As `readdir`, and the attributes of each entry.

    None for `.`, `..`, and an inode that is damaged. If some are not in memory, `wanted` is asked
    whether they are to be read; None for them if not.
    """
    found = readdir(core, fh, cookie, count)
    dots = sum(entry.next <= _AFTER_DOTDOT for entry in found[:2])
    named, ino = found[dots:], core.handles.get(fh).ino
    attrs = core.fs.getattrs(ino, named, read=False)
    if None in attrs and wanted():
        attrs = core.fs.getattrs(ino, named, read=True)
    return found, [None] * dots + attrs
