"""A directory mounted elsewhere through pyfuse3: what a file system in pyfuse3 costs at the least.

    python benchmarks/passthrough_pyfuse3.py SOURCE DIR

The peer of the other kind, with inodes: it remembers a path for each inode the kernel knows and
asks the same system calls for it. As in pyfuse3's own example, the kernel caches writes but neither
names nor attributes (lifetime 0). Serves in the foreground, on one trio loop, until unmounted.
"""

from __future__ import annotations

import errno
import os
import stat
import sys
from collections.abc import Callable, Sequence
from typing import Any

import pyfuse3
import trio
from pyfuse3 import FUSEError

COPIED = """st_ino st_mode st_nlink st_uid st_gid st_rdev st_size st_blocks
st_atime_ns st_mtime_ns st_ctime_ns""".split()
STATVFS = "f_bsize f_frsize f_blocks f_bfree f_bavail f_files f_ffree f_favail f_namemax".split()


def system(call: Callable[..., Any], *args: Any, **named: Any) -> Any:
    """A system call whose failure is the answer."""
    try:
        return call(*args, **named)
    except OSError as error:
        raise FUSEError(error.errno or errno.EIO) from None


def attributes(st: os.stat_result) -> pyfuse3.EntryAttributes:
    """As the kernel wants them."""
    entry = pyfuse3.EntryAttributes()
    for name in COPIED:
        setattr(entry, name, getattr(st, name))
    entry.st_blksize = 512
    entry.entry_timeout = entry.attr_timeout = 0
    return entry


