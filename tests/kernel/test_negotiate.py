"""INIT: which kernels are served, and with what."""

from __future__ import annotations

import errno
import struct

import pytest

from libfs.kernel import abi
from libfs.kernel.abi import Init, Op
from libfs.kernel.negotiate import Negotiation
from libfs.posix import FsError
from libfs.posix.memory import MemoryFs
from tests.kernel.wire import Wire

_ALL = (1 << 48) - 1
_NOTHING = memoryview(b"")


def _offer(flags: int) -> memoryview:
    return memoryview(abi.IN_INIT_EXT.pack(flags >> 32))


def _answer(minor: int, flags: int = _ALL, *, writeback: bool = True) -> tuple[int, ...]:
    wanted = Negotiation(1 << 20, writeback=writeback)
    return abi.INIT.unpack(wanted.answer(7, minor, 131072, flags & 0xFFFFFFFF, _offer(flags)))


def test_init_with_the_newest_kernel() -> None:
    major, minor, ahead, flags, _, _, max_write, grain, pages, _ = _answer(99)
    assert (major, minor) == (7, abi.MINOR)
    assert (ahead, max_write, grain, pages) == (131072, 1 << 20, 1, 256)
    assert flags & Init.WRITEBACK_CACHE
    assert not flags & Init.ATOMIC_O_TRUNC


def test_init_takes_the_older_minor() -> None:
    assert _answer(31)[1] == 31
    assert _answer(38)[1] == 38


def test_init_without_the_second_half() -> None:
    wanted = Negotiation(1 << 20)
    low = _ALL & 0xFFFFFFFF & ~Init.INIT_EXT
    assert abi.INIT.unpack(wanted.answer(7, 31, 4096, low, _NOTHING))[9] == 0
    # It says that there is one, and there is not.
    assert abi.INIT.unpack(wanted.answer(7, 40, 4096, low | Init.INIT_EXT, _NOTHING))[9] == 0


def test_init_takes_only_what_is_offered() -> None:
    few = Init.NO_OPEN_SUPPORT | Init.NO_OPENDIR_SUPPORT | Init.POSIX_ACL | Init.DONT_MASK
    assert _answer(35, few)[3] == few


def test_init_without_write_back() -> None:
    assert not _answer(45, writeback=False)[3] & Init.WRITEBACK_CACHE


@pytest.mark.parametrize(("major", "minor"), [(7, 30), (7, 0), (6, 99)])
def test_init_of_an_old_kernel_is_refused(major: int, minor: int) -> None:
    wanted = Negotiation(1 << 20)
    with pytest.raises(FsError) as caught:
        wanted.answer(major, minor, 0, _ALL, _NOTHING)
    assert caught.value.errno == errno.EPROTO
    assert f"{major}.{minor}" in wanted.failure


def test_init_lacking_what_is_needed_is_refused() -> None:
    wanted = Negotiation(1 << 20)
    with pytest.raises(FsError):
        wanted.answer(7, 40, 0, _ALL & 0xFFFFFFFF & ~Init.POSIX_ACL, _NOTHING)
    assert "POSIX_ACL" in wanted.failure


def test_init_asks_for_access_lists_only_where_the_kernel_checks() -> None:
    unchecked = Negotiation(1 << 20, checks=False)
    flags = abi.INIT.unpack(unchecked.answer(7, 40, 0, _ALL & 0xFFFFFFFF, _NOTHING))[3]
    assert not flags & Init.POSIX_ACL
    assert _answer(40)[3] & Init.POSIX_ACL


def test_init_of_a_newer_major_is_asked_again() -> None:
    wire = Wire(MemoryFs())
    first = wire.good(Op.INIT, 8, 0, 0, 0, tail=bytes(48))
    assert abi.INIT.unpack(first)[:2] == (7, abi.MINOR)
    wire.good(Op.INIT, 7, 40, 131072, 0xFFFFFFFF, tail=bytes(48))
    assert wire.negotiation.minor == 40


def test_init_over_the_wire_with_an_older_record() -> None:
    """The record has grown; before 7.36 it ended after the flags."""
    wire = Wire(MemoryFs())
    answer = wire.good(Op.INIT, 7, 35, 131072, 0x3FFFFFFF)
    assert len(answer) == struct.calcsize("=IIIIHHIIHHI7I") == 64
