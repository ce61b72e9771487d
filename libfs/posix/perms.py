"""Who may change what, apart from the read, write and search bits (which the file system's `access`
decides): owners, groups, set-id bits, sticky directories, and what new inodes start with.

uid 0 has every privilege that Linux splits into capabilities.
"""

from __future__ import annotations

import errno
import stat

from libfs.posix import acl
from libfs.posix.interface import ACL_ACCESS, ACL_DEFAULT, Attr, FsError, New, User

_SGID_AND_EXECUTABLE = stat.S_ISGID | stat.S_IXGRP


def is_owner(user: User, attr: Attr) -> bool:
    """Whether `user` may do what only an owner may."""
    return user.uid in (0, attr.uid)


def in_group(user: User, gid: int) -> bool:
    """Whether `user` counts as a member of `gid`."""
    return user.uid == 0 or user.gid == gid or gid in user.groups


def check_owner(user: User, attr: Attr) -> None:
    """Raises: EPERM."""
    if not is_owner(user, attr):
        raise FsError(errno.EPERM)


def check_sticky(user: User, directory: Attr, victim: Attr) -> None:
    """In a sticky directory only the owner of the entry or of the directory takes an entry away.

    Raises: EPERM.
    """
    if directory.mode & stat.S_ISVTX and user.uid not in (0, victim.uid, directory.uid):
        raise FsError(errno.EPERM)


def without_setid(mode: int) -> int:
    """`mode` after a change by somebody who may not keep set-id bits.

    S_ISGID without S_IXGRP is no set-id bit but an old mark of mandatory locking: it stays.
    """
    mode &= ~stat.S_ISUID
    if mode & _SGID_AND_EXECUTABLE == _SGID_AND_EXECUTABLE:
        mode &= ~stat.S_ISGID
    return mode


def chmod(user: User, attr: Attr, mode: int, gid: int) -> int:
    """The full mode after a chmod to `mode`; `gid` is the group the inode will have.

    Raises: EPERM.
    """
    check_owner(user, attr)
    if not in_group(user, gid):
        mode &= ~stat.S_ISGID
    return stat.S_IFMT(attr.mode) | mode & 0o7777


def check_chown(user: User, attr: Attr, uid: int | None, gid: int | None) -> None:
    """An owner may give a file to a group of theirs; the rest is uid 0's. Raises: EPERM."""
    if user.uid == 0:
        return
    owner = user.uid == attr.uid
    if uid is not None and not (owner and uid == attr.uid):
        raise FsError(errno.EPERM)
    if gid is not None and not (owner and (gid == attr.gid or in_group(user, gid))):
        raise FsError(errno.EPERM)


def new_inode(
    user: User, parent: Attr, default: acl.Acl | None, mode: int, umask: int, rdev: int = 0
) -> New:
    """What an inode of `mode` (with type) starts with when `user` makes it in `parent`."""
    gid = user.gid
    if parent.mode & stat.S_ISGID:
        gid = parent.gid
        if stat.S_ISDIR(mode):
            mode |= stat.S_ISGID
        elif mode & _SGID_AND_EXECUTABLE == _SGID_AND_EXECUTABLE and not in_group(user, gid):
            mode &= ~stat.S_ISGID
    if default is None:
        return New(mode & ~umask, user.uid, gid, rdev)
    mode, access = acl.inherit(default, mode)
    xattrs: list[tuple[bytes, bytes]] = []
    if access is not None:
        xattrs.append((ACL_ACCESS, acl.encode(access)))
    if stat.S_ISDIR(mode):
        xattrs.append((ACL_DEFAULT, acl.encode(default)))
    return New(mode, user.uid, gid, rdev, b"", tuple(xattrs))
