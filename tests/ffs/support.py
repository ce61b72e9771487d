"""What the tests of FFS share: an image in memory, short ways to make things, bytes patched behind
the kernel's back."""

from __future__ import annotations

import stat
import uuid
import zlib
from collections.abc import Callable

from libfs.common.checking import Finding
from libfs.ffs import Ffs, Summary, check
from libfs.posix.interface import Ino, New, User
from xnfs import BLOCK, FramePool, MemoryDevice, Xn, format_image

ROOT = User(0, 0)
ALICE = User(1000, 1000, (1000, 44))
BOB = User(1001, 1001, (1001,))
UUID = uuid.UUID(int=7).bytes
FILE = New(stat.S_IFREG | 0o644, 0, 0)
DIR = New(stat.S_IFDIR | 0o755, 0, 0)


class Disk:
    """An image with one FFS, mounted again and again."""

    def __init__(self, blocks: int = 8192, frames: int = 4096, flags: int = 0) -> None:
        self.device = MemoryDevice(blocks)
        self.frames = frames
        format_image(self.device, uuid=UUID, label="test")
        self.xn = self._open()
        Ffs.mkfs(self.xn, self.xn.admin, "home", flags=flags)
        self.fs = Ffs.mount(self.xn, self.xn.admin, "home")

    def _open(self) -> Xn:
        return Xn(_Shared(self.device), frames=FramePool(self.frames))  # type: ignore[arg-type]

    def close(self) -> None:
        """Unmount and close the image; its bytes stay."""
        self.fs.close()
        self.xn.close()

    def remount(self) -> Ffs:
        """Unmount, close the image, open it and mount again."""
        self.close()
        return self.mount()

    def mount(self) -> Ffs:
        """Open a closed image and mount it."""
        self.xn = self._open()
        self.fs = Ffs.mount(self.xn, self.xn.admin, "home")
        return self.fs

    def check(self, *, repair: bool = False) -> tuple[Summary, list[Finding]]:
        """Unmount, check, mount again."""
        self.close()
        self.xn = self._open()
        found: list[Finding] = []
        summary = check(self.xn, self.xn.admin, "home", repair=repair, report=found.append)
        self.xn.close()
        return summary, found

    def patch(self, block: int, edit: Callable[[bytearray], None]) -> None:
        """Change a block of the closed image; its stamp's checksum is made right again."""
        raw = bytearray(BLOCK)
        self.device.read(block, [memoryview(raw)])
        edit(raw)
        crc = zlib.crc32(UUID + block.to_bytes(8, "little") + raw[4:])
        raw[0:4] = crc.to_bytes(4, "little")
        self.device.write(block, [memoryview(raw)])


class _Shared:
    """The device, without `close`: the image outlives the kernel that has it open."""

    def __init__(self, device: MemoryDevice) -> None:
        self._device = device

    def __getattr__(self, name: str) -> object:
        return getattr(self._device, name)

    def close(self) -> None:
        """Not yet."""


def write(fs: Ffs, ino: Ino, offset: int, data: bytes) -> None:
    """Write all of it."""
    assert fs.write(ROOT, ino, offset, data, kill_suid=False) == len(data)
