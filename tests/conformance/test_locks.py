"""Advisory locks through handles: rights, closing, queues, deadlock."""

from __future__ import annotations

import errno
import fcntl
import os

import pytest

from libfs.posix import Fh, Lock, Posix
from libfs.posix.locks import F_RDLCK, F_UNLCK, F_WRLCK, LOCK_END
from tests.conformance.support import CREATE, ROOT, refuses


def _read(owner: int, start: int = 0, end: int = LOCK_END) -> Lock:
    return Lock(owner, F_RDLCK, start, end)


def _write(owner: int, start: int = 0, end: int = LOCK_END) -> Lock:
    return Lock(owner, F_WRLCK, start, end)


def _unlock(owner: int, start: int = 0, end: int = LOCK_END) -> Lock:
    return Lock(owner, F_UNLCK, start, end)


class Granted:
    """Counts how often it was called."""

    def __init__(self) -> None:
        self.times = 0

    def __call__(self) -> None:
        self.times += 1


@pytest.fixture
def fh(posix: Posix) -> Fh:
    return posix.create(ROOT, posix.root, b"f", 0o644, CREATE)[1]


@pytest.fixture
def other(posix: Posix, fh: Fh) -> Fh:
    """A second handle of the same file."""
    return posix.open(ROOT, posix.lookup(ROOT, posix.root, b"f").ino, os.O_RDWR)


def test_locks_conflicts(posix: Posix, fh: Fh, other: Fh) -> None:
    assert posix.setlk(fh, _read(1, 0, 9))
    assert posix.setlk(other, _read(2, 5, 20))
    assert posix.getlk(other, _read(3)) is None
    assert posix.getlk(other, _write(3, 0, 4)) == _read(1, 0, 9)
    with refuses(errno.EAGAIN):
        posix.setlk(other, _write(3, 20, 30))
    assert posix.setlk(other, _write(3, 21, 30))
    with refuses(errno.EAGAIN):
        posix.setlk(fh, _read(1, 25, 25))
    assert posix.setlk(other, _unlock(3, 25, 25))
    assert posix.setlk(fh, _write(1, 25, 25))


def test_locks_own_locks_are_replaced_and_joined(posix: Posix, fh: Fh) -> None:
    posix.setlk(fh, _write(1, 0, 99))
    posix.setlk(fh, _read(1, 40, 59))
    assert posix.getlk(fh, _read(2, 40, 59)) is None
    assert posix.getlk(fh, _read(2, 60, 99)) == _write(1, 60, 99)
    posix.setlk(fh, _write(1, 40, 59))
    assert posix.getlk(fh, _read(2, 50, 50)) == _write(1, 0, 99)
    posix.setlk(fh, _unlock(1, 10, LOCK_END))
    assert posix.getlk(fh, _read(2)) == _write(1, 0, 9)


def test_locks_report_pid(posix: Posix, fh: Fh) -> None:
    posix.setlk(fh, Lock(1, F_WRLCK, 0, 9, pid=77))
    found = posix.getlk(fh, _read(2))
    assert found is not None
    assert found.pid == 77


@pytest.mark.parametrize(
    "lock", [Lock(1, 9, 0, 9), _write(1, 5, 4), _write(1, -1, 4), _write(1, 0, LOCK_END + 1)]
)
def test_locks_bad_range(posix: Posix, fh: Fh, lock: Lock) -> None:
    with refuses(errno.EINVAL):
        posix.setlk(fh, lock)
    with refuses(errno.EINVAL):
        posix.getlk(fh, lock)


def test_locks_need_rights(posix: Posix, fh: Fh) -> None:
    ino = posix.lookup(ROOT, posix.root, b"f").ino
    reader, writer = posix.open(ROOT, ino, os.O_RDONLY), posix.open(ROOT, ino, os.O_WRONLY)
    with refuses(errno.EBADF):
        posix.setlk(reader, _write(1))
    with refuses(errno.EBADF):
        posix.setlk(writer, _read(1))
    posix.setlk(reader, _read(1))
    posix.setlk(writer, _write(1))
    posix.setlk(reader, _unlock(1))


def test_locks_go_when_any_descriptor_is_closed(posix: Posix, fh: Fh, other: Fh) -> None:
    posix.setlk(fh, _write(1))
    posix.flush(other, 2)
    assert posix.getlk(other, _read(2)) is not None
    posix.flush(other, 1)
    assert posix.getlk(other, _read(2)) is None


