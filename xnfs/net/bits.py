"""Values of which some bits are not known: rows of bits of a packet.

What a filter computes from an unknown packet is mostly bits of it, masked, moved and put together.
Such a value is a row of bits; arithmetic that is more than that is left to numbers (`meaning`).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from xnfs.net.cube import Cube

ZERO: Final = -2
ONE: Final = -1

#: Lowest first: ZERO, ONE, or where the bit stands in `head_bits` of the packet.
Bits = tuple[int, ...]


def known(value: int | Bits, cube: Cube) -> int | Bits:
    """A value, with what the cube says about its bits put in; a number if all are known."""
    if isinstance(value, int):
        return value
    bits = tuple(
        (ONE if cube.value >> b & 1 else ZERO) if b >= 0 and cube.mask >> b & 1 else b
        for b in value
    )
    if any(b >= 0 for b in bits):
        return bits
    return sum(1 << i for i, b in enumerate(bits) if b == ONE)


def moved(op: str, a: int | Bits, b: int | Bits) -> Bits | None:
    """The result of an operation that only selects and moves bits; None: it is another."""
    if isinstance(a, int) and isinstance(b, int):
        return None
    if op in ("<<", ">>"):
        if not isinstance(b, int):
            return None
        assert not isinstance(a, int)
        return (ZERO,) * b + a if op == "<<" else a[b:] or (ZERO,)
    length = max(v.bit_length() if isinstance(v, int) else len(v) for v in (a, b))
    pairs = list(zip(_row(a, length), _row(b, length), strict=True))
    if op == "&" and all(p < 0 or q < 0 or p == q for p, q in pairs):
        return tuple(ZERO if ZERO in (p, q) else q if p == ONE else p for p, q in pairs)
    if op in ("|", "^", "+") and all(ZERO in (p, q) for p, q in pairs):
        return tuple(q if p == ZERO else p for p, q in pairs)
    return None


def compare(cube: Cube, bits: Bits, number: int) -> Iterator[tuple[Cube, int]]:
    """Parts of a cube where bits are less than (-1), equal to (0) or greater than (1) a number.

    The first bit that differs decides, so there is a part for each bit, and one for equality.
    """
    equal: Cube | None = cube
    for position in range(max(len(bits), number.bit_length()) - 1, -1, -1):
        assert equal is not None
        wanted = number >> position & 1
        bit = bits[position] if position < len(bits) else ZERO
        other = _where(equal, bit, 1 - wanted)
        if other is not None:
            yield other, 1 - 2 * wanted
        equal = _where(equal, bit, wanted)
        if equal is None:
            return
    assert equal is not None
    yield equal, 0


def _where(cube: Cube, bit: int, wanted: int) -> Cube | None:
    """The part of a cube where a bit is as wanted."""
    if bit < 0:
        return cube if (bit == ONE) == bool(wanted) else None
    return cube.meet(1 << bit, wanted << bit)


def _row(value: int | Bits, length: int) -> Bits:
    """A value as a row of so many bits."""
    if isinstance(value, int):
        return tuple(ONE if value >> i & 1 else ZERO for i in range(length))
    return value[:length] + (ZERO,) * (length - len(value))
