"""What libfuse calls, one method for each operation: C types in, 0, a length or -errno out.

Does: carry each call across the line between C and Python, with the caller's identity.
Does not: decide anything; `requests.py` does. No exception gets back to libfuse: `serve.errno_of`
has the last word.
Relies on: libfuse running all calls in one thread, so that one context serves for all of them.
"""

from __future__ import annotations

import ctypes
import errno
from collections.abc import Callable, Sequence
from typing import Any, Final

from libfs import fuse_abi as abi
from libfs.posix.handles import Fh
from libfs.posix.interface import Dirent, FsError, User
from libfs.posix.timestamps import NOW
from libfs.requests import Requests
from libfs.serve import Users, errno_of

#: Directory entries fetched at once: a little more than fit the kernel's buffer.
_ENTRIES: Final = 160
_NO_ENTRIES: Final[Sequence[Dirent]] = ()
_FH: Final = abi.FileInfo.fh.offset


class Calls:
    """What libfuse calls: one method for each operation, C types in, 0 or a length out."""

    def __init__(self, library: Any, requests: Requests, ready: Callable[[], None]) -> None:
        self._stat = abi.stat_packer()
        self._get_context = library.fuse_get_context
        self._context = abi.Context()
        self._users = Users()
        self._do = requests
        self._ready = ready
        self._ahead: dict[Fh, tuple[int, Sequence[Dirent]]] = {}
        self.handle: int | None = None  # struct fuse *
        self.writes = 0

    def callbacks(self) -> dict[str, Any]:
        """C functions by the name of their operation."""
        return {name: abi.callback(name, self._guarded(name)) for name in abi.ARGUMENTS}

    def _guarded(self, name: str) -> Callable[..., int]:
        """The method, with every exception turned into an errno: none may reach libfuse."""
        method: Callable[..., int] = getattr(self, name)
        do, settles = self._do, name != "rename"

        def call(*arguments: Any) -> int:
            try:
                if do.removal is not None and settles:
                    do.settle()
                return method(*arguments)
            except FsError as error:
                return -(error.errno or errno_of(error))
            except BaseException as error:
                return -errno_of(error)

        return call

    def _who(self) -> User:
        context = self._context
        return self._users.get(context.uid, context.gid, context.pid)

    def _handle(self, info: int) -> Fh:
        return Fh(ctypes.c_uint64.from_address(info + _FH).value)

    # -- the mount

    def init(self, connection: int) -> int:
        """The host kernel has mounted us and said what it can do."""
        # One thread runs the loop, and libfuse keeps one context for each thread.
        address = self._get_context()
        self._context = abi.Context.from_address(address)
        self.handle = self._context.fuse
        info = abi.ConnInfo.from_address(connection)
        # DONT_MASK: default ACLs take the place of the umask, so the POSIX layer must see both.
        wanted = abi.CAP_ATOMIC_O_TRUNC | abi.CAP_BIG_WRITES | abi.CAP_DONT_MASK
        info.want |= info.capable & wanted
        self._ready()
        return 0

    def destroy(self, _data: int) -> int:
        """The mount is gone, and libfuse frees its memory; `Mount.run` closes the file system."""
        self.handle = None
        return 0

    def statfs(self, _path: bytes, buf: int) -> int:
        """statfs(2)."""
        made = abi.statvfs(self._do.statfs())
        ctypes.memmove(buf, made, len(made))
        return 0

    # -- attributes

    def getattr(self, path: bytes, buf: int) -> int:
        """Also what a lookup of a name turns into."""
        made = self._stat(self._do.getattr(self._who(), path))
        ctypes.memmove(buf, made, len(made))
        return 0

    def fgetattr(self, _path: None, buf: int, info: int) -> int:
        """fstat(2), where the kernel says which handle."""
        made = self._stat(self._do.fgetattr(self._handle(info)))
        ctypes.memmove(buf, made, len(made))
        return 0

    def access(self, path: bytes, mask: int) -> int:
        """access(2)."""
        self._do.access(self._who(), path, mask)
        return 0

    def chmod(self, path: bytes, mode: int) -> int:
        """chmod(2)."""
        self._do.chmod(self._who(), path, mode)
        return 0

    def chown(self, path: bytes, uid: int, gid: int) -> int:
        """chown(2); -1 leaves an id alone."""
        new_uid = None if uid == abi.NO_ID else uid
        self._do.chown(self._who(), path, new_uid, None if gid == abi.NO_ID else gid)
        return 0

    def utimens(self, path: bytes, times: int) -> int:
        """utimensat(2): two struct timespec."""
        seconds = (ctypes.c_long * 4).from_address(times)
        self._do.utimens(self._who(), path, _time(*seconds[:2]), _time(*seconds[2:]))
        return 0

    def truncate(self, path: bytes, size: int) -> int:
        """truncate(2)."""
        self._do.truncate(self._who(), path, size)
        return 0

    def ftruncate(self, _path: None, size: int, info: int) -> int:
        """ftruncate(2)."""
        self._do.ftruncate(self._who(), self._handle(info), size)
        return 0

    # -- names

    def readlink(self, path: bytes, buf: int, size: int) -> int:
        """readlink(2): a string with its NUL."""
        target = self._do.readlink(self._who(), path)[: size - 1] + b"\0"
        ctypes.memmove(buf, target, len(target))
        return 0

    def mknod(self, path: bytes, mode: int, rdev: int) -> int:
        """mknod(2)."""
        self._do.mknod(self._who(), path, mode, self._context.umask, rdev)
        return 0

    def mkdir(self, path: bytes, mode: int) -> int:
        """mkdir(2)."""
        self._do.mkdir(self._who(), path, mode, self._context.umask)
        return 0

    def symlink(self, target: bytes, path: bytes) -> int:
        """symlink(2)."""
        self._do.symlink(self._who(), target, path)
        return 0

    def link(self, old: bytes, new: bytes) -> int:
        """link(2)."""
        self._do.link(self._who(), old, new)
        return 0

    def unlink(self, path: bytes) -> int:
        """unlink(2)."""
        self._do.unlink(self._who(), path)
        return 0

    def rmdir(self, path: bytes) -> int:
        """rmdir(2)."""
        self._do.rmdir(self._who(), path)
        return 0

    def rename(self, old: bytes, new: bytes) -> int:
        """rename(2). Flags don't get through libfuse 2: the kernel answers those with EINVAL."""
        self._do.rename(self._who(), old, new)
        return 0

    # -- open files

    def open(self, path: bytes, info: int) -> int:
        """open(2)."""
        opened = abi.FileInfo.from_address(info)
        opened.fh, cached = self._do.open(self._who(), path, opened.flags)
        opened.bits |= abi.KEEP_CACHE if cached else abi.DIRECT_IO
        return 0

    def create(self, path: bytes, mode: int, info: int) -> int:
        """open(2) that creates."""
        opened = abi.FileInfo.from_address(info)
        umask = self._context.umask
        opened.fh = self._do.create(self._who(), path, mode, opened.flags, umask)
        return 0

    def read(self, _path: None, buf: int, size: int, offset: int, info: int) -> int:
        """read(2)."""
        data = self._do.posix.read(self._handle(info), offset, size)
        ctypes.memmove(buf, data, len(data))
        return len(data)

    def write(self, _path: None, buf: int, size: int, offset: int, info: int) -> int:
        """write(2).

        The bytes are libfuse's: good for this call only, so below they are copied once.
        """
        self.writes += 1
        data = memoryview((ctypes.c_ubyte * size).from_address(buf)).cast("B")
        return self._do.posix.write(self._handle(info), offset, data)

    def fallocate(self, _path: None, mode: int, offset: int, length: int, info: int) -> int:
        """fallocate(2)."""
        self._do.posix.fallocate(self._handle(info), mode, offset, length)
        return 0

    def flush(self, _path: None, info: int) -> int:
        """close(2) of one descriptor; makes nothing durable, as on other file systems."""
        return 0

    def release(self, _path: None, info: int) -> int:
        """The last descriptor is closed."""
        self._do.release(self._handle(info))
        return 0

    def fsync(self, _path: None, datasync: int, info: int) -> int:
        """fsync(2), fdatasync(2)."""
        self._do.posix.fsync(self._handle(info), datasync=bool(datasync))
        return 0

    # -- directories

    def opendir(self, path: bytes, info: int) -> int:
        """opendir(3)."""
        fh = self._do.opendir(self._who(), path)
        abi.FileInfo.from_address(info).fh = fh
        return 0

    def readdir(self, _path: None, buf: int, filler: int, offset: int, info: int) -> int:
        """Fill one buffer with entries after `offset`, each with the offset behind it.

        What was read but did not fit is kept for the next call, if that goes on from there.
        """
        fh = self._handle(info)
        fill = abi.FILL_DIR(filler)
        stat = (ctypes.c_char * abi.STAT_BYTES)()
        start, entries = self._ahead.pop(fh, (offset, _NO_ENTRIES))
        if start != offset or not entries:
            entries = self._do.posix.readdir(fh, offset, _ENTRIES)
        while entries:
            for index, entry in enumerate(entries):
                stat.raw = abi.dirent_stat(entry)
                if fill(buf, entry.name, stat, entry.next):
                    self._ahead[fh] = (offset, entries[index:])
                    return 0
                offset = entry.next
            entries = self._do.posix.readdir(fh, offset, _ENTRIES)
        return 0

    def releasedir(self, _path: None, info: int) -> int:
        """closedir(3)."""
        fh = self._handle(info)
        self._ahead.pop(fh, None)
        self._do.releasedir(fh)
        return 0

    def fsyncdir(self, _path: None, datasync: int, info: int) -> int:
        """fsync(2) of a directory."""
        self._do.fsyncdir(self._handle(info), datasync=bool(datasync))
        return 0

    # -- extended attributes: a size of 0 asks for the length

    def getxattr(self, path: bytes, name: bytes, buf: int | None, size: int) -> int:
        """getxattr(2)."""
        return _give(self._do.getxattr(self._who(), path, name), buf, size)

    def listxattr(self, path: bytes, buf: int | None, size: int) -> int:
        """listxattr(2)."""
        names = self._do.listxattr(self._who(), path)
        return _give(b"".join(name + b"\0" for name in names), buf, size)

    def setxattr(self, path: bytes, name: bytes, value: int, size: int, flags: int) -> int:
        """setxattr(2)."""
        self._do.setxattr(self._who(), path, name, ctypes.string_at(value, size), flags)
        return 0

    def removexattr(self, path: bytes, name: bytes) -> int:
        """removexattr(2)."""
        self._do.removexattr(self._who(), path, name)
        return 0


def _give(value: bytes, buf: int | None, size: int) -> int:
    """Copy a value out; only its length if the caller asked for that."""
    if size and buf:
        if len(value) > size:
            return -errno.ERANGE
        ctypes.memmove(buf, value, len(value))
    return len(value)


def _time(seconds: int, nanoseconds: int) -> int | None:
    """A time of utimensat(2): ns, `NOW`, or None to leave it alone."""
    if nanoseconds == abi.UTIME_OMIT:
        return None
    return NOW if nanoseconds == abi.UTIME_NOW else seconds * abi.SECOND + nanoseconds
