"""Checkpoints: where the inode map is, written to two regions in turn.

A region is plain data with a checksum of its own, so a checkpoint takes two flushes of the device:
when the log is durable the region is written, and made durable in turn. Torn or spoilt, it is not
used: the other one is, and what came after that is rolled forward. That loses nothing, since
whatever either region needs stays (`cleaner`).

Source: Rosenblum and Ousterhout 1992, section 4.1.
"""

from __future__ import annotations

import threading
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from libfs.lfs import format as f
from libfs.lfs.flushing import flush
from libfs.lfs.log import checksum
from xnfs import CorruptionError

if TYPE_CHECKING:
    from libfs.lfs.volume import Volume

#: A checkpoint is due after so long, ns, and after so many segments of the log.
EVERY: Final = 30_000_000_000
SEGMENTS: Final = 32


@dataclass
class Region:
    """What a checkpoint says."""

    number: int
    flush: int
    serial: int
    segment: int
    slot: int
    time: int
    next_ino: int
    epoch: int
    depth: int
    tops: list[int]
    snapshots: list[int] = field(default_factory=list)

    def encode(self, seed: int, block: int) -> bytes:
        """The block."""
        raw = bytearray(f.BLOCK)
        f.HEAD.pack_into(raw, 0, 0, f.CHECKPOINT_MAGIC, 0)
        f.CHECKPOINT.pack_into(
            raw,
            f.CHECKPOINT_AT,
            self.number,
            self.flush,
            self.serial,
            self.segment,
            self.slot,
            self.time,
            self.next_ino,
            self.epoch,
            self.depth,
            len(self.tops),
            len(self.snapshots),
        )
        _put(raw, f.CHECKPOINT_TOPS, self.tops)
        _put(raw, f.CHECKPOINT_SNAPSHOTS, self.snapshots)
        f.CRC.pack_into(raw, 0, checksum(seed, block, raw))
        return bytes(raw)


def _put(raw: bytearray, at: int, values: Sequence[int]) -> None:
    packed = array("Q", values).tobytes()
    raw[at : at + len(packed)] = packed


def decode_region_untrusted(seed: int, block: int, raw: bytes) -> Region:
    """Raises CorruptionError."""
    crc, magic, _zero = f.HEAD.unpack_from(raw, 0)
    want = checksum(seed, block, raw)
    if magic != f.CHECKPOINT_MAGIC or crc != want:
        raise CorruptionError(block, "checksum of the checkpoint", crc, want)
    words = f.CHECKPOINT.unpack_from(raw, f.CHECKPOINT_AT)
    number, flush_number, serial, segment, slot, time, next_ino, epoch = words[:8]
    depth, tops, snapshots = words[8:]
    if depth > f.MAX_DEPTH or tops > f.TOPS or snapshots > f.MAX_SNAPSHOTS:
        raise CorruptionError(block, "inode map", (depth, tops, snapshots), "sane")
    return Region(
        number,
        flush_number,
        serial,
        segment,
        slot,
        time,
        next_ino,
        epoch,
        depth,
        array("Q", raw[f.CHECKPOINT_TOPS : f.CHECKPOINT_TOPS + 8 * tops]).tolist(),
        array("Q", raw[f.CHECKPOINT_SNAPSHOTS : f.CHECKPOINT_SNAPSHOTS + 8 * snapshots]).tolist(),
    )


