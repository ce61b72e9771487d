"""The checker: each planted defect is found, by its code; repaired, and then nothing is found."""

from __future__ import annotations

import random
import stat
import struct
from collections.abc import Callable
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libfs.common.naming import name_hash
from libfs.ffs import Finding, Summary
from libfs.ffs import format as f
from libfs.ffs.findings import PROBLEMS
from libfs.posix.interface import Ino, New
from tests.ffs.support import DIR, FILE, ROOT, Disk, write
from xnfs import XnError

U16, U32, U64 = struct.Struct("<H"), struct.Struct("<I"), struct.Struct("<Q")


@dataclass
class Scene:
    """An image with one of everything."""

    disk: Disk
    file: int  # 3 extents, an attribute block and an access list
    small: int  # inline
    link: int
    tree: int  # a file with nodes
    node: int
    inline: int  # a directory of 5 files and one directory
    hashed: int  # one of 200 files
    leaf: int
    xattr: int


def scene() -> Scene:
    """Build it."""
    disk = Disk(4096, 3000)
    fs = disk.fs
    inos: dict[bytes, Ino] = {}
    for name in (b"file", b"small", b"tree"):
        inos[name] = fs.create(ROOT, fs.root, name, FILE)
    for fb in (0, 4, 8):
        write(fs, inos[b"file"], fb * 4096, b"data")
    fs.setxattr(ROOT, inos[b"file"], b"user.big", b"v" * 2000, 0)
    fs.setxattr(ROOT, inos[b"file"], b"user.small", b"v", 0)
    acl = b"\2\0\0\0" + b"".join(f.ACL_ENTRY.pack(t, 4, 2**32 - 1) for t in (1, 4, 32))
    fs.setxattr(ROOT, inos[b"file"], b"system.posix_acl_access", acl, 0)
    write(fs, inos[b"small"], 0, b"small")
    link = fs.create(ROOT, fs.root, b"link", New(stat.S_IFLNK | 0o777, 0, 0, target=b"somewhere"))
    for i in range(30):
        write(fs, inos[b"tree"], i * 16384, b"data" * 2048)
    inline = fs.create(ROOT, fs.root, b"inline", DIR)
    fs.create(ROOT, inline, b"sub", DIR)
    for i in range(5):
        fs.create(ROOT, inline, b"name%d" % i, FILE)
    hashed = fs.create(ROOT, fs.root, b"hashed", DIR)
    for i in range(200):
        fs.create(ROOT, hashed, b"name%d" % i, FILE)
    v = fs.volume.vnode(hashed)
    table = fs._dirs.table(v)
    leaf = fs._dirs.leaf_at(v, table, table.used()[0]).block
    tree = fs.volume.vnode(inos[b"tree"])
    node = fs._map.root(tree).entries[0][3]
    xattr = fs._xattrs.block(fs.volume.vnode(inos[b"file"]))
    made = (inos[b"file"], inos[b"small"], link, inos[b"tree"], node, inline, hashed, leaf, xattr)
    disk.close()
    return Scene(disk, *made)


Plant = Callable[[bytearray], None]


def put(offset: int, number: struct.Struct, value: int) -> Plant:
    """Write a number."""

    def plant(raw: bytearray) -> None:
        number.pack_into(raw, offset, value)

    return plant


def fill(offset: int, data: bytes) -> Plant:
    """Write bytes."""

    def plant(raw: bytearray) -> None:
        raw[offset : offset + len(data)] = data

    return plant


def _slot(raw: bytearray, area: f.NameArea) -> int:
    """A slot in use that names no directory."""
    for slot in range(area.slots):
        pointer = U64.unpack_from(raw, area.pointers + 8 * slot)[0]
        if pointer >> f.KIND_SHIFT == f.P_INODE:
            return slot
    raise AssertionError("no name")


def in_record(area: f.NameArea, offset: int, data: bytes) -> Plant:
    """Write into the record of some name."""

    def plant(raw: bytearray) -> None:
        at = area.records + 4 * _slot(raw, area) + offset
        raw[at : at + len(data)] = data

    return plant


def in_name(area: f.NameArea, change: Callable[[bytes], bytes]) -> Plant:
    """Change the bytes of some name."""

    def plant(raw: bytearray) -> None:
        at, length, _type = f.RECORD.unpack_from(raw, area.records + 4 * _slot(raw, area))
        raw[at : at + length] = change(bytes(raw[at : at + length]))

    return plant


def in_tag(area: f.NameArea) -> Plant:
    """The tag of some name is another's."""

    def plant(raw: bytearray) -> None:
        U32.pack_into(raw, area.tags + 4 * _slot(raw, area), 12345)

    return plant


def no_pointer(area: f.NameArea) -> Plant:
    """What the kernel's fsck leaves of a damaged inode's name."""

    def plant(raw: bytearray) -> None:
        U64.pack_into(raw, area.pointers + 8 * _slot(raw, area), 0)

    return plant


