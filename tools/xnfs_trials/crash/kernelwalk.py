"""Rules R1, R2, R4 and R5 on the raw bytes of an image, for any file system ever installed on it.

It walks from the root catalogue with the `owns` of each type, as its source stands in the type
catalogue. It shares no code with `xnfs`: the bytes are read by `rawdisk.py`, and the sources are
run by Python itself with intrinsics of its own, after a look that nothing but the downloaded-code
language is in them. Leaks are listed and are no findings: a power cut may leave them.

As the rules show in bytes (DESIGN.md, sections 3 to 6):
  R1  no block is reached under two types
  R2  a block of metadata that is reached has a right checksum and the stamp of its type
  R4  every block that is reached is marked in the free map
  R5  no block is reached more often than it is counted
and both copies of the superblock are whole, the second no older than the first.
R3 needs to know what a name is: `model.py`.
"""

from __future__ import annotations

import ast
import hashlib
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from xnfs_trials.crash.rawdisk import BLOCK, MAGIC, NO_STAMP, SECTOR, TYPE_MAGIC, RawDisk

ROOTS = 1  # type number of the root catalogue
SLOTS = 31
UNREADABLE = 1
GENERATION = 216  # offset in the superblock

_RECORD = struct.Struct("<I4sIHHI")  # crc, magic, number, part, parts, bytes of payload

Extents = tuple[tuple[str, int, int], ...]  # (name of the type, start, count)


class BadType(Exception):
    """A record of the type catalogue that no kernel can have accepted."""


@dataclass(frozen=True)
class BlockType:
    """A type as its record says. `parts`: (offset, length) of each partition, in order."""

    number: int
    name: str
    stamp: int | None
    parts: tuple[tuple[int, int], ...]
    refs: tuple[str, ...]
    owns: str
    unreadable: bool = False

    def owned(self, data: bytes) -> Extents:
        """What a block of this type points at. Raises BadType."""
        return _owned(self, data) if self.parts else ()


# -- the language


def _load(code: str) -> Callable[[bytes, int], int]:
    unpack = struct.Struct(code).unpack_from
    return lambda data, at: int(unpack(data, at)[0])


def _loads(letter: str) -> Callable[[bytes, int, int], tuple[int, ...]]:
    return lambda data, at, n: struct.unpack_from(f"<{n}{letter}", data, at)


def _hash64(data: bytes, at: int, size: int, key: int) -> int:
    raw = hashlib.blake2b(data[at : at + size], digest_size=8, key=struct.pack("<Q", key)).digest()
    return int.from_bytes(raw, "little")


_INTRINSICS: dict[str, Callable[..., Any]] = {
    "u8": _load("<B"),
    "u16": _load("<H"),
    "u32": _load("<I"),
    "u64": _load("<Q"),
    "be16": _load(">H"),
    "be32": _load(">I"),
    "u8s": _loads("B"),
    "u16s": _loads("H"),
    "u32s": _loads("I"),
    "u64s": _loads("Q"),
    "same": lambda a, i, b, j, n: int(a[i : i + n] == b[j : j + n]),
    "zero": lambda a, i, n: int(not any(a[i : i + n])),
    "hash64": _hash64,
    "crc32": lambda a, i, n: zlib.crc32(a[i : i + n]),
    "len": len,
    "min": min,
    "max": max,
    "range": range,
}
#: Nodes of Python's tree that the language has. No attributes, strings, `while`, or functions.
_ALLOWED = (
    *(ast.FunctionDef, ast.arguments, ast.arg, ast.Assign, ast.AugAssign, ast.If, ast.For),
    *(ast.Return, ast.Expr, ast.Break, ast.Continue, ast.Pass, ast.Call, ast.Name, ast.Constant),
    *(ast.Tuple, ast.BinOp, ast.BoolOp, ast.UnaryOp, ast.Compare, ast.IfExp, ast.Subscript),
    *(ast.operator, ast.boolop, ast.unaryop, ast.cmpop, ast.expr_context),
)


class _Numbers(ast.NodeTransformer):
    """In the language comparisons, `and`, `or` and `not` give 0 and 1."""

    def _number(self, node: ast.expr) -> ast.expr:
        self.generic_visit(node)
        return ast.IfExp(node, ast.Constant(1), ast.Constant(0))

    visit_BoolOp = visit_Compare = _number

    def visit_UnaryOp(self, node: ast.UnaryOp) -> ast.expr:
        """`not`; the language has no minus."""
        return self._number(node)


