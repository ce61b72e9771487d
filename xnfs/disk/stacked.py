"""Devices that stand on another device: one that counts, one that fails as it is told.

They see what the kernel asks of a disk, and nothing of why. For tests and benchmarks; a real mount
needs neither, but may count. The device that records, for the crash explorer, is in `recording.py`.

Relies on: a `BlockDevice` below. Guarantees: without a fault planted each behaves as the device
below; when a fault strikes depends only on what was planted and on the calls made.
"""

from __future__ import annotations

import errno
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

from xnfs.disk.device import BlockDevice, Buffers, Views, span
from xnfs.disk.records import BLOCK
from xnfs.errors import DeviceError


class StackedDevice:
    """Passes everything on; the others change one thing about it."""

    def __init__(self, below: BlockDevice) -> None:
        self.below = below

    @property
    def blocks(self) -> int:
        """See BlockDevice."""
        return self.below.blocks

    @property
    def readonly(self) -> bool:
        """See BlockDevice."""
        return self.below.readonly

    def read(self, start: int, views: Views) -> None:
        """See BlockDevice."""
        self.below.read(start, views)

    def write(self, start: int, views: Buffers) -> None:
        """See BlockDevice."""
        self.below.write(start, views)

    def flush(self) -> None:
        """See BlockDevice."""
        self.below.flush()

    def is_zero(self, start: int, count: int) -> bool:
        """See BlockDevice."""
        return self.below.is_zero(start, count)

    def close(self) -> None:
        """See BlockDevice."""
        self.below.close()


# --- counting -------------------------------------------------------------------------------


@dataclass(slots=True)
class IoCounts:
    """What a CountingDevice has seen. `seek_blocks`: how far a disk's heads would have gone."""

    reads: int = 0
    writes: int = 0
    flushes: int = 0
    blocks_read: int = 0
    blocks_written: int = 0
    seeks: int = 0
    seek_blocks: int = 0


class CountingDevice(StackedDevice):
    """Counts calls, blocks and seeks. Failed calls count too: they were asked for."""

    def __init__(self, below: BlockDevice) -> None:
        super().__init__(below)
        self.counts = IoCounts()
        self._head = 0

    def read(self, start: int, views: Views) -> None:
        """See BlockDevice."""
        self.counts.reads += 1
        self.counts.blocks_read += self._seek(start, span(self, start, views))
        self.below.read(start, views)

    def write(self, start: int, views: Buffers) -> None:
        """See BlockDevice."""
        self.counts.writes += 1
        self.counts.blocks_written += self._seek(start, span(self, start, views))
        self.below.write(start, views)

    def flush(self) -> None:
        """See BlockDevice."""
        self.counts.flushes += 1
        self.below.flush()

    def _seek(self, start: int, count: int) -> int:
        if start != self._head:
            self.counts.seeks += 1
            self.counts.seek_blocks += abs(start - self._head)
        self._head = start + count
        return count


# --- failing --------------------------------------------------------------------------------

Op = Literal["read", "write", "flush"]
#: eio: the call fails and does nothing. short: a write does its first half, then fails.
#: lost: a write reports success and does nothing. misdirected: one block of a write lands on, or of
#: a read comes from, `other`. stale: a read gives what stood there before the last write.
#: flip: one bit of the block is wrong.
FaultKind = Literal["eio", "short", "lost", "misdirected", "stale", "flip"]

_KINDS: Final[Mapping[Op, Collection[FaultKind]]] = {
    "read": ("eio", "short", "misdirected", "stale", "flip"),
    "write": ("eio", "short", "lost", "misdirected", "flip"),
    "flush": ("eio", "lost"),
}


@dataclass(slots=True)
class Fault:
    """One planted fault: at which calls it strikes, and how."""

    op: Op
    kind: FaultKind
    block: int | None = None  # only calls that touch it; None: any call of this kind
    after: int = 0  # let so many matching calls pass first
    sticky: bool = False  # strike at every matching call from then on, not only once
    other: int = 0  # for misdirected: the wrong block
    bit: int = 0  # for flip: which bit of the block
    errno: int = errno.EIO
    struck: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        if self.kind not in _KINDS[self.op]:
            raise ValueError(f"a {self.op} can't fail as {self.kind!r}")

    def strikes(self, op: Op, start: int, count: int) -> bool:
        """Count a call, and say whether this fault strikes at it."""
        if op != self.op or (self.struck and not self.sticky):
            return False
        if self.block is not None and not start <= self.block < start + count:
            return False
        if self.after:
            self.after -= 1
            return False
        self.struck += 1
        return True


