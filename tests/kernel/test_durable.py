"""fsync waits in a thread of its own: all others are served, and those who wait share commits."""

from __future__ import annotations

import errno
import os
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from libfs.kernel import abi
from libfs.kernel.abi import Op
from libfs.kernel.durable import Syncer
from libfs.kernel.replies import Durable
from libfs.posix import Posix
from tests.conformance.support import CREATE, ROOT
from tests.gate import mounted
from tests.kernel.conftest import _USABLE
from tests.kernel.wire import Wire


class Live(Wire):
    """A dispatcher whose syncer runs."""

    def __init__(self) -> None:
        self.gate, self.xn, fs = mounted()
        super().__init__(fs)
        self.thread = threading.Thread(target=self.dispatcher.syncer.run, daemon=True)
        self.nodes: list[int] = []

    def fsync(self, *nodes: int) -> list[int]:
        """Send these together, and go on; the numbers of the requests."""
        numbers = []
        for node in nodes:
            request = self.request(Op.FSYNC, node, struct.pack("=" + abi.IN_FSYNC, 0, 0))
            numbers.append(self._unique)
            self.dispatcher.buffer[: len(request)] = request
            self.dispatcher.handle(len(request))
        self.dispatcher.settle()
        return numbers

    def raw(self, request: bytes) -> list[bytes]:
        """The answer that comes at once."""
        before = len(self.answers)
        self.dispatcher.buffer[: len(request)] = request
        self.dispatcher.handle(len(request))
        return self.answers[before:]

    def answered(self, numbers: list[int]) -> dict[int, int]:
        """Those of them that are answered, with the errno."""
        heads = [abi.OUT_HEADER.unpack_from(answer) for answer in list(self.answers)]
        return {unique: -error for _, error, unique in heads if unique in numbers}

    def wait(self, numbers: list[int]) -> dict[int, int]:
        """Until all are answered."""
        until = time.monotonic() + 20
        while len(self.answered(numbers)) < len(numbers):
            assert time.monotonic() < until
            time.sleep(0.001)
        return self.answered(numbers)


@pytest.fixture
def live() -> Iterator[Live]:
    wire = Live()
    wire.nodes = [wire.make(b"f%d" % n) for n in range(8)]
    for node in wire.nodes:
        assert wire.write(node, b"x" * 5000) == 0
    wire.thread.start()
    yield wire
    wire.gate.open_gate()
    wire.dispatcher.syncer.end()
    wire.thread.join(20)
    assert not wire.thread.is_alive()


def test_durable_everybody_else_is_served(live: Live) -> None:
    first, second, *_ = live.nodes
    live.gate.close_gate()
    waiting = live.fsync(first)
    assert live.gate.reached.wait(20)
    live.good(Op.GETATTR, 0, 0, node=first)
    live.good(Op.LOOKUP, tail=b"f1\0")
    assert live.read(second) == b"x" * 5000
    made = live.make(b"new")
    assert live.write(made, b"y" * 9000) == 0
    assert live.write(first, b"z" * 9000) == 0
    assert live.read(first) == b"z" * 9000
    live.good(Op.UNLINK, tail=b"new\0")
    assert not live.answered(waiting)
    live.gate.open_gate()
    assert set(live.wait(waiting).values()) == {0}


def test_durable_those_who_wait_share_a_commit(live: Live) -> None:
    before = live.gate.flushes
    live.gate.close_gate()
    waiting = live.fsync(live.nodes[0])
    assert live.gate.reached.wait(20)
    for node in live.nodes[1:]:
        waiting += live.fsync(node)
    live.gate.open_gate()
    assert set(live.wait(waiting).values()) == {0}
    assert live.gate.flushes - before <= 4


def test_durable_the_root_is_everything(live: Live) -> None:
    for op, fields in ((Op.FSYNCDIR, (0, 0)), (Op.SYNCFS, ())):
        request = live.request(op, 1, struct.pack("=" + abi.IN_FSYNC, *fields) if fields else b"")
        live.dispatcher.buffer[: len(request)] = request
        live.dispatcher.handle(len(request))
        assert len(live.dispatcher.undurable) == 1
        live.dispatcher.settle()
        assert live.wait([live._unique]) == {live._unique: 0}
    assert live.xn.dirty_count() == (0, 0)


