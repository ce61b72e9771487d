"""XCP: `xnfs cp -r` against `cp -r` through the same mount, and kernel ext4's `cp -r`.

    python benchmarks/xcp.py [--rounds 3] [--where /var/tmp]

Each tree is copied in turns by all of them, with everything cached and after a remount with the
host's caches dropped (which needs root). Measured is wall time until the copy returns, and until a
sync after it. The start of `xnfs cp`, an interpreter's, is measured apart and not counted: with it
a copy of a few files is slower than with `cp`.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from peers import BIN, Ext4, Peer, Xnfs, end_like_ctrl_c

from libfs.kernel import controls
from libfs.posix.copying import How

#: name -> directories, files in each, bytes of each
TREES = {
    "1 KiB files": (100, 20, 1024),
    "10 KiB files": (40, 25, 10_000),
    "8 MiB files": (1, 12, 8 << 20),
}
MIB = 4096


class Quiet(Xnfs):
    """With room to keep what is copied."""

    options = "transport=kernel,cache=512m"


def build(top: Path) -> None:
    """The trees."""
    for name, (directories, files, size) in TREES.items():
        data = os.urandom(size)
        for d in range(directories):
            path = top / name / f"directory-{d}"
            path.mkdir(parents=True)
            for i in range(files):
                (path / f"file-{i}").write_bytes(data)


def sync(peer: Peer) -> None:
    """All of it on the disk."""
    fd = os.open(peer.dir, os.O_RDONLY)
    os.fsync(fd)
    os.close(fd)
    if isinstance(peer, Ext4):
        subprocess.run(["sync", "-f", peer.dir], check=True)


def with_cp(peer: Peer, source: str, target: str) -> None:
    """The program."""
    subprocess.run(["cp", "-r", peer.dir / source, peer.dir / target], check=True)


def with_xcp(peer: Peer, source: str, target: str) -> None:
    """What `xnfs cp -r` does once it runs."""
    request = controls.CopyRequest(How(recursive=True), source.encode(), target.encode())
    controls.ask(str(peer.dir), request)


Copy = Callable[[Peer, str, str], None]


def measure(peer: Peer, copy: Copy, source: str, *, cold: bool) -> tuple[float, float]:
    """Seconds until it returned, and until it was durable. The copy is removed again."""
    if cold:
        peer.remount()
    else:
        subprocess.run(["cp", "-r", peer.dir / source, "/dev/shm/xcp-read"], check=True)
        shutil.rmtree("/dev/shm/xcp-read")
    sync(peer)
    start = time.perf_counter()
    copy(peer, source, "copy")
    returned = time.perf_counter() - start
    sync(peer)
    durable = time.perf_counter() - start
    shutil.rmtree(peer.dir / "copy")
    sync(peer)
    return returned, durable


def start_time(peer: Peer) -> float:
    """Of the command, that finds nothing to copy."""
    start = time.perf_counter()
    words = [BIN / "xnfs", "cp", f"{peer.image}:missing", f"{peer.image}:copy"]
    subprocess.run(words, stderr=subprocess.DEVNULL, check=False)
    return time.perf_counter() - start


def table(peers: list[Peer], rounds: int) -> None:
    """All trees, cached and cold."""
    xnfs = peers[0]
    ways: list[tuple[str, Peer, Copy]] = [("xnfs cp", xnfs, with_xcp), ("cp", xnfs, with_cp)]
    ways += [("ext4", peer, with_cp) for peer in peers[1:]]
    print("| tree | | " + " | ".join(f"{name}, s" for name, _p, _c in ways) + " | cp / xnfs cp |")
    print("|---|---|" + "---:|" * (len(ways) + 1))
    for tree in TREES:
        for cold in (False, True):
            found: dict[str, list[tuple[float, float]]] = {name: [] for name, _p, _c in ways}
            for _round in range(rounds):
                for name, peer, copy in ways:
                    found[name].append(measure(peer, copy, tree, cold=cold))
            middle = {
                name: [statistics.median(each) for each in zip(*times, strict=True)]
                for name, times in found.items()
            }
            cells = [f"{middle[name][0]:.3f} ({middle[name][1]:.3f})" for name, _p, _c in ways]
            ratio = [middle["cp"][i] / middle["xnfs cp"][i] for i in (0, 1)]
            line = [tree, "cold" if cold else "cached", *cells, f"{ratio[0]:.1f} ({ratio[1]:.1f})"]
            print("| " + " | ".join(line) + " |", flush=True)
    print("\nIn parentheses: until a sync after the copy.")
    print(f"Start of the command `xnfs cp`: {start_time(xnfs):.2f} s.")


def main() -> None:
    """The command of the head."""
    options = argparse.ArgumentParser(description="xnfs cp against cp.")
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--where", default="/var/tmp", help="folder for the images")
    chosen = options.parse_args()
    end_like_ctrl_c()
    with tempfile.TemporaryDirectory(prefix="xnfs-xcp-", dir=chosen.where) as folder:
        peers: list[Peer] = [Quiet(Path(folder))]
        if why := Ext4.missing():
            print(f"kernel ext4 is left out: {why}\n")
        else:
            peers.append(Ext4(Path(folder)))
        try:
            for peer in peers:
                peer.create(MIB)
                build(peer.dir)
            table(peers, chosen.rounds)
        finally:
            for peer in peers:
                peer.destroy()


if __name__ == "__main__":
    main()
