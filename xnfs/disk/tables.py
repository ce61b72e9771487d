"""The kernel's tables in memory: `total(b)` of DESIGN.md section 4, and the newest version of b.

`Tables` holds the free map, with the reference counts (`numbers.py`) and newest versions
(`versions.py`) beside it, over their areas of the disk. It reads the map when the image is opened.
It never writes: `dirty_blocks`, `encode`, `mark_written` and `placed` let the transaction code
write at a time of its choice. It doesn't know who owns a block, or what is durable; keeping `total`
an upper bound (R1, R4, R5) is up to the callers of raise and lower. The search for free runs is in
`freespace.py`.

Relies on: one caller at a time; a map block that begins to announce numbers is not durable before
them. Guarantees: no count changes if a call raises; the kernel's own areas can neither be raised
nor lowered; damaged sectors never read as free.

Cost: a run of blocks within one group is a few C calls whatever its length. Counts above 1 are
the exception, and a group that never had one (its flags say so) never touches the counts.
"""

from __future__ import annotations

import struct
import zlib
from array import array
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from bitarray import bitarray

from xnfs.disk.device import BlockDevice
from xnfs.disk.freespace import first_fit
from xnfs.disk.layout import COUNTS, GROUP, GROUP_BYTES, SECTORS, U32, Geometry, Seed
from xnfs.disk.numbers import COUNT, VERSION, Numbers, Sector
from xnfs.disk.records import BLOCK, SECTOR
from xnfs.disk.versions import MAP_BITS, MOST_PENDING, Versions
from xnfs.errors import CorruptionError, NotFree, Refused

MAX_TOTAL: Final = 65535

_READ_BLOCKS: Final = 256
_FREE_GROUP: Final = bytes(GROUP_BYTES)
_FULL_GROUP: Final = memoryview(b"\xff" * GROUP_BYTES)
#: Of a map sector: which blocks of numbers of its group hold some. Two of counts, four of versions.
_COUNT_FLAGS: Final = 3
_ALL_FLAGS: Final = 63
_MAP_TAIL: Final = struct.Struct("<II")  # flags (8 bits) and version (24), crc


