"""What follows a crash, before anything else: finish the newest transaction, or forget it.

Takes time that depends on the size of the log only, not of the image. Guarantees: afterwards every
image of that transaction is in place, or none is; running it again, also after a cut in the
middle of it, gives the same bytes. It relies on the order in which `commit.py` writes.

An image that is opened read-only is not written: the finished blocks are laid over it in memory.
"""

from __future__ import annotations

from collections.abc import Mapping

from xnfs.disk.device import BlockDevice, Buffers, Views
from xnfs.disk.layout import Seed
from xnfs.disk.log import Log, Transaction, happened
from xnfs.disk.records import BLOCK
from xnfs.errors import ReadOnly


class Overlay:
    """A read-only device with some blocks replaced in memory."""

    def __init__(self, device: BlockDevice, blocks: Mapping[int, bytes]) -> None:
        self._device = device
        self._laid = dict(blocks)

    @property
    def blocks(self) -> int:
        """Size of the device below."""
        return self._device.blocks

    @property
    def readonly(self) -> bool:
        """Always."""
        return True

    def read(self, start: int, views: Views) -> None:
        """As below, with the replaced blocks laid over."""
        self._device.read(start, views)
        at = start
        for view in views:
            count = len(view) // BLOCK
            for block in self._laid.keys() & range(at, at + count):
                view[(block - at) * BLOCK : (block - at + 1) * BLOCK] = self._laid[block]
            at += count

    def write(self, start: int, views: Buffers) -> None:
        """Never."""
        raise ReadOnly("the image is open read-only")

    def flush(self) -> None:
        """Nothing to flush."""

    def is_zero(self, start: int, count: int) -> bool:
        """As below, unless a block is replaced."""
        clear = self._laid.keys().isdisjoint(range(start, start + count))
        return clear and self._device.is_zero(start, count)

    def close(self) -> None:
        """Close the device below."""
        self._device.close()


def recover(
    device: BlockDevice, seed: Seed, log: Log, stamps: Mapping[int, int], data: tuple[int, int]
) -> tuple[BlockDevice, int, str]:
    """Finish or forget the newest transaction.

    `stamps`: type number -> offset of the stamp. `data`: the blocks [lo, hi) that an image may go
    to. Returns the device to go on with, the number of the newest transaction that happened, and
    what was done: "nothing", "redone" or "undone". Durable on return, unless the device is
    read-only.
    Raises DeviceError.
    """
    found = log.newest_untrusted()
    if found is None:
        return device, 0, "nothing"
    lo, hi = data
    if any(not lo <= image.block < hi for image in found.images):
        return device, found.seq, "nothing"  # no kernel wrote this
    if not happened(device, seed, found, stamps):
        if not device.readonly:
            # Its fresh blocks may be overwritten from now on, so it must never be taken for
            # complete again.
            log.erase(found.seq)
            device.flush()
        return device, found.seq - 1, "undone"
    missing = _missing(device, found)
    if not missing:
        return device, found.seq, "nothing"
    if device.readonly:
        return Overlay(device, missing), found.seq, "redone"
    for block, image in sorted(missing.items()):
        device.write(block, [image])
    device.flush()
    return device, found.seq, "redone"


def _missing(device: BlockDevice, found: Transaction) -> dict[int, bytes]:
    """The images that are not in place."""
    page = bytearray(BLOCK)
    out: dict[int, bytes] = {}
    for image in found.images:
        device.read(image.block, [memoryview(page)])
        if page != image.data:
            out[image.block] = image.data
    return out
