"""Two numbers for each block, beside the free map: its owners, and its newest version.

    count      u16: owners, where there is more than one
    version    u32: the low half of `seq` in the stamp of the newest version, or of an older one

They are read when first asked for. Which blocks of them were ever written, the flags of a group in
the free map say; the others are zeros, whatever stands on the disk, so a new image need not have
them. What the numbers mean is up to `tables.py`; when they are written, to the transaction code.

Relies on: one caller at a time. Guarantees: a damaged sector is never believed. Memory is bounded:
blocks that the disk has as they are here are forgotten, the oldest first.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterable
from typing import Final, NamedTuple

from xnfs.disk.device import BlockDevice
from xnfs.disk.geometry import COUNT_BLOCKS
from xnfs.disk.layout import (
    COUNTS,
    GROUP,
    NUMBER_BLOCKS,
    SECTORS,
    U16,
    U32,
    VERSIONS,
    Geometry,
    Seed,
)
from xnfs.disk.records import BLOCK, SECTOR
from xnfs.errors import CorruptionError


class Column(NamedTuple):
    """Where numbers of one kind lie: from which block of the six of a group on; in a sector."""

    first: int
    each: int
    number: struct.Struct
    sector: struct.Struct


COUNT: Final = Column(0, COUNTS, U16, struct.Struct(f"<{COUNTS}H"))
VERSION: Final = Column(COUNT_BLOCKS, VERSIONS, U32, struct.Struct(f"<{VERSIONS}I"))
#: Where a block of counts has the low half of its own version.
OWN_VERSION: Final = SECTOR - 8
#: So many blocks of numbers are kept, and those that are dirty: 8 MiB.
MAX_KEPT: Final = 2048

#: (device block, sector in it)
Sector = tuple[int, int]


def place(column: Column, block: int) -> tuple[int, int]:
    """(block of the area, offset in it) of a block's number."""
    group, inside = divmod(block, GROUP)
    sector, entry = divmod(inside, column.each)
    table = group * NUMBER_BLOCKS + column.first + sector // SECTORS
    return table, sector % SECTORS * SECTOR + entry * column.number.size


def column_of(table: int) -> Column:
    """What a block of the area holds."""
    return COUNT if table % NUMBER_BLOCKS < VERSION.first else VERSION


