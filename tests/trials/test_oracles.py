"""No oracle is there for show: each finds what was planted for it, and with it switched off the
same goes by."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Collection
from types import ModuleType

import pytest
from xnfs_trials.crash import afterwards
from xnfs_trials.crash.base import open_subject
from xnfs_trials.crash.choices import QUICK, Plan
from xnfs_trials.crash.explore import Failure, contents, explore
from xnfs_trials.crash.kernelwalk import BadType, BlockType, KernelWalk
from xnfs_trials.crash.model import Model
from xnfs_trials.crash.mounting import CANARY
from xnfs_trials.crash.neighbour import Neighbour
from xnfs_trials.crash.ops import parse_name
from xnfs_trials.crash.oracles import ORACLES, Oracles
from xnfs_trials.crash.rawdisk import BLOCK, MAP_BITS, SECTOR, RawDisk
from xnfs_trials.crash.states import Write
from xnfs_trials.crash.subject import Subject
from xnfs_trials.crash.trial import PosixTrial

from libfs.ffs.inode import Vnode
from libfs.ffs.volume import Batch
from tests.trials import liars
from tests.trials.liars import FFS, PLAIN, lying
from xnfs import CollectStatus, MemoryDevice, Xn

SMALL = Plan(exhaustive=3, near=1, samples=2, torn=1, depth=1, states=60)
WORKLOAD = "write foo 0 512; link foo A/bar; write bar 0 8192; sync"


# -- defects in the bytes


class Doctor:
    """A sound image, and the means to spoil it so that only one oracle can tell.

    `closed`: cleanly, so that nothing is in the log, from where it would be restored.
    """

    def __init__(self, subject: Subject = FFS, *, closed: bool = True) -> None:
        self.trial = PosixTrial(subject, parse_name(WORKLOAD))
        written = (e for e in self.trial.events if isinstance(e, Write))
        self.image = self.trial.base | {e.block: e.data for e in written}
        if closed:
            disk = MemoryDevice(self.trial.shape.blocks, self.image)
            xn, posix = open_subject(FFS, disk, self.trial.shape.frames)
            posix.close()
            xn.close()
            self.image = contents(disk)
        self.disk = RawDisk(self.image, self.trial.shape.blocks)
        self.walk = KernelWalk(self.disk)
        self.walk.run()

    def block_of(self, kind: str, owners: int = 1) -> int:
        """A block of a type with so many owners."""
        return next(
            b
            for b, t in self.walk.type_of.items()
            if t.name == kind and self.walk.owners[b] == owners
        )

    def put(self, block: int, at: int, data: bytes) -> None:
        """Overwrite some bytes."""
        old = self.image[block]
        self.image[block] = old[:at] + data + old[at + len(data) :]

    def stamp(self, block: int) -> None:
        """Make the checksum right."""
        self.put(block, 0, struct.pack("<I", self.disk.crc(block, self.image[block][4:])))

    def sector(self, block: int, index: int, at: int, data: bytes) -> None:
        """Overwrite bytes of a sector of the tables; its checksum is made right."""
        self.put(block, index * SECTOR + at, data)
        raw = self.image[block][index * SECTOR : (index + 1) * SECTOR - 4]
        crc = struct.pack("<I", self.disk.crc(block, bytes([index]) + raw))
        self.put(block, (index + 1) * SECTOR - 4, crc)

    def found(self, without: Collection[str] = ()) -> set[str]:
        """The oracles that find something."""
        self.trial.oracles.without = frozenset(without)
        return {text[:2] for text in self.broken()}

    def broken(self) -> list[str]:
        """What the bytes break once the log is replayed."""
        disk = RawDisk(self.image, self.trial.shape.blocks)
        disk.recover()
        return self.trial.inspect(disk)[0]


def free_in_the_map(doctor: Doctor) -> None:
    block = doctor.block_of("ffs.inode")
    group, bit = divmod(block, MAP_BITS)
    at, old = bit // 8, doctor.image[doctor.disk.super.map[0]][bit // 8]
    doctor.sector(doctor.disk.super.map[0], group, at, bytes([old & ~(1 << bit % 8)]))


def counted_too_low(doctor: Doctor) -> None:
    block = doctor.block_of("ffs.inode", owners=2)
    sector, entry = divmod(block, 252)
    doctor.sector(doctor.disk.super.refs[0], sector, 2 * entry, bytes(2))


def bad_checksum(doctor: Doctor) -> None:
    doctor.put(doctor.block_of("neighbour.node"), 4000, b"?")


def wrong_type(doctor: Doctor) -> None:
    block = doctor.block_of("neighbour.node")
    doctor.put(block, 4, struct.pack("<I", doctor.walk.types["ffs.dir"].number))
    doctor.stamp(block)


def two_owners(doctor: Doctor) -> None:
    block = doctor.block_of("neighbour.node")
    doctor.put(block, 72, doctor.image[block][64:72])
    doctor.stamp(block)


def stale_superblock(doctor: Doctor) -> None:
    doctor.put(0, 216, struct.pack("<Q", doctor.disk.super.generation + 1))
    doctor.put(0, 508, struct.pack("<I", doctor.disk.crc(0, doctor.image[0][:508])))


@pytest.mark.parametrize(
    ("spoil", "rule"),
    [
        (stale_superblock, "super"),
        (free_in_the_map, "R4"),
        (counted_too_low, "R5"),
        (bad_checksum, "R2"),
        (wrong_type, "R2"),
        (two_owners, "R5"),
    ],
)
def test_o1_finds_broken_rules(spoil: Callable[[Doctor], None], rule: str) -> None:
    doctor = Doctor()
    assert doctor.found() == set()
    spoil(doctor)
    broken = doctor.broken()
    assert any(text.startswith(f"O1 {rule}") for text in broken), broken
    assert not {t for t in doctor.found(without={"O1"}) if t == "O1"}


@pytest.mark.parametrize("spoil", [free_in_the_map, counted_too_low])
def test_o1_grants_what_the_log_restores(spoil: Callable[[Doctor], None]) -> None:
    """Tables of the newest transaction are written again by recovery, before anybody looks."""
    doctor = Doctor(closed=False)
    spoil(doctor)
    assert doctor.found() == set()


def test_o2_finds_what_was_never_written() -> None:
    doctor = Doctor()
    old_bytes(doctor)
    assert doctor.found() == {"O2"}
    assert doctor.found(without={"O2"}) == set()


def test_o6_finds_a_harmed_neighbour() -> None:
    doctor = Doctor()
    harmed_neighbour(doctor)
    assert doctor.found() == {"O6"}
    assert doctor.found(without={"O6"}) == set()


def test_oracle_unknown() -> None:
    with pytest.raises(ValueError, match="no oracle O7"):
        PosixTrial(FFS, [], without={"O7"})


# -- file systems that lie


def judged(
    subject: Subject, name: str, *, without: Collection[str] = (), lose: int | None = None
) -> Failure | None:
    trial = PosixTrial(subject, parse_name(name), without=without, lose=lose)
    stats = explore(trial, 1, plan=SMALL, mount_every=4, workload=name)
    return stats.failures[0] if stats.failures else None


#: who lies, what shows it, who finds it (the others find nothing), which flush is lost
LIES: list[tuple[Callable[..., liars.Liar], str, str, int | None]] = [
    (liars.ForgetsSync, "create foo; fsync foo", "O3", None),
    (liars.ForgetsSync, "write foo 0 512; fsync foo; sync", "O3", None),
    # The second operation writes where the second of the setting did: other bytes, all the same.
    (liars.ForgetsSync, "create bar; overwrite foo 0 4096; fdatasync foo", "O3", None),
    (liars.ForgivesFailure, "write foo 0 8192; fsync foo; fsync foo", "O3", 2),
    (liars.RenamesInSteps, "rename foo A/bar; sync", "O4", None),
    (liars.ShowsOldBytes, "truncate foo 0; truncate foo 8192; sync", "O4", None),
    (liars.LosesNames, "create foo; create bar; mkdir A; sync", "O4", None),
    (liars.Hoards, "unlink foo; sync", "O5", None),
]


@pytest.mark.parametrize(("liar", "name", "oracle", "lose"), LIES)
def test_liars_are_found(
    liar: Callable[..., liars.Liar], name: str, oracle: str, lose: int | None
) -> None:
    assert judged(PLAIN, name, lose=lose) is None, "the file system itself is sound"
    subject = lying(liar)
    failure = judged(subject, name, lose=lose)
    assert failure is not None
    assert failure.wrong[0].startswith(oracle), failure
    failure = judged(subject, name, without={oracle}, lose=lose)
    assert failure is None or not any(w.startswith(oracle) for w in failure.wrong)


@pytest.mark.parametrize("oracle", ["O3", "O4"])
def test_oracles_off_find_nothing(oracle: str) -> None:
    """What O3 and O4 find, nobody else does."""
    liar = liars.ForgetsSync if oracle == "O3" else liars.RenamesInSteps
    name = "rename foo A/bar; fsync A/bar"
    assert judged(lying(liar), name) is not None
    assert judged(lying(liar), name, without={oracle}) is None


def test_o2_finds_mixed_files() -> None:
    """O2 by itself: the model would find these, too."""
    mixed = ("write foo 0 8192; write bar 0 8192; sync", "write foo 0 512; setxattr foo 1 64; sync")
    for name in mixed:
        failure = judged(lying(liars.MixesBytes), name, without={"O4"})
        assert failure is not None
        assert failure.wrong[0].startswith("O2"), failure
        assert judged(lying(liars.MixesBytes), name, without={"O2", "O4"}) is None


def test_order_is_asked_of_who_promises_it() -> None:
    """FFS promises that a sync of one file makes the rename of another durable."""
    name = "rename foo bar; write A/foo 0 512; fsync A/foo"
    assert judged(FFS, name) is None
    failure = judged(lying(liars.SyncsBytesOnly, FFS), name)
    assert failure is not None
    assert failure.wrong[0].startswith("O3"), failure
    assert judged(lying(liars.SyncsBytesOnly), name) is None


def test_o5_finds_leaks(monkeypatch: pytest.MonkeyPatch) -> None:
    """What one transaction deletes becomes free with the next: a cut in between leaves a leak."""
    assert judged(FFS, "unlink foo; sync") is None

    def collect(self: Xn, who: object, budget: int = 64) -> CollectStatus:
        return CollectStatus(True, 0, 0)

    monkeypatch.setattr(Xn, "collect", collect)
    failure = judged(FFS, "unlink foo; sync")
    assert failure is not None
    assert failure.wrong[0].startswith("O5"), failure
    assert judged(FFS, "unlink foo; sync", without={"O5"}) is None


def test_failed_flush_is_never_forgiven() -> None:
    """O3, second half, on FFS: whatever flush is lost, no later sync says that all is well."""
    name, lose = "write foo 0 8192; fsync foo; fsync foo; replace foo A/bar; sync; sync", 0
    while PosixTrial(FFS, parse_name(name), lose=lose).lossy.struck:
        failure = judged(FFS, name, lose=lose)
        assert failure is None, failure
        lose += 1
    assert lose >= 4  # two before the first write, and one for each sync that has something to do


def spoiled(spoil: Callable[[Doctor], None], oracle: str) -> bool:
    """Does the oracle find this defect in the bytes of a file system without a reader of its own,
    which would find some of them as well?"""
    doctor = Doctor(PLAIN)
    spoil(doctor)
    return any(text.startswith(oracle) for text in doctor.broken())


def old_bytes(doctor: Doctor) -> None:
    holds = doctor.trial.oracles.base.neighbour.holds
    block = next(b for b in doctor.walk.plain() if b not in holds)
    doctor.put(block, BLOCK - len(CANARY), CANARY)


def harmed_neighbour(doctor: Doctor) -> None:
    doctor.put(doctor.trial.oracles.base.neighbour.blocks[3], 100, b"?")


def lies(liar: Callable[..., liars.Liar], name: str) -> bool:
    """Does any oracle find this liar out?"""
    return judged(lying(liar), name) is not None


def forgets_parent() -> bool:
    """A rename leaves the directory's own word for where it is as it was: no oracle but FFS' own
    checker reads that."""
    change = Batch.set

    def forget(self: Batch, v: Vnode, **fields: int) -> None:
        fields.pop("parent", None)
        change(self, v, **fields)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Batch, "set", forget)
        return judged(FFS, "rename A/C B; sync") is not None


#: clause -> what of it is removed, the defect that it alone finds, and whether that is found
CLAUSES: dict[str, tuple[type | ModuleType, str, object, str, Callable[[], bool]]] = {
    "O1: R4 and R5, tables": (
        KernelWalk, "_tables", lambda self: None,
        "reached, and free in the map", lambda: spoiled(free_in_the_map, "O1"),
    ),
    "O1: R5, counts": (
        RawDisk, "refs", lambda self, block: 9, "counted too low",
        lambda: spoiled(counted_too_low, "O1"),
    ),
    "O1: R2, checksums": (
        RawDisk, "stamp_ok", lambda *args: True,
        "metadata with a wrong checksum", lambda: spoiled(bad_checksum, "O1"),
    ),
    "O1: superblocks": (
        KernelWalk, "_supers", lambda self: None,
        "a second copy that is stale", lambda: spoiled(stale_superblock, "O1"),
    ),
    "O2: whose bytes": (
        Oracles,
        "_on",
        lambda self, oracle: oracle != "O2",
        "what lay there before",
        lambda: spoiled(old_bytes, "O2"),
    ),
    "O3: it is there": (
        Model, "_gone", lambda *args: (), "an fsync that does nothing",
        lambda: lies(liars.ForgetsSync, "create foo; fsync foo"),
    ),
    "O3, O4: bytes": (
        Model, "_data_mismatch", lambda *args: None, "an fdatasync that does nothing",
        lambda: lies(liars.ForgetsSync, "create bar; overwrite foo 0 4096; fdatasync foo"),
    ),
    "O4: inodes": (
        Model, "_mismatch", lambda *args, **more: None, "a rename in two steps",
        lambda: lies(liars.RenamesInSteps, "rename foo A/bar; sync"),
    ),
    "O5: use and emptying": (
        Oracles, "mount", lambda *args: [], "an unlink that keeps the blocks",
        lambda: lies(liars.Hoards, "unlink foo; sync"),
    ),
    "O5: fsck": (
        afterwards, "_own_fsck", lambda *args: [],
        "a directory that was moved and says that it was not", forgets_parent,
    ),
    "O6: neighbours": (
        Neighbour, "harmed", lambda *args: (), "one byte of another file system",
        lambda: spoiled(harmed_neighbour, "O6"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("clause", CLAUSES)
def test_clauses_removed_are_missed(clause: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What one clause finds goes by without it: none is there for show."""
    owner, name, nothing, _, found = CLAUSES[clause]
    assert found()
    monkeypatch.setattr(owner, name, nothing)
    assert not found()


