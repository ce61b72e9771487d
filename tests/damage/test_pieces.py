"""The parts of the damage trials: that the fields are those of the format, that checksums are made
right, that the judge sees what it is there to see."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from xnfs_trials.damage import judge as judging
from xnfs_trials.damage.campaign import all_pairs, all_singles, judge_case
from xnfs_trials.damage.coverage import Lines
from xnfs_trials.damage.damage import Mutation, Sealer, damage
from xnfs_trials.damage.fields import Field, fields, leaves
from xnfs_trials.damage.fields_lfs import LFS
from xnfs_trials.damage.judge import VALID, judge
from xnfs_trials.damage.limits import Hang, limits
from xnfs_trials.damage.subject import subject
from xnfs_trials.damage.verbs import VERBS

from libfs.ffs import format as f
from libfs.lfs import format as lfs
from xnfs.disk import fsck_walk, layout, superblock
from xnfs.disk.layout import LOG_MAGIC

NAMES = ("clean", "cut", "lfs")


def find(structure: str, name: str, which: str = "clean") -> Field:
    """The first such field."""
    return next(x for x in fields(subject(which)) if (x.structure, x.name) == (structure, name))


def test_damage_verbs() -> None:
    old = bytes.fromhex("ff00017f")
    new = {name: verb(old, "seed").hex() for name, verb in VERBS.items()}
    assert new.pop("random") == VERBS["random"](old, "seed").hex() != old.hex()
    assert new == {
        "zero": "00000000",
        "ones": "ffffffff",
        "first bit": "fe00017f",
        "middle bit": "ff00007f",
        "last bit": "ff0001ff",
        "plus one": "0001017f",
        "minus one": "fe00017f",
    }
    assert VERBS["plus one"](b"\xff\xff", "") == bytes(2)
    assert VERBS["minus one"](bytes(2), "") == b"\xff\xff"


def test_damage_fields_are_declared() -> None:
    """Every member of every declaration is there; a new one is found by itself."""
    every = [found for which in NAMES for found in fields(subject(which))]
    found = {(x.structure, x.name.rpartition(".")[2].split("[")[0]) for x in every}
    for structure, declared in (
        ("superblock", layout.SuperblockLayout),
        ("free map", layout.MapSectorLayout),
        ("log descriptor", layout.LogEntryLayout),
        ("type catalogue", layout.TypeBlockLayout),
        ("root catalogue", layout.RootSlotLayout),
        ("stamp", layout.StampLayout),
        ("inode header", f.HEADER_LAYOUT),
        ("extent slots", f.SLOT_LAYOUT),
        ("ffs.dir names", f.RECORD_LAYOUT),
        ("attribute record", f.XATTR_LAYOUT),
        ("lfs.super", lfs.SUPER_LAYOUT),
        ("lfs.segments", lfs.ENTRY_LAYOUT),
        ("lfs.summary", lfs.SLOT_LAYOUT),
        ("lfs.checkpoint", lfs.CHECKPOINT_LAYOUT),
        ("lfs.map", lfs.NODE_LAYOUT),
        ("lfs.snapshot", lfs.SNAPSHOT_LAYOUT),
        ("lfs inode", lfs.RECORD_LAYOUT),
    ):
        names = {part.name for part in declared.subcons} - {"stamp" if "lfs" in structure else ""}
        assert {(structure, name) for name in names} <= found, structure
    described = {name for structure, name in found if structure == "type record"}
    assert described >= {"owns", "acl", "refs", "groups", "stamp", "flags", "name"}


def test_damage_fields_inside() -> None:
    for which in NAMES:
        for found in fields(subject(which)):
            assert found.size > 0, found
            assert 0 <= found.offset <= found.offset + found.size <= 4096, found


def test_damage_subject_has_everything() -> None:
    """Each type of FFS; after a cut transactions in both halves of the log, otherwise in none."""
    base = subject()
    kinds = set(base.kinds.values())
    assert kinds == {f"ffs.{name}" for name in _TYPES} | {"xn.roots"}
    logged_kinds = {kind for kind in subject("lfs").kinds.values() if kind.startswith("lfs.")}
    assert logged_kinds == LFS.keys() | {"lfs.data"}
    for which, logged in zip(NAMES, (0, 2, 0), strict=True):
        assert sum(raw[:8] == LOG_MAGIC for raw in subject(which).contents.values()) == logged
        assert judge(subject(which), subject(which).contents, frozenset()).outcome == VALID


_TYPES = "super dir leaf index inode node xattr data unwritten".split()


@pytest.mark.parametrize("which", NAMES)
def test_damage_seal_of_what_is_right(which: str) -> None:
    """Sealing an undamaged image changes nothing: the seals are the format's own checksums."""
    base = subject(which)
    blocks: dict[int, bytearray] = {}
    sealer = Sealer(base, blocks)
    for found in fields(base):
        for block in found.blocks:
            if any(sealer.block(block)[found.offset // 512 * 512 :][:512]):
                sealer.seal(block, found.offset, found.offset + found.size)
    zero = bytes(4096)
    changed = [b for b, raw in blocks.items() if raw != base.contents.get(b, zero)]
    assert len(changed) == (which == "cut")  # the torn block was not right
    assert all(base.kinds[block] == "ffs.inode" for block in changed)


def test_damage_seal_and_not() -> None:
    """Left wrong, a checksum is seen; made right, what lies behind it is."""
    base = subject()
    owner = find("inode header", "uid")
    (block,) = owner.blocks
    for sealed in (False, True):
        image = damage(base, [Mutation(owner, "plus one", sealed)])
        raw = image[block]
        assert raw != base.contents[block]
        right = layout.crc(base.seed.uuid, block, raw[4:]) == int.from_bytes(raw[:4], "little")
        assert right is sealed


def test_damage_fine() -> None:
    """What needs a block, and what does not."""
    logged = subject("lfs")
    summaries = [b for b, kind in logged.kinds.items() if kind == "lfs.summary"]
    assert any(0 < len(logged.fine(frozenset([b]))) < len(logged.looks) for b in summaries)
    base = subject()
    leaf = next(b for b, kind in base.kinds.items() if kind == "ffs.node")
    assert base.fine(frozenset()) == base.looks.keys()
    assert len(base.looks.keys() - base.fine(frozenset([leaf]))) == 1
    roots = frozenset([base.geometry.roots_start])
    assert not base.fine(roots)


def test_damage_pairs() -> None:
    """Each pair once, in another order for another seed."""
    few = all_singles(["clean"])[:25]
    for seed in (1, 2):
        pairs = [frozenset(case[1]) for case in all_pairs(few, seed)]
        assert len(pairs) == len(set(pairs)) == 25 * 24 // 2
    assert next(all_pairs(few, 1)) == next(all_pairs(few, 1))


def test_damage_singles_are_all() -> None:
    """The order is even, and every field has its verbs, with both checksums."""
    cases = all_singles(["clean"])
    of = [mutation.field for _name, (mutation,) in cases]
    assert len(cases) == 16 * len(set(of))
    structures = len({field.structure for field in of})
    assert len({field.structure for field in of[: 16 * structures]}) == structures


def test_damage_limits() -> None:
    with pytest.raises(Hang), limits(seconds=0.2):
        _spin()
    with pytest.raises(MemoryError), limits(more=1 << 24):
        bytearray(1 << 28)
    bytearray(1 << 28)  # the bound is gone


def test_damage_lines() -> None:
    """Lines of the reading code are seen once, those of others never."""
    lines = Lines()
    base = subject()
    with lines.watch():
        judging.fsck(base.disk(), base.frames, repair=False)
    files = {name.rpartition("/")[2] for name, _line in lines.seen}
    assert {"fsck.py", "fsck_walk.py", "check.py", "nameblock.py"} <= files
    assert "judge.py" not in files
    before = len(lines.seen)
    with lines.watch():
        judging.fsck(base.disk(), base.frames, repair=False)
    assert len(lines.seen) - before < before // 20


# -- the judge, with something switched off


def _no_crc(_seed: Any, _block: int, view: Any, offset: int, _type: int) -> int:
    return int(layout.STAMP.unpack_from(view, offset)[2])


def _spin(*_arguments: Any, **_words: Any) -> None:
    for _turn in range(10**10):
        pass


def _divide(*_arguments: Any, **_words: Any) -> None:
    raise ZeroDivisionError


def _eat(*_arguments: Any, **_words: Any) -> None:
    bytearray(1 << 30)


def _verdict(structure: str, name: str, verb: str = "ones", *, sealed: bool = False) -> str:
    found = judge_case(subject(), (Mutation(find(structure, name), verb, sealed),), 0)
    assert found is not None
    return found.outcome


@pytest.mark.parametrize(
    ("instead", "kind"), [(_spin, "hang"), (_divide, "traceback"), (_eat, "memory")]
)
def test_damage_judge_bounds(
    monkeypatch: pytest.MonkeyPatch, instead: Callable[..., None], kind: str
) -> None:
    """A loop without end, an exception that is no answer, a gigabyte."""
    monkeypatch.setattr(judging, "limits", lambda: limits(seconds=0.5))
    monkeypatch.setattr(fsck_walk.Walk, "_destroyed", instead)
    assert _verdict("inode header", "uid") == kind


def test_damage_judge_sees_wrong_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Checksums that nobody compares: somebody else's bytes are shown as good."""
    monkeypatch.setattr("xnfs.disk.pages.check_stamp_untrusted", _no_crc)
    monkeypatch.setattr("xnfs.disk.fsck_walk.check_stamp_untrusted", _no_crc)
    assert _verdict("inode header", "uid") == "silent"


def test_damage_judge_sees_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    """fsck frees the witness."""
    monkeypatch.setattr("xnfs.disk.fsck_roots.RootsCheck._judge_block", _forgets)
    assert _verdict("inode header", "uid") == "lost"


def _forgets(_self: object, slot: Any) -> str:
    if slot.index == 0:
        slot.first = 0
        return "forgotten"
    return ""


def test_damage_judge_sees_a_second_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    """fsck says that it mends, and does not; nor does the mount before it, which would."""
    for module in ("fsck", "syscalls"):
        monkeypatch.setattr(f"xnfs.disk.{module}.write_superblock", lambda _device, sb: sb)
    assert _verdict("superblock, copy", "label") == "again"


def test_damage_judge_sees_unsound_repair(monkeypatch: pytest.MonkeyPatch) -> None:
    """The checker of FFS is blind for one thing that a mount trips over."""
    monkeypatch.setattr("libfs.ffs.check_inode.InodeChecker._no_file", lambda *_a: {})
    assert _verdict("inode header", "size", sealed=True) == "unsound"


def test_damage_judge_sees_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("xnfs.disk.fsck.Scratch", lambda device: device)
    assert _verdict("superblock, copy", "label") == "wrote"


def test_damage_judge_wants_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(superblock, "_describe", lambda _block, why: type(why)("two\nlines"))
    found = find("superblock, both", "magic")
    verdict = judge_case(subject(), (Mutation(found, "zero", True),), 0)
    assert verdict is not None
    assert verdict.outcome == "message"


def test_damage_leaves_of_arrays() -> None:
    """Of an array those in use, the first free one, and the last."""
    raw = bytes(16) + (3).to_bytes(8, "little") + bytes(4096 - 24)
    names = [name for name, _at, _size in leaves(f.INDEX_LAYOUT, raw) if "pointers" in name]
    assert names == ["pointers[0]", "pointers[255]"]
