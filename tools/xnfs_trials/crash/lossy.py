"""A disk whose flush fails once, and which then has forgotten what the flush was for.

That is what a host does to a page that it could not write: it is clean afterwards, and the next
flush succeeds (Rebello et al., *Can Applications Recover from fsync Failures?*, ATC 2020). Whoever
takes that success for the durability of the data has lost it.

It stands above the recorder, and forgets by writing the old bytes back, so that cuts of what it did
are explored as of any other writes.
"""

from __future__ import annotations

import errno

from xnfs import DeviceError
from xnfs.disk.device import BlockDevice, Buffers, span
from xnfs.disk.records import BLOCK
from xnfs.disk.stacked import StackedDevice


class LossyDevice(StackedDevice):
    """Sound until `fail_at` is set."""

    def __init__(self, below: BlockDevice) -> None:
        super().__init__(below)
        self.fail_at: int | None = None  # let so many flushes pass, then fail one
        self.struck = False
        self._before: dict[int, bytes] = {}  # block -> what stood there at the last flush

    def write(self, start: int, views: Buffers) -> None:
        """See BlockDevice."""
        for block in range(start, start + span(self, start, views)):
            if block not in self._before:
                page = bytearray(BLOCK)
                self.below.read(block, [memoryview(page)])
                self._before[block] = bytes(page)
        self.below.write(start, views)

    def flush(self) -> None:
        """See BlockDevice. Raises DeviceError once, if it was told to."""
        if self.fail_at is not None and not self.struck:
            if self.fail_at == 0:
                self.struck = True
                for block, old in self._before.items():
                    self.below.write(block, [old])
                raise DeviceError(errno.EIO, "planted: the flush failed, its writes are lost")
            self.fail_at -= 1
        self._before.clear()
        self.below.flush()
