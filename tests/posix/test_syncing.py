"""While a sync waits for the device the POSIX layer serves everybody else, and forgets nothing."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import pytest

from libfs.ffs import Ffs
from libfs.ffs.ffs import SYNC_EVERY
from libfs.posix import Fh, FsError, Posix
from tests.conformance.support import CREATE, ROOT, refuses
from tests.gate import Gate, after_cut, mounted
from xnfs import CorruptionError, Xn

BLOCK = 4096


class Beside(threading.Thread):
    """A call in a thread of its own; `end` says how it ended."""

    def __init__(self, call: Callable[[], object]) -> None:
        super().__init__(daemon=True)
        self._call = call
        self.error: BaseException | None = None
        self.start()

    def run(self) -> None:
        try:
            self._call()
        except BaseException as error:
            self.error = error

    def end(self) -> int:
        """0 or the errno."""
        self.join(20)
        assert not self.is_alive()
        assert self.error is None or isinstance(self.error, FsError)
        return self.error.errno or 0 if self.error else 0


@pytest.fixture
def parts() -> tuple[Gate, Xn, Ffs]:
    return mounted()


@pytest.fixture
def gate(parts: tuple[Gate, Xn, Ffs]) -> Gate:
    return parts[0]


@pytest.fixture
def posix(parts: tuple[Gate, Xn, Ffs]) -> Iterator[Posix]:
    layer = Posix(parts[2])
    yield layer
    parts[0].open_gate()


def make(posix: Posix, name: bytes, data: bytes) -> Fh:
    _, fh = posix.create(ROOT, posix.root, name, 0o644, CREATE | os.O_RDWR)
    posix.write(fh, 0, data)
    return fh


@contextmanager
def held(gate: Gate, call: Callable[[], object]) -> Iterator[Beside]:
    """`call` has come to its first flush, and ends no sooner than this block."""
    gate.close_gate()
    beside = Beside(call)
    assert gate.reached.wait(20)
    yield beside
    assert beside.is_alive()
    gate.open_gate()


def test_syncing_everybody_else_is_served(gate: Gate, posix: Posix) -> None:
    fh = make(posix, b"f", b"a" * 9000)
    attr = posix.lookup(ROOT, posix.root, b"f")
    for sync in (lambda: posix.fsync(fh), posix.sync):
        posix.write(fh, 0, b"b" * 9000)
        with held(gate, sync) as syncing:
            assert posix.getattr(ROOT, attr.ino).size >= 9000
            assert posix.read(fh, 0, 3) == b"bbb"
            other = make(posix, b"g", b"new")
            assert posix.read(other, 0, 3) == b"new"
            posix.rename(ROOT, posix.root, b"g", posix.root, b"h")
            posix.setattr(ROOT, attr.ino, mode=0o600)
            posix.write(fh, 4000, b"c" * 9000)
            posix.release(other)
            posix.unlink(ROOT, posix.root, b"h")
        assert syncing.end() == 0
    posix.close()


def test_syncing_idle_serves_too(
    gate: Gate, posix: Posix, parts: tuple[Gate, Xn, Ffs], monkeypatch: pytest.MonkeyPatch
) -> None:
    fh = make(posix, b"f", b"a" * 9000)
    now = parts[2].now()
    monkeypatch.setattr(parts[2].volume, "now", lambda: now + SYNC_EVERY)
    with held(gate, posix.idle) as syncing:
        assert posix.read(fh, 0, 1) == b"a"
    assert syncing.end() == 0
    found = after_cut(gate)
    assert found.lookup(found.root, b"f") is not None


@pytest.mark.parametrize("datasync", [False, True])
def test_syncing_what_is_written_meanwhile_is_of_the_next_one(
    gate: Gate, posix: Posix, datasync: bool
) -> None:
    """The same block, the same file's end, the same directory."""
    make(posix, b"x", b"")
    fh = make(posix, b"f", b"a" * 9000)
    posix.sync()
    posix.write(fh, 0, b"b" * BLOCK)
    posix.write(fh, 9000, b"b" * 10)
    with held(gate, lambda: posix.fsync(fh, datasync=datasync)) as first:
        posix.write(fh, 0, b"c" * BLOCK)
        posix.write(fh, 9010, b"c" * 10)
        posix.rename(ROOT, posix.root, b"x", posix.root, b"y")
    assert first.end() == 0
    found = after_cut(gate)
    ino = found.lookup(found.root, b"f")
    assert ino is not None
    assert found.read(ino, 9000, 10) == b"b" * 10
    posix.fsync(fh, datasync=datasync)
    found = after_cut(gate)
    assert found.lookup(found.root, b"y") is not None
    assert found.lookup(found.root, b"f") == ino
    assert found.read(ino, 0, BLOCK) == b"c" * BLOCK
    assert found.read(ino, 9000, 100) == b"b" * 10 + b"c" * 10


