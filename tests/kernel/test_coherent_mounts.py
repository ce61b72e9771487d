"""Two mounts of one file system by one process: what is changed through one is seen through the
other, though both kernels keep names and attributes for ten years.

Each test has the second mount cache what is about to change.
"""

from __future__ import annotations

import errno
import mmap
import os
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kernel.several import Several, soon
from tests.support import as_user

pytestmark = pytest.mark.fuse


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Several]:
    disk = Several(tmp_path_factory.mktemp("pair"), "main", "main")
    try:
        disk.mkfs()
        disk.mount()
        yield disk
    finally:
        disk.clean_up()


@pytest.fixture
def places(pair: Several, request: pytest.FixtureRequest) -> list[Path]:
    """An empty directory, through both mounts."""
    a, b = pair.places
    name = request.node.name
    (a / name).mkdir()
    soon((b / name).exists)
    return [a / name, b / name]


def test_names_come_and_go(places: list[Path]) -> None:
    a, b = places
    for _ in range(20):
        assert not (b / "name").exists()  # a negative entry
        assert "name" not in os.listdir(b)
        (a / "name").write_text("x")
        soon((b / "name").exists)
        soon(lambda: "name" in os.listdir(b))
        (a / "name").rename(a / "other")
        soon(lambda: not (b / "name").exists())
        soon((b / "other").exists)
        (a / "other").unlink()
        soon(lambda: not (b / "other").exists())
        soon(lambda: os.listdir(b) == [])


def test_directories_and_what_is_below(places: list[Path]) -> None:
    a, b = places
    (a / "d/e").mkdir(parents=True)
    (a / "d/e/f").write_text("deep")
    soon((b / "d/e/f").exists)
    assert (b / "d").stat().st_nlink == 3
    (a / "d").rename(a / "D")
    soon(lambda: not (b / "d/e/f").exists())
    assert (b / "D/e/f").read_text() == "deep"
    (a / "D/e/f").unlink()
    (a / "D/e").rmdir()
    soon(lambda: not (b / "D/e").exists())
    soon(lambda: (b / "D").stat().st_nlink == 2)


def test_bytes_sizes_and_maps(places: list[Path]) -> None:
    a, b = places
    (a / "f").write_bytes(b"1" * 8192)
    soon((b / "f").exists)
    with (
        open(b / "f", "rb", buffering=0) as reader,
        open(a / "f", "r+b", buffering=0) as writer,
        mmap.mmap(reader.fileno(), 8192, prot=mmap.PROT_READ) as view,
    ):
        assert view[:1] == os.pread(reader.fileno(), 1, 0) == b"1"
        for digit in b"23456789":
            os.pwrite(writer.fileno(), bytes([digit]), 4096)
            soon(lambda digit=digit: view[4096] == digit)  # type: ignore[misc]
            assert os.pread(reader.fileno(), 1, 4096) == bytes([digit])
        os.pwrite(writer.fileno(), b"more", 8192)
        soon(lambda: os.fstat(reader.fileno()).st_size == 8196)
        assert os.pread(reader.fileno(), 10, 8192) == b"more"
        os.ftruncate(writer.fileno(), 5000)
        soon(lambda: os.pread(reader.fileno(), 100000, 4999) == b"1")
        assert (b / "f").stat().st_size == 5000
        # And back: what the first mount has cached meanwhile.
        with open(b / "f", "r+b", buffering=0) as other:
            os.pwrite(other.fileno(), b"back", 0)
        soon(lambda: (a / "f").read_bytes()[:4] == b"back")


def test_a_mapped_writer_is_seen_when_it_says_so(places: list[Path]) -> None:
    a, b = places
    (a / "f").write_bytes(bytes(4096))
    soon(lambda: (b / "f").read_bytes() == bytes(4096))
    with open(a / "f", "r+b") as file, mmap.mmap(file.fileno(), 0) as view:
        view[:5] = b"hello"
        view.flush()
        soon(lambda: (b / "f").read_bytes()[:5] == b"hello")


def test_attributes_links_and_lists(places: list[Path]) -> None:
    a, b = places
    (a / "f").write_text("secret")
    os.link(a / "f", a / "g")
    soon(lambda: (b / "f").stat().st_nlink == 2)
    assert as_user("cat f", b).stdout == "secret"
    (a / "f").chmod(0o600)
    soon(lambda: (b / "g").stat().st_mode & 0o777 == 0o600)
    assert as_user("cat f", b).returncode != 0
    subprocess.run(["setfacl", "-m", "u:65534:r", a / "f"], check=True)
    soon(lambda: as_user("cat g", b).stdout == "secret")
    os.setxattr(a / "f", "user.x", b"1")
    assert os.getxattr(b / "f", "user.x") == b"1"
    os.utime(a / "f", (1, 2))
    soon(lambda: (b / "f").stat().st_mtime == 2)
    (a / "g").unlink()
    soon(lambda: (b / "f").stat().st_nlink == 1)