def test_locks_go_with_the_last_handle(posix: Posix, fh: Fh, other: Fh) -> None:
    posix.setlk(fh, _write(1))
    posix.release(fh)
    assert posix.getlk(other, _read(2)) is not None
    posix.release(other)
    again = posix.open(ROOT, posix.lookup(ROOT, posix.root, b"f").ino, os.O_RDWR)
    assert posix.getlk(again, _read(2)) is None


def test_locks_queue(posix: Posix, fh: Fh, other: Fh) -> None:
    posix.setlk(fh, _write(1))
    first, second, third = Granted(), Granted(), Granted()
    assert not posix.setlk(other, _read(2), first)
    assert not posix.setlk(other, _read(3), second)
    assert not posix.setlk(other, _write(4), third)
    posix.setlk(fh, _read(1))
    assert (first.times, second.times, third.times) == (1, 1, 0)
    for owner in (1, 2, 3):
        assert third.times == 0
        posix.setlk(fh, _unlock(owner))
    assert third.times == 1
    assert posix.getlk(fh, _read(9)) == _write(4)


def test_locks_cancel(posix: Posix, fh: Fh, other: Fh) -> None:
    posix.setlk(fh, _write(1))
    waiting = Granted()
    assert not posix.setlk(other, _read(2), waiting)
    assert posix.cancel_lock(waiting)
    assert not posix.cancel_lock(waiting)
    posix.setlk(fh, _unlock(1))
    assert waiting.times == 0
    assert posix.getlk(fh, _write(3)) is None


@pytest.mark.parametrize("length", [2, 3, 10])
def test_locks_deadlock(posix: Posix, fh: Fh, length: int) -> None:
    """A circle of owners, each of which holds its byte and wants the next one's."""
    for owner in range(length):
        posix.setlk(fh, _write(owner, owner, owner))
    waiting = [Granted() for _ in range(length - 1)]
    for owner, granted in enumerate(waiting):
        assert not posix.setlk(fh, _write(owner, owner + 1, owner + 1), granted)
    with refuses(errno.EDEADLK):
        posix.setlk(fh, _write(length - 1, 0, 0), Granted())
    with refuses(errno.EAGAIN):
        posix.setlk(fh, _write(length - 1, 0, 0))
    posix.flush(fh, length - 1)
    assert waiting[-1].times == 1


def test_locks_deadlock_over_two_files(posix: Posix, fh: Fh) -> None:
    second = posix.create(ROOT, posix.root, b"g", 0o644, CREATE)[1]
    posix.setlk(fh, _write(1))
    posix.setlk(second, _write(2))
    assert not posix.setlk(second, _read(1), Granted())
    with refuses(errno.EDEADLK):
        posix.setlk(fh, _read(2), Granted())


# -- flock


def test_locks_flock(posix: Posix, fh: Fh, other: Fh) -> None:
    assert posix.flock(fh, fcntl.LOCK_SH)
    assert posix.flock(other, fcntl.LOCK_SH | fcntl.LOCK_NB)
    with refuses(errno.EAGAIN):
        posix.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB, Granted())
    # That gave up the shared lock, as flock(2) says.
    assert posix.flock(fh, fcntl.LOCK_EX)
    with refuses(errno.EAGAIN):
        posix.flock(other, fcntl.LOCK_SH)
    assert posix.flock(fh, fcntl.LOCK_UN)
    assert posix.flock(other, fcntl.LOCK_EX)


def test_locks_flock_does_not_see_ranges(posix: Posix, fh: Fh, other: Fh) -> None:
    posix.setlk(fh, _write(1))
    assert posix.flock(other, fcntl.LOCK_EX)
    posix.flush(fh, 1)
    with refuses(errno.EAGAIN):
        posix.flock(fh, fcntl.LOCK_SH)


def test_locks_flock_goes_with_its_handle(posix: Posix, fh: Fh, other: Fh) -> None:
    posix.flock(fh, fcntl.LOCK_EX)
    waiting = Granted()
    assert not posix.flock(other, fcntl.LOCK_SH, waiting)
    posix.flush(fh, 1)
    assert waiting.times == 0
    posix.release(fh)
    assert waiting.times == 1


def test_locks_flock_cancel(posix: Posix, fh: Fh, other: Fh) -> None:
    posix.flock(fh, fcntl.LOCK_EX)
    waiting = Granted()
    posix.flock(other, fcntl.LOCK_EX, waiting)
    posix.release(other)
    posix.flock(fh, fcntl.LOCK_UN)
    assert waiting.times == 0


@pytest.mark.parametrize("operation", [0, 99, fcntl.LOCK_SH | fcntl.LOCK_EX])
def test_locks_flock_bad_operation(posix: Posix, fh: Fh, operation: int) -> None:
    with refuses(errno.EINVAL):
        posix.flock(fh, operation)