def test_syncing_the_last_block_written_is_written_again(parts: tuple[Gate, Xn, Ffs]) -> None:
    """Before the kernel is asked, and during."""
    gate, _, fs = parts
    posix = Posix(fs)
    fh = make(posix, b"f", b"a" * 9000)
    posix.sync()
    posix.write(fh, 0, b"b" * BLOCK)
    ino = posix.lookup(ROOT, posix.root, b"f").ino
    syncing = fs.begin_sync([ino], data_only=True)
    assert syncing is not None
    with held(gate, syncing.wait) as waiting:
        posix.write(fh, 0, b"c" * BLOCK)
    assert waiting.end() == 0
    syncing.done()
    posix.fsync(fh, datasync=True)
    found = after_cut(gate)
    assert found.lookup(found.root, b"f") == ino
    assert found.read(ino, 0, BLOCK) == b"c" * BLOCK


def test_syncing_a_second_fsync_waits_for_its_own_data(gate: Gate, posix: Posix) -> None:
    fh = make(posix, b"f", b"a" * 9000)
    posix.sync()
    posix.write(fh, 0, b"b" * BLOCK)
    with held(gate, lambda: posix.fsync(fh)) as first:
        posix.write(fh, BLOCK, b"c" * BLOCK)
        second = Beside(lambda: posix.fsync(fh, datasync=True))
        second.join(0.1)
        assert second.is_alive()
    assert (first.end(), second.end()) == (0, 0)
    found = after_cut(gate)
    ino = found.lookup(found.root, b"f")
    assert ino is not None
    assert found.read(ino, 0, 2 * BLOCK) == b"b" * BLOCK + b"c" * BLOCK


def test_syncing_overlapping_ones_do_not_rely_on_each_other(parts: tuple[Gate, Xn, Ffs]) -> None:
    """The second one overtakes the first, which has not even asked the kernel yet."""
    gate, _, fs = parts
    posix = Posix(fs)
    fh = make(posix, b"f", b"a" * 9000)
    posix.sync()
    posix.write(fh, 0, b"b" * BLOCK)
    ino = posix.lookup(ROOT, posix.root, b"f").ino
    first = fs.begin_sync([ino], data_only=True)
    assert first is not None
    posix.fsync(fh, datasync=True)
    found = after_cut(gate)
    there = found.lookup(found.root, b"f")
    assert there is not None
    assert found.read(there, 0, BLOCK) == b"b" * BLOCK
    posix.write(fh, 0, b"c" * BLOCK)
    first.wait()
    first.done()
    posix.fsync(fh, datasync=True)
    found = after_cut(gate)
    assert found.lookup(found.root, b"f") == there
    assert found.read(there, 0, BLOCK) == b"c" * BLOCK


def test_syncing_a_file_that_goes_meanwhile(gate: Gate, posix: Posix) -> None:
    fh = make(posix, b"f", b"a" * 100_000)
    ino = posix.lookup(ROOT, posix.root, b"f").ino
    with held(gate, lambda: posix.fsync(fh)) as syncing:
        posix.unlink(ROOT, posix.root, b"f")
        posix.release(fh)
        again = make(posix, b"g", b"b" * 100_000)
    assert syncing.end() == 0
    with refuses(errno.ESTALE):
        posix.fsync_inodes([ino])
    posix.fsync(again)
    found = after_cut(gate)
    assert found.lookup(found.root, b"f") is None
    there = found.lookup(found.root, b"g")
    assert there is not None
    assert found.read(there, 0, 100_000) == b"b" * 100_000