def test_removed_while_open_elsewhere(places: list[Path]) -> None:
    a, b = places
    (a / "f").write_bytes(b"x" * (1 << 20))
    os.sync()
    free = os.statvfs(a).f_bfree
    with open(b / "f", "rb") as file:
        (a / "f").unlink()
        soon(lambda: not (b / "f").exists())
        assert len(file.read()) == 1 << 20
        soon(lambda: os.fstat(file.fileno()).st_nlink == 0)
        (a / "f").write_bytes(b"another")
        file.seek(0)
        assert file.read(1) == b"x"
    (a / "f").unlink()
    fd = os.open(a, os.O_RDONLY)

    def given_back() -> bool:
        os.fsync(fd)
        return os.statvfs(a).f_bfree >= free + 256

    try:
        soon(given_back, 10)
    finally:
        os.close(fd)


def test_two_mounts_at_once_do_not_wait_for_each_other(places: list[Path]) -> None:
    """Names of one directory and bytes of one file, changed through both at the same time."""
    failures: list[BaseException] = []

    def work(place: Path, seed: int) -> None:
        try:
            for i in range(150):
                name = place / f"n{(i * 7 + seed) % 13}"
                try:
                    if i % 3 == 0:
                        name.write_bytes(b"%d" % i)
                    elif i % 3 == 1:
                        name.rename(place / f"n{(i + seed) % 13}")
                    else:
                        name.unlink()
                except FileNotFoundError:
                    pass
                with open(place / "common", "r+b", buffering=0) as file:
                    os.pwrite(file.fileno(), b"%03d" % i, seed * 3)
                    if i % 20 == 0:
                        os.fsync(file.fileno())
                os.listdir(place)
        except BaseException as error:
            failures.append(error)

    a, b = places
    (a / "common").write_bytes(bytes(12))
    soon((b / "common").exists)
    threads = [
        threading.Thread(target=work, args=(places[n % 2], n), daemon=True) for n in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    assert not failures
    soon(lambda: sorted(os.listdir(a)) == sorted(os.listdir(b)))
    soon(lambda: (a / "common").read_bytes() == (b / "common").read_bytes() == b"149" * 4)
    for name in os.listdir(a):
        soon(lambda name=name: (a / name).read_bytes() == (b / name).read_bytes())  # type: ignore[misc]


def test_an_answer_on_its_way_does_not_outlive_a_notice(pair: Several) -> None:
    """The second kernel is just being told of an inode when its mode changes."""
    a, b = pair.places
    names = [f"f{number}" for number in range(500)]
    for name in names:
        (a / name).write_text("x")
    pair.umount()
    pair.mount()
    turn = [-1]

    def look() -> None:
        for number, name in enumerate(names):
            while turn[0] < number:
                pass
            (b / name).stat()

    for name in names:
        (a / name).stat()
    looking = threading.Thread(target=look, daemon=True)
    looking.start()
    for number, name in enumerate(names):
        turn[0] = number
        (a / name).chmod(0o601)
    looking.join(60)
    for name in names:
        soon(lambda name=name: (b / name).stat().st_mode & 0o777 == 0o601)  # type: ignore[misc]


def test_one_mount_ends_the_other_stays(pair: Several) -> None:
    a, b = pair.places
    (a / "f").write_text("1")
    (b / "open").write_text("2")
    subprocess.run(["umount", a], check=True)
    assert (b / "f").read_text() == "1"
    (b / "f").write_text("changed")
    subprocess.run(["umount", b], check=True)
    pair.wait_dead()
    pair.fsck()
    pair.mount()
    assert (a / "f").read_text() == "changed"


def test_both_refuse_when_one_is_read_only(pair: Several) -> None:
    """It is one file system."""
    a, b = pair.places
    subprocess.run(["umount", a], check=True)
    subprocess.run(["umount", b], check=True)
    pair.wait_dead()
    pair.mount("ro")
    for place in pair.places:
        with pytest.raises(OSError) as caught:
            (place / "f").write_text("1")
        assert caught.value.errno == errno.EROFS
