"""What the tests of LFS share: an image in memory, short ways to make things, bytes patched behind
everybody's back."""

from __future__ import annotations

import stat
import uuid
import zlib
from collections.abc import Callable
from typing import Any

from libfs.common.checking import Finding, Summary
from libfs.lfs import Lfs, check
from libfs.lfs import format as f
from libfs.lfs.log import checksum
from libfs.posix.interface import Dirent, FileSystem, Ino, New, User
from xnfs import BLOCK, FramePool, MemoryDevice, Xn, format_image
from xnfs.disk.fsck import check_image
from xnfs.disk.stacked import CountingDevice, StackedDevice

ROOT = User(0, 0)
UUID = uuid.UUID(int=7).bytes
FILE = New(stat.S_IFREG | 0o644, 0, 0)
DIR = New(stat.S_IFDIR | 0o755, 0, 0)
TOP = Ino(f.ROOT_INO)


class Kept(StackedDevice):
    """The device, without `close`: the image outlives the kernel that has it open."""

    def close(self) -> None:
        """Not yet."""


class Disk:
    """An image with one LFS, mounted again and again."""

    def __init__(self, blocks: int = 4096, frames: int = 2048) -> None:
        self.device = MemoryDevice(blocks)
        self.frames = frames
        format_image(self.device, uuid=UUID, label="test")
        self.counts = CountingDevice(Kept(self.device))
        self.xn = self._open()
        Lfs.mkfs(self.xn, self.xn.admin, "home", uuid=UUID)
        self.fs = Lfs.mount(self.xn, self.xn.admin, "home")

    def _open(self) -> Xn:
        return Xn(self.counts, frames=FramePool(self.frames))

    def close(self) -> None:
        """Unmount and close the image; its bytes stay."""
        self.fs.close()
        self.xn.close()

    def mount(self, **options: Any) -> Lfs:
        """Open a closed image and mount it."""
        self.xn = self._open()
        self.fs = Lfs.mount(self.xn, self.xn.admin, "home", **options)
        return self.fs

    def remount(self) -> Lfs:
        """Through the disk and back."""
        self.close()
        return self.mount()

    def cut(self) -> Lfs:
        """Cut the power: only what the device has now is left. Mount that."""
        self.device = self.device.fork()
        self.counts = CountingDevice(Kept(self.device))
        return self.mount()

    def check(self, *, repair: bool = False) -> tuple[Summary, list[Finding]]:
        """Check what the device has, with the kernel's fsck first, which must find nothing."""
        result = check_image(self.device, repair=False, report=lambda _f: None)
        assert result.clean, result
        xn = Xn(Kept(self.device), frames=FramePool(self.frames), readonly=not repair)
        found: list[Finding] = []
        summary = check(xn, xn.admin, "home", repair=repair, report=found.append)
        xn.close()
        return summary, found

    # -- bytes

    def raw(self, block: int) -> bytearray:
        """A block of the device."""
        raw = bytearray(BLOCK)
        self.device.read(block, [memoryview(raw)])
        return raw

    def patch(
        self, block: int, edit: Callable[[bytearray], None], *, stamped: bool = False
    ) -> None:
        """Change a block of the closed image; its checksum, or its stamp's, is made right again."""
        raw = self.raw(block)
        edit(raw)
        if stamped:
            crc = zlib.crc32(UUID + block.to_bytes(8, "little") + raw[4:])
        else:
            crc = checksum(zlib.crc32(UUID), block, raw)
        raw[0:4] = crc.to_bytes(4, "little")
        self.device.write(block, [memoryview(raw)])

    def spoil(self, block: int) -> None:
        """Turn a bit of a block over."""
        raw = self.raw(block)
        raw[2000] ^= 1
        self.device.write(block, [memoryview(raw)])

    # -- short ways

    def file(self, name: bytes, data: bytes = b"", parent: Ino = TOP) -> Ino:
        """A file with these bytes."""
        ino = self.fs.create(ROOT, parent, name, FILE)
        if data:
            assert self.fs.write(ROOT, ino, 0, data, kill_suid=False) == len(data)
        return ino

    def read(self, name: bytes, parent: Ino = TOP) -> bytes | None:
        """The bytes of a file; None if there is none."""
        return read(self.fs, name, parent)

    def names(self, directory: Ino = TOP) -> set[bytes]:
        """Of a directory."""
        return {entry.name for entry in entries(self.fs, directory)}


def read(fs: FileSystem, name: bytes, parent: Ino = TOP) -> bytes | None:
    """The bytes of a file; None if there is none."""
    ino = fs.lookup(parent, name)
    return None if ino is None else fs.read(ino, 0, fs.getattr(ino).size)


def entries(fs: FileSystem, directory: Ino = TOP) -> list[Dirent]:
    """All entries of a directory."""
    return list(fs.readdir(directory, 0))
