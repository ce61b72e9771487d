"""fsck on a toy file system: each kind of damage is found, mended, and then nothing is found."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from images.damage import forge, peek, poke, set_totals, tables
from images.damage import superblock as sb
from tests.disk.toyfs import DATA, LEAF, NODE, Toy, point, sample, slot, slot_at
from xnfs import BadImage, MemoryDevice, XnError, format_image
from xnfs.disk.fsck import Result, check_image
from xnfs.disk.fsck_walk import Finding
from xnfs.disk.geometry import COUNT_BLOCKS
from xnfs.disk.layout import CLEAN

At = dict[str, int]


def run(device: MemoryDevice, *, repair: bool) -> tuple[Result, list[Finding]]:
    """fsck, with its findings."""
    found: list[Finding] = []
    return check_image(device, repair=repair, report=found.append), found


def _superblock(d: MemoryDevice, at: At) -> None:
    poke(d, 0, 40, b"x")


def _copy(d: MemoryDevice, at: At) -> None:
    poke(d, d.blocks - 1, 0, bytes(512))


def _map_sector(d: MemoryDevice, at: At) -> None:
    poke(d, sb(d).geometry.map_start, 30, b"\xaa")


def _refs_sector(d: MemoryDevice, at: At) -> None:
    poke(d, sb(d).geometry.refs_start, 30, b"\xaa")


def _versions_sector(d: MemoryDevice, at: At) -> None:
    poke(d, sb(d).geometry.refs_start + COUNT_BLOCKS, 30, b"\xaa")


def _stale(d: MemoryDevice, at: At) -> None:
    forge(d, at["deep"], lambda raw: None, seq=1)


def _outside(d: MemoryDevice, at: At) -> None:
    point(d, at["a"], 7, slot(DATA, d.blocks - 3, 9))


def _into_kernel(d: MemoryDevice, at: At) -> None:
    point(d, at["a"], 7, slot(NODE, sb(d).geometry.log_start))


def _huge(d: MemoryDevice, at: At) -> None:
    point(d, at["a"], 7, slot(DATA, 2**63, 2**32 - 1))


def _destroyed(d: MemoryDevice, at: At) -> None:
    poke(d, at["deep"], 1000, b"rubbish")


def _zeroed(d: MemoryDevice, at: At) -> None:
    d.write(at["deep"], [bytes(4096)])


def _data_as_meta(d: MemoryDevice, at: At) -> None:
    point(d, at["b"], 7, slot(NODE, at["data"]))


def _meta_as_data(d: MemoryDevice, at: At) -> None:
    point(d, at["a"], 7, slot(DATA, at["deep"]))


def _wrong_meta(d: MemoryDevice, at: At) -> None:
    point(d, at["b"], 7, slot(NODE, at["leaf"]))


def _twice(d: MemoryDevice, at: At) -> None:
    point(d, at["b"], 7, slot(DATA, at["data"], 2))


def _loop(d: MemoryDevice, at: At) -> None:
    point(d, at["deep"], 7, slot(NODE, at["b"]))


def _self(d: MemoryDevice, at: At) -> None:
    point(d, at["deep"], 7, slot(NODE, at["deep"]))


def _unmarked(d: MemoryDevice, at: At) -> None:
    set_totals(d, {at["data"]: 0, at["deep"]: 0})


def _leaked(d: MemoryDevice, at: At) -> None:
    set_totals(d, {200: 1, 201: 1, 210: 5})


def _low(d: MemoryDevice, at: At) -> None:
    set_totals(d, {at["leaf"]: 1})


def _high(d: MemoryDevice, at: At) -> None:
    set_totals(d, {at["leaf"]: 9, at["data"]: 3})


def _roots(d: MemoryDevice, at: At) -> None:
    poke(d, sb(d).geometry.roots_start, 4000, b"x")


def _root_type(d: MemoryDevice, at: At) -> None:
    def change(raw: bytearray) -> None:
        raw[128 + 72] = 17

    forge(d, sb(d).geometry.roots_start, change)


def _root_name(d: MemoryDevice, at: At) -> None:
    def change(raw: bytearray) -> None:
        raw[128:130] = b"\xff\xff"

    forge(d, sb(d).geometry.roots_start, change)


def _second_root(d: MemoryDevice, at: At) -> None:
    def change(raw: bytearray) -> None:
        raw[256:384] = raw[128:256]
        raw[256:257] = b"u"
        raw[256 + 64] = 0
        raw[256 + 70] = 1

    forge(d, sb(d).geometry.roots_start, change)


CASES: list[tuple[Callable[[MemoryDevice, At], None], str]] = [
    (_superblock, "superblock"),
    (_copy, "superblock"),
    (_map_sector, "map-sector"),
    (_refs_sector, "refs-sector"),
    (_versions_sector, "versions-sector"),
    (_stale, "stale"),
    (_outside, "pointer"),
    (_into_kernel, "pointer"),
    (_huge, "pointer"),
    (_destroyed, "destroyed-block"),
    (_zeroed, "destroyed-block"),
    (_data_as_meta, "two-types"),
    (_meta_as_data, "two-types"),
    (_wrong_meta, "two-types"),
    (_twice, "refs-low"),
    (_loop, "cycle"),
    (_self, "cycle"),
    (_unmarked, "map-missing"),
    (_leaked, "leak"),
    (_low, "refs-low"),
    (_high, "refs-high"),
    (_roots, "roots-block"),
    (_root_type, "root-slot"),
    (_root_name, "root-slot"),
    (_second_root, "root-slot"),
]


def test_fsck_clean() -> None:
    device, _ = sample()
    before = dict(device._contents)
    assert run(device, repair=False)[0].clean
    assert device._contents == before
    assert run(device, repair=True)[0].clean


@pytest.mark.parametrize(("damage", "code"), CASES, ids=[c[0].__name__ for c in CASES])
def test_fsck_damage(damage: Callable[[MemoryDevice, At], None], code: str) -> None:
    device, at = sample()
    damage(device, at)
    before = dict(device._contents)
    looked, seen = run(device, repair=False)
    assert device._contents == before, "fsck -n wrote"
    assert code in {f.code for f in seen}
    assert not looked.clean
    mended, found = run(device, repair=True)
    assert found == seen
    assert mended.unrepaired == 0
    again, left = run(device, repair=True)
    assert left == []
    assert again.clean
    assert sb(device).state & CLEAN
    _usable(device, at, lost={"deep"} if code == "destroyed-block" else set())


def _usable(device: MemoryDevice, at: At, lost: set[str]) -> None:
    """What was fine is there, and the image can be written."""
    toy = Toy(device, fresh=False)
    toy.xn.readin(toy.me, toy.root, 0, at["a"], 1)
    toy.xn.readin(toy.me, at["a"], 0, at["data"], 3)
    assert toy.xn.read(toy.me, at["data"], 0, 3 * 4096) == b"D" * 3 * 4096
    toy.xn.readin(toy.me, toy.root, 1, at["b"], 1)
    toy.xn.readin(toy.me, at["b"], 0, at["leaf"], 1)
    if not lost:
        toy.xn.readin(toy.me, at["b"], 1, at["deep"], 1)
        toy.xn.readin(toy.me, at["deep"], 0, at["bottom"], 2)
        assert toy.xn.read(toy.me, at["bottom"], 0, 8192) == b"B" * 8192
    new = toy.add(at["a"], 50, LEAF)
    toy.xn.write_raw(toy.me, new, 100, b"new")
    toy.xn.close()
    assert run(device, repair=False)[0].clean


def test_fsck_map_mended_where_counts_were_never_written() -> None:
    """The flags of a lost map sector are guessed: what they then announce must be there."""
    device = MemoryDevice(512)
    format_image(device, uuid=bytes(16), label="", now=0)
    _map_sector(device, {})
    assert [f.code for f in run(device, repair=True)[1]] == ["map-sector"]
    assert run(device, repair=False)[0].clean


def test_fsck_root_destroyed_keeps_everything() -> None:
    device, at = sample()
    poke(device, at["root"], 3000, b"rubbish")
    result, found = run(device, repair=True)
    assert "root-destroyed" in {f.code for f in found}
    assert result.incomplete
    assert result.unrepaired
    assert tables(device).total(at["data"]) == 1
    assert peek(device, at["data"])[:1] == b"D"


def test_fsck_type_damaged_keeps_everything() -> None:
    """A type whose record is gone: its blocks are untouchable."""
    device, at = sample()
    poke(device, sb(device).geometry.types_start + 2, 200, b"rubbish")  # t.leaf
    result, found = run(device, repair=True)
    assert {"type-record", "type-unusable"} <= {f.code for f in found}
    assert result.incomplete
    assert tables(device).total(at["leaf"]) == 2


def test_fsck_no_image() -> None:
    with pytest.raises(BadImage):
        run(MemoryDevice(256), repair=True)


@pytest.mark.parametrize("seed", range(40))
def test_fsck_random_bytes(seed: int) -> None:
    """Whatever is damaged, fsck ends, mends, and the second run finds only what can't be mended."""
    rng = random.Random(seed)
    device, _ = sample()
    low = sb(device).geometry.map_start
    used = sorted(b for b in device._contents if b >= low)
    for _ in range(rng.randrange(1, 12)):
        block = rng.choice(used)
        size = rng.choice((1, 1, 8, 512, 4096))
        start = rng.randrange(0, 4097 - size)
        if rng.random() < 0.5 and peek(device, block)[4:8] != bytes(4):
            index, value = rng.randrange(6), rng.randrange(256)

            def change(raw: bytearray, index: int = index, value: int = value) -> None:
                raw[slot_at(index) + rng.randrange(16)] = value

            forge(device, block, change)
        else:
            poke(device, block, start, rng.randbytes(size))
    try:
        run(device, repair=True)
    except XnError:
        return  # no superblock left
    result, left = run(device, repair=True)
    assert all(not f.repairable for f in left), left
    assert result.clean or result.unrepaired
