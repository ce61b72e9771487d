"""A device that records every write and flush, and the disks that a power cut could leave.

A write of many blocks is recorded as many writes of one: a disk may do any of them and not the
others. Which cuts and which subsets are worth a look is up to the crash explorer.

The rule, and all that is assumed of a disk: a block is *durable* when a flush that was issued after
its write had completed has itself completed. Of all later writes any subset may have reached
the disk, in any order; each of them whole, or torn at a boundary of 512-byte sectors.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from xnfs.disk.device import BlockDevice, Buffers, MemoryDevice, span
from xnfs.disk.records import BLOCK, SECTOR
from xnfs.disk.stacked import StackedDevice

SUBMITTED, COMPLETED, DURABLE = "submitted", "completed", "durable"


@dataclass(slots=True)
class Event:
    """One block written, or (block is None) one flush. `id` is its index in `events`.

    `done`: how many events had been submitted when this one completed; None: it has not.
    """

    id: int
    block: int | None
    data: bytes = b""
    state: str = SUBMITTED
    done: int | None = None

    @property
    def is_flush(self) -> bool:
        """True for a flush."""
        return self.block is None

    def completed_by(self, cut: int) -> bool:
        """True if it had completed when the power went, after `cut` events."""
        return self.done is not None and self.done <= cut


class RecordingDevice(StackedDevice):
    """Passes everything on, and remembers it in `events`."""

    def __init__(self, below: BlockDevice) -> None:
        """What `below` holds now is where recording starts: durable."""
        super().__init__(below)
        self.events: list[Event] = []
        self._base = below.fork() if isinstance(below, MemoryDevice) else _copy(below)
        self._volatile: list[Event] = []  # writes that no flush has made durable yet
        # The disk as the last flush asked about left it: cuts are mostly asked for in order.
        self._settled = (0, self._base)

    def write(self, start: int, views: Buffers) -> None:
        """See BlockDevice."""
        span(self, start, views)
        data = b"".join(views)
        events = [
            self._submit(start + index, data[index * BLOCK : (index + 1) * BLOCK])
            for index in range(len(data) // BLOCK)
        ]
        self._volatile += events
        self.below.write(start, views)
        for event in events:
            self._complete(event)

    def flush(self) -> None:
        """See BlockDevice."""
        event = self._submit(None, b"")
        covered = [write for write in self._volatile if write.completed_by(event.id)]
        self.below.flush()
        self._complete(event)
        for write in covered:
            write.state = DURABLE
        self._volatile = [write for write in self._volatile if write.state != DURABLE]

    def _submit(self, block: int | None, data: bytes) -> Event:
        event = Event(len(self.events), block, data)
        self.events.append(event)
        return event

    def _complete(self, event: Event) -> None:
        event.done, event.state = len(self.events), COMPLETED

    def _settling(self, cut: int) -> int:
        """The id of the last flush that had completed at the cut; 0 if there was none."""
        for event in reversed(self.events[:cut]):
            if event.is_flush and event.completed_by(cut):
                return event.id
        return 0

    def pending(self, cut: int) -> list[Event]:
        """The writes that a power cut after `cut` events may lose, in the order of submission."""
        flush = self._settling(cut)
        return [e for e in self.events[:cut] if not e.is_flush and not e.completed_by(flush)]

    def image_at(
        self,
        cut: int,
        keep: Collection[int] = (),
        tear: Mapping[int, Collection[int]] | None = None,
    ) -> MemoryDevice:
        """The disk after a power cut when `cut` events had been submitted.

        `keep`: ids of pending writes that reached the disk all the same. `tear`: for some of these,
        the sectors (0..7) of the block that did; the others keep what stood there.
        Raises ValueError for an id that is not pending at the cut.
        """
        allowed = {event.id: event for event in self.pending(cut)}
        if not allowed.keys() >= set(keep) or not set(keep) >= (tear or {}).keys():
            raise ValueError(f"not pending at cut {cut}, or torn but not kept")
        disk = self._durable(self._settling(cut)).fork()
        for number in sorted(keep):
            event = allowed[number]
            sectors = None if tear is None else tear.get(number)
            _apply(disk, event, sectors)
        return disk

    def _durable(self, flush: int) -> MemoryDevice:
        """The disk with every write that had completed when flush `flush` was issued, no other."""
        at, disk = self._settled
        if flush < at:
            at, disk = 0, self._base
        disk = disk.fork()
        for event in self.events[:flush]:
            if not event.is_flush and event.completed_by(flush) and not event.completed_by(at):
                _apply(disk, event, None)
        self._settled = (flush, disk)
        return disk


def _apply(disk: MemoryDevice, event: Event, sectors: Collection[int] | None) -> None:
    assert event.block is not None  # callers pass writes only
    data = bytearray(event.data)
    if sectors is not None:
        old = bytearray(BLOCK)
        disk.read(event.block, [memoryview(old)])
        for index in set(range(BLOCK // SECTOR)).difference(sectors):
            data[index * SECTOR : (index + 1) * SECTOR] = old[index * SECTOR : (index + 1) * SECTOR]
    disk.write(event.block, [bytes(data)])


def _copy(device: BlockDevice) -> MemoryDevice:
    """What a device holds, in memory; zero blocks cost nothing."""
    copy, block = MemoryDevice(device.blocks), bytearray(BLOCK)
    for bno in range(device.blocks):
        device.read(bno, [memoryview(block)])
        if any(block):
            copy.write(bno, [bytes(block)])
    return copy
