"""Files from one mounted file system to another of the same image, in one process.

A file is moved without being copied where its format can do that (`libfs.formats`), atomically;
else it is copied, made durable, and then removed, and somebody is told why. A directory is made
anew and its entries follow one by one, so a power cut may leave a part of them on each side, and
never a file on none.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Final

from libfs.formats import Format
from libfs.posix import FsError, Ino, Posix
from libfs.posix.between import send
from libfs.posix.interface import Attr, FileSystem
from xnfs import Caller
from xnfs_tools.session import SUPERUSER

_CHUNK: Final = 1 << 20
#: Why a file was not moved but must be copied, for people. Other errors are errors.
REASONS: Final = {
    errno.EMLINK: "it has other names",
    errno.EBUSY: "it is in use",
    errno.EISDIR: "it is a directory",
    errno.EXDEV: "the two are of different kinds, or of one that hands no files over",
}


@dataclass(frozen=True)
class Side:
    """One of the two file systems."""

    root: str
    fs: FileSystem
    posix: Posix
    kind: Format | None


class Transfer:
    """Moves from one side to another. `who` holds both. `told` hears what was copied, and why."""

    def __init__(
        self,
        who: Caller,
        src: Side,
        dst: Side,
        told: Callable[[bytes, str], None] = lambda _name, _reason: None,
    ) -> None:
        self._who = who
        self._src = src
        self._dst = dst
        self._told = told

    def quick(self, parent: Ino, name: bytes, target: Ino, new_name: bytes) -> None:
        """A file, not copied. Raises: FsError; EXDEV if that can't be done at all, EISDIR."""
        src, dst = self._src, self._dst
        if src.kind is None or src.kind.send is None or src.kind is not dst.kind:
            raise FsError(errno.EXDEV)
        move = src.kind.send

        def names(parent: Ino, name: bytes, target: Ino, new_name: bytes) -> None:
            move(src.fs, self._who, parent, name, dst.fs, target, new_name)

        send(src.posix, parent, name, dst.posix, target, new_name, names)

    def move(self, parent: Ino, name: bytes, target: Ino, new_name: bytes) -> None:
        """Anything. The new name must be free. Raises: FsError."""
        todo: list[Callable[[], None]] = []
        step = partial(self._step, todo)
        step(parent, name, target, new_name)
        while todo:
            todo.pop()()

    def _step(
        self, todo: list[Callable[[], None]], parent: Ino, name: bytes, target: Ino, new: bytes
    ) -> None:
        """Move one name; of a directory, what is to be done is put on the stack."""
        src, dst = self._src.posix, self._dst.posix
        attr = src.lookup(SUPERUSER, parent, name)
        if not stat.S_ISDIR(attr.mode):
            self._file(attr, parent, name, target, new)
            return
        made = dst.mkdir(SUPERUSER, target, new, 0o700).ino

        def finish() -> None:
            self._attributes(attr, made)
            dst.fsync_inodes([made])
            src.rmdir(SUPERUSER, parent, name)

        todo.append(finish)
        for entry in list(entries(src, attr.ino)):
            todo.append(partial(self._step, todo, attr.ino, entry, made, entry))

    def _file(self, attr: Attr, parent: Ino, name: bytes, target: Ino, new: bytes) -> None:
        try:
            self.quick(parent, name, target, new)
        except FsError as error:
            reason = REASONS.get(error.errno or 0)
            if reason is None:
                raise
            self._told(name, reason)
            self._copy(attr, target, new)
            self._src.posix.unlink(SUPERUSER, parent, name)

    def _copy(self, attr: Attr, target: Ino, name: bytes) -> None:
        """A copy that is durable; none at all if that fails."""
        src, dst = self._src.posix, self._dst.posix
        kind = stat.S_IFMT(attr.mode)
        if kind == stat.S_IFLNK:
            link = src.readlink(SUPERUSER, attr.ino)
            made = dst.symlink(SUPERUSER, target, name, link).ino
        else:
            made = dst.mknod(SUPERUSER, target, name, kind | 0o600, attr.rdev).ino
        try:
            if kind == stat.S_IFREG:
                self._bytes(attr, made)
            self._attributes(attr, made)
            dst.fsync_inodes([made])
        except BaseException:
            dst.unlink(SUPERUSER, target, name)
            raise

    def _bytes(self, attr: Attr, made: Ino) -> None:
        """Holes stay holes."""
        src, dst = self._src.posix, self._dst.posix
        reader = src.open(SUPERUSER, attr.ino, os.O_RDONLY)
        writer = dst.open(SUPERUSER, made, os.O_RDWR)
        try:
            at = 0
            while at < attr.size:
                try:
                    at = src.lseek(reader, at, os.SEEK_DATA)
                except FsError as error:
                    if error.errno != errno.ENXIO:
                        raise
                    break
                end = src.lseek(reader, at, os.SEEK_HOLE)
                while at < end:
                    data = src.read(reader, at, min(_CHUNK, end - at))
                    written = dst.write(writer, at, data)
                    at += written
                    if written < len(data):
                        raise FsError(errno.ENOSPC)
            dst.truncate(SUPERUSER, made, attr.size, writer)
        finally:
            src.release(reader)
            dst.release(writer)

    def _attributes(self, attr: Attr, made: Ino) -> None:
        """Owner first: changing it clears set-id bits. Times last: everything else moves them."""
        src, dst = self._src.posix, self._dst.posix
        dst.setattr(SUPERUSER, made, uid=attr.uid, gid=attr.gid)
        if not stat.S_ISLNK(attr.mode):
            dst.setattr(SUPERUSER, made, mode=stat.S_IMODE(attr.mode))
        for name in src.listxattr(SUPERUSER, attr.ino):
            dst.setxattr(SUPERUSER, made, name, src.getxattr(SUPERUSER, attr.ino, name))
        dst.setattr(SUPERUSER, made, atime=attr.atime, mtime=attr.mtime)


def entries(posix: Posix, directory: Ino) -> Iterator[bytes]:
    """The names in a directory, without `.` and `..`."""
    fh = posix.opendir(SUPERUSER, directory)
    try:
        cookie = 0
        while found := posix.readdir(fh, cookie):
            yield from (entry.name for entry in found if entry.name not in (b".", b".."))
            cookie = found[-1].next
    finally:
        posix.releasedir(fh)
