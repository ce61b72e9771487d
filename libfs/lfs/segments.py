"""Segments: where their summaries lie, how much of each is live, which one comes next.

Segment *s* is the blocks [s * size, (s + 1) * size), or as much of them as others leave: other file
systems may have blocks of the same image. It begins with its summary. The segment table, below the
super block, owns the summaries and has the usage beside them; both are read when mounting, and the
usage is written by checkpoints only. **Usage is a hint**: after a crash it may be wrong, and no
block is given up because of it alone (`cleaner`).

Sources: Rosenblum and Ousterhout 1992, sections 3.3 (segment summary), 3.6 (segment usage table).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

from libfs.lfs import format as f
from xnfs import CorruptionError, NoFrames, NotCached

if TYPE_CHECKING:
    from libfs.lfs.volume import Volume

#: How often a page that another mount of the image took away is fetched again.
TRIES: Final = 8
#: Shorter runs of free blocks are not worth a summary.
MIN_RUN: Final = 8
#: Kinds of blocks that are an inode's, and that are none's. (Maps and records can be either.)
OF_INODES: Final = (f.P_DATA, f.P_NAMES, f.P_XATTR)
OF_NONE: Final = (f.P_GONE, f.P_SNAPSHOT)


@dataclass(slots=True)
class Usage:
    """What is known of one segment."""

    summary: int  # block
    blocks: int  # the summary among them
    live: int = 0  # bytes
    youngest: int = 0  # time of its youngest block, ns


class Head(NamedTuple):
    """The head of a summary. `after`: the next segment + 1; flushes `first` to `done` are whole."""

    serial: int
    after: int
    first: int
    done: int


class Slot(tuple[int, int, int, int, int, int]):
    """(index, kind, count, ino, at, flush) of one run of blocks."""

    __slots__ = ()

    @property
    def contradicts(self) -> bool:
        """Whether kind and inode can't both be right."""
        _index, kind, _count, ino, _at, _flush = self
        return kind in (OF_NONE if ino else OF_INODES)


