"""Snapshots: checkpoints with a name, which later ones don't forget.

Taking one costs a checkpoint in each region and one block, whatever the size: the block says where
the inode map is now. From then on the log counts a new epoch. Each address tells the epoch in which
its block was written, so what the live file system gives up is known to be in a snapshot, or not,
without looking: older than the newest snapshot, it stays, as does the segment around it.

Deleting one counts anew what is live, by walking what is left: addresses that two
trees share are walked once.
"""

from __future__ import annotations

import errno
from array import array
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from libfs.lfs import format as f
from libfs.lfs.checkpoint import make_durable
from libfs.lfs.flushing import flush
from libfs.lfs.inode import records_untrusted
from libfs.lfs.tree import Tree
from libfs.posix.interface import FsError
from xnfs import CorruptionError

if TYPE_CHECKING:
    from libfs.lfs.volume import Volume


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One snapshot. `flush`: the newest that it has; `time` in ns."""

    name: str
    time: int
    epoch: int
    next_ino: int
    depth: int
    tops: tuple[int, ...]
    flush: int
    address: int = 0


def load_untrusted(vol: Volume, address: int) -> Snapshot:
    """The snapshot in the block at an address. Raises CorruptionError."""
    raw = vol.block_untrusted(f.P_SNAPSHOT, address)
    name, time, epoch, next_ino, depth, tops, last = f.SNAPSHOT.unpack_from(raw, f.SNAPSHOT_AT)
    try:
        text = name.rstrip(b"\0").decode()
    except UnicodeDecodeError:
        text = ""
    if not text or depth > f.MAX_DEPTH or tops > f.TOPS:
        raise CorruptionError(address & f.AT_MASK, "snapshot", (name, depth, tops), "sane")
    values = array("Q", raw[f.SNAPSHOT_TOPS : f.SNAPSHOT_TOPS + 8 * tops])
    return Snapshot(text, time, epoch, next_ino, depth, tuple(values), last, address)


class Snapshots:
    """Those of a mount, oldest first."""

    def __init__(self, vol: Volume) -> None:
        self._vol = vol
        self.all: list[Snapshot] = []

    def load(self) -> None:
        """Read what the checkpoint names. Raises CorruptionError."""
        vol = self._vol
        self.all = []
        for address in vol.checkpoint.snapshots:
            self.add_untrusted(load_untrusted(vol, address))
        self.changed()

    def add_untrusted(self, snapshot: Snapshot) -> None:
        """One more, taken after those that there are. Raises CorruptionError."""
        least = self.all[-1].epoch + 1 if self.all else 0
        if not least <= snapshot.epoch < self._vol.epoch:
            want = f"{least} to {self._vol.epoch - 1}"
            block = snapshot.address & f.AT_MASK
            raise CorruptionError(block, "epoch of a snapshot", snapshot.epoch, want)
        self.all.append(snapshot)

    def changed(self) -> None:
        """What is kept, and what the next checkpoint says, follow `all`."""
        self._vol.kept = sorted(snapshot.epoch + 1 for snapshot in self.all)
        self._vol.cleaner.pinned.clear()
        self._vol.checkpoint.snapshots = [snapshot.address for snapshot in self.all]

    def find(self, name: str) -> Snapshot:
        """Raises: ENOENT."""
        for snapshot in self.all:
            if snapshot.name == name:
                return snapshot
        raise FsError(errno.ENOENT, f"no snapshot '{name}'")

    def create(self, name: str) -> Snapshot:
        """Everything as it is now, under a name. Durable on return.

        Raises: EEXIST, EINVAL (the name: at most 64 bytes of text without '/'), ENOSPC, EROFS.
        """
        vol = self._vol
        packed = name.encode(errors="replace")  # what is no text is no name
        if not 0 < len(packed) <= 64 or not name.isprintable() or "/" in name:
            raise FsError(errno.EINVAL)
        if any(snapshot.name == name for snapshot in self.all):
            raise FsError(errno.EEXIST, f"there is a snapshot '{name}'")
        if len(self.all) >= f.MAX_SNAPSHOTS or vol.epoch >= f.EPOCH_MAX:
            raise FsError(errno.ENOSPC)
        vol.want(2)
        flush(vol, checkpoint=True)
        tree, last = vol.imap, vol.log.flush
        words = vol.now(), vol.epoch, vol.next_ino, tree.depth, len(tree.tops), last
        head = f.SNAPSHOT.pack(packed, *words).ljust(f.SNAPSHOT_TOPS - f.SNAPSHOT_AT, b"\0")
        vol.log.begin()
        body = head + array("Q", tree.tops).tobytes()
        address = vol.log.append(f.P_SNAPSHOT, 0, 0, body)
        vol.born(address, f.BLOCK)
        vol.log.push(done=True)
        self.all.append(load_untrusted(vol, address))
        vol.epoch += 1
        self.changed()
        self._settle()
        return self.all[-1]

    def delete(self, name: str) -> None:
        """Durable on return. Raises: ENOENT, EROFS."""
        vol = self._vol
        if vol.readonly:
            raise FsError(errno.EROFS)
        self.all.remove(self.find(name))
        self.changed()
        flush(vol)
        self.recount()
        self._settle()

    def rollback(self, name: str) -> None:
        """The live file system becomes what the snapshot is; what came after is gone, but for
        other snapshots. Nobody has a file open. Durable on return. Raises: ENOENT, EROFS."""
        vol = self._vol
        if vol.readonly:
            raise FsError(errno.EROFS)
        snapshot = self.find(name)
        flush(vol)
        vol.imap = self.tree(snapshot)
        vol.next_ino = max(vol.next_ino, snapshot.next_ino)
        vol.vnodes.clear()
        vol.free_inos.clear()
        self.recount()
        self._settle()

    def tree(self, snapshot: Snapshot) -> Tree:
        """Its inode map."""
        return Tree(self._vol, 0, snapshot.depth, snapshot.tops)

    def live(self) -> dict[int, int]:
        """Live bytes of each segment, from what the live file system and the snapshots name. All
        of it is in the log. What can't be read does not count."""
        vol = self._vol
        bad: list[CorruptionError] = []
        live = dict.fromkeys(vol.segments.usage, 0)
        found = [(snapshot.address, f.BLOCK) for snapshot in self.all]
        trees = [vol.imap, *(self.tree(snapshot) for snapshot in self.all)]
        for address, size in (*found, *live_bytes(vol, trees, bad.append)):
            segment = (address & f.AT_MASK) // vol.segments.size
            if segment in live:
                live[segment] += size
        return live

    def recount(self) -> None:
        """The usage anew."""
        segments = self._vol.segments
        for segment, live in self.live().items():
            if segments.usage[segment].live != live:
                segments.count(segments.usage[segment].summary, live - segments.usage[segment].live)

    def _settle(self) -> None:
        """Both regions know of it."""
        for _region in range(2):
            make_durable(self._vol, checkpoint=True)


