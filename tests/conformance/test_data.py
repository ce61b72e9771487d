"""Bytes: read and write, append, sizes, holes, fallocate, seek, copy, set-id bits."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from functools import partial
from typing import cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from libfs.posix import Fh, FileSystem, Ino, Options, Posix
from libfs.posix.data import (
    FALLOC_FL_KEEP_SIZE,
    FALLOC_FL_PUNCH_HOLE,
    FALLOC_FL_ZERO_RANGE,
)
from libfs.posix.interface import Syncing
from tests.conformance.conftest import FACTORIES
from tests.conformance.support import (
    ALICE,
    BOB,
    CREATE,
    ROOT,
    content,
    errno_of,
    make_dir,
    make_file,
    perm,
    refuses,
)

BLOCK = 4096
KB64 = 64 * 1024


def _open(posix: Posix, name: bytes = b"f", flags: int = CREATE) -> Fh:
    return posix.create(ALICE, posix.root, name, 0o644, flags)[1]


def _size(posix: Posix, name: bytes = b"f") -> int:
    return posix.lookup(ROOT, posix.root, name).size


def test_data_write_and_read(posix: Posix) -> None:
    fh = _open(posix)
    assert posix.write(fh, 0, b"0123456789") == 10
    assert posix.write(fh, 3, memoryview(b"abc")) == 3
    assert posix.read(fh, 0, 99) == b"012abc6789"
    assert posix.read(fh, 8, 2) == b"89"
    assert posix.read(fh, 10, 1) == b""
    assert posix.read(fh, 1 << 40, 1) == b""
    assert posix.read(fh, 0, 0) == b""
    assert posix.write(fh, 99, b"") == 0
    assert _size(posix) == 10


@pytest.mark.parametrize("size", [10, 3000, 3 * BLOCK - 1, 40 * BLOCK, 300 * BLOCK])
def test_data_lent_is_what_is_read(posix: Posix, size: int) -> None:
    fh = _open(posix)
    shown: list[bytes] = []

    def take(parts: Sequence[bytes | memoryview]) -> None:
        shown.append(b"".join(parts))

    def compare() -> None:
        for offset in (0, 1, BLOCK, size // 2, size - 1, size, size + BLOCK):
            for length in (0, 1, 2 * BLOCK, 70 * BLOCK, size, 2 * size):
                shown.clear()
                posix.lend(fh, offset, length, take)
                assert shown == [posix.read(fh, offset, length)], (offset, length)
                assert b"".join(posix.borrow(fh, offset, length)) == shown[0], (offset, length)

    posix.write(fh, 0, os.urandom(size))
    compare()
    posix.sync()
    compare()
    posix.write(fh, 64 * BLOCK + size, b"behind a hole")
    compare()
    posix.fallocate(fh, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, size // 2, BLOCK)
    compare()


def test_data_lent_moves_the_access_time_and_needs_the_right(posix: Posix) -> None:
    fh = _open(posix)
    posix.write(fh, 0, b"x" * KB64)
    ino = posix.lookup(ROOT, posix.root, b"f").ino
    before = posix.getattr(ROOT, ino)
    kept = posix.borrow(fh, 0, KB64)
    posix.write(fh, 0, b"y" * KB64)
    assert b"".join(kept) == b"x" * KB64
    posix.lend(fh, 0, KB64, lambda parts: None)
    assert posix.getattr(ROOT, ino).atime > before.atime
    blind = _open(posix, b"g", os.O_CREAT | os.O_WRONLY)
    with refuses(errno.EBADF):
        posix.lend(blind, 0, KB64, lambda parts: pytest.fail("shown"))
    with refuses(errno.EBADF):
        posix.borrow(blind, 0, KB64)
    with refuses(errno.EINVAL):
        posix.borrow(fh, -1, KB64)
    with refuses(errno.EINVAL):
        posix.lend(fh, -1, KB64, lambda parts: pytest.fail("shown"))


def test_data_rights(posix: Posix) -> None:
    make_file(posix, posix.root, b"f", b"x", mode=0o666)
    reader, writer = _open(posix, flags=os.O_RDONLY), _open(posix, flags=os.O_WRONLY)
    with refuses(errno.EBADF):
        posix.write(reader, 0, b"x")
    with refuses(errno.EBADF):
        posix.read(writer, 0, 1)
    with refuses(errno.EBADF):
        posix.fallocate(reader, 0, 0, 1)
    with refuses(errno.EBADF):
        posix.copy_file_range(writer, 0, writer, 0, 1)
    with refuses(errno.EBADF):
        posix.copy_file_range(reader, 0, reader, 0, 1)


def test_data_negative(posix: Posix) -> None:
    fh = _open(posix)
    for call in (
        lambda: posix.read(fh, -1, 1),
        lambda: posix.read(fh, 0, -1),
        lambda: posix.write(fh, -1, b"x"),
        lambda: posix.fallocate(fh, 0, -1, 1),
        lambda: posix.fallocate(fh, 0, 0, 0),
        lambda: posix.fallocate(fh, 0, 0, -1),
        lambda: posix.setattr(ALICE, posix.lookup(ALICE, posix.root, b"f").ino, size=-1),
        lambda: posix.copy_file_range(fh, -1, fh, 0, 1),
    ):
        with refuses(errno.EINVAL):
            call()


def test_data_append(posix: Posix) -> None:
    fh = _open(posix, flags=CREATE | os.O_APPEND)
    other = _open(posix)
    posix.write(fh, 0, b"one")
    posix.write(other, 3, b"two")
    posix.write(fh, 0, b"three")
    assert posix.read(fh, 0, 99) == b"onetwothree"
    with refuses(errno.EBADF):
        posix.copy_file_range(other, 0, fh, 0, 1)


@pytest.mark.parametrize("size", [1, 100, 1000, BLOCK - 1, BLOCK, BLOCK + 1, 100_000])
def test_data_sizes(posix: Posix, size: int) -> None:
    """Around whatever a file system keeps inline, and across blocks."""
    fh = _open(posix)
    data = os.urandom(size)
    assert posix.write(fh, 0, data) == size
    assert posix.read(fh, 0, size + 1) == data
    assert posix.write(fh, size, data) == size
    assert posix.read(fh, 0, 2 * size) == data + data
    posix.truncate(ALICE, posix.lookup(ALICE, posix.root, b"f").ino, size // 2)
    assert posix.read(fh, 0, 2 * size) == data[: size // 2]
    posix.truncate(ALICE, posix.lookup(ALICE, posix.root, b"f").ino, size)
    assert posix.read(fh, 0, size) == data[: size // 2] + bytes(size - size // 2)


def test_data_far_away(posix: Posix, fs: FileSystem) -> None:
    """A byte far out costs a few blocks, and nothing in between."""
    fh = _open(posix)
    far = min(1 << 40, fs.max_size // 2)
    assert posix.write(fh, far, b"far") == 3
    attr = posix.lookup(ROOT, posix.root, b"f")
    assert attr.size == far + 3
    assert attr.blocks * 512 <= 10 * BLOCK
    assert posix.read(fh, far - 5, 99) == bytes(5) + b"far"
    assert posix.read(fh, 0, 5) == bytes(5)
    posix.truncate(ALICE, attr.ino, 0)
    assert posix.getattr(ROOT, attr.ino).blocks * 512 <= BLOCK


def test_data_largest_size(posix: Posix, fs: FileSystem) -> None:
    fh = _open(posix)
    ino = posix.lookup(ROOT, posix.root, b"f").ino
    assert posix.write(fh, fs.max_size - 3, b"12345") == 3
    assert _size(posix) == fs.max_size
    with refuses(errno.EFBIG):
        posix.write(fh, fs.max_size, b"x")
    with refuses(errno.EFBIG):
        posix.setattr(ALICE, ino, size=fs.max_size + 1)
    with refuses(errno.EFBIG):
        posix.fallocate(fh, 0, fs.max_size, 1)
    posix.setattr(ALICE, ino, size=fs.max_size)


def test_data_write_moves_times(posix: Posix) -> None:
    fh = _open(posix)
    ino = posix.lookup(ROOT, posix.root, b"f").ino
    for call in (
        lambda: posix.write(fh, 0, b"x"),
        lambda: posix.truncate(ALICE, ino, 0),
        lambda: posix.truncate(ALICE, ino, 0),
        lambda: posix.fallocate(fh, 0, 0, 10),
        lambda: posix.fallocate(fh, FALLOC_FL_ZERO_RANGE, 0, 10),
        lambda: posix.fallocate(fh, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 10),
    ):
        before = posix.setattr(ALICE, ino, mtime=5)
        call()
        after = posix.getattr(ALICE, ino)
        assert after.mtime > 5
        assert after.ctime >= before.ctime


# -- truncate


def test_data_truncate_rights(posix: Posix) -> None:
    ino = make_file(posix, posix.root, b"f", b"bytes", mode=0o644)
    with refuses(errno.EACCES):
        posix.truncate(BOB, ino, 0)
    reader = posix.open(BOB, ino, os.O_RDONLY)
    with refuses(errno.EINVAL):
        posix.truncate(BOB, ino, 0, reader)
    posix.setattr(ROOT, ino, mode=0o666)
    writer = posix.open(BOB, ino, os.O_WRONLY)
    posix.setattr(ROOT, ino, mode=0)
    posix.truncate(BOB, ino, 2, writer)
    assert _size(posix) == 2


def test_data_truncate_of_other_kinds(posix: Posix) -> None:
    with refuses(errno.EISDIR):
        posix.truncate(ROOT, make_dir(posix, posix.root, b"d"), 0)
    with refuses(errno.EINVAL):
        posix.truncate(ROOT, posix.symlink(ROOT, posix.root, b"l", b"t").ino, 0)


def test_data_truncate_leaves_no_old_bytes(posix: Posix) -> None:
    ino = make_file(posix, posix.root, b"f", b"x" * 10_000)
    posix.truncate(ROOT, ino, 4100)
    posix.truncate(ROOT, ino, 9000)
    assert content(posix, ino) == b"x" * 4100 + bytes(4900)


# -- fallocate


@pytest.mark.parametrize(
    "mode",
    [
        FALLOC_FL_PUNCH_HOLE,
        FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE,
        FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE,
        0x04,
        0x08,
        0x20,
        0x40,
        0x80,
    ],
)
def test_data_fallocate_unsupported(posix: Posix, mode: int) -> None:
    fh = _open(posix)
    with refuses(errno.EOPNOTSUPP):
        posix.fallocate(fh, mode, 0, BLOCK)


@pytest.mark.parametrize("size", [100, 3 * BLOCK, 5 * BLOCK + 7])
@pytest.mark.parametrize("start", [0, 50, BLOCK, BLOCK + 9, 4 * BLOCK])
@pytest.mark.parametrize("length", [1, 40, BLOCK, 3 * BLOCK + 5])
@pytest.mark.parametrize(
    "mode",
    [
        0,
        FALLOC_FL_KEEP_SIZE,
        FALLOC_FL_ZERO_RANGE,
        FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE,
        FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
    ],
)
def test_data_fallocate(posix: Posix, mode: int, length: int, start: int, size: int) -> None:
    fh = _open(posix)
    expected = bytearray(b"x" * size)
    posix.write(fh, 0, bytes(expected))
    posix.fallocate(fh, mode, start, length)
    if not mode & FALLOC_FL_KEEP_SIZE:
        expected += bytes(max(0, start + length - size))
    if mode & (FALLOC_FL_ZERO_RANGE | FALLOC_FL_PUNCH_HOLE):
        stop = min(start + length, len(expected))
        expected[start:stop] = bytes(max(0, stop - start))
    assert _size(posix) == len(expected)
    assert posix.read(fh, 0, 1 << 20) == bytes(expected)


def test_data_fallocate_beyond_size_shows_zeros_later(posix: Posix) -> None:
    fh = _open(posix)
    posix.fallocate(fh, FALLOC_FL_KEEP_SIZE, 0, 8 * BLOCK)
    assert _size(posix) == 0
    posix.write(fh, 5 * BLOCK, b"x")
    assert posix.read(fh, 0, 1 << 20) == bytes(5 * BLOCK) + b"x"


def test_data_punch_gives_space_back(posix: Posix) -> None:
    fh = _open(posix)
    posix.write(fh, 0, b"x" * (4 * KB64))
    before = posix.lookup(ROOT, posix.root, b"f").blocks
    posix.fallocate(fh, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, KB64, 2 * KB64)
    assert posix.lookup(ROOT, posix.root, b"f").blocks <= before - 2 * KB64 // 512 + 16


# -- seek


def test_data_seek(posix: Posix) -> None:
    """Data, a hole and data again, each far larger than any block."""
    fh = _open(posix)
    posix.write(fh, 0, b"x" * KB64)
    posix.write(fh, 3 * KB64, b"x" * KB64)
    posix.truncate(ALICE, posix.lookup(ALICE, posix.root, b"f").ino, 6 * KB64)
    for at, data, hole in (
        (0, 0, KB64),
        (KB64 - 1, KB64 - 1, KB64),
        (KB64, 3 * KB64, KB64),
        (2 * KB64, 3 * KB64, 2 * KB64),
        (3 * KB64 + 5, 3 * KB64 + 5, 4 * KB64),
    ):
        assert posix.lseek(fh, at, os.SEEK_DATA) == data
        assert posix.lseek(fh, at, os.SEEK_HOLE) == hole
    assert posix.lseek(fh, 5 * KB64, os.SEEK_HOLE) == 5 * KB64
    with refuses(errno.ENXIO):
        posix.lseek(fh, 5 * KB64, os.SEEK_DATA)


def test_data_seek_end_is_a_hole(posix: Posix) -> None:
    fh = _open(posix)
    posix.write(fh, 0, b"x" * 100)
    assert posix.lseek(fh, 10, os.SEEK_DATA) == 10
    assert posix.lseek(fh, 10, os.SEEK_HOLE) == 100


@pytest.mark.parametrize("whence", [os.SEEK_DATA, os.SEEK_HOLE])
def test_data_seek_outside(posix: Posix, whence: int) -> None:
    fh = _open(posix)
    posix.write(fh, 0, b"x" * 100)
    for at in (100, 101, 1 << 40, -1):
        with refuses(errno.ENXIO):
            posix.lseek(fh, at, whence)


@pytest.mark.parametrize("whence", [os.SEEK_SET, os.SEEK_CUR, os.SEEK_END, 9])
def test_data_seek_other_whence(posix: Posix, whence: int) -> None:
    with refuses(errno.EINVAL):
        posix.lseek(_open(posix), 0, whence)


# -- copy


@pytest.mark.parametrize("size", [1, 100, BLOCK, 3 * BLOCK + 1, 100_000])
def test_data_copy(posix: Posix, size: int) -> None:
    data = os.urandom(size)
    make_file(posix, posix.root, b"a", data)
    source = posix.open(ROOT, posix.lookup(ROOT, posix.root, b"a").ino, os.O_RDONLY)
    target = _open(posix)
    assert posix.copy_file_range(source, 0, target, 7, size + 50) == size
    assert posix.read(target, 0, 1 << 20) == bytes(7) + data
    assert posix.copy_file_range(source, size, target, 0, 1) == 0
    assert posix.copy_file_range(source, size // 2, target, 0, 3) == min(3, size - size // 2)


def test_data_copy_within_file(posix: Posix) -> None:
    fh = _open(posix)
    posix.write(fh, 0, b"0123456789")
    with refuses(errno.EINVAL):
        posix.copy_file_range(fh, 0, fh, 4, 5)
    with refuses(errno.EINVAL):
        posix.copy_file_range(fh, 4, fh, 0, 5)
    assert posix.copy_file_range(fh, 0, fh, 5, 5) == 5
    assert posix.read(fh, 0, 99) == b"0123401234"


# -- set-id bits


@pytest.mark.parametrize(
    ("mode", "left"),
    [
        (0o6777, 0o777),
        (0o4777, 0o777),
        (0o2777, 0o777),
        (0o2767, 0o2767),  # an old mark of mandatory locking, not a set-id bit
        (0o1777, 0o1777),
    ],
)
@pytest.mark.parametrize("how", ["write", "truncate", "open", "fallocate", "punch", "copy"])
def test_data_setid_goes_when_others_write(posix: Posix, how: str, mode: int, left: int) -> None:
    ino = make_file(posix, posix.root, b"f", b"bytes", mode=mode)
    for user, expected in ((ROOT, mode), (BOB, left)):
        fh = posix.open(user, ino, os.O_RDWR)
        if how == "write":
            posix.write(fh, 0, b"x")
        elif how == "truncate":
            posix.truncate(user, ino, 1)
        elif how == "open":
            posix.release(posix.open(user, ino, os.O_WRONLY | os.O_TRUNC))
        elif how == "fallocate":
            posix.fallocate(fh, 0, 0, 100)
        elif how == "punch":
            posix.fallocate(fh, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 1)
        else:
            posix.copy_file_range(fh, 0, fh, 3, 1)
        assert perm(posix.getattr(ROOT, ino)) == expected
        posix.release(fh)


# -- durability


class CountingSync:
    """A file system that notes what was to become durable, over a real one."""

    def __init__(self, fs: FileSystem) -> None:
        self._fs = fs
        self.asked: list[list[Ino] | None] = []

    def __getattr__(self, name: str) -> object:
        return getattr(self._fs, name)

    def begin_sync(self, inos: list[Ino] | None, *, data_only: bool = False) -> Syncing | None:
        self.asked.append(inos)
        return self._fs.begin_sync(inos, data_only=data_only)

    def sync(self, inos: list[Ino] | None, *, data_only: bool = False) -> None:
        self.asked.append(inos)
        self._fs.sync(inos, data_only=data_only)


@pytest.mark.parametrize(
    ("options", "flags", "names", "writes"),
    [
        (Options(), 0, 0, 0),
        (Options(dirsync=True), 0, 4, 0),
        (Options(sync=True), 0, 4, 2),
        (Options(), os.O_SYNC, 0, 1),
        (Options(), os.O_DSYNC, 0, 1),
    ],
)
def test_data_sync_options(
    fs: FileSystem, options: Options, flags: int, names: int, writes: int
) -> None:
    count = CountingSync(fs)
    layer = Posix(cast(FileSystem, count), options=options)
    attr, fh = layer.create(ROOT, layer.root, b"f", 0o644, CREATE | flags)
    layer.mkdir(ROOT, layer.root, b"d", 0o755)
    layer.rename(ROOT, layer.root, b"f", layer.root, b"g")
    layer.rmdir(ROOT, layer.root, b"d")
    assert len(count.asked) == names
    layer.write(fh, 0, b"x")
    layer.setattr(ROOT, attr.ino, mode=0o600)
    assert len(count.asked) == names + writes
    layer.fsync(fh)
    layer.sync()
    assert count.asked[-2:] == [[attr.ino], None]
    layer.release(fh)


# -- against a bytearray

OPERATION = st.tuples(
    st.sampled_from(["write", "truncate", "punch", "zero", "allocate"]),
    st.one_of(st.integers(0, 30_000), st.integers(0, 8).map(lambda n: n * BLOCK)),
    st.one_of(st.integers(1, 10_000), st.integers(1, 4).map(lambda n: n * BLOCK)),
)


@pytest.mark.parametrize("kind", sorted(FACTORIES))
def test_data_property_like_a_bytearray(kind: str) -> None:
    @settings(max_examples=40)
    @given(st.lists(OPERATION, max_size=12))
    def check(operations: list[tuple[str, int, int]]) -> None:
        posix = Posix(FACTORIES[kind]())
        attr, fh = posix.create(ROOT, posix.root, b"f", 0o644, CREATE)
        model = bytearray()
        for number, (what, start, length) in enumerate(operations):
            _apply(posix, fh, model, what, start, length, number + 1)
            assert posix.getattr(ROOT, attr.ino).size == len(model)
            assert posix.read(fh, 0, 1 << 20) == bytes(model)
            _check_holes(posix, fh, model)
        posix.release(fh)
        posix.close()

    check()


def _apply(
    posix: Posix, fh: Fh, model: bytearray, what: str, start: int, length: int, byte: int
) -> None:
    end = start + length
    if what == "truncate":
        posix.truncate(ROOT, posix.lookup(ROOT, posix.root, b"f").ino, start)
        del model[start:]
        model.extend(bytes(start - len(model)))
        return
    if what != "punch":
        model.extend(bytes(max(0, end - len(model))))
    if what == "write":
        posix.write(fh, start, bytes([byte]) * length)
        model[start:end] = bytes([byte]) * length
    elif what == "allocate":
        posix.fallocate(fh, 0, start, length)
    else:
        mode = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE if what == "punch" else 0x10
        posix.fallocate(fh, mode, start, length)
        stop = min(end, len(model))
        model[start:stop] = bytes(max(0, stop - start))


def _check_holes(posix: Posix, fh: Fh, model: bytearray) -> None:
    """Walk the file as `cp --sparse` does: what lies in holes is zero."""
    at, size = 0, len(model)
    while at < size:
        hole = posix.lseek(fh, at, os.SEEK_HOLE)
        assert at <= hole <= size
        if hole == size:
            return
        if errno_of(partial(posix.lseek, fh, hole, os.SEEK_DATA)) == errno.ENXIO:
            data = size
        else:
            data = posix.lseek(fh, hole, os.SEEK_DATA)
        assert data > hole
        assert not any(model[hole:data])
        at = data