class Segments:
    """The segment table in memory."""

    def __init__(self, vol: Volume, size: int, run: int) -> None:
        self._vol = vol
        self.size = size
        self.run = run  # blocks of the table that lie behind each other, owned by one pointer
        self.usage: dict[int, Usage] = {}
        #: blocks of the table, by number; and usage that differs from them
        self.tables: dict[int, int] = {}
        self.changed: set[int] = set()
        self.died = 0  # bytes, since the mount
        self.live = 0  # bytes, in all
        self.capacity_of_ours = 0  # blocks
        #: blocks of segments that were given up since the mount, and those of them that are free
        self.given_up = self.given_back = 0
        #: (start, blocks, those of them that it can take) of segments to come; the sum of the
        #: last; where the search goes on
        self._free: list[tuple[int, int, int]] = []
        self._room = 0
        self._at = -1
        self._looked = 0  # segments since the search began anew
        self._free_then = -1  # blocks, when it did
        #: summary -> `_owners_of` it
        self._owners: dict[int, bytes] = {}

    def load_untrusted(self, pointers: bytes) -> None:
        """Read the table. Raises CorruptionError."""
        vol = self._vol
        for part, (pointer,) in enumerate(f.POINTER.iter_unpack(pointers), 2):
            if not pointer:
                continue
            first = pointer & f.BLOCK_MASK
            if pointer != f.pointer(f.P_SEGMENTS, first, self.run):
                raise CorruptionError(vol.super, "pointer", hex(pointer), "the segment table")
            vol.readin(vol.super, part, first, self.run)
            for number, block in enumerate(range(first, first + self.run), (part - 2) * self.run):
                vol.xn.pin(vol.who, block)
                self.tables[number] = block
                self._load_block_untrusted(number, block)

    def _load_block_untrusted(self, number: int, block: int) -> None:
        raw = self._vol.xn.read(self._vol.who, block, 0, f.BLOCK)
        for i, entry in enumerate(struct.iter_unpack(f.ENTRY.format, raw[f.ENTRIES_AT :])):
            pointer, live, blocks, youngest = entry
            if not pointer:
                continue
            segment, summary = number * f.SLOTS + i, pointer & f.BLOCK_MASK
            if pointer >> f.KIND_SHIFT != f.P_SUMMARY or summary // self.size != segment:
                raise CorruptionError(block, "pointer", hex(pointer), f"summary of {segment}")
            if not 2 <= blocks <= self.size:
                raise CorruptionError(block, f"blocks of segment {segment}", blocks, self.size)
            self.add(segment, Usage(summary, blocks, 0, youngest))
            self.count(summary, min(live, blocks * f.BLOCK), youngest)
        self.changed.clear()

    def add(self, segment: int, usage: Usage) -> None:
        """The log has one more segment."""
        self.usage[segment] = usage
        self.capacity_of_ours += usage.blocks - 1

    def remove(self, segment: int) -> None:
        """The log has given a segment up: its blocks will be free."""
        usage = self.usage[segment]
        self.count(usage.summary, -usage.live)
        self.capacity_of_ours -= usage.blocks - 1
        self.given_up += usage.blocks
        del self.usage[segment]
        self.forget(usage.summary)
        self._free_then = -1

    # -- usage

    def count(self, block: int, size: int, time: int = 0) -> None:
        """So many bytes of a block became live (or died, if negative). `time`: of their file."""
        segment = block // self.size
        usage = self.usage.get(segment)
        if usage is not None:
            size = max(size, -usage.live)
            usage.live += size
            self.live += size
            self.died -= min(size, 0)
            usage.youngest = max(usage.youngest, time)
            self.changed.add(segment)

    def entry(self, segment: int) -> tuple[int, int]:
        """(block of the table, offset in it) of a segment's entry."""
        number, i = divmod(segment, f.SLOTS)
        return self.tables[number], f.ENTRIES_AT + i * f.ENTRY_SIZE

    def usage_edits(self) -> dict[int, list[tuple[int, bytes]]]:
        """Diffs that bring the table up to date, by block; it then is."""
        edits: dict[int, list[tuple[int, bytes]]] = {}
        for segment in sorted(self.changed & self.usage.keys()):
            usage = self.usage[segment]
            block, at = self.entry(segment)
            edits.setdefault(block, []).append(
                (at + f.POINTER.size, f.USAGE.pack(usage.live, usage.blocks, usage.youngest))
            )
        self.changed.clear()
        return edits

    # -- summaries

    def summary(self, segment: int) -> int:
        """The block of a segment's summary, cached. Raises CorruptionError."""
        usage = self.usage.get(segment)
        vol = self._vol
        if usage is None:
            raise CorruptionError(vol.super, "segment", segment, "one of this file system")
        if not vol.xn.cached(usage.summary):
            vol.readin(self.tables[segment // f.SLOTS], segment % f.SLOTS, usage.summary, 1)
        vol.cache.touch(usage.summary)
        return usage.summary

    def _read(self, segment: int) -> tuple[int, bytes]:
        """The block of a segment's summary, and its bytes. Another mount may take the page away
        between two calls."""
        for _turn in range(TRIES):
            block = self.summary(segment)
            try:
                return block, self._vol.xn.read(self._vol.who, block, 0, f.BLOCK)
            except NotCached:
                continue
        raise NoFrames("a page is taken away again and again")

    def slots_untrusted(self, segment: int) -> tuple[Head, list[Slot]]:
        """What the summary of a segment says of it, and its used slots. Raises CorruptionError."""
        block, raw = self._read(segment)
        serial, number, after, done, first = f.SUMMARY_HEAD.unpack_from(raw, f.SUMMARY_AT)
        if number != segment:
            raise CorruptionError(block, "segment", number, segment)
        if max(serial, done, first) > f.COUNTER_MAX:
            raise CorruptionError(block, "counters", (serial, done, first), "sane")
        slots, end = [], 0
        for i, entry in enumerate(struct.iter_unpack(f.SLOT.format, raw[f.SLOTS_AT :])):
            pointer, ino, at, flush = entry
            if not pointer:
                continue
            kind, count = pointer >> f.KIND_SHIFT, pointer >> f.COUNT_SHIFT & f.COUNT_MASK
            if not f.P_DATA <= kind <= f.P_SNAPSHOT or not count:
                raise CorruptionError(block, f"slot {i}", hex(pointer), "a kind and a count")
            if flush > f.COUNTER_MAX:
                raise CorruptionError(block, f"flush of slot {i}", flush, "sane")
            if pointer & f.BLOCK_MASK != block + 1 + i or i < end or i + count > f.SLOTS:
                raise CorruptionError(block, f"slot {i}", hex(pointer), "its own blocks")
            end = i + count
            slots.append(Slot((i, kind, count, ino, at, flush)))
        return Head(serial, after, first, done), slots

    def rest_untrusted(self, segment: int) -> tuple[int, int]:
        """(first block, count) of what is not written in a segment. Raises CorruptionError."""
        block, raw = self._read(segment)
        (pointer,) = f.POINTER.unpack_from(raw, f.REST_AT)
        if pointer and pointer >> f.KIND_SHIFT != f.P_UNWRITTEN:
            raise CorruptionError(block, "rest", hex(pointer), "unwritten blocks")
        return pointer & f.BLOCK_MASK, pointer >> f.COUNT_SHIFT & f.COUNT_MASK

    def owners(self, start: int, count: int) -> tuple[int, list[tuple[int, int, int]]]:
        """The summary, cached, of the segment that has all of a run, and of each pointer that owns
        some of it (partition, first block, count). Raises CorruptionError: one has no owner."""
        summary, owners = self._owners_of(start // self.size)
        index = start - summary - 1
        wanted = owners[index : index + count] if index >= 0 else b""
        if not wanted or len(wanted) < count or 0 in wanted:
            raise CorruptionError(summary, "block", start, "one that is written")
        runs = []
        while wanted:
            more = wanted.lstrip(wanted[:1])
            n = len(wanted) - len(more)
            runs.append((wanted[0], start, n))
            wanted, start = more, start + n
        return summary, runs

    def around(self, block: int, size: int) -> tuple[int, int]:
        """(first block, count): of the window of `size` blocks that this one lies in, as much
        around it as is written in its segment."""
        summary, owners = self._owners_of(block // self.size)
        index, low = block - summary - 1, block // size * size - summary - 1
        first = max(low, 0, owners.rfind(0, 0, max(index, 0)) + 1)
        end = owners.find(0, max(index, 0), max(low + size, 0))
        return summary + 1 + first, (min(low + size, len(owners)) if end < 0 else end) - first

    def _owners_of(self, segment: int) -> tuple[int, bytes]:
        """The summary of a segment, cached; for each block behind it the partition of the pointer
        that owns it, or 0."""
        summary = self.summary(segment)
        owners = self._owners.get(summary)
        if owners is None:
            if len(self._owners) > 4096:
                self._owners.clear()
            owners = self._owners[summary] = self._find_owners(segment)
        return summary, owners

    def _find_owners(self, segment: int) -> bytes:
        owners = bytearray(f.SLOTS)
        for index, _kind, count, *_rest in self.slots_untrusted(segment)[1]:
            owners[index : index + count] = bytes([index + 1]) * count
        return bytes(owners)

    def forget(self, summary: int) -> None:
        """The summary changed."""
        self._owners.pop(summary, None)

    # -- space

    def capacity(self) -> float:
        """Blocks that could be live if all the rest were free: those of our segments, and of as
        many as could be ours, or soon can."""
        free = self._vol.xn.free_blocks() + self.given_up - self.given_back
        return self.capacity_of_ours + free * (self.size - 1) / self.size

    def room(self, wanted: int) -> int:
        """How many blocks free segments can take, counted until there are `wanted`."""
        self._look(wanted)
        return self._room

    def find(self) -> tuple[int, int] | None:
        """(start, count): a run of free blocks for the next segment."""
        while True:
            self._look(1)
            if not self._free:
                return None
            start, count, takes = self._free.pop(0)
            self._room -= takes
            if self._vol.xn.find_free(start, count) == (start, count):
                return start, count

    def _look(self, wanted: int) -> None:
        """Note free segments, from the last one that was noted on, until they have room enough.

        Once round is enough, until there are more free blocks than then.
        """
        xn = self._vol.xn
        total = min(xn.data_area[1] // self.size + 1, f.TABLES * self.run * f.SLOTS)
        while self._room < wanted:
            if self._looked >= total:
                free = xn.free_blocks()
                if free <= self._free_then:
                    return
                self._free_then, self._looked = free, 0
            after = self._at + 1
            start, count = xn.find_free(after * self.size, 1)
            passed = (start // self.size - after) % total if count else total
            segment = self._at = (after + passed) % total
            self._looked += passed + 1
            if segment not in self.usage and not any(
                start // self.size == segment for start, *_rest in self._free
            ):
                self._note(segment)

    def _note(self, segment: int) -> None:
        lo, hi = self._vol.xn.data_area
        start, count = self._run(max(segment * self.size, lo), min((segment + 1) * self.size, hi))
        takes = count - 1 - (0 if segment // f.SLOTS in self.tables else self.run)
        if takes >= min(MIN_RUN, self.size // 2) - 1:
            self._free.append((start, count, takes))
            self._room += takes

    def _run(self, lo: int, hi: int) -> tuple[int, int]:
        """The longest run of free blocks in [lo, hi)."""
        if hi <= lo:
            return lo, 0
        find = self._vol.xn.find_free
        if find(lo, hi - lo) == (lo, hi - lo):
            return lo, hi - lo
        best, at = (lo, 0), lo
        while at < hi:
            start, count = find(at, 1)
            if not count or not at <= start < hi:
                break
            at = start
            while at < hi and find(at, 1) == (at, 1):
                at += 1
            if at - start > best[1]:
                best = start, at - start
        return best
