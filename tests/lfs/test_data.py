"""The bytes of files: written whole or in part, in memory and in the log; what reads cost."""

from __future__ import annotations

import errno
import os
from typing import Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from libfs.lfs import format as f
from libfs.lfs.data import LONE, WINDOW
from libfs.posix.interface import FsError, Lender
from tests.lfs.support import FILE, ROOT, TOP, Disk
from xnfs.disk.device import Views

#: Blocks of an image that has segments of full size.
LARGE: Final = 16384
#: Bytes of a request, and where: across several blocks, and the ends of segments.
SIZES: Final = st.integers(1, 40 * f.BLOCK)
OFFSETS: Final = st.one_of(st.integers(0, 5).map(lambda i: i * f.BLOCK), st.integers(0, 200_000))
KINDS: Final = st.sampled_from(["write", "write", "sync", "punch", "cut", "reserve", "remount"])


@settings(max_examples=25)
@given(st.lists(st.tuples(KINDS, OFFSETS, SIZES), max_size=12))
def test_data_reads_and_lends_what_was_written(steps: list[tuple[str, int, int]]) -> None:
    """And the estimate of a flush, block for block, is what an honest count gives."""
    disk, model = Disk(), bytearray()
    ino = disk.fs.create(ROOT, TOP, b"f", FILE)
    for number, (kind, offset, size) in enumerate(steps):
        fs = disk.fs
        if kind == "write":
            data = bytes([number + 1]) * size
            assert fs.write(ROOT, ino, offset, data, kill_suid=False) == size
            model.extend(bytes(max(0, offset + size - len(model))))
            model[offset : offset + size] = data
        elif kind == "punch":
            fs.punch(ROOT, ino, offset, size)
            end = min(offset + size, len(model))
            model[offset:end] = bytes(max(0, end - offset))
        elif kind == "cut":
            fs.truncate(ROOT, ino, offset, kill_suid=False)
            model = model[:offset].ljust(offset, b"\0")
        elif kind == "reserve":
            fs.allocate(ROOT, ino, offset, size, keep_size=True)
        elif kind == "sync":
            fs.sync([ino])
        else:
            fs = disk.remount()
        got, shown = fs.read(ino, 0, 1 << 20), []
        fs.lend(ino, offset, size, lambda views: shown.append(b"".join(views)))  # noqa: B023
        assert got == bytes(model)
        assert shown == [bytes(model[offset : offset + size])]
        _check_estimate(disk, offset, size)
    disk.close()
    assert disk.check()[1] == []


