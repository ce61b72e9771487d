"""A swap file on a real file system, whose registry shares the machine's frames."""

from __future__ import annotations

import uuid

from libfs.ffs import Ffs
from libfs.posix import Posix, User
from libos.disk import TimedDevice
from libos.swap import Swap
from xnfs import FramePool, Machine, MemoryDevice, Xn, format_image

ROOT = User(0, 0)


class Rig:
    """A machine, and a mounted FFS on a disk that takes time, in one memory. The registry of blocks
    has `cache` of the frames at most.
    """

    def __init__(self, frames: int = 256, cache: int = 64, **options: int) -> None:
        self.pool = FramePool(frames)
        for owner in ("xn", "home"):  # the registry's frames are the kernel's or the root's
            self.pool.set_quota(owner, cache)
        self.machine = Machine(pool=self.pool, **options)  # type: ignore[arg-type]
        self.disk = TimedDevice(MemoryDevice(4096))
        format_image(self.disk, uuid=uuid.UUID(int=7).bytes, label="swap")
        self.xn = Xn(self.disk, frames=self.pool)
        Ffs.mkfs(self.xn, self.xn.admin, "home")
        self.fs = Ffs.mount(self.xn, self.xn.admin, "home")
        self.posix = Posix(self.fs)

    @property
    def cached(self) -> int:
        """Frames that the registry of blocks has."""
        owner = self.machine.tables.frame_owner
        return sum(owner(frame) == 1 for frame in range(self.pool.count))

    def swap(self, name: bytes = b"swap") -> Swap:
        """A new swap file."""
        return Swap(self.posix, ROOT, self.fs.root, name, self.disk)
