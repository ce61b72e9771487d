"""µs of server CPU for each kind of operation: xnfs and fuse2fs, measured the same way.

    python benchmarks/cost.py [--runs N] [--quick] [--only REGEX]
    python benchmarks/cost.py --profile KIND [--number N]

What a file system in user space costs is the time its server computes, whoever waits for it. Each
kind of operation is done many times on a real mount; the figure is the server's CPU time meanwhile
(user and system, all its threads, from the process's CPU clock, clock_getcpuclockid(3)), divided by
their number. A last sync is part of it, so work that was put off is not forgotten.

xnfs appears twice: with `nospin`, which is the work alone, and as it is mounted by default, where
the server also looks for the next request for a moment before it sleeps.

`--profile` shows where the time of one kind goes in our server, in this process, by `synthetic.py`.
"""

from __future__ import annotations

import argparse
import os
import platform
import random
import re
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from peers import Fuse2fs, Peer, Xnfs, drop_caches, end_like_ctrl_c

PAGE = os.urandom(4096)
MIB = os.urandom(1 << 20)
Work = Callable[[Path, int], Iterator[None]]
#: What is forgotten between preparation and work: nothing; the host kernel's pages; its names and
#: inodes; everything on both sides, by a remount.
KEEP, PAGES, NAMES, ALL = range(4)


class Spinning(Xnfs):
    """As mounted by default."""

    name = "xnfs-default"
    title = "xnfs as mounted"


class Working(Xnfs):
    """The work alone."""

    title = "xnfs"
    options = "transport=kernel,nospin"


SERVERS: list[type[Peer]] = [Working, Spinning, Fuse2fs]


# -- the kinds: preparation up to the `yield`, work behind it


def paths(top: Path, n: int, prefix: str = "f") -> list[Path]:
    """So many names."""
    return [top / f"{prefix}{i:05d}" for i in range(n)]


def make(path: Path, data: bytes = b"") -> None:
    """A file, with one write if it is not empty."""
    fd = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
    if data:
        os.write(fd, data)
    os.close(fd)


def simple(act: Callable[[Path], object], ready: Callable[[Path], object] | None = None) -> Work:
    """`act` on each of n names, after `ready` on each."""

    def work(top: Path, n: int) -> Iterator[None]:
        for path in paths(top, n):
            if ready is not None:
                ready(path)
        yield
        for path in paths(top, n):
            act(path)

    return work


def link(top: Path, n: int) -> Iterator[None]:
    """All to one inode."""
    make(top / "target")
    yield
    for path in paths(top, n):
        os.link(top / "target", path)


def list_names(top: Path, n: int) -> Iterator[None]:
    """One directory, entry by entry."""
    for path in paths(top, n):
        make(path)
    yield
    if len(os.listdir(top)) != n:
        raise SystemExit("entries are missing")


def file_of(top: Path, size: int) -> Path:
    """A file of random bytes."""
    with open(top / "file", "wb") as f:
        for at in range(0, size, len(MIB)):
            f.write(MIB[: size - at])
    return top / "file"


def read_pages(top: Path, n: int) -> Iterator[None]:
    """4 KiB each, in random order, without read-ahead."""
    path = file_of(top, n * 4096)
    order = random.Random(1).sample(range(n), n)
    yield
    fd = os.open(path, os.O_RDONLY)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_RANDOM)
    for page in order:
        os.pread(fd, 4096, page * 4096)
    os.close(fd)


def read_through(top: Path, n: int) -> Iterator[None]:
    """n MiB in a row."""
    path = file_of(top, n << 20)
    yield
    with open(path, "rb", buffering=0) as f:
        while f.read(1 << 20):
            pass


def write_through(top: Path, n: int) -> Iterator[None]:
    """n MiB in a row."""
    yield
    file_of(top, n << 20)


def syncing(sync: Callable[[int], None], *, append: bool) -> Work:
    """A page, made durable, again and again."""

    def work(top: Path, n: int) -> Iterator[None]:
        path = file_of(top, 0 if append else n * 4096)
        fd = os.open(path, os.O_WRONLY)
        yield
        for i in range(n):
            os.pwrite(fd, PAGE, i * 4096)
            sync(fd)
        os.close(fd)

    return work


class Kind(NamedTuple):
    """One line of the table."""

    name: str
    unit: str
    number: int
    forget: int
    work: Work


def rename(path: Path) -> None:
    """Within the directory."""
    os.rename(path, path.with_suffix(".new"))


KINDS = [
    Kind("create, empty", "file", 1000, KEEP, simple(make)),
    Kind("create, write 4 KiB, close", "file", 1000, KEEP, simple(lambda p: make(p, PAGE))),
    Kind("mkdir", "directory", 500, KEEP, simple(os.mkdir)),
    Kind("symlink", "link", 500, KEEP, simple(lambda p: os.symlink("target", p))),
    Kind("link", "link", 500, KEEP, link),
    Kind("rename", "file", 1000, KEEP, simple(rename, make)),
    Kind("chmod", "file", 1000, KEEP, simple(lambda p: os.chmod(p, 0o600), make)),
    Kind("setxattr", "file", 500, KEEP, simple(lambda p: os.setxattr(p, "user.a", b"1"), make)),
    Kind("unlink, empty", "file", 1000, KEEP, simple(os.unlink, make)),
    Kind("unlink, 4 KiB", "file", 1000, KEEP, simple(os.unlink, lambda p: make(p, PAGE))),
    Kind("rmdir", "directory", 500, KEEP, simple(os.rmdir, os.mkdir)),
    Kind("lookup (stat, the server knows it)", "file", 2000, NAMES, simple(os.stat, make)),
    Kind("stat, cold", "file", 2000, ALL, simple(os.stat, make)),
    Kind("readdir, the server knows it", "entry", 2000, NAMES, list_names),
    Kind("readdir, cold", "entry", 2000, ALL, list_names),
    Kind("read 4 KiB, the server has it", "page", 2000, PAGES, read_pages),
    Kind("read 4 KiB, cold", "page", 2000, ALL, read_pages),
    Kind("read in a row, the server has it", "MiB", 32, PAGES, read_through),
    Kind("read in a row, cold", "MiB", 64, ALL, read_through),
    Kind("write in a row", "MiB", 64, KEEP, write_through),
    Kind("overwrite 4 KiB + fsync", "page", 300, KEEP, syncing(os.fsync, append=False)),
    Kind("overwrite 4 KiB + fdatasync", "page", 300, KEEP, syncing(os.fdatasync, append=False)),
    Kind("append 4 KiB + fsync", "page", 300, KEEP, syncing(os.fsync, append=True)),
]