@lru_cache(maxsize=256)
def _compile(source: str) -> Callable[[bytes, int], list[tuple[int, ...]]]:
    """`owns` as a function of (block, partition) that gives what it emits."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError) as error:
        raise BadType(f"owns is no Python: {error}") from None
    _look_through(tree)
    found: list[tuple[int, ...]] = []
    scope: dict[str, Any] = {"__builtins__": {}, **_INTRINSICS, "emit": lambda *a: found.append(a)}
    text = ast.fix_missing_locations(_Numbers().visit(tree))
    exec(compile(text, "<owns from the disk>", "exec"), scope)  # looked through above
    owns = scope["owns"]

    def run(data: bytes, part: int) -> list[tuple[int, ...]]:
        found.clear()
        owns(data, part)
        return list(found)

    return run


def _look_through(tree: ast.Module) -> None:
    if len(tree.body) != 1 or not isinstance(tree.body[0], ast.FunctionDef):
        raise BadType("owns is not one function")
    function = tree.body[0]
    if function.name != "owns" or [a.arg for a in function.args.args] != ["meta", "part"]:
        raise BadType("owns has other parameters")
    if function.decorator_list or function.returns or function.args.defaults:
        raise BadType("owns is more than a function")
    for node in ast.walk(function):
        if not isinstance(node, _ALLOWED):
            raise BadType(f"owns has {type(node).__name__}")
        called = isinstance(node, ast.Call) and not isinstance(node.func, ast.Name)
        hidden = isinstance(node, ast.Name) and node.id.startswith("_")
        power = isinstance(node, ast.Pow | ast.MatMult | ast.Div)
        if called or hidden or power:
            raise BadType("owns has what the language has not")


@lru_cache(maxsize=1 << 14)
def _owned(kind: BlockType, data: bytes) -> Extents:
    """Blocks are equal from state to state, so most answers are known."""
    run = _compile(kind.owns)
    out = []
    for part, (at, size) in enumerate(kind.parts):
        if not any(data[at : at + size]):
            continue  # an all-zero partition owns nothing
        try:
            emitted = run(data, part)
        except Exception as error:  # whatever a program does that no verifier has seen
            raise BadType(f"owns of {kind.name} fails: {type(error).__name__}") from None
        for values in emitted:
            if len(values) != 3 or values[0] >= len(kind.refs):
                raise BadType(f"owns of {kind.name} emits {values}")
            out.append((kind.refs[values[0]], values[1], values[2]))
    return tuple(out)


# -- the type catalogue


def _parse_type(payload: bytes, number: int) -> BlockType:
    """A record's payload (SPEC.md, type catalogue). Raises BadType."""
    try:
        name_size, refs, groups, _ = struct.unpack_from("<4H", payload, 0)
        (flags,) = struct.unpack_from("<I", payload, 8)
        (stamp,) = struct.unpack_from("<I", payload, 16)
        lengths = struct.unpack_from("<3I", payload, 20)
        at = 32
        parts: list[tuple[int, int]] = []
        for base, stride, length, count in struct.iter_unpack(
            "<4I", payload[at : at + 16 * groups]
        ):
            if count > BLOCK or base + stride * max(count - 1, 0) + length > BLOCK:
                raise BadType(f"type {number} has partitions outside the block")
            parts += [(base + i * stride, length) for i in range(count)]
        at += 16 * groups
        name = payload[at : at + name_size].decode()
        at += name_size
        names = []
        for _ in range(refs):
            (size,) = struct.unpack_from("<H", payload, at)
            names.append(payload[at + 2 : at + 2 + size].decode())
            at += 2 + size
        owns = payload[at : at + lengths[0]].decode()
    except (struct.error, UnicodeDecodeError) as error:
        raise BadType(f"the record of type {number} is cut short: {error}") from None
    at_stamp = None if stamp == NO_STAMP else stamp
    unreadable = bool(flags & UNREADABLE)
    return BlockType(number, name, at_stamp, tuple(parts), tuple(names), owns, unreadable)


@lru_cache(maxsize=64)
def read_types(
    uuid: bytes, start: int, blocks: tuple[bytes, ...]
) -> tuple[tuple[BlockType, ...], tuple[str, ...]]:
    """(the types of a catalogue, what is wrong with it). It ends where a record is not whole."""
    found: list[BlockType] = []
    wrong: list[str] = []
    seed, at = zlib.crc32(uuid), 0
    while at < len(blocks):
        _, magic, number, part, parts, _ = _RECORD.unpack_from(blocks[at], 0)
        if magic != TYPE_MAGIC or part or not 0 < parts <= 16:
            break
        payload = b""
        for i, raw in enumerate(blocks[at : at + parts], start + at):
            crc, _, _, _, _, size = _RECORD.unpack_from(raw, 0)
            if crc != zlib.crc32(raw[4:], zlib.crc32(i.to_bytes(8, "little"), seed)):
                return tuple(found), tuple(wrong)
            payload += raw[32 : 32 + size]
        try:
            found.append(_parse_type(payload, number))
        except BadType as error:
            wrong.append(str(error))
        at += parts
    return tuple(found), tuple(wrong)


