"""A device whose flush ends when the test says so, and what it holds durably."""

from __future__ import annotations

import errno
import threading
import uuid

from libfs.ffs import Ffs
from xnfs import DeviceError, FramePool, MemoryDevice, Xn, format_image
from xnfs.disk.stacked import StackedDevice


class Gate(StackedDevice):
    """Open at first. Once `close_gate` was called each flush waits for `open_gate`."""

    def __init__(self, below: MemoryDevice) -> None:
        super().__init__(below)
        self._memory = below
        self._open = threading.Event()
        self._open.set()
        self.reached = threading.Event()
        self.flushes = 0
        self.fails = False
        #: what a power cut now would leave for certain
        self.durable = below.fork()

    def flush(self) -> None:
        """See BlockDevice."""
        before = self._memory.fork()
        self.flushes += 1
        self.reached.set()
        assert self._open.wait(20)
        if self.fails:
            raise DeviceError(errno.EIO, "the test says no")
        self.durable = before

    def close_gate(self) -> None:
        """The next flush waits; `reached` says that there is one."""
        self.reached.clear()
        self._open.clear()

    def open_gate(self) -> None:
        """Flushes end."""
        self._open.set()


def mounted(blocks: int = 4096) -> tuple[Gate, Xn, Ffs]:
    """A gate, and an empty FFS on it."""
    disk = MemoryDevice(blocks)
    format_image(disk, uuid=uuid.UUID(int=7).bytes, label="gate")
    gate = Gate(disk)
    xn = Xn(gate, frames=FramePool(2048))
    Ffs.mkfs(xn, xn.admin, "home")
    return gate, xn, Ffs.mount(xn, xn.admin, "home")


def after_cut(gate: Gate) -> Ffs:
    """What is there after a power cut that loses everything not flushed."""
    xn = Xn(gate.durable.fork(), frames=FramePool(2048))
    return Ffs.mount(xn, xn.admin, "home")
