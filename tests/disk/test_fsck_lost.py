"""Destroyed blocks: one flipped bit is set right; what else is gone a file system may know, and no
more than that is believed of it."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from images.damage import peek, poke
from tests.disk.toyfs import DATA, LEAF, NODE, sample, slot, slot_at
from xnfs import Lost, MemoryDevice
from xnfs.disk.flipped import flipped_bit, unflip_untrusted
from xnfs.disk.fsck import check_image
from xnfs.disk.fsck_walk import Finding
from xnfs.disk.layout import Seed, check_stamp_untrusted, stamp_block

SEED = Seed(bytes(range(16)))


def _stamped(offset: int) -> bytearray:
    raw = bytearray(random.Random(offset).randbytes(4096))
    stamp_block(SEED, 77, raw, offset, 9, 1234)
    return raw


def test_flipped_every_bit_changes_the_checksum_in_its_own_way() -> None:
    """So that none is taken for another, or for one of the checksum's."""
    change, seen = 0xEDB88320, {1 << bit for bit in range(32)}
    for _bit in range(8 * 4092):
        seen.add(change)
        change = change >> 1 ^ (0xEDB88320 if change & 1 else 0)
    assert len(seen) == 8 * 4096


@pytest.mark.parametrize("offset", [0, 2000, 4080])
def test_flipped_one_bit_is_set_right(offset: int) -> None:
    rng, sound = random.Random(5), _stamped(offset)
    near = range(8 * offset, 8 * offset + 128)
    for bit in (0, 8 * 4096 - 1, *rng.sample(near, 20), *rng.sample(range(8 * 4096), 10)):
        raw = bytearray(sound)
        raw[bit // 8] ^= 1 << bit % 8
        assert unflip_untrusted(SEED, 77, raw, offset) == bit // 8
        assert raw == sound
        assert check_stamp_untrusted(SEED, 77, raw, offset, 9) == 1234


def test_flipped_nothing_else_is() -> None:
    rng, sound = random.Random(6), _stamped(0)
    assert flipped_bit(0, 4092) is None
    for bits in (2, 3, 50):
        for _turn in range(10):
            raw = bytearray(sound)
            for bit in rng.sample(range(8 * 4096), bits):
                raw[bit // 8] ^= 1 << bit % 8
            was = bytes(raw)
            assert unflip_untrusted(SEED, 77, raw, 0) is None
            assert raw == was


def test_fsck_sets_a_flipped_bit_right_in_every_block_of_metadata() -> None:
    device, at = sample()
    for name in ("root", "a", "b", "deep"):
        hurt = MemoryDevice(device.blocks, dict(device._contents))
        poke(hurt, at[name], 1234, bytes([peek(hurt, at[name])[1234] ^ 8]))
        found: list[Finding] = []
        assert check_image(hurt, repair=True, report=found.append).unrepaired == 0
        assert [(each.code, each.block) for each in found] == [("flipped-bit", at[name])]
        assert hurt._contents == device._contents


# -- what a file system knows


def _mend(
    device: MemoryDevice, block: int, told: Callable[[Lost], bytes | None]
) -> tuple[MemoryDevice, list[str]]:
    """(the image with a block destroyed and mended, the codes of what was found)"""
    hurt = MemoryDevice(device.blocks, dict(device._contents))
    poke(hurt, block, 0, b"\xff" * 4096)
    looked: list[Finding] = []
    check_image(hurt, repair=False, report=looked.append, rebuild=told)
    found: list[Finding] = []
    check_image(hurt, repair=True, report=found.append, rebuild=told)
    assert looked == found
    assert check_image(hurt, repair=False, report=found.append).clean
    return hurt, [each.code for each in looked]


def _node(*slots: bytes) -> bytes:
    return (bytes(slot_at(0)) + b"".join(slots)).ljust(4096, b"\0")


def test_fsck_takes_what_a_file_system_knows() -> None:
    device, at = sample()

    def told(lost: Lost) -> bytes:
        assert (lost.block, lost.type, lost.parent) == (at["b"], "t.node", at["root"])
        assert (lost.part, lost.root) == (1, at["root"])
        assert lost.read(at["deep"]) == bytes(peek(device, at["deep"]))
        found = [(each.block, each.type) for each in lost.orphans(0, device.blocks)]
        assert found == [(at["deep"], "t.node")]  # not the leaf, which another names as well
        return _node(slot(NODE, at["deep"]))

    hurt, codes = _mend(device, at["b"], told)
    assert set(codes) == {"rebuilt", "refs-high"}
    for name in ("deep", "bottom", "data", "leaf"):
        assert peek(hurt, at[name]) == peek(device, at[name])
    # A second block is destroyed below: it is asked for in its turn.
    poke(device, at["deep"], 0, b"\xff" * 4096)
    asked: list[int] = []

    def knows_nothing(lost: Lost) -> None:
        asked.append(lost.block)

    codes = _mend(device, at["b"], knows_nothing)[1]
    assert set(asked) == {at["b"]}
    assert "destroyed-block" in codes


@pytest.mark.parametrize(
    ("what", "kind", "name", "count"),
    [
        ("another's leaf", LEAF, "leaf", 1),
        ("data that nobody names", DATA, "bottom", 2),
        ("another's data", DATA, "data", 1),
        ("an orphan of another type", LEAF, "deep", 1),
        ("a free block", NODE, "free", 1),
        ("a block of the kernel", NODE, "kernel", 1),
        ("itself", NODE, "b", 1),
    ],
)
def test_fsck_does_not_believe_that_it_names(what: str, kind: int, name: str, count: int) -> None:
    device, at = sample()
    at |= {"free": device.blocks - 5, "kernel": 0}
    wrong = slot(kind, at[name], count)
    _hurt, codes = _mend(device, at["b"], lambda _lost: _node(slot(NODE, at["deep"]), wrong))
    assert "destroyed-block" in codes
    assert "rebuilt" not in codes
    assert "destroyed-block" in _mend(device, at["b"], lambda _lost: b"short")[1]
