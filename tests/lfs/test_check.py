"""The checker: each kind of damage is found, mended, and not found again; what was good stays."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import pytest

from libfs.lfs import format as f
from libfs.lfs.checkpoint import make_durable
from libfs.lfs.findings import PROBLEMS
from libfs.lfs.inode import records_untrusted
from tests.lfs.support import DIR, ROOT, TOP, Disk, entries

Damage = Callable[[Disk], None]

#: Leaves of the directory `many`.
MANY: Final = 400


@pytest.fixture(scope="module")
def made() -> Disk:
    """A little of everything, closed."""
    disk = Disk()
    disk.file(b"small", b"s" * 500)
    disk.file(b"large", b"l" * 60 * 4096)
    below = disk.fs.create(ROOT, TOP, b"dir", DIR)
    disk.file(b"below", b"b" * 9000, below)
    many = disk.fs.create(ROOT, TOP, b"many", DIR)
    for i in range(MANY):
        disk.file(b"%d %s" % (i, b"n" * 40), parent=many)
    attributed = disk.file(b"attributed", b"a")
    disk.fs.setxattr(ROOT, attributed, b"user.x", b"x" * 2000, 0)
    disk.fs.volume.snapshots.create("snap")
    disk.file(b"after", b"z" * 5000)
    disk.close()
    return disk


def _at(disk: Disk, name: bytes) -> tuple[int, int]:
    """(block, offset) of the record of an inode."""
    ino = disk.fs.lookup(TOP, name)
    assert ino is not None
    address = disk.fs.volume.imap.get(ino)
    block = address & f.AT_MASK
    index = address >> f.INDEX_SHIFT & f.INDEX_MASK
    return block, records_untrusted(block, bytes(disk.raw(block)))[index][0]


def _put(name: bytes, offset: int, packed: bytes) -> Damage:
    """Write into a record."""

    def damage(disk: Disk) -> None:
        block, at = _at(disk, name)

        def edit(raw: bytearray) -> None:
            raw[at + offset : at + offset + len(packed)] = packed

        disk.patch(block, edit)

    return damage


def _u32(value: int) -> bytes:
    return value.to_bytes(4, "little")


def _leaf(disk: Disk) -> None:
    many = disk.fs.lookup(TOP, b"many")
    assert many is not None
    v = disk.fs.volume.vnode(many)
    number = next(i for i, _at in v.tree.items())
    disk.spoil(v.tree.get(number) & f.AT_MASK)


def _node(disk: Disk) -> None:
    large = disk.fs.lookup(TOP, b"large")
    assert large is not None
    disk.spoil(disk.fs.volume.vnode(large).tree.tops[0] & f.AT_MASK)


def _xattr(disk: Disk) -> None:
    ino = disk.fs.lookup(TOP, b"attributed")
    assert ino is not None
    disk.spoil(disk.fs.volume.vnode(ino).xattr_at & f.AT_MASK)


def _inodes(disk: Disk) -> None:
    disk.spoil(_at(disk, b"after")[0])


def _root(disk: Disk) -> None:
    disk.spoil(disk.fs.volume.imap.get(f.ROOT_INO) & f.AT_MASK)


def _region(disk: Disk) -> None:
    disk.spoil(disk.fs.volume.checkpoint.regions[0])


def _regions(disk: Disk) -> None:
    for region in disk.fs.volume.checkpoint.regions:
        disk.spoil(region)


def _snapshot(disk: Disk) -> None:
    disk.spoil(disk.fs.volume.snapshots.all[0].address & f.AT_MASK)


def _usage(disk: Disk) -> None:
    segments = disk.fs.volume.segments
    table, at = segments.entry(min(segments.usage))

    def edit(raw: bytearray) -> None:
        raw[at + 8 : at + 12] = _u32(1)

    disk.patch(table, edit, stamped=True)


#: what is done -> the first finding
CASES: Final[dict[str, tuple[Damage, str]]] = {
    "one region": (_region, "region"),
    "both regions": (_regions, "log"),
    "snapshot": (_snapshot, "snapshot"),
    "usage": (_usage, "usage"),
    "records": (_inodes, "inode-lost"),
    "the root's record": (_root, "inode-lost"),
    "map": (_node, "map-lost"),
    "leaf": (_leaf, "leaf-lost"),
    "attributes": (_xattr, "xattr-lost"),
    "links": (_put(b"small", 16, _u32(7)), "inode-links"),
    "links of a directory": (_put(b"dir", 16, _u32(7)), "inode-links"),
    "blocks": (_put(b"large", 32, _u32(999)), "inode-blocks"),
    "size": (_put(b"large", 24, _u32(4096)), "data-end"),
    "parent": (_put(b"dir", 80, _u32(3)), "dir-parent"),
    "entries": (_put(b"many", 96, _u32(3)), "dir-entries"),
    "type": (_put(b"small", 4, (0o010644).to_bytes(2, "little")), "name-type"),
    "address": (_put(b"large", f.RECORD.size, f.POINTER.pack(77)), "map-lost"),
    "nonsense": (_put(b"small", 84, b"\xff\xff\xff\xff"), "inode-lost"),
}


@pytest.mark.parametrize("case", CASES)
def test_check_finds_and_mends(made: Disk, case: str) -> None:
    damage, first = CASES[case]
    disk = Disk.__new__(Disk)
    disk.__dict__.update(made.__dict__)
    disk.cut()
    disk.close()
    disk.mount()
    damage(disk)
    summary, found = disk.check()
    assert first in {finding.code for finding in found}
    assert summary.unrepaired == len(found)
    summary, found = disk.check(repair=True)
    codes = [finding.code for finding in found]
    assert set(codes) <= PROBLEMS.keys()
    assert summary.unrepaired == codes.count("snapshot-damaged")
    again, found = disk.check()
    assert again.clean or {finding.code for finding in found} == {"snapshot-damaged"}
    disk.cut()
    for name, _time in disk.fs.snapshots():
        disk.fs.delete_snapshot(name)
    kept = {b"small", b"large", b"dir", b"many", b"attributed", b"after"}
    if case in ("records", "the root's record"):
        assert disk.names()
        assert all(name.startswith(b"#") or name in kept for name in disk.names())
    elif case == "nonsense":
        assert disk.names() == kept - {b"small"}
    else:
        assert kept <= disk.names()
        assert disk.names() == kept or case == "leaf"
        if case not in ("map", "address", "size"):
            assert disk.read(b"large") == b"l" * 60 * 4096
    disk.file(b"new", b"n" * 10_000)
    disk.fs.sync(None)
    disk.cut()
    assert disk.read(b"new") == b"n" * 10_000
    assert disk.check()[0].clean


def test_check_a_name_without_an_inode_and_an_inode_without_a_name() -> None:
    disk = Disk()
    ino = disk.file(b"f", b"f" * 9000)
    other = disk.fs.create(ROOT, TOP, b"d", DIR)
    disk.file(b"in d", b"x", other)
    vol = disk.fs.volume
    leaf = vol.vnode(TOP).leaves[0]
    leaf.remove(b"d")
    leaf.put(b"ghost", (4000, 8))
    vol.changed(vol.vnode(TOP))
    make_durable(vol, checkpoint=True)
    disk.close()
    summary, found = disk.check(repair=True)
    assert {finding.code for finding in found} >= {"name-dead", "inode-unnamed"}
    assert not summary.unrepaired
    disk.cut()
    assert disk.names() == {b"f", b"#%d" % other}
    assert [entry.name for entry in entries(disk.fs, other)] == [b"in d"]
    assert disk.fs.lookup(TOP, b"f") == ino
    assert disk.check()[0].clean


def test_check_two_files_with_one_block() -> None:
    disk = Disk()
    one, two = disk.file(b"one", b"1" * 9000), disk.file(b"two", b"2" * 9000)
    disk.fs.sync(None)
    vol = disk.fs.volume
    vol.vnode(two).tree.set(0, vol.vnode(one).tree.get(0))
    vol.changed(vol.vnode(two))
    make_durable(vol, checkpoint=True)
    disk.close()
    _summary, found = disk.check(repair=True)
    assert "address" in {finding.code for finding in found}
    disk.cut()
    assert disk.read(b"one") == b"1" * 9000
    assert disk.read(b"two") == bytes(4096) + b"2" * 4904
    assert disk.check()[0].clean
