"""What `lfs.py` measures: each function makes its file systems, works on them, and returns figures.

Counted is what the kernel asks of its device: calls, blocks, and how far a disk's heads would have
gone. Work goes through the POSIX layer, in one process, without a mount; the write costs go to LFS
itself, to save time. Does not: print or draw (`lfs.py`).

Source of the write costs: Rosenblum and Ousterhout 1992, sections 3.4 and 3.5.
"""

from __future__ import annotations

import os
import random
import stat
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from peers import BIN, Xnfs, run

from libfs.ffs import Ffs
from libfs.lfs import Lfs
from libfs.posix import Ino, Posix, User
from libfs.posix.interface import New
from xnfs import BLOCK, FileDevice, FramePool, MemoryDevice, Xn, create_image, format_image
from xnfs.disk.device import BlockDevice, Buffers, span
from xnfs.disk.stacked import CountingDevice, IoCounts

ROOT = User(0, 0)
FILE = New(stat.S_IFREG | 0o644, 0, 0)
KINDS: dict[str, type[Ffs] | type[Lfs]] = {"FFS": Ffs, "LFS": Lfs}
POLICIES = ("greedy", "cost-benefit")
ACCESSES = ("uniform", "hot-and-cold")
MIB = 1 << 20
FRAMES = 1 << 15
#: New blocks between two syncs, where write cost is measured.
BURST = 128


@dataclass(frozen=True, slots=True)
class Cost:
    """What some work took. `own`: of the blocks written, those of the kernel's tables and log.
    `wall`: seconds, but for those in which others had the CPU."""

    counts: IoCounts
    own: int
    wall: float
    cpu: float


def _delay() -> float:
    """Seconds that this thread could have run and did not, since its beginning; Linux says."""
    try:
        words = Path("/proc/thread-self/schedstat").read_text().split()
    except OSError:
        return 0.0
    return int(words[1]) / 1e9


class Meter(CountingDevice):
    """Outlives the kernel that has it open, and knows which blocks are the kernel's own."""

    def __init__(self, below: BlockDevice) -> None:
        super().__init__(below)
        self._own = 0
        self.data_area = (0, 0)

    def write(self, start: int, views: Buffers) -> None:
        """See BlockDevice."""
        lo, hi = self.data_area
        if not lo <= start < hi:
            self._own += span(self, start, views)
        super().write(start, views)

    def close(self) -> None:
        """Not yet."""

    def cost(self, work: Callable[[], object]) -> Cost:
        """Of this work."""
        before, own = replace(self.counts), self._own
        wall, cpu = time.perf_counter() - _delay(), time.process_time()
        work()
        cpu, wall = time.process_time() - cpu, time.perf_counter() - _delay() - wall
        fields = IoCounts.__slots__
        counts = IoCounts(*(getattr(self.counts, f) - getattr(before, f) for f in fields))
        return Cost(counts, self._own - own, wall, cpu)


class Disk:
    """An image with one file system, mounted."""

    def __init__(self, kind: str, device: BlockDevice, frames: int = FRAMES) -> None:
        self.kind, self.frames = KINDS[kind], frames
        self.meter = Meter(device)
        self.now = 0  # ns; whoever cares for ages moves it
        format_image(self.meter, uuid=bytes(16), label="bench")
        self.open()
        self.kind.mkfs(self.xn, self.xn.admin, "main", uuid=bytes(16))
        self.mount()

    def open(self) -> None:
        """The kernel's part of a mount: recovery, and what it checks."""
        self.xn = Xn(self.meter, frames=FramePool(self.frames), clock=lambda: self.now)
        self.meter.data_area = self.xn.data_area

    def mount(self) -> None:
        """The file system's part."""
        self.fs = self.kind.mount(self.xn, self.xn.admin, "main")
        self.posix = Posix(self.fs)

    def checkpoint(self) -> None:
        """Unmount and mount again: nothing is dirty, and LFS has nothing to roll forward."""
        self.posix.close()
        self.xn.close()
        self.open()
        self.mount()

    @property
    def lfs(self) -> Lfs:
        """The file system, if it is one."""
        assert isinstance(self.fs, Lfs)
        return self.fs


@contextmanager
def image(folder: Path, mib: int) -> Iterator[FileDevice]:
    """A sparse file as a disk."""
    with tempfile.TemporaryDirectory(prefix="xnfs-lfs-", dir=folder) as inside:
        path = str(Path(inside) / "image")
        create_image(path, mib * MIB)
        device = FileDevice(path)
        try:
            yield device
        finally:
            device.close()


# --- small files and small writes ------------------------------------------------------------


