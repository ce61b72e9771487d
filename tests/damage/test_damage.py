"""Damaged images: an even slice of all of them at every change, all of them as a slow test.

A failure prints what was done to which image; `Case` below, or `judge_case`, shows it again.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import pytest
from xnfs_trials.damage import Report, run
from xnfs_trials.damage.campaign import judge_case
from xnfs_trials.damage.damage import Mutation, Sealer
from xnfs_trials.damage.fields import Field, fields
from xnfs_trials.damage.judge import REFUSED, REPAIRED, REPORTED, VALID, judge
from xnfs_trials.damage.subject import BLOCKS, subject

from libfs.ffs import format as ffs
from xnfs import MemoryDevice
from xnfs.disk.fsck import check_image


def sound(report: Report) -> None:
    """No image was judged wrong."""
    assert not report.failures, "\n".join(map(str, report.failures))


def test_damage_slice() -> None:
    """Some of every structure, some pairs, and a little of what coverage leads to."""
    report = run(singles=105, pairs=20, guided=9)
    sound(report)
    assert report.structures > 20
    assert report.singles.total() > 70
    assert report.guided.total() == 9


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_damage_complete() -> None:
    """Every field, every verb, both checksums; pairs and coverage for a while."""
    report = run(jobs=2, pairs=5000, guided=1000)
    sound(report)
    assert report.singles.total() > 0.8 * report.cases


class Case(NamedTuple):
    """One thing done to one field, and what must come of it."""

    structure: str
    field: str
    verb: str
    sealed: bool
    outcome: str
    which: str = "clean"


FEW: Final = 5

#: Each was a defect when it was found.
FOUND = {
    # One bit in the record of ffs.super, and fsck cleared the slots of all file systems.
    "type of a root": Case("type record", "name", "first bit", False, REPORTED),
    # The catalogue of roots was believed to be empty: everything was freed.
    "catalogue destroyed": Case("root catalogue", "slots[0].block", "zero", False, REPAIRED),
    # The block beside the root was believed to be a root, the file system was lost.
    "root slot astray": Case("root catalogue", "slots[1].block", "minus one", False, REPAIRED),
    "root slot forged": Case("root catalogue", "slots[0].block", "plus one", True, REPAIRED),
    # Marked as damaged, nothing found: fsck -p left the mark, and every write was refused.
    "marked damaged": Case("superblock, both", "state", "ones", True, REPAIRED),
    # An image with unknown read-only features was repaired.
    "read-only feature": Case("superblock, both", "ro_compat", "first bit", True, REFUSED),
    # Counters that can't be counted up: struct.error.
    "generation": Case("superblock, both", "generation", "ones", True, REFUSED),
    "transaction": Case("superblock, both", "seq", "ones", True, REFUSED),
    # Headers that only a mount looked at.
    "depth of a directory": Case("inode header", "depth", "ones", True, REPAIRED),
    "size of a directory": Case("inode header", "size", "ones", True, REPAIRED),
    "entries": Case("inode header", "entries", "ones", True, REPAIRED),
    "blocks": Case("inode header", "blocks", "ones", True, REPAIRED),
    "count of a node": Case("extent slots", "slots[0].count", "first bit", True, REPAIRED),
    # An assertion about bytes of the disk: the index names itself as a leaf.
    "two roles": Case("ffs.index", "pointers[128]", "minus one", True, REPAIRED),
    # A message with a whole name in it.
    "long message": Case("ffs.dir names", "records[4].length", "last bit", True, REPAIRED),
    # An LFS without any inode: its next file got the number of the new root.
    "uuid of an LFS": Case("lfs.super", "uuid", "plus one", True, REPAIRED, "lfs"),
    # Counters that can't be counted up, and inodes that can't be.
    "checkpoint": Case("lfs.checkpoint", "number", "ones", True, REPAIRED, "lfs"),
    "flush": Case("lfs.checkpoint", "flush", "ones", True, REPAIRED, "lfs"),
    "inode that went": Case("lfs.gone", "inos[0]", "ones", True, REPAIRED, "lfs"),
    # A checkpoint that claims to know what came after it: that was lost without a word.
    "checkpoint ahead": Case("lfs.checkpoint", "flush", "plus one", True, REPAIRED, "lfs"),
    # An inode of a number that nobody can have given: no room for its map was left to the others.
    "number of an inode": Case("lfs inode", "[0].ino", "last bit", True, REPAIRED, "lfs"),
    # Snapshots out of order: the usage went wrong while it was mounted.
    "epoch of a snapshot": Case("lfs.snapshot", "epoch", "plus one", True, REPAIRED, "lfs"),
    # A destroyed segment table: all was freed.
    "segment table": Case("lfs.segments", "entries[5].pointer", "ones", False, REPAIRED, "lfs"),
    # Nothing is wrong with other bytes behind a right checksum.
    "another owner": Case("inode header", "uid", "plus one", True, VALID),
}


@pytest.mark.parametrize("case", FOUND.values(), ids=FOUND.keys())
def test_damage_found(case: Case) -> None:
    """The first fields of that name: none is judged wrong, one at least has the outcome."""
    base = subject(case.which)
    these = [f for f in fields(base) if (f.structure, f.name) == (case.structure, case.field)]
    assert these
    mutations = [Mutation(field, case.verb, case.sealed) for field in these[:FEW]]
    found = [judge_case(base, (mutation,), 0) for mutation in mutations]
    verdicts = [verdict for verdict in found if verdict is not None]
    assert not [verdict for verdict in verdicts if verdict.wrong]
    assert case.outcome in {verdict.outcome for verdict in verdicts}


def forged(edits: list[tuple[Field, bytes]]) -> tuple[dict[int, bytes], frozenset[int]]:
    """The clean image with these bytes at the end of these fields, with right checksums."""
    base = subject()
    blocks: dict[int, bytearray] = {}
    sealer = Sealer(base, blocks)
    for field, data in edits:
        raw, end = sealer.block(field.blocks[0]), field.offset + field.size
        raw[end - len(data) : end] = data
        sealer.seal(field.blocks[0], end - len(data), end)
    image = base.contents | {block: bytes(raw) for block, raw in blocks.items()}
    return image, frozenset(blocks)


def owner(kind: str, name: str) -> Field:
    """The field of that name that names a block of this type."""
    base = subject()
    for found in (field for field in fields(base) if field.name == name):
        raw = base.contents[found.blocks[0]][found.offset : found.offset + found.size]
        if base.kinds.get(int.from_bytes(raw[:7], "little")) == kind:
            return found
    raise ValueError(kind)


NODE = ("ffs.node", "slots[0].pointer")
XATTR = ("ffs.xattr", "pointer")
INDEX = ("ffs.index", "pointers[0]")
LEAF = ("ffs.leaf", "pointers[32]")


@pytest.mark.parametrize(
    ("what", "where", "same"),
    [
        (NODE, "slots[0].pointer", False),
        (NODE, "slots[11].pointer", True),
        (XATTR, "pointer", False),
        (INDEX, "pointers[63]", True),
        (INDEX, "pointers[32]", True),
        (LEAF, "pointers[63]", True),
    ],
    ids=str,
)
def test_damage_second_pointer(what: tuple[str, str], where: str, same: bool) -> None:
    """A block that can belong to one inode only is named twice. (Before, the checker gave it to
    one and then to the other, for ever; a directory listed the same names without end.)"""
    first = owner(*what)
    there = [f for f in fields(subject()) if f.name == where]
    second = next(f for f in there if (f.blocks == first.blocks) is same)
    raw = subject().contents[first.blocks[0]]
    size = 16 if "slots" in where else 8
    end = first.offset + first.size
    image, damaged = forged([(second, raw[end - size : end])])
    verdict = judge(subject(), image, damaged, sealed=True)
    assert verdict.outcome == REPAIRED, verdict


def test_damage_reserved_over_data() -> None:
    """Reserved blocks of one file cover the data of another, which comes later: data win."""
    base = subject()
    reserved = owner("ffs.unwritten", "slots[1].pointer")
    late = max(b for b, kind in base.kinds.items() if kind == "ffs.data" and b not in base.witness)
    pointer = (1).to_bytes(4, "little") + ffs.POINTER.pack(ffs.pointer(ffs.P_UNWRITTEN, late))
    image, damaged = forged([(reserved, pointer)])
    verdict = judge(base, image, damaged, sealed=True)
    assert verdict.outcome == REPAIRED, verdict


def test_damage_two_roots() -> None:
    """A file of one file system names a block of another: it stays with the one that comes first.
    (Before, both counted as its owners, and neither could read it while the other had.)"""
    base = subject()
    theirs = next(b for b in base.witness if base.kinds[b] == "ffs.data")
    slot = owner("ffs.data", "slots[0].pointer")
    pointer = (1).to_bytes(4, "little") + ffs.POINTER.pack(ffs.pointer(ffs.P_DATA, theirs))
    image, damaged = forged([(slot, pointer)])
    verdict = judge(base, image, damaged, sealed=True)
    assert verdict.outcome == REPAIRED, verdict
    found: list[str] = []
    check_image(MemoryDevice(BLOCKS, image), repair=True, report=lambda f: found.append(f.code))
    assert "two-roots" in found
