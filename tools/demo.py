"""What `make demo` runs: an image, work in it, the plug pulled, and everything still there.

Everything is done by the installed commands, as a user would, in a temporary directory that is
removed at the end.
"""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

BIN: Final = Path(sys.executable).parent
_BOLD, _PLAIN = ("\x1b[1m", "\x1b[0m") if sys.stdout.isatty() else ("", "")


def say(text: str) -> None:
    """A step of the story."""
    print(f"\n{_BOLD}{text}{_PLAIN}", flush=True)


def sh(*words: str | Path, quiet: bool = False) -> str:
    """Run a command and show it; its output."""
    text = [str(word) for word in words]
    print("  $ " + " ".join(text), flush=True)
    if (BIN / text[0]).exists():
        text[0] = str(BIN / text[0])
    done = subprocess.run(text, capture_output=True, text=True, check=False)
    out = (done.stdout + done.stderr).rstrip()
    if out and (not quiet or done.returncode):
        print("    " + out.replace("\n", "\n    "), flush=True)
    if done.returncode:
        sys.exit(f"the demo failed: {text[0]} ended with status {done.returncode}")
    return out


def server_of(image: Path) -> int:
    """The process that serves an image: the one that has it open."""
    for fds in Path("/proc").glob("[0-9]*/fd"):
        try:
            if any(os.readlink(fd) == str(image) for fd in fds.iterdir()):
                return int(fds.parent.name)
        except OSError:
            continue
    sys.exit("the demo failed: no process has the image open")


def repository(place: Path) -> None:
    """A small git repository."""
    git = ["git", "-C", str(place), "-c", "user.name=demo", "-c", "user.email=demo@localhost"]
    sh("git", "init", "--quiet", "-b", "main", place)
    for name in ("hello.c", "README", "Makefile"):
        (place / name).write_text(f"This is {name}.\n" * 50)
    subprocess.run([*git, "add", "."], check=True)
    sh(*git, "commit", "--quiet", "-m", "A first commit")


def database(place: Path) -> None:
    """A small SQLite database."""
    with sqlite3.connect(place) as db:
        # A transaction ends when its journal is deleted; only EXTRA makes that durable too.
        db.execute("PRAGMA synchronous=EXTRA")
        db.execute("CREATE TABLE t (n INTEGER PRIMARY KEY, text TEXT)")
        db.executemany("INSERT INTO t VALUES (?, ?)", [(n, "x" * 100) for n in range(1000)])
    db.close()
    print("  1000 rows written to a SQLite database and committed", flush=True)


def story(work: Path) -> None:
    """The demo."""
    image, mnt = work / "disk.xnfs", work / "mnt"
    mnt.mkdir()
    say("Make an image of 256 MiB, and mount it")
    sh("mkfs.xnfs", "-L", "demo", image, "256m")
    sh("mount.xnfs", image, mnt)
    sh("df", "-h", mnt)

    say("Work in it: a git repository, a SQLite database")
    repository(mnt / "project")
    sh("sync", mnt)
    database(mnt / "data.db")
    (mnt / "unsynced.txt").write_text("nobody asked for this to be durable\n")

    say("Pull the plug: kill the server with SIGKILL, in the middle of it all")
    pid = server_of(image)
    print(f"  $ kill -9 {pid}", flush=True)
    os.kill(pid, signal.SIGKILL)
    sh("sh", "-c", f"ls {mnt} 2>&1 || true")

    say("Mount again at once: no fsck, whatever the size")
    began = time.monotonic()
    sh("mount.xnfs", image, mnt)
    print(f"  mounted after {time.monotonic() - began:.2f} s", flush=True)

    say("What was synced is there, and whole")
    sh("git", "-C", mnt / "project", "fsck", "--full", "--strict")
    sh("git", "-C", mnt / "project", "log", "--oneline")
    with sqlite3.connect(mnt / "data.db") as db:
        (check,) = db.execute("PRAGMA integrity_check").fetchone()
        (rows,) = db.execute("SELECT count(*) FROM t").fetchone()
    db.close()
    print(f"  SQLite: integrity_check says {check}, {rows} rows", flush=True)
    if (check, rows) != ("ok", 1000):
        sys.exit("the demo failed: the database is not what was committed")
    there = (mnt / "unsynced.txt").exists()
    print(f"  unsynced.txt: {'there' if there else 'gone'}; nobody had synced it", flush=True)

    say("Unmount, and check the whole image")
    sh("umount.xnfs", mnt)
    sh("fsck.xnfs", "-f", "-n", image)
    sh("xnfs", "ls", image, "/")


def main() -> None:
    """Run the story in a directory that goes away, with its mount."""
    work = Path(tempfile.mkdtemp(prefix="xnfs-demo-"))
    try:
        story(work)
    finally:
        if os.path.ismount(work / "mnt") or not os.path.exists(work / "mnt" / "."):
            subprocess.run(
                [BIN / "umount.xnfs", "-l", work / "mnt"], capture_output=True, check=False
            )
        shutil.rmtree(work, ignore_errors=True)
    say("That was all: `make test` runs the tests.")


if __name__ == "__main__":
    main()