def second_of(area: f.NameArea) -> Plant:
    """Two names become equal."""

    def plant(raw: bytearray) -> None:
        first = _slot(raw, area)
        record = f.RECORD.unpack_from(raw, area.records + 4 * first)
        for slot in range(first + 1, area.slots):
            at = area.records + 4 * slot
            if U64.unpack_from(raw, area.pointers + 8 * slot)[0] >> 56 == f.P_INODE:
                f.RECORD.pack_into(raw, at, *record)
                return

    return plant


def pointer_in_slot(at: int, count: int) -> Plant:
    """A pointer of an unknown kind in the first free slot."""

    def plant(raw: bytearray) -> None:
        for slot in range(count):
            if not any(raw[at + 8 * slot : at + 8 * slot + 8]):
                U64.pack_into(raw, at + 8 * slot, 0x77 << 56 | 5)
                return

    return plant


def overlap(raw: bytearray) -> None:
    """The second extent begins where the first does."""
    first = U32.unpack_from(raw, f.INODE_SLOTS_AT)[0]
    U32.pack_into(raw, f.INODE_SLOTS_AT + 16, first)


I, L = f.INLINE_NAMES, f.LEAF_NAMES  # noqa: E741
DEFECTS: list[tuple[str, str, str, Plant]] = [
    ("links", "inode-links", "file", put(28, U32, 7)),
    ("dir-links", "inode-links", "inline", put(28, U32, 9)),
    ("blocks", "inode-blocks", "file", put(40, U64, 99)),
    ("dir-blocks", "inode-blocks", "hashed", put(40, U64, 99)),
    ("parent", "dir-parent", "inline", put(112, U64, 3)),
    ("entries", "dir-entries", "hashed", put(104, U64, 3)),
    ("dir-flags", "dir-flags", "inline", put(18, U16, 3)),
    ("dir-flags-hashed", "dir-flags", "hashed", put(18, U16, 0)),
    ("mode", "inode-mode", "small", put(16, U16, 0o040644)),
    ("dir-mode", "inode-mode", "inline", put(16, U16, 0o100644)),
    ("flags", "inode-flags", "file", put(18, U16, 1)),
    ("flags-unknown", "inode-flags", "small", put(18, U16, 0x81)),
    ("reserved", "inode-reserved", "small", put(200, U32, 1)),
    ("reserved-hashed", "inode-reserved", "hashed", put(2000, U32, 1)),
    ("size-huge", "inode-size", "file", put(32, U64, 1 << 60)),
    ("size-inline", "inode-size", "small", put(32, U64, 4000)),
    ("tail", "inode-tail", "small", fill(f.INLINE_AT + 1000, b"?")),
    ("after-end", "extent-end", "file", put(32, U64, 5000)),
    ("depth", "extent-depth", "tree", put(84, U32, 0)),
    ("depth-file", "extent-depth", "file", put(84, U32, 2)),
    ("slot-empty", "extent-slot", "file", put(f.INODE_SLOTS_AT + 16 * 5, U32, 9)),
    ("slot-kind", "extent-slot", "file", put(f.INODE_SLOTS_AT + 16 * 5 + 8, U64, 0x55 << 56 | 9)),
    ("overlap", "extent-overlap", "file", overlap),
    ("range", "extent-range", "tree-node", put(f.NODE_SLOTS_AT, U32, 0xFFFFFFFF)),
    ("node", "node-head", "node", put(24, U64, 5)),
    ("node-level", "node-head", "node", put(20, U32, 5)),
    ("xattr", "xattr-record", "xattr", fill(f.XATTR_BLOCK_AT, b"\x09\x01\x01\x00zz")),
    ("xattr-inside", "xattr-record", "file", fill(f.RECORDS_AT, b"\x01\xff\xff\xff")),
    ("xattr-head", "xattr-head", "xattr", put(16, U64, 5)),
    ("acl-count", "acl-entry", "file", put(f.ACL_AT, U16, 999)),
    ("acl-tag", "acl-entry", "file", put(f.ACL_AT + 8, U16, 3)),
    ("inline-dead", "name-dead", "inline", no_pointer(I)),
    ("leaf-dead", "name-dead", "leaf", no_pointer(L)),
    ("inline-pointer", "name-pointer", "inline", pointer_in_slot(I.pointers, 64)),
    ("inline-record", "name-record", "inline", in_record(I, 2, b"\0")),
    ("leaf-record", "name-record", "leaf", in_record(L, 0, b"\xff\xff")),
    ("inline-chars", "name-chars", "inline", in_name(I, lambda n: b"/" + n[1:])),
    ("leaf-chars", "name-chars", "leaf", in_name(L, lambda n: b"\0" + n[1:])),
    ("inline-twice", "name-twice", "inline", second_of(I)),
    ("leaf-twice", "name-twice", "leaf", second_of(L)),
    ("leaf-type", "name-type", "leaf", in_record(L, 3, b"\4")),
    ("inline-type", "name-type", "inline", in_record(I, 3, b"\0")),
    ("leaf-tag", "name-tag", "leaf", in_tag(L)),
    ("inline-tag", "name-tag", "inline", in_tag(I)),
    ("leaf-count", "name-count", "leaf", put(L.ends, U16, 3)),
    ("inline-count", "name-count", "inline", put(I.ends, U16, 3)),
    ("leaf-heap", "name-heap", "leaf", put(L.ends + 2, U16, 3)),
    ("inline-heap", "name-heap", "inline", put(I.ends + 2, U16, 9999)),
    ("leaf-head", "leaf-head", "leaf", put(16, U64, 5)),
    ("leaf-range", "leaf-head", "leaf", put(24, U64, 1)),
    ("table-pointer", "table-pointer", "hashed", pointer_in_slot(512, 64)),
]


