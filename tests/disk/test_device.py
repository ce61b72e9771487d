"""File, loop and memory devices: whole blocks, short I/O, locks, and errors that name the path."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xnfs.disk import device as device_module
from xnfs.disk.device import IOV_MAX, BlockDevice, FileDevice, MemoryDevice, create_image
from xnfs.disk.records import BLOCK
from xnfs.errors import DeviceError, InUse


def pattern(bno: int) -> bytes:
    """A block that knows its number."""
    return bno.to_bytes(8, "little") * (BLOCK // 8)


def read(device: BlockDevice, start: int, count: int = 1) -> bytes:
    data = bytearray(count * BLOCK)
    device.read(start, [memoryview(data)])
    return bytes(data)


@pytest.fixture
def image(tmp_path: Path) -> str:
    path = str(tmp_path / "disk.img")
    create_image(path, 4096 * BLOCK)
    return path


@pytest.fixture(params=["file", "memory"])
def disk(request: pytest.FixtureRequest, image: str) -> Iterator[BlockDevice]:
    device: BlockDevice = FileDevice(image) if request.param == "file" else MemoryDevice(4096)
    yield device
    device.close()


def test_device_write_flush_read(disk: BlockDevice) -> None:
    disk.write(5, [pattern(5) + pattern(6), memoryview(pattern(7))])
    disk.flush()
    views = [memoryview(bytearray(BLOCK)), memoryview(bytearray(2 * BLOCK))]
    disk.read(5, views)
    assert b"".join(views) == pattern(5) + pattern(6) + pattern(7)
    assert read(disk, 4) == read(disk, 8) == bytes(BLOCK)
    assert (disk.blocks, disk.readonly) == (4096, False)


def test_device_more_views_than_one_call_takes(disk: BlockDevice) -> None:
    count = IOV_MAX * 2 + 3
    disk.write(0, [pattern(i) for i in range(count)])
    views = [memoryview(bytearray(BLOCK)) for _ in range(count)]
    disk.read(0, views)
    assert [bytes(view) for view in views] == [pattern(i) for i in range(count)]


@pytest.mark.parametrize(("start", "size"), [(4095, 2), (4096, 1), (-1, 1), (2**62, 1)])
def test_device_never_leaves_itself(disk: BlockDevice, start: int, size: int) -> None:
    with pytest.raises(DeviceError):
        disk.write(start, [bytes(size * BLOCK)])
    with pytest.raises(DeviceError):
        read(disk, start, size)


def test_device_takes_whole_blocks_only(disk: BlockDevice) -> None:
    for size in (1, 512, BLOCK - 1, BLOCK + 1):
        with pytest.raises(DeviceError, match="whole block"):
            disk.write(0, [bytes(size), bytes(BLOCK - size % BLOCK)])
        with pytest.raises(DeviceError, match="whole block"):
            disk.read(0, [memoryview(bytearray(size))])


def test_device_knows_what_was_never_written(disk: BlockDevice) -> None:
    assert disk.is_zero(0, 4096)
    disk.write(100, [bytes(BLOCK)])
    disk.flush()
    assert not disk.is_zero(64, 64)
    assert disk.is_zero(1024, 3072)
    assert not disk.is_zero(0, 4096)


def test_file_device_keeps_the_file_size(image: str) -> None:
    disk = FileDevice(image)
    disk.write(4095, [pattern(1)])
    disk.close()
    disk.close()
    assert os.stat(image).st_size == 4096 * BLOCK


def test_file_device_told_what_comes_says_nothing(
    image: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[tuple[int, int]] = []

    def fadvise(fd: int, offset: int, length: int, advice: int) -> None:
        assert advice == os.POSIX_FADV_WILLNEED
        told.append((offset, length))
        raise OSError(errno.EINVAL, "takes no advice")

    device = FileDevice(image)
    device.will_need(0, 4096)
    monkeypatch.setattr(os, "posix_fadvise", fadvise)
    device.will_need(3, 5)
    assert told == [(3 * BLOCK, 5 * BLOCK)]
    device.close()


def test_file_device_persists(image: str) -> None:
    disk = FileDevice(image)
    disk.write(3, [pattern(3)])
    disk.flush()
    disk.close()
    disk = FileDevice(image, readonly=True)
    assert read(disk, 3) == pattern(3)
    disk.close()


def test_file_device_readonly_refuses_writes(image: str) -> None:
    disk = FileDevice(image, readonly=True)
    with pytest.raises(DeviceError) as e:
        disk.write(0, [bytes(BLOCK)])
    assert e.value.errno == errno.EROFS
    disk.flush()
    disk.close()


def test_file_device_one_writer_or_many_readers(image: str) -> None:
    first = FileDevice(image)
    for readonly in (False, True):
        with pytest.raises(InUse, match=f"^{image}: in use by another program$"):
            FileDevice(image, readonly=readonly)
    first.close()
    readers = [FileDevice(image, readonly=True) for _ in range(3)]
    with pytest.raises(InUse):
        FileDevice(image)
    for reader in readers:
        reader.close()
    FileDevice(image).close()


def test_file_device_what_is_no_image(tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match="No such file") as e:
        FileDevice(str(tmp_path / "nothing"))
    assert e.value.errno == errno.ENOENT
    with pytest.raises(DeviceError, match="neither a regular file") as e:
        FileDevice(str(tmp_path))
    assert e.value.errno == errno.EISDIR
    os.mkfifo(tmp_path / "fifo")
    for path in (str(tmp_path / "fifo"), "/dev/null"):
        with pytest.raises(DeviceError, match="neither a regular file"):
            FileDevice(path)


def test_file_device_fifo_put_in_place_of_the_image_does_not_hang(
    image: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = os.stat(image)
    os.unlink(image)
    os.mkfifo(image)
    monkeypatch.setattr(os, "stat", lambda _path: info)
    with pytest.raises(DeviceError):
        FileDevice(image, readonly=True)


@pytest.mark.parametrize(
    ("name", "number"), [("EACCES", errno.EACCES), ("EROFS", errno.EROFS), ("EPERM", errno.EPERM)]
)
def test_file_device_open_errors_name_the_path(
    image: str, monkeypatch: pytest.MonkeyPatch, name: str, number: int
) -> None:
    # Root may open everything, so the host's refusal is played.
    def refuse(*_args: object) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(DeviceError) as e:
        FileDevice(image)
    assert (e.value.errno, str(e.value)) == (number, f"{image}: {os.strerror(number)}"), name


@given(limit=st.integers(1, 3 * BLOCK))
def test_file_device_goes_on_after_short_io(
    tmp_path_factory: pytest.TempPathFactory, limit: int
) -> None:
    path = str(tmp_path_factory.mktemp("short") / "disk.img")
    create_image(path, 64 * BLOCK)
    disk = FileDevice(path)
    whole_read, whole_write = os.preadv, os.pwritev

    def cut(views: list[memoryview]) -> list[memoryview]:
        out, left = [], limit
        for view in views:
            out.append(view[:left])
            left -= len(out[-1])
        return [view for view in out if view.nbytes]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "preadv", lambda fd, views, at: whole_read(fd, cut(views), at))
        patch.setattr(os, "pwritev", lambda fd, views, at: whole_write(fd, cut(views), at))
        disk.write(2, [pattern(2), pattern(3) + pattern(4)])
        assert read(disk, 2, 3) == pattern(2) + pattern(3) + pattern(4)
    assert read(disk, 2, 3) == pattern(2) + pattern(3) + pattern(4)
    disk.close()


def test_file_device_that_shrank_is_an_io_error(image: str) -> None:
    disk = FileDevice(image)
    os.truncate(image, 10 * BLOCK + 100)
    with pytest.raises(DeviceError, match="read at block 10: unexpected end") as e:
        read(disk, 8, 4)
    assert e.value.errno == errno.EIO
    disk.close()


def test_file_device_errors_of_the_host_are_device_errors(
    image: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = FileDevice(image)

    def fail(*_args: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    for call in ("preadv", "pwritev", "fdatasync"):
        monkeypatch.setattr(os, call, fail)
    for act in (
        *(lambda: read(disk, 1), lambda: disk.write(1, [bytes(BLOCK)])),
        disk.flush,
    ):
        with pytest.raises(DeviceError, match=f"^{image}: .*No space left") as e:
            act()
        assert e.value.errno == errno.ENOSPC
    disk.close()


def test_file_device_close_releases_the_lock_when_opening_fails(
    image: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_fd: int, path: str) -> int:
        raise DeviceError(errno.EIO, path)

    with monkeypatch.context() as patch:
        patch.setattr(device_module, "_size", fail)
        with pytest.raises(DeviceError):
            FileDevice(image)
    FileDevice(image).close()


def test_create_image_is_sparse_private_and_new(tmp_path: Path) -> None:
    path = tmp_path / "new.img"
    create_image(str(path), 1 << 40)
    info = path.stat()
    assert (info.st_size, info.st_blocks, info.st_mode & 0o777) == (1 << 40, 0, 0o600)
    with pytest.raises(DeviceError) as e:
        create_image(str(path), 1)
    assert e.value.errno == errno.EEXIST
    assert path.stat().st_size == 1 << 40
    with pytest.raises(DeviceError, match="No such file"):
        create_image(str(tmp_path / "no" / "where"), 1)


def test_memory_device_fork_shares_nothing_that_changes() -> None:
    disk = MemoryDevice(64)
    disk.write(1, [pattern(1)])
    copy = disk.fork()
    disk.write(1, [pattern(2)])
    copy.write(3, [pattern(3)])
    assert (read(copy, 1), read(disk, 1)) == (pattern(1), pattern(2))
    assert disk.is_zero(3, 1)
    disk.readonly = True
    with pytest.raises(DeviceError):
        disk.write(1, [pattern(1)])


def test_memory_device_keeps_bytes_not_views() -> None:
    disk, data = MemoryDevice(64), bytearray(pattern(9))
    disk.write(0, [memoryview(data)])
    data[:] = bytes(BLOCK)
    assert read(disk, 0) == pattern(9)


# --- a real block device --------------------------------------------------------------------

NO_LOOP = os.geteuid() != 0 or shutil.which("losetup") is None or not os.path.exists("/dev/loop0")


@pytest.fixture
def loop(image: str) -> Iterator[str]:
    made = subprocess.run(
        ["losetup", "--find", "--show", image], capture_output=True, text=True, check=False
    )
    if made.returncode:
        pytest.skip(f"no loop device here: {made.stderr.strip()}")
    path = made.stdout.strip()
    yield path
    subprocess.run(["losetup", "--detach", path], check=True)


@pytest.mark.skipif(NO_LOOP, reason="needs root and losetup")
def test_loop_device_write_flush_read(loop: str, image: str) -> None:
    disk = FileDevice(loop)
    assert disk.blocks == 4096
    assert not disk.is_zero(0, 1)
    disk.write(7, [pattern(7), pattern(8)])
    disk.flush()
    assert read(disk, 7, 2) == pattern(7) + pattern(8)
    with pytest.raises(DeviceError):
        disk.write(4096, [bytes(BLOCK)])
    disk.close()
    assert Path(image).read_bytes()[7 * BLOCK : 8 * BLOCK] == pattern(7)


@pytest.mark.skipif(NO_LOOP, reason="needs root and losetup")
def test_loop_device_one_writer_or_many_readers(loop: str) -> None:
    disk = FileDevice(loop)
    with pytest.raises(InUse, match=loop):
        FileDevice(loop)
    disk.close()
    # Whoever holds it exclusively, as a mount does, keeps a writer out even without flock.
    holder = os.open(loop, os.O_RDWR | os.O_EXCL)
    with pytest.raises(InUse, match=loop):
        FileDevice(loop)
    os.close(holder)
    readers = [FileDevice(loop, readonly=True) for _ in range(2)]
    for reader in readers:
        reader.close()
