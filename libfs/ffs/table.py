"""Tables of a hashed directory: the 64 pointers in the directory's block, or the 256 of an index.

A table covers hashes from `lo` on, `1 << shift` for each slot. `cover[s]` is the last slot in
use at or below s, so that looking up costs the same however sparse the table is. Which leaf gets
which hashes: `directory`."""

from __future__ import annotations

from libfs.ffs import format as f
from xnfs import CorruptionError


class Table:
    """One table, decoded, that remembers which slots differ from the block."""

    __slots__ = ("at", "block", "cover", "dirty", "lo", "pointers", "shift")

    def __init__(self, block: int, at: int, lo: int, shift: int, pointers: list[int]) -> None:
        self.block = block
        self.at = at
        self.lo = lo
        self.shift = shift
        self.pointers = pointers
        self.cover: list[int] = []
        self.dirty: set[int] = set()
        self._recover()

    def _recover(self) -> None:
        last, cover = -1, []
        for slot, pointer in enumerate(self.pointers):
            if pointer:
                last = slot
            cover.append(last)
        self.cover = cover

    def slot_of(self, h: int) -> int:
        """The slot of a hash that lies in this table."""
        return h >> self.shift & len(self.pointers) - 1

    def lo_of(self, slot: int) -> int:
        """The lowest hash of a slot."""
        return self.lo + (slot << self.shift)

    def kind(self, slot: int) -> int:
        """Leaf or index."""
        return self.pointers[slot] >> f.KIND_SHIFT

    def block_at(self, slot: int) -> int:
        """The block that a slot in use names."""
        return self.pointers[slot] & f.BLOCK_MASK

    def gap_end(self, h: int) -> int:
        """The lowest hash of the next slot in use after that of `h`, or the end of the table."""
        slot, pointers = self.slot_of(h) + 1, self.pointers
        while slot < len(pointers) and not pointers[slot]:
            slot += 1
        return self.lo_of(slot)

    def set(self, slot: int, pointer: int) -> None:
        """Change a slot; 0 frees it."""
        self.pointers[slot] = pointer
        self.dirty.add(slot)
        self._recover()

    def used(self) -> list[int]:
        """The slots in use."""
        return [slot for slot, pointer in enumerate(self.pointers) if pointer]

    def diffs(self) -> list[tuple[int, bytes]]:
        """What changed since the last call."""
        out = [(self.at + 8 * s, f.POINTER.pack(self.pointers[s])) for s in self.dirty]
        self.dirty.clear()
        return out


def new_index(block: int, lo: int, shift: int) -> Table:
    """An empty index."""
    return Table(block, f.INDEX_TABLE_AT, lo, shift, [0] * f.INDEX_TABLE_SLOTS)


def index_head(table: Table, ino: int) -> tuple[int, bytes]:
    """The diff that gives a new index its head."""
    return (f.LEAF_AT, f.INDEX_HEAD.pack(ino, table.lo, level_of(table.shift)))


def level_of(shift: int) -> int:
    """The first bit of the hash that a table with this shift decides, of eight."""
    return 56 - shift


def decode_dir_untrusted(block: int, raw: bytes) -> Table:
    """The table in a directory's own block. Raises CorruptionError."""
    pointers = _pointers_untrusted(block, raw, f.DIR_TABLE_AT, f.DIR_TABLE_SLOTS)
    return Table(block, f.DIR_TABLE_AT, 0, f.DIR_TABLE_SHIFT, pointers)


def decode_index_untrusted(block: int, raw: bytes, ino: int, lo: int, above: int) -> Table:
    """The index of directory `ino` that begins at hash `lo`, below a table with shift `above`.

    Raises CorruptionError.
    """
    got_ino, got_lo, got_level = f.INDEX_HEAD.unpack_from(raw, f.LEAF_AT)
    shift = above - 8
    for field, got, want in (
        ("directory", got_ino, ino),
        ("lowest hash", got_lo, lo),
        ("level", got_level, level_of(shift)),
    ):
        if got != want or shift < 0:
            raise CorruptionError(block, field, got, want)
    pointers = _pointers_untrusted(block, raw, f.INDEX_TABLE_AT, f.INDEX_TABLE_SLOTS)
    return Table(block, f.INDEX_TABLE_AT, lo, shift, pointers)


def _pointers_untrusted(block: int, raw: bytes, at: int, count: int) -> list[int]:
    pointers = [p for (p,) in f.POINTER.iter_unpack(raw[at : at + 8 * count])]
    for slot, p in enumerate(pointers):
        if p and p >> f.KIND_SHIFT not in (f.P_LEAF, f.P_INDEX):
            raise CorruptionError(block, f"pointer in slot {slot}", hex(p), "a leaf or an index")
    return pointers
