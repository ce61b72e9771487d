"""Real programs, doing in the mount what people do."""

from __future__ import annotations

import fcntl
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import Disk, shell

_GIT = "git -c user.name=t -c user.email=t@localhost -c init.defaultBranch=main"


def test_program_cp_mv_ln_rm(disk: Disk, tmp_path: Path) -> None:
    source = Path(shutil.__file__).parent / "json"
    shell(f"cp -a {source} a && cp -a a b && mv b c && ln -s c l && ln a/decoder.py hard", disk.mnt)
    disk.remount()
    shell(f"diff -r {source} a && diff -r {source} c && diff -r {source} l/ && rm -r a", disk.mnt)
    assert sorted(path.name for path in disk.mnt.iterdir()) == ["c", "hard", "l"]
    disk.umount()
    disk.fsck()


def test_program_git(disk: Disk, tmp_path: Path) -> None:
    origin = tmp_path / "origin"
    shell(
        f"{_GIT} init -q {origin} && cd {origin} && seq 1 2000 > a && mkdir d && cp a d/b &&"
        f" {_GIT} add . && {_GIT} commit -qm one && seq 5 900 > a && {_GIT} commit -qam two"
    )
    shell(f"{_GIT} clone -q {origin} clone && cd clone && {_GIT} fsck --full --strict", disk.mnt)
    shell(
        f"cd clone && echo x > new && {_GIT} add new && {_GIT} commit -qm three &&"
        f" {_GIT} checkout -q -b side HEAD~1 && {_GIT} checkout -q main && {_GIT} gc -q",
        disk.mnt,
    )
    disk.remount()
    out = shell(f"cd clone && {_GIT} fsck --full --strict && {_GIT} status --short", disk.mnt)
    assert out == ""


@pytest.mark.parametrize("mode", ["delete", "wal", "truncate"])
def test_program_sqlite(disk: Disk, mode: str) -> None:
    path = disk.mnt / "t.db"
    with sqlite3.connect(path) as db:
        assert db.execute(f"PRAGMA journal_mode={mode}").fetchone() == (mode,)
        db.execute("CREATE TABLE t (n INTEGER PRIMARY KEY, s TEXT)")
    for n in range(20):
        with db:
            db.execute("INSERT INTO t VALUES (?, ?)", (n, "x" * 500))
    db.execute("PRAGMA synchronous=EXTRA")  # or a deleted journal may come back, and undo the last
    with db:
        db.execute("INSERT INTO t VALUES (99, 'last')")
    disk.kill()  # with the connection open, and a journal or log beside the database
    disk.mount()
    with sqlite3.connect(path) as again:
        assert again.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert again.execute("SELECT count(*) FROM t").fetchone() == (21,)
    again.close()
    db.close()
    disk.umount()
    disk.fsck()


def test_program_rsync_there_and_back(disk: Disk, tmp_path: Path) -> None:
    shell(
        "mkdir -p tree/d && cd tree && seq 1 5000 > f && ln f d/hard && ln -s ../f d/soft &&"
        " mkfifo p && truncate -s 1M sparse && chmod 4751 f && chown 12:34 d &&"
        " setfattr -n user.k -v v f && setfacl -m u:1234:rw d && touch -d @1.5 d/hard",
        tmp_path,
    )
    shell(f"rsync -aHAX {tmp_path}/tree/ there/", disk.mnt)
    disk.remount()
    shell(f"rsync -aHAX there/ {tmp_path}/back/", disk.mnt)
    out = shell(f"rsync -aHAXn --itemize-changes {tmp_path}/tree/ {tmp_path}/back/")
    assert out == ""
    shell(f"diff -r --no-dereference -x p {tmp_path}/tree {tmp_path}/back")


def test_program_compiler(mnt: Path) -> None:
    shell(
        r"""printf '#include <stdio.h>\nint main(void){puts("hi");return 0;}\n' > a.c
        gcc -O1 -o a a.c && ./a""",
        mnt,
    )


def test_program_tar(mnt: Path, tmp_path: Path) -> None:
    source = Path(shutil.__file__).parent / "asyncio"
    shell(f"tar cf {tmp_path}/t.tar -C {source.parent} asyncio && tar xf {tmp_path}/t.tar", mnt)
    shell(f"diff -r {source} asyncio", mnt)


def test_program_fio_verifies(mnt: Path) -> None:
    shell(
        "fio --name=t --filename=f --size=8m --rw=randwrite --bs=4k --verify=crc32c"
        " --do_verify=1 --verify_fatal=1 --minimal",
        mnt,
    )


@pytest.mark.slow
def test_program_python_venv(mnt: Path) -> None:
    shell(f"{sys.executable} -m venv env && env/bin/python -c 'import json'", mnt)


def test_program_locks(mnt: Path) -> None:
    """flock(2) and fcntl(2) between processes, and a wait that does not stop the server."""
    script = (
        "import fcntl,sys; f=open('lock','a'); fcntl.{call}(f, fcntl.LOCK_EX{more}); print('got')"
    )
    for call in ("flock", "lockf"):
        with open(mnt / "lock", "a") as held:
            getattr(fcntl, call)(held, fcntl.LOCK_EX)
            busy = [sys.executable, "-c", script.format(call=call, more="|fcntl.LOCK_NB")]
            done = subprocess.run(busy, cwd=mnt, capture_output=True, text=True, check=False)
            assert "BlockingIOError" in done.stderr
            waiting = [sys.executable, "-c", script.format(call=call, more="")]
            with subprocess.Popen(waiting, cwd=mnt, stdout=subprocess.PIPE) as waiter:
                (mnt / "meanwhile").write_text(call)
                getattr(fcntl, call)(held, fcntl.LOCK_UN)
                assert waiter.communicate(timeout=20)[0] == b"got\n"
