"""Formatting, and finding the right superblock among two copies, cuts and foreign bytes."""

from __future__ import annotations

import itertools
import os
import time
from dataclasses import replace
from pathlib import Path

import pytest

from xnfs.disk.device import BlockDevice, FileDevice, MemoryDevice, create_image
from xnfs.disk.entries import decode_slots_untrusted
from xnfs.disk.format import format_image
from xnfs.disk.layout import (
    CLEAN,
    DAMAGED,
    ROOTS_TYPE,
    Seed,
    Superblock,
    check_stamp_untrusted,
    encode_superblock,
)
from xnfs.disk.recording import RecordingDevice
from xnfs.disk.records import BLOCK
from xnfs.disk.stacked import CountingDevice
from xnfs.disk.superblock import read_superblock_untrusted, write_superblock
from xnfs.disk.tables import Tables
from xnfs.errors import BadImage, Refused, VersionError

UUID = bytes(range(16))


def formatted(blocks: int = 128, uuid: bytes = UUID) -> MemoryDevice:
    disk = MemoryDevice(blocks)
    format_image(disk, uuid=uuid, label="test", now=7)
    return disk


def read(disk: BlockDevice, bno: int) -> bytes:
    data = bytearray(BLOCK)
    disk.read(bno, [memoryview(data)])
    return bytes(data)


@pytest.mark.parametrize("blocks", [64, 128, 4032, 4033, 8064, 40000])
def test_format_makes_an_empty_image(blocks: int) -> None:
    disk = formatted(blocks)
    sb = read_superblock_untrusted(disk)
    g = sb.geometry
    assert (sb.uuid, sb.label, sb.created, sb.state, sb.seq) == (UUID, "test", 7, CLEAN, 0)
    assert read(disk, 0) == read(disk, blocks - 1)
    tables = Tables.load(disk, g, Seed(UUID))
    assert tables.free_blocks == g.data_end - g.data_start
    assert tables.is_free_run(g.data_start, tables.free_blocks)
    assert tables.total(g.data_start - 1) == tables.total(g.data_end) == 1
    for bno in range(g.roots_start, g.data_start):
        assert check_stamp_untrusted(Seed(UUID), bno, read(disk, bno), 0, ROOTS_TYPE) == 0
        assert not any(decode_slots_untrusted(bno, read(disk, bno)))
    assert disk.is_zero(g.types_start, g.types_blocks)


def test_format_leaves_nothing_of_what_was_there() -> None:
    disk = MemoryDevice(128)
    disk.write(0, [b"\xaa" * (128 * BLOCK)])
    format_image(disk, uuid=UUID, label="", now=0)
    g = read_superblock_untrusted(disk).geometry
    for start, count in (
        *((g.log_start, g.log_blocks), (g.refs_start, g.refs_blocks)),
        (g.types_start, g.types_blocks),
    ):
        assert all(read(disk, bno) == bytes(BLOCK) for bno in range(start, start + count))
    assert Tables.load(disk, g, Seed(UUID)).free_blocks == g.data_end - g.data_start


def test_format_refuses_before_it_destroys() -> None:
    disk = formatted()
    for label, log in (("x" * 65, None), ("ok", 200)):
        with pytest.raises(Refused):
            format_image(disk, uuid=bytes(16), label=label, log_blocks=log, now=0)
    assert read_superblock_untrusted(disk).uuid == UUID
    with pytest.raises(Refused):
        format_image(MemoryDevice(63), uuid=UUID, label="", now=0)


@pytest.mark.parametrize("old", [False, True])
def test_format_cut_anywhere_leaves_no_image_or_a_whole_one(old: bool) -> None:
    below = formatted(128, bytes(16)) if old else MemoryDevice(128)
    disk = RecordingDevice(below)
    format_image(disk, uuid=UUID, label="new", now=0)
    outcomes = set()
    for cut in range(len(disk.events) + 1):
        pending = [event.id for event in disk.pending(cut)]
        subsets = [[], pending, pending[1:], pending[:-1], pending[::2]]
        for keep in subsets:
            outcomes.add(_outcome(disk.image_at(cut, keep)))
    # The old image may be seen only while nothing but its superblocks has been touched.
    assert outcomes <= {"none", "whole new", "whole old"}
    assert {"none", "whole new"} <= outcomes
    assert ("whole old" in outcomes) == old


def _outcome(disk: MemoryDevice) -> str:
    try:
        sb = read_superblock_untrusted(disk)
    except BadImage:
        return "none"
    free = Tables.load(disk, sb.geometry, Seed(sb.uuid)).free_blocks
    whole = free == sb.geometry.data_end - sb.geometry.data_start
    return ("whole " if whole else "broken ") + ("new" if sb.label == "new" else "old")


def test_format_one_tebibyte_is_quick_and_small(tmp_path: Path) -> None:
    path = str(tmp_path / "big.img")
    create_image(path, 1 << 40)
    disk = CountingDevice(FileDevice(path))
    began = time.monotonic()
    format_image(disk, uuid=UUID, label="big", now=0)
    middle = time.monotonic()
    g = read_superblock_untrusted(disk).geometry
    tables = Tables.load(disk, g, Seed(UUID))
    ended = time.monotonic()
    assert tables.free_blocks == g.data_end - g.data_start
    assert disk.counts.blocks_written * BLOCK <= 64 << 20
    assert os.stat(path).st_blocks * 512 <= 64 << 20
    # Ten times what it takes alone: a limit against a wrong order of growth, not a benchmark.
    assert middle - began < 5
    assert ended - middle < 3
    disk.close()