class Checkpoint:
    """The two regions of a mount."""

    def __init__(self, vol: Volume, regions: tuple[int, int]) -> None:
        self._vol = vol
        self.regions = regions
        self.number = 0  # of the newest checkpoint that was begun
        #: what each region has, durably; and the segment where its log goes on, by serial number
        self.durable = [-1, -1]
        self._serials = [0, 0]
        self._written = [-1, -1]
        self.bad: list[int] = []  # regions that could not be read
        self._lock = threading.Lock()  # `write` runs beside everything else
        self.time = 0
        self.serial = 0  # of the segment where the log went on then
        self.flush = 0  # the newest flush that the newest checkpoint knows
        self.snapshots: list[int] = []

    def load(self) -> list[Region]:
        """What the regions say, newest first. Raises CorruptionError: neither is good."""
        vol, good, error = self._vol, [], None
        self.bad = []
        for part, block in enumerate(self.regions):
            vol.readin(vol.super, part, block, 1)
            vol.xn.pin(vol.who, block)
            try:
                raw = vol.xn.read(vol.who, block, 0, f.BLOCK)
                good.append(decode_region_untrusted(vol.seed, block, raw))
            except CorruptionError as found:
                error = found
                self.bad.append(block)
        if error is not None and not good:
            raise error
        return sorted(good, key=lambda region: -region.number)

    @property
    def due(self) -> bool:
        """Whether it is time for one, and it would say something new."""
        vol = self._vol
        late = vol.now() - self.time >= EVERY or vol.log.serial - self.serial >= SEGMENTS
        return late and vol.news

    def begin(self) -> Region:
        """Flush with the inode map; what the next region is to say when that is durable."""
        vol = self._vol
        flush(vol, checkpoint=True)
        self.number += 1
        self.time = vol.now()
        log = vol.log
        self.flush, self.serial = log.flush, log.serial
        return Region(
            self.number,
            log.flush,
            log.serial,
            log.segment,
            log.next,
            self.time,
            vol.next_ino,
            vol.epoch,
            vol.imap.depth,
            list(vol.imap.tops),
            list(self.snapshots),
        )

    def write(self, region: Region) -> int:
        """Put it in its place, not durably; the block. The log that it tells of is durable."""
        part = region.number % 2
        block = self.regions[part]
        with self._lock:
            if region.number > self._written[part]:  # a later one may have overtaken it
                self._written[part] = region.number
                raw = region.encode(self._vol.seed, block)
                self._vol.xn.write_raw(self._vol.who, block, 0, raw)
        return block

    @property
    def oldest(self) -> int:
        """Recovery reads the log from this segment on, by serial number, or from a later one."""
        pairs = zip(self.durable, self._serials, strict=True)
        return min(serial for number, serial in pairs if number >= 0)

    def done(self, region: Region) -> None:
        """It is durable."""
        part = region.number % 2
        if region.number > self.durable[part]:
            self.durable[part], self._serials[part] = region.number, region.serial
            self.bad = [block for block in self.bad if block != self.regions[part]]


class Sync:
    """A sync that has begun (`interface.Syncing`): a flush, or a checkpoint."""

    def __init__(self, vol: Volume, *, checkpoint: bool = False) -> None:
        """Begin. Raises FsError, XnError."""
        self._vol = vol
        self._region = None
        if checkpoint:
            self._region = vol.checkpoint.begin()
        else:
            flush(vol)
        self._flush = vol.log.flush
        self._blocks = list(vol.log.anchors)
        self._given_up = vol.segments.given_up

    @property
    def needed(self) -> bool:
        """Whether there is something to wait for."""
        return bool(self._blocks) or self._region is not None

    def wait(self) -> None:
        """Until it is durable. Raises XnError."""
        vol, region = self._vol, self._region
        vol.xn.sync(vol.who, self._blocks)
        if region is not None:
            vol.xn.sync(vol.who, [vol.checkpoint.write(region)])

    def done(self) -> None:
        """Forget what was made durable."""
        anchors, segments = self._vol.log.anchors, self._vol.segments
        segments.given_back = max(segments.given_back, self._given_up)
        for block, number in list(anchors.items()):
            if number <= self._flush:
                del anchors[block]
        if self._region is not None:
            self._vol.checkpoint.done(self._region)
        self._vol.cleaner.release(self._flush)


def make_durable(vol: Volume, *, checkpoint: bool = False) -> None:
    """A sync from beginning to end."""
    sync = Sync(vol, checkpoint=checkpoint)
    sync.wait()
    sync.done()
