"""The checked shape of a downloaded function: the one thing that verifier, compiler and
interpreter share.

Nodes are made by `language` only. They hold no text of the author: a name has become a slot, a
number of the list of variables; parameters have the first slots, in order. Nodes compare by
identity, so that they can be keys. Every node knows its line, counted from 1.
"""

from __future__ import annotations

from dataclasses import dataclass

from xnfs.sandbox.signature import Signature


@dataclass(frozen=True, slots=True, eq=False)
class Const:
    """A number in 0..2**64-1."""

    line: int
    value: int


@dataclass(frozen=True, slots=True, eq=False)
class Local:
    """The value of a local name or of a parameter that isn't a buffer."""

    line: int
    slot: int


@dataclass(frozen=True, slots=True, eq=False)
class Length:
    """`len(name)`: bytes of a buffer, or values of a tuple."""

    line: int
    slot: int


@dataclass(frozen=True, slots=True, eq=False)
class Binary:
    """`left op right`; op is one of + - * // % & | ^ << >>."""

    line: int
    op: str
    left: Expr
    right: Expr


@dataclass(frozen=True, slots=True, eq=False)
class Compare:
    """A chain of comparisons, one operator between two neighbours: 1 or 0."""

    line: int
    ops: tuple[str, ...]
    items: tuple[Expr, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Contains:
    """`item in sequence`: 1 or 0."""

    line: int
    item: Expr
    sequence: Expr


@dataclass(frozen=True, slots=True, eq=False)
class Logic:
    """`and` (every=True) or `or` of two or more items, evaluated from the left: 1 or 0."""

    line: int
    every: bool
    items: tuple[Expr, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Not:
    """1 when the item is 0, else 0."""

    line: int
    item: Expr


@dataclass(frozen=True, slots=True, eq=False)
class Choose:
    """`yes if condition else no`."""

    line: int
    condition: Expr
    yes: Expr
    no: Expr


@dataclass(frozen=True, slots=True, eq=False)
class Pick:
    """`min` or `max` of two or more integers."""

    line: int
    least: bool
    items: tuple[Expr, ...]


@dataclass(frozen=True, slots=True, eq=False)
class TupleOf:
    """A tuple of integers."""

    line: int
    items: tuple[Expr, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Index:
    """`sequence[index]`."""

    line: int
    sequence: Expr
    index: Expr


@dataclass(frozen=True, slots=True, eq=False)
class LoadOne:
    """One integer of `width` bytes from a buffer."""

    line: int
    buffer: int
    offset: Expr
    width: int
    big_endian: bool


@dataclass(frozen=True, slots=True, eq=False)
class LoadTuple:
    """A tuple of `count` little-endian integers of `width` bytes."""

    line: int
    buffer: int
    offset: Expr
    width: int
    count: int


@dataclass(frozen=True, slots=True, eq=False)
class BulkOp:
    """`same`, `zero`, `hash64` or `crc32`: see the table in `intrinsics`."""

    line: int
    name: str
    spans: tuple[tuple[int, Expr], ...]
    length: Expr
    extra: tuple[Expr, ...]
    hi: int  # the greatest result


Expr = (
    Const
    | Local
    | Length
    | Binary
    | Compare
    | Contains
    | Logic
    | Not
    | Choose
    | Pick
    | TupleOf
    | Index
    | LoadOne
    | LoadTuple
    | BulkOp
)


# `cost` is the worst number of steps of the statement's own expressions, without what depends on
# a length that only the verifier knows.


@dataclass(frozen=True, slots=True, eq=False)
class Assign:
    """Assign to one slot, or unpack a tuple of exactly as many values into several."""

    line: int
    cost: int
    targets: tuple[int, ...]
    unpack: bool
    value: Expr


@dataclass(frozen=True, slots=True, eq=False)
class Arm:
    """One `if` or `elif`."""

    line: int
    cost: int
    condition: Expr
    body: Block


@dataclass(frozen=True, slots=True, eq=False)
class If:
    """The first arm whose condition isn't 0, or the `else`."""

    line: int
    arms: tuple[Arm, ...]
    orelse: Block


@dataclass(frozen=True, slots=True, eq=False)
class ForRange:
    """`for target in range(start, stop)`."""

    line: int
    target: int
    start: int
    stop: int
    body: Block


@dataclass(frozen=True, slots=True, eq=False)
class ForEach:
    """`for target in sequence`; the sequence is evaluated once."""

    line: int
    cost: int
    target: int
    sequence: Expr
    body: Block


@dataclass(frozen=True, slots=True, eq=False)
class Emit:
    """Append a tuple to the result."""

    line: int
    cost: int
    items: tuple[Expr, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Return:
    """End of the function, with a value where the signature asks for one."""

    line: int
    cost: int
    value: Expr | None


@dataclass(frozen=True, slots=True, eq=False)
class Break:
    """Leave the innermost loop."""

    line: int


@dataclass(frozen=True, slots=True, eq=False)
class Continue:
    """Begin the next turn of the innermost loop."""

    line: int


Stmt = Assign | If | ForRange | ForEach | Emit | Return | Break | Continue
Block = tuple[Stmt, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Shape:
    """A function that is well formed, and not yet proved safe."""

    source: str
    digest: str
    signature: Signature
    names: tuple[str, ...]  # of the slots, for messages
    body: Block
    line: int
    last_line: int