class Numbers:
    """Counts and versions of one image.

    `flags`: those of each group, shared with the map; `announce`: told of a group whose flags have
    changed; `lag`: how far a block with some version is behind the newest one; `stale`: sectors
    that changed since they were last encoded, also those of the map.
    """

    def __init__(
        self,
        device: BlockDevice,
        geometry: Geometry,
        seed: Seed,
        flags: bytearray,
        announce: Callable[[int], None],
        lag: Callable[[int, int], int],
        stale: set[Sector],
    ) -> None:
        self._device, self._start, self._seed = device, geometry.refs_start, seed
        self._flags, self._announce, self._stale = flags, announce, stale
        self._lag = lag
        self._blocks: dict[int, bytearray] = {}  # by number in the area, in the disk's form
        self._unplaced: set[int] = set()  # may be newer here than where they belong
        #: device blocks that hold numbers for the first time, and are not written yet
        self.first: set[int] = set()
        #: for fsck: bad sectors are added, and not refused
        self.damaged: set[Sector] | None = None
        #: for fsck: tells whether the flags of a group are a guess
        self.guessed: Callable[[int], bool] = lambda group: False

    def get(self, column: Column, block: int) -> int:
        """The number of a block. Raises CorruptionError, DeviceError."""
        table, at = place(column, block)
        if not self._used(table):
            return 0
        value: int = column.number.unpack_from(self._block(table), at)[0]
        return value

    def put(self, column: Column, block: int, value: int) -> None:
        """Change a number. Raises CorruptionError, DeviceError."""
        table, at = place(column, block)
        raw = self._block(table)
        if not self._used(table):
            self._flags[table // NUMBER_BLOCKS] |= 1 << table % NUMBER_BLOCKS
            self.first.add(self._start + table)
            self._announce(table // NUMBER_BLOCKS)
        column.number.pack_into(raw, at, value)
        self._stale.add((self._start + table, at // SECTOR))

    def sector(self, column: Column, block: int) -> tuple[int, ...]:
        """The numbers of the sector that begins with this block's, or () if all are 0."""
        table, at = place(column, block)
        return column.sector.unpack_from(self._block(table), at) if self._used(table) else ()

    def is_damaged(self, column: Column, block: int) -> bool:
        """For fsck: the number was not readable, or never was one."""
        table, at = place(column, block)
        sector = self._start + table, at // SECTOR
        return self.guessed(table // NUMBER_BLOCKS) or sector in (self.damaged or ())

    def home(self, column: Column, block: int) -> int:
        """The device block with the number of this block."""
        return self._start + place(column, block)[0]

    def unannounced(self, column: Column, block: int) -> bool:
        """True if no flag in the map says that the device block with this number holds any."""
        return not self._used(place(column, block)[0])

    def _used(self, table: int) -> int:
        return self._flags[table // NUMBER_BLOCKS] & 1 << table % NUMBER_BLOCKS

    # --- reading

    def _block(self, table: int) -> bytearray:
        raw = self._blocks.get(table)
        if raw is None:
            raw = bytearray(BLOCK)
            if self._used(table):
                self._device.read(self._start + table, [memoryview(raw)])
            for index in range(SECTORS):
                body = memoryview(raw)[index * SECTOR : (index + 1) * SECTOR]
                self._check_sector_untrusted(table, index, body)
            if self._used(table) and column_of(table) is COUNT:
                self._check_version_untrusted(table, raw)
            if len(self._blocks) >= MAX_KEPT:
                self._forget()
            self._blocks[table] = raw
        return raw

    def _check_sector_untrusted(self, table: int, index: int, sector: memoryview) -> None:
        bno = self._start + table
        crc = zlib.crc32(sector[:-4], self._seed.sector(bno, index))
        (got,) = U32.unpack_from(sector, SECTOR - 4)
        if got != crc and self._used(table):
            if self.guessed(table // NUMBER_BLOCKS) and not any(sector):
                # Nobody knows what a damaged flag said: zeros then are numbers that were never
                # written. They are to be, since the flag will say that they were.
                self._stale.add((bno, index))
            else:
                self._damage(bno, index, "checksum", got, crc)
                self._spoil(bno, index, sector)
                return
        U32.pack_into(sector, SECTOR - 4, crc)

    def _check_version_untrusted(self, table: int, raw: bytearray) -> None:
        """An older version of a block of counts has too few owners."""
        bno, (seq,) = self._start + table, U32.unpack_from(raw, OWN_VERSION)
        if lag := self._lag(bno, seq):
            for index in range(SECTORS):
                self._damage(bno, index, "version", seq, f"{seq + lag} or later")
                self._spoil(bno, index, memoryview(raw)[index * SECTOR : (index + 1) * SECTOR])

    def _damage(self, bno: int, index: int, field: str, got: object, want: object) -> None:
        if self.damaged is None:
            raise CorruptionError(bno, f"sector {index}: {field}", got, want)
        self.damaged.add((bno, index))
        self._stale.add((bno, index))

    def _spoil(self, bno: int, index: int, sector: memoryview) -> None:
        """Counts become an upper bound, versions a lower one, so they may go to the disk."""
        fill = b"\0" if column_of(bno - self._start) is VERSION else b"\xff"
        sector[:OWN_VERSION] = fill * OWN_VERSION
        sector[OWN_VERSION:-4] = bytes(4)
        U32.pack_into(sector, SECTOR - 4, zlib.crc32(sector[:-4], self._seed.sector(bno, index)))

    def _forget(self) -> None:
        busy = {bno for bno, _index in self._stale} | self._unplaced
        for table in list(self._blocks)[: MAX_KEPT // 2]:
            if self._start + table not in busy:
                del self._blocks[table]

    # --- writing

    def encode(self, bno: int, stale: Iterable[int], seq: int | None) -> bytes:
        """The bytes of a device block; `stale`: its sectors that need a new checksum; `seq`: its
        own version.
        """
        raw = self._block(bno - self._start)
        if seq is not None and U32.unpack_from(raw, OWN_VERSION)[0] != seq % (1 << 32):
            U32.pack_into(raw, OWN_VERSION, seq % (1 << 32))
            stale = {*stale, 0}
        for index in stale:
            at = index * SECTOR
            body = memoryview(raw)[at : at + SECTOR - 4]
            U32.pack_into(raw, at + SECTOR - 4, zlib.crc32(body, self._seed.sector(bno, index)))
        self._unplaced.add(bno)
        return bytes(raw)

    def mark_written(self, bno: int) -> None:
        """The block is written, or in the log."""
        self.first.discard(bno)

    def placed(self, but: set[int]) -> None:
        """What was encoded is where it belongs, but for these."""
        self._unplaced &= but
