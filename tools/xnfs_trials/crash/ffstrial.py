"""FFS on a tiny image under random operations: the trial that the explorer runs most.

The raw bytes are judged by `checker.py`, the promise by `model.py`; then the image is mounted with
the real code, and what that shows must be what the raw bytes show.
"""

from __future__ import annotations

import random
import stat
from collections.abc import Callable, Mapping, Sequence

from libfs.ffs.ffs import Ffs
from libfs.posix.interface import Ino, User
from xnfs import Caller, FramePool, MemoryDevice, Xn, format_image
from xnfs.disk.fsck import check_image
from xnfs.disk.recording import RecordingDevice
from xnfs_trials.crash.checker import check_recovered
from xnfs_trials.crash.explore import contents, recorded
from xnfs_trials.crash.model import Cut
from xnfs_trials.crash.mounting import CANARY, fill_canary, mount_checks
from xnfs_trials.crash.rawdisk import RawDisk
from xnfs_trials.crash.rawwalk import Inode, Report
from xnfs_trials.crash.workload import Op, Workload

UUID = bytes(range(16))
ROOT = User(0, 0)


def clock() -> Callable[[], int]:
    """A millisecond a call."""
    now = [1_700_000_000_000_000_000]

    def tick() -> int:
        now[0] += 1_000_000
        return now[0]

    return tick


def new_disk(blocks: int, log_blocks: int | None = None, flags: int = 0) -> MemoryDevice:
    """An image with an empty FFS, marked clean."""
    disk = MemoryDevice(blocks)
    format_image(disk, uuid=UUID, label="crash", log_blocks=log_blocks)
    xn = Xn(disk, frames=FramePool(256), clock=clock())
    Ffs.mkfs(xn, xn.admin, "root", uuid=UUID, flags=flags)
    xn.close()
    return disk


def open_fs(disk: MemoryDevice | RecordingDevice, frames: int = 512) -> tuple[Xn, Ffs]:
    """Mount."""
    xn = Xn(disk, frames=FramePool(frames), clock=clock())
    return xn, Ffs.mount(xn, xn.admin, "root")


class FfsTrial:
    """One sequence of operations, run and recorded."""

    def __init__(
        self,
        ops: Sequence[Op],
        *,
        blocks: int = 512,
        frames: int = 512,
        log_blocks: int | None = None,
        flags: int = 0,
    ) -> None:
        self.blocks = blocks
        disk = new_disk(blocks, log_blocks, flags)
        self.free = fill_canary(disk)
        self.base = contents(disk)
        self.device = RecordingDevice(disk)
        self.xn, self.fs = open_fs(self.device, frames)
        rng = random.Random(len(ops))

        def writeback(n: int) -> None:
            lo, hi = self.xn.data_area
            chosen = [b for b in range(lo, hi) if rng.random() < 0.4]
            self.xn.writeback(self.fs.volume.who, chosen)

        def evict(n: int) -> None:
            self.fs.volume.cache._evict(n)

        self.work = Workload(
            self.fs, lambda: len(self.device.events), evict=evict, writeback=writeback
        )
        self.work.run(ops)
        self.work.apply(("sync", 0, 0, 0))
        self.events = recorded(self.device)
        self.marks = self.work.marks
        model = self.work.model
        acks = {e for n in model.nodes.values() for h in (n.acks, n.data_acks) for e in h.at}
        self.asks = sorted(acks)

    def describe(self) -> list[str]:
        return self.work.log

    def inspect(self, disk: RawDisk) -> tuple[list[str], object]:
        report = check_recovered(disk, CANARY)
        return [f"{f.rule} block {f.block}: {f.text}" for f in report.findings], report

    def promise(self, shown: object, cut: Cut) -> list[str]:
        assert isinstance(shown, Report)
        return list(self.work.model.explain(shown, cut))

    def mount(
        self, image: dict[int, bytes], recovered: Mapping[int, bytes], shown: object
    ) -> list[str]:
        assert isinstance(shown, Report)
        out = mount_checks(image, self.blocks, recovered)
        disk = MemoryDevice(self.blocks, dict(image))
        xn, fs = open_fs(disk)
        out += compare(fs, shown)
        return out + _use_up(disk, xn, fs, shown)


def compare(fs: Ffs, report: Report) -> list[str]:
    """Does the real code see what the checker saw?"""
    out = []
    for path, inode in report.tree().items():
        ino = int(fs.root)
        for name in path.split(b"/")[1:] if path != b"/" else []:
            found = fs.lookup(Ino(ino), name)
            if found is None:
                out.append(f"mounted, {path!r} is not there")
                break
            ino = int(found)
        else:
            out += _compare_inode(fs, path, ino, inode)
    return out


def _compare_inode(fs: Ffs, path: bytes, ino: int, inode: Inode) -> list[str]:
    attr = fs.getattr(Ino(ino))
    size = attr.size if not stat.S_ISDIR(attr.mode) else inode.size  # FFS makes one up
    got = (ino, attr.mode, attr.nlink, attr.uid, size)
    want = (inode.ino, inode.mode, inode.nlink, inode.uid, inode.size)
    if got != want:
        return [f"mounted, {path!r} is {got}, not {want}"]
    if stat.S_ISREG(inode.mode) and fs.read(Ino(ino), 0, inode.size + 1) != inode.content():
        return [f"mounted, {path!r} has other bytes"]
    if stat.S_ISLNK(inode.mode) and fs.readlink(Ino(ino)) != inode.target:
        return [f"mounted, {path!r} has another target"]
    attrs = {name: fs.getxattr(Ino(ino), name) for name in fs.listxattr(Ino(ino))}
    if attrs != inode.xattrs:
        return [f"mounted, {path!r} has attributes {attrs}"]
    if stat.S_ISDIR(inode.mode):
        names = {d.name for d in fs.readdir(Ino(ino), 0)}
        if names != inode.entries.keys():
            return [f"mounted, {path!r} lists {names}"]
    return []


def _use_up(disk: MemoryDevice, xn: Xn, fs: Ffs, report: Report) -> list[str]:
    """Delete everything, collect: nothing may be left but the root directory."""
    tree = report.tree()
    for path in sorted(tree, key=lambda p: -p.count(b"/")):
        if path == b"/":
            continue
        parent, name = path.rsplit(b"/", 1)
        fs.unlink(ROOT, Ino(tree[parent or b"/"].ino), name, keep=False)
    root = tree[b"/"]
    for name in root.xattrs:
        fs.removexattr(ROOT, Ino(root.ino), name)
    fs.close()
    while not xn.collect(Caller(xn.admin), 1000).done:
        pass
    xn.close()
    out: list[str] = []
    result = check_image(disk, repair=False, report=lambda f: out.append(f"emptied, fsck: {f}"))
    raw = RawDisk(disk._contents, disk.blocks)
    raw.recover()
    left = check_recovered(raw)
    out += [f"emptied: {f.rule} block {f.block}: {f.text}" for f in left.findings]
    used = sum(raw.in_use(b) for b in range(raw.super.data_start, disk.blocks - 1))
    if result.leaked or left.leaks or used > 2 + _tables_left(left):
        out.append(f"emptied, {used} blocks are in use, {len(left.leaks)} leaked")
    return out


def _tables_left(report: Report) -> int:
    """A directory that was hashed may keep its tables: blocks of the root beyond its own."""
    return report.inodes[report.root].owned if report.root in report.inodes else 0
