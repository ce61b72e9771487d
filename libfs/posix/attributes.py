"""stat, chmod, chown, utimens, truncate, access, readlink: attributes by inode number."""

from __future__ import annotations

import errno
import stat

from libfs.posix import acl, data, perms
from libfs.posix.core import READ, SEARCH, WRITE, Core
from libfs.posix.handles import Fh
from libfs.posix.interface import ACL_ACCESS, Attr, Change, FsError, Ino, User
from libfs.posix.timestamps import NOW

_NOTHING = Change()
_SUPERUSER = User(0, 0)
_EROFS_KINDS = (stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK)


def access(core: Core, user: User, ino: Ino, mask: int) -> None:
    """access(2): mask is a sum of read 4, write 2, execute 1; 0 asks for existence.

    Raises: EACCES, EROFS, EINVAL.
    """
    if mask & ~(READ | WRITE | SEARCH):
        raise FsError(errno.EINVAL)
    attr = core.fs.getattr(ino)
    if mask & WRITE and core.readonly and stat.S_IFMT(attr.mode) in _EROFS_KINDS:
        raise FsError(errno.EROFS)
    if mask:
        core.fs.access(user, ino, mask)


def readlink(core: Core, user: User, ino: Ino) -> bytes:
    """The target of a symbolic link. Raises: EINVAL if it is none."""
    attr = core.fs.getattr(ino)
    if not stat.S_ISLNK(attr.mode):
        raise FsError(errno.EINVAL)
    target = core.fs.readlink(ino)
    core.touch(user, attr)
    return target


def change(
    core: Core, user: User, ino: Ino, wanted: Change, size: int | None, fh: Fh | None
) -> Attr:
    """Change what is not None, all or nothing as far as permission goes; the new attributes.

    `wanted.mode` is taken without its type, times may be NOW; without `wanted.ctime` it is now.
    `fh`: the size is ftruncate's, so the handle's right to write counts.
    Raises: EPERM, EACCES, EROFS, and as `data.check_size`.
    """
    attr = core.fs.getattr(ino)
    core.changing(ino, data=size is not None)
    checked = None
    if wanted != _NOTHING:
        core.check_writable()
        checked = _checked(core, user, attr, wanted)
    if size is not None:
        core.check_writable()
        _truncate(core, user, attr, size, fh)
    if checked is not None:
        if checked.mode is not None:
            _follow_mode(core, user, ino, checked.mode)
        core.fs.setattr(user, ino, checked)
    elif size is None:
        return attr
    core.data_changed(ino)
    return core.fs.getattr(ino)


def set_times(core: Core, ino: Ino, mtime: int, ctime: int) -> Attr:
    """Note times that a host kernel has kept; the new attributes. Raises: EROFS.

    Not where the inode has lost its last name: they come after each unlink, and nobody will ever
    read them from the disk.
    """
    core.check_writable()
    fs = core.fs
    attr = fs.getattr(ino)
    if attr.nlink == 0:
        return attr
    core.changing(ino)
    fs.setattr(_SUPERUSER, ino, Change(mtime=mtime, ctime=ctime))
    return fs.getattr(ino)


def _checked(core: Core, user: User, attr: Attr, wanted: Change) -> Change:
    """`wanted` with everything filled in that follows from it, when `user` may ask for it."""
    now = core.fs.now()
    mode, uid, gid = wanted.mode, wanted.uid, wanted.gid
    if uid is not None or gid is not None:
        perms.check_chown(user, attr, uid, gid)
        if mode is None and not stat.S_ISDIR(attr.mode):
            kept = perms.without_setid(attr.mode)
            mode = kept if kept != attr.mode else None
    if wanted.mode is not None:
        mode = perms.chmod(user, attr, wanted.mode, attr.gid if gid is None else gid)
    atime, mtime = wanted.atime, wanted.mtime
    if atime is not None or mtime is not None:
        _check_times(core, user, attr, atime, mtime)
    ctime = now if wanted.ctime is None else wanted.ctime
    return Change(
        mode, uid, gid, now if atime == NOW else atime, now if mtime == NOW else mtime, ctime
    )


def _check_times(core: Core, user: User, attr: Attr, atime: int | None, mtime: int | None) -> None:
    """Who may write may say "now" (both times); the rest is the owner's.

    Raises: EACCES in the first case, EPERM in the second.
    """
    if perms.is_owner(user, attr):
        return
    if atime != NOW or mtime != NOW:
        raise FsError(errno.EPERM)
    core.fs.access(user, attr.ino, WRITE)


def _truncate(core: Core, user: User, attr: Attr, size: int, fh: Fh | None) -> None:
    if fh is not None:
        user = data.check_truncatable(core, fh, attr.ino)
        data.check_size(core, attr, size)
    else:
        data.check_size(core, attr, size)
        core.fs.access(user, attr.ino, WRITE)
    core.fs.truncate(user, attr.ino, size, kill_suid=user.uid != 0)


def _follow_mode(core: Core, user: User, ino: Ino, mode: int) -> None:
    """Keep the stored access list in step with a chmod, for readers of the raw attribute.

    Not needed for safety: the mode is the authority (see `interface`), so a power cut between the
    two steps does no harm.
    """
    try:
        old = core.fs.getxattr(ino, ACL_ACCESS)
    except FsError as error:
        if error.errno in (errno.ENODATA, errno.EOPNOTSUPP):
            return
        raise
    stored = acl.parse_stored_untrusted(old)
    if stored is not None:
        new = acl.encode(stored.with_mode(mode))
        if new != old:
            core.fs.setxattr(user, ino, ACL_ACCESS, new, 0)
