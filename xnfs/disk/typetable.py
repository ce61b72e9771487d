"""The type catalogue: installed types, on the disk and proved.

A record never changes and is durable before its number can be used. Types are verified again
whenever they are loaded; one that does not verify any more (damage, or a stricter verifier) keeps
its number but can't be used: its blocks are then untouchable, never guessed at. A record that was
cut while it was installed is passed over.

A type's number is FIRST_TYPE + the place of its record in the catalogue, so that no number is ever
used twice; nor is one whose record was wiped, if a later record, the superblock (`used`) or a root
(`reserve`) tells of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Final

from xnfs.disk.blocktype import BlockType
from xnfs.disk.device import BlockDevice
from xnfs.disk.entries import (
    decode_spec_untrusted,
    decode_type_block_untrusted,
    encode_type_record,
    slot_offset,
)
from xnfs.disk.layout import (
    FIRST_TYPE,
    MAX_TYPE_PARTS,
    ROOT_SLOT,
    ROOTS_TYPE,
    SLOT_SIZE,
    SLOTS,
    STAMP_SIZE,
    Geometry,
    Seed,
)
from xnfs.disk.records import BLOCK, Extent, TypeSpec
from xnfs.errors import CorruptionError, NoSpace, Refused, UnknownType, XnError


class RootsType(BlockType):
    """The kernel's own type: a block of the root catalogue. Slot i is partition i, and may name any
    type.
    """

    __slots__ = ()

    def __init__(self) -> None:
        # `owns` is given below: in the language of UDFs a type can't name all others.
        super().__init__(ROOTS_TYPE, TypeSpec("xn.roots", stamp=0), lambda _name: None)
        self.ranges = [(slot_offset(i), slot_offset(i) + SLOT_SIZE) for i in range(SLOTS)]
        self.nparts = SLOTS
        self._hulls = [(self.ranges[0][0], self.ranges[-1][1])]

    def parts_of(self, offset: int, length: int) -> Sequence[int]:
        if offset < 16 or length <= 0 or offset + length > BLOCK:
            raise Refused("outside the slots")
        return [i for i, (lo, hi) in enumerate(self.ranges) if lo < offset + length and offset < hi]

    def owned(self, block: bytes | bytearray | memoryview, part: int) -> list[Extent]:
        _name, first, kind, _flags, _created = ROOT_SLOT.unpack_from(block, slot_offset(part))
        return [(kind, first, 1)] if first else []


_ROOTS: Final = RootsType()


@dataclass(frozen=True, slots=True)
class _Catalogue:
    """The area of some image, and what it says: `specs` by number; `next`: the first block never
    written."""

    uuid: bytes
    start: int
    area: bytearray
    next: int
    specs: list[tuple[int, TypeSpec]]
    damaged: list[CorruptionError]


class TypeTable:
    """All installed types of one image."""

    #: who opens many images in a row with the same types decodes them once
    _latest: ClassVar[_Catalogue | None] = None

    def __init__(self, device: BlockDevice, geometry: Geometry, seed: Seed, used: int = 0) -> None:
        """Read the catalogue. `used`: so many of its blocks were, whatever became of them."""
        self._device = device
        self._seed = seed
        self._start = geometry.types_start
        self._blocks = geometry.types_blocks
        self._next = 0  # first catalogue block never written
        self._types: dict[int, BlockType] = {ROOTS_TYPE: _ROOTS}
        self._names: dict[str, int] = {}
        self._stamps: dict[int, int] = {ROOTS_TYPE: 0}
        #: type number -> why it can't be used
        self.broken: dict[int, str] = {}
        #: catalogue blocks that do not check
        self.damaged: list[CorruptionError] = []
        self._load()
        self._next = max(self._next, used)

    @property
    def used(self) -> int:
        """How many blocks of the catalogue have been taken."""
        return self._next

    def get(self, number: int) -> BlockType:
        """The type of that number. Raises UnknownType, also if it does not verify any more."""
        kind = self._types.get(number)
        if kind is None:
            why = self.broken.get(number)
            raise UnknownType(
                f"type {number} can't be used: {why}" if why else f"no type {number} is installed"
            )
        return kind

    def number(self, name: str) -> int | None:
        """The number of a type, if installed."""
        return self._names.get(name)

    def __iter__(self) -> Iterator[BlockType]:
        return iter(list(self._types.values()))

    def stamps(self) -> dict[int, int]:
        """Type number -> offset of the stamp, of the types that have one, broken ones included."""
        return dict(self._stamps)

    def install(self, spec: TypeSpec) -> int:
        """Prove a type sound and record it. Durable on return. The same spec again gives the same
        number.

        Raises Refused (why), NoSpace, DeviceError.
        """
        number = self._names.get(spec.name)
        if number is not None:
            kind = self._types.get(number)
            if kind is not None and kind.spec == spec:
                return number
            raise Refused(f"type {spec.name} is installed already, with other contents")
        number = FIRST_TYPE + self._next
        kind = BlockType(number, spec, self.number)
        at = self._start + self._next
        blocks = encode_type_record(self._seed, at, number, spec)
        if len(blocks) > MAX_TYPE_PARTS or self._next + len(blocks) > self._blocks:
            raise NoSpace(f"the type catalogue has no room for {spec.name}")
        self._device.write(at, blocks)
        self._device.flush()
        # Commit point: the type exists.
        self._next += len(blocks)
        self._add(kind)
        return number

    def reserve(self, numbers: Iterable[int]) -> None:
        """These numbers are in use, whatever became of their records: none is given out again."""
        taken = (number - FIRST_TYPE + 1 for number in numbers)
        self._next = max([self._next, *(n for n in taken if n <= self._blocks)])

    def _add(self, kind: BlockType) -> None:
        self._types[kind.number] = kind
        self._names[kind.spec.name] = kind.number
        if kind.stamp is not None:
            self._stamps[kind.number] = kind.stamp

    def _load(self) -> None:
        area = bytearray(self._blocks * BLOCK)
        self._device.read(self._start, [memoryview(area)])
        found = TypeTable._latest
        if found is None or (found.uuid, found.start, found.area) != (
            self._seed.uuid, self._start, area
        ):  # fmt: skip
            found = TypeTable._latest = _catalogue_untrusted(self._seed, self._start, area)
        self._next = found.next
        self.damaged += found.damaged
        for number, spec in found.specs:
            self._add_untrusted(number, spec)

    def _add_untrusted(self, number: int, spec: TypeSpec) -> None:
        if spec.stamp is not None and spec.stamp <= BLOCK - STAMP_SIZE:
            self._stamps[number] = spec.stamp
        if spec.name in self._names:
            self.broken[number] = f"a second type named {spec.name}"
            return
        self._names[spec.name] = number
        try:
            self._types[number] = BlockType(number, spec, self.number)
        except XnError as e:
            self.broken[number] = str(e)


def _catalogue_untrusted(seed: Seed, start: int, area: bytearray) -> _Catalogue:
    found = _Catalogue(seed.uuid, start, area, 0, [], [])
    end, first = 0, 0
    pieces: list[bytes] = []
    for i in range(len(area) // BLOCK):
        raw = memoryview(area)[i * BLOCK : (i + 1) * BLOCK]
        try:
            piece = decode_type_block_untrusted(seed, start + i, raw)
        except CorruptionError as e:
            found.damaged.append(e)
            end, pieces = i + 1, []
            continue
        if piece is None:
            continue
        end = i + 1
        if piece.part == 0:
            first, pieces = i, []
        if piece.part != len(pieces) or piece.number != FIRST_TYPE + first:
            pieces = []  # the rest of a record that was cut
            continue
        pieces.append(piece.payload)
        if len(pieces) == piece.parts:
            try:
                spec = decode_spec_untrusted(start + first, b"".join(pieces))
                found.specs.append((FIRST_TYPE + first, spec))
            except CorruptionError as e:
                found.damaged.append(e)
            pieces = []
    return replace(found, next=end)
