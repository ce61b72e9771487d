"""The inode map anew, from the summaries alone: when no checkpoint, or no way on from it, can be
read.

Each inode is where its newest whole flush put it. Inodes that went long ago may come back, if the
list of those that went is no longer there; they have no name, and the checker drops them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from libfs.lfs import format as f
from libfs.lfs.rollforward import enter, take_up_numbers
from libfs.lfs.snapshots import Snapshot, load_untrusted
from libfs.lfs.tree import Tree
from xnfs import CorruptionError

if TYPE_CHECKING:
    from libfs.common.checking import Log
    from libfs.lfs.segments import Head, Slot
    from libfs.lfs.volume import Volume


def rebuild(vol: Volume, log: Log) -> None:
    """Set inode map, epoch, snapshots and the end of the log. Raises CorruptionError: there is
    nothing to go on from."""
    heads, last, found = _summaries(vol, log)
    if last is None:
        raise CorruptionError(vol.super, "segments", "none", "one with a summary")
    # Some of the segments are gone by now, and with them what they said of flushes of their time.
    newest, spoilt = max(head.done for head in heads), {head.first - 1 for head in heads}
    news: dict[int, int] = {}
    snapshots: list[Snapshot] = []
    epoch = 0
    for _serial, summary, slot in sorted(found, key=lambda each: (each[2][5], each[0], each[2][0])):
        index, kind, count, _ino, _at, flush = slot
        if flush > newest or flush in spoilt:
            continue
        for i in range(count):
            block = summary + 1 + index + i
            try:
                if slot.contradicts:  # the block itself knows better
                    kind = vol.kind_untrusted(block, vol.data(f.address(block, epoch)))
                if kind == f.P_SNAPSHOT:
                    snapshots.append(load_untrusted(vol, f.address(block, epoch)))
                    epoch = max(epoch, snapshots[-1].epoch + 1)
                else:
                    enter(vol, kind, f.address(block, epoch), news)
            except CorruptionError as error:
                log("inode-lost", block, ino="?", why=error)
    _take(vol, news, snapshots)
    _resume(vol, last)
    heads.sort(key=lambda head: head.serial)
    take_up_numbers(vol, heads, [(summary, slot) for _serial, summary, slot in found], 0)


def _summaries(
    vol: Volume, log: Log
) -> tuple[list[Head], tuple[int, int] | None, list[tuple[int, int, Slot]]]:
    """(heads, (serial, segment) of the last segment, (serial, summary, slot) of all)."""
    heads: list[Head] = []
    last = None
    found: list[tuple[int, int, Slot]] = []
    for segment, usage in vol.segments.usage.items():
        try:
            head, slots = vol.segments.slots_untrusted(segment)
        except CorruptionError as error:
            log("summary", usage.summary, repairable=False, segment=segment, why=error)
            continue
        heads.append(head)
        last = max(last or (0, 0), (head.serial, segment))
        found += [(head.serial, usage.summary, slot) for slot in slots]
    return heads, last, found


def _take(vol: Volume, news: dict[int, int], snapshots: list[Snapshot]) -> None:
    vol.imap = Tree(vol, 0)
    highest = max((snapshot.epoch for snapshot in snapshots), default=0)
    for ino, at in news.items():
        if not at:
            continue
        vol.next_ino = max(vol.next_ino, ino + 1)
        vol.imap.set(ino, at)
        try:
            v = vol.load_untrusted(ino, at)
            tops = [top >> f.EPOCH_SHIFT for top in v.tree.tops]
        except CorruptionError:
            continue  # found again when inodes are looked at
        highest = max([highest, *tops])
    vol.epoch = min(highest + 1, f.EPOCH_MAX)
    vol.snapshots.all = snapshots
    vol.snapshots.changed()


def _resume(vol: Volume, last: tuple[int, int]) -> None:
    serial, segment = last
    summary = vol.segments.summary(segment)
    rest, count = vol.segments.rest_untrusted(segment)
    slot = rest - summary - 1 if count else 0
    vol.log.resume(segment, serial, summary, slot, slot + count)
    vol.xn.pin(vol.who, summary)
