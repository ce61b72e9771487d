"""Where the areas of an image lie, computed from its size alone.

The superblock stores what this computes; a stored value that differs is damage. No bytes are
read or written here. Guarantees: areas are in order, do not overlap, and lie inside the image.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from xnfs.disk.records import BLOCK
from xnfs.errors import Refused

GROUP: Final = 4032  # bits of one sector of the free map
MAP_SECTORS: Final = 8  # groups in one map block
NUMBER_BLOCKS: Final = 6  # for each group: two of counts, four of versions
COUNT_BLOCKS: Final = 2
LOG_ENTRIES: Final = 250  # in one descriptor block

MIN_BLOCKS: Final = 64
#: 64 TiB. Bounds the memory of the free map (2 GiB) whatever a superblock says.
MAX_BLOCKS: Final = 2**34
MIN_LOG, MAX_LOG = 4, 65536
MAX_TYPES: Final = 65536
MAX_ROOTS: Final = 1024
MIN_DATA: Final = 8
SMALL: Final = (16 << 20) // BLOCK


@dataclass(frozen=True, slots=True)
class Geometry:
    """Starts and lengths, in blocks, of everything on an image."""

    blocks: int
    log_start: int
    log_blocks: int
    map_start: int
    map_blocks: int
    refs_start: int
    refs_blocks: int
    types_start: int
    types_blocks: int
    roots_start: int
    roots_blocks: int
    data_start: int

    @property
    def groups(self) -> int:
        """Groups of 4032 blocks, the last one perhaps partial: sectors of the free map in use."""
        return -(-self.blocks // GROUP)

    @property
    def data_end(self) -> int:
        """The block after the last data block: the second copy of the superblock."""
        return self.blocks - 1

    @property
    def half_blocks(self) -> int:
        """Blocks of each half of the log."""
        return self.log_blocks // 2

    @property
    def log_images(self) -> int:
        """The largest number of images that one transaction can hold."""
        return self.half_blocks - -(-self.half_blocks // (LOG_ENTRIES + 1))

    @property
    def log_descriptors(self) -> int:
        """Descriptor blocks at the start of each half."""
        return -(-self.log_images // LOG_ENTRIES)

    def areas(self) -> tuple[int, ...]:
        """Start and length of log, map, refs, types, roots, then the start of the data."""
        return (
            *(self.log_start, self.log_blocks, self.map_start, self.map_blocks),
            *(self.refs_start, self.refs_blocks, self.types_start, self.types_blocks),
            *(self.roots_start, self.roots_blocks, self.data_start),
        )

    def in_data(self, start: int, count: int = 1) -> bool:
        """True if the run is not empty and lies wholly in the data area."""
        return count > 0 and self.data_start <= start and start + count <= self.blocks - 1

    def is_versioned_table(self, block: int) -> bool:
        """True for blocks of the map and of counts, but not of versions."""
        inside = block - self.refs_start
        in_map = self.map_start <= block < self.refs_start
        return in_map or (0 <= inside < self.refs_blocks and inside % NUMBER_BLOCKS < COUNT_BLOCKS)

    def is_loggable(self, block: int) -> bool:
        """True for what transactions write: tables, the root catalogue, data blocks."""
        tables = self.map_start <= block < self.types_start
        return tables or self.roots_start <= block < self.data_end


def geometry(
    blocks: int,
    log_blocks: int | None = None,
    types_blocks: int | None = None,
    roots_blocks: int | None = None,
) -> Geometry:
    """Lay out an image of `blocks` blocks. Raises Refused if the sizes don't fit."""
    if not MIN_BLOCKS <= blocks <= MAX_BLOCKS:
        raise Refused(f"{blocks} blocks: an image has {MIN_BLOCKS} to {MAX_BLOCKS}")
    if log_blocks is None:
        log_blocks = min(max(blocks // 128 * 2, 16), 4096)
    if types_blocks is None:
        types_blocks = 24 if blocks < SMALL else 64
    if roots_blocks is None:
        roots_blocks = 1 if blocks < SMALL else 4
    if not MIN_LOG <= log_blocks <= MAX_LOG or log_blocks % 2:
        raise Refused(f"a log of {log_blocks} blocks: even, {MIN_LOG} to {MAX_LOG}")
    if not 1 <= types_blocks <= MAX_TYPES or not 1 <= roots_blocks <= MAX_ROOTS:
        raise Refused(f"{types_blocks} blocks of types, {roots_blocks} of roots: out of range")
    groups = -(-blocks // GROUP)
    tables = -(-groups // MAP_SECTORS), NUMBER_BLOCKS * groups
    return _place(blocks, (log_blocks, *tables, types_blocks, roots_blocks))


def _place(blocks: int, lengths: tuple[int, int, int, int, int]) -> Geometry:
    at, placed = 1, []
    for length in lengths:
        placed += [at, length]
        at += length
    if at + MIN_DATA + 1 > blocks:
        raise Refused(f"{blocks} blocks leave no room for data after {at} blocks of tables")
    log, log_n, free, free_n, refs, refs_n, types, types_n, roots, roots_n = placed
    return Geometry(
        blocks, log, log_n, free, free_n, refs, refs_n, types, types_n, roots, roots_n, at
    )