def test_durable_an_error_is_everybodys(live: Live) -> None:
    live.gate.close_gate()
    first = live.fsync(live.nodes[0])
    assert live.gate.reached.wait(20)
    rest = live.fsync(*live.nodes[1:])
    live.gate.fails = True
    live.gate.open_gate()
    assert set(live.wait(first).values()) == {errno.EIO}
    # Nothing can be written any more, which may be noticed sooner.
    failures = {errno.EIO, errno.EROFS}
    assert set(live.wait(rest).values()) <= failures
    live.gate.fails = False
    assert set(live.wait(live.fsync(*live.nodes)).values()) <= failures


def test_durable_what_is_wrong_with_one_is_no_answer_for_another(live: Live) -> None:
    stale = 4000
    numbers = live.fsync(live.nodes[0], stale, live.nodes[1])
    assert list(live.wait(numbers).values()) == [0, errno.ESTALE, 0]


def test_durable_the_end_answers_what_is_queued() -> None:
    _, _, fs = mounted()
    posix = Posix(fs)
    attr, _ = posix.create(ROOT, posix.root, b"f", 0o644, CREATE)
    answers: list[tuple[int, int]] = []
    syncer = Syncer(posix, lambda unique, number: answers.append((unique, number)))
    syncer.put([(1, Durable(attr.ino)), (2, Durable(attr.ino))])
    syncer.put([(3, Durable(None))])
    syncer.end()
    syncer.run()
    assert sorted(answers) == [(1, 0), (2, 0), (3, 0)]


# -- a mount

FLUSH = 0.5


class SlowMount:
    """See `slow_mount`."""

    def __init__(self, mnt: Path) -> None:
        self.mnt = mnt
        words = [sys.executable, "-m", "tests.kernel.slow_mount", str(mnt), str(FLUSH)]
        self.process = subprocess.Popen(
            words,
            cwd=Path(__file__).parents[2],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._line() == "mounted"

    def _line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def flushes(self) -> int:
        """So far."""
        assert self.process.stdin is not None
        print(file=self.process.stdin, flush=True)
        return int(self._line())


@pytest.fixture
def slow(tmp_path: Path) -> Iterator[SlowMount]:
    if not _USABLE:
        pytest.skip("needs root and /dev/fuse")
    mount = SlowMount(tmp_path)
    try:
        yield mount
    finally:
        subprocess.run(["umount", "-l", tmp_path], check=False)
        try:
            mount.process.communicate(timeout=10)
        except subprocess.TimeoutExpired:
            mount.process.kill()  # a test that failed has files open
            mount.process.communicate()
    assert mount.process.returncode == 0


def test_durable_mount_serves_during_a_flush(slow: SlowMount) -> None:
    mnt = slow.mnt
    (mnt / "read").write_bytes(b"r" * 9000)
    fd = os.open(mnt / "f", os.O_CREAT | os.O_RDWR)
    os.write(fd, b"x" * 9000)
    # The host kernel itself lets nobody write to a file while it syncs that one.
    direct = os.open(mnt / "g", os.O_CREAT | os.O_RDWR | os.O_DIRECT)
    ended: list[float] = []

    def sync() -> None:
        os.fsync(fd)
        ended.append(time.monotonic())

    syncing = threading.Thread(target=sync)
    flushes = slow.flushes()
    begun = time.monotonic()
    syncing.start()
    while slow.flushes() == flushes:
        time.sleep(0.005)
    for turn in range(5):
        with pytest.raises(FileNotFoundError):
            (mnt / f"none{turn}").stat()
        (mnt / f"new{turn}").write_bytes(b"n")
        os.rename(mnt / f"new{turn}", mnt / f"renamed{turn}")
        assert len(os.listdir(mnt)) == turn + 4
        assert (mnt / "read").read_bytes() == b"r" * 9000
        assert os.pwrite(direct, b"y" * 4096, 4096 * turn) == 4096
    served = time.monotonic()
    assert not ended
    syncing.join(20)
    os.close(fd)
    os.close(direct)
    assert ended[0] - begun >= FLUSH
    assert served - begun < FLUSH


def test_durable_mount_fsyncs_of_many_share_flushes(slow: SlowMount) -> None:
    fds = [os.open(slow.mnt / f"f{n}", os.O_CREAT | os.O_WRONLY) for n in range(8)]
    for fd in fds:
        os.write(fd, b"x" * 9000)
    before = slow.flushes()
    threads = [threading.Thread(target=os.fsync, args=(fd,)) for fd in fds]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert slow.flushes() - before <= 4
    for fd in fds:
        os.close(fd)
