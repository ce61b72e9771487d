"""Roll-forward: what was flushed after the checkpoint enters the inode map again.

Beginning where the log of the checkpoint goes on, summaries are followed from segment to segment.
Of their blocks only inodes count, and the lists of inodes that went: an inode names all else. A
flush counts if its number is not above the highest `done` that is found, so half of one never does.
A summary that contradicts itself or its segment is damage, not an end of the log: the kernel made
it durable whole, or not at all.

Source: Rosenblum and Ousterhout 1992, section 4.2.
"""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING

from libfs.lfs import format as f
from libfs.lfs.inode import records_untrusted
from libfs.lfs.segments import Slot
from xnfs import CorruptionError

if TYPE_CHECKING:
    from libfs.lfs.checkpoint import Region
    from libfs.lfs.volume import Volume


def roll_forward(vol: Volume, region: Region) -> int:
    """Take up the log where it ends; how many inodes were entered in the map or taken out.

    Raises CorruptionError.
    """
    done, found = _follow(vol, region)
    # The numbers of a flush that was cut short must not come true later.
    vol.log.flush = max(done, region.flush, *(slot[5] for _summary, slot in found), 0)
    news: dict[int, int] = {}
    for summary, slot in found:
        index, kind, count, _ino, _at, flush = slot
        if region.flush < flush <= done:
            for i in range(count):
                enter(vol, kind, f.address(summary + 1 + index + i, region.epoch), news)
    for ino, address in news.items():
        _replace(vol, ino, address)
    return len(news)


def _follow(vol: Volume, region: Region) -> tuple[int, list[tuple[int, Slot]]]:
    """(the newest whole flush, (summary, slot) of all that was written after the checkpoint)."""
    segments, segment, serial, first = vol.segments, region.segment, region.serial, region.slot
    done, found = 0, []
    for _turn in range(len(segments.usage) + 1):
        (number, after, whole), slots = segments.slots_untrusted(segment)
        summary = segments.summary(segment)
        if number != serial:
            raise CorruptionError(summary, "serial number of a segment", number, serial)
        done = max(done, whole)
        found += [(summary, slot) for slot in slots if slot[0] >= first]
        if not after:
            rest, count = segments.rest_untrusted(segment)
            used = max((slot[0] + slot[2] for slot in slots), default=0)
            if count and rest != summary + 1 + used:
                raise CorruptionError(summary, "rest of a segment", rest, summary + 1 + used)
            vol.log.resume(segment, serial, summary, used, used + count)
            vol.xn.pin(vol.who, summary)
            return done, found
        segment, serial, first = after - 1, serial + 1, 0
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
