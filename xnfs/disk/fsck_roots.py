"""The root catalogue in fsck: a slot is believed as far as the block that it names bears it out.

A slot that can't be right is pointed back at its file system, if exactly one lost root block of its
type lies on the disk; else it is cleared. When a block of the catalogue was destroyed, so that
slots may be missing, every lost root block gets a slot again. Lost root blocks are those in use, of
a type that no type can own, which no slot names. To find them all blocks in use are read; that is
done only when something is wrong here.

Guarantees: no slot is cleared because the type of its block is unknown: its record may be what is
damaged. The walk (`fsck_walk.py`) then says so, and nothing is freed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from xnfs.disk.device import BlockDevice
from xnfs.disk.entries import slot_offset
from xnfs.disk.fsck_walk import Finding, stamped_as
from xnfs.disk.layout import (
    FIRST_TYPE,
    ROOT_SLOT,
    ROOTS_TYPE,
    SLOT_SIZE,
    SLOTS,
    STAMP,
    Geometry,
    Seed,
    check_stamp_untrusted,
    stamp_block,
    text_untrusted,
)
from xnfs.disk.records import BLOCK
from xnfs.disk.tables import Tables
from xnfs.disk.typetable import TypeTable
from xnfs.errors import CorruptionError


@dataclass
class _Slot:
    """One slot in use, and where it lies."""

    home: int
    index: int
    name: bytes
    first: int
    number: int
    flags: int
    created: int

    def put(self, raw: bytearray) -> None:
        """Write it back."""
        fields = (self.name, self.first, self.number, self.flags, self.created)
        ROOT_SLOT.pack_into(raw, slot_offset(self.index), *fields)


class RootsCheck:
    """One look at the root catalogue."""

    def __init__(
        self,
        device: BlockDevice,
        geometry: Geometry,
        seed: Seed,
        table: TypeTable,
        tables: Tables,
        report: Callable[[Finding], None],
    ) -> None:
        self._device, self._g, self._seed = device, geometry, seed
        self._tables, self._report = tables, report
        self._types = {kind.number: kind for kind in table}
        self._blocks: dict[int, bytearray] = {}
        self._slots: list[_Slot] = []
        self._destroyed: set[int] = set()  # blocks of the catalogue with a wrong checksum
        self._found: dict[int, int] | None = None  # lost root block -> its type
        # Types are missing, so lost roots can't be told: a destroyed block stays as it is.
        self._blind = bool(table.damaged or table.broken)

    def run(self) -> None:
        """Check all slots, and mend what is wrong; durable on return."""
        self._read_untrusted()
        wrong = set() if self._blind else set(self._destroyed)
        for slot in self._slots:
            if text := self._judge(slot):
                self._report(Finding("root-slot", slot.home, text))
                wrong.add(slot.home)
                self._put(slot)
        if wrong & self._destroyed:
            self._restore()
        for block in sorted(wrong):
            raw = self._blocks[block]
            broken = block in self._destroyed
            seq = self._tables.versions.lag(block, 0) if broken else STAMP.unpack_from(raw)[2]
            stamp_block(self._seed, block, raw, 0, ROOTS_TYPE, seq)
            self._device.write(block, [bytes(raw)])
        self._device.flush()

    def _read_untrusted(self) -> None:
        """Read the catalogue, slots and all."""
        for block in range(self._g.roots_start, self._g.data_start):
            raw = self._blocks[block] = self._read(block)
            try:
                check_stamp_untrusted(self._seed, block, raw, 0, ROOTS_TYPE)
            except CorruptionError as e:
                mend = not self._blind
                self._report(Finding("roots-block", block, str(e), repairable=mend))
                self._destroyed.add(block)
                if not mend:
                    continue
            for index in range(SLOTS):
                fields = ROOT_SLOT.unpack_from(raw, slot_offset(index))
                if fields[1]:
                    self._slots.append(_Slot(block, index, *fields))

    def _read(self, block: int) -> bytearray:
        raw = bytearray(BLOCK)
        self._device.read(block, [memoryview(raw)])
        return raw

    def _put(self, slot: _Slot) -> None:
        raw = self._blocks[slot.home]
        if slot.first:
            slot.put(raw)
        else:
            at = slot_offset(slot.index)
            raw[at : at + SLOT_SIZE] = bytes(SLOT_SIZE)

    # -- one slot

    def _judge(self, slot: _Slot) -> str:
        """What is wrong with a slot, mended in `slot`; empty if nothing is."""
        text = self._judge_block(slot)
        if slot.first and not text_untrusted(slot.name):
            slot.name = _recovered(slot.first)
            text = text or f"the name in root slot {slot.index} is unreadable"
        return text

    def _judge_block(self, slot: _Slot) -> str:
        kind = self._kind(slot.first)
        if kind == slot.number:
            return ""
        # The block is destroyed, or the record of its type: with a sound slot that is all.
        opaque = not kind and self._g.in_data(slot.first) and self._may_exist(slot.number)
        if opaque and slot.home not in self._destroyed:
            return ""
        text = f"root slot {slot.index} names block {slot.first} as type {slot.number}"
        lost = self._lost_of(slot.number)
        if lost is not None:
            slot.first = lost
            return f"{text}: it is block {lost}"
        if opaque:
            return ""
        tops = self._tops()
        if kind in tops or (kind and slot.number not in tops):
            slot.number = kind
            return f"{text}: it is of type {kind}"
        slot.first = 0
        return f"{text}: no file system"

    def _kind(self, block: int) -> int:
        if not self._g.in_data(block):
            return 0
        return stamped_as(self._seed, self._types, block, self._read(block))

    def _may_exist(self, number: int) -> bool:
        """True unless no type of that number was ever installed, as far as can be told."""
        return FIRST_TYPE <= number < FIRST_TYPE + self._g.types_blocks

    # -- lost roots

    def _tops(self) -> set[int]:
        """The types that no type can own: their blocks can only be roots."""
        owned = {ref for kind in self._types.values() for ref in kind.spec.refs}
        return {
            number
            for number, kind in self._types.items()
            if number != ROOTS_TYPE and kind.stamp is not None and kind.spec.name not in owned
        }

    def _lost(self) -> dict[int, int]:
        """Root blocks on the disk that no slot names."""
        if self._found is None:
            self._found = {}
            used = self._tables.snapshot()
            named, tops = {slot.first for slot in self._slots}, self._tops()
            block = used.find(1, self._g.data_start, self._g.data_end)
            while block >= 0:
                if block not in named and (kind := self._kind(block)) in tops:
                    self._found[block] = kind
                block = used.find(1, block + 1, self._g.data_end)
        return self._found

    def _lost_of(self, number: int) -> int | None:
        """The one lost root block of a type."""
        found = [block for block, kind in self._lost().items() if kind == number]
        if len(found) != 1:
            return None
        del self._lost()[found[0]]
        return found[0]

    def _restore(self) -> None:
        """Give what is still lost a slot, as far as there are any."""
        taken = {(slot.home, slot.index) for slot in self._slots if slot.first}
        free = (
            (home, index)
            for home in self._blocks
            for index in range(SLOTS)
            if (home, index) not in taken
        )
        for (first, kind), (home, index) in zip(self._lost_items(), free, strict=False):
            slot = _Slot(home, index, _recovered(first), first, kind, 0, 0)
            self._report(Finding("root-lost", first, f"no slot names this root of type {kind}"))
            slot.put(self._blocks[home])

    def _lost_items(self) -> Iterable[tuple[int, int]]:
        return sorted(self._lost().items())


def _recovered(block: int) -> bytes:
    return b"recovered-%d" % block
