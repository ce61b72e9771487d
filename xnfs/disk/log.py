"""The log: images of metadata and tables, so that a transaction is atomic and a torn block is found
again.

Two halves of a small fixed area, used in turn. A half holds one transaction: descriptors at fixed
places, then the images. The descriptors also list, with their checksums, the blocks written in
place that the images rely on, and newest versions that the tables don't have yet. Descriptors are
never looked for among images, because images are bytes that a file system chose.

What it guarantees: a half is read back as it was written, or not at all. What it relies on: the
caller (`commit.py`) writes a half only after everything of the transaction before is durable in
the log; whether a transaction counts is decided in `recovery.py`.

Source: DESIGN section 5. Checksums over a transaction instead of a flush inside it: Prabhakaran et
al. 2005, IRON file systems.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice
from typing import Final

from xnfs.disk.device import BlockDevice
from xnfs.disk.layout import (
    DESCRIPTOR,
    LOG_ENTRIES,
    LOG_ENTRY,
    LOG_MAGIC,
    MAX_COUNTER,
    U32,
    Geometry,
    Seed,
)
from xnfs.disk.records import BLOCK

_CRC_AT = BLOCK - 4

#: (block, type, digest): an image or, with type 0 and behind all images, a listed block; or,
#: behind these, block and version, low half first
_Entry = tuple[int, int, int]
#: how many images, listed blocks, versions
_Counts = tuple[int, int, int]

_ENTRIES_SIZE: Final = LOG_ENTRIES * LOG_ENTRY.size


@dataclass(frozen=True, slots=True)
class Image:
    """A block of the transaction as it must be in place. Type 0: it has no stamp."""

    block: int
    type: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Transaction:
    """A complete transaction of the log. `listed`: (block, digest) of what it relies on.
    `versions`: block -> newest version, apart from its own images."""

    seq: int
    images: tuple[Image, ...]
    listed: tuple[tuple[int, int], ...] = ()
    versions: Mapping[int, int] = field(default_factory=dict)


class Log:
    """The log area of one image."""

    def __init__(self, device: BlockDevice, seed: Seed, geometry: Geometry) -> None:
        self._device = device
        self._seed = seed
        self._start = geometry.log_start
        self._half = geometry.half_blocks
        self._heads = geometry.log_descriptors
        #: how many images one transaction can have
        self.capacity = geometry.log_images
        #: how many images and listed blocks together
        self.entries = self._heads * LOG_ENTRIES

    def write(
        self,
        seq: int,
        images: Sequence[Image],
        listed: Mapping[int, int],
        versions: Mapping[int, int],
    ) -> None:
        """Write a transaction into its half, not durably. `listed`: block -> digest; `versions`:
        block -> newest version, as many as there is room for.
        """
        base, digest, pack = self._base(seq), self._seed.digest, LOG_ENTRY.pack
        entries = [pack(i.block, i.type, digest(i.block, i.data)) for i in images]
        entries += [pack(block, 0, value) for block, value in listed.items()]
        newest = min(len(versions), self.entries - len(entries))
        flat = chain.from_iterable(islice(versions.items(), newest))
        packed = b"".join(entries) + struct.pack(f"<{2 * newest}Q", *flat)
        counts = len(images), len(listed), newest
        heads = [
            self._head(seq, counts, packed[first : first + _ENTRIES_SIZE], base + i)
            for i, first in enumerate(range(0, len(packed), _ENTRIES_SIZE))
        ]
        self._device.write(base, heads)
        self._device.write(base + self._heads, [image.data for image in images])

    def read_untrusted(self, half: int) -> Transaction | None:
        """The transaction in one half, if every descriptor and image of it checks, else None."""
        base = self._start + half * self._half
        area = bytearray(self._half * BLOCK)
        view = memoryview(area)
        self._device.read(base, [view])
        entries: list[_Entry] = []
        seq, counts = 0, (0, 0, 0)
        for i in range(self._heads):
            head = self._check_head(view[i * BLOCK : (i + 1) * BLOCK], base + i)
            if head is None or head[0] % 2 != half or (i and head[:2] != (seq, counts)):
                return None
            seq, counts, found = head
            entries += found
            if len(entries) == sum(counts):
                break
        if len(entries) != sum(counts) or not 0 < counts[0] <= self.capacity:
            return None
        images = []
        for i, (block, kind, digest) in enumerate(entries[: counts[0]]):
            at = (self._heads + i) * BLOCK
            data = bytes(view[at : at + BLOCK])
            if self._seed.digest(block, data) != digest:
                return None
            images.append(Image(block, kind, data))
        behind = entries[counts[0] :]
        listed = tuple((block, digest) for block, _kind, digest in behind[: counts[1]])
        versions = {block: high << 32 | low for block, low, high in behind[counts[1] :]}
        return Transaction(seq, tuple(images), listed, versions)

    def newest_untrusted(self, settled: int) -> list[Transaction]:
        """The newest complete transaction after `settled`, and the one before it if that is
        complete and after it, too.
        """
        halves = (self.read_untrusted(0), self.read_untrusted(1))
        found = [t for t in halves if t is not None and t.seq > settled]
        found.sort(key=lambda t: -t.seq)
        return [t for t in found if t.seq >= found[0].seq - 1]

    def erase(self, seq: int) -> None:
        """Make a transaction that never happened unreadable. Not durable until a flush."""
        self._device.write(self._base(seq), [bytes(BLOCK)])

    def _base(self, seq: int) -> int:
        return self._start + (seq % 2) * self._half

    def _head(self, seq: int, counts: _Counts, mine: bytes, at: int) -> bytes:
        head = DESCRIPTOR.pack(LOG_MAGIC, seq, *counts, len(mine) // LOG_ENTRY.size)
        body = (head + mine).ljust(_CRC_AT, b"\0")
        return body + U32.pack(self._seed.crc(at, body))

    def _check_head(self, view: memoryview, at: int) -> tuple[int, _Counts, list[_Entry]] | None:
        magic, seq, images, listed, versions, count = DESCRIPTOR.unpack_from(view)
        if magic != LOG_MAGIC or count > LOG_ENTRIES or seq > MAX_COUNTER:
            return None
        if self._seed.crc(at, view[:_CRC_AT]) != U32.unpack_from(view, _CRC_AT)[0]:
            return None
        found = [
            LOG_ENTRY.unpack_from(view, DESCRIPTOR.size + i * LOG_ENTRY.size) for i in range(count)
        ]
        return seq, (images, listed, versions), found
