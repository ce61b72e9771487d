"""xnfs against fuse2fs: the same work on both, in turns, in one run.

    python benchmarks/compare.py [--runs 3] [--only REGEX] [--mib 1024] [--json FILE]

Rates are medians over the runs; the ratio is xnfs / fuse2fs, so more than 1 is ahead. Cold phases
come after a remount and dropped kernel caches (as root). The order of the two changes from run to
run.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import re
import sqlite3
import statistics
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from mounts import Fuse2fs, Mount, Xnfs

CHUNK = os.urandom(1 << 20)
Phase = Callable[[Mount], tuple[float, float]]  # (amount of work, seconds)


def timed(amount: float, work: Callable[[], object]) -> tuple[float, float]:
    """Run once."""
    start = time.perf_counter()
    work()
    return amount, time.perf_counter() - start


def seq_write(m: Mount, mib: int = 256) -> tuple[float, float]:
    """1 MiB writes, then fsync."""

    def work() -> None:
        fd = os.open(m.dir / "big", os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
        for _ in range(mib):
            os.write(fd, CHUNK)
        os.fsync(fd)
        os.close(fd)

    return timed(mib, work)


def read_all(m: Mount) -> tuple[float, float]:
    """1 MiB reads of the whole file."""
    size = os.stat(m.dir / "big").st_size >> 20

    def work() -> None:
        fd = os.open(m.dir / "big", os.O_RDONLY)
        while os.read(fd, 1 << 20):
            pass
        os.close(fd)

    return timed(size, work)


def seq_read_cold(m: Mount) -> tuple[float, float]:
    """After a remount."""
    m.remount()
    return read_all(m)


def seq_read_warm(m: Mount) -> tuple[float, float]:
    """Again. The other file system's cold phase has dropped the caches of both, so once untimed."""
    read_all(m)
    return read_all(m)


def rand_write(m: Mount, n: int = 1024) -> tuple[float, float]:
    """4 KiB at random places, fsync after each 32."""
    rng = random.Random(1)
    fd = os.open(m.dir / "big", os.O_WRONLY)
    blocks = os.fstat(fd).st_size >> 12

    def work() -> None:
        for i in range(n):
            os.pwrite(fd, CHUNK[:4096], rng.randrange(blocks) << 12)
            if i % 32 == 31:
                os.fsync(fd)

    result = timed(n, work)
    os.close(fd)
    return result


def append_fsync(m: Mount, n: int = 200) -> tuple[float, float]:
    """Append 4 KiB, fsync, again."""
    fd = os.open(m.dir / "log", os.O_CREAT | os.O_WRONLY | os.O_APPEND)

    def work() -> None:
        for _ in range(n):
            os.write(fd, CHUNK[:4096])
            os.fsync(fd)

    result = timed(n, work)
    os.close(fd)
    return result


def names(m: Mount, n: int) -> list[Path]:
    """The files of the metadata phases."""
    return [m.dir / "many" / f"file-{i:06d}" for i in range(n)]


FILES = 5000


def create(m: Mount) -> tuple[float, float]:
    """Empty files in one directory."""
    (m.dir / "many").mkdir()

    def work() -> None:
        for path in names(m, FILES):
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY))

    return timed(FILES, work)


def stat_cold(m: Mount) -> tuple[float, float]:
    """Each once, in random order, after a remount."""
    m.remount()
    paths = names(m, FILES)
    random.Random(2).shuffle(paths)
    return timed(FILES, lambda: [os.stat(p) for p in paths])


def stat_warm(m: Mount) -> tuple[float, float]:
    """Again, once untimed first."""
    paths = names(m, FILES)
    for path in paths:
        os.stat(path)
    return timed(FILES, lambda: [os.stat(p) for p in paths])


def unlink(m: Mount) -> tuple[float, float]:
    """All of them."""
    return timed(FILES, lambda: [os.unlink(p) for p in names(m, FILES)])


def untar(m: Mount) -> tuple[float, float]:
    """Unpack Python's standard library; the figure is trees a second."""
    (m.dir / "tree").mkdir()
    tar = source_tree()
    return timed(1, lambda: subprocess.run(["tar", "xf", tar, "-C", m.dir / "tree"], check=True))


