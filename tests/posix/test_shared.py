"""Several fronts of one file system: who is told of what, and when it is closed."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable

import pytest

from libfs.posix import RENAME_EXCHANGE, FsError, Ino, Options, Posix
from libfs.posix.between import send
from libfs.posix.memory import MemoryFs
from libfs.posix.shared import Front, Shared
from tests.conformance.support import ROOT

N, A, D = "name", "attributes", "data"


class Told:
    """A watcher that remembers."""

    def __init__(self) -> None:
        self.heard: set[tuple[object, ...]] = set()

    def name_changed(self, parent: Ino, name: bytes) -> None:
        self.heard.add((N, parent, name))

    def attributes_changed(self, ino: Ino) -> None:
        self.heard.add((A, ino))

    def data_changed(self, ino: Ino) -> None:
        self.heard.add((D, ino))


class Two:
    def __init__(self) -> None:
        self.fs = MemoryFs()
        self.shared = Shared(self.fs, Options())
        self.one, self.other = self.shared.front(), self.shared.front()
        self.mine, self.theirs = Told(), Told()
        self.one.watcher, self.other.watcher = self.mine, self.theirs
        self.top = self.one.root

    def heard(self, call: Callable[[], object]) -> set[tuple[object, ...]]:
        """What the other front is told of a call; the own one is told nothing."""
        self.theirs.heard.clear()
        self.mine.heard.clear()
        call()
        assert self.mine.heard == set()
        return set(self.theirs.heard)


@pytest.fixture
def two() -> Two:
    return Two()


def test_shared_names(two: Two) -> None:
    one, top = two.one, two.top
    made: list[Ino] = []

    def make() -> None:
        made.append(one.mknod(ROOT, top, b"f", 0o100644).ino)

    assert two.heard(make) == {(N, top, b"f"), (D, top)}
    (f,) = made
    assert two.heard(lambda: one.mkdir(ROOT, top, b"d", 0o755)) == {(N, top, b"d"), (D, top)}
    d = one.lookup(ROOT, top, b"d").ino
    assert two.heard(lambda: one.link(ROOT, f, d, b"g")) == {(N, d, b"g"), (D, d), (A, f)}
    assert two.heard(lambda: one.unlink(ROOT, d, b"g")) == {(N, d, b"g"), (D, d), (A, f)}
    both = {(N, top, b"f"), (N, d, b"h"), (D, top), (D, d), (A, f)}
    assert two.heard(lambda: one.rename(ROOT, top, b"f", d, b"h")) == both
    g = one.mknod(ROOT, top, b"g", 0o100644).ino
    swap = {(N, top, b"g"), (N, d, b"h"), (D, top), (D, d), (A, f), (A, g)}
    assert two.heard(lambda: one.rename(ROOT, top, b"g", d, b"h", RENAME_EXCHANGE)) == swap
    assert two.heard(lambda: one.rename(ROOT, top, b"g", d, b"h")) == swap
    one.unlink(ROOT, d, b"h")
    assert two.heard(lambda: one.rmdir(ROOT, top, b"d")) == {(N, top, b"d"), (D, top), (A, d)}


def test_shared_attributes_and_bytes(two: Two) -> None:
    one, top = two.one, two.top
    attr, fh = one.create(ROOT, top, b"f", 0o644, os.O_RDWR)
    f = attr.ino
    for expected, call in (
        ((D, f), lambda: one.write(fh, 0, b"bytes")),
        ((D, f), lambda: one.truncate(ROOT, f, 3)),
        ((D, f), lambda: one.open(ROOT, f, os.O_RDWR | os.O_TRUNC)),
        ((D, f), lambda: one.fallocate(fh, 0, 0, 100)),
        ((A, f), lambda: one.setattr(ROOT, f, mode=0o600)),
        ((A, f), lambda: one.set_times(f, 5, 5)),
        ((A, f), lambda: one.setxattr(ROOT, f, b"user.x", b"1")),
        ((A, f), lambda: one.removexattr(ROOT, f, b"user.x")),
        ((A, f), lambda: one.read(fh, 0, 1)),  # it moves the access time
    ):
        assert two.heard(call) == {expected}
    for quiet in (
        lambda: one.read(fh, 0, 1),
        lambda: one.getattr(ROOT, f),
        lambda: one.lookup(ROOT, top, b"f"),
        lambda: one.fsync(fh),
    ):
        assert two.heard(quiet) == set()


def test_shared_a_failure_is_told_as_well(two: Two, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may have done a part."""

    def full(*_: object, **__: object) -> int:
        raise FsError(errno.ENOSPC)

    attr, fh = two.one.create(ROOT, two.top, b"f", 0o644, os.O_RDWR)
    monkeypatch.setattr(two.fs, "write", full)

    def write() -> None:
        with pytest.raises(FsError):
            two.one.write(fh, 0, b"bytes")

    assert two.heard(write) == {(D, attr.ino)}


