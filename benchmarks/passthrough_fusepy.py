"""A directory mounted elsewhere through fusepy: what a file system in fusepy costs at the least.

    python benchmarks/passthrough_fusepy.py SOURCE DIR

The peer of the usual kind: paths below the source go to the same system calls, one for one, with
fusepy's and libfuse 2's own defaults (threads, requests of 4 KiB for writes, names and attributes
kept for a second). Nothing is cached or checked here. Serves in the foreground until unmounted.
"""

from __future__ import annotations

import contextlib
import os
import sys
from errno import EACCES
from typing import Any

from fuse import FUSE, FuseOSError, Operations

STAT = "st_mode st_ino st_nlink st_uid st_gid st_size st_blocks st_atime st_mtime st_ctime".split()
STATVFS = "f_bsize f_frsize f_blocks f_bfree f_bavail f_files f_ffree f_favail f_namemax".split()


class Passthrough(Operations):
    """Every call below goes to the path under `source`."""

    def __init__(self, source: str) -> None:
        self._source = source.encode()

    def __call__(self, operation: str, path: str, *args: Any) -> Any:
        """fusepy calls each operation this way; OSError already carries the errno it wants."""
        return super().__call__(operation, self._below(path), *args)

    def _below(self, path: str) -> bytes:
        return self._source + os.fsencode(path)

    # -- names; where a call has two paths, fusepy says which is which

    def getattr(self, path: bytes, fh: int | None = None) -> dict[str, Any]:
        stat = os.lstat(path)
        return {name: getattr(stat, name) for name in STAT}

    def access(self, path: bytes, mode: int) -> None:
        if not os.access(path, mode):
            raise FuseOSError(EACCES)

    def readdir(self, path: bytes, fh: int) -> list[str]:
        return [".", "..", *map(os.fsdecode, os.listdir(path))]

    def readlink(self, path: bytes) -> str:
        return os.fsdecode(os.readlink(path))

    def mknod(self, path: bytes, mode: int, dev: int) -> None:
        os.mknod(path, mode, dev)

    def mkdir(self, path: bytes, mode: int) -> None:
        os.mkdir(path, mode)

    def rmdir(self, path: bytes) -> None:
        os.rmdir(path)

    def unlink(self, path: bytes) -> None:
        os.unlink(path)

    def symlink(self, path: bytes, target: str) -> None:
        os.symlink(os.fsencode(target), path)

    def rename(self, path: bytes, new: str) -> None:
        os.rename(path, self._below(new))

    def link(self, path: bytes, existing: str) -> None:
        os.link(self._below(existing), path, follow_symlinks=False)

    # -- attributes

    def chmod(self, path: bytes, mode: int) -> None:
        os.chmod(path, mode)

    def chown(self, path: bytes, uid: int, gid: int) -> None:
        os.lchown(path, uid, gid)

    def utimens(self, path: bytes, times: tuple[float, float] | None = None) -> None:
        os.utime(path, times, follow_symlinks=False)

    def truncate(self, path: bytes, length: int, fh: int | None = None) -> None:
        os.truncate(path if fh is None else fh, length)

    def statfs(self, path: bytes) -> dict[str, Any]:
        stat = os.statvfs(path)
        return {name: getattr(stat, name) for name in STATVFS}

    # -- bytes

    def open(self, path: bytes, flags: int) -> int:
        return os.open(path, flags)

    def create(self, path: bytes, mode: int, fi: object = None) -> int:
        return os.open(path, os.O_CREAT | os.O_WRONLY, mode)

    def read(self, path: bytes, size: int, offset: int, fh: int) -> bytes:
        return os.pread(fh, size, offset)

    def write(self, path: bytes, data: bytes, offset: int, fh: int) -> int:
        return os.pwrite(fh, data, offset)

    def fsync(self, path: bytes, datasync: int, fh: int) -> None:
        (os.fdatasync if datasync else os.fsync)(fh)

    def release(self, path: bytes, fh: int) -> None:
        os.close(fh)

    # Not passed through, as they are not in fusepy's example either.
    getxattr = None
    listxattr = None

    def init(self, path: bytes) -> None:
        """The mount is usable."""

    def destroy(self, path: bytes) -> None:
        """The mount is gone."""

    def flush(self, path: bytes, fh: int) -> None:
        """A close has nothing to write here: nothing is kept back."""

    def opendir(self, path: bytes) -> int:
        """No handle is needed."""
        return 0

    def releasedir(self, path: bytes, fh: int) -> None:
        """See opendir."""

    def fsyncdir(self, path: bytes, datasync: int, fh: int) -> None:
        fd = os.open(path, os.O_RDONLY)
        with contextlib.closing(os.fdopen(fd, "rb", buffering=0)):
            os.fsync(fd)


if __name__ == "__main__":
    FUSE(Passthrough(os.path.realpath(sys.argv[1])), sys.argv[2], foreground=True)
