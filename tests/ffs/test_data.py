"""Bytes of files against a plain bytearray; extents against a plain dict; trees of every depth."""

from __future__ import annotations

import errno
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libfs.ffs import format as f
from libfs.ffs.volume import Batch
from libfs.posix.interface import FsError, Ino
from tests.ffs.support import FILE, ROOT, Disk, write

SIZE = 24 * 4096


class Shadow:
    """A file, and what should be in it."""

    def __init__(self, disk: Disk) -> None:
        self.disk = disk
        self.ino: Ino = disk.fs.create(ROOT, disk.fs.root, b"f", FILE)
        self.bytes = bytearray()

    def apply(self, kind: str, a: int, b: int) -> None:
        """One operation on both."""
        fs, ino = self.disk.fs, self.ino
        if kind == "write":
            data = bytes([1 + a % 255]) * b
            write(fs, ino, a, data)
            self.bytes.extend(bytes(max(0, a + b - len(self.bytes))))
            self.bytes[a : a + b] = data
        elif kind == "truncate":
            fs.truncate(ROOT, ino, a, kill_suid=False)
            self.bytes = self.bytes[:a] + bytes(max(0, a - len(self.bytes)))
        elif kind in ("punch", "zero"):
            if kind == "punch":
                fs.punch(ROOT, ino, a, b)
            else:
                fs.zero_range(ROOT, ino, a, b, keep_size=True)
            end = min(a + b, len(self.bytes))
            if a < end:
                self.bytes[a:end] = bytes(end - a)
        elif kind == "allocate":
            fs.allocate(ROOT, ino, a, b, keep_size=False)
            self.bytes.extend(bytes(max(0, a + b - len(self.bytes))))
        elif kind == "remount":
            fs = self.disk.remount()
            found = fs.lookup(fs.root, b"f")
            assert found is not None
            self.ino = found

    def compare(self) -> None:
        """Both have the same bytes."""
        fs = self.disk.fs
        assert fs.getattr(self.ino).size == len(self.bytes)
        assert fs.read(self.ino, 0, 2 * SIZE) == self.bytes


_OPERATIONS = st.tuples(
    st.sampled_from(
        ["write", "write", "write", "truncate", "punch", "zero", "allocate", "remount"]
    ),
    st.one_of(st.integers(0, SIZE), st.integers(0, 24).map(lambda n: n * 4096)),
    st.one_of(st.integers(1, 9000), st.integers(1, 3).map(lambda n: n * 4096)),
)


@given(st.lists(_OPERATIONS, max_size=25))
def test_data_like_a_bytearray(operations: list[tuple[str, int, int]]) -> None:
    shadow = Shadow(Disk(2048, 600))
    for operation in operations:
        shadow.apply(*operation)
        shadow.compare()
    summary, found = shadow.disk.check()
    assert summary.clean, found
    assert shadow.disk.mount().volume.xn.free_blocks() > 0


def test_data_survives_remount() -> None:
    disk = Disk()
    shadow = Shadow(disk)
    rng = random.Random(1)
    data = rng.randbytes(3_000_001)
    write(disk.fs, shadow.ino, 0, data)
    shadow.bytes = bytearray(data)
    shadow.apply("remount", 0, 0)
    assert disk.fs.read(shadow.ino, 0, 4_000_000) == data
    assert disk.fs.read(shadow.ino, 1_234_567, 9_999) == data[1_234_567:1_244_566]


def _scatter(disk: Disk, ino: Ino, blocks: list[int]) -> None:
    for fb in blocks:
        write(disk.fs, ino, fb * 4096, b"%d." % fb)


