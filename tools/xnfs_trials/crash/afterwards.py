"""O5: what follows a cut, with the real code. Recovery ends, does what the bytes say, and does it
once; `fsck` finds nothing, the kernel's nor the file system's own; a mount shows what the bytes
show; leaks are collected and nothing else is; and when all is deleted, nothing is left.

Relies on `rawdisk.py` for what recovery must do. Everything runs on a disk of its own.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Mapping

from libfs.posix import FsError, Posix
from xnfs import Caller, FramePool, MemoryDevice, Xn
from xnfs.disk.fsck import check_image
from xnfs_trials.crash.base import NAME, Base, Shape, clock, open_subject
from xnfs_trials.crash.explore import contents
from xnfs_trials.crash.kernelwalk import KernelWalk
from xnfs_trials.crash.model import tagged
from xnfs_trials.crash.rawdisk import ZERO, RawDisk
from xnfs_trials.crash.subject import Subject
from xnfs_trials.crash.trees import ROOT, Tree, differences, quiet, read_tree, remove_all

USED = 2 * 4096  # bytes that are written after a cut
CHECK_FRAMES = 256
TURNS = 1000  # calls of the collector, at most
NOBODY = 0xFFFF_FFFD  # the owner in the tags of what is written afterwards


def afterwards(
    subject: Subject,
    shape: Shape,
    base: Base,
    disk: MemoryDevice,
    tree: Tree,
    recovered: Mapping[int, bytes],
) -> Iterator[str]:
    """Everything that goes wrong on a disk that should show `tree`, and hold `recovered` once
    recovery is over. Uses the disk up. Raises FsError, XnError: wrong as well."""
    yield from fsck(subject, disk, "before anything")
    want = recovered
    for turn in ("first", "second"):
        xn = Xn(disk, frames=FramePool(shape.frames), clock=clock())
        changed = _otherwise(disk, want)
        if changed:
            yield f"{turn} recovery left other bytes in blocks {changed[:8]}"
            return
        posix = quiet(subject.mount(xn, xn.admin, NAME))
        yield from _seen(posix, tree, f"{turn} mount")
        want = contents(disk)  # and the plug is pulled once more
    yield from _collect(xn)
    posix.close()
    xn.close()
    yield from _leaks(disk, "after collecting")
    xn, posix = open_subject(subject, disk, shape.frames)
    yield from _seen(posix, tree, "after collecting")
    yield from _use(posix)
    posix.close()
    yield from _collect(xn)
    xn.close()
    yield from _leaks(disk, "emptied")
    yield from fsck(subject, disk, "emptied")
    if subject.spare is not None:
        extra = _used(disk) - base.used - _of_root(subject, disk)
        if extra > subject.spare:
            yield f"emptied, {extra} blocks more are in use than when it was new"


def fsck(subject: Subject, disk: MemoryDevice, when: str) -> list[str]:
    """What `fsck -n` says of a disk: the kernel's walk, then the file system's own checker. Leaks
    are no findings."""
    out: list[str] = []
    result = check_image(disk, repair=False, report=lambda f: out.append(f"{when}, fsck: {f}"))
    return out if not result.clean else _own_fsck(subject, disk, when)


def _own_fsck(subject: Subject, disk: MemoryDevice, when: str) -> list[str]:
    out: list[str] = []
    if subject.check is not None:
        xn = Xn(disk, frames=FramePool(CHECK_FRAMES), clock=clock(), readonly=True)
        subject.check(
            xn, xn.admin, NAME, repair=False,
            report=lambda f: out.append(f"{when}, its own fsck: block {f.block}: {f.message}"),
        )  # fmt: skip
    return out


def _otherwise(disk: MemoryDevice, want: Mapping[int, bytes]) -> list[int]:
    """Blocks from the free map on that are not as they should be."""
    have, first = disk._contents, RawDisk(disk._contents, disk.blocks).super.map[0]
    area = range(first, disk.blocks - 1)
    return [b for b in area if have.get(b, ZERO) != want.get(b, ZERO)]


def _seen(posix: Posix, tree: Tree, when: str) -> Iterator[str]:
    return (f"{when}, {text}" for text in differences(read_tree(posix), tree))


def _collect(xn: Xn) -> list[str]:
    who = Caller(xn.admin)
    done = any(xn.collect(who, 1000).done for _ in range(TURNS))
    return [] if done else ["the collector does not end"]


def _leaks(disk: MemoryDevice, when: str) -> Iterator[str]:
    raw = RawDisk(disk._contents, disk.blocks)
    walk = KernelWalk(raw)
    walk.run()
    yield from (f"{when}, {f.rule} block {f.block}: {f.text}" for f in raw.findings)
    if walk.leaks:
        yield f"{when}, blocks {walk.leaks[:8]} are in use and nothing reaches them"
    over = [b for b, n in walk.owners.items() if raw.refs(b) > max(n, 1)]
    if over:
        yield f"{when}, blocks {over[:8]} are counted too high"


def _used(disk: MemoryDevice) -> int:
    raw = RawDisk(disk._contents, disk.blocks)
    return sum(map(raw.in_use, range(raw.super.data_start, raw.super.blocks - 1)))


def _of_root(subject: Subject, disk: MemoryDevice) -> int:
    """What the root directory keeps for the names that it may have again, if the bytes tell."""
    if subject.raw_walk is None:
        return 0
    tree = subject.raw_walk(RawDisk(disk._contents, disk.blocks))
    return tree.inodes[tree.root].owned if tree.root in tree.inodes else 0


def _use(posix: Posix) -> Iterator[str]:
    """Write, and delete everything. If the cut left a full disk, write when it is empty."""
    full = False
    try:
        yield from _write(posix)
    except FsError as error:
        if error.errno != errno.ENOSPC:
            raise
        full = True
    remove_all(posix)
    if full:
        yield from _write(posix)
        remove_all(posix)
    if read_tree(posix).inodes.keys() != {int(posix.root)}:
        yield "not everything could be deleted"


def _write(posix: Posix) -> Iterator[str]:
    data = tagged(NOBODY, 0, USED, 0)
    attr, fh = posix.create(ROOT, posix.root, b"afterwards", 0o644, os.O_RDWR)
    try:
        done = posix.write(fh, 0, data)  # less, if that was all the room
        posix.fsync(fh)
        if posix.read(fh, 0, USED) != data[:done]:
            yield f"the new file {attr.ino} does not hold what was written"
    finally:
        posix.release(fh)
