"""READ answered from where the bytes lie: the same bytes, one answer, whatever goes wrong."""

from __future__ import annotations

import errno
import os
import struct

import pytest

from libfs.kernel import abi
from libfs.kernel.abi import Op
from libfs.kernel.dispatch import Parts
from libfs.kernel.files import LENT_MIN
from tests.ffs.support import Disk
from tests.kernel.wire import Wire
from xnfs import DeviceError

MIB = 1 << 20


def _file(wire: Wire, data: bytes) -> int:
    node = wire.make(b"f")
    assert wire.write(node, data) == 0
    return node


@pytest.mark.parametrize("size", [1, 4096, LENT_MIN - 1, LENT_MIN, LENT_MIN + 1, MIB - 5, MIB])
def test_lent_read_at_any_place(size: int) -> None:
    wire = Wire(Disk().fs)
    data = os.urandom(MIB)
    node = _file(wire, data)
    for offset in (0, 1, 4096, 10_000, MIB - size, MIB - 1, MIB):
        assert wire.read(node, offset, size) == data[offset : offset + size]


def test_lent_pieces_are_pages_and_not_copies() -> None:
    disk = Disk()
    wire = Wire(disk.fs)
    node = _file(wire, os.urandom(MIB))
    kinds: list[list[type]] = []

    def send(parts: Parts) -> None:
        kinds.append([type(part) for part in parts])

    wire.dispatcher._send = send
    for size in (LENT_MIN - 1, LENT_MIN):
        request = wire.request(Op.READ, node, struct.pack("=" + abi.IN_READ, 0, 0, size))
        wire.dispatcher.buffer[: len(request)] = request
        wire.dispatcher.handle(len(request))
    assert kinds[0] == [bytes, bytes]
    assert kinds[1][0] is bytes
    assert set(kinds[1][1:]) == {memoryview}


def test_lent_read_of_a_cache_smaller_than_the_file() -> None:
    wire = Wire(Disk(frames=400).fs)
    data = os.urandom(4 * MIB)
    node = wire.make(b"f")
    for at in range(0, len(data), MIB):
        assert wire.write(node, data[at : at + MIB], at) == 0
    for at in (*range(0, len(data), MIB), *range(0, len(data) - MIB, MIB // 2)):
        assert wire.read(node, at, MIB) == data[at : at + MIB]


def test_lent_read_that_fails_has_one_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    disk = Disk()
    wire = Wire(disk.fs)
    node = _file(wire, os.urandom(MIB))
    wire.posix.sync()
    disk.xn.evict(disk.fs.volume.who, range(disk.xn.blocks))

    def broken(start: int, views: object) -> None:
        raise DeviceError(errno.EIO, "broken")

    monkeypatch.setattr(disk.device, "read", broken)
    assert wire.ask(Op.READ, 0, 0, MIB, node=node) == (errno.EIO, b"")
