"""The free map and the reference counts against a plain model, through writes, cuts and damage."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from xnfs.disk import freespace
from xnfs.disk.device import MemoryDevice
from xnfs.disk.format import format_image
from xnfs.disk.layout import MapSectorLayout, RefsSectorLayout, Seed
from xnfs.disk.recording import RecordingDevice
from xnfs.disk.records import BLOCK, SECTOR
from xnfs.disk.stacked import CountingDevice, Fault, FaultingDevice
from xnfs.disk.superblock import read_superblock_untrusted
from xnfs.disk.tables import MAX_TOTAL, Tables
from xnfs.errors import CorruptionError, DeviceError, NotFree, Refused

UUID = bytes(range(16))
SEED = Seed(UUID)
BLOCKS = 9000  # three groups, the last one partial


def new_disk(blocks: int = BLOCKS) -> MemoryDevice:
    disk = MemoryDevice(blocks)
    format_image(disk, uuid=UUID, label="", now=0)
    return disk


DISK = new_disk()
G = read_superblock_untrusted(DISK).geometry


def load(disk: MemoryDevice | RecordingDevice) -> Tables:
    return Tables.load(disk, G, SEED)


def fresh() -> Tables:
    return load(DISK.fork())


def write_out(tables: Tables, disk: MemoryDevice | RecordingDevice) -> None:
    for bno in tables.dirty_blocks():
        disk.write(bno, [tables.encode(bno)])
        tables.mark_written(bno)


def sync(tables: Tables, disk: MemoryDevice | RecordingDevice) -> None:
    write_out(tables, disk)
    disk.flush()


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
        assert (list(parsed.counts), parsed.zero) == (want, 0)
        assert parsed.crc == SEED.crc(G.refs_start + 1, bytes([index]), sector[:508])


def test_tables_first_count_makes_the_map_dirty_too() -> None:
    disk = DISK.fork()
    tables = load(disk)
    tables.raise_run(6100, 1)
    sync(tables, disk)
    assert tables.raise_one(6100) == 2
    # R5: a count that the map does not announce would not be read after a cut.
    assert tables.dirty_blocks() == [G.map_start, G.refs_start + 3]
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
    assert tables.dirty_blocks() == [G.map_start]
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
    _reseal_map(disk, 1, flags=16)
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


# --- free space -----------------------------------------------------------------------------


def test_find_free_first_fit_from_the_hint_and_around() -> None:
    tables, start, end = fresh(), G.data_start, G.data_end
    assert tables.find_free(start, 10) == (start, 10)
    assert tables.find_free(5000, 10) == (5000, 10)
    for hint in (0, -9, end, 2**64):
        assert tables.find_free(hint, 3) == (start, 3)
    assert tables.find_free(end - 2, 10) == (start, 10)
    tables.raise_run(start, 5)
    assert tables.find_free(end - 1, 10) == (start + 5, 10)


def test_find_free_run_that_begins_before_the_hint() -> None:
    tables, start, end = fresh(), G.data_start, G.data_end
    tables.raise_run(start, end - start)
    for count in (10, 100):
        tables.lower_run(5000, count)
        assert tables.find_free(5000 + count // 2, count) == (5000, count)
        tables.raise_run(5000, count)


def test_find_free_never_runs_over_the_end() -> None:
    disk = new_disk(BLOCKS + 1)  # so that the data end between two bytes of the map
    g = read_superblock_untrusted(disk).geometry
    tables, start, end = Tables.load(disk, g, SEED), g.data_start, g.data_end
    tables.raise_run(start, end - start)
    tables.lower_one(start)
    tables.lower_run(end - 64, 64)
    for count in (65, 71, 72):
        assert tables.find_free(start, count) == (end - 64, 64)
    assert tables.find_free(start, 60) == (end - 64, 60)


def test_find_free_longest_when_none_fits_and_none_when_full() -> None:
    tables, start, end = fresh(), G.data_start, G.data_end
    tables.raise_run(start, end - start)
    assert tables.find_free(start, 1)[1] == tables.find_free(start, 1000)[1] == 0
    for lo, count in ((3000, 3), (4000, 50), (6000, 20)):
        tables.lower_run(lo, count)
    assert tables.find_free(start, 1000) == (4000, 50)
    assert tables.find_free(4500, 51) == (4000, 50)
    assert tables.find_free(start, 2**60) == (4000, 50)
    for bad in (0, -1):
        with pytest.raises(Refused):
            tables.find_free(start, bad)


def test_find_free_gives_up_after_many_short_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(freespace, "SEARCH_RUNS", 100)
    tables, start, end = fresh(), G.data_start, G.data_end
    tables.raise_run(start, end - start)
    for block in range(start, start + 400, 2):
        tables.lower_one(block)
    tables.lower_run(start + 600, 2)
    assert tables.find_free(start, 2) == (start, 1)
    assert tables.find_free(start + 300, 2) == (start + 600, 2)


def _first_fit(free: list[bool], hint: int, count: int) -> tuple[int, int]:
    """What `find_free` promises, the slow way."""
    lo, hi = G.data_start, G.data_end
    hint = hint if lo <= hint < hi else lo
    best = (hint, 0)
    for a, b in ((hint, hi), (lo, min(hint + count - 1, hi))):
        at = a
        while at < b:
            end = at
            while end < b and free[end] and end - at < count:
                end += 1
            if end - at > best[1]:
                best = (at, end - at)
                if best[1] == count:
                    return best
            at = end + 1 if end == at else end
    return best


@settings(max_examples=200)
@given(
    seed=st.integers(0, 2**32),
    density=st.sampled_from([1, 3, 30, 300]),
    hint=st.integers(0, BLOCKS),
    count=st.sampled_from([1, 2, 7, 31, 32, 33, 40, 64, 100, 1000]),
)
def test_find_free_agrees_with_a_slow_search(
    seed: int, density: int, hint: int, count: int
) -> None:
    rng, tables = random.Random(seed), fresh()
    at = G.data_start
    while at < G.data_end:
        used = min(rng.randint(1, 3 * density), G.data_end - at)
        tables.raise_run(at, used)
        at += used + rng.randint(1, 2 * density)
    free = [tables.total(block) == 0 for block in range(BLOCKS)]
    assert tables.find_free(hint, count) == _first_fit(free, hint, count)


# --- everything at once ---------------------------------------------------------------------


class TablesMachine(RuleBasedStateMachine):
    """Random calls on the tables of a recorded disk, against a dict of totals. What is written
    together is there together after a power cut, or not at all: the log sees to that.

    After a power cut a total that is read back must lie between the lowest and the highest that
    it has had since the last sync (R4, R5: too high is a leak, too low is a loss).
    """

    blocks = st.integers(G.data_start, G.data_start + 40) | st.integers(4020, 4060)
    runs = st.integers(1, 50)

    @initialize()
    def start(self) -> None:
        self.disk = RecordingDevice(DISK.fork())
        self.tables = load(self.disk)
        self.model: dict[int, int] = {}
        self.low: dict[int, int] = {}  # smallest total that a cut may show
        self.high: dict[int, int] = {}
        self.written = [0]  # numbers of events between which all or nothing is there

    def _set(self, block: int, total: int) -> None:
        self.model[block] = total
        self.low[block] = min(self.low.get(block, 0), total)
        self.high[block] = max(self.high.get(block, 0), total)

    @rule(start=blocks, count=runs)
    def raise_run(self, start: int, count: int) -> None:
        run = range(start, start + count)
        if any(self.model.get(b) for b in run):
            with pytest.raises(NotFree):
                self.tables.raise_run(start, count)
        else:
            self.tables.raise_run(start, count)
            for b in run:
                self._set(b, 1)

    @rule(block=blocks)
    def raise_one(self, block: int) -> None:
        self._set(block, self.model.get(block, 0) + 1)
        assert self.tables.raise_one(block) == self.model[block]

    @rule(start=blocks, count=runs)
    def lower_run(self, start: int, count: int) -> None:
        run = range(start, start + count)
        if all(self.model.get(b) for b in run):
            self.tables.lower_run(start, count)
            for b in run:
                self._set(b, self.model[b] - 1)
        else:
            with pytest.raises(Refused):
                self.tables.lower_run(start, count)

    @rule()
    def write(self) -> None:
        for bno in self.tables.dirty_blocks():
            self.disk.write(bno, [self.tables.encode(bno)])
            self.tables.mark_written(bno)
        self.written.append(len(self.disk.events))

    @rule()
    def sync(self) -> None:
        sync(self.tables, self.disk)
        self.low, self.high = dict(self.model), dict(self.model)

    @rule(seed=st.integers(0, 999))
    def cut(self, seed: int) -> None:
        cut = len(self.disk.events)
        there = {e.id for e in self.disk.events[: random.Random(seed).choice(self.written)]}
        keep = [e.id for e in self.disk.pending(cut) if e.id in there]
        self.disk, self.written = RecordingDevice(self.disk.image_at(cut, keep, {})), [0]
        self.tables = load(self.disk)
        for block in self.model:
            total = self.tables.total(block)
            assert self.low.get(block, 0) <= total <= self.high.get(block, 0)
            self.model[block] = total
        self.low, self.high = dict(self.model), dict(self.model)

    @precondition(lambda self: self.tables.dirty_blocks() == [])
    @rule()
    def reload(self) -> None:
        self.tables = load(self.disk)

    @invariant()
    def agrees(self) -> None:
        assert all(self.tables.total(block) == n for block, n in self.model.items())
        used = sum(1 for n in self.model.values() if n)
        assert self.tables.free_blocks == G.data_end - G.data_start - used
        assert sum(self.tables.group_free(g) for g in range(3)) == self.tables.free_blocks
        for block in (G.data_start, 4020):
            shared = any(self.model.get(b, 0) > 1 for b in range(block, block + 100))
            assert self.tables.any_shared(block, 100) == shared


TestTablesMachine = TablesMachine.TestCase