# -- the walk through any file system


def test_kernelwalk_language() -> None:
    source = (
        "def owns(meta, part):\n"
        "    a, b = u32s(meta, 0, 2)\n"
        "    n = (a == 1 and b == 2) + (not a) + (a in (1, 3))\n"
        "    for i in range(2):\n"
        "        if i < n:\n"
        "            emit(i, a + i, crc32(meta, 0, 4) & 1 | 1)\n"
    )
    kind = BlockType(99, "t", 0, ((0, 8),), ("x", "y"), source)
    data = struct.pack("<II", 1, 2).ljust(BLOCK, b"\0")
    one = zlib.crc32(data[:4]) & 1 | 1
    assert kind.owned(data) == (("x", 1, one), ("y", 2, one))
    assert kind.owned(bytes(BLOCK)) == ()


@pytest.mark.parametrize(
    "body",
    [
        "__import__('os')",
        "emit(().__class__, 1, 1)",
        "emit(u8.__globals__, 1, 1)",
        "exec('1')",
        "emit(9, 1, 1)",
        "emit(u64(meta, 5000), 1, 1)",
        "while 1: pass",
        "(lambda: 1)()",
        "emit(2 ** 99999999, 1, 1)",
    ],
)
def test_kernelwalk_hostile_owns(body: str) -> None:
    """Sources come from a disk: only the language gets to run."""
    kind = BlockType(98, "t", 0, ((0, 8),), ("x",), f"def owns(meta, part):\n    {body}\n")
    with pytest.raises(BadType):
        kind.owned(b"\1" * BLOCK)


def test_oracles_listed() -> None:
    assert list(ORACLES) == [f"O{i}" for i in range(1, 7)]
    assert QUICK.depth == 1