def create_files(disk: Disk, files: int, size: int, each: int = 100) -> Cost:
    """New files in directories of `each`, with one sync at the end."""
    posix, body = disk.posix, b"x" * size

    def work() -> None:
        parent = posix.root
        for i in range(files):
            if i % each == 0:
                name = b"directory-%d" % (i // each)
                parent = posix.mkdir(ROOT, posix.root, name, 0o755).ino
            _attr, fh = posix.create(ROOT, parent, b"file-%d" % i, 0o644, os.O_RDWR)
            posix.write(fh, 0, body)
            posix.release(fh)
        posix.sync()

    return disk.meter.cost(work)


def overwrite(disk: Disk, mib: int, writes: int, every: int) -> Cost:
    """4 KiB at random places of a file of so many MiB, with an fsync after each `every`."""
    posix, rng = disk.posix, random.Random(1)
    _attr, fh = posix.create(ROOT, posix.root, b"file", 0o644, os.O_RDWR)
    for i in range(mib):
        posix.write(fh, i * MIB, bytes([i % 256]) * MIB)
    posix.fsync(fh)
    disk.checkpoint()
    fh = disk.posix.open(ROOT, disk.posix.lookup(ROOT, disk.posix.root, b"file").ino, os.O_RDWR)

    def work() -> None:
        for i in range(1, writes + 1):
            disk.posix.write(fh, rng.randrange(mib * MIB // BLOCK) * BLOCK, b"y" * BLOCK)
            if i % every == 0:
                disk.posix.fsync(fh)

    return disk.meter.cost(work)


class Mounted(Xnfs):
    """A real mount of an image with one of the two."""

    def __init__(self, folder: Path, kind: str) -> None:
        super().__init__(folder)
        self._kind = kind.lower()

    def format(self) -> None:
        run(BIN / "mkfs.xnfs", "-F", "-t", self._kind, self.image)


@dataclass(frozen=True, slots=True)
class Seconds:
    """What a program that uses the mount waits for."""

    wall: float


def mounted(where: Path, kind: str, work: Callable[[Path], None], mib: int) -> Seconds:
    """Time of `work` in a fresh mount, with its unmount: all is durable then."""
    with tempfile.TemporaryDirectory(prefix="xnfs-lfs-", dir=where) as folder:
        mount = Mounted(Path(folder), kind)
        try:
            mount.create(mib)
            start = time.perf_counter()
            work(mount.dir)
            mount.unmount()
            return Seconds(time.perf_counter() - start)
        finally:
            mount.destroy()


def create_in(folder: Path, files: int, size: int, each: int = 100) -> None:
    """As `create_files`, by path."""
    for i in range(files):
        parent = folder / f"directory-{i // each}"
        if i % each == 0:
            parent.mkdir()
        (parent / f"file-{i}").write_bytes(b"x" * size)


def overwrite_in(folder: Path, mib: int, writes: int, every: int) -> None:
    """As `overwrite`, by path; the time has the making of the file in it."""
    rng = random.Random(1)
    with open(folder / "file", "wb", buffering=0) as file:
        for _i in range(mib):
            file.write(b"x" * MIB)
        os.fsync(file)
        for i in range(1, writes + 1):
            os.pwrite(file.fileno(), b"y" * BLOCK, rng.randrange(mib * MIB // BLOCK) * BLOCK)
            if i % every == 0:
                os.fsync(file)


# --- the cleaner -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class WriteCost:
    """At one utilisation. `read`, `written`: blocks at the device for each block of new data;
    `own`: of those written, the kernel's. `cleaned`: how full the segments were that were cleaned,
    but for those without a live block."""

    utilisation: float
    read: float
    written: float
    own: float
    cleaned: float
    segments: int

    @property
    def total(self) -> float:
        """The paper's write cost."""
        return self.read + self.written


@dataclass(frozen=True, slots=True)
class NoRoom:
    """So full that the cleaner gave up."""

    full: bool = True


def write_cost(policy: str, access: str, utilisation: float, *, mib: int, warm: float) -> WriteCost:
    """Overwrite files of 4 KiB, with the disk so full, until what is written settles; then count.

    `warm`: how often the capacity is written before counting begins; then it is written once more.
    Hot-and-cold: 90 % of the writes go to 10 % of the files. A sync after each BURST of writes, so
    that few are to what waits in memory; those do not count.
    """
    disk = Disk("LFS", MemoryDevice(mib * MIB // BLOCK), frames=max(mib * MIB // BLOCK // 8, 1024))
    fs, rng = disk.lfs, random.Random(f"{access} {utilisation}")
    vol = fs.volume
    vol.cleaner.policy = policy
    files = _fill(fs, utilisation)
    rng.shuffle(files)
    hot = max(len(files) // 10, 1)

    def some(blocks: float) -> int:
        new = 0
        while new < blocks:
            if access == "uniform":
                ino = files[rng.randrange(len(files))]
            elif rng.random() < 0.9:
                ino = files[rng.randrange(hot)]
            else:
                ino = files[rng.randrange(hot, len(files))]
            v = vol.vnodes.get(ino)
            disk.now += 1000
            if v is not None and 0 in v.data:
                continue  # waits in memory: this would be no new block
            fs.write(ROOT, ino, 0, b"y" * BLOCK, kill_suid=False)
            new += 1
            if new % BURST == 0:
                fs.sync(None)
        fs.sync(None)
        return new

    capacity = vol.segments.capacity()
    some(capacity * warm)
    moved, cleaned, new = vol.cleaner.moved, vol.cleaner.cleaned, 0

    def work() -> None:
        nonlocal new
        new = some(capacity)

    cost = disk.meter.cost(work)
    cleaned = vol.cleaner.cleaned - cleaned
    return WriteCost(
        vol.segments.live / BLOCK / capacity,
        cost.counts.blocks_read / new,
        cost.counts.blocks_written / new,
        cost.own / new,
        (vol.cleaner.moved - moved) / max(cleaned, 1) / vol.segments.size,
        cleaned,
    )


def _fill(fs: Lfs, utilisation: float) -> list[Ino]:
    """Files of 4 KiB until so much of the log is live."""
    segments, files = fs.volume.segments, list[Ino]()
    while segments.live / BLOCK < utilisation * segments.capacity():
        short = utilisation * segments.capacity() - segments.live / BLOCK
        for _i in range(max(int(short / 1.05), 1)):
            name = b"file-%d" % len(files)
            files.append(fs.create(ROOT, fs.root, name, FILE))
            fs.write(ROOT, files[-1], 0, b"x" * BLOCK, kill_suid=False)
        fs.sync(None)
    return files


# --- recovery --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Recovery:
    """Of a mount after a crash. `kernel`, `lfs`: seconds of CPU; `wall`: of both."""

    kernel: float
    lfs: float
    wall: float
    reads: int
    blocks: int
    inodes: int


def recovery(folder: Path, mib: float, *, size: int, disk_mib: int) -> Recovery:
    """Files of `size` bytes, so many MiB of them after the checkpoint, fsynced; then the server is
    gone, and the image is mounted again."""
    with image(folder, disk_mib) as device:
        disk = Disk("LFS", device)
        disk.checkpoint()
        files = int(mib * MIB / size)
        for i in range(files):
            _attr, fh = disk.posix.create(ROOT, disk.posix.root, b"%d" % i, 0o644, os.O_RDWR)
            disk.posix.write(fh, 0, b"x" * size)
            if i % 256 == 255 or i + 1 == files:
                disk.posix.fsync(fh)
            disk.posix.release(fh)
        kernel = disk.meter.cost(disk.open)  # the kernel before it is gone, and never closed
        own = disk.meter.cost(disk.mount)
        names = sum(1 for _entry in disk.fs.readdir(disk.fs.root, 0))
        assert names >= files, f"{names} of {files} files are there"
        return Recovery(
            kernel.cpu,
            own.cpu,
            kernel.wall + own.wall,
            kernel.counts.reads + own.counts.reads,
            kernel.counts.blocks_read + own.counts.blocks_read,
            disk.lfs.volume.recovered,
        )


# --- snapshots -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Medians of some. `cpu`: seconds; `blocks`: written in the data area, and by the kernel."""

    cpu: float
    wall: float
    blocks: float
    own: float
    flushes: float


def snapshot(folder: Path, files: int, *, turns: int, disk_mib: int) -> Snapshot:
    """Of a file system with so many files of 4 KiB, each time after one of them has changed."""
    with image(folder, disk_mib) as device:
        disk = Disk("LFS", device)
        create_files(disk, files, BLOCK)
        disk.checkpoint()
        parent = disk.posix.lookup(ROOT, disk.posix.root, b"directory-0").ino
        fh = disk.posix.open(ROOT, disk.posix.lookup(ROOT, parent, b"file-0").ino, os.O_RDWR)
        costs = []
        for i in range(turns):
            disk.posix.write(fh, 0, b"y" * BLOCK)
            disk.posix.fsync(fh)
            costs.append(disk.meter.cost(partial(disk.lfs.snapshot, f"snapshot-{i}")))
        return Snapshot(
            *(statistics.median(getattr(c, name) for c in costs) for name in ("cpu", "wall")),
            statistics.median(c.counts.blocks_written - c.own for c in costs),
            statistics.median(c.own for c in costs),
            statistics.median(c.counts.flushes for c in costs),
        )
