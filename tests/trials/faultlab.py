"""One fault, one target, one outcome: FFS on XN on a disk that fails, and what comes of it.

The act: a file is overwritten and made private, its neighbour renamed, a third one made; all is
synced, and the machine stops. Then the disk is opened again, and every byte, every name, every mode
and the opinion of fsck are compared with what was there before and after.
"""

from __future__ import annotations

import errno
import random
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

from xnfs_trials.crash.checker import check
from xnfs_trials.crash.choices import Plan
from xnfs_trials.crash.device import ModelDevice
from xnfs_trials.crash.ffstrial import ROOT, new_disk, open_fs
from xnfs_trials.crash.rawdisk import BLOCK, SECTOR, RawDisk
from xnfs_trials.crash.states import Cutter, Write

from libfs.posix.interface import Change, FsError, Ino, New
from xnfs import MemoryDevice, XnError
from xnfs.disk.fsck import check_image
from xnfs.disk.stacked import Fault, FaultingDevice

BLOCKS = 128
OLD, NEW, OTHER = (word * (2 * BLOCK // 4) for word in (b"old!", b"new!", b"oth."))
BIT = 8 * 200 + 3  # inside the fields of every target
SURVIVED, DETECTED, FSCK, UNNOTICED = "survived", "detected", "found by fsck", "out of scope"
#: `metadata`: an inode that the newest transaction wrote in place; `older`: the same, and the log
#: has been written over since
OLDER = {"metadata, older": "metadata", "tables, older": "tables"}
TARGETS = ("metadata", "metadata, older", "data", "log", "tables", "tables, older", "superblock")
#: transactions that write over the log
ROUNDS = 24

Device = Any  # a BlockDevice; FFS's helpers want to know which


@cache
def base() -> MemoryDevice:
    """A clean image with two files of two blocks, /a and /b."""
    disk = new_disk(BLOCKS, log_blocks=16)
    xn, fs = open_fs(disk)
    for name, data in ((b"a", OLD), (b"b", OTHER)):
        ino = fs.create(ROOT, fs.root, name, New(stat.S_IFREG | 0o644, 0, 0))
        fs.write(ROOT, ino, 0, data, kill_suid=False)
    fs.close()
    xn.close()
    return disk


def act(device: Device, *, later: int = 0, retry: bool = False) -> None:
    """/a is new and private, /b is called /c, /d exists, and `later` more transactions. Durable on
    return; not closed, so that the log keeps what it has. `retry`: what is refused for want of room
    is asked for again, once."""
    _xn, fs = open_fs(device)
    a, b = fs.lookup(fs.root, b"a"), fs.lookup(fs.root, b"b")
    assert a is not None
    assert b is not None
    fs.write(ROOT, a, 0, NEW, kill_suid=False)
    fs.setattr(ROOT, a, Change(mode=stat.S_IFREG | 0o600))
    fs.rename(ROOT, fs.root, b"b", fs.root, b"c", keep=False)
    d = fs.create(ROOT, fs.root, b"d", New(stat.S_IFREG | 0o644, 0, 0))
    try:
        fs.sync(None)
    except FsError:
        if not retry:
            raise
        fs.sync(None)
    for turn in range(later):
        fs.setattr(ROOT, d, Change(mode=stat.S_IFREG | turn % 512))
        fs.sync(None)


@dataclass(frozen=True)
class Places:
    """Which block to hit. `victim`: the inode of /b, where misdirected writes land."""

    target: dict[str, int]
    victim: int


@cache
def places() -> Places:
    """Found by watching the act on a sound disk."""
    tree = check(base()._contents, BLOCKS)[0].tree()
    low = RawDisk(base()._contents, BLOCKS).super
    device = ModelDevice(base().fork())
    act(device)
    writes = [event for event in device.events if isinstance(event, Write)]
    target = {
        "metadata": tree[b"/a"].ino,
        "data": next(w.block for w in writes if w.data.startswith(b"new!")),
        "log": next(w.block for w in writes if low.log[0] <= w.block < sum(low.log)),
        "tables": next(w.block for w in writes if low.map[0] <= w.block < sum(low.map)),
        "superblock": 0,
    }
    return Places(target, tree[b"/b"].ino)


def look(device: Device) -> str:
    """Open and read everything: old, new, mixed (each part is one of the two), wrong, or error."""
    try:
        _xn, fs = open_fs(device)
        names = {entry.name for entry in fs.readdir(fs.root, 0)}
        # In order: how many inodes were read before decides what is read ahead.
        found = {name: _file(fs, name) for name in sorted(names)}
    except (XnError, FsError):
        return "error"
    data, mode = found.pop(b"a", (b"", 0))
    other = found.pop(b"c" if b"c" in found else b"b", (b"", 0))
    sectors = {data[at : at + SECTOR] for at in range(0, len(data), SECTOR)}
    if len(data) != len(NEW) or not sectors <= {OLD[:SECTOR], NEW[:SECTOR]}:
        return "wrong"
    if other[0] != OTHER or not found.keys() <= {b"d"}:
        return "wrong"
    parts = {sector == NEW[:SECTOR] for sector in sectors} | {mode & 0o777 == 0o600}
    parts |= {b"c" in names, b"d" in names}
    return "mixed" if len(parts) > 1 else "new" if True in parts else "old"


def _file(fs: Device, name: bytes) -> tuple[bytes, int]:
    ino = Ino(fs.lookup(fs.root, name))
    attr = fs.getattr(ino)
    return bytes(fs.read(ino, 0, attr.size)), attr.mode


def sound(disk: MemoryDevice) -> bool:
    """Does fsck find nothing?"""
    try:
        return check_image(disk.fork(), repair=False, report=lambda finding: None).clean
    except XnError:
        return False


def plant(op: str, kind: str, target: str, **how: Any) -> Fault:
    """A fault at a target."""
    where = places()
    block = None if op == "flush" else where.target[OLDER.get(target, target)]
    return Fault(op, kind, block=block, other=where.victim, bit=BIT, **how)  # type: ignore[arg-type]


def written(fault: Fault, target: str) -> str:
    """The outcome of a fault that strikes during the act."""
    disk = base().fork()
    told = False
    try:
        act(
            FaultingDevice(ModelDevice(disk), fault),
            later=ROUNDS if target in OLDER else 0,
            retry=fault.errno == errno.ENOSPC,
        )
    except (XnError, FsError):
        told = True
    assert fault.struck
    return judge(disk, told=told)


def judge(disk: MemoryDevice, *, told: bool) -> str:
    """What is left on the disk, and whether anybody said so."""
    seen, clean = look(disk.fork()), sound(disk)
    if told:
        # Nothing was promised; but what is there must be old or new, or be seen to be neither.
        return DETECTED if seen != "wrong" else UNNOTICED
    if seen == "error":
        return DETECTED
    if seen == "new" and clean:
        return SURVIVED
    return UNNOTICED if clean else FSCK


def read(fault: Fault, target: str) -> str:
    """The outcome of a fault that strikes when the image is opened and read after the act."""
    disk = base().fork()
    after, fault.after = fault.after, 1 << 60
    device = FaultingDevice(ModelDevice(disk), fault)  # sees the writes: for stale reads
    act(device, later=ROUNDS if target in OLDER else 0)
    fault.after = after
    seen = look(device)
    assert fault.struck
    if seen == "error" and not fault.sticky:
        seen = look(device)
        assert seen == "new"  # it was the read alone
        return DETECTED
    return {"new": SURVIVED, "error": DETECTED}.get(seen, UNNOTICED)


def lying() -> str:
    """The outcome of a disk whose flushes do nothing, and a power cut after the act."""
    disk = ModelDevice(base().fork())
    act(FaultingDevice(disk, Fault("flush", "lost", sticky=True)))
    cutter = Cutter(
        base()._contents,
        disk.events,
        random.Random(1),
        Plan(exhaustive=0, near=1, samples=20, torn=0),
    )
    seen = set()
    for state in cutter.states():
        if state.event == len(disk.events):
            image = MemoryDevice(BLOCKS, dict(state.image))
            seen.add(judge(image, told=False))
    return UNNOTICED if UNNOTICED in seen else max(seen)


def queued() -> str:
    """The outcome of a write that fails on its way out of the host's cache: the flush says so,
    once."""
    disk = base().fork()
    fault = plant("write", "eio", "data")
    device = ModelDevice(FaultingDevice(disk, fault), queue=8)
    _xn, fs = open_fs(device)  # type: ignore[arg-type]
    ino = fs.lookup(fs.root, b"a")
    assert ino is not None
    fs.write(ROOT, ino, 0, NEW, kill_suid=False)
    told = []
    for _ in range(3):
        try:
            fs.sync(None)
        except FsError as error:
            told.append(error.errno)
    assert fault.struck
    device.flush()  # the device itself has forgotten it
    return judge(disk, told=len(told) == 3)


def torn(target: str) -> str:
    """The outcome of a power cut that tears the target: every prefix, and some sets of sectors."""
    disk = ModelDevice(base().fork())
    act(disk)
    events, block = disk.events, places().target[OLDER.get(target, target)]
    rng = random.Random(1)
    cutter = Cutter(base()._contents, events, rng, Plan(near=0, exhaustive=0, samples=0))
    worst = SURVIVED
    for state in _tears(cutter, block):
        image = MemoryDevice(BLOCKS, dict(state.image))
        seen = look(image)
        if seen not in ("old", "new", "mixed") or not sound(MemoryDevice(BLOCKS, state.image)):
            worst = UNNOTICED if seen == "wrong" else DETECTED
    return worst


def _tears(cutter: Cutter, block: int) -> Iterator[Any]:
    for state in cutter.states():
        if state.torn is not None:
            event = cutter.events[state.torn[0]]
            if isinstance(event, Write) and event.block == block:
                yield state
