"""One flipped bit, found by the checksum alone.

CRC-32 is linear: what a flipped bit changes in it depends on how far the bit lies from the end, and
on nothing else. Up to 91,607 bits, checksum included, any two codewords differ in 4 bits or more
(Koopman 2002, table 1), and a block has 32,768. So one wrong bit is found for certain, and two are
never taken for one. Bytes that are wrong altogether look like one flipped bit once in 131,000
times: who mends by this believes the result as little as any other block.

Used so since 1991 for the headers of ATM cells (ITU-T I.432).
"""

from __future__ import annotations

from typing import Final

from xnfs.disk.layout import U32, Seed

#: Of CRC-32, bits reversed.
_POLYNOMIAL: Final = 0xEDB88320


def flipped_bit(difference: int, size: int) -> int | None:
    """Which bit of `size` bytes is flipped, if one is. `difference`: between the checksum that they
    should have and the one that they have, exclusive or."""
    change = _POLYNOMIAL  # made by the last bit
    for bit in range(8 * size - 1, -1, -1):
        if change == difference:
            return bit
        change = change >> 1 ^ (_POLYNOMIAL if change & 1 else 0)
    return None


def unflip_untrusted(seed: Seed, bno: int, raw: bytearray, offset: int) -> int | None:
    """Set one flipped bit of a block right, whose checksum lies at `offset` and covers the rest.

    The byte in which it was; None, and nothing is changed, if that is not what is wrong.
    """
    got: int = U32.unpack_from(raw, offset)[0]
    difference = got ^ seed.crc(bno, raw[:offset], raw[offset + U32.size :])
    if difference.bit_count() == 1:  # in the checksum itself
        bit = 8 * offset + difference.bit_length() - 1
    else:
        found = flipped_bit(difference, len(raw) - U32.size)
        if found is None:
            return None
        bit = found if found < 8 * offset else found + 8 * U32.size
    raw[bit // 8] ^= 1 << bit % 8
    return bit // 8