def remove_tree(m: Mount) -> tuple[float, float]:
    """rm -rf of that; trees a second."""
    return timed(1, lambda: subprocess.run(["rm", "-rf", m.dir / "tree"], check=True))


def sqlite(m: Mount, n: int = 300) -> tuple[float, float]:
    """One-row transactions, default journal."""
    db = sqlite3.connect(m.dir / "t.db", isolation_level=None)
    db.execute("create table t (id integer primary key, v text)")

    def work() -> None:
        for i in range(n):
            db.execute("insert into t (v) values (?)", (f"row {i} " + "x" * 80,))

    result = timed(n, work)
    db.close()
    return result


PHASES: list[tuple[str, str, Phase]] = [
    ("sequential write + fsync", "MiB/s", seq_write),
    ("sequential read, cold", "MiB/s", seq_read_cold),
    ("sequential read, warm", "MiB/s", seq_read_warm),
    ("4 KiB random write, fsync each 32", "ops/s", rand_write),
    ("4 KiB append + fsync", "ops/s", append_fsync),
    ("create", "ops/s", create),
    ("stat, cold", "ops/s", stat_cold),
    ("stat, warm", "ops/s", stat_warm),
    ("unlink", "ops/s", unlink),
    ("unpack a source tree", "trees/s", untar),
    ("remove it", "trees/s", remove_tree),
    ("SQLite transactions", "tx/s", sqlite),
]


def source_tree() -> str:
    """A tar of the running Python's standard library, made once a run."""
    path = Path(tempfile.gettempdir()) / f"xnfs-bench-stdlib-{os.getpid()}.tar"
    if not path.exists():
        skip = {"__pycache__", "site-packages", "test"}
        with tarfile.open(path, "w") as tar:
            tar.add(
                sysconfig.get_paths()["stdlib"],
                "lib",
                filter=lambda t: None if skip & set(Path(t.name).parts) else t,
            )
    return str(path)


def one_run(kinds: list[type[Mount]], mib: int, only: str) -> dict[str, dict[str, float]]:
    """All phases on fresh images, phase by phase, the file systems in turn."""
    rates: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory(prefix="xnfs-bench-") as folder:
        mounts = [kind(Path(folder), mib) for kind in kinds]
        try:
            for phase, _unit, work in PHASES:
                if not re.search(only, phase):
                    continue
                for m in mounts:
                    os.sync()
                    amount, seconds = work(m)
                    rates.setdefault(phase, {})[m.name] = amount / seconds
        finally:
            for m in mounts:
                m.unmount()
    return rates


def main() -> int:
    """Print the table."""
    ap = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ap.add_argument("--runs", type=int, default=3)
    ap.add_argument("--only", default="")
    ap.add_argument("--mib", type=int, default=1024)
    ap.add_argument("--json")
    args = ap.parse_args()
    kinds: list[type[Mount]] = [Xnfs, Fuse2fs] if Fuse2fs.available() else [Xnfs]
    runs = [
        one_run(kinds if i % 2 == 0 else kinds[::-1], args.mib, args.only) for i in range(args.runs)
    ]
    os.unlink(source_tree())
    print(f"Python {platform.python_version()}, Linux {platform.release()}, {os.cpu_count()} CPUs,")
    print(f"medians of {args.runs} runs, images of {args.mib} MiB\n")
    print("| phase | unit | xnfs | fuse2fs | ratio |\n|---|---|---:|---:|---:|")
    rows = {}
    for phase, unit, _work in PHASES:
        if phase not in runs[0]:
            continue
        mid = {k.name: statistics.median(r[phase][k.name] for r in runs) for k in kinds}
        peer = mid.get("fuse2fs")
        ratio = f"{mid['xnfs'] / peer:.2f}" if peer else "-"
        print(f"| {phase} | {unit} | {mid['xnfs']:.1f} | {peer or 0:.1f} | {ratio} |")
        rows[phase] = mid
    if args.json:
        Path(args.json).write_text(json.dumps(rows, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
