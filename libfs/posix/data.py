"""Bytes of open files: read, write, truncate, fallocate, seek, copy.

Relies on the rights in the handle, which `opening` checked; a chmod after that changes nothing.
Set-id bits go when somebody other than uid 0 changes bytes.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Sequence

from libfs.posix.core import Core
from libfs.posix.handles import Fh, Handle
from libfs.posix.interface import Attr, Change, FsError, Ino, Sink, User

FALLOC_FL_KEEP_SIZE = 0x01
FALLOC_FL_PUNCH_HOLE = 0x02
FALLOC_FL_ZERO_RANGE = 0x10
_FALLOC_MODES = (
    0,
    FALLOC_FL_KEEP_SIZE,
    FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
    FALLOC_FL_ZERO_RANGE,
    FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE,
)

# One call of `copy` holds the lock for at most so many bytes; callers go on where it stopped.
COPY_MAX = 16 << 20
_COPY_STEP = 1 << 20


def _readable(core: Core, fh: Fh) -> Handle:
    handle = core.handles.get(fh)
    if not handle.readable:
        raise FsError(errno.EBADF)
    if handle.directory:
        raise FsError(errno.EISDIR)
    return handle


def _writable(core: Core, fh: Fh) -> Handle:
    # A directory can't be opened for writing, so these are files. The file system may have become
    # read-only since it was opened.
    handle = core.handles.get(fh)
    if not handle.writable:
        raise FsError(errno.EBADF)
    core.check_writable()
    return handle


def read(core: Core, fh: Fh, offset: int, size: int) -> bytes:
    """At most `size` bytes; fewer only at the end of the file. Raises: EBADF, EISDIR, EINVAL."""
    handle = _readable(core, fh)
    if offset < 0 or size < 0:
        raise FsError(errno.EINVAL)
    if size == 0:
        return b""
    data = core.fs.read(handle.ino, offset, size)
    if not handle.noatime:
        core.touch(handle.user, core.fs.getattr(handle.ino))
    return data


def lend(core: Core, fh: Fh, offset: int, size: int, to: Sink) -> None:
    """As `read`, but the bytes are shown to `to`, if the file system can where they are cached.

    What follows the sink can't be told to anybody any more, so the access time moves first, also
    for a read that then fails.
    """
    handle = _readable(core, fh)
    if offset < 0 or size < 0:
        raise FsError(errno.EINVAL)
    if size and not handle.noatime:
        core.touch(handle.user, core.fs.getattr(handle.ino))
    if size == 0 or core.lender is None:
        to([core.fs.read(handle.ino, offset, size)] if size else [])
    else:
        core.lender.lend(handle.ino, offset, size, to)


def borrow(core: Core, fh: Fh, offset: int, size: int) -> Sequence[memoryview]:
    """As `read`, in pieces that lie in the cache, if the file system can, and never change."""
    lender, handle = core.lender, _readable(core, fh)
    if lender is None or offset < 0 or size <= 0:
        return [memoryview(read(core, fh, offset, size))]
    pieces = lender.borrow(handle.ino, offset, size)
    if not handle.noatime:
        core.touch(handle.user, core.fs.getattr(handle.ino))
    return pieces


def write(core: Core, fh: Fh, offset: int, data: bytes | memoryview) -> int:
    """Write at `offset` (O_APPEND: at the end); how many bytes, fewer only when space ran out or
    at the largest size. Durable on return only with O_SYNC, O_DSYNC or the mount's `sync`.

    Raises: EBADF, EINVAL, EFBIG, ENOSPC.
    """
    handle = _writable(core, fh)
    if offset < 0:
        raise FsError(errno.EINVAL)
    if not data:
        return 0
    fs = core.fs
    if handle.append:
        offset = fs.getattr(handle.ino).size
    room = fs.max_size - offset
    if len(data) > room:
        if room <= 0:
            raise FsError(errno.EFBIG)
        data = data[:room]
    user = handle.user
    before = fs.getattr(handle.ino) if handle.keep_times else None
    core.changing(handle.ino, data=True)
    written = fs.write(user, handle.ino, offset, data, kill_suid=user.uid != 0)
    if before is not None:
        fs.setattr(user, handle.ino, Change(mtime=before.mtime, ctime=before.ctime))
    core.data_changed(handle.ino, handle)
    return written


def check_size(core: Core, attr: Attr, size: int) -> None:
    """Whether a file can be given this size. Raises: EINVAL, EISDIR, EFBIG."""
    if stat.S_ISDIR(attr.mode):
        raise FsError(errno.EISDIR)
    if not stat.S_ISREG(attr.mode) or size < 0:
        raise FsError(errno.EINVAL)
    if size > core.fs.max_size:
        raise FsError(errno.EFBIG)


def check_truncatable(core: Core, fh: Fh, ino: Ino) -> User:
    """ftruncate(2): who opened `fh`, which is open for writing `ino`. Raises: EBADF, EINVAL."""
    handle = core.handles.get(fh)
    if not handle.writable or handle.ino != ino:
        raise FsError(errno.EINVAL)
    return handle.user


def fallocate(core: Core, fh: Fh, mode: int, offset: int, length: int) -> None:
    """Reserve, punch or zero a range, as `mode` (Linux's flags) says.

    Raises: EBADF, EINVAL, EOPNOTSUPP (collapse, insert, unshare, and punching without KEEP_SIZE),
    EFBIG, ENOSPC.
    """
    if offset < 0 or length <= 0:
        raise FsError(errno.EINVAL)
    if mode not in _FALLOC_MODES:
        raise FsError(errno.EOPNOTSUPP)
    handle = _writable(core, fh)
    if offset + length > core.fs.max_size:
        raise FsError(errno.EFBIG)
    fs, user, ino = core.fs, handle.user, handle.ino
    keep_size = bool(mode & FALLOC_FL_KEEP_SIZE)
    core.changing(ino, data=True)
    if mode & FALLOC_FL_PUNCH_HOLE:
        fs.punch(user, ino, offset, length)
    elif mode & FALLOC_FL_ZERO_RANGE:
        fs.zero_range(user, ino, offset, length, keep_size=keep_size)
    else:
        fs.allocate(user, ino, offset, length, keep_size=keep_size)
    _drop_setid(core, user, ino)
    core.data_changed(ino, handle)


def _drop_setid(core: Core, user: User, ino: Ino) -> None:
    """For the three calls above, which have no `kill_suid`: truncating to the same size has."""
    attr = core.fs.getattr(ino)
    if user.uid != 0 and attr.mode & (stat.S_ISUID | stat.S_ISGID):
        core.fs.truncate(user, ino, attr.size, kill_suid=True)


def lseek(core: Core, fh: Fh, offset: int, whence: int) -> int:
    """SEEK_DATA and SEEK_HOLE: the next place at or after `offset` that is one. (The other kinds
    need a position, which is the caller's.) The end of a file is a hole.

    Raises: ENXIO at or past the end or where no data follows, EINVAL, EBADF.
    """
    handle = core.handles.get(fh)
    if whence not in (os.SEEK_DATA, os.SEEK_HOLE) or handle.directory:
        raise FsError(errno.EINVAL)
    if not 0 <= offset < core.fs.getattr(handle.ino).size:
        raise FsError(errno.ENXIO)
    return core.fs.seek(handle.ino, offset, hole=whence == os.SEEK_HOLE)


def copy(core: Core, fh_in: Fh, off_in: int, fh_out: Fh, off_out: int, size: int) -> int:
    """copy_file_range(2): how many bytes were copied, 0 at the end of the source.

    Raises: EBADF (rights; O_APPEND), EISDIR, EINVAL (ranges overlap in one file), EFBIG, ENOSPC.
    """
    source, target = _readable(core, fh_in), _writable(core, fh_out)
    if target.append:
        raise FsError(errno.EBADF)
    if off_in < 0 or off_out < 0 or size < 0:
        raise FsError(errno.EINVAL)
    size = min(size, max(0, core.fs.getattr(source.ino).size - off_in))
    if source.ino == target.ino and off_in < off_out + size and off_out < off_in + size:
        raise FsError(errno.EINVAL)
    size = min(size, COPY_MAX)
    done = 0
    while done < size:
        data = core.fs.read(source.ino, off_in + done, min(_COPY_STEP, size - done))
        try:
            written = write(core, fh_out, off_out + done, data)
        except FsError:
            if done == 0:
                raise
            break
        done += written
        if written < len(data):
            break
    if size and not source.noatime:
        core.touch(source.user, core.fs.getattr(source.ino))
    return done