class Tables:
    """Both tables of one image. Make it with `Tables.load`."""

    def __init__(self, device: BlockDevice, geometry: Geometry, seed: Seed) -> None:
        """All free, nothing dirty: `load` fills it."""
        groups = geometry.groups
        self._device, self._g, self._seed = device, geometry, seed
        self._bytes = bytearray(groups * GROUP_BYTES)
        # The same memory seen as bits and as bytes: long free runs are runs of zero bytes, and
        # bytearray.find sees those about a hundred times faster than bitarray.find.
        self._bits = bitarray(buffer=self._bytes, endian="little")
        self._flags = bytearray(groups)
        self._crcs = array("I", bytes(4 * groups))
        self._map_versions = array("I", bytes(4 * geometry.map_blocks))
        self._group_free = array("H", bytes(2 * groups))
        self._stale: set[Sector] = set()  # changed since last encoded
        self._unwritten: set[int] = set()  # encoded, but not yet written
        self._damaged: set[Sector] | None = None
        self._numbers = Numbers(
            *(device, geometry, seed, self._flags, self._announce, self._lag, self._stale)
        )
        self.versions = Versions(self._numbers)
        self.free_blocks = 0

    # --- loading ----------------------------------------------------------------------------

    @classmethod
    def load(
        cls,
        device: BlockDevice,
        geometry: Geometry,
        seed: Seed,
        damaged: set[Sector] | None = None,
        versions: Mapping[int, int] | None = None,
    ) -> Tables:
        """Read the free map. `versions`: newest ones that only the log has. Raises CorruptionError,
        DeviceError.

        With `damaged` (for fsck) bad sectors are added to it, now and when numbers are read later:
        their blocks then are in use, with the highest count, so that nothing in them is lent out,
        and no version of them is known.
        """
        tables = cls(device, geometry, seed)
        tables._damaged = damaged
        tables.versions.pending.update(versions or {})
        if damaged is not None:
            tables._numbers.damaged = damaged
            tables._numbers.guessed = lambda group: tables._map_sector(group) in damaged
        tables._load_map_untrusted()
        return tables

    def _load_map_untrusted(self) -> None:
        start, count = self._g.map_start, self._g.map_blocks
        buffer = memoryview(bytearray(min(count, _READ_BLOCKS) * BLOCK))
        for at in range(start, start + count, _READ_BLOCKS):
            size = min(_READ_BLOCKS, start + count - at) * BLOCK
            self._device.read(at, [buffer[:size]])
            for bno in range(at, at + size // BLOCK):
                offset = (bno - at) * BLOCK
                self._load_map_block_untrusted(bno, buffer[offset : offset + BLOCK])
        self._check_areas_untrusted()
        for index, seq in enumerate(self._map_versions):
            self._check_map_version_untrusted(start + index, seq)
        self.free_blocks = sum(self._group_free)

    def _load_map_block_untrusted(self, bno: int, raw: memoryview) -> None:
        first = (bno - self._g.map_start) * SECTORS
        for index in range(min(SECTORS, self._g.groups - first)):
            group, at = first + index, index * SECTOR
            bits = raw[at : at + GROUP_BYTES]
            tail, got = _MAP_TAIL.unpack_from(raw, at + GROUP_BYTES)
            flags, seq = tail & 255, tail >> 8
            want = zlib.crc32(raw[at : at + SECTOR - 4], self._seed.sector(bno, index))
            if got != want or flags > _ALL_FLAGS:
                self._damage(bno, index, "checksum or flags", (got, flags), (want, _ALL_FLAGS))
                bits, flags = _FULL_GROUP, _ALL_FLAGS
            self._bytes[group * GROUP_BYTES : (group + 1) * GROUP_BYTES] = bits
            self._flags[group], self._crcs[group] = flags, want
            if not index:
                self._map_versions[first // SECTORS] = seq
            self._group_free[group] = GROUP if bits == _FREE_GROUP else self._count_free(group)

    def _check_map_version_untrusted(self, bno: int, seq: int) -> None:
        """An older version of a map block calls blocks free that are not."""
        if lag := self.versions.lag(bno, seq, MAP_BITS):
            first = (bno - self._g.map_start) * SECTORS
            for index in range(min(SECTORS, self._g.groups - first)):
                self._damage(bno, index, "version", seq, f"{seq + lag} or later")
                group = first + index
                self._bytes[group * GROUP_BYTES : (group + 1) * GROUP_BYTES] = _FULL_GROUP
                self._flags[group], self._group_free[group] = _ALL_FLAGS, 0

    def _count_free(self, group: int) -> int:
        return self._bits.count(0, group * GROUP, (group + 1) * GROUP)

    def _check_areas_untrusted(self) -> None:
        """The kernel's blocks and those past the end must be in use; make it so in any case."""
        for lo, hi in self._outside():
            while (bad := self._bits.find(0, lo, hi)) >= 0:
                group = bad // GROUP
                self._damage(*self._map_sector(group), f"map bit of block {bad}", 0, 1)
                self._bits[bad : min(hi, (group + 1) * GROUP)] = 1
                self._group_free[group] = self._count_free(group)

    def _outside(self) -> tuple[tuple[int, int], tuple[int, int]]:
        """The ranges of bits that aren't data blocks."""
        return (0, self._g.data_start), (self._g.data_end, len(self._bits))

    def _damage(self, bno: int, index: int, field: str, got: object, want: object) -> None:
        if self._damaged is None:
            raise CorruptionError(bno, f"sector {index}: {field}", got, want)
        self._damaged.add((bno, index))
        # What replaces it in memory is an upper bound, so it may go to the disk.
        self._stale.add((bno, index))

    def _map_sector(self, group: int) -> Sector:
        return self._g.map_start + group // SECTORS, group % SECTORS

    def _announce(self, group: int) -> None:
        self._stale.add(self._map_sector(group))

    def _lag(self, block: int, seq: int) -> int:
        return self.versions.lag(block, seq)

    @classmethod
    def fresh(cls, device: BlockDevice, geometry: Geometry, seed: Seed) -> Tables:
        """The tables of a new image: all data blocks free, the whole map still to be written."""
        tables = cls(device, geometry, seed)
        for lo, hi in tables._outside():
            tables._bits[lo:hi] = 1
        for group in range(geometry.groups):
            tables._group_free[group] = tables._count_free(group)
            tables._stale.add(tables._map_sector(group))
        tables.free_blocks = sum(tables._group_free)
        return tables

    # --- totals -----------------------------------------------------------------------------

    def total(self, block: int) -> int:
        """Upper bound of the durable pointers to the block and of those in memory; 0 = free."""
        if not 0 <= block < self._g.blocks:
            raise Refused(f"block {block} is outside the image")
        if not self._bits[block]:
            return 0
        if not self._flags[block // GROUP] & _COUNT_FLAGS:
            return 1
        return self._numbers.get(COUNT, block) or 1

    def in_use(self, start: int, count: int) -> bool:
        """True if the run lies in the data area and none of it is free."""
        return self._g.in_data(start, count) and self._bits.find(0, start, start + count) < 0

    def snapshot(self) -> bitarray:
        """A copy of the map: bit i = block i is in use."""
        return bitarray(self._bits)

    def any_shared(self, start: int, count: int) -> bool:
        """True if a block of the run has a total above 1."""
        if not (start >= 0 and count > 0 and start + count <= self._g.blocks):
            raise Refused(f"blocks {start}..{start + count - 1} are outside the image")
        return any(self._bits[block] for block, _count in self._shared(start, start + count))

    def is_free_run(self, start: int, count: int) -> bool:
        """True if the run lies in the data area and all of it is free."""
        return self._g.in_data(start, count) and self._bits.find(1, start, start + count) < 0

    def raise_run(self, start: int, count: int) -> None:
        """Take free blocks into use, 0 -> 1. Raises NotFree."""
        if not self.is_free_run(start, count):
            raise NotFree(f"blocks {start}..{start + count - 1} are not all free data blocks")
        # A cut between the writes of the two tables can leave a count over a free block.
        for block, _count in self._shared(start, start + count):
            self._set_count(block, 0)
        self._bits[start : start + count] = 1
        self._account(start, start + count, -1)

    def raise_one(self, block: int) -> int:
        """One owner more. Returns the new total. Raises Refused: at the limit, outside the data."""
        self._check_data(block, 1)
        if not self._bits[block]:
            self.raise_run(block, 1)
            return 1
        total = self.total(block) + 1
        if total > MAX_TOTAL:
            raise Refused(f"block {block} has {MAX_TOTAL} owners already")
        self._set_count(block, total)
        return total

    def lower_run(self, start: int, count: int) -> None:
        """One owner less for each block of the run. Raises Refused if one of them is free."""
        self._check_data(start, count)
        if self._bits.find(0, start, start + count) >= 0:
            raise Refused(f"blocks {start}..{start + count - 1}: one of them is free already")
        at = start
        # Reads every count that is needed, so nothing below can fail half-way.
        for block, value in self._shared(start, start + count):
            self._set_count(block, value - 1)
            self._release(at, block)
            at = block + 1
        self._release(at, start + count)

    def lower_one(self, block: int) -> int:
        """One owner less. Returns the new total. Raises Refused if the block is free."""
        self.lower_run(block, 1)
        return self.total(block)

    def set_total(self, block: int, total: int) -> None:
        """For fsck alone: make the total what a walk from the roots has found."""
        self._check_data(block, 1)
        if not 0 <= total <= MAX_TOTAL:
            raise Refused(f"block {block} can't have {total} owners")
        if total > 1 or self.total(block) > 1:
            self._set_count(block, total)
        if bool(total) != self._bits[block]:
            self._bits[block] = bool(total)
            self._account(block, block + 1, -1 if total else 1)

    def shared(self, start: int, count: int) -> list[tuple[int, int]]:
        """(block, count) of the blocks of a run whose count is above 1, also of free ones."""
        return self._shared(start, start + count)

    def _check_data(self, start: int, count: int) -> None:
        if not self._g.in_data(start, count):
            raise Refused(f"blocks {start}..{start + count - 1} are not in the data area")

    def _release(self, start: int, end: int) -> None:
        if start < end:
            self._bits[start:end] = 0
            self._account(start, end, 1)

    def _account(self, start: int, end: int, sign: int) -> None:
        """The run has changed as a whole: adjust the counters, note the sectors."""
        self.free_blocks += sign * (end - start)
        while start < end:
            group = start // GROUP
            stop = min(end, (group + 1) * GROUP)
            self._group_free[group] += sign * (stop - start)
            self._stale.add(self._map_sector(group))
            start = stop

    # --- reference counts -------------------------------------------------------------------

    def _set_count(self, block: int, value: int) -> None:
        self._numbers.put(COUNT, block, value if value > 1 else 0)

    def _shared(self, start: int, end: int) -> list[tuple[int, int]]:
        """(block, count) of the blocks in [start, end) whose count is above 1."""
        out: list[tuple[int, int]] = []
        for group in range(start // GROUP, (end - 1) // GROUP + 1):
            if self._flags[group] & _COUNT_FLAGS:
                lo, hi = max(start, group * GROUP), min(end, (group + 1) * GROUP)
                for sector in range(lo // COUNTS, (hi - 1) // COUNTS + 1):
                    out += self._shared_in(sector, lo, hi)
        return out

    def _shared_in(self, sector: int, lo: int, hi: int) -> list[tuple[int, int]]:
        """The same for one sector of the counts."""
        first = sector * COUNTS
        counts = self._numbers.sector(COUNT, first)
        if not counts or max(counts) <= 1:
            return []
        return [
            (b, counts[b - first])
            for b in range(max(lo, first), min(hi, first + COUNTS))
            if counts[b - first] > 1
        ]

    def count_is_damaged(self, block: int) -> bool:
        """For fsck: what the block counts, nobody knows."""
        return self._numbers.is_damaged(COUNT, block)

    # --- writing ----------------------------------------------------------------------------

    def dirty_blocks(self, stamped: Iterable[int] | None = ()) -> list[int]:
        """The device blocks of the tables that differ from the disk, in ascending order. With None
        those of pending versions are left out; else also those of these blocks, which will be.
        """
        dirty = {bno for bno, _index in self._stale} | self._unwritten
        if stamped is not None:
            for bno, blocks in self.versions.homes(stamped).items():
                dirty.add(bno)
                if self._numbers.unannounced(VERSION, blocks[0]):
                    dirty.add(self._map_sector(blocks[0] // GROUP)[0])
        return sorted(dirty)

    def due(self, fresh: Sequence[int]) -> tuple[list[int], int]:
        """The blocks of the tables for a transaction that writes these fresh blocks of metadata in
        place, and how many new versions that leaves for the log to list.
        """
        left = len(self.versions.pending) + len(fresh)
        if left > MOST_PENDING:
            return self.dirty_blocks(fresh), 0
        return self.dirty_blocks(None), left

    def due_at_most(self, fresh: int) -> int:
        """No less than what `due` says of so many blocks: of tables and versions together."""
        left = len(self.versions.pending) + fresh
        return len(self._stale) + len(self._unwritten) + 2 * left

    @property
    def first_written(self) -> set[int]:
        """Dirty blocks that the host may not have room for: so far they are holes in the image, and
        no flag in the map says that they hold anything.
        """
        return self._numbers.first

    def has_version(self, block: int) -> bool:
        """True of all blocks of the tables but those of the versions."""
        return self._g.is_versioned_table(block)

    def encode(self, block: int, seq: int | None = None) -> bytes:
        """The 4096 bytes to write to device block `block` now. Blocks of numbers come before those
        of the map, which they may change. `seq`: of the transaction that writes it; without one, as
        before. Raises CorruptionError, DeviceError.
        """
        if not self.has_version(block):
            self.versions.move(block)
        elif seq is None:
            seq = self.versions.newest(block)
        stale = [index for index in range(SECTORS) if (block, index) in self._stale]
        if block >= self._g.refs_start:
            out = self._numbers.encode(block, stale, seq)
        else:
            out = self._encode_map(block, stale, (seq or 0) % (1 << MAP_BITS))
        self._stale.difference_update([(block, index) for index in stale])
        if stale:
            self._unwritten.add(block)
        return out

    def _encode_map(self, block: int, stale: list[int], seq: int) -> bytes:
        first = (block - self._g.map_start) * SECTORS
        changed = self._map_versions[first // SECTORS] != seq
        self._map_versions[first // SECTORS] = seq
        out: list[bytes | memoryview] = []
        view = memoryview(self._bytes)
        for index in range(min(SECTORS, self._g.groups - first)):
            group = first + index
            bits = view[group * GROUP_BYTES : (group + 1) * GROUP_BYTES]
            flags = self._flags[group] | (0 if index else seq << 8)
            if index in stale or (changed and not index):
                crc = zlib.crc32(bits, self._seed.sector(block, index))
                self._crcs[group] = zlib.crc32(U32.pack(flags), crc)
            out += [bits, _MAP_TAIL.pack(flags, self._crcs[group])]
        return b"".join(out).ljust(BLOCK, b"\0")

    def mark_written(self, block: int) -> None:
        """The bytes that `encode` gave last are written, or in the log. Later changes keep the
        block dirty."""
        self._unwritten.discard(block)
        self._numbers.mark_written(block)
        if not self.has_version(block):
            self.versions.mark_written(block)

    def placed(self) -> None:
        """All that was marked as written is where it belongs."""
        self._numbers.placed(self._unwritten)

    # --- free space -------------------------------------------------------------------------

    def group_free(self, group: int) -> int:
        """Free blocks among the 4032 of this group."""
        if not 0 <= group < self._g.groups:
            raise Refused(f"there is no group {group}")
        return self._group_free[group]

    def find_free(self, hint: int, count: int) -> tuple[int, int]:
        """First fit from `hint` on, wrapping around: (start, count), or the longest run seen.

        (start, 0) if the image is full. On a badly fragmented disk not every run is looked at.
        """
        if count <= 0:
            raise Refused(f"a run of {count} blocks")
        return first_fit(self._bits, self._bytes, self._g.data_start, self._g.data_end, hint, count)