# --- two copies -----------------------------------------------------------------------------


def test_superblock_write_advances_the_generation() -> None:
    disk = formatted()
    first = read_superblock_untrusted(disk)
    second = write_superblock(disk, replace(first, seq=9, state=DAMAGED))
    assert second == replace(first, seq=9, state=DAMAGED, generation=first.generation + 1)
    assert read_superblock_untrusted(disk) == second


@pytest.mark.parametrize("lost", [0, 127])
def test_superblock_either_copy_is_enough(lost: int) -> None:
    disk = formatted()
    want = read_superblock_untrusted(disk)
    disk.write(lost, [b"\x55" * BLOCK])
    assert read_superblock_untrusted(disk) == want


def test_superblock_newer_copy_wins() -> None:
    disk = formatted()
    old = read(disk, 0)
    new = write_superblock(disk, replace(read_superblock_untrusted(disk), seq=5))
    disk.write(0, [old])
    assert read_superblock_untrusted(disk) == new
    disk.write(0, [read(disk, 127)])
    disk.write(127, [old])
    assert read_superblock_untrusted(disk) == new


def test_superblock_copy_wins_a_tie() -> None:
    disk = formatted()
    sb = read_superblock_untrusted(disk)
    disk.write(127, [encode_superblock(replace(sb, seq=3)).ljust(BLOCK, b"\0")])
    assert read_superblock_untrusted(disk).seq == 3


def test_superblock_write_cut_anywhere_gives_old_or_new() -> None:
    disk = RecordingDevice(formatted())
    old = read_superblock_untrusted(disk)
    new = write_superblock(disk, replace(old, seq=77))
    seen = set()
    for cut in range(len(disk.events) + 1):
        pending = [event.id for event in disk.pending(cut)]
        for n in range(len(pending) + 1):
            for keep in itertools.combinations(pending, n):
                for sectors in ([0], [1, 2, 3], range(8)):
                    torn = dict.fromkeys(keep, sectors)
                    seen.add(read_superblock_untrusted(disk.image_at(cut, keep, torn)).seq)
    assert seen == {0, 77}
    assert read_superblock_untrusted(disk.image_at(len(disk.events))) == new


def test_superblock_copies_are_never_in_flight_together() -> None:
    disk = RecordingDevice(formatted())
    write_superblock(disk, read_superblock_untrusted(disk))
    assert [event.block for event in disk.events] == [127, None, 0, None]


def test_superblock_rest_of_an_older_image_is_not_ours() -> None:
    disk = formatted(256, bytes(16))
    stale = encode_superblock(
        replace(read_superblock_untrusted(disk), generation=99, seq=99)
    ).ljust(BLOCK, b"\0")
    ours = formatted(256)
    ours.write(255, [stale])
    assert read_superblock_untrusted(ours).uuid == UUID


def _with(at: int, data: bytes) -> MemoryDevice:
    disk = MemoryDevice(64)
    block = bytearray(b"\x77" * BLOCK)
    block[at : at + len(data)] = data
    disk.write(0, [bytes(block)])
    return disk


@pytest.mark.parametrize(
    ("disk", "message"),
    [
        (MemoryDevice(0), "smaller than one block"),
        (MemoryDevice(64), "all zeros"),
        (_with(1080, b"\x53\xef"), "looks like an ext2, ext3 or ext4"),
        (_with(0, b"\x1f\x8b"), "looks like a gzip file"),
        (_with(510, b"\x55\xaa"), "boot sector or partition table"),
        (_with(0, b""), "no superblock in the first or the last block"),
        (_with(0, b"\x89XNFS\r\n\x1a"), "checksum is wrong, and there is no whole copy"),
    ],
)
def test_superblock_says_what_it_found_instead(disk: MemoryDevice, message: str) -> None:
    with pytest.raises(BadImage, match=message):
        read_superblock_untrusted(disk)


def _shortened(disk: MemoryDevice, blocks: int) -> MemoryDevice:
    short = disk.fork()
    short.blocks = blocks
    return short


def test_superblock_truncated_image_is_named_as_such() -> None:
    with pytest.raises(BadImage, match="truncated: 100 blocks, the superblock says 128"):
        read_superblock_untrusted(_shortened(formatted(), 100))


def test_superblock_larger_device_is_fine() -> None:
    assert read_superblock_untrusted(_shortened(formatted(), 1000)).geometry.blocks == 128


def test_superblock_copy_at_the_wrong_end_is_not_believed() -> None:
    disk = formatted()
    longer = _shortened(disk, 200)
    longer.write(199, [read(disk, 127)])
    longer.write(0, [bytes(BLOCK)])
    with pytest.raises(BadImage):
        read_superblock_untrusted(longer)


@pytest.mark.parametrize("bno", [0, 127])
def test_superblock_newer_version_in_either_copy_refuses(
    bno: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = formatted()
    sb: Superblock = read_superblock_untrusted(disk)
    with monkeypatch.context() as patch:
        patch.setattr("xnfs.disk.layout.VERSION", 4)
        disk.write(bno, [encode_superblock(replace(sb, generation=9)).ljust(BLOCK, b"\0")])
    with pytest.raises(VersionError):
        read_superblock_untrusted(disk)
    disk.write(127 - bno, [bytes(BLOCK)])
    with pytest.raises(VersionError):
        read_superblock_untrusted(disk)
