"""Abstract values: what the verifier knows about a variable, and arithmetic on it.

An integer is known as an interval (lo, hi), both ends included, within 0..2**64-1. Every function
here is an over-approximation: for all x in a and y in b the exact result x op y lies in op(a, b).
Where some x op y would leave 0..2**64-1, or has no value, the function refuses instead.
There is one width, 64 bits, and one sign, none: the two confusions behind most published escapes
from eBPF's verifier have no place to live here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from xnfs.sandbox.errors import UnprovedError
from xnfs.sandbox.signature import MAX_U64

Interval = tuple[int, int]

U64: Final[Interval] = (0, MAX_U64)
ZERO: Final[Interval] = (0, 0)
ONE: Final[Interval] = (1, 1)
BIT: Final[Interval] = (0, 1)


@dataclass(frozen=True, slots=True)
class Vector:
    """A tuple: an interval for each value that it may have, of which the first `least` exist."""

    items: tuple[Interval, ...]
    least: int


@dataclass(frozen=True, slots=True, eq=False)
class Missing:
    """No usable value; `why` completes the sentence 'name ...'."""

    why: str


UNDEFINED: Final = Missing("may be undefined here")
MIXED: Final = Missing("is an integer on one path and a tuple on another")

Value = Interval | Vector | Missing


def show(a: Interval) -> str:
    """An interval in the words of the messages."""
    lo, hi = (("2**64-1" if v == MAX_U64 else str(v)) for v in a)
    return lo if a[0] == a[1] else f"{lo}..{hi}"


def hull(a: Interval, b: Interval) -> Interval:
    """The smallest interval around both."""
    return (min(a[0], b[0]), max(a[1], b[1]))


def join(a: Value, b: Value) -> Value:
    """What is known where two paths meet: only what holds on both."""
    if isinstance(a, Missing) or isinstance(b, Missing):
        return MIXED if MIXED in (a, b) and UNDEFINED not in (a, b) else UNDEFINED
    if isinstance(a, Vector):
        return _join_vectors(a, b) if isinstance(b, Vector) else MIXED
    return MIXED if isinstance(b, Vector) else hull(a, b)


def _join_vectors(a: Vector, b: Vector) -> Vector:
    short, long = (a, b) if len(a.items) <= len(b.items) else (b, a)
    both = tuple(hull(x, y) for x, y in zip(short.items, long.items, strict=False))
    return Vector(both + long.items[len(both) :], min(a.least, b.least))


def _add(a: Interval, b: Interval) -> Interval:
    if a[1] + b[1] > MAX_U64:
        raise UnprovedError(f"sum of {show(a)} and {show(b)} may pass 2**64-1")
    return (a[0] + b[0], a[1] + b[1])


def _sub(a: Interval, b: Interval) -> Interval:
    if a[0] < b[1]:
        raise UnprovedError(f"difference of {show(a)} and {show(b)} may go below zero")
    return (a[0] - b[1], a[1] - b[0])


def _mul(a: Interval, b: Interval) -> Interval:
    if a[1] * b[1] > MAX_U64:
        raise UnprovedError(f"product of {show(a)} and {show(b)} may pass 2**64-1")
    return (a[0] * b[0], a[1] * b[1])


def _div(a: Interval, b: Interval) -> Interval:
    if b[0] == 0:
        raise UnprovedError(f"division by {show(b)}, which may be zero")
    return (a[0] // b[1], a[1] // b[0])


def _mod(a: Interval, b: Interval) -> Interval:
    if b[0] == 0:
        raise UnprovedError(f"remainder by {show(b)}, which may be zero")
    if a[1] < b[0]:
        return a
    if b[0] == b[1] and a[0] // b[0] == a[1] // b[0]:  # no multiple of b in between
        return (a[0] % b[0], a[1] % b[0])
    return (0, min(a[1], b[1] - 1))


def _and(a: Interval, b: Interval) -> Interval:
    if b[0] == b[1] and b[0] & (b[0] + 1) == 0:  # a mask of low bits is a remainder
        return _mod(a, (b[0] + 1, b[0] + 1))
    if a[0] == a[1] and b[0] == b[1]:
        return (a[0] & b[0], a[0] & b[0])
    return (0, min(a[1], b[1]))


def _or(a: Interval, b: Interval) -> Interval:
    if a[0] == a[1] and b[0] == b[1]:
        return (a[0] | b[0], a[0] | b[0])
    # x | y has no higher bit than x or y, and x | y <= x + y.
    return (max(a[0], b[0]), min((1 << (a[1] | b[1]).bit_length()) - 1, a[1] + b[1]))


def _xor(a: Interval, b: Interval) -> Interval:
    if a[0] == a[1] and b[0] == b[1]:
        return (a[0] ^ b[0], a[0] ^ b[0])
    return (0, min((1 << (a[1] | b[1]).bit_length()) - 1, a[1] + b[1]))


def _shift_count(b: Interval) -> None:
    if b[1] > 63:
        raise UnprovedError(f"shift by {show(b)} may pass 63")


def _shl(a: Interval, b: Interval) -> Interval:
    _shift_count(b)
    if a[1] << b[1] > MAX_U64:
        raise UnprovedError(f"shift of {show(a)} left by {show(b)} may pass 2**64-1")
    return (a[0] << b[0], a[1] << b[1])


def _shr(a: Interval, b: Interval) -> Interval:
    _shift_count(b)
    return (a[0] >> b[1], a[1] >> b[0])


BINARY: Final[dict[str, Callable[[Interval, Interval], Interval]]] = {
    "+": _add,
    "-": _sub,
    "*": _mul,
    "//": _div,
    "%": _mod,
    "&": _and,
    "|": _or,
    "^": _xor,
    "<<": _shl,
    ">>": _shr,
}


def compare(op: str, a: Interval, b: Interval) -> bool | None:
    """The outcome of `x op y` when it is the same for all x in a and y in b, else None."""
    if op in (">", ">="):
        op, a, b = ("<" if op == ">" else "<="), b, a
    if op == "<":
        return True if a[1] < b[0] else False if a[0] >= b[1] else None
    if op == "<=":
        return True if a[1] <= b[0] else False if a[0] > b[1] else None
    if a[1] < b[0] or b[1] < a[0]:
        return op == "!="
    if a[0] == a[1] == b[0] == b[1]:
        return op == "=="
    return None
