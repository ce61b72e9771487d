"""The end of the log: blocks get their places in order, and XN is told in as few changes as can be.

`append` gives a block its address at once; `push` makes the blocks so far real, in one change of
XN: they leave the unwritten rest of their segment and enter its slots. The last `push` of a flush
writes its number into the summary (`done`); blocks of a flush whose number is not there never count
(`rollforward`). So a flush may take many changes, and others may commit between them.

Relies on `Segments` for what is free. Guarantees: a segment's blocks are taken in ascending order;
every one has its slot in the change that makes it real; nothing that was written is written again.

Source: Rosenblum and Ousterhout 1992, section 3.3.
"""

from __future__ import annotations

import errno
import zlib
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from libfs.lfs import format as f
from libfs.lfs.segments import Usage
from libfs.posix.interface import FsError
from xnfs import DeviceError, NoFrames

if TYPE_CHECKING:
    from libfs.lfs.volume import Volume


def seal(seed: int, block: int, kind: int, flush: int, body: bytes) -> bytes:
    """A whole block: head, body from behind it, zeros; with its checksum."""
    raw = bytearray(f.BLOCK)
    f.HEAD.pack_into(raw, 0, 0, kind, flush)
    raw[f.HEAD_SIZE : f.HEAD_SIZE + len(body)] = body
    f.CRC.pack_into(raw, 0, checksum(seed, block, raw))
    return bytes(raw)


def checksum(seed: int, block: int, raw: bytes | bytearray) -> int:
    """Of a block behind its checksum, at its place. `seed`: the file system's."""
    at = zlib.crc32(block.to_bytes(8, "little"), seed)
    return zlib.crc32(memoryview(raw)[f.CRC.size :], at)


