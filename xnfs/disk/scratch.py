"""A device to write on without writing: what fsck uses when it may only look.

Reads go through to the device below, writes stay in memory. Nothing here is durable.
"""

from __future__ import annotations

from xnfs.disk.device import BlockDevice, Buffers, Views, span
from xnfs.disk.records import BLOCK


class Scratch:
    """Reads through to a device, keeps what is written in memory."""

    def __init__(self, device: BlockDevice) -> None:
        self._device = device
        self.blocks = device.blocks
        self.readonly = False
        self._kept: dict[int, bytes] = {}

    def read(self, start: int, views: Views) -> None:
        """See BlockDevice."""
        self._device.read(start, views)
        if self._kept:
            at = start
            for view in views:
                for offset in range(0, view.nbytes, BLOCK):
                    if at in self._kept:
                        view[offset : offset + BLOCK] = self._kept[at]
                    at += 1

    def write(self, start: int, views: Buffers) -> None:
        """See BlockDevice. Nothing reaches the device."""
        span(self, start, views)
        at = start
        for view in views:
            for offset in range(0, len(view), BLOCK):
                self._kept[at] = bytes(view[offset : offset + BLOCK])
                at += 1

    def flush(self) -> None:
        """Nothing to do."""

    def is_zero(self, start: int, count: int) -> bool:
        """See BlockDevice."""
        touched = any(start <= block < start + count for block in self._kept)
        return not touched and self._device.is_zero(start, count)

    def close(self) -> None:
        """The device belongs to the caller."""
