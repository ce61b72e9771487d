"""`xnfs mv` of an image whose file systems are mounted, by one process."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from libfs.kernel.controls import ADMIN, ADMIN_SIZE, ask_server
from libfs.posix import FsError
from tests.kernel.several import Several, soon
from tests.support import as_user, command, good

pytestmark = pytest.mark.fuse


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Several]:
    """`main` once, `home` twice."""
    disk = Several(tmp_path, "main", "home", "home")
    try:
        disk.mkfs()
        disk.mount()
        yield disk
    finally:
        disk.clean_up()


def test_mv_between_mounts(mounted: Several) -> None:
    main, home, again = mounted.places
    data = os.urandom(3_000_000)
    (main / "f").write_bytes(data)
    (home / "d").mkdir()
    inode = (main / "f").stat()
    assert not (home / "d/g").exists()
    soon((again / "d").exists)
    assert not (again / "d/g").exists()  # negative entries in both
    free = os.statvfs(main).f_bfree
    assert good("xnfs", "mv", f"{mounted.image}:main/f", f"{mounted.image}:home/d/g") == ""
    soon(lambda: not (main / "f").exists())
    soon(lambda: os.listdir(main) == [])
    for place in (home, again):
        soon((place / "d/g").exists)
        assert (place / "d/g").read_bytes() == data
        assert os.listdir(place / "d") == ["g"]
    moved = (home / "d/g").stat()
    assert (moved.st_ino, moved.st_mtime_ns, moved.st_uid, moved.st_mode) == (
        *(inode.st_ino, inode.st_mtime_ns, inode.st_uid, inode.st_mode),
    )
    assert os.statvfs(main).f_bfree >= free - 4  # not copied
    (again / "d/g").write_bytes(b"new")
    soon(lambda: (home / "d/g").read_bytes() == b"new")
    good("xnfs", "mv", f"{mounted.image}:home/d/g", f"{mounted.image}:main/")
    soon((main / "g").exists)
    assert (main / "g").read_bytes() == b"new"
    mounted.umount()
    mounted.fsck()


def test_mv_between_mounts_is_refused(mounted: Several) -> None:
    main, home, _again = mounted.places
    (main / "f").write_text("f")
    (main / "d").mkdir()
    (home / "there").write_text("there")
    os.link(main / "f", main / "g")
    with open(main / "open", "w") as file:
        file.write("still ")
        file.flush()
        for source, target, says in (
            ("main/f", "home/", f"other names; to copy it: mv {main}/f {home}/"),
            ("main/d", "home/", f"it is a directory; to copy it: mv {main}/d {home}/"),
            ("main/open", "home/", "it is in use"),
            ("home/there", "main/f", "File exists"),
            ("main/none", "home/", "No such file"),
            ("main/f", "main/h", "same file system"),
            ("main/f", "away/", "mount both, or none"),
        ):
            done = command("xnfs", "mv", f"{mounted.image}:{source}", f"{mounted.image}:{target}")
            assert done.returncode == 1, source
            assert says in done.stderr
        file.write("open")
    assert (main / "open").read_text() == "still open"
    good("xnfs", "mv", f"{mounted.image}:main/open", f"{mounted.image}:home/")
    assert sorted(os.listdir(main)) == ["d", "f", "g"]
    assert (home / "open").read_text() == "still open"


def test_mv_is_not_for_everybody(mounted: Several) -> None:
    main, home, _again = mounted.places
    (main / "f").write_text("f")
    main.chmod(0o777)
    ioctl = f"fcntl.ioctl(os.open('.', os.O_RDONLY), {ADMIN}, bytearray({ADMIN_SIZE}))"
    done = as_user(f'/usr/bin/env python3 -c "import fcntl, os; {ioctl}"', main)
    assert "Operation not permitted" in done.stderr
    assert (main / "f").read_text() == "f"
    assert os.listdir(home) == []
    for wrong in ("mv", "mv /f home", "mv /f away /f", "mv /f main /f", "no a b c", ""):
        with pytest.raises(FsError):
            ask_server(str(main), *map(str.encode, wrong.split(" ")))
    subprocess.run(["ls", main], check=True, capture_output=True)
