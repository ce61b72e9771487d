"""Work that is killed at any moment, and what it was promised: run as a process of its own.

    python kill_work.py MOUNT LEDGER SEED

Writes to LEDGER, outside the image, a line for each promise *after* the call that made it has
returned: a file synced under a name, a commit of git, a committed SQLite transaction. A line `try`
before a rename says what may be there instead. Ends by itself when the mount is gone.
"""

from __future__ import annotations

import hashlib
import os
import random
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import TextIO

GIT = ("git", "-c", "user.name=a", "-c", "user.email=a@b", "-c", "core.fsync=all",
       "-c", "gc.auto=0", "-c", "safe.directory=*")  # fmt: skip


def synced_file(top: Path, rng: random.Random, turn: int, out: TextIO) -> str:
    """Write a file, perhaps over an old one by rename; sync it. The promise: its name and bytes."""
    data = rng.randbytes(rng.choice((0, 10, 4096, 5000, 70_000, 300_000)))
    name = f"f{rng.randrange(12)}"
    if rng.random() < 0.5:
        path = top / f"tmp{turn}"
        target: Path | None = top / name
    else:
        path, target = top / f"n{turn}", None
    fd = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o644)
    os.write(fd, data)
    os.fsync(fd)
    os.close(fd)
    digest = hashlib.sha256(data).hexdigest()
    if target is not None:
        out.write(f"try {target.name} {digest}\n")
        os.rename(path, target)
        sync_directory(top)
    kept = target or path
    return f"file {kept.name} {digest}"


def sync_directory(path: Path) -> None:
    """Make the names in it durable."""
    fd = os.open(path, os.O_RDONLY)
    os.fsync(fd)
    os.close(fd)


def litter(top: Path, rng: random.Random, turn: int) -> None:
    """Unsynced work all around: directories, appends, links, removals."""
    junk = top / f"junk{turn % 3}"
    junk.mkdir(exist_ok=True)
    for i in range(rng.randrange(20)):
        (junk / f"j{i}").write_bytes(rng.randbytes(rng.randrange(20_000)))
    for path in rng.sample(sorted(junk.iterdir()), k=min(5, len(list(junk.iterdir())))):
        path.unlink()
    with open(top / "grows", "ab") as f:
        f.write(rng.randbytes(rng.randrange(100_000)))


def git_commit(repo: Path, rng: random.Random, turn: int) -> str:
    """Commit a change. The promise: the commit is there."""
    if not (repo / ".git").exists():
        subprocess.run([*GIT, "init", "-q", repo], check=True)
    (repo / f"file{rng.randrange(8)}").write_bytes(rng.randbytes(rng.randrange(9000)))
    subprocess.run([*GIT, "add", "-A"], cwd=repo, check=True)
    subprocess.run([*GIT, "commit", "-q", "--allow-empty", "-m", f"{turn}"], cwd=repo, check=True)
    sync_directory(repo / ".git" / "refs" / "heads")  # git itself does not sync its last rename
    head = subprocess.run([*GIT, "rev-parse", "HEAD"], cwd=repo, check=True, capture_output=True)
    return f"git {head.stdout.decode().strip()}"


def transaction(path: Path, mode: str, turn: int) -> str:
    """Insert a row with full sync. The promise: the row is there."""
    with sqlite3.connect(path, isolation_level=None) as db:
        db.execute(f"pragma journal_mode={mode}")
        # With a rollback journal the commit is the removal of a file, which only EXTRA syncs.
        db.execute("pragma synchronous=extra")
        db.execute("create table if not exists t (turn integer, v text)")
        db.execute("insert into t values (?, ?)", (turn, "x" * 500))
    db.close()
    # SQLite takes a directory that it can't open for one that needs no sync, so a server that is
    # killed just then makes it promise what it has not got.
    sync_directory(path.parent)
    return f"sqlite {path.name} {turn}"


def main() -> int:
    """Work until the mount is gone."""
    mount, ledger, seed = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    rng = random.Random(seed)
    with open(ledger, "a", buffering=1) as out:
        for turn in range(seed * 1000, seed * 1000 + 1000):
            try:
                kind = rng.randrange(6)
                if kind == 0:
                    promise = git_commit(mount / "repo", rng, turn)
                elif kind in (1, 2):
                    mode = ("wal", "delete")[kind - 1]
                    promise = transaction(mount / f"{mode}.db", mode, turn)
                else:
                    litter(mount, rng, turn)
                    promise = synced_file(mount, rng, turn, out)
            except (OSError, sqlite3.Error, subprocess.CalledProcessError):
                return 0
            out.write(promise + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
