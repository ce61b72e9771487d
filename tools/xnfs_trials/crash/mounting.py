"""What the image of any file system must stand, and the canary that nobody may ever read."""

from __future__ import annotations

from collections.abc import Mapping

from xnfs import Caller, FramePool, MemoryDevice, Xn
from xnfs.disk.fsck import check_image
from xnfs_trials.crash.rawdisk import BLOCK, RawDisk

CANARY = b"\xca\xfe\xba\xbe" * 4


def mount_checks(image: dict[int, bytes], blocks: int, want: Mapping[int, bytes]) -> list[str]:
    """What any file system's image must stand: recovery, fsck, collection."""
    out = []
    result = check_image(MemoryDevice(blocks, dict(image)), repair=False, report=lambda f: None)
    if not result.clean:
        found: list[str] = []
        check_image(
            MemoryDevice(blocks, dict(image)), repair=False, report=lambda f: found.append(str(f))
        )
        out += [f"fsck: {text}" for text in found]
    disk = MemoryDevice(blocks, dict(image))
    for turn in ("first", "second"):
        Xn(disk, frames=FramePool(64), clock=lambda: 1)
        low = RawDisk(disk._contents, blocks).super
        for block in range(low.map[0], blocks - 1):
            if disk._contents.get(block, bytes(BLOCK)) != want.get(block, bytes(BLOCK)):
                out.append(f"{turn} recovery left other bytes in block {block}")
    xn = Xn(disk, frames=FramePool(256), clock=lambda: 1)
    who = Caller(xn.admin)
    while not xn.collect(who, 1000).done:
        pass
    xn.close()
    result = check_image(disk, repair=False, report=lambda f: out.append(f"after collecting: {f}"))
    if result.leaked:
        out.append(f"{result.leaked} blocks are left by the collector")
    return out


def fill_canary(disk: MemoryDevice) -> int:
    """Free blocks hold bytes that nobody may ever see. Returns how many there are."""
    raw = RawDisk(disk._contents, disk.blocks)
    free = [b for b in range(raw.super.data_start, disk.blocks - 1) if not raw.in_use(b)]
    for block in free:
        disk.write(block, [CANARY * (BLOCK // len(CANARY))])
    return len(free)
