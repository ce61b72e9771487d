"""One flipped bit in each block that LFS has of its own: fsck -y says so, and nothing goes but what
that block held. A block of the segment table may be destroyed altogether."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from libfs.formats import rebuild
from libfs.lfs import Lfs, check
from libfs.lfs import format as f
from libfs.lfs.inode import records_untrusted
from libfs.posix.interface import Ino
from tests.lfs.support import DIR, FILE, ROOT, TOP, UUID, Disk
from xnfs import FramePool, MemoryDevice, Xn, format_image
from xnfs.disk.fsck import check_image

Tree = dict[int, tuple[int, bytes, tuple[bytes, ...]]]


@pytest.fixture(scope="module")
def made() -> Disk:
    """A little of everything, in several segments, with a checkpoint and what came after."""
    disk = Disk(blocks=1024)
    for i in range(30):
        disk.file(b"f%d" % i, b"%d " % i * 900)
    disk.file(b"large", b"l" * 60 * 4096)
    many = disk.fs.create(ROOT, TOP, b"many", DIR)
    for i in range(200):
        disk.file(b"%d %s" % (i, b"n" * 40), parent=many)
    attributed = disk.file(b"attributed", b"a")
    disk.fs.setxattr(ROOT, attributed, b"user.x", b"x" * 2000, 0)
    disk.close()
    disk.mount()
    disk.file(b"after", b"z" * 5000)
    disk.fs.sync(None)
    disk.cut()
    Xn(disk.device, frames=FramePool(2048)).close()  # what XN's log has would mend all
    disk.mount()
    return disk


def _spoil(disk: Disk, block: int) -> MemoryDevice:
    """A copy with one bit turned over."""
    whole, disk.device = disk.device, disk.device.fork()
    disk.spoil(block)
    disk.device, hurt = whole, disk.device
    return hurt


def _tree(fs: Lfs) -> Tree:
    """What can be had of all inodes that the map has."""
    found: Tree = {}
    for ino, _at in list(fs.volume.imap.items()):
        v = fs.volume.vnode(ino)
        names = tuple(sorted(e.name for e in fs.readdir(Ino(ino), 0))) if v.is_dir else ()
        data = b"" if v.is_dir else fs.read(Ino(ino), 0, v.size)
        found[ino] = v.size, data, (*names, *sorted(fs.volume.xattrs(v)))
    return found


def _check(device: MemoryDevice, name: str, *, repair: bool) -> list[str]:
    """The codes of what the checker of LFS finds."""
    xn = Xn(device, frames=FramePool(2048), readonly=not repair)
    codes: list[str] = []
    check(xn, xn.admin, name, repair=repair, report=lambda it: codes.append(it.code))
    xn.close()
    return codes


def _fsck(device: MemoryDevice) -> tuple[list[str], Lfs]:
    """The codes of what fsck -y finds, after which it finds nothing; and what is there then."""
    codes: list[str] = []
    check_image(device, repair=True, report=lambda it: codes.append(it.code), rebuild=rebuild)
    codes += _check(device, "home", repair=True)
    assert _check(device.fork(), "home", repair=False) == []
    assert check_image(device, repair=False, report=lambda _it: None).clean
    xn = Xn(device, frames=FramePool(2048))
    return codes, Lfs.mount(xn, xn.admin, "home")


def _below(disk: Disk, block: int, kind: int, ino: int) -> set[int]:
    """The inodes that a block of the log holds, or is a part of."""
    if kind != f.P_INODES:
        return {ino}
    return {found for _at, found in records_untrusted(block, bytes(disk.raw(block)))}


def _own(disk: Disk) -> Iterator[tuple[int, int, int]]:
    """(block, kind, inode) of all that is live in the log and no data."""
    vol = disk.fs.volume
    live = {at & f.AT_MASK for _ino, at in vol.imap.items()}
    live |= {at & f.AT_MASK for _level, _index, at in vol.imap.nodes() if at > f.RESERVED}
    for ino, _at in vol.imap.items():
        v = vol.vnode(ino)
        live |= {at & f.AT_MASK for _level, _index, at in v.tree.nodes()}
        live |= {at & f.AT_MASK for _i, at in v.tree.items()} | {v.xattr_at & f.AT_MASK}
    for segment, usage in vol.segments.usage.items():
        for index, kind, count, ino, _at, _flush in vol.segments.slots_untrusted(segment)[1]:
            for block in range(usage.summary + 1 + index, usage.summary + 1 + index + count):
                if kind != f.P_DATA and block in live:
                    yield block, kind, ino


def test_lost_one_bit_of_what_owns_loses_nothing(made: Disk) -> None:
    """Super block, segment table, summaries."""
    want = _tree(made.fs)
    segments = made.fs.volume.segments
    summaries = [usage.summary for usage in segments.usage.values()]
    for block in (made.fs.volume.super, *segments.tables.values(), *summaries):
        codes, fs = _fsck(_spoil(made, block))
        assert codes == ["flipped-bit"]
        assert _tree(fs) == want


def test_lost_one_bit_of_anything_else_loses_what_was_in_it(made: Disk) -> None:
    want = _tree(made.fs)
    own = list(_own(made))
    assert {kind for _block, kind, _ino in own} >= {f.P_INODES, f.P_MAP1, f.P_NAMES, f.P_XATTR}
    regions = [(block, 0, 0) for block in made.fs.volume.checkpoint.regions]
    for block, kind, ino in (*regions, *own):
        below = _below(made, block, kind, ino) if kind else set()
        codes, fs = _fsck(_spoil(made, block))
        assert codes, (block, kind)
        got = _tree(fs)
        gone = {i for i in want if i not in below and got.get(i) != want[i]}
        # A directory loses the names of what went, and the root gets those of what has none.
        assert all(want[i][2] for i in gone), (block, kind, codes)


@pytest.mark.parametrize("two", [False, True])
def test_lost_a_table_is_made_anew(two: bool) -> None:
    """Of several file systems each gets its own again."""
    device = MemoryDevice(2048)
    format_image(device, uuid=UUID, label="test")
    xn = Xn(device, frames=FramePool(2048))
    trees, tables = {}, {}
    for name in ("home", "other"):
        Lfs.mkfs(xn, xn.admin, name)
        fs = Lfs.mount(xn, xn.admin, name)
        for i in range(40):
            ino = fs.create(ROOT, TOP, b"%d" % i, FILE)
            # Enough in the records: a segment of data alone does not tell whose it is.
            fs.write(ROOT, ino, 0, name.encode() * (400 if two else 4000), kill_suid=False)
        fs.close()
        trees[name], tables[name] = _tree(fs), next(iter(fs.volume.segments.tables.values()))
    xn.close()
    for name in ("home", "other") if two else ("other",):
        device.write(tables[name], [b"\xff" * 4096])
    codes: list[str] = []
    check_image(device, repair=True, report=lambda it: codes.append(it.code), rebuild=rebuild)
    assert set(codes) == {"rebuilt"}
    for name in ("home", "other"):
        assert set(_check(device, name, repair=True)) <= {"usage"}
        xn = Xn(device.fork(), frames=FramePool(2048))
        assert _tree(Lfs.mount(xn, xn.admin, name)) == trees[name]
    assert check_image(device, repair=False, report=lambda _it: None).clean