# -- measuring


def cpu(pid: int) -> int:
    """ns that a process has computed so far, threads that have ended included."""
    return time.clock_gettime_ns((~pid << 3) | 2)  # the CPU clock of a process, CPUCLOCK_SCHED


def settle(top: Path) -> None:
    """Have everything durable, and the server's answers to what the kernel forgot over with."""
    os.sync()
    fd = os.open(top, os.O_RDONLY)
    os.fsync(fd)
    os.close(fd)


class Server:
    """One peer, mounted with its server as our child."""

    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        self._process = peer.serve()

    def restart(self) -> None:
        """Unmount, forget, mount."""
        self.peer.unmount()
        self._process.wait()
        drop_caches()
        self._process = self.peer.serve()

    def measure(self, kind: Kind, number: int) -> float:
        """µs an operation."""
        top = self.peer.dir / "work"
        top.mkdir()
        steps = kind.work(top, number)
        next(steps)
        settle(top)
        if kind.forget == ALL:
            self.restart()
        elif kind.forget != KEEP:
            drop_caches(kind.forget)
        os.stat(top)
        time.sleep(0.2)
        before = cpu(self._process.pid)
        for _ in steps:
            pass
        settle(top)
        spent = cpu(self._process.pid) - before
        for path in top.iterdir():
            path.rmdir() if path.is_dir() else path.unlink()
        top.rmdir()
        return spent / number / 1000

    def end(self) -> None:
        """Leave nothing behind."""
        self.peer.destroy()
        self._process.wait()


def one_run(kinds: list[Kind], servers: list[type[Peer]], quick: bool) -> dict[str, list[float]]:
    """µs by kind, a figure for each server."""
    found: dict[str, list[float]] = {kind.name: [] for kind in kinds}
    for one in servers:
        with tempfile.TemporaryDirectory(prefix="xnfs-bench-", dir="/var/tmp") as folder:
            peer = one(Path(folder))
            try:
                peer.prepare(1024)
                server = Server(peer)
                try:
                    for kind in kinds:
                        number = max(20, kind.number // 10) if quick else kind.number
                        found[kind.name].append(server.measure(kind, number))
                finally:
                    server.end()
            finally:
                peer.destroy()
    return found


def table(kinds: list[Kind], servers: list[type[Peer]], runs: list[dict[str, list[float]]]) -> None:
    """Markdown."""
    compared = Fuse2fs in servers
    print(f"Python {platform.python_version()}, Linux {platform.release()}, {os.cpu_count()} CPUs;")
    print(f"medians of {len(runs)} run{'s' * (len(runs) != 1)}, µs of server CPU\n")
    titles = " | ".join(one.title for one in servers)
    print(f"| operation | for each | {titles} |{' xnfs / fuse2fs |' * compared}")
    print("|---|---|" + "---:|" * (len(servers) + compared))
    for kind in kinds:
        mid = [statistics.median(run[kind.name][k] for run in runs) for k in range(len(servers))]
        cells = [f"{one:.1f}" for one in mid]
        if compared:
            cells.append(f"{mid[0] / mid[-1]:.2f}")
        print(f"| {kind.name} | {kind.unit} | " + " | ".join(cells) + " |")


def main() -> int:
    """Print the table, or a profile."""
    ap = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    ap.add_argument("--runs", type=int, default=3)
    ap.add_argument("--quick", action="store_true", help="a tenth of the operations")
    ap.add_argument("--only", default="", help="only kinds that match this expression")
    ap.add_argument("--profile", metavar="KIND", help="a kind of synthetic.py; ? lists them")
    ap.add_argument("--number", type=int, default=1000, help="operations to profile (1000)")
    args = ap.parse_args()
    if args.profile:
        import synthetic

        signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # a profile is often piped into head
        return synthetic.profile(args.profile, args.number)
    end_like_ctrl_c()
    kinds = [kind for kind in KINDS if re.search(args.only, kind.name)]
    if os.geteuid():
        print("not root: left out: what needs the kernel's caches dropped", file=sys.stderr)
        kinds = [kind for kind in kinds if kind.forget == KEEP]
    servers = [one for one in SERVERS if not one.missing()]
    if Fuse2fs not in servers:
        print(f"fuse2fs: left out: {Fuse2fs.missing()}", file=sys.stderr)
    try:
        runs = [one_run(kinds, servers, args.quick) for _ in range(args.runs)]
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    table(kinds, servers, runs)
    return 0


if __name__ == "__main__":
    sys.exit(main())