class Passthrough(pyfuse3.Operations):
    """Inode numbers are those of the source; the root alone is renamed to 1."""

    enable_writeback_cache = True

    def __init__(self, source: str) -> None:
        super().__init__()
        #: For each inode, its names; any of them will do to reach it.
        self._paths: dict[int, dict[str, None]] = {pyfuse3.ROOT_INODE: {source: None}}
        self._lookups: dict[int, int] = {}
        self._open: dict[int, list[int]] = {}  # for an inode: its descriptors
        self._inodes: dict[int, int] = {}  # for a descriptor: its inode

    # -- inodes and paths

    def _path(self, inode: int) -> str:
        try:
            return next(iter(self._paths[inode]))
        except (KeyError, StopIteration):
            raise FUSEError(errno.ENOENT) from None

    def _child(self, parent: int, name: bytes) -> str:
        return f"{self._path(parent)}/{os.fsdecode(name)}"

    def _entered(self, path: str) -> pyfuse3.EntryAttributes:
        """The answer that makes the kernel hold the inode once more."""
        entry = attributes(system(os.lstat, path))
        self._paths.setdefault(entry.st_ino, {})[path] = None
        self._lookups[entry.st_ino] = self._lookups.get(entry.st_ino, 0) + 1
        return entry

    def _dropped(self, path: str, inode: int) -> None:
        """A name is gone."""
        paths = self._paths.get(inode)
        if paths is not None:
            paths.pop(path, None)
            if not paths and inode not in self._lookups:
                del self._paths[inode]

    async def lookup(self, parent: int, name: bytes, ctx: object = None) -> Any:
        return self._entered(self._child(parent, name))

    async def forget(self, inode_list: Sequence[tuple[int, int]]) -> None:
        for inode, count in inode_list:
            left = self._lookups.get(inode, 0) - count
            if left > 0:
                self._lookups[inode] = left
            elif inode != pyfuse3.ROOT_INODE:
                self._lookups.pop(inode, None)
                self._paths.pop(inode, None)

    # -- attributes

    def _stat(self, inode: int) -> pyfuse3.EntryAttributes:
        handles = self._open.get(inode)
        entry = attributes(
            system(os.fstat, handles[0]) if handles else system(os.lstat, self._path(inode))
        )
        entry.st_ino = inode
        return entry

    async def getattr(self, inode: int, ctx: object = None) -> Any:
        return self._stat(inode)

    async def setattr(self, inode: int, attr: Any, fields: Any, fh: int | None, ctx: object) -> Any:
        where: str | int = self._path(inode) if fh is None else fh
        follow = {} if fh is not None else {"follow_symlinks": False}
        if fields.update_size:
            system(os.truncate, where, attr.st_size)
        if fields.update_mode:
            system(os.chmod, where, stat.S_IMODE(attr.st_mode))
        if fields.update_uid or fields.update_gid:
            uid = attr.st_uid if fields.update_uid else -1
            gid = attr.st_gid if fields.update_gid else -1
            system(os.chown, where, uid, gid, **follow)
        if fields.update_atime or fields.update_mtime:
            old = system(os.stat, where, **follow)
            atime = attr.st_atime_ns if fields.update_atime else old.st_atime_ns
            mtime = attr.st_mtime_ns if fields.update_mtime else old.st_mtime_ns
            system(os.utime, where, ns=(atime, mtime), **follow)
        return self._stat(inode)

    async def readlink(self, inode: int, ctx: object) -> bytes:
        return os.fsencode(system(os.readlink, self._path(inode)))

    async def statfs(self, ctx: object) -> Any:
        answer, there = pyfuse3.StatvfsData(), system(os.statvfs, self._path(pyfuse3.ROOT_INODE))
        for name in STATVFS:
            setattr(answer, name, getattr(there, name))
        return answer

    # -- names

    async def mknod(self, parent: int, name: bytes, mode: int, rdev: int, ctx: Any) -> Any:
        path = self._child(parent, name)
        system(os.mknod, path, mode & ~ctx.umask, rdev)
        system(os.chown, path, ctx.uid, ctx.gid)
        return self._entered(path)

    async def mkdir(self, parent: int, name: bytes, mode: int, ctx: Any) -> Any:
        path = self._child(parent, name)
        system(os.mkdir, path, mode & ~ctx.umask)
        system(os.chown, path, ctx.uid, ctx.gid)
        return self._entered(path)

    async def symlink(self, parent: int, name: bytes, target: bytes, ctx: Any) -> Any:
        path = self._child(parent, name)
        system(os.symlink, os.fsdecode(target), path)
        system(os.chown, path, ctx.uid, ctx.gid, follow_symlinks=False)
        return self._entered(path)

    async def link(self, inode: int, parent: int, name: bytes, ctx: object) -> Any:
        path = self._child(parent, name)
        system(os.link, self._path(inode), path, follow_symlinks=False)
        return self._entered(path)

    async def unlink(self, parent: int, name: bytes, ctx: object) -> None:
        self._remove(os.unlink, self._child(parent, name))

    async def rmdir(self, parent: int, name: bytes, ctx: object) -> None:
        self._remove(os.rmdir, self._child(parent, name))

    def _remove(self, call: Callable[[str], None], path: str) -> None:
        inode = system(os.lstat, path).st_ino
        system(call, path)
        self._dropped(path, inode)

    async def rename(
        self, parent: int, name: bytes, new_parent: int, new_name: bytes, flags: int, ctx: object
    ) -> None:
        if flags:
            raise FUSEError(errno.EINVAL)
        old, new = self._child(parent, name), self._child(new_parent, new_name)
        inode = system(os.lstat, old).st_ino
        try:
            over: int | None = os.lstat(new).st_ino
        except FileNotFoundError:
            over = None
        system(os.rename, old, new)
        if over is not None:
            self._dropped(new, over)
        self._dropped(old, inode)
        if inode in self._lookups:
            self._paths.setdefault(inode, {})[new] = None
        if os.path.isdir(new):
            self._moved(old + "/", new + "/")

    def _moved(self, old: str, new: str) -> None:
        """What lies below a directory that was renamed has other paths now."""
        for inode, paths in self._paths.items():
            if any(path.startswith(old) for path in paths):
                self._paths[inode] = {
                    new + path[len(old) :] if path.startswith(old) else path: None for path in paths
                }

    # -- directories

    async def opendir(self, inode: int, ctx: object) -> int:
        return inode

    async def readdir(self, fh: int, start_id: int, token: Any) -> None:
        """In the order of inode numbers, which is what the next call can go on from."""
        path = self._path(fh)
        found = []
        with system(os.scandir, path) as entries:
            for entry in entries:
                found.append((entry.inode(), entry.name))
        for ino, name in sorted(found):
            if ino <= start_id:
                continue
            try:
                attr = attributes(os.lstat(f"{path}/{name}"))
            except OSError:
                continue  # removed meanwhile
            if not pyfuse3.readdir_reply(token, os.fsencode(name), attr, ino):
                return
            # The kernel holds it once more, as after a lookup.
            self._paths.setdefault(ino, {})[f"{path}/{name}"] = None
            self._lookups[ino] = self._lookups.get(ino, 0) + 1

    # -- bytes

    async def open(self, inode: int, flags: int, ctx: object) -> Any:
        # With the write-back cache the kernel reads what it fills up, and appends by itself.
        if flags & os.O_ACCMODE == os.O_WRONLY:
            flags = flags & ~os.O_ACCMODE | os.O_RDWR
        return self._opened(inode, system(os.open, self._path(inode), flags & ~os.O_APPEND))

    async def create(self, parent: int, name: bytes, mode: int, flags: int, ctx: Any) -> Any:
        path = self._child(parent, name)
        if flags & os.O_ACCMODE == os.O_WRONLY:
            flags = flags & ~os.O_ACCMODE | os.O_RDWR
        fd = system(os.open, path, flags & ~os.O_APPEND | os.O_CREAT, mode & ~ctx.umask)
        system(os.chown, fd, ctx.uid, ctx.gid)
        entry = self._entered(path)
        return self._opened(entry.st_ino, fd), entry

    def _opened(self, inode: int, fd: int) -> Any:
        self._open.setdefault(inode, []).append(fd)
        self._inodes[fd] = inode
        return pyfuse3.FileInfo(fh=fd)

    async def read(self, fh: int, off: int, size: int) -> bytes:
        return system(os.pread, fh, size, off)

    async def write(self, fh: int, off: int, buf: bytes) -> int:
        return system(os.pwrite, fh, buf, off)

    async def flush(self, fh: int) -> None:
        """A close has nothing to write here: nothing is kept back."""

    async def fsync(self, fh: int, datasync: bool) -> None:
        system(os.fdatasync if datasync else os.fsync, fh)

    async def release(self, fh: int) -> None:
        inode = self._inodes.pop(fh)
        self._open[inode].remove(fh)
        if not self._open[inode]:
            del self._open[inode]
        system(os.close, fh)


def main() -> None:
    """Mount and serve."""
    source, directory = os.path.realpath(sys.argv[1]), sys.argv[2]
    options = {*pyfuse3.default_options, "fsname=passthrough"}
    pyfuse3.init(Passthrough(source), directory, options)
    try:
        trio.run(pyfuse3.main)
    finally:
        pyfuse3.close(unmount=False)


if __name__ == "__main__":
    main()
