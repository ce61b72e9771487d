"""The free map and the reference counts: single calls, writing, reading, damage."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.disk.tables_kit import (
    BLOCKS,
    DISK,
    SEED,
    G,
    fresh,
    load,
    sync,
)
from xnfs.disk.device import MemoryDevice
from xnfs.disk.layout import MapSectorLayout, RefsSectorLayout
from xnfs.disk.records import BLOCK, SECTOR
from xnfs.disk.stacked import CountingDevice, Fault, FaultingDevice
from xnfs.disk.tables import MAX_TOTAL, Tables
from xnfs.errors import CorruptionError, DeviceError, NotFree, Refused

# --- one call at a time ---------------------------------------------------------------------


def test_tables_raise_and_lower_a_run_over_groups() -> None:
    tables = fresh()
    before = [tables.group_free(group) for group in range(3)]
    start, count = 4000, 4096
    tables.raise_run(start, count)
    assert [tables.total(b) for b in (3999, 4000, 8095, 8096)] == [0, 1, 1, 0]
    assert [before[g] - tables.group_free(g) for g in range(3)] == [32, 4032, 32]
    assert sum(before) - tables.free_blocks == count
    tables.lower_run(start, count)
    assert [tables.group_free(group) for group in range(3)] == before
    assert tables.free_blocks == sum(before)


def test_tables_raise_run_takes_free_data_blocks_only() -> None:
    tables, start = fresh(), G.data_start
    tables.raise_run(start + 5, 1)
    before = tables.free_blocks
    for lo, count in (
        *((start, 6), (start + 5, 1), (start - 1, 2), (G.data_end - 1, 2), (G.data_end, 1)),
        *((0, 1), (start, 0), (start, -1), (-5, 3), (2**63, 1), (start, 2**63)),
    ):
        assert not tables.is_free_run(lo, count)
        with pytest.raises(NotFree):
            tables.raise_run(lo, count)
    assert tables.free_blocks == before


def test_tables_lower_refuses_what_is_free_or_the_kernels() -> None:
    tables, start = fresh(), G.data_start
    tables.raise_run(start, 4)
    for lo, count in (
        *((start, 5), (start + 4, 1), (start - 1, 1), (0, 1), (G.data_end, 1), (BLOCKS + 9, 1)),
        *((-1, 1), (start, 0), (start, -1)),
    ):
        with pytest.raises(Refused):
            tables.lower_run(lo, count)
    assert [tables.total(start + i) for i in range(5)] == [1, 1, 1, 1, 0]
    for block in (-1, BLOCKS, 2**64):
        with pytest.raises(Refused):
            tables.total(block)
        with pytest.raises(Refused):
            tables.raise_one(block)
        with pytest.raises(Refused):
            tables.any_shared(block, 1)
    with pytest.raises(Refused):
        tables.raise_one(G.data_end)


def test_tables_kernel_blocks_are_in_use() -> None:
    tables = fresh()
    assert all(tables.total(b) == 1 for b in (*range(G.data_start), BLOCKS - 1))


def test_tables_counts_go_up_and_down() -> None:
    tables, block = fresh(), G.data_start + 7
    assert [tables.raise_one(block) for _ in range(4)] == [1, 2, 3, 4]
    assert tables.any_shared(block - 3, 8)
    assert not tables.any_shared(block + 1, 500)
    tables.raise_run(block + 1, 1)
    tables.lower_run(block, 2)
    assert (tables.total(block), tables.total(block + 1)) == (3, 0)
    assert [tables.lower_one(block) for _ in range(3)] == [2, 1, 0]
    assert tables.is_free_run(block, 2)
    assert not tables.any_shared(block, 1)


def test_tables_count_stops_at_the_limit() -> None:
    tables, block = fresh(), G.data_start
    tables.set_total(block, MAX_TOTAL - 1)
    assert tables.raise_one(block) == MAX_TOTAL
    with pytest.raises(Refused, match="65535 owners already"):
        tables.raise_one(block)
    assert tables.total(block) == MAX_TOTAL


def test_tables_groups_are_bounded() -> None:
    tables = fresh()
    for group in (-1, 3):
        with pytest.raises(Refused):
            tables.group_free(group)


def test_tables_set_total_any_to_any() -> None:
    tables, block = fresh(), G.data_start + 1
    free = tables.free_blocks
    for total in (0, 1, 5, 0, 2, 1, 1, 0):
        tables.set_total(block, total)
        assert tables.total(block) == total
        assert tables.free_blocks == free - bool(total)
    for bad in (-1, MAX_TOTAL + 1):
        with pytest.raises(Refused):
            tables.set_total(block, bad)


# --- writing --------------------------------------------------------------------------------


def test_tables_nothing_dirty_after_load() -> None:
    assert fresh().dirty_blocks() == []


def test_tables_dirty_until_written() -> None:
    disk = DISK.fork()
    tables = load(disk)
    tables.raise_run(4032, 1)
    assert tables.dirty_blocks() == [G.map_start]
    raw = tables.encode(G.map_start)
    assert tables.dirty_blocks() == [G.map_start]
    tables.mark_written(G.map_start)
    assert tables.dirty_blocks() == []
    parsed = MapSectorLayout.parse(raw[SECTOR : 2 * SECTOR])
    assert parsed.bits == b"\x01" + bytes(503)
    assert parsed.crc == SEED.crc(G.map_start, b"\x01", raw[SECTOR : 2 * SECTOR - 4])


def test_tables_change_after_encode_keeps_the_block_dirty() -> None:
    tables = fresh()
    tables.raise_run(G.data_start, 1)
    tables.encode(G.map_start)
    tables.raise_run(G.data_start + 1, 1)
    tables.mark_written(G.map_start)
    assert tables.dirty_blocks() == [G.map_start]


def test_tables_encode_changes_only_the_sectors_that_changed() -> None:
    disk = DISK.fork()
    tables = load(disk)
    tables.raise_run(5000, 10)
    old, new = bytearray(BLOCK), tables.encode(G.map_start)
    disk.read(G.map_start, [memoryview(old)])
    changed = [i for i in range(8) if old[i * 512 : i * 512 + 512] != new[i * 512 : i * 512 + 512]]
    assert changed == [1]


def test_tables_refs_sector_as_declared() -> None:
    tables, block = fresh(), 2016 + 252 * 3 + 5
    for _ in range(7):
        tables.raise_one(block)
    assert tables.dirty_blocks() == [G.map_start, G.refs_start + 1]
    raw = tables.encode(G.refs_start + 1)
    for index in range(8):
        sector = raw[index * SECTOR : (index + 1) * SECTOR]
        parsed = RefsSectorLayout.parse(sector)
        want = [7 if index == 3 and i == 5 else 0 for i in range(252)]
        assert (list(parsed.counts), parsed.version) == (want, 0)
        assert parsed.crc == SEED.crc(G.refs_start + 1, bytes([index]), sector[:508])


def test_tables_first_count_makes_the_map_dirty_too() -> None:
    disk = DISK.fork()
    tables = load(disk)
    tables.raise_run(6100, 1)
    sync(tables, disk)
    assert tables.raise_one(6100) == 2
    # R5: a count that the map does not announce would not be read after a cut.
    assert tables.dirty_blocks() == [G.map_start, G.refs_start + 7]
    sync(tables, disk)
    assert load(disk).total(6100) == 2


# --- reading --------------------------------------------------------------------------------


def test_tables_counts_are_read_only_where_there_may_be_some() -> None:
    disk = DISK.fork()
    tables = load(disk)
    tables.set_total(3000, 3)
    sync(tables, disk)
    sync(tables, disk)
    counting = CountingDevice(disk)
    again = Tables.load(counting, G, SEED)
    after_load = counting.counts.reads
    again.raise_run(5000, 100)
    again.lower_run(5000, 100)
    assert again.total(1999) == 0
    assert counting.counts.reads == after_load
    assert [again.total(3000) for _ in range(3)] == [3] * 3
    assert counting.counts.reads == after_load + 1


@given(group=st.integers(0, 2), at=st.integers(0, SECTOR - 1), bit=st.integers(0, 7))
def test_tables_any_flipped_bit_of_the_map_is_seen(group: int, at: int, bit: int) -> None:
    disk = DISK.fork()
    faulty = FaultingDevice(
        disk, Fault("read", "flip", block=G.map_start, bit=(group * SECTOR + at) * 8 + bit)
    )
    with pytest.raises(CorruptionError, match=f"block {G.map_start}: sector {group}"):
        Tables.load(faulty, G, SEED)


def test_tables_damaged_map_sector_is_all_in_use_for_fsck() -> None:
    disk = DISK.fork()
    faulty = FaultingDevice(disk, Fault("read", "flip", block=G.map_start, bit=SECTOR * 8))
    damaged: set[tuple[int, int]] = set()
    tables = Tables.load(faulty, G, SEED, damaged)
    assert damaged == {(G.map_start, 1)}
    assert tables.group_free(1) == 0
    assert tables.total(5000) == 1
    assert tables.find_free(5000, 1) == (8064, 1)
    # and the counts, which nobody had written, now that the flags announce them
    assert tables.dirty_blocks() == [G.map_start, G.refs_start + 6]
    sync(tables, disk)
    assert load(disk).group_free(1) == 0


def _reseal_map(disk: MemoryDevice, group: int, **fields: int | bytes) -> None:
    """Change a sector of the map and make its checksum right again."""
    raw, at = bytearray(BLOCK), group * SECTOR
    disk.read(G.map_start, [memoryview(raw)])
    parsed = MapSectorLayout.parse(raw[at : at + SECTOR])
    parsed.update(fields)
    sector = MapSectorLayout.build(parsed)
    parsed.crc = SEED.crc(G.map_start, bytes([group]), sector[:508])
    raw[at : at + SECTOR] = MapSectorLayout.build(parsed)
    disk.write(G.map_start, [bytes(raw)])


@pytest.mark.parametrize(("group", "block"), [(0, 0), (2, BLOCKS - 1)])
def test_tables_map_that_calls_the_kernels_blocks_free_is_damage(group: int, block: int) -> None:
    disk = DISK.fork()
    _reseal_map(disk, group, bits=bytes(504))
    with pytest.raises(CorruptionError, match=f"map bit of block {block}"):
        load(disk)
    damaged: set[tuple[int, int]] = set()
    tables = Tables.load(disk, G, SEED, damaged)
    assert damaged == {(G.map_start, group)}
    assert tables.total(block) == 1
    with pytest.raises(NotFree):
        tables.raise_run(block, 1)
    assert tables.free_blocks == sum(tables.group_free(g) for g in range(3))


def test_tables_unknown_flags_are_damage() -> None:
    disk = DISK.fork()
    _reseal_map(disk, 1, flags=64)
    with pytest.raises(CorruptionError, match="sector 1"):
        load(disk)


def _with_count(disk: MemoryDevice) -> None:
    tables = load(disk)
    tables.set_total(3000, 3)
    sync(tables, disk)
    sync(tables, disk)


def test_tables_damaged_counts_are_seen_and_never_low() -> None:
    disk = DISK.fork()
    _with_count(disk)
    spoilt = bytearray(BLOCK)
    disk.read(G.refs_start + 1, [memoryview(spoilt)])
    spoilt[3 * SECTOR + 1] ^= 1
    disk.write(G.refs_start + 1, [bytes(spoilt)])
    tables = load(disk)
    for act in (tables.total, tables.raise_one, tables.lower_one):
        with pytest.raises(CorruptionError, match="sector 3"):
            act(3000)
    damaged: set[tuple[int, int]] = set()
    tolerant = Tables.load(disk, G, SEED, damaged)
    assert tolerant.total(3000) == MAX_TOTAL
    assert damaged == {(G.refs_start + 1, 3)}


def test_tables_zero_sector_is_damage_while_in_use() -> None:
    disk = DISK.fork()
    _with_count(disk)
    disk.write(G.refs_start + 1, [bytes(BLOCK)])
    with pytest.raises(CorruptionError, match="sector 0: checksum"):
        load(disk).total(3000)
    _reseal_map(disk, 0, flags=0)
    assert load(disk).total(3000) == 1


def test_tables_count_over_a_free_block_means_nothing() -> None:
    disk = DISK.fork()
    _with_count(disk)
    raw = bytearray(BLOCK)
    disk.read(G.map_start, [memoryview(raw)])
    bits = bytearray(raw[:504])
    bits[3000 // 8] &= ~(1 << 3000 % 8)
    _reseal_map(disk, 0, bits=bytes(bits))
    tables = load(disk)
    assert tables.total(3000) == 0
    assert not tables.any_shared(3000, 1)
    tables.raise_run(2990, 20)
    assert tables.total(3000) == 1


def test_tables_failed_read_changes_nothing() -> None:
    disk = DISK.fork()
    _with_count(disk)
    first = load(disk)
    first.raise_run(3001, 5)
    sync(first, disk)
    faulty = FaultingDevice(disk)
    tables = Tables.load(faulty, G, SEED)
    faulty.plant(Fault("read", "eio", sticky=True))
    before = tables.free_blocks
    for act in (
        *(lambda: tables.lower_run(3000, 6), lambda: tables.raise_one(3001)),
        *(lambda: tables.raise_run(2990, 5), lambda: tables.lower_one(3000)),
    ):
        with pytest.raises(DeviceError):
            act()
    faulty.faults.clear()
    assert tables.free_blocks == before
    assert tables.dirty_blocks() == []
    assert [tables.total(b) for b in (2990, 3000, 3001)] == [0, 3, 1]
