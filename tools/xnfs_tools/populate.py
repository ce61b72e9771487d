"""Copying a directory of the host into a fresh file system (`mkfs.xnfs -d`).

Keeps: owner, mode, times, extended attributes and ACLs, hard links, symbolic links, holes, devices,
FIFOs and sockets. Does not follow symbolic links or leave out anything: what can't be read is an
error.
"""

from __future__ import annotations

import errno
import os
import stat
from typing import Final

from libfs.posix import Fh, Posix
from libfs.posix.interface import FsError, Ino, User
from xnfs_tools.command import Failed, Progress

_SUPERUSER: Final = User(0, 0)
_CHUNK: Final = 1 << 20


def populate(posix: Posix, source: str) -> int:
    """Copy what is in `source` to the root; how many inodes. Raises: Failed, OSError."""
    return _Copy(posix).tree(os.fsencode(source))


class _Copy:
    """One run."""

    def __init__(self, posix: Posix) -> None:
        self._posix = posix
        self._known: dict[tuple[int, int], Ino] = {}
        self._progress = Progress()
        self._count = 0

    def tree(self, source: bytes) -> int:
        """A stack, not a recursion. A directory's attributes are set when it is complete."""
        todo: list[tuple[bytes, Ino, bool]] = [(source, self._posix.root, False)]
        while todo:
            path, ino, complete = todo.pop()
            if complete:
                self._attributes(path, ino, os.stat(path))
                continue
            todo.append((path, ino, True))
            with os.scandir(path) as entries:
                names = sorted(entry.name for entry in entries)
            for name in names:
                child = os.path.join(path, name)
                made = self._entry(child, ino, name)
                if made is not None:
                    todo.append((child, made, False))
        self._progress.end()
        return self._count

    def _entry(self, path: bytes, parent: Ino, name: bytes) -> Ino | None:
        """Copy one name; the inode if it is a directory, whose contents are then to come."""
        info = os.lstat(path)
        self._count += 1
        self._progress("files copied", self._count)
        known = self._known.get((info.st_dev, info.st_ino))
        try:
            if known is not None:
                self._posix.link(_SUPERUSER, known, parent, name)
                return None
            ino = self._make(path, parent, name, info)
            if stat.S_ISDIR(info.st_mode):
                return ino
            self._attributes(path, ino, info)
        except FsError as error:
            raise Failed(f"{os.fsdecode(path)}: {error.strerror}") from None
        if info.st_nlink > 1:
            self._known[info.st_dev, info.st_ino] = ino
        return None

    def _make(self, path: bytes, parent: Ino, name: bytes, info: os.stat_result) -> Ino:
        posix, kind = self._posix, stat.S_IFMT(info.st_mode)
        if kind == stat.S_IFDIR:
            return posix.mkdir(_SUPERUSER, parent, name, 0o700).ino
        if kind == stat.S_IFLNK:
            return posix.symlink(_SUPERUSER, parent, name, os.readlink(path)).ino
        if kind != stat.S_IFREG:
            return posix.mknod(_SUPERUSER, parent, name, kind | 0o600, info.st_rdev).ino
        attr, fh = posix.create(_SUPERUSER, parent, name, 0o600, os.O_RDWR | os.O_EXCL)
        try:
            with open(path, "rb", buffering=0) as file:
                copy_in(posix, attr.ino, fh, file.fileno(), info.st_size)
        finally:
            posix.release(fh)
        return attr.ino

    def _attributes(self, path: bytes, ino: Ino, info: os.stat_result) -> None:
        """Owner first: changing it clears set-id bits. Times last: everything else moves them."""
        posix = self._posix
        posix.setattr(_SUPERUSER, ino, uid=info.st_uid, gid=info.st_gid)
        if not stat.S_ISLNK(info.st_mode):
            posix.setattr(_SUPERUSER, ino, mode=stat.S_IMODE(info.st_mode))
        for name in _listxattr(path):
            value = os.getxattr(path, name, follow_symlinks=False)
            posix.setxattr(_SUPERUSER, ino, os.fsencode(name), value)
        posix.setattr(_SUPERUSER, ino, atime=info.st_atime_ns, mtime=info.st_mtime_ns)


def _listxattr(path: bytes) -> list[str]:
    try:
        return os.listxattr(path, follow_symlinks=False)
    except OSError as error:
        if error.errno == errno.ENOTSUP:
            return []
        raise


def copy_in(posix: Posix, ino: Ino, fh: Fh, fd: int, size: int) -> None:
    """Copy a file of the host into an open file, holes as holes."""
    at = 0
    while at < size:
        try:
            at = os.lseek(fd, at, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # a hole up to the end
                break
            raise
        end = min(size, os.lseek(fd, at, os.SEEK_HOLE))
        while at < end:
            data = os.pread(fd, min(_CHUNK, end - at), at)
            if not data:
                return  # it became shorter meanwhile
            written = posix.write(fh, at, data)
            at += written
            if written < len(data):
                raise FsError(errno.ENOSPC)
    posix.truncate(_SUPERUSER, ino, size, fh)
