"""A disk that takes time: what a device under the simulated clock would have needed.

`TimedDevice` stands between XN and a device. It moves the bytes at once, since a library file
system is ordinary code, and adds up the time for it: a seek for each request that does not follow
the last one, and the transfer of each block. Whoever caused the requests then waits: `yield from
disk.wait()`. The disk serves one after the other, so everybody waits for what was asked before.
"""

from __future__ import annotations

from collections.abc import Sequence

from xnfs import BLOCK, BlockDevice, Program, calls


class TimedDevice:
    """A block device that keeps account of time, in cycles."""

    def __init__(self, device: BlockDevice, seek: int = 125_000, block: int = 25_000) -> None:
        """`seek`: cycles for a request elsewhere (10 ms at 12.5 MHz); `block`: for each block
        (2 ms).
        """
        self._device = device
        self._seek = seek
        self._block = block
        self._next = 0  # where the head is
        self._owed = 0
        self._free_at = 0
        self.reads = 0  # blocks
        self.writes = 0

    @property
    def blocks(self) -> int:
        """Size in blocks."""
        return self._device.blocks

    @property
    def readonly(self) -> bool:
        """True if `write` always fails."""
        return self._device.readonly

    def read(self, start: int, views: Sequence[memoryview]) -> None:
        """Read, and owe the time."""
        self._device.read(start, views)
        self.reads += self._owe(start, views)

    def write(self, start: int, views: Sequence[memoryview | bytes]) -> None:
        """Write, and owe the time."""
        self._device.write(start, views)
        self.writes += self._owe(start, views)

    def flush(self) -> None:
        """Flush the device below."""
        self._device.flush()

    def is_zero(self, start: int, count: int) -> bool:
        """What the device knows."""
        return self._device.is_zero(start, count)

    def close(self) -> None:
        """Close the device."""
        self._device.close()

    def _owe(self, start: int, views: Sequence[memoryview | bytes]) -> int:
        count = sum(len(view) for view in views) // BLOCK
        self._owed += count * self._block + (self._seek if start != self._next else 0)
        self._next = start + count
        return count

    def forget(self) -> None:
        """What was asked so far took no time: it was before the machine was started."""
        self._owed = 0

    def wait(self) -> Program:
        """Sleep until the disk has done everything that was asked of it so far."""
        now = yield (calls.CLOCK,)
        self._free_at = max(now, self._free_at) + self._owed
        self._owed = 0
        until = self._free_at
        while now < until:  # an upcall or a wake may end a sleep early
            yield (calls.SLEEP, until)
            now = yield (calls.CLOCK,)
