"""Block types at run time: what a type's downloaded code says about a block, checked.

A `BlockType` is built from an installed `TypeSpec`. Building it *is* the installation check: it
proves, with the sandbox's verifier, that `owns` ends, stays inside the block, reads for each
partition only that partition's bytes, and emits no block for zeros; that partitions, raw range and
stamp do not overlap. What can't be proved is refused (`Refused`), saying which rule.

It does not decide whether an emitted extent may be owned: that is `change.py`. Where the catalogue
lies on disk: `catalogue.py`.

Source: Kaashoek et al. 1997, section 4.2 (UDFs: deterministic, read sets).
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import NamedTuple

from xnfs.disk.records import BLOCK, T_UNREADABLE, Extent, TypeSpec
from xnfs.errors import Refused, UnknownType
from xnfs.sandbox import Buffer, Int, Ints, Program, Signature, VerifyError, verify

ZERO = bytes(BLOCK)
STAMP = 16
MAX_PARTS = 1024
MAX_GROUPS = 64
MAX_EMITS = 4
#: Answers of `parts_of` remembered by each type, some 200 bytes each.
MAX_KNOWN = 2048
MAX_REFS = 64
MAX_GROUP_IDS = 64  # supplementary groups shown to an acl

OWNS_BUDGET = 400
ACL_BUDGET = 60_000
SIZE_BUDGET = 2_000

# What a byte of a block belongs to; a partition's number is stored as itself + FIRST_PART.
PLAIN, RAW, KERNEL, FIRST_PART = 0, 1, 2, 3

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")

ACL_SIGNATURE = Signature(
    "acl",
    (
        Int("op", 0, 3),
        Int("mask", 0, 7),
        Buffer("old", BLOCK),
        Buffer("new", BLOCK),
        Buffer("wit", BLOCK),
        Int("self", 0, 2**56 - 1),
        Int("witno", 0, 2**56 - 1),
        Int("uid", 0, 2**32 - 1),
        Int("gid", 0, 2**32 - 1),
        Ints("groups", MAX_GROUP_IDS),
        Int("now", 0, 2**63 - 1),
    ),
    returns=(0, 133),
)
SIZE_SIGNATURE = Signature("size", (Buffer("meta", BLOCK),), returns=(0, BLOCK))


def owns_signature(parts: int) -> Signature:
    """Of `owns(meta, part)` for a type with that many partitions; emits (ref, start, count)."""
    params = (Buffer("meta", BLOCK), Int("part", 0, parts - 1))
    return Signature("owns", params, emits=3, max_emits=MAX_EMITS)


class BlockType:
    """One installed type. `owned` and `parts_of` are the hot paths; the rest is for tools."""

    __slots__ = (
        "_hulls",
        "_known",
        "_numbers",
        "_owns",
        "_part_map",
        "_resolve",
        "acl",
        "nparts",
        "number",
        "ranges",
        "size",
        "spec",
        "stamp",
        "unreadable",
    )

    def __init__(self, number: int, spec: TypeSpec, resolve: Callable[[str], int | None]) -> None:
        self.number = number
        self.spec = spec
        self.stamp = spec.stamp
        self.unreadable = bool(spec.flags & T_UNREADABLE)
        self._resolve = resolve
        self._numbers: list[int | None] = [None] * len(spec.refs)
        self._known: dict[tuple[int, int], tuple[int, ...]] = {}
        proof = _proof(spec)
        self.ranges, self._part_map, self._hulls = proof.ranges, proof.part_map, proof.hulls
        self.nparts = len(proof.ranges)
        self._owns, self.acl, self.size = proof.owns, proof.acl, proof.size

    def parts_of(self, offset: int, length: int) -> Sequence[int]:
        """The partitions that a write of these bytes touches. Refused: outside, or the stamp."""
        known = self._known.get((offset, length))
        if known is None:
            known = self._parts_of(offset, length)
            if len(self._known) >= MAX_KNOWN:
                self._known.clear()
            self._known[offset, length] = known
        return known

    def _parts_of(self, offset: int, length: int) -> tuple[int, ...]:
        end = offset + length
        if offset < 0 or length <= 0 or end > BLOCK:
            raise Refused(f"diff [{offset}, {end}) leaves the block")
        kinds = set(self._part_map[offset:end])
        if KERNEL in kinds:
            raise Refused(f"diff [{offset}, {end}) touches the kernel's stamp")
        return tuple(k - FIRST_PART for k in kinds if k >= FIRST_PART)

    def is_raw(self, offset: int, length: int) -> bool:
        """True if these bytes lie inside the raw range."""
        lo, hi = self.spec.raw
        return lo <= offset and offset + length <= hi

    def owned(self, block: bytes | bytearray | memoryview, part: int) -> list[Extent]:
        """What partition `part` of these bytes owns, as (type number, start, count).

        Numbers are exactly what the UDF emitted; the caller checks that they are block numbers.
        Raises UnknownType if a reference names no installed type.
        """
        lo, hi = self.ranges[part]
        if not any(block[lo:hi]) or self._owns is None:
            return []
        emitted = self._owns(block, part)
        return [(self._number(ref), start, n) for ref, start, n in emitted if n]

    def owns_nothing(self, block: bytes) -> bool:
        """True if no partition of these bytes owns anything."""
        if all(block[lo:hi] == ZERO[lo:hi] for lo, hi in self._hulls):
            return True  # zeros own nothing: proved at installation, and far cheaper to see
        return not any(self.owned(block, part) for part in range(self.nparts))

    def _number(self, ref: int) -> int:
        if ref >= len(self._numbers):
            raise Refused(f"type {self.spec.name}: owns emitted reference {ref}, which it has not")
        number = self._numbers[ref]
        if number is None:
            name = self.spec.refs[ref]
            number = self._resolve(name)
            if number is None:
                raise UnknownType(f"type {self.spec.name} points at type {name}: not installed")
            self._numbers[ref] = number
        return number


def _check_shape(spec: TypeSpec) -> None:
    if not _NAME.fullmatch(spec.name):
        raise Refused(f"type name {spec.name!r}: letters, digits, '.', '_' and '-', at most 63")
    if len(spec.parts) > MAX_GROUPS or len(spec.refs) > MAX_REFS:
        raise Refused(f"type {spec.name}: too many partition groups or references")
    if any(not _NAME.fullmatch(ref) for ref in spec.refs):
        raise Refused(f"type {spec.name}: a reference is not a type name")
    if spec.flags & ~T_UNREADABLE:
        raise Refused(f"type {spec.name}: unknown flags {spec.flags:#x}")
    if spec.stamp is None and (spec.parts or spec.owns or spec.raw != (0, 0)):
        raise Refused(f"type {spec.name}: a type without a stamp is plain data and owns nothing")
    if spec.stamp is not None:
        if spec.flags & T_UNREADABLE:
            raise Refused(f"type {spec.name}: an unreadable type has no stamp")
        if spec.stamp % 8 or not 0 <= spec.stamp <= BLOCK - STAMP:
            raise Refused(f"type {spec.name}: stamp at {spec.stamp}: multiple of 8, inside")


class _Proof(NamedTuple):
    """What is proved of a spec: shared by all types of it, never changed."""

    ranges: list[tuple[int, int]]  # of each partition
    part_map: array[int]  # owner of each byte
    hulls: list[tuple[int, int]]  # from the first to the last byte of each group of partitions
    owns: Callable[..., list[tuple[int, int, int]]] | None
    acl: Callable[..., int] | None
    size: Callable[..., int] | None


# A proof depends on nothing but the spec, so that a process makes it once.
@lru_cache(maxsize=128)
def _proof(spec: TypeSpec) -> _Proof:
    _check_shape(spec)
    ranges = _ranges(spec)
    return _Proof(
        ranges,
        _part_map(spec, ranges),
        [(at, at + step * (n - 1) + size) for at, step, size, n in spec.parts if n],
        _verified_owns(spec, ranges),
        _verified("acl", spec.acl, ACL_SIGNATURE, ACL_BUDGET),
        _verified("size", spec.size, SIZE_SIGNATURE, SIZE_BUDGET),
    )


def _ranges(spec: TypeSpec) -> list[tuple[int, int]]:
    """The byte range of each partition, in order."""
    out: list[tuple[int, int]] = []
    for base, stride, length, count in spec.parts:
        if min(base, length) < 0 or length == 0 or not 0 <= count <= MAX_PARTS - len(out):
            raise Refused(f"type {spec.name}: bad partition group or more than {MAX_PARTS}")
        if stride < length or base + stride * max(count - 1, 0) + length > BLOCK:
            raise Refused(f"type {spec.name}: partitions overlap or leave the block")
        out += [(base + i * stride, base + i * stride + length) for i in range(count)]
    return out


def _part_map(spec: TypeSpec, ranges: Sequence[tuple[int, int]]) -> array[int]:
    """For each byte: PLAIN, RAW, KERNEL or FIRST_PART + its partition. Proves that they are
    disjoint.
    """
    owner = array("H", bytes(2 * BLOCK))
    areas = [(lo, hi, FIRST_PART + i) for i, (lo, hi) in enumerate(ranges)]
    if spec.stamp is not None:
        areas.append((spec.stamp, spec.stamp + STAMP, KERNEL))
    raw_lo, raw_hi = spec.raw
    if not 0 <= raw_lo <= raw_hi <= BLOCK:
        raise Refused(f"type {spec.name}: raw range leaves the block")
    if raw_lo < raw_hi:
        areas.append((raw_lo, raw_hi, RAW))
    for lo, hi, kind in areas:
        if any(owner[lo:hi]):
            raise Refused(f"type {spec.name}: bytes [{lo}, {hi}) belong to two areas")
        owner[lo:hi] = array("H", [kind]) * (hi - lo)
    return owner


def _verified(what: str, source: str, sig: Signature, budget: int) -> Callable[..., int] | None:
    if not source:
        return None
    try:
        program: Program = verify(source, sig, budget=budget)
    except VerifyError as e:
        raise Refused(f"{what}: {e}") from None
    return program.run


def _verified_owns(
    spec: TypeSpec, ranges: Sequence[tuple[int, int]]
) -> Callable[..., list[tuple[int, int, int]]] | None:
    """Prove `owns` for all partitions at once, then what each one alone reads and says of zeros."""
    if not spec.owns:
        if ranges:
            raise Refused(f"type {spec.name}: partitions but no owns")
        return None
    if not ranges:
        raise Refused(f"type {spec.name}: owns but no partitions")
    sig = owns_signature(len(ranges))
    try:
        program = verify(spec.owns, sig, budget=OWNS_BUDGET)
        for part, (lo, hi) in enumerate(ranges):
            alone = verify(spec.owns, sig, budget=OWNS_BUDGET, fix={"part": part})
            for _buffer, first, last in alone.reads:
                if first < lo or last > hi:
                    raise Refused(
                        f"type {spec.name}: owns of partition {part} reads [{first}, {last}),"
                        f" its range is [{lo}, {hi})"
                    )
            if any(count for _ref, _start, count in program.run(ZERO, part)):
                raise Refused(f"type {spec.name}: partition {part} of a zero block owns blocks")
    except VerifyError as e:
        raise Refused(f"type {spec.name}: owns: {e}") from None
    run: Callable[..., list[tuple[int, int, int]]] = program.run
    return run
