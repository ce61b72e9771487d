"""What must not grow with size: directories, images, memory, flushes.

    python benchmarks/scale.py [--files 100000]

Rates at the beginning and at the end are measured in the same run, on a real mount.
"""

from __future__ import annotations

import argparse
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from peers import BIN, Xnfs, run, wait

from libfs.ffs import Ffs
from libfs.posix import Posix, User
from xnfs import FramePool, MemoryDevice, Xn, format_image
from xnfs.disk.stacked import CountingDevice

ROOT = User(0, 0)
TENTHS = 10


def tenths(items: list[Path], work: Callable[[Path], object]) -> tuple[float, float]:
    """Operations a second over the first and over the last tenth."""
    size = len(items) // TENTHS
    rates = []
    for k in range(TENTHS):
        start = time.perf_counter()
        for item in items[k * size : (k + 1) * size]:
            work(item)
        rates.append(size / (time.perf_counter() - start))
    return rates[0], rates[-1]


def directory(files: int) -> None:
    """Create, stat and unlink many files in one directory."""
    with tempfile.TemporaryDirectory(prefix="xnfs-bench-") as folder:
        m = Xnfs(Path(folder))
        try:
            m.create(4096)
            many = m.dir / "many"
            many.mkdir()
            paths = [many / f"file-{i:07d}" for i in range(files)]

            def create(path: Path) -> None:
                os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY))

            for name, work in (("create", create), ("stat", os.stat), ("unlink", os.unlink)):
                first, last = tenths(paths, work)  # type: ignore[arg-type]
                print(
                    f"| {name} of {files} files: first tenth, last tenth | ops/s |"
                    f" {first:.0f}, {last:.0f} | {last / first:.2f} |"
                )
        finally:
            m.destroy()


def terabyte() -> None:
    """mkfs of 1 TiB, and a mount after the server was killed."""
    with tempfile.TemporaryDirectory(prefix="xnfs-bench-") as folder:
        image, where = Path(folder) / "t.img", Path(folder) / "t"
        where.mkdir()
        start = time.perf_counter()
        run(BIN / "mkfs.xnfs", "-F", image, "1t")
        secs = time.perf_counter() - start
        written = os.stat(image).st_blocks * 512 / 2**20
        print(f"| mkfs of 1 TiB | s, MiB written | {secs:.2f}, {written:.1f} | |")
        server = mount_in_foreground(image, where)
        (where / "f").write_bytes(b"x" * 100_000)
        fd = os.open(where / "f", os.O_RDONLY)
        os.fsync(fd)
        os.close(fd)
        print(f"| memory of that mount | MiB resident | {resident(server.pid):.0f} | |")
        server.send_signal(signal.SIGKILL)
        server.wait()
        start = time.perf_counter()
        run(BIN / "mount.xnfs", image, where)
        secs = time.perf_counter() - start
        assert (where / "f").stat().st_size == 100_000
        print(f"| mount of 1 TiB after a kill | s | {secs:.2f} | |")
        run(BIN / "umount.xnfs", where)


def mount_in_foreground(image: Path, where: Path) -> subprocess.Popen[bytes]:
    """A server that is our child, so that it can be killed and looked at by number."""
    server = subprocess.Popen([BIN / "mount.xnfs", "-f", image, where])
    wait(lambda: os.path.ismount(where))
    return server


def resident(pid: int) -> float:
    """MiB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    return 0.0


def flushes() -> None:
    """Device flushes for an fsync and for a sync, counted at the device."""
    device = CountingDevice(MemoryDevice(65536))
    format_image(device, uuid=bytes(16), label="", now=0)
    xn = Xn(device, frames=FramePool(16384))
    Ffs.mkfs(xn, xn.admin, "main")
    posix = Posix(Ffs.mount(xn, xn.admin, "main"))
    root = posix.root
    _attr, fh = posix.create(ROOT, root, b"log", 0o644, os.O_WRONLY, 0)
    posix.write(fh, 0, b"x" * 4096)
    posix.fsync(fh)
    before = device.counts.flushes
    posix.write(fh, 4096, b"x" * 4096)
    posix.fsync(fh)
    print(f"| fsync of a 4 KiB append | flushes | {device.counts.flushes - before} | |")
    for i in range(1000):
        _attr, one = posix.create(ROOT, root, b"f%d" % i, 0o644, os.O_WRONLY, 0)
        posix.write(one, 0, b"x" * 4096)
        posix.release(one)
    before = device.counts.flushes
    posix.sync()
    print(f"| sync of 1,000 new files | flushes | {device.counts.flushes - before} | |")
    posix.close()


def main() -> int:
    """Print the table."""
    ap = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    ap.add_argument("--files", type=int, default=100_000)
    args = ap.parse_args()
    print(f"Python {platform.python_version()}, Linux {platform.release()},", end=" ")
    print(f"{os.cpu_count()} CPUs\n")
    print("| what | unit | figure | ratio |\n|---|---|---:|---:|")
    flushes()
    terabyte()
    directory(args.files)
    return 0


if __name__ == "__main__":
    sys.exit(main())