def test_syncing_close_waits(gate: Gate, posix: Posix, parts: tuple[Gate, Xn, Ffs]) -> None:
    fh = make(posix, b"f", b"a" * 9000)
    ended: list[str] = []

    def sync() -> None:
        posix.fsync(fh)
        ended.append("fsync")

    def close() -> None:
        posix.close()
        ended.append("close")
        parts[1].close()

    with held(gate, sync) as syncing:
        closing = Beside(close)
        closing.join(0.1)
        assert closing.is_alive()
    assert (syncing.end(), closing.end()) == (0, 0)
    assert ended == ["fsync", "close"]


def test_syncing_remount_readonly_meanwhile(gate: Gate, posix: Posix) -> None:
    fh = make(posix, b"f", b"a" * 9000)
    with held(gate, lambda: posix.fsync(fh)) as syncing:
        posix.write(fh, 0, b"b")
        remount = Beside(lambda: posix.remount(readonly=True))
        remount.join(0.1)
        assert remount.is_alive()
    assert (syncing.end(), remount.end()) == (0, 0)
    found = after_cut(gate)
    ino = found.lookup(found.root, b"f")
    assert ino is not None
    assert found.read(ino, 0, 2) == b"ba"
    with refuses(errno.EROFS):
        posix.write(fh, 0, b"c")
    posix.fsync(fh)


def test_syncing_an_error_is_everybodys_and_stays(gate: Gate, posix: Posix) -> None:
    fh, other = make(posix, b"f", b"a" * 9000), make(posix, b"g", b"a" * 9000)
    with held(gate, lambda: posix.fsync(fh)) as first:
        posix.write(other, 0, b"b" * 100)
        second = Beside(lambda: posix.fsync(other))
        second.join(0.1)
        gate.fails = True
    assert (first.end(), second.end()) == (errno.EIO, errno.EIO)
    gate.fails = False
    for _ in range(2):
        for handle in (fh, other):
            with refuses(errno.EIO):
                posix.fsync(handle)
        with refuses(errno.EIO):
            posix.sync()
    with refuses(errno.EIO):
        posix.close()


def test_syncing_after_corruption_what_is_lost_is_said(
    posix: Posix, parts: tuple[Gate, Xn, Ffs]
) -> None:
    fs = parts[2]
    fh = make(posix, b"f", b"a" * 9000)
    parts[1].damaged = True  # the kernel has seen it, too
    fs._answer(CorruptionError(1, "field", 0, 1))
    assert fs.readonly
    with refuses(errno.EROFS):
        posix.fsync(fh)
    with refuses(errno.EROFS):
        posix.sync()


def test_syncing_between_the_steps_of_a_request(
    posix: Posix, parts: tuple[Gate, Xn, Ffs], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bytes that were durable stay so while they move out of the inode; a symlink is whole."""
    gate, xn, fs = parts
    fh = make(posix, b"f", b"a" * 2000)
    posix.sync()
    seen: list[bytes | None] = []

    def look() -> None:
        xn.sync(fs.volume.who)
        found = after_cut(gate)
        ino, link = (found.lookup(found.root, name) for name in (b"f", b"s"))
        assert ino is not None
        assert found.read(ino, 0, 2000) == b"a" * 2000
        seen.append(None if link is None else found.readlink(link))

    def first_look(call: Callable[..., None], *args: object, **kwargs: object) -> None:
        look()
        call(*args, **kwargs)

    for name in ("change", "write_raw"):
        monkeypatch.setattr(xn, name, partial(first_look, getattr(xn, name)))
    posix.write(fh, 5000, b"b")
    posix.symlink(ROOT, posix.root, b"s", b"t" * 3000)
    posix.write(fh, 5000, b"c")
    assert len(seen) > 4
    assert set(seen) == {None, b"t" * 3000}
