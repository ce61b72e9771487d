"""Sets of packets that can be compared exactly: cubes.

A cube says of each bit of a packet's first 128 bytes 0, 1 or either, and of its length a range: it
is what a conjunction of masked comparisons accepts. A filter's meaning is a list of cubes
(`meaning`). Two cubes have a packet in common unless some bit must be 0 in one and 1 in the other
or their lengths exclude each other, so whether two filters overlap is decided exactly, by a few
operations on integers. That is why the kernel accepts filters of this shape and no others: for
arbitrary programs the question is undecidable, and for comparisons of one part of a packet with
another it is as hard as satisfiability.

A bit beyond the end of a packet reads as 0 here. It makes no difference: a verified filter looks
at a byte only where it has seen that the packet is long enough, so a cube that fixes a bit has a
least length behind it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

WINDOW: Final = 128  # bytes
MIN_FRAME: Final = 14
MAX_FRAME: Final = 65535 + MIN_FRAME


@dataclass(frozen=True, slots=True)
class Cube:
    """The packets whose bits under `mask` are `value`, of `lo` to `hi` bytes."""

    mask: int = 0
    value: int = 0
    lo: int = MIN_FRAME
    hi: int = MAX_FRAME

    def meet(self, mask: int, value: int) -> Cube | None:
        """The part where these bits are so as well; None: there is none."""
        if (self.value ^ value) & self.mask & mask:
            return None
        return Cube(self.mask | mask, self.value | value, self.lo, self.hi)

    def sized(self, lo: int, hi: int) -> Cube | None:
        """The part with a length in lo..hi; None: there is none."""
        lo, hi = max(lo, self.lo), min(hi, self.hi)
        return Cube(self.mask, self.value, lo, hi) if lo <= hi else None

    def overlaps(self, other: Cube) -> bool:
        """Whether some packet lies in both."""
        if (self.value ^ other.value) & self.mask & other.mask:
            return False
        return self.lo <= other.hi and other.lo <= self.hi

    def holds(self, bits: int, length: int) -> bool:
        """Whether a packet lies in it; `bits` is what `head_bits` gives."""
        return bits & self.mask == self.value and self.lo <= length <= self.hi


def head_bits(frame: bytes | bytearray | memoryview) -> int:
    """The first bytes of a packet as one number: its first bit is the highest."""
    head = frame[:WINDOW]
    return int.from_bytes(head, "big") << 8 * (WINDOW - len(head))


def bit_at(offset: int, number: int) -> int:
    """Where bit `number` (0: the lowest) of byte `offset` stands in `head_bits`."""
    return 8 * (WINDOW - 1 - offset) + number