@pytest.mark.parametrize(("count", "depth"), [(10, 0), (12, 1), (2000, 1), (3100, 2)])
def test_extents_depth(count: int, depth: int) -> None:
    disk = Disk(12000, 9000)
    ino = disk.fs.create(ROOT, disk.fs.root, b"f", FILE)
    blocks = [2 * i + 1 for i in range(count)]
    random.Random(count).shuffle(blocks)
    _scatter(disk, ino, blocks)
    assert disk.fs.volume.vnode(ino).depth == depth or count == 2000
    fs = disk.remount()
    found = fs.lookup(fs.root, b"f")
    assert found is not None
    for fb in blocks:
        assert fs.read(found, fb * 4096, 10).startswith(b"%d." % fb)
        assert fs.read(found, (fb - 1) * 4096, 4096) == bytes(4096)
    assert disk.check()[0].clean
    fs = disk.mount()
    free = fs.statfs().bfree
    assert fs.lookup(fs.root, b"f") == found
    fs.truncate(ROOT, found, 0, kill_suid=False)
    fs.sync(None)
    assert fs.volume.vnode(found).depth == 0
    assert fs.statfs().bfree >= free + count
    assert fs.getattr(found).blocks == 8


def test_extents_depth_3() -> None:
    """Nodes of all three levels: the two upper ones grown by hand, for speed."""
    disk = Disk(4000, 3000)
    fs = disk.fs
    ino = fs.create(ROOT, fs.root, b"f", FILE)
    for fb in (1, 5, 9):
        write(fs, ino, fb * 4096, b"x%d" % fb)
    v = fs.volume.vnode(ino)
    for _level in range(3):
        fs._map._deepen(fs.volume.who, v)
    assert v.depth == 3
    with pytest.raises(FsError) as caught:
        fs._map._deepen(fs.volume.who, v)
    assert caught.value.errno == errno.EFBIG
    _scatter(disk, ino, [2 * i + 100 for i in range(600)])
    fs = disk.remount()
    assert fs.lookup(fs.root, b"f") == ino
    assert fs.read(ino, 5 * 4096, 2) == b"x5"
    assert fs.volume.vnode(ino).depth == 3
    assert disk.check()[0].clean
    fs = disk.mount()
    fs.unlink(ROOT, fs.root, b"f", keep=False)
    fs.sync(None)
    assert disk.check()[0].clean


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(1, 8), st.booleans()), max_size=60))
def test_extents_like_a_dict(operations: list[tuple[int, int, bool]]) -> None:
    disk = Disk(2048, 600)
    fs = disk.fs
    ino = fs.create(ROOT, fs.root, b"f", FILE)
    v = fs.volume.vnode(ino)
    model: dict[int, bytes] = {}
    for step, (fb, count, cut) in enumerate(operations):
        if cut:
            fs.punch(ROOT, ino, fb * 4096, count * 4096)
            for b in range(fb, fb + count):
                model.pop(b, None)
        else:
            data = b"".join((b"%d:%d" % (step, b)).ljust(4096) for b in range(fb, fb + count))
            write(fs, ino, fb * 4096, data)
            for b in range(count):
                model[fb + b] = data[b * 4096 : b * 4096 + 4096]
        assert v.blocks - _nodes(disk, ino) == len(model)
    for b in range(70):
        kind = fs._map.find(v, b).kind
        assert (kind == f.P_DATA) == (b in model)
        if b in model:
            assert fs.read(ino, b * 4096, 4096) == model[b]


def _nodes(disk: Disk, ino: Ino) -> int:
    v = disk.fs.volume.vnode(ino)
    root = disk.fs._map.root(v)
    assert v.depth <= 1
    return len(root.entries) if v.depth else 0


