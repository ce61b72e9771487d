"""What LFS knows of a destroyed block of the segment table: all of it, but for the usage.

A summary says of itself which segment it begins, and lies in it, so those that nobody names any
more are those that the table named. Usage is a hint; the checker counts anew.
"""

from __future__ import annotations

import zlib

from libfs.lfs import format as f
from libfs.lfs import types as t
from libfs.lfs.log import checksum
from libfs.lfs.volume import decode_super_untrusted
from xnfs import CorruptionError, Lost


def rebuild(lost: Lost) -> bytes | None:
    """See `xnfs.disk.lost.Rebuild`."""
    if lost.type != t.SEGMENTS:
        return None
    try:
        size, uuid = decode_super_untrusted(lost.parent, lost.read(lost.parent))
    except CorruptionError:
        return None
    raw = bytearray(f.BLOCK)
    first = (lost.part - 2) * f.SLOTS  # the super block's first two parts are the regions
    for i in range(f.SLOTS):
        summary = _summary(lost, first + i, size, zlib.crc32(uuid))
        if summary is not None:
            pointer = f.pointer(f.P_SUMMARY, summary)
            f.POINTER.pack_into(raw, f.ENTRIES_AT + i * f.ENTRY_SIZE, pointer)
    return bytes(raw)


def _summary(lost: Lost, segment: int, size: int, seed: int) -> int | None:
    """The orphaned summary of a segment. What lies below it is its own, whatever it looks like."""
    for block, kind, raw in lost.orphans(segment * size, (segment + 1) * size):
        head = f.SUMMARY_HEAD.unpack_from(raw, f.SUMMARY_AT)
        if kind == t.SUMMARY and head[1] == segment and _ours(lost, block, raw, seed):
            return block
    return None


def _ours(lost: Lost, block: int, summary: bytes, seed: int) -> bool:
    """Whether a summary is not that of another LFS whose table is lost as well. The checksums of
    its blocks tell, but for data; of data alone it is whose turn comes first."""
    told = []
    for i, (pointer, *_what) in enumerate(f.SLOT.iter_unpack(summary[f.SLOTS_AT :])):
        if pointer and pointer >> f.KIND_SHIFT != f.P_DATA:
            raw = lost.read(block + 1 + i)
            told.append(f.CRC.unpack_from(raw)[0] == checksum(seed, block + 1 + i, raw))
    return any(told) or not told
