"""File systems that break one promise each: FFS behind a front that lies. For every oracle there
must be one that it catches."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from xnfs_trials.crash.subject import Subject, load

from libfs.ffs.ffs import Ffs
from libfs.posix.interface import Dirent, FileSystem, FsError, Ino, Syncing, User
from xnfs import Xn

FFS = load("ffs")
#: FFS as any other file system: read through a mount, nothing promised beyond the basic.
PLAIN = replace(FFS, spec="plain ffs", raw_walk=None, promises=frozenset())


class Liar:
    """Passes everything on; the others lie about one thing."""

    def __init__(self, fs: Ffs) -> None:
        self.fs = fs

    def __getattr__(self, name: str) -> Any:
        return getattr(self.fs, name)

    def begin_sync(self, inos: Sequence[Ino] | None, *, data_only: bool = False) -> Syncing | None:
        """The one way to a sync: who lies about syncs lies here."""
        return self.fs.begin_sync(inos, data_only=data_only)

    def sync(self, inos: Sequence[Ino] | None, *, data_only: bool = False) -> None:
        """With the same lie."""
        syncing = self.begin_sync(inos, data_only=data_only)
        if syncing is not None:
            syncing.wait()
            syncing.done()


class ForgetsSync(Liar):
    """Says that it has synced, and has not."""

    def begin_sync(self, inos: Sequence[Ino] | None, *, data_only: bool = False) -> Syncing | None:
        """Nothing."""
        return None


class SyncsBytesOnly(Liar):
    """fsync writes the bytes that lie there, and forgets the names."""

    def begin_sync(self, inos: Sequence[Ino] | None, *, data_only: bool = False) -> Syncing | None:
        """What a sync of each file alone would do, had names nothing to do with it."""
        if inos is not None:
            self.fs.volume.renamed = {}
        return self.fs.begin_sync(inos, data_only=data_only)


class ForgivesFailure(Liar):
    """A sync fails once; asked again, it says that all is well."""

    failed = False

    def begin_sync(self, inos: Sequence[Ino] | None, *, data_only: bool = False) -> Syncing | None:
        """Fails the first time; there is nothing left to wait for then."""
        if self.failed:
            return None
        try:
            self.fs.sync(inos, data_only=data_only)
        except FsError:
            self.failed = True
            raise
        return None


class RenamesInSteps(Liar):
    """A rename is a link, durable, and then an unlink."""

    def rename(
        self, user: User, src: Ino, name: bytes, dst: Ino, new_name: bytes, *, keep: bool
    ) -> None:
        """Not atomic over a power cut."""
        ino = self.fs.lookup(src, name)
        assert ino is not None
        self.fs.link(user, ino, dst, new_name)
        self.fs.sync(None)
        self.fs.unlink(user, src, name, keep=keep)


class ShowsOldBytes(Liar):
    """A truncated file that grows again shows what it had."""

    old: bytes = b""

    def truncate(self, user: User, ino: Ino, size: int, *, kill_suid: bool) -> None:
        """Keep the bytes, and write them again when it grows."""
        before = self.fs.read(ino, 0, 1 << 20)
        self.fs.truncate(user, ino, size, kill_suid=kill_suid)
        if size < len(before):
            self.old = before
        elif self.old:
            self.fs.write(user, ino, len(before), self.old[len(before) : size], kill_suid=False)


class MixesBytes(Liar):
    """What was written last is shown where something else was asked for."""

    last = b""

    def write(
        self, user: User, ino: Ino, offset: int, data: bytes | memoryview, *, kill_suid: bool
    ) -> int:
        """The first 512 bytes are those of the write before."""
        mixed = self.last[:512] + bytes(data)[len(self.last[:512]) :]
        self.last = bytes(data)
        return self.fs.write(user, ino, offset, mixed, kill_suid=kill_suid)

    def setxattr(self, user: User, ino: Ino, name: bytes, value: bytes, flags: int) -> None:
        """Bytes of a file."""
        self.fs.setxattr(user, ino, name, self.last[: len(value)], flags)


class LosesNames(Liar):
    """A directory does not list all its names."""

    def readdir(self, directory: Ino, cookie: int) -> Iterator[Dirent]:
        """All but one."""
        return (d for d in self.fs.readdir(directory, cookie) if d.name != b"bar")


class Hoards(Liar):
    """Nothing is deleted: what was unlinked lies on under a name that is not shown."""

    def unlink(self, user: User, parent: Ino, name: bytes, *, keep: bool) -> None:
        """Out of sight."""
        ino = self.fs.lookup(parent, name)
        if ino is None:
            raise FsError(errno.ENOENT)
        hidden = b"\xff%d" % ino
        self.fs.rename(user, parent, name, self.fs.root, hidden, keep=keep)

    def lookup(self, parent: Ino, name: bytes) -> Ino | None:
        """Hidden names are not there."""
        return None if name.startswith(b"\xff") else self.fs.lookup(parent, name)

    def readdir(self, directory: Ino, cookie: int) -> Iterator[Dirent]:
        """Nor here."""
        return (d for d in self.fs.readdir(directory, cookie) if not d.name.startswith(b"\xff"))


def lying(liar: Callable[[Ffs], Liar], subject: Subject = PLAIN) -> Subject:
    """FFS with this front."""

    def mount(xn: Xn, cap: bytes, name: str, readonly: bool = False) -> FileSystem:
        front: Any = liar(Ffs.mount(xn, cap, name, readonly=readonly))
        return front  # type: ignore[no-any-return]

    return replace(subject, spec=f"lying: {liar}", mount=mount)
