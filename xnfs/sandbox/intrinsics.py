"""The fixed list of functions that downloaded code may call: names and argument shapes.

This is a table of declarations. What each one proves is in `verifier`, what it costs is in
`language` (fixed part) and `verifier` (the part that grows with a length), and what it computes
stands twice, in `compiler` and in `interpreter`, so that a test can set one against the other.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Load:
    """One unsigned integer of `width` bytes at (buffer, offset)."""

    width: int
    big_endian: bool = False


@dataclass(frozen=True, slots=True)
class LoadMany:
    """A tuple of a constant number of little-endian integers of `width` bytes each."""

    width: int


@dataclass(frozen=True, slots=True)
class Bulk:
    """An integer computed from `spans` runs (buffer, offset) of one length in bytes.

    The arguments are the spans, the length, and `extra` more integers. The result is in 0..hi.
    """

    spans: int
    extra: int
    hi: int


INTRINSICS: Final[dict[str, Load | LoadMany | Bulk]] = {
    "u8": Load(1),
    "u16": Load(2),
    "u32": Load(4),
    "u64": Load(8),
    "be16": Load(2, big_endian=True),  # network byte order
    "be32": Load(4, big_endian=True),
    "u8s": LoadMany(1),
    "u16s": LoadMany(2),
    "u32s": LoadMany(4),
    "u64s": LoadMany(8),
    "same": Bulk(spans=2, extra=0, hi=1),  # 1 when the bytes are equal
    "zero": Bulk(spans=1, extra=0, hi=1),  # 1 when every byte is zero
    "hash64": Bulk(spans=1, extra=1, hi=2**64 - 1),  # BLAKE2b, 8 bytes, little-endian 8-byte key
    "crc32": Bulk(spans=1, extra=0, hi=2**32 - 1),  # the CRC of zlib, gzip and Ethernet
}

BULK_BYTES_PER_STEP: Final = 64  # a bulk intrinsic costs one step more for each started 64 bytes

RESERVED: Final = frozenset(INTRINSICS) | {"len", "min", "max", "range", "emit"}