def _block(made: Scene, where: str) -> int:
    block: int = getattr(made, {"tree-node": "node"}.get(where, where))
    return block


@pytest.mark.parametrize(
    ("code", "where", "plant"), [d[1:] for d in DEFECTS], ids=[d[0] for d in DEFECTS]
)
def test_check_finds_and_repairs(code: str, where: str, plant: Plant) -> None:
    made = scene()
    made.disk.patch(_block(made, where), plant)
    summary, found = _check(made)
    assert code in {finding.code for finding in found}, found
    assert summary.unrepaired == summary.findings
    summary, found = _check(made, repair=True)
    assert code in {finding.code for finding in found}
    assert not summary.unrepaired, found
    summary, found = _check(made)
    assert summary.clean, found
    _use(made)


def _check(made: Scene, *, repair: bool = False) -> tuple[Summary, list[Finding]]:
    made.disk.mount()
    return made.disk.check(repair=repair)


def _use(made: Scene) -> None:
    """The file system works: names come and go in every directory."""
    fs = made.disk.mount()
    for name in (b"inline", b"hashed"):
        d = fs.lookup(fs.root, name)
        assert d is not None
        for i in range(100):
            fs.create(ROOT, d, b"new%d" % i, FILE)
        for entry in list(fs.readdir(d, 0)):
            if entry.d_type != 4:
                fs.unlink(ROOT, d, entry.name, keep=False)
    assert made.disk.check()[0].clean


def test_check_finds_nothing_in_a_sound_image() -> None:
    made = scene()
    summary, found = _check(made)
    assert summary.clean, found
    assert summary.directories == 4
    assert summary.inodes == 4 + 205


def test_check_name_in_the_wrong_leaf() -> None:
    made = scene()

    def rename(raw: bytearray) -> None:
        lo, hi = struct.unpack_from("<QQ", raw, 24)
        assert lo < hi
        at, length, _t = f.RECORD.unpack_from(raw, L.records + 4 * _slot(raw, L))
        key = fs.volume.vnode(made.hashed).hash_key
        other = next(
            n for i in range(1000) if not lo <= name_hash(key, n := b"%0*d" % (length, i)) <= hi
        )
        raw[at : at + length] = other

    fs = made.disk.mount()
    fs.lookup(fs.root, b"hashed")
    fs.volume.vnode(made.hashed)
    made.disk.close()
    made.disk.patch(made.leaf, rename)
    _summary, found = _check(made, repair=True)
    assert {finding.code for finding in found} == {"name-place"}
    assert _check(made)[0].clean
    _use(made)


def test_check_tests_every_code() -> None:
    tested = {d[1] for d in DEFECTS} | {"name-place", "index-head"}
    # The first two need a second pointer to a block: tests/damage.
    assert set(PROBLEMS) - tested == {"dir-twice", "block-twice", "inode-target"}


def test_check_index_head() -> None:
    disk = Disk(4096, 3000)
    fs = disk.fs
    d = fs.create(ROOT, fs.root, b"d", DIR)
    v = fs.volume.vnode(d)
    names = [n for i in range(12_000) if name_hash(v.hash_key, n := b"%d" % i) >> 58 == 3]
    for name in names:
        fs.create(ROOT, d, name, FILE)
    table = fs._dirs.table(v)
    index = next(table.block_at(s) for s in table.used() if table.kind(s) == f.P_INDEX)
    disk.close()
    disk.patch(index, put(32, U32, 7))
    disk.mount()
    summary, found = disk.check(repair=True)
    assert {finding.code for finding in found} == {"index-head"}
    assert not summary.unrepaired
    disk.mount()
    assert disk.check()[0].clean
    fs = disk.mount()
    assert fs.lookup(fs.root, b"d") == d
    assert {entry.name for entry in fs.readdir(d, 0)} == set(names)


@given(st.integers(0, 2**32))
def test_check_any_damage(seed: int) -> None:
    """Whatever the bytes: the checker ends, either by itself or with an error of the kernel."""
    rng = random.Random(seed)
    made = scene()
    names = ("file", "small", "link", "tree", "node", "inline", "hashed", "leaf", "xattr")

    def plant(raw: bytearray) -> None:
        for _turn in range(rng.randrange(1, 6)):
            at = rng.randrange(16, f.BLOCK)
            if rng.random() < 0.7:
                at = rng.choice((at % 256, 512 + at % 600, 1088 + at % 600, 3072 + at % 1000))
            raw[max(at, 16)] ^= 1 << rng.randrange(8)

    made.disk.patch(_block(made, rng.choice(names)), plant)
    for repair in (False, True, True):
        try:
            _check(made, repair=repair)
        except XnError:
            return