def test_shared_everything_else_is_common(two: Two, monkeypatch: pytest.MonkeyPatch) -> None:
    closed = []
    monkeypatch.setattr(two.fs, "close", lambda: closed.append(True))
    attr, fh = two.one.create(ROOT, two.top, b"f", 0o644, os.O_RDWR)
    two.one.write(fh, 0, b"bytes")
    two.other.unlink(ROOT, two.top, b"f")
    assert two.one.read(fh, 0, 9) == b"bytes"
    two.other.close()
    two.other.close()
    assert not closed
    assert two.one.getattr(ROOT, attr.ino).nlink == 0
    assert two.heard(lambda: two.one.mkdir(ROOT, two.top, b"d", 0o755)) == set()
    two.one.close()
    assert closed == [True]
    with pytest.raises(FsError):
        two.one.read(fh, 0, 9)


def _made(posix: Posix, name: bytes) -> Ino:
    return posix.mknod(ROOT, posix.root, name, 0o100644).ino


def test_between_who_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    src, dst = Posix(MemoryFs()), Posix(MemoryFs())
    moved: list[tuple[object, ...]] = []

    def move(*names: object) -> None:
        moved.append(names)

    f = _made(src, b"f")
    src.mkdir(ROOT, src.root, b"d", 0o755)
    src.link(ROOT, _made(src, b"hard"), src.root, b"link")
    _made(dst, b"there")
    for name, new, number in (
        (b"d", b"d", errno.EISDIR),
        (b"hard", b"hard", errno.EMLINK),
        (b"none", b"none", errno.ENOENT),
        (b"f", b"there", errno.EEXIST),
        (b"f", b"a/b", errno.EINVAL),
    ):
        with pytest.raises(FsError) as caught:
            send(src, src.root, name, dst, dst.root, new, move)
        assert caught.value.errno == number
    src.remember(f)
    with pytest.raises(FsError) as caught:
        send(src, src.root, b"f", dst, dst.root, b"f", move)
    assert caught.value.errno == errno.EBUSY
    src.forget(f)
    dst.remount(readonly=True)
    with pytest.raises(FsError) as caught:
        send(src, src.root, b"f", dst, dst.root, b"f", move)
    assert caught.value.errno == errno.EROFS
    assert moved == []
    dst.remount(readonly=False)
    send(src, src.root, b"f", dst, dst.root, b"new", move)
    assert moved == [(src.root, b"f", dst.root, b"new")]


def test_between_both_ways_at_once() -> None:
    """Two threads that each need both locks."""
    one, other = Posix(MemoryFs()), Posix(MemoryFs())
    _made(one, b"f")
    _made(other, b"g")

    def work(src: Posix, name: bytes, dst: Posix) -> None:
        for _turn in range(500):
            send(src, src.root, name, dst, dst.root, b"new", lambda *_: None)

    threads = [
        threading.Thread(target=work, args=(one, b"f", other), daemon=True),
        threading.Thread(target=work, args=(other, b"g", one), daemon=True),
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()


def test_between_tells_the_fronts() -> None:
    here, there = Two(), Two()
    _made(here.one, b"f")
    here.theirs.heard.clear()
    src: Front = here.one
    send(src, here.top, b"f", there.one, there.top, b"g", lambda *_: None)
    assert here.theirs.heard == {(N, here.top, b"f"), (D, here.top)}
    assert there.theirs.heard == {(N, there.top, b"g"), (D, there.top)}
