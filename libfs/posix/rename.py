"""rename(2) with its flags: who may, what may replace what, and no directory below itself.

The order of the checks is that of Linux (`do_renameat2`, then `vfs_rename`). The move itself, with
what it replaces, is one atomic step of the file system.
"""

from __future__ import annotations

import errno
import stat

from libfs.posix import names
from libfs.posix.core import SEARCH, WRITE, Core
from libfs.posix.interface import Attr, FsError, Ino, User

RENAME_NOREPLACE = 1
RENAME_EXCHANGE = 2

# Longest chain of directories that is walked; a path that long can't be opened by anybody, so only
# a damaged file system has a longer one (or a circle).
DEPTH_MAX = 1 << 16


def rename(
    core: Core, user: User, src: Ino, name: bytes, dst: Ino, new_name: bytes, flags: int
) -> None:
    """Move a name; RENAME_NOREPLACE refuses to replace, RENAME_EXCHANGE swaps two.

    Two names of one inode: nothing happens. Raises: EINVAL (flags; a directory into its own
    subtree), EBUSY (`.`, `..`), EEXIST, ENOENT, ENOTDIR, EISDIR, ENOTEMPTY, EMLINK, EPERM, EACCES,
    EROFS.
    """
    if flags not in (0, RENAME_NOREPLACE, RENAME_EXCHANGE):
        raise FsError(errno.EINVAL)
    source, target = _both(core, user, src, name, dst, new_name, flags)
    if src != dst:
        _check_loops(core, src, source, dst, target, flags)
    if target is not None and source.ino == target.ino:
        return
    _check_permissions(core, user, src, source, dst, target, flags)
    _check_links(core, src, source, dst, target, flags)
    core.changing_name(src, name)
    core.changing_name(dst, new_name)
    core.changing(source.ino)
    if target is not None:
        core.changing(target.ino)
    if flags & RENAME_EXCHANGE:
        core.fs.exchange(user, src, name, dst, new_name)
    else:
        if target is not None and stat.S_ISDIR(target.mode) and core.fs.entries(target.ino):
            raise FsError(errno.ENOTEMPTY)
        keep = target is not None and core.handles.held(target.ino)
        core.fs.rename(user, src, name, dst, new_name, keep=keep)
        if target is not None:
            core.removed(target)
    core.names_changed((src, dst, source.ino))


def _both(
    core: Core, user: User, src: Ino, name: bytes, dst: Ino, new_name: bytes, flags: int
) -> tuple[Attr, Attr | None]:
    """What the two names name."""
    for directory, each in ((src, name), (dst, new_name)):
        names.check_name(each)
        core.search(user, directory)
    if b"." in (name, new_name) or b".." in (name, new_name):
        raise FsError(errno.EBUSY)
    core.check_writable()
    source = core.fs.lookup(src, name)
    target = core.fs.lookup(dst, new_name)
    if source is None or (target is None and flags & RENAME_EXCHANGE):
        raise FsError(errno.ENOENT)
    if target is None:
        return core.fs.getattr(source), None
    if flags & RENAME_NOREPLACE:
        raise FsError(errno.EEXIST)
    return core.fs.getattr(source), core.fs.getattr(target)


def _check_loops(
    core: Core, src: Ino, source: Attr, dst: Ino, target: Attr | None, flags: int
) -> None:
    """No directory may come to lie below itself, nor be replaced by what lies in it."""
    if stat.S_ISDIR(source.mode) and _lies_below(core, dst, source.ino):
        raise FsError(errno.EINVAL)
    if target is not None and stat.S_ISDIR(target.mode) and _lies_below(core, src, target.ino):
        raise FsError(errno.EINVAL if flags & RENAME_EXCHANGE else errno.ENOTEMPTY)


def _lies_below(core: Core, directory: Ino, ancestor: Ino) -> bool:
    """Whether `ancestor` is `directory` or above it. Raises: EUCLEAN if the chain does not end."""
    root = core.fs.root
    for _ in range(DEPTH_MAX):
        if directory == ancestor:
            return True
        # A removed directory has no place in the tree any more: nothing is above it.
        if directory == root or core.handles.is_orphan(directory):
            return False
        directory = core.fs.parent(directory)
    raise FsError(errno.EUCLEAN, "chain of parent directories does not end")


def _check_permissions(
    core: Core, user: User, src: Ino, source: Attr, dst: Ino, target: Attr | None, flags: int
) -> None:
    """Both directories writable, sticky rules, kinds; moved directories writable (their `..`)."""
    names.check_may_remove(core, user, src, source)
    if target is None:
        if core.fs.getattr(dst).nlink == 0:
            raise FsError(errno.ENOENT)
        core.fs.access(user, dst, WRITE | SEARCH)
    else:
        names.check_may_remove(core, user, dst, target)
        if not flags & RENAME_EXCHANGE:
            _check_kinds(source, target)
    if src != dst:
        if stat.S_ISDIR(source.mode):
            core.fs.access(user, source.ino, WRITE)
        if flags & RENAME_EXCHANGE and target is not None and stat.S_ISDIR(target.mode):
            core.fs.access(user, target.ino, WRITE)


def _check_kinds(source: Attr, target: Attr) -> None:
    """A directory replaces only a directory, and only a directory does."""
    if stat.S_ISDIR(source.mode):
        if not stat.S_ISDIR(target.mode):
            raise FsError(errno.ENOTDIR)
    elif stat.S_ISDIR(target.mode):
        raise FsError(errno.EISDIR)


def _check_links(
    core: Core, src: Ino, source: Attr, dst: Ino, target: Attr | None, flags: int
) -> None:
    """A directory that gains a directory gains a link. Raises: EMLINK."""
    if src == dst:
        return
    source_dir = stat.S_ISDIR(source.mode)
    target_dir = target is not None and stat.S_ISDIR(target.mode)
    gains = [dst] if source_dir and not target_dir else []
    if flags & RENAME_EXCHANGE and target_dir and not source_dir:
        gains.append(src)
    for directory in gains:
        if core.fs.getattr(directory).nlink >= core.fs.link_max:
            raise FsError(errno.EMLINK)
