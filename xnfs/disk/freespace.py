"""The search for a run of free blocks in the free map's bits (0 = free).

First fit, near a hint of the caller's: where a file should lie is the caller's policy, not this
module's. It changes nothing and keeps no state. Guarantees: a run that is returned lies in
[low, end) and is free; a call's cost is bounded, on a badly fragmented disk too.
"""

from __future__ import annotations

from typing import Final

from bitarray import bitarray

#: So many runs that are too short are looked at before the search settles for the longest one:
#: fragmentation makes runs shorter, not calls slower.
SEARCH_RUNS: Final = 4096
#: From this length on every run holds whole free bytes worth looking for.
_LONG: Final = 32


def first_fit(
    bits: bitarray, raw: bytearray, low: int, end: int, hint: int, count: int
) -> tuple[int, int]:
    """(start, count) of the first run at or after `hint`, wrapping; else the longest run seen.

    `raw` is the same memory as `bits`. (start, 0) if nothing is free.
    """
    hint = hint if low <= hint < end else low
    best = hint, 0
    # A run may begin before the hint and end after it.
    for lo, hi in ((hint, end), (low, min(hint + count - 1, end))):
        found = _search(bits, raw, lo, hi, count)
        if found[1] > best[1]:
            best = found
        if best[1] == count:
            break
    return best


def _search(bits: bitarray, raw: bytearray, lo: int, hi: int, count: int) -> tuple[int, int]:
    """First fit in [lo, hi), or the longest run seen."""
    if count >= _LONG and (start := _search_long(bits, raw, lo, hi, count)) >= 0:
        return start, count
    best, at, find = (lo, 0), lo, bits.find
    for _run in range(SEARCH_RUNS):
        start = find(0, at, hi)
        if start < 0:
            break
        limit = min(start + count, hi)
        at = find(1, start, limit)
        at = limit if at < 0 else at
        if at - start > best[1]:
            best = start, at - start
            if best[1] == count:
                break
    return best


def _search_long(bits: bitarray, raw: bytearray, lo: int, hi: int, count: int) -> int:
    """Start of the first run of `count` in [lo, hi), or -1, by way of the zero bytes in it.

    bytearray.find sees zero bytes about a hundred times faster than bitarray.find a run of bits.
    """
    # Over blocks in use the search for a single bit is faster still.
    lo = bits.find(0, lo, hi)
    if lo < 0 or count > hi - lo:
        return -1
    needle, at = bytes((count - 7) // 8), -(-lo // 8)
    for _run in range(SEARCH_RUNS):
        byte = raw.find(needle, at, hi // 8)
        if byte < 0:
            break
        # The byte before is not zero, or is where the search began.
        floor = max(lo, 8 * byte - 8)
        start = max(floor, bits.find(1, floor, 8 * byte, right=True) + 1)
        limit = min(start + count, hi)
        end = bits.find(1, 8 * byte, limit)
        if end < 0 and limit - start == count:
            return start
        at = (limit if end < 0 else end) // 8
    return -1
