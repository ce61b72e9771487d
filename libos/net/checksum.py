"""The Internet checksum: the one's complement of the one's complement sum of 16-bit words.

A one's complement sum is the number that the bytes spell, modulo 65535, so one conversion and one
division by a single digit do it at the speed of C. It has two zeros: 0 only where every word is 0,
else 65535. Sums of parts are added like numbers, as long as each part but the last has an even
length. Sources: RFC 1071, RFC 1624.
"""

from __future__ import annotations

import struct
from typing import Final

Buffer = bytes | bytearray | memoryview

_WORDS: Final = 65535


def fold(total: int) -> int:
    """A sum of sums as one word."""
    return total % _WORDS or (_WORDS if total else 0)


def partial_sum(data: Buffer) -> int:
    """The sum of the 16-bit words as one word; an odd last byte is padded with a zero."""
    total = int.from_bytes(data, "big")
    return fold(total << 8 if len(data) & 1 else total)


def finish(total: int) -> int:
    """The checksum to store, from a sum of partial sums."""
    return _WORDS - fold(total)


def checksum(data: Buffer) -> int:
    """The checksum of one run of bytes."""
    return finish(partial_sum(data))


def pseudo_header(source: int, destination: int, protocol: int, length: int) -> int:
    """The partial sum of what TCP and UDP sum before their own header (RFC 9293, section 3.1)."""
    return source % _WORDS + destination % _WORDS + protocol + length


def holds(data: Buffer, before: int = 0) -> bool:
    """Whether bytes that carry their checksum, with a partial sum before them, are intact."""
    return finish(partial_sum(data) + before) == 0


def stamp(header: bytearray, offset: int, before: int = 0) -> None:
    """Write the checksum of `header`, whose field at `offset` is zero, into that field."""
    struct.pack_into(">H", header, offset, finish(partial_sum(header) + before))
