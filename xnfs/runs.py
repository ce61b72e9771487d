"""Numbers in runs: what lies side by side is handled as one.

Nothing here knows what the numbers are: blocks of a disk, page frames.
"""

from __future__ import annotations

from collections.abc import Iterable

#: (first, count)
Run = tuple[int, int]


def runs(numbers: Iterable[int], limit: int = 4096) -> list[Run]:
    """Group different numbers into (first, count), ascending, none longer than `limit`.

    Sorted, the number k places on is greater by exactly k within a run and by more behind it. So
    the end is found in steps that double, or at once if it is that of all numbers: a run costs no
    more than the logarithm of its length.
    """
    order = sorted(numbers)
    out: list[Run] = []
    at, size = 0, len(order)
    while at < size:
        first, most = order[at], min(limit, size - at)
        n, step = (most, 0) if order[at + most - 1] == first + most - 1 else (1, 1)
        while step and n < most:
            reach = min(n + step, most)
            if order[at + reach - 1] == first + reach - 1:
                n, step = reach, step * 2
            else:
                step //= 2
        out.append((first, n))
        at += n
    return out