class Log:
    """Where the next block goes."""

    def __init__(self, vol: Volume) -> None:
        self._vol = vol
        self.segment = -1
        self.serial = 0
        self.summary = 0
        self.next = 0  # slot of the next block
        self.end = 0  # slots of this segment
        self.flush = 0  # number of the newest flush, or of the one under way
        self.first = 1  # flush of this mount, or of an earlier one that ended well
        #: blocks of metadata that changed and may not be durable -> number of the flush
        self.anchors: dict[int, int] = {}
        self._reset()

    def _reset(self) -> None:
        self._alloc: list[tuple[int, int, int]] = []
        self._edits: dict[int, list[tuple[int, bytes]]] = {}
        self._inits: dict[int, list[tuple[int, bytes]]] = {}
        self._slots: dict[int, tuple[int, int, int, int, int]] = {}
        self._blocks = 0

    # -- where it stands

    @property
    def rest(self) -> int:
        """Blocks that are left in the segment."""
        return self.end - self.next

    def begin(self) -> None:
        """A new flush."""
        self.flush += 1

    def resume(self, segment: int, serial: int, summary: int, slot: int, end: int) -> None:
        """Go on where an earlier mount stopped."""
        self.segment, self.serial, self.summary = segment, serial, summary
        self.next, self.end = slot, end

    # -- writing

    def append(self, kind: int, ino: int, at: int, body: bytes) -> int:
        """The address of a block, which gets its head.

        Raises: ENOSPC, with the log as it was.
        """
        block = self._place()
        self._inits[block] = [(0, seal(self._vol.seed, block, kind, self.flush, body))]
        self._take(kind, ino, at, 1)
        return f.address(block, self._vol.epoch)

    def append_data(self, ino: int, at: int, blocks: Sequence[bytes | bytearray]) -> range:
        """The addresses of blocks of a file, which begin with its block `at` and go as they are:
        those of as many as find a place together.

        Raises: ENOSPC, with the log as it was.
        """
        first = self._place()
        count = min(len(blocks), self.end - self.next)
        self._inits[first] = [(0, b"".join(blocks[:count]))]
        self._take(f.P_DATA, ino, at, count)
        address = f.address(first, self._vol.epoch)
        return range(address, address + count)

    def _place(self) -> int:
        """The block that is next, in a new segment if this one is full."""
        if self.next >= self.end:
            found = self._vol.segments.find()
            if found is None:
                raise FsError(errno.ENOSPC)
            self.push()
            self._open(*found)
        return self.summary + 1 + self.next

    def _take(self, kind: int, ino: int, at: int, count: int) -> None:
        """The next blocks are of a kind, and have one slot."""
        self._alloc.append((self._vol.type[kind], self.summary + 1 + self.next, count))
        self._slots[self.next] = (kind, count, ino, at, self.flush)
        self.next += count
        self._blocks += count

    def _open(self, start: int, count: int) -> None:
        """Take a run of free blocks as the next segment: its summary, and the rest unwritten."""
        vol, segments = self._vol, self._vol.segments
        segment = start // segments.size
        number = segment // f.SLOTS
        new_table = number not in segments.tables
        if new_table:
            self._make_table(number // segments.run, start)
            start, count = start + segments.run, count - segments.run
        if self.summary:
            after = f.SUMMARY_NEXT.pack(segment + 1)
            self._edits.setdefault(self.summary, []).append((f.SUMMARY_NEXT_AT, after))
        segments.add(segment, Usage(start, count))
        pointer = f.POINTER.pack(f.pointer(f.P_SUMMARY, start))
        table, at = segments.entry(segment)
        diffs = self._inits if table in self._inits else self._edits
        diffs.setdefault(table, []).append((at, pointer + f.USAGE.pack(0, count, 0)))
        rest = f.pointer(f.P_UNWRITTEN, start + 1, count - 1)
        self._inits[start] = [
            (f.SUMMARY_AT, f.SUMMARY_HEAD.pack(self.serial + 1, segment, 0, 0, self.first)),
            (f.REST_AT, f.POINTER.pack(rest)),
        ]
        self._alloc.append((vol.summary_type, start, 1))
        self._alloc.append((vol.type[f.P_UNWRITTEN], start + 1, count - 1))
        self._change()
        if new_table:
            for block in range(start - segments.run, start):
                vol.xn.pin(vol.who, block)
        vol.xn.pin(vol.who, start)
        if self.summary:
            vol.xn.unpin(vol.who, self.summary)
        self.resume(segment, self.serial + 1, start, 0, count - 1)

    def _make_table(self, part: int, first: int) -> None:
        """What one more pointer of the super block owns of the table, from block `first` on."""
        vol, run = self._vol, self._vol.segments.run
        pointer = f.POINTER.pack(f.pointer(f.P_SEGMENTS, first, run))
        self._edits[vol.super] = [(f.SUPER_TABLE + part * f.POINTER.size, pointer)]
        self._alloc.append((vol.segments_type, first, run))
        for number, block in enumerate(range(first, first + run), part * run):
            self._inits[block] = []
            vol.segments.tables[number] = block

    def push(
        self, *, done: bool = False, more: dict[int, list[tuple[int, bytes]]] | None = None
    ) -> None:
        """Make the blocks so far real. `done`: the flush is whole with this; `more`: diffs of
        other blocks that go with it."""
        if not self._blocks and not done and not more:
            return
        edits = self._edits.setdefault(self.summary, [])
        for slot, (kind, count, ino, at, flush) in self._slots.items():
            pointer = f.pointer(kind, self.summary + 1 + slot, count)
            edits.append((f.SLOTS_AT + slot * f.SLOT_SIZE, f.SLOT.pack(pointer, ino, at, flush)))
        if self._blocks:
            left = self.end - self.next
            rest = f.pointer(f.P_UNWRITTEN, self.summary + 1 + self.next, left) if left else 0
            edits.append((f.REST_AT, f.POINTER.pack(rest)))
        if done:
            edits.append((f.SUMMARY_DONE_AT, f.POINTER.pack(self.flush)))
        for block, diffs in (more or {}).items():
            self._edits.setdefault(block, []).extend(diffs)
        self._vol.segments.forget(self.summary)
        self._change()

    def _change(self) -> None:
        """One change of XN with all that was gathered."""
        vol = self._vol
        edits, inits = list(self._edits.items()), self._inits
        alloc, count = self._alloc, self._blocks
        first = self.summary + 1 + self.next - count
        free = [(vol.type[f.P_UNWRITTEN], first, count)] if count else []
        for block in self._edits:
            self.anchors[block] = self.flush
        self._reset()
        for turn in range(3):
            try:
                vol.xn.change(vol.who, edits, alloc=alloc, free=free, inits=inits)
                break
            except NoFrames:
                if turn == 2:
                    raise
                vol.cache.make_room(2 * max(count, len(inits)))
        if count:
            with suppress(DeviceError):  # what could not be written behind stays dirty
                vol.cache.wrote(first, count)
        else:
            for block in inits:
                vol.cache.touch(block)