def _check_estimate(disk: Disk, offset: int, size: int) -> None:
    v = next(v for v in disk.fs.volume.vnodes.values() if v.mode >> 12 == 8)
    lo, hi = offset // f.BLOCK, -(-(offset + size) // f.BLOCK)
    at = {i: v.tree.get(i) for i in range(lo, hi)}
    absent = [i for i in at if i not in v.data]
    written = sum(at[i] != f.RESERVED for i in absent)
    new = sum(not at[i] for i in absent)
    nodes = (v.tree.depth + (hi >= v.tree.limit)) * ((hi - lo) // f.FAN + 2)
    want = 1 + v.inline + nodes + written, 0.25 + v.inline + new if new else 0
    assert disk.fs._data._cost(v, offset, size) == want


def test_data_one_run_of_the_log_is_lent_where_it_lies() -> None:
    disk = Disk(LARGE)
    assert isinstance(disk.fs, Lender)
    data = os.urandom(64 * f.BLOCK)
    ino = disk.file(b"f", data)
    disk.remount()
    shown: list[object] = []
    for offset, size in ((0, len(data)), (5000, 100_000), (len(data) - 10, 4096)):
        disk.fs.lend(ino, offset, size, lambda views: shown.extend(map(type, views)))
    assert set(shown) == {memoryview}
    disk.fs.write(ROOT, ino, 8 * f.BLOCK, b"in memory", kill_suid=False)
    parts: list[bytes] = []
    disk.fs.lend(ino, 0, len(data), lambda views: parts.extend(map(bytes, views)))
    assert b"".join(parts) == data[: 8 * f.BLOCK] + b"in memory" + data[8 * f.BLOCK + 9 :]


@pytest.mark.parametrize("large", [False, True])
def test_data_what_is_borrowed_stays_as_it_is(large: bool) -> None:
    disk = Disk(LARGE)
    assert isinstance(disk.fs, Lender)
    data = os.urandom(64 * f.BLOCK if large else 1000)
    ino = disk.file(b"f", data)
    disk.remount()
    disk.fs.write(ROOT, ino, len(data) // 2, b"in memory", kill_suid=False)
    data = data[: len(data) // 2] + b"in memory" + data[len(data) // 2 + 9 :]
    for offset, size in ((0, len(data)), (500, 100_000), (len(data) - 10, 4096), (len(data), 1)):
        kept = disk.fs.borrow(ino, offset, size)
        disk.fs.write(ROOT, ino, offset, b"\0" * 600, kill_suid=False)
        disk.fs.sync(None)
        assert b"".join(kept) == data[offset : offset + size]
        disk.fs.truncate(ROOT, ino, 0, kill_suid=False)
        disk.fs.write(ROOT, ino, 0, data, kill_suid=False)


def test_data_a_run_of_a_file_is_one_slot_and_one_request() -> None:
    disk = Disk(LARGE)
    ino = disk.file(b"f", os.urandom(100 * f.BLOCK))
    disk.fs.sync(None)
    slots = disk.fs.volume.segments.slots_untrusted(disk.fs.volume.log.segment)[1]
    assert [slot[2] for slot in slots if slot[1] == f.P_DATA] == [100]
    disk.remount()
    requests = _requests(disk)
    disk.fs.read(ino, 0, 100 * f.BLOCK)
    assert (sorted(requests)[-1], sum(count > 1 for count in requests)) == (100, 1)


def test_data_who_reads_on_is_read_ahead_of() -> None:
    disk = Disk(LARGE)
    data = os.urandom(100 * f.BLOCK)
    ino = disk.file(b"f", data)
    disk.remount()
    requests = _requests(disk)
    for at in range(0, len(data), f.BLOCK):
        assert disk.fs.read(ino, at, f.BLOCK) == data[at : at + f.BLOCK]
    assert [count for count in requests if count > 1] == [17, 83]
    disk.remount()
    requests = _requests(disk)
    for i in range(99, -1, -1):
        disk.fs.read(ino, i * f.BLOCK, f.BLOCK)
    assert max(requests) <= 17  # block 0 may be a beginning


def test_data_small_files_are_read_by_windows_of_the_log() -> None:
    """The third that is read by itself brings what lies around it; none brings more than there is,
    and every byte is its own file's."""
    disk = Disk(LARGE)
    files = {b"%d" % i: os.urandom(3000 + i) for i in range(2 * WINDOW)}
    inos = {name: disk.file(name, data) for name, data in files.items()}
    disk.remount()
    requests = _requests(disk)
    for name, data in files.items():
        assert disk.fs.read(inos[name], 0, 4096) == data
    assert sum(count == 1 for count in requests) < 20  # of inodes and summaries, too
    assert len(requests) < 25
    assert max(requests) <= WINDOW


def test_data_a_map_that_names_what_is_not_written_is_corruption() -> None:
    disk = Disk()
    for size in (3, 40):
        ino = disk.file(b"%d" % size, os.urandom(size * f.BLOCK))
        disk.fs.sync(None)
        log, v = disk.fs.volume.log, disk.fs.volume.vnode(ino)
        v.tree.set(size - 1, log.summary + 1 + log.next)
        for turn in range(LONE):
            with pytest.raises(FsError) as error:
                disk.fs.read(ino, (size - 1) * f.BLOCK, 10)
            assert error.value.errno == errno.EUCLEAN, turn
        disk.fs.volume.readonly = False


def _requests(disk: Disk) -> list[int]:
    """Blocks of each read of the device from now on."""
    found: list[int] = []
    below = disk.counts.read

    def read(start: int, views: Views) -> None:
        found.append(sum(map(len, views)) // f.BLOCK)
        below(start, views)

    disk.counts.read = read  # type: ignore[method-assign]
    return found
