"""Small files: requests to the device, with each read by itself and with C-FFS (`-o cffs`).

    python benchmarks/cffs.py [--files 10000] [--directories 100]

The benchmark of Ganger and Kaashoek 1997: create, read, overwrite and delete so many small files,
each phase on a cold cache and with a sync at its end. Counted is what the kernel asks of its
device: calls, not what becomes of them in the host's page cache. Nothing is timed but CPU, so the
counts are the same on every run.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

from libfs.ffs import Ffs
from libfs.posix import Ino, Posix, User
from xnfs import FramePool, MemoryDevice, Xn, format_image
from xnfs.disk.stacked import CountingDevice

ROOT = User(0, 0)
SIZES = (1024, 4096, 10_000, 16_384)
PHASES = ("create", "read", "overwrite", "delete")


class Cost(NamedTuple):
    """Of one phase: requests, blocks, CPU seconds."""

    reads: int
    writes: int
    blocks: int
    cpu: float

    @property
    def requests(self) -> int:
        """Of both kinds."""
        return self.reads + self.writes


class Kept(MemoryDevice):
    """Outlives the kernel that has it open."""

    def close(self) -> None:
        """See BlockDevice."""


class Run:
    """One file system and its files."""

    def __init__(self, *, grouping: bool, size: int, directories: int, each: int) -> None:
        self._grouping, self._size, self._count = grouping, size, directories
        self._device = CountingDevice(Kept(1 << 20))
        self._files = [(d, b"file-%d" % i) for d in range(directories) for i in range(each)]
        format_image(self._device, uuid=bytes(16), label="bench")
        xn = Xn(self._device, frames=FramePool(256))
        Ffs.mkfs(xn, xn.admin, "main")
        xn.close()
        self._open()
        for number in range(directories):
            self._posix.mkdir(ROOT, self._posix.root, b"directory-%d" % number, 0o755)

    def _open(self) -> None:
        self._xn = Xn(self._device, frames=FramePool(1 << 17))
        fs = Ffs.mount(self._xn, self._xn.admin, "main", grouping=self._grouping)
        self._posix = Posix(fs)

    def phase(self, name: str) -> Cost:
        """Remount, and do it."""
        self._posix.close()
        self._xn.close()
        self._open()
        root = self._posix.root
        lookup = self._posix.lookup
        above = [lookup(ROOT, root, b"directory-%d" % n).ino for n in range(self._count)]
        before, start = replace(self._device.counts), time.process_time()
        work: Callable[[Ino, bytes], None] = getattr(self, f"_{name}")
        for directory, file in self._files:
            work(above[directory], file)
        self._posix.sync()
        now, cpu = self._device.counts, time.process_time() - start
        blocks = now.blocks_read + now.blocks_written
        blocks -= before.blocks_read + before.blocks_written
        return Cost(now.reads - before.reads, now.writes - before.writes, blocks, cpu)

    def _create(self, directory: Ino, name: bytes) -> None:
        _attr, fh = self._posix.create(ROOT, directory, name, 0o644, os.O_RDWR)
        self._posix.write(fh, 0, b"x" * self._size)
        self._posix.release(fh)

    def _read(self, directory: Ino, name: bytes) -> None:
        ino = self._posix.lookup(ROOT, directory, name).ino
        fh = self._posix.open(ROOT, ino, os.O_RDONLY | os.O_NOATIME)
        assert len(self._posix.read(fh, 0, self._size)) == self._size
        self._posix.release(fh)

    def _overwrite(self, directory: Ino, name: bytes) -> None:
        ino = self._posix.lookup(ROOT, directory, name).ino
        fh = self._posix.open(ROOT, ino, os.O_RDWR)
        self._posix.write(fh, 0, b"y" * self._size)
        self._posix.release(fh)

    def _delete(self, directory: Ino, name: bytes) -> None:
        self._posix.unlink(ROOT, directory, name)


def main() -> None:
    """The command of the head."""
    options = argparse.ArgumentParser(description="Small files, with and without C-FFS.")
    options.add_argument("--files", type=int, default=10_000)
    options.add_argument("--directories", type=int, default=100)
    chosen = options.parse_args()
    each = chosen.files // chosen.directories
    print(f"{chosen.files} files in {chosen.directories} directories\n")
    print("| size | phase | requests, each by itself | with C-FFS | ratio | µs of CPU a file |")
    print("|---:|---|---:|---:|---:|---:|")
    for size in SIZES:
        runs = [
            Run(grouping=grouping, size=size, directories=chosen.directories, each=each)
            for grouping in (False, True)
        ]
        sums = [0, 0]
        for name in PHASES:
            plain, grouped = (run.phase(name) for run in runs)
            sums = [sums[0] + plain.requests, sums[1] + grouped.requests]
            micro = [cost.cpu * 1e6 / chosen.files for cost in (plain, grouped)]
            print(
                f"| {size} | {name} | {plain.reads} + {plain.writes} | "
                f"{grouped.reads} + {grouped.writes} | {grouped.requests / plain.requests:.2f} | "
                f"{micro[0]:.0f}, {micro[1]:.0f} |"
            )
        print(f"| {size} | all | {sums[0]} | {sums[1]} | {sums[1] / sums[0]:.3f} | |")


if __name__ == "__main__":
    main()
