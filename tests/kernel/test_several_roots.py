"""Several file systems of one image, mounted by one process: what they share, and what not."""

from __future__ import annotations

import errno
import os
import random
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from libfs.formats import FORMATS
from tests.kernel.several import Several, soon
from tests.support import command, good

pytestmark = pytest.mark.fuse


@pytest.fixture(params=list(FORMATS))
def both(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Several]:
    """FFS, and one of each kind beside it; not mounted yet."""
    disk = Several(tmp_path, "main", "home")
    try:
        disk.mkfs(size="16m", kind=request.param)
        yield disk
    finally:
        disk.clean_up()


def test_each_is_its_own(both: Several) -> None:
    both.mount()
    main, home = both.places
    (main / "f").write_text("main")
    (home / "f").write_text("home")
    (home / "d").mkdir()
    assert os.listdir(main) == ["f"]
    with pytest.raises(OSError) as caught:
        os.link(main / "f", home / "g")
    assert caught.value.errno == errno.EXDEV
    lines = Path("/proc/self/mountinfo").read_text()
    assert f"{both.image}:home" in lines
    both.umount()
    both.fsck()
    assert good("xnfs", "cat", both.image, "/f") == "main"
    assert good("xnfs", "cat", f"{both.image}:home", "/f") == "home"
    both.mount()
    assert (home / "f").read_text() == "home"


def test_each_root_is_copied_in(tmp_path: Path) -> None:
    """`xnfs cp` of a mounted image asks the mount of the root that is meant."""
    disk = Several(tmp_path, "main", "home")
    try:
        disk.mkfs(size="16m")
        disk.mount()
        for place in disk.places:
            (place / "f").write_text(place.name)
        for root, place in zip(("main", "home"), disk.places, strict=True):
            good("xnfs", "cp", "-R", root, f"{disk.image}:f", f"{disk.image}:copy")
            assert (place / "copy").read_text() == place.name
        good("xnfs", "cp", f"{disk.image}:f", f"{disk.image}:other")
        assert (disk.places[0] / "other").exists()
        disk.umount()
        disk.fsck()
    finally:
        disk.clean_up()


def test_one_ends_and_the_other_goes_on(both: Several) -> None:
    both.mount()
    main, home = both.places
    (main / "f").write_text("1")
    good("umount.xnfs", f"{both.image}:main")
    (home / "g").write_text("2")
    assert not (main / "f").exists()
    (home / "g").rename(home / "h")
    both.terminate()
    assert not os.path.ismount(home)
    both.fsck()
    both.mount()
    assert (main / "f").read_text() == "1"
    assert (home / "h").read_text() == "2"


def test_a_full_disk_is_full_for_all(both: Several) -> None:
    both.mount()
    main, home = both.places

    def fill(path: Path) -> int:
        try:
            with open(path, "wb", buffering=0) as file:
                while True:
                    file.write(bytes(1 << 20))
                    os.fsync(file.fileno())
        except OSError as error:
            return error.errno or 0

    assert fill(main / "big") == errno.ENOSPC
    assert fill(home / "more") == errno.ENOSPC
    assert os.statvfs(main).f_bfree == 0
    (main / "big").unlink()
    fd = os.open(main, os.O_RDONLY)
    os.fsync(fd)
    os.close(fd)
    (home / "fits").write_bytes(bytes(1 << 20))
    with open(home / "fits", "rb+") as file:
        os.fsync(file.fileno())
    both.umount()
    both.fsck()


@pytest.mark.parametrize("turns", [1, pytest.param(12, marks=pytest.mark.slow)])
def test_a_kill_in_the_middle_of_one_leaves_the_other(both: Several, turns: int) -> None:
    """The plug is pulled while one file system is busy; the other one had been quiet."""
    both.mount()
    main, home = both.places
    (main / "d").mkdir()
    contents = {f"d/{number}": os.urandom(number * 997) for number in range(20)}
    for name, data in contents.items():
        (main / name).write_bytes(data)
        (main / name).chmod(0o640)
    (home / "log").write_bytes(b"")
    both.umount()
    rng = random.Random(1)
    synced: list[bytes] = []
    for _turn in range(turns):
        both.mount()
        worker = threading.Thread(target=_busy, args=(home, rng, synced), daemon=True)
        worker.start()
        count = rng.randrange(5, 40)
        soon(lambda count=count: len(synced) > count, 60)  # type: ignore[misc]
        both.kill()
        worker.join(20)
        both.mount()
        assert {f"d/{name}" for name in os.listdir(main / "d")} == set(contents)
        for name, data in contents.items():
            assert (main / name).read_bytes() == data
            assert (main / name).stat().st_mode & 0o777 == 0o640
        log = (home / "log").read_bytes()
        assert log.startswith(b"".join(synced))
        synced[:] = [log]
        both.umount()
        both.fsck()


def _busy(home: Path, rng: random.Random, synced: list[bytes]) -> None:
    """Work until the server is gone; what an fsync has promised is noted."""
    try:
        with open(home / "log", "ab", buffering=0) as log:
            for number in range(100000):
                name = home / f"f{number % 17}"
                name.write_bytes(bytes(rng.randrange(60000)))
                if number % 3 == 0:
                    name.rename(home / f"r{number % 5}")
                if number % 7 == 0:
                    name.unlink(missing_ok=True)
                line = b"%06d\n" % number
                log.write(line)
                os.fsync(log.fileno())
                synced.append(line)
    except OSError:
        pass


def test_one_mount_inside_another(both: Several) -> None:
    both.mount()
    (both.places[0] / "inner").mkdir()
    both.umount()
    main = both.places[0]
    (main / "inner").mkdir()  # the directory is looked up before anything is mounted
    good("mount.xnfs", both.image, main, f"{both.image}:home", main / "inner")
    (main / "inner/f").write_text("home's")
    both.terminate()
    assert not os.path.ismount(main)
    assert good("xnfs", "cat", f"{both.image}:home", "/f") == "home's"
    (main / "inner").rmdir()


def test_all_or_none_is_mounted(both: Several) -> None:
    a, b = both.places
    for words, says in (
        ("{i}:main {a} {i}:nope {b}", "no file system named 'nope'"),
        ("{i} {a} {i}:home", "where is"),
        ("{i} {a} {i}:home {a}", "named twice"),
        ("{i} {a} {a}/other {b}", "one image"),
        ("{i}:home {a} -o root=main", "one or the other"),
        ("{i} {a} {i}:home {b} -o transport=fusepy", "transport=kernel"),
        ("{i} {a} {i}:home {b}/nothing", "No such file"),
    ):
        done = command("mount.xnfs", *words.format(i=both.image, a=a, b=b).split())
        assert done.returncode != 0
        assert says in done.stderr
        assert len(done.stderr.splitlines()) <= 2
        assert not os.path.ismount(a)
        assert not os.path.ismount(b)


def test_a_second_process_is_refused(both: Several) -> None:
    good("mount.xnfs", f"{both.image}:home", both.places[1])
    both._servers.add(both.server())
    done = command("mount.xnfs", f"{both.image}:main", both.places[0])
    assert done.returncode == 32
    assert f"already mounted on {both.places[1]}" in done.stderr
