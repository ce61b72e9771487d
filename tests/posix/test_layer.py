"""What can't be reached through any sound file system: limits, damage, errors from below."""

from __future__ import annotations

import errno
import itertools
import os
import threading

from libfs.posix import RENAME_EXCHANGE, Atime, FileSystem, FsError, Ino, Options, Posix, User
from libfs.posix.handles import Handles
from libfs.posix.interface import ACL_DEFAULT, Change
from libfs.posix.memory import MemoryFs
from tests.conformance.support import CREATE, ROOT, content, make_dir, make_file, refuses


def test_layer_memory_is_a_file_system() -> None:
    fs: FileSystem = MemoryFs()
    assert fs.getattr(fs.root).nlink == 2


def test_layer_link_max() -> None:
    posix = Posix(MemoryFs(link_max=3))
    ino = make_file(posix, posix.root, b"f")
    for name in (b"2", b"3"):
        posix.link(ROOT, ino, posix.root, name)
    with refuses(errno.EMLINK):
        posix.link(ROOT, ino, posix.root, b"4")


def test_layer_link_max_of_directories() -> None:
    posix = Posix(MemoryFs(link_max=4))
    full, other = make_dir(posix, posix.root, b"full"), make_dir(posix, posix.root, b"other")
    for name in (b"1", b"2"):
        make_dir(posix, full, name)
    make_file(posix, full, b"f")
    make_dir(posix, other, b"d")
    with refuses(errno.EEXIST):
        posix.mkdir(ROOT, full, b"1", 0o755)
    with refuses(errno.EMLINK):
        posix.mkdir(ROOT, full, b"3", 0o755)
    with refuses(errno.EMLINK):
        posix.rename(ROOT, other, b"d", full, b"3")
    with refuses(errno.EMLINK):
        posix.rename(ROOT, other, b"d", full, b"f", RENAME_EXCHANGE)
    with refuses(errno.EMLINK):
        posix.rename(ROOT, full, b"f", other, b"d", RENAME_EXCHANGE)
    posix.rename(ROOT, full, b"1", full, b"3")
    posix.rename(ROOT, other, b"d", full, b"3")


class CircularFs(MemoryFs):
    """Damaged: the chain of parents never comes to the root."""

    def parent(self, directory: Ino) -> Ino:
        return directory


def test_layer_circle_of_parents() -> None:
    posix = Posix(CircularFs())
    a, b = make_dir(posix, posix.root, b"a"), make_dir(posix, posix.root, b"b")
    make_dir(posix, a, b"d")
    with refuses(errno.EUCLEAN):
        posix.rename(ROOT, a, b"d", b, b"d")


class FullFs(MemoryFs):
    """No room for anything, not even a time."""

    full = 0

    def setattr(self, user: User, ino: Ino, change: Change) -> None:
        if self.full:
            raise FsError(self.full)
        super().setattr(user, ino, change)


def test_layer_read_without_room_for_atime() -> None:
    fs = FullFs()
    posix = Posix(fs, options=Options(atime=Atime.STRICTATIME))
    ino = make_file(posix, posix.root, b"f", b"bytes")
    fh = posix.open(ROOT, ino, os.O_RDONLY)
    fs.full = errno.ENOSPC
    assert posix.read(fh, 0, 9) == b"bytes"
    with refuses(errno.ENOSPC):
        posix.setattr(ROOT, ino, mode=0)
    fs.full = errno.EIO
    with refuses(errno.EIO):
        posix.read(fh, 0, 9)


def test_layer_damaged_default_acl() -> None:
    fs = MemoryFs()
    posix = Posix(fs)
    fs.setxattr(ROOT, fs.root, ACL_DEFAULT, b"rubbish", 0)
    with refuses(errno.EUCLEAN):
        posix.mkdir(ROOT, posix.root, b"d", 0o755)


def test_layer_default_acl_cache_is_bounded() -> None:
    posix = Posix(MemoryFs())
    for number in range(4200):
        ino = posix.mkdir(ROOT, posix.root, b"%d" % number, 0o755).ino
        posix.mknod(ROOT, ino, b"f", 0o644)
    assert len(posix._core._default_acls) <= 4096


def test_layer_file_system_turns_readonly() -> None:
    """One that sees damage does; handles opened before can't write any more."""
    fs = MemoryFs()
    posix = Posix(fs)
    _, fh = posix.create(ROOT, posix.root, b"f", 0o644, CREATE)
    fs.readonly = True
    with refuses(errno.EROFS):
        posix.write(fh, 0, b"x")
    with refuses(errno.EROFS):
        posix.fallocate(fh, 0, 0, 1)
    with refuses(errno.EROFS):
        posix.mkdir(ROOT, posix.root, b"d", 0o755)
    with refuses(errno.EROFS):
        posix.remount(readonly=False)


def test_layer_remount() -> None:
    posix = Posix(MemoryFs())
    posix.remount(readonly=True)
    with refuses(errno.EROFS):
        posix.mkdir(ROOT, posix.root, b"d", 0o755)
    posix.remount(readonly=False)
    posix.mkdir(ROOT, posix.root, b"d", 0o755)


class ForgettingFs(MemoryFs):
    """Notes what it was told to forget."""

    def __init__(self) -> None:
        super().__init__()
        self.forgotten: list[Ino] = []

    def forget(self, ino: Ino) -> None:
        self.forgotten.append(ino)
        super().forget(ino)


def test_layer_close_frees_what_has_no_name() -> None:
    fs = ForgettingFs()
    posix = Posix(fs)
    attr, _ = posix.create(ROOT, posix.root, b"f", 0o644, CREATE)
    looked = make_file(posix, posix.root, b"g")
    posix.remember(looked)
    posix.unlink(ROOT, posix.root, b"f")
    posix.unlink(ROOT, posix.root, b"g")
    assert fs.forgotten == []
    posix.close()
    assert fs.forgotten == [attr.ino, looked]


def test_layer_handles_are_not_reused() -> None:
    posix = Posix(MemoryFs())
    ino = make_file(posix, posix.root, b"f")
    seen = set()
    for _ in range(5):
        fh = posix.open(ROOT, ino, os.O_RDONLY)
        seen.add(fh)
        posix.release(fh)
    assert len(seen) == 5


def test_layer_forgetting_too_much_is_harmless() -> None:
    handles = Handles(MemoryFs())
    handles.forget(Ino(7), 5)
    handles.remember(Ino(7))
    handles.forget(Ino(7), 5)
    assert not handles.held(Ino(7))


def test_layer_is_thread_safe() -> None:
    """Appends from several threads neither overlap nor get lost."""
    posix = Posix(MemoryFs())
    attr, fh = posix.create(ROOT, posix.root, b"f", 0o644, CREATE | os.O_APPEND)

    def append(letter: bytes) -> None:
        for _ in range(200):
            posix.write(fh, 0, letter * 10)

    threads = [threading.Thread(target=append, args=(letter,)) for letter in (b"a", b"b", b"c")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    posix.release(fh)
    data = content(posix, attr.ino)
    pieces = [data[at : at + 10] for at in range(0, len(data), 10)]
    assert sorted(pieces) == sorted([b"a" * 10, b"b" * 10, b"c" * 10] * 200)


def test_layer_clock_is_the_file_systems() -> None:
    ticks = itertools.count(1000)
    posix = Posix(MemoryFs(clock=lambda: next(ticks)))
    attr = posix.mkdir(ROOT, posix.root, b"d", 0o755)
    assert 1000 < attr.mtime < 1100