class FaultingDevice(StackedDevice):
    """Fails as told. Faults that strike at one call take effect in the order planted."""

    def __init__(self, below: BlockDevice, *faults: Fault) -> None:
        super().__init__(below)
        self.faults = list(faults)
        self._before: dict[int, bytes] = {}  # block -> what stood there before its last write

    def plant(self, fault: Fault) -> Fault:
        """Add a fault; returns it, so that the caller can ask whether it has struck."""
        self.faults.append(fault)
        return fault

    def _striking(self, op: Op, start: int, count: int) -> list[Fault]:
        return [fault for fault in self.faults if fault.strikes(op, start, count)]

    def read(self, start: int, views: Views) -> None:
        """See BlockDevice."""
        count = span(self, start, views)
        faults = self._striking("read", start, count)
        if not faults:
            self.below.read(start, views)
            return
        data = bytearray(count * BLOCK)
        self.below.read(start, [memoryview(data)])
        for fault in faults:
            size = self._spoil_read(fault, start, data)
            _scatter(data[:size], views)
            if size < len(data):
                raise DeviceError(fault.errno, f"planted: read at block {start}: {fault.kind}")
        _scatter(data, views)

    def _spoil_read(self, fault: Fault, start: int, data: bytearray) -> int:
        """Apply a fault to what was read; how many bytes of it reach the caller."""
        if fault.kind == "eio":
            return 0
        if fault.kind == "short":
            return len(data) // 2
        bno = start if fault.block is None else fault.block
        at = (bno - start) * BLOCK
        if fault.kind == "flip":
            data[at + fault.bit // 8] ^= 1 << fault.bit % 8
        elif fault.kind == "misdirected":
            data[at : at + BLOCK] = _read_one(self.below, fault.other)
        elif bno in self._before:
            data[at : at + BLOCK] = self._before[bno]
        return len(data)

    def write(self, start: int, views: Buffers) -> None:
        """See BlockDevice."""
        count = span(self, start, views)
        self._remember(start, count)
        faults = self._striking("write", start, count)
        if not faults:
            self.below.write(start, views)
            return
        data = bytearray().join(views)
        for fault in faults:
            if fault.kind == "short":
                self.below.write(start, [bytes(data[: count // 2 * BLOCK])])
            if fault.kind in ("short", "eio"):
                raise DeviceError(fault.errno, f"planted: write at block {start}: {fault.kind}")
        self._write_spoilt(faults, start, data)

    def _write_spoilt(self, faults: list[Fault], start: int, data: bytearray) -> None:
        """Write block by block, each to where the faults let it go."""
        for index in range(len(data) // BLOCK):
            bno, block = start + index, data[index * BLOCK : (index + 1) * BLOCK]
            target: int | None = bno
            for fault in faults:
                if bno != (start if fault.block is None else fault.block):
                    continue
                if fault.kind == "flip":
                    block[fault.bit // 8] ^= 1 << fault.bit % 8
                else:
                    target = fault.other if fault.kind == "misdirected" else None
            if target is not None:
                self.below.write(target, [bytes(block)])

    def _remember(self, start: int, count: int) -> None:
        """Keep old versions while a fault may ask for them."""
        if any(fault.kind == "stale" for fault in self.faults):
            for bno in range(start, start + count):
                self._before[bno] = _read_one(self.below, bno)

    def flush(self) -> None:
        """See BlockDevice."""
        faults = self._striking("flush", 0, 0)
        for fault in faults:
            if fault.kind == "eio":
                raise DeviceError(fault.errno, "planted: flush: eio")
        if not faults:
            self.below.flush()


def _read_one(device: BlockDevice, bno: int) -> bytes:
    block = bytearray(BLOCK)
    device.read(bno, [memoryview(block)])
    return bytes(block)


def _scatter(data: bytearray, views: Views) -> None:
    """Copy bytes into the views, as far as they go."""
    at = 0
    for view in views:
        piece = data[at : at + view.nbytes]
        view.cast("B")[: len(piece)] = piece
        at += view.nbytes