def live_bytes(
    vol: Volume, trees: Iterable[Tree], bad: Callable[[CorruptionError], None]
) -> Iterator[tuple[int, int]]:
    """(address, bytes) of all that these inode maps lead to, once. `bad` is told of what can't be
    read, and what that leads to is left out."""
    seen: set[int] = set()

    def new(address: int) -> bool:
        if address <= f.RESERVED or address in seen:
            return False
        seen.add(address)
        return True

    for tree in trees:
        for level, ino, at in tree.walk(bad):
            if not new(at):
                continue
            if level:
                yield at, f.BLOCK
                continue
            try:
                v = vol.load_untrusted(ino, at)
            except CorruptionError as error:
                bad(error)
                continue
            yield at, v.record_size
            yield from ((a, f.BLOCK) for _level, _i, a in v.tree.walk(bad) if new(a))
            if new(v.xattr_at):
                yield v.xattr_at, f.BLOCK


def holds(vol: Volume, tree: Tree, kind: int, ino: int, at: int, block: int) -> bool:
    """Whether a snapshot's inode map leads to a block that a slot describes so."""
    if kind == f.P_INODES:
        try:
            records = records_untrusted(block, vol.block_untrusted(kind, block))
        except CorruptionError:
            return leads_to(tree, block)
        return any(tree.get(found) & f.AT_MASK == block for _at, found in records)
    if f.P_MAP1 <= kind <= f.P_MAP3 and ino == 0:
        return tree.address(kind - f.P_MAP1 + 1, at) & f.AT_MASK == block
    where = tree.get(ino)
    if not where:
        return False
    v = vol.load_untrusted(ino, where)
    if f.P_MAP1 <= kind <= f.P_MAP3:
        return v.tree.address(kind - f.P_MAP1 + 1, at) & f.AT_MASK == block
    if kind == f.P_XATTR:
        return v.xattr_at & f.AT_MASK == block
    if kind == f.P_NAMES:
        at >>= 32 - v.bits
    return v.tree.get(at) & f.AT_MASK == block


def leads_to(tree: Tree, block: int) -> bool:
    """Whether an inode map has a record in a block, which itself can't be asked. Looks at all of
    it."""
    return any(at & f.AT_MASK == block for _ino, at in tree.items())