def test_data_sparse_and_huge() -> None:
    disk = Disk()
    fs = disk.fs
    ino = fs.create(ROOT, fs.root, b"f", FILE)
    fs.truncate(ROOT, ino, fs.max_size, kill_suid=False)
    write(fs, ino, fs.max_size - 5, b"hello")
    write(fs, ino, 1 << 43, b"middle")
    fs = disk.remount()
    assert fs.lookup(fs.root, b"f") == ino
    assert fs.getattr(ino).size == fs.max_size
    assert fs.getattr(ino).blocks <= 8 * 4
    assert fs.read(ino, fs.max_size - 5, 100) == b"hello"
    assert fs.read(ino, (1 << 43) - 3, 12) == b"\0\0\0middle\0\0\0"
    assert fs.seek(ino, 0, hole=False) == 1 << 43
    assert fs.seek(ino, 1 << 43, hole=True) == (1 << 43) + 4096
    with pytest.raises(FsError) as caught:
        fs.write(ROOT, ino, fs.max_size - 1, b"xx", kill_suid=False)
    assert caught.value.errno == errno.EFBIG


def test_data_stale_bytes_never_show() -> None:
    """Cut in the middle of a block, then grow: what was cut reads as zeros (D2)."""
    disk = Disk()
    fs = disk.fs
    ino = fs.create(ROOT, fs.root, b"f", FILE)
    write(fs, ino, 0, b"A" * 10_000)
    fs.truncate(ROOT, ino, 5_000, kill_suid=False)
    fs.truncate(ROOT, ino, 9_000, kill_suid=False)
    assert fs.read(ino, 0, 10_000) == b"A" * 5_000 + bytes(4_000)
    fs.truncate(ROOT, ino, 4_500, kill_suid=False)
    write(fs, ino, 20_000, b"B")
    assert fs.read(ino, 0, 20_001) == b"A" * 4_500 + bytes(15_500) + b"B"


def test_data_full_disk() -> None:
    """Writing until nothing fits, then deleting and writing again; the file system stays sound."""
    disk = Disk(1500, 1200)
    fs = disk.fs
    made: list[bytes] = []

    def fill() -> None:
        for i in range(10_000):
            name = b"f%d" % i
            ino = fs.create(ROOT, fs.root, name, FILE)
            made.append(name)
            fs.write(ROOT, ino, 0, bytes([i % 256]) * 20_000, kill_suid=False)

    with pytest.raises(FsError) as caught:
        fill()
    assert caught.value.errno == errno.ENOSPC
    assert fs.statfs().bfree < 8
    fs.sync(None)
    for name in made:
        fs.unlink(ROOT, fs.root, name, keep=False)
    fs.sync(None)
    assert fs.entries(fs.root) == 0
    ino = fs.create(ROOT, fs.root, b"again", FILE)
    write(fs, ino, 0, bytes(1_000_000))
    assert disk.check()[0].clean


def test_data_failed_change_leaves_no_trace() -> None:
    """A refused batch: memory says what the disk says."""
    disk = Disk()
    fs = disk.fs
    ino = fs.create(ROOT, fs.root, b"f", FILE)
    write(fs, ino, 0, b"x" * 5000)
    v = fs.volume.vnode(ino)
    before = v.pack()
    batch = Batch(fs.volume, fs.volume.who)
    batch.set(v, size=1, mode=0o100777)
    fs._map.cut(batch, v, fs._map.root(v), 0, 10)  # frees nothing: the kernel refuses
    with pytest.raises(Exception, match="ownership"):
        batch.commit()
    assert v.pack() == before
    assert fs.read(ino, 0, 9000) == b"x" * 5000


def test_data_new_blocks_bring_size_and_times_along() -> None:
    """One change of the inode for an append by a block: none is left for the sync."""
    disk = Disk()
    fs = disk.fs
    ino = fs.create(ROOT, fs.root, b"f", FILE)
    before = fs.getattr(ino).mtime
    write(fs, ino, 0, bytes(3 * 4096))
    v = fs.volume.vnode(ino)
    assert fs.volume.dirty == set()
    assert (v.size, v.mtime) == (3 * 4096, v.ctime)
    assert v.mtime > before
    write(fs, ino, 0, b"x")  # only an overwrite leaves its times for later
    assert fs.volume.dirty == {v}
    kept = v.mtime
    fs = disk.remount()
    assert fs.lookup(fs.root, b"f") == ino
    assert fs.getattr(ino).mtime == kept
