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
    above = lost.read(lost.parent)
    try:
        size, run, uuid = decode_super_untrusted(lost.parent, above)
    except CorruptionError:
        return None
    part = lost.part - 2  # the super block's first two are the regions
    (pointer,) = f.POINTER.unpack_from(above, f.SUPER_TABLE + part * f.POINTER.size)
    first = (part * run + lost.block - (pointer & f.BLOCK_MASK)) * f.SLOTS
    raw = bytearray(f.BLOCK)
    for i in range(f.SLOTS):
        entry = _entry(lost, first + i, size, zlib.crc32(uuid))
        at = f.ENTRIES_AT + i * f.ENTRY_SIZE
        raw[at : at + len(entry)] = entry
    return bytes(raw)


def _entry(lost: Lost, segment: int, size: int, seed: int) -> bytes:
    """Of a segment whose summary is an orphan; what lies below that is its own, whatever it looks
    like. Empty if there is none."""
    for block, kind, raw in lost.orphans(segment * size, (segment + 1) * size):
        head = f.SUMMARY_HEAD.unpack_from(raw, f.SUMMARY_AT)
        if kind == t.SUMMARY and head[1] == segment and _ours(lost, block, raw, seed):
            pointer = f.POINTER.pack(f.pointer(f.P_SUMMARY, block))
            return pointer + f.USAGE.pack(0, min(1 + _blocks(raw), size), 0)
    return b""


def _blocks(summary: bytes) -> int:
    """How many blocks follow a summary: those that are written, and the rest."""
    rest: int = f.POINTER.unpack_from(summary, f.REST_AT)[0]
    end = 0
    for i, (pointer, *_what) in enumerate(f.SLOT.iter_unpack(summary[f.SLOTS_AT :])):
        if pointer:
            end = i + (pointer >> f.COUNT_SHIFT & f.COUNT_MASK)
    return end + (rest >> f.COUNT_SHIFT & f.COUNT_MASK)


def _ours(lost: Lost, block: int, summary: bytes, seed: int) -> bool:
    """Whether a summary is not that of another LFS whose table is lost as well. The checksums of
    its blocks tell, but for data; of data alone it is whose turn comes first."""
    told = []
    for i, (pointer, *_what) in enumerate(f.SLOT.iter_unpack(summary[f.SLOTS_AT :])):
        if pointer and pointer >> f.KIND_SHIFT != f.P_DATA:
            raw = lost.read(block + 1 + i)
            told.append(f.CRC.unpack_from(raw)[0] == checksum(seed, block + 1 + i, raw))
    return any(told) or not told