class KernelWalk:
    """One walk over a recovered image."""

    def __init__(self, disk: RawDisk) -> None:
        self.disk = disk
        self.owners: dict[int, int] = {}  # block -> pointers seen
        self.type_of: dict[int, BlockType] = {}
        start, count = disk.super.types
        catalogue = tuple(disk.block(at) for at in range(start, start + count))
        kinds, wrong = read_types(disk.super.uuid, start, catalogue)
        self.types = {kind.name: kind for kind in kinds}
        self.numbers = {kind.number: kind for kind in kinds}
        for text in wrong:
            disk.find("types", start, text)

    def run(self) -> None:
        """Walk everything, then compare with the free map and the counts. What is wrong goes to
        `disk.find`."""
        self._supers()
        todo: list[tuple[int, BlockType]] = []
        start, count = self.disk.super.roots
        for at in range(start, start + count):
            self._roots(at, todo)
        while todo:
            block, kind = todo.pop()
            data = self._load(block, kind)
            if data is None:
                continue
            try:
                for name, first, n in kind.owned(data):
                    self._extent(block, name, first, n, todo)
            except BadType as error:
                self.disk.find("types", block, str(error))
        self._tables()

    @property
    def leaks(self) -> list[int]:
        """Blocks marked in the map that nothing reaches."""
        data = range(self.disk.super.data_start, self.disk.super.blocks - 1)
        return [b for b in data if b not in self.owners and self.disk.in_use(b)]

    def plain(self) -> list[int]:
        """Blocks without a stamp that are reached and may be read: bytes of files."""
        plain = (kind for kind in self.types.values() if kind.stamp is None)
        readable = {kind.name for kind in plain if not kind.unreadable}
        return [b for b, kind in self.type_of.items() if kind.name in readable]

    # -- reading

    def _supers(self) -> None:
        """The second copy is written first: it is never older than the first."""
        last = self.disk.super.blocks - 1
        generations = []
        for at in (0, last):
            raw = self.disk.block(at)[:SECTOR]
            (crc,) = struct.unpack_from("<I", raw, SECTOR - 4)
            if raw[:8] != MAGIC or crc != self.disk.crc(0, raw[: SECTOR - 4]):
                self.disk.find("super", at, "this copy of the superblock is damaged")
                return
            generations.append(struct.unpack_from("<Q", raw, GENERATION)[0])
        if generations[1] < generations[0]:
            self.disk.find("super", last, f"generations {generations}: the second is stale")

    def _roots(self, at: int, todo: list[tuple[int, BlockType]]) -> None:
        raw = self.disk.block(at)
        if not self.disk.stamp_ok(at, raw) or self.disk.stamp(raw)[1] != ROOTS:
            self.disk.find("R2", at, "the stamp of the root catalogue is wrong")
            return
        self.disk.check_age(at, raw)
        for i in range(SLOTS):
            block, number = struct.unpack_from("<QI", raw, 128 + 128 * i + 64)
            if not block:
                continue
            if number not in self.numbers:
                self.disk.find("types", at, f"a root has type {number}, which there is not")
                continue
            self._extent(at, self.numbers[number].name, block, 1, todo)

    def _extent(
        self, owner: int, name: str, first: int, n: int, todo: list[tuple[int, BlockType]]
    ) -> None:
        kind = self.types.get(name)
        if kind is None:
            self.disk.find("types", owner, f"points at type {name}, which there is not")
            return
        if not n or not self.disk.in_data(first) or not self.disk.in_data(first + n - 1):
            self.disk.find("R1", owner, f"points at {n} blocks from {first}: not in the data area")
            return
        for block in range(first, first + n):
            seen = self.owners[block] = self.owners.get(block, 0) + 1
            known = self.type_of.setdefault(block, kind)
            if known is not kind:
                self.disk.find("R1", block, f"{name} for {owner}, and {known.name} for another")
            elif seen == 1 and kind.stamp is not None:
                todo.append((block, kind))

    def _load(self, block: int, kind: BlockType) -> bytes | None:
        data = self.disk.block(block)
        at = kind.stamp or 0
        if not self.disk.stamp_ok(block, data, at):
            self.disk.find("R2", block, f"the checksum of this {kind.name} is wrong")
            return None
        number = self.disk.stamp(data, at)[1]
        if number != kind.number:
            self.disk.find("R2", block, f"stamped with type {number}, reached as {kind.name}")
            return None
        self.disk.check_age(block, data, at)
        return data

    def _tables(self) -> None:
        self.disk.check_tables()
        for block, seen in self.owners.items():
            if not self.disk.in_use(block):
                self.disk.find("R4", block, "is reached, and the map says free")
            elif seen > max(1, self.disk.refs(block)):
                self.disk.find("R5", block, f"{seen} pointers, counted {self.disk.refs(block)}")
