"""Roll-forward: what was flushed after the checkpoint enters the inode map again.

Beginning where the log of the checkpoint goes on, summaries are followed from segment to segment.
Of their blocks only inodes count, and the lists of inodes that went: an inode names all else. A
flush counts if a summary says so (`first` to `done`), so half of one never does.
A summary that contradicts itself or its segment is damage, not an end of the log: the kernel made
it durable whole, or not at all.

Source: Rosenblum and Ousterhout 1992, section 4.2.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import TYPE_CHECKING

from libfs.lfs import format as f
from libfs.lfs.inode import records_untrusted
from libfs.lfs.segments import Head, Slot
from xnfs import CorruptionError

if TYPE_CHECKING:
    from libfs.lfs.checkpoint import Region
    from libfs.lfs.volume import Volume


def roll_forward(vol: Volume, region: Region) -> int:
    """Take up the log where it ends; how many inodes were entered in the map or taken out.

    Raises CorruptionError.
    """
    raw = vol.xn.read(vol.who, vol.super, f.SUPER_USAGE_AT, f.SUPER_USAGE.size)
    counted, vol.reserved = f.SUPER_USAGE.unpack(raw)
    heads, found = _follow(vol, region)
    take_up_numbers(vol, heads, found, region.flush)
    #: what came before the usage was written, and is counted there; and what came after
    before: dict[int, int] = {}
    after: dict[int, int] = {}
    #: nodes of the inode map, of a later checkpoint that does not count but in the usage
    nodes: dict[tuple[int, int], int] = {}
    for summary, slot in found:
        index, kind, count, owner, at, flush = slot
        if flush > region.flush and _whole(heads, flush):
            if slot.contradicts:
                raise CorruptionError(summary, f"inode of slot {index}", owner, f"kind {kind}'s")
            if f.P_MAP1 <= kind <= f.P_MAP3 and not owner and flush <= counted:
                nodes[kind - f.P_MAP1 + 1, at] = f.address(summary + 1 + index, region.epoch)
            news = before if flush <= counted else after
            for i in range(count):
                enter(vol, kind, f.address(summary + 1 + index + i, region.epoch), news)
    for (level, index), address in nodes.items():
        vol.died(address, f.BLOCK)
        if old := vol.imap.address(level, index):
            vol.born(old, f.BLOCK)
    for ino, address in before.items():
        vol.next_ino = max(vol.next_ino, ino + 1)
        vol.imap.set(ino, address)
    for ino, address in after.items():
        _replace(vol, ino, address)
    return len(before.keys() | after.keys())


def _whole(heads: Sequence[Head], flush: int) -> bool:
    """Whether a flush counts."""
    return any(head.first <= flush <= head.done for head in heads)


def take_up_numbers(
    vol: Volume, heads: Sequence[Head], found: Sequence[tuple[int, Slot]], known: int
) -> None:
    """Go on with the numbers of flushes. After one that was cut short a new segment begins, which
    says that those of this mount are others: so it never counts, whatever comes later."""
    log = vol.log
    done = max((head.done for head in heads), default=0)
    last = max((slot[5] for _summary, slot in found), default=0)
    log.flush = max(done, last, known)
    if last > max(done, known):
        log.first = log.flush + 1
        log.next = log.end
    else:
        log.first = heads[-1].first


def _follow(vol: Volume, region: Region) -> tuple[list[Head], list[tuple[int, Slot]]]:
    """(the heads of all segments from the checkpoint on, (summary, slot) of all that was written
    after it)."""
    segments, segment, serial, first = vol.segments, region.segment, region.serial, region.slot
    heads: list[Head] = []
    found: list[tuple[int, Slot]] = []
    for _turn in range(len(segments.usage) + 1):
        head, slots = segments.slots_untrusted(segment)
        summary = segments.summary(segment)
        if head.serial != serial:
            raise CorruptionError(summary, "serial number of a segment", head.serial, serial)
        heads.append(head)
        found += [(summary, slot) for slot in slots if slot[0] >= first]
        if not head.after:
            rest, count = segments.rest_untrusted(segment)
            used = max((slot[0] + slot[2] for slot in slots), default=0)
            if count and rest != summary + 1 + used:
                raise CorruptionError(summary, "rest of a segment", rest, summary + 1 + used)
            vol.log.resume(segment, serial, summary, used, used + count)
            vol.xn.pin(vol.who, summary)
            return heads, found
        segment, serial, first = head.after - 1, serial + 1, 0
    raise CorruptionError(vol.super, "chain of segments", "a loop", "an end")


def enter(vol: Volume, kind: int, address: int, news: dict[int, int]) -> None:
    """Note where a block has inodes, or which ones it says went (0). Raises CorruptionError."""
    block = address & f.AT_MASK
    if kind == f.P_INODES:
        raw = vol.block_untrusted(kind, address)
        for index, (_at, ino) in enumerate(records_untrusted(block, raw)):
            news[ino] = address | index << f.INDEX_SHIFT
    elif kind == f.P_GONE:
        raw = vol.block_untrusted(kind, address)
        (count,) = f.GONE_COUNT.unpack_from(raw, f.GONE_AT)
        if count > f.GONE_MAX:
            raise CorruptionError(block, "inodes that went", count, f"at most {f.GONE_MAX}")
        for ino in array("I", raw[f.GONE_INOS : f.GONE_INOS + 4 * count]):
            news[ino] = 0


def _replace(vol: Volume, ino: int, address: int) -> None:
    """The map says `address` from now on; the usage follows."""
    old = vol.imap.get(ino)
    vol.next_ino = max(vol.next_ino, ino + 1)
    for at, count in ((old, vol.died), (address, vol.born)):
        if at:
            v = vol.load_untrusted(ino, at)
            count(at, v.record_size)
            vol.all_of(v, count)
    vol.imap.set(ino, address)
