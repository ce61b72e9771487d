"""The log: images of attached metadata, so that a transaction is atomic and a torn block is found
again.

Two halves of a small fixed area, used in turn. A half holds one transaction: descriptors at fixed
places, then the images. Descriptors are never looked for among images, because images are bytes
that a file system chose.

What it guarantees: after `recover`, either every image of the newest complete transaction is in
place or none of them is. What it relies on: the caller (`commit.py`) flushes between `write` and
the first write in place, and again before the next `write`.

Source: DESIGN section 5. The idea of logging blocks in the epoch before: Prabhakaran et al. 2005,
ordered journaling.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from xnfs.disk.device import BlockDevice
from xnfs.disk.layout import (
    DESCRIPTOR,
    LOG_ENTRIES,
    LOG_ENTRY,
    LOG_MAGIC,
    STAMP,
    U32,
    Geometry,
    Seed,
)
from xnfs.disk.records import BLOCK

_CRC_AT = BLOCK - 4


@dataclass(frozen=True, slots=True)
class Image:
    """A block of the transaction as it must be in place. `stamp`: where its stamp lies."""

    block: int
    type: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Transaction:
    """A complete transaction as found in the log."""

    seq: int
    images: tuple[Image, ...]


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

    def write(self, seq: int, images: Sequence[Image]) -> None:
        """Write a transaction into its half. Not durable until a flush."""
        base = self._base(seq)
        heads = [
            self._head(seq, images, first, base + i)
            for i, first in enumerate(range(0, len(images), LOG_ENTRIES))
        ]
        self._device.write(base, heads)
        self._device.write(base + self._heads, [image.data for image in images])

    def read_untrusted(self, half: int) -> Transaction | None:
        """The transaction in one half, if every descriptor and image of it checks, else None."""
        base = self._start + half * self._half
        area = bytearray(self._half * BLOCK)
        view = memoryview(area)
        self._device.read(base, [view])
        entries: list[tuple[int, int, int]] = []
        seq = total = 0
        for i in range(self._heads):
            head = self._check_head(view[i * BLOCK : (i + 1) * BLOCK], base + i)
            if head is None or head[0] % 2 != half or (i and head[:2] != (seq, total)):
                return None
            seq, total, found = head
            entries += found
            if len(entries) == total:
                break
        if len(entries) != total or not 0 < total <= self.capacity:
            return None
        images = []
        for i, (block, kind, crc) in enumerate(entries):
            at = (self._heads + i) * BLOCK
            data = bytes(view[at : at + BLOCK])
            if self._seed.crc(block, data) != crc:
                return None
            images.append(Image(block, kind, data))
        return Transaction(seq, tuple(images))

    def newest_untrusted(self) -> Transaction | None:
        """The newest complete transaction."""
        found = [t for t in (self.read_untrusted(0), self.read_untrusted(1)) if t is not None]
        return max(found, key=lambda t: t.seq, default=None)

    def erase(self, seq: int) -> None:
        """Make a transaction that never happened unreadable. Not durable until a flush."""
        self._device.write(self._base(seq), [bytes(BLOCK)])

    def _base(self, seq: int) -> int:
        return self._start + (seq % 2) * self._half

    def _head(self, seq: int, images: Sequence[Image], first: int, at: int) -> bytes:
        mine = images[first : first + LOG_ENTRIES]
        body = bytearray(BLOCK)
        DESCRIPTOR.pack_into(body, 0, LOG_MAGIC, seq, len(images), first, len(mine), 0)
        for i, image in enumerate(mine):
            crc = self._seed.crc(image.block, image.data)
            LOG_ENTRY.pack_into(
                body, DESCRIPTOR.size + i * LOG_ENTRY.size, image.block, image.type, crc
            )
        U32.pack_into(body, _CRC_AT, self._seed.crc(at, memoryview(body)[:_CRC_AT]))
        return bytes(body)

    def _check_head(
        self, view: memoryview, at: int
    ) -> tuple[int, int, list[tuple[int, int, int]]] | None:
        magic, seq, total, _first, count, _zero = DESCRIPTOR.unpack_from(view)
        if magic != LOG_MAGIC or count > LOG_ENTRIES:
            return None
        if self._seed.crc(at, view[:_CRC_AT]) != U32.unpack_from(view, _CRC_AT)[0]:
            return None
        found = [
            LOG_ENTRY.unpack_from(view, DESCRIPTOR.size + i * LOG_ENTRY.size) for i in range(count)
        ]
        return seq, total, found


def happened(
    device: BlockDevice, seed: Seed, found: Transaction, stamps: Mapping[int, int]
) -> bool:
    """True if any image of the transaction reached its place, whole or torn.

    Writes in place begin only after the flush that makes the log and every fresh block durable. So
    one block in place proves that the transaction can be completed; none proves that the old state
    is whole. `stamps`: type number -> offset of the stamp.
    """
    page = bytearray(BLOCK)
    view = memoryview(page)
    for image in found.images:
        device.read(image.block, [view])
        at = stamps.get(image.type, 0)
        crc, _kind, seq = STAMP.unpack_from(view, at)
        whole = seed.crc(image.block, view[:at], view[at + 4 :]) == crc
        if not whole or seq == found.seq:
            return True
    return False
