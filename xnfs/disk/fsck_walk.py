"""The walk of fsck: every block that can be reached from a root, by `owns` alone.

It marks blocks and counts pointers; it knows no format of any libFS. A pointer that can't be right
(outside the data area, to a destroyed block, to a block of another type, to one of a file system
whose root comes before, back to an ancestor) is *cut*: the bytes that its partition reads are
zeroed, because an all-zero partition owns nothing, and the block gets its stamp anew. What
`fsck.py` does with the marks, and the tables, is not here.

Before a pointer to a destroyed block is cut, one flipped bit is set right (`flipped.py`); what else
is destroyed a file system may know (`lost.py`). It is asked when all else is walked, so that what
nobody names is known.

A block that is whole but *stale*, older than the tables know, is believed last of all: it is kept,
but what it names that something else names as well is not its own any more, and is cut.

Guarantees: ends on any bytes (a block is entered once, claims that repeat are bounded), does not
recurse, keeps bits and not objects per block. What it can't judge (a type without a verified
`owns`) makes it `incomplete`: then nobody may free what is not marked.

Source: DESIGN section 4.6 of the founding design; e2fsck passes 1 and 2 (findings are data).
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from bitarray import bitarray

from xnfs.disk.blocktype import ZERO, BlockType
from xnfs.disk.device import BlockDevice
from xnfs.disk.flipped import unflip_untrusted
from xnfs.disk.layout import ROOTS_TYPE, STAMP, Geometry, Seed, check_stamp_untrusted, stamp_block
from xnfs.disk.lost import Lost, Orphan, Rebuild
from xnfs.disk.records import BLOCK, Extent
from xnfs.disk.tables import Tables
from xnfs.errors import CorruptionError, Refused, UnknownType

#: So many claims on blocks that had an owner already are believed of one block.
MAX_REPEATS = 1 << 16


@dataclass(frozen=True, slots=True)
class Finding:
    """Something wrong. `code` names the kind of damage (the same word in tests and images);
    `safe_to_preen`: mending it can lose nothing."""

    code: str
    block: int
    message: str
    safe_to_preen: bool = False
    repairable: bool = True


def stamped_as(seed: Seed, types: dict[int, BlockType], block: int, raw: bytearray) -> int:
    """The type in a valid stamp of these bytes; 0 if there is none."""
    for kind in types.values():
        if kind.stamp is not None and STAMP.unpack_from(raw, kind.stamp)[1] == kind.number:
            try:
                check_stamp_untrusted(seed, block, raw, kind.stamp, kind.number)
            except CorruptionError:
                continue
            return kind.number
    return 0


class Walk:
    """One pass over everything below the roots. Make a new one for each pass."""

    def __init__(
        self,
        device: BlockDevice,
        geometry: Geometry,
        seed: Seed,
        types: dict[int, BlockType],
        tables: Tables,
        report: Callable[[Finding], None],
        progress: Callable[[int], None],
        proven: bitarray,
        solid: bitarray,
        rebuild: Rebuild,
    ) -> None:
        self._device, self._g, self._seed, self._types = device, geometry, seed, types
        self._tables, self._report, self._progress = tables, report, progress
        self._rebuild = rebuild
        # What earlier passes have learned: blocks whose own stamp says that they are metadata, and
        # blocks of data that somebody else has as reserved only.
        self._proven, self._solid = proven, solid
        self.marked = _bits(geometry.blocks)
        self.counts: dict[int, int] = {}  # of blocks with more than one pointer
        #: block -> number in its stamp, where the tables don't know it or know a newer one
        self.versions: dict[int, int] = {}
        self.incomplete = False
        self.cuts = 0
        self._planes: dict[int, bitarray] = {}  # plain type -> its blocks
        self._meta = _bits(geometry.blocks)
        self._mine = _bits(geometry.blocks)  # blocks of the root at hand
        self._open = _bits(geometry.blocks)  # ancestors of the block at hand
        self._bad: set[int] = set()
        self._lost: list[tuple[Lost, CorruptionError]] = []
        self._root = 0  # of the blocks at hand
        self._visited = 0
        self._stale: list[tuple[int, BlockType, int]] = []  # to be followed when all else is done
        self._late = False
        # Pending pointers, five numbers each: first block, count, type, parent, partition. Count 0:
        # leave the block again.
        self._todo = array("Q")

    def run(self, catalogue: Sequence[int]) -> None:
        """Walk from the blocks of the root catalogue."""
        for root in catalogue:
            self._enter(root, self._types[ROOTS_TYPE], root, 0)
            self._drain()
        self._late = True
        while self._stale or self._lost:
            if self._stale:
                stale, kind, self._root = self._stale.pop(0)
                self._follow(stale, kind, self._read(stale))
            else:
                self._ask(*self._lost.pop(0))
            self._drain()

    def _drain(self) -> None:
        while self._todo:
            block, count, kind, parent, part = self._todo[-5:]
            del self._todo[-5:]
            if not count:
                self._open[block] = False
                continue
            if count > 1:
                self._push(block + 1, count - 1, kind, parent, part)
            self._pointer(block, self._types[kind], parent, part)

    def _push(self, block: int, count: int, kind: int, parent: int, part: int) -> None:
        self._todo.extend((block, count, kind, parent, part))

    # -- metadata

    def _pointer(self, block: int, kind: BlockType, parent: int, part: int) -> None:
        """A pointer to one stamped block."""
        if self._is_catalogue(parent):
            self._mine.setall(0)  # the blocks below one root are done before the next begins
            self._root = block
        if block in self._bad:
            self._cut(parent, part, "destroyed-block", f"names block {block}, which is destroyed")
        elif self._open[block]:
            self._cut(parent, part, "cycle", f"names block {block}, which it lies below")
        elif self._late and self.marked[block]:
            self._cut(parent, part, "stale-claim", f"names block {block}, which it has no more")
        elif self.marked[block] and not self._meta[block]:
            self._versus_plain(block, kind, parent, part)
        elif self.marked[block]:
            if not self._mine[block]:
                self._cut(parent, part, "two-roots", f"names block {block} of another file system")
            elif self._stamped_as(block) == kind.number:
                self.counts[block] = self.counts.get(block, 1) + 1
            else:
                self._cut(parent, part, "two-types", f"names block {block} as {kind.spec.name}")
        else:
            self._enter(block, kind, parent, part)

    def _is_catalogue(self, block: int) -> bool:
        return self._g.roots_start <= block < self._g.roots_start + self._g.roots_blocks

    def _versus_plain(self, block: int, kind: BlockType, parent: int, part: int) -> None:
        """Seen as plain data before. The block's own stamp says who is right."""
        if self._stamped_as(block) == kind.number:
            self._proven[block] = True
            self.cuts += 1  # the plain pointer is cut in the next pass
        else:
            self._cut(
                parent, part, "two-types", f"names the data block {block} as {kind.spec.name}"
            )

    def _stamped_as(self, block: int) -> int:
        return stamped_as(self._seed, self._types, block, self._read(block))

    def _enter(self, block: int, kind: BlockType, parent: int, part: int) -> None:
        raw = self._read(block)
        assert kind.stamp is not None  # plain blocks are claimed, not entered
        try:
            seq = check_stamp_untrusted(self._seed, block, raw, kind.stamp, kind.number)
        except CorruptionError as e:
            if not self._unflip(block, kind, raw):
                self._destroyed(block, kind, parent, part, e)
                return
            seq = STAMP.unpack_from(raw, kind.stamp)[2]
        self.marked[block] = self._meta[block] = self._mine[block] = True
        self._visited += 1
        if self._visited % 256 == 0:
            self._progress(self._visited)
        if self._is_stale(block, seq):
            self._stale.append((block, kind, self._root))
        else:
            self._follow(block, kind, raw)

    def _is_stale(self, block: int, seq: int) -> bool:
        lag = self._tables.versions.lag(block, seq)
        if self._tables.versions.is_damaged(block):
            self.versions[block] = seq
            return False
        if lag:
            self.versions[block] = seq
            text = f"of transaction {seq}, the newest version is of {seq + lag}"
            self._report(Finding("stale", block, text))
        return bool(lag)

    def _follow(self, block: int, kind: BlockType, raw: bytearray) -> None:
        """What a block of metadata owns, and what that owns."""
        self._open[block] = True
        self._push(block, 0, kind.number, 0, 0)
        repeats = 0
        for child in reversed(range(kind.nparts)):  # the first pointer on top: in order
            lo, hi = kind.ranges[child]
            if raw[lo:hi] != ZERO[lo:hi]:  # zeros own nothing: proved at installation
                repeats += self._partition(block, kind, raw, child, repeats)

    def _destroyed(
        self, block: int, kind: BlockType, parent: int, part: int, why: CorruptionError
    ) -> None:
        """A metadata block with a wrong stamp."""
        other = self._stamped_as(block)
        if other:
            name = self._types[other].spec.name
            text = f"names block {block} as {kind.spec.name}, it is a {name}"
            self._cut(parent, part, "two-types", text)
            return
        if self._is_catalogue(parent):
            # Cutting a root would lose a whole file system for one block.
            self.incomplete = True
            text = f"the root block of a file system is destroyed: {why}"
            self._report(Finding("root-destroyed", block, text, repairable=False))
            self.marked[block] = True
            return
        self._bad.add(block)
        lost = Lost(block, kind.spec.name, parent, part, self._root, self._bytes, self._orphans)
        self._lost.append((lost, why))

    # -- destroyed blocks

    def _unflip(self, block: int, kind: BlockType, raw: bytearray) -> bool:
        """Set one flipped bit right; whether that was all that was wrong."""
        assert kind.stamp is not None  # only stamped blocks are checked
        at = unflip_untrusted(self._seed, block, raw, kind.stamp)
        if at is None or STAMP.unpack_from(raw, kind.stamp)[1] != kind.number:
            return False
        text = f"a bit of byte {at} of this {kind.spec.name} is flipped"
        self._report(Finding("flipped-bit", block, text, safe_to_preen=True))
        self._device.write(block, [bytes(raw)])
        return True

    def _ask(self, lost: Lost, why: CorruptionError) -> None:
        """Take what the file system knows of a destroyed block, or cut the pointer to it."""
        kind = next(kind for kind in self._types.values() if kind.spec.name == lost.type)
        assert kind.stamp is not None  # a plain block can't be destroyed
        known = self._rebuild(lost)
        if known is None or not self._names_orphans(kind, known):
            text = f"names a destroyed {lost.type}: {why}"
            self._cut(lost.parent, lost.part, "destroyed-block", text)
            return
        self._report(Finding("rebuilt", lost.block, f"this {lost.type} is made anew: {why}"))
        raw = bytearray(known)
        versions = self._tables.versions
        seq = 0 if versions.is_damaged(lost.block) else versions.lag(lost.block, 0)
        stamp_block(self._seed, lost.block, raw, kind.stamp, kind.number, seq)
        self._device.write(lost.block, [bytes(raw)])
        self._bad.discard(lost.block)
        self._root = lost.root
        self._enter(lost.block, kind, lost.parent, lost.part)
        self.cuts += 1  # what it names comes in its turn in the next pass

    def _names_orphans(self, kind: BlockType, raw: bytes) -> bool:
        """Whether all that a block would own are orphans, as what they are."""
        if len(raw) != BLOCK:
            return False
        try:
            owned = [each for part in range(kind.nparts) for each in kind.owned(raw, part)]
        except (Refused, UnknownType):
            return False
        for number, start, count in owned:
            if number not in self._types or not self._g.in_data(start, count):
                return False
            name = self._types[number].spec.name
            if [each.type for each in self._orphans(start, start + count)] != [name] * count:
                return False
        return True

    def _bytes(self, block: int) -> bytes:
        return bytes(self._read(block))

    def _orphans(self, lo: int, hi: int) -> Iterator[Orphan]:
        """See Lost. An older version of what a block was is none."""
        for block in range(max(lo, self._g.data_start), min(hi, self._g.data_end)):
            if self.marked[block] or not self._tables.total(block):
                continue
            raw = self._read(block)
            kind = self._types.get(stamped_as(self._seed, self._types, block, raw))
            if kind is None or kind.stamp is None:
                continue
            versions, seq = self._tables.versions, STAMP.unpack_from(raw, kind.stamp)[2]
            if versions.is_damaged(block) or not versions.lag(block, seq):
                yield Orphan(block, kind.spec.name, bytes(raw))

    def _partition(
        self, block: int, kind: BlockType, raw: bytearray, part: int, repeats: int
    ) -> int:
        """Follow what one partition owns. Returns how many claims were repeats."""
        try:
            extents = kind.owned(raw, part)
        except UnknownType as e:
            self.incomplete = True
            self._report(Finding("type-unusable", block, str(e), repairable=False))
            return 0
        except Refused as e:
            self._cut(block, part, "pointer", str(e))
            return 0
        for _number, start, count in extents:
            if not self._g.in_data(start, count):
                text = f"partition {part} names blocks {start}+{count}, outside the data area"
                self._cut(block, part, "pointer", text)
                return 0
        again = sum(self.marked.count(1, s, s + n) for _, s, n in extents)
        if repeats + again > MAX_REPEATS:
            self._cut(block, part, "pointer", f"partition {part} repeats too many claims")
            return 0
        for extent in extents:
            self._extent(block, part, extent)
        return again

    def _extent(self, block: int, part: int, extent: Extent) -> None:
        number, start, count = extent
        kind = self._types.get(number)
        if kind is None:
            # Installed, but its code does not verify any more: its blocks are untouchable.
            self.incomplete = True
            self.marked[start : start + count] = True
            text = f"names {count} blocks at {start} of type {number}, which is unusable"
            self._report(Finding("type-unusable", block, text, repairable=False))
        elif kind.stamp is None:
            self._claim(start, count, kind, block, part)
        else:
            self._push(start, count, number, block, part)

    # -- plain data

    def _claim(self, start: int, count: int, kind: BlockType, parent: int, part: int) -> None:
        """A pointer to a run of plain blocks."""
        plane = self._planes.setdefault(kind.number, _bits(self._g.blocks))
        end = start + count
        if self._late and (taken := self.marked.find(1, start, end)) >= 0:
            self._cut(parent, part, "stale-claim", f"names block {taken}, which it has no more")
            return
        wrong = self._proven.find(1, start, end)
        if wrong < 0 and kind.unreadable:
            wrong = self._solid.find(1, start, end)
        if wrong < 0:
            wrong = self._contested(start, end, kind, plane)
        if wrong >= 0:
            name = kind.spec.name
            self._cut(parent, part, "two-types", f"names block {wrong}, of another type, as {name}")
            return
        foreign = (plane[start:end] & ~self._mine[start:end]).find(1)
        if foreign >= 0:
            text = f"names block {start + foreign} of another file system"
            self._cut(parent, part, "two-roots", text)
            return
        if plane.find(1, start, end) >= 0:
            for block in range(start, end):
                if plane[block]:
                    self.counts[block] = self.counts.get(block, 1) + 1
        self.marked[start:end] = True
        self._mine[start:end] = True
        plane[start:end] = True

    def _contested(self, start: int, end: int, kind: BlockType, plane: bitarray) -> int:
        """The first block that is another type's already; -1 if there is none. Reserved blocks hold
        nothing, so that data win: the other pointer is cut in the next pass."""
        others = self.marked[start:end] & ~plane[start:end]
        if kind.unreadable or not others.any():
            return start + others.find(1) if others.any() else -1
        for number, other in self._planes.items():
            if self._types[number].unreadable:
                reserved = others & other[start:end]
                self._solid[start:end] |= reserved
                self.cuts += reserved.any()
                others &= ~reserved
        return start + others.find(1) if others.any() else -1

    # -- mending

    def _cut(self, parent: int, part: int, code: str, message: str) -> None:
        """Report, and zero what the partition reads."""
        self._report(Finding(code, parent, message))
        raw = self._read(parent)
        number = self._stamped_as(parent)
        kind = self._types[number]
        assert kind.stamp is not None  # an owner's type has one
        seq = STAMP.unpack_from(raw, kind.stamp)[2]
        lo, hi = kind.ranges[part]
        raw[lo:hi] = bytes(hi - lo)
        stamp_block(self._seed, parent, raw, kind.stamp, number, seq)
        self._device.write(parent, [bytes(raw)])
        self.cuts += 1

    def _read(self, block: int) -> bytearray:
        raw = bytearray(BLOCK)
        self._device.read(block, [memoryview(raw)])
        return raw


def _bits(count: int) -> bitarray:
    return bitarray(count, endian="little")  # zeros
