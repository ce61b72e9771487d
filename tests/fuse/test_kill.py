"""SIGKILL to the server in the middle of real work; mount again at once; nothing promised is lost.

The host survives, so this shows that nothing depends on the server's memory; power cuts, where the
device loses what was not flushed, are the matter of `tests/crash`.
"""

from __future__ import annotations

import hashlib
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.fuse.kill_work import GIT
from tests.support import Disk, command


def _promised(ledger: Path) -> tuple[dict[str, set[str]], list[str], dict[str, set[int]]]:
    """Hashes that each file may have, git commits, SQLite rows by database."""
    files: dict[str, set[str]] = {}
    commits: list[str] = []
    rows: dict[str, set[int]] = {}
    for line in ledger.read_text().splitlines():
        kind, *rest = line.split()
        if kind == "file":
            files[rest[0]] = {rest[1]}
        elif kind == "try":
            if rest[0] in files:
                files[rest[0]].add(rest[1])
        elif kind == "git":
            commits.append(rest[0])
        else:
            rows.setdefault(rest[0], set()).add(int(rest[1]))
    return files, commits, rows


def _check(mnt: Path, ledger: Path) -> int:
    """All promises, against the mounted file system. Returns how many there were."""
    files, commits, rows = _promised(ledger)
    for name, digests in files.items():
        data = (mnt / name).read_bytes()
        assert hashlib.sha256(data).hexdigest() in digests, name
    for name, turns in rows.items():
        db = sqlite3.connect(mnt / name)
        assert db.execute("pragma integrity_check").fetchone() == ("ok",)
        have = {turn for (turn,) in db.execute("select turn from t")}
        db.close()
        assert turns <= have, (name, turns - have)
    if commits:
        _check_git(mnt / "repo", commits)
    return len(files) + len(commits) + sum(map(len, rows.values()))


def _check_git(repo: Path, commits: list[str]) -> None:
    for lock in repo.glob(".git/**/*.lock"):  # of the git that was killed
        lock.unlink()
    done = subprocess.run([*GIT, "fsck", "--full"], cwd=repo, capture_output=True, text=True,
                          check=False)  # fmt: skip
    assert done.returncode == 0, done
    log = subprocess.run([*GIT, "log", "--format=%H"], cwd=repo, capture_output=True, text=True,
                         check=True)  # fmt: skip
    assert set(commits) <= set(log.stdout.split())


def _strike(disk: Disk, ledger: Path, seed: int, seconds: float) -> None:
    """Let it work for a while, then kill the server."""
    worker = subprocess.Popen(
        [sys.executable, Path(__file__).with_name("kill_work.py"), disk.mnt, ledger, str(seed)],
        stderr=subprocess.DEVNULL,
    )
    time.sleep(seconds)
    os.kill(disk.server(), signal.SIGKILL)
    try:
        worker.wait(timeout=60)
    finally:
        if worker.poll() is None:
            worker.kill()
            worker.wait()


def _campaign(disk: Disk, tmp_path: Path, rounds: int) -> tuple[int, float]:
    """Kill, mount, check, unmount, fsck. Returns (promises kept, slowest mount in seconds)."""
    rng = random.Random(rounds)
    ledger = tmp_path / "ledger"
    ledger.touch()
    slowest, kept = 0.0, 0
    disk.mount()
    for seed in range(1, rounds + 1):
        _strike(disk, ledger, seed, rng.uniform(0.3, 3.0))
        start = time.monotonic()
        disk.mount()
        slowest = max(slowest, time.monotonic() - start)
        kept = _check(disk.mnt, ledger)
        disk.umount()
        done = command("fsck.xnfs", "-n", "-f", disk.image)
        assert done.returncode == 0, done
        disk.mount()
    disk.umount()
    return kept, slowest


def test_kill_in_the_middle_of_work(unmounted: Disk, tmp_path: Path) -> None:
    kept, _slowest = _campaign(unmounted, tmp_path, rounds=4)
    assert kept > 0


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_kill_fifty_times(unmounted: Disk, tmp_path: Path) -> None:
    unmounted.mkfs("-F", size="512m")  # fifty rounds of work fill a small image
    kept, slowest = _campaign(unmounted, tmp_path, rounds=50)
    print(f"50 kills: {kept} promises kept, slowest mount {slowest:.2f} s")
    assert kept > 50
