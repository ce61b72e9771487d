"""Counting and faulting devices do what they say, and nothing when nothing is planted."""

from __future__ import annotations

import errno
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xnfs.disk.device import BlockDevice, MemoryDevice
from xnfs.disk.records import BLOCK
from xnfs.disk.stacked import CountingDevice, Fault, FaultingDevice, IoCounts
from xnfs.errors import DeviceError


def block(value: int) -> bytes:
    return bytes([value]) * BLOCK


def read(device: BlockDevice, start: int, count: int = 1) -> bytes:
    views = [memoryview(bytearray(BLOCK)) for _ in range(count)]
    device.read(start, views)
    return b"".join(views)


def numbered() -> MemoryDevice:
    disk = MemoryDevice(16)
    disk.write(0, [block(i) for i in range(16)])
    return disk


def test_counting_device_counts_calls_blocks_and_seeks() -> None:
    disk = CountingDevice(numbered())
    read(disk, 0, 3)
    read(disk, 3, 1)
    disk.write(10, [block(1) + block(2)])
    disk.write(2, [block(3)])
    disk.flush()
    assert disk.counts == IoCounts(
        reads=2, writes=2, flushes=1, blocks_read=4, blocks_written=3, seeks=2, seek_blocks=6 + 10
    )
    assert read(disk, 10) == block(1)


def test_stacked_devices_pass_the_rest_on() -> None:
    below = numbered()
    disk = FaultingDevice(CountingDevice(below))
    below.readonly = True
    assert (disk.blocks, disk.readonly) == (16, True)
    assert not disk.is_zero(3, 1)
    disk.flush()
    disk.close()


@pytest.mark.parametrize("op", ["read", "write", "flush"])
@pytest.mark.parametrize("sticky", [False, True])
def test_faulting_device_eio_once_or_for_good(op: Any, sticky: bool) -> None:
    disk = FaultingDevice(numbered())
    fault = disk.plant(Fault(op, "eio", after=1, sticky=sticky, errno=errno.ENOSPC))
    calls = {
        "read": lambda: read(disk, 2),
        "write": lambda: disk.write(2, [block(99)]),
        "flush": disk.flush,
    }
    calls[op]()
    assert fault.struck == 0
    with pytest.raises(DeviceError, match="planted") as e:
        calls[op]()
    assert e.value.errno == errno.ENOSPC
    if sticky:
        with pytest.raises(DeviceError):
            calls[op]()
    else:
        calls[op]()
    for other in calls.keys() - {op}:
        calls[other]()
    assert fault.struck == 1 + sticky


def test_faulting_device_strikes_only_calls_that_touch_the_block() -> None:
    disk = FaultingDevice(numbered(), Fault("write", "eio", block=5))
    disk.write(0, [block(7)] * 5)
    disk.write(6, [block(7)])
    with pytest.raises(DeviceError):
        disk.write(4, [block(8), block(8)])
    assert read(disk, 4, 2) == block(7) + block(5)


def test_faulting_device_short_write_does_the_first_half() -> None:
    disk = FaultingDevice(numbered(), Fault("write", "short"), Fault("read", "short", after=1))
    with pytest.raises(DeviceError):
        disk.write(8, [block(50 + i) for i in range(4)])
    assert read(disk, 8, 4) == block(50) + block(51) + block(10) + block(11)
    views = [memoryview(bytearray(BLOCK)) for _ in range(2)]
    with pytest.raises(DeviceError):
        disk.read(8, views)
    assert [bytes(view) for view in views] == [block(50), block(0)]


def test_faulting_device_lost_write_and_flush_report_success() -> None:
    below = CountingDevice(numbered())
    disk = FaultingDevice(below, Fault("write", "lost", block=9), Fault("flush", "lost"))
    disk.write(8, [block(50), block(51), block(52)])
    disk.flush()
    assert read(disk, 8, 3) == block(50) + block(9) + block(52)
    assert below.counts.flushes == 0
    disk.flush()
    assert below.counts.flushes == 1


def test_faulting_device_misdirected_lands_elsewhere() -> None:
    disk = FaultingDevice(numbered(), Fault("write", "misdirected", block=9, other=1))
    disk.write(9, [block(50), block(51)])
    assert read(disk, 9, 2) == block(9) + block(51)
    assert read(disk, 1) == block(50)
    disk.plant(Fault("read", "misdirected", block=3, other=1))
    assert read(disk, 2, 2) == block(2) + block(50)
    assert read(disk, 2, 2) == block(2) + block(3)


def test_faulting_device_stale_read_gives_the_version_before() -> None:
    disk = FaultingDevice(numbered(), Fault("read", "stale", block=4, after=1))
    disk.write(4, [block(60)])
    assert read(disk, 4) == block(60)
    assert read(disk, 3, 2) == block(3) + block(4)
    assert read(disk, 4) == block(60)


@given(bit=st.integers(0, 8 * BLOCK - 1))
def test_faulting_device_flips_exactly_one_bit(bit: int) -> None:
    disk = FaultingDevice(numbered(), Fault("read", "flip", block=6, bit=bit))
    assert _difference(read(disk, 5, 2)[BLOCK:], block(6)) == {bit}
    disk.plant(Fault("write", "flip", block=7, bit=bit))
    disk.write(6, [block(1), block(2)])
    assert read(disk, 6) == block(1)
    assert _difference(read(disk, 7), block(2)) == {bit}


def _difference(a: bytes, b: bytes) -> set[int]:
    return {
        8 * i + k
        for i, (x, y) in enumerate(zip(a, b, strict=True))
        for k in range(8)
        if (x ^ y) >> k & 1
    }


def test_faulting_device_several_faults_at_one_call() -> None:
    disk = FaultingDevice(
        numbered(),
        Fault("write", "flip", block=2, bit=0),
        Fault("write", "misdirected", block=2, other=3),
        Fault("write", "lost", block=1),
    )
    disk.write(0, [block(20), block(21), block(22)])
    assert read(disk, 0, 3) == block(20) + block(1) + block(2)
    assert _difference(read(disk, 3), block(22)) == {0}


def test_faulting_device_refuses_faults_that_make_no_sense() -> None:
    for op, kind in (("read", "lost"), ("flush", "flip"), ("write", "stale")):
        with pytest.raises(ValueError, match="can't fail as"):
            Fault(op, kind)  # type: ignore[arg-type]
