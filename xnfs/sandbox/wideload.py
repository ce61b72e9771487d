"""Neighbouring loads become one `struct` call.

`lblk, count, start = u32(m, o), u32(m, o + 4), u64(m, o + 8)`, or the same as three statements, is
one `unpack_from` of '<IIQ'. Loads are pure and all of them proved, so their order is free. They
must share a buffer, a byte order, and an offset up to a constant, and may not overlap.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from xnfs.sandbox import nodes as n
from xnfs.sandbox.state import Terms, linear

CODE: Final = {1: "B", 2: "H", 4: "I", 8: "Q"}
_MAX_PAD: Final = 64  # bytes skipped between two loads


@dataclass(frozen=True, slots=True)
class Wide:
    """One `struct` call that does the work of the first `statements` of a block."""

    statements: int
    buffer: int
    offset: n.Expr
    big_endian: bool
    code: str  # without the byte order
    targets: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class _Piece:
    target: int
    load: n.LoadOne
    terms: Terms
    at: int  # the constant part of the offset


def widest(body: n.Block) -> Wide | None:
    """The wide load that begins at the head of `body`, or None when fewer than two loads do."""
    best: Wide | None = None
    pieces: list[_Piece] = []
    for count, statement in enumerate(body, 1):
        more = _pieces(statement)
        if not more:
            break
        # The offset is evaluated once: no statement but the last may change what it is made of.
        if any(2 * p.target == variable for p in pieces for variable, _ in more[0].terms):
            break
        pieces += more
        wide = _join(count, pieces)
        if wide is None:
            break
        best = wide if len(pieces) > 1 else None
    return best


def _pieces(statement: n.Stmt) -> list[_Piece]:
    if not isinstance(statement, n.Assign):
        return []
    values = (
        statement.value.items
        if statement.unpack and isinstance(statement.value, n.TupleOf)
        else (statement.value,)
    )
    pieces = []
    for target, value in zip(statement.targets, values, strict=False):
        form = linear(value.offset) if isinstance(value, n.LoadOne) else None
        if not isinstance(value, n.LoadOne) or form is None:
            return []
        pieces.append(_Piece(target, value, *form))
    return pieces if len(pieces) == len(statement.targets) else []


def _join(statements: int, pieces: list[_Piece]) -> Wide | None:
    first = pieces[0]
    if len({p.target for p in pieces}) < len(pieces):
        return None
    ordered = sorted(pieces, key=lambda p: p.at)
    code, end = "", ordered[0].at
    for piece in ordered:
        alike = piece.terms == first.terms and piece.load.buffer == first.load.buffer
        if not alike or not 0 <= piece.at - end <= _MAX_PAD:
            return None
        code += f"{piece.at - end}x" * (piece.at > end) + CODE[piece.load.width]
        end = piece.at + piece.load.width
    # A single byte has no order.
    orders = {p.load.big_endian for p in pieces if p.load.width > 1}
    if len(orders) > 1:
        return None
    base = ordered[0]
    return Wide(
        statements,
        base.load.buffer,
        base.load.offset,
        True in orders,
        code,
        tuple(p.target for p in ordered),
    )
