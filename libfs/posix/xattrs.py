"""Extended attributes: the namespaces of Linux, their rules, and ACLs as attributes.

    user.      files and directories; read and write permission count; in a sticky directory
               (itself) only its owner writes
    trusted.   uid 0 only; for others they do not exist
    security.  anyone reads, uid 0 writes
    system.    only the two POSIX ACLs; anyone reads, the owner writes; they are validated, and the
               access list and the mode follow each other

Names longer than 255 bytes give ERANGE, values longer than 65536 E2BIG, as in Linux. What fits on
disk is the file system's affair (ENOSPC).
"""

from __future__ import annotations

import errno
import stat

from libfs.posix import acl, perms
from libfs.posix.core import READ, WRITE, Core
from libfs.posix.interface import (
    ACL_ACCESS,
    ACL_DEFAULT,
    XATTR_CREATE,
    XATTR_REPLACE,
    Attr,
    Change,
    FsError,
    Ino,
    User,
)

NAME_MAX = 255
VALUE_MAX = 65536

_ACLS = (ACL_ACCESS, ACL_DEFAULT)
_PREFIXES = (b"user.", b"trusted.", b"security.")


def _check_name(name: bytes) -> None:
    """Raises: ERANGE (empty, too long), EOPNOTSUPP (no such namespace), EINVAL (nothing in it)."""
    if not 0 < len(name) <= NAME_MAX:
        raise FsError(errno.ERANGE)
    if name in _ACLS:
        return
    if not name.startswith(_PREFIXES):
        raise FsError(errno.EOPNOTSUPP)
    if name in _PREFIXES or b"\0" in name:
        raise FsError(errno.EINVAL)


def _check_access(core: Core, user: User, attr: Attr, name: bytes, want: int) -> None:
    """Raises: EPERM or EACCES; for reading also ENODATA, where the name can't exist."""
    refused = FsError(errno.EPERM if want & WRITE else errno.ENODATA)
    if name.startswith(b"user."):
        if not (stat.S_ISREG(attr.mode) or stat.S_ISDIR(attr.mode)):
            raise refused
        sticky = stat.S_ISDIR(attr.mode) and attr.mode & stat.S_ISVTX
        if sticky and want & WRITE and not perms.is_owner(user, attr):
            raise refused
        core.fs.access(user, attr.ino, want)
    elif user.uid != 0 and (name.startswith(b"trusted.") or want & WRITE):
        raise refused


def get(core: Core, user: User, ino: Ino, name: bytes) -> bytes:
    """Raises: ENODATA if absent or hidden, EACCES, EOPNOTSUPP, ERANGE, EINVAL."""
    _check_name(name)
    attr = core.fs.getattr(ino)
    if name not in _ACLS:
        _check_access(core, user, attr, name, READ)
        return core.fs.getxattr(ino, name)
    if stat.S_ISLNK(attr.mode):
        raise FsError(errno.EOPNOTSUPP)
    value = core.fs.getxattr(ino, name)
    stored = acl.parse_stored_untrusted(value) if name == ACL_ACCESS else None
    return value if stored is None else acl.encode(stored.with_mode(attr.mode))


def names(core: Core, user: User, ino: Ino) -> list[bytes]:
    """The names of all that `user` may know of."""
    return [
        name for name in core.fs.listxattr(ino) if user.uid == 0 or not name.startswith(b"trusted.")
    ]


def put(core: Core, user: User, ino: Ino, name: bytes, value: bytes, flags: int) -> None:
    """Set, with XATTR_CREATE or XATTR_REPLACE in `flags`.

    Raises: EEXIST, ENODATA, E2BIG, EPERM, EACCES, EROFS, ENOSPC, EINVAL (flags; a malformed
    list), and as `get`.
    """
    if flags not in (0, XATTR_CREATE, XATTR_REPLACE):
        raise FsError(errno.EINVAL)
    if len(value) > VALUE_MAX:
        raise FsError(errno.E2BIG)
    _check_name(name)
    core.check_writable()
    attr = core.fs.getattr(ino)
    core.changing(ino)
    if name in _ACLS:
        _put_acl(core, user, attr, name, value)
    else:
        _check_access(core, user, attr, name, WRITE)
        core.fs.setxattr(user, ino, name, value, flags)
    core.data_changed(ino)


def remove(core: Core, user: User, ino: Ino, name: bytes) -> None:
    """Raises: ENODATA if absent (an absent access control list is removed without complaint)."""
    _check_name(name)
    core.check_writable()
    attr = core.fs.getattr(ino)
    core.changing(ino)
    if name in _ACLS:
        _put_acl(core, user, attr, name, b"")
    else:
        _check_access(core, user, attr, name, WRITE)
        core.fs.removexattr(user, ino, name)
    core.data_changed(ino)


def _put_acl(core: Core, user: User, attr: Attr, name: bytes, value: bytes) -> None:
    """Set a list, or remove it with an empty one; an access list changes the mode."""
    new = acl.parse_untrusted(value)
    if stat.S_ISLNK(attr.mode):
        raise FsError(errno.EOPNOTSUPP)
    if name == ACL_DEFAULT and new is not None and not stat.S_ISDIR(attr.mode):
        raise FsError(errno.EACCES)
    perms.check_owner(user, attr)
    if name == ACL_DEFAULT:
        core.forget_acl(attr.ino)
        _store_acl(core, user, attr.ino, name, new)
        return
    # The list first: if there is no room for it, the mode has to stay. A power cut in between
    # does no harm, because the mode is the authority on what they share.
    if new is not None and not new.minimal:
        _store_acl(core, user, attr.ino, name, new)
    if new is not None:
        mode = perms.chmod(user, attr, attr.mode & 0o7000 | new.mode, attr.gid)
        if mode != attr.mode:
            core.fs.setattr(user, attr.ino, Change(mode=mode, ctime=core.fs.now()))
    if new is None or new.minimal:
        _store_acl(core, user, attr.ino, name, None)


def _store_acl(core: Core, user: User, ino: Ino, name: bytes, new: acl.Acl | None) -> None:
    if new is not None:
        core.fs.setxattr(user, ino, name, acl.encode(new), 0)
        return
    try:
        core.fs.removexattr(user, ino, name)
    except FsError as error:
        if error.errno != errno.ENODATA:
            raise
