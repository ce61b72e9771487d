"""Multisets of extents: the arithmetic behind "exactly this, nothing more and nothing less".

An extent is (type number, start, count). A multiset of extents stands for a multiset of (type,
block) pairs; a block may occur more than once (two directory entries for one inode). Nothing here
knows about disks.
"""

from __future__ import annotations

import sys
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from itertools import chain

from xnfs.disk.records import Extent


def merge(extents: Sequence[Extent]) -> list[Extent]:
    """The same multiset in its one normal form: sorted, neighbours joined, repeats kept apart."""
    if len(extents) < 2:
        return list(extents)
    return _sweep(chain.from_iterable(((t, s, 1), (t, s + n, -1)) for t, s, n in extents))[0]


def within(extents: Sequence[Extent], t: int, start: int, count: int) -> bool:
    """True if one extent of a normal form has the whole run, as that type."""
    at = bisect_right(extents, (t, start, sys.maxsize)) - 1
    if at < 0:
        return False
    u, s, n = extents[at]
    return u == t and start + count <= s + n


def difference(minus: list[Extent], plus: list[Extent]) -> tuple[list[Extent], list[Extent]]:
    """(removed, added), normal forms of `minus - plus` and `plus - minus` as multisets."""
    if not minus:
        return [], merge(plus)
    if not plus:
        return merge(minus), []
    if len(minus) == 1 == len(plus):
        (t, s, n), (u, r, m) = minus[0], plus[0]
        if t == u and s == r:  # one extent that grew or shrank at its end
            if m > n:
                return [], [(t, s + n, m - n)]
            return [(t, s + m, n - m)] if n > m else [], []
    minus, plus = _cancel(minus, plus)
    if not minus or not plus:
        return merge(minus), merge(plus)
    added, removed = _sweep(
        chain(
            chain.from_iterable(((t, s, -1), (t, s + n, 1)) for t, s, n in minus),
            chain.from_iterable(((t, s, 1), (t, s + n, -1)) for t, s, n in plus),
        )
    )
    return removed, added


def _cancel(minus: Sequence[Extent], plus: Sequence[Extent]) -> tuple[list[Extent], list[Extent]]:
    """Both without what occurs whole in both: in a block of names, that is nearly everything."""
    left: dict[Extent, int] = {}
    for extent in minus:
        left[extent] = left.get(extent, 0) + 1
    rest = []
    for extent in plus:
        if left.get(extent):
            left[extent] -= 1
        else:
            rest.append(extent)
    return [extent for extent, n in left.items() for _ in range(n)], rest


def _sweep(edges: Iterable[tuple[int, int, int]]) -> tuple[list[Extent], list[Extent]]:
    """Walk boundaries (type, block, change of depth) in order; runs of positive and of negative
    depth.
    """
    above: list[Extent] = []
    below: list[Extent] = []
    depth, kind, start = 0, -1, 0
    for t, block, step in sorted(edges):
        if depth and (block > start or t != kind):
            target = above if depth > 0 else below
            _put(target, kind, start, block - start, abs(depth))
        depth += step
        kind, start = t, block
    return merge_sorted(above), merge_sorted(below)


def _put(target: list[Extent], kind: int, start: int, count: int, copies: int) -> None:
    target.extend([(kind, start, count)] * copies)


def merge_sorted(runs: list[Extent]) -> list[Extent]:
    """Join neighbours; a block that occurs k times ends in k different extents, longest first."""
    open_: list[list[int]] = []
    done: list[Extent] = []
    for t, s, n in runs:
        for run in open_:
            if run[0] == t and run[1] + run[2] == s:
                run[2] += n
                break
        else:
            open_.append([t, s, n])
        # Runs that can't grow any more leave the short list of open ones.
        keep = []
        for run in open_:
            if run[0] == t and run[1] + run[2] >= s:
                keep.append(run)
            else:
                done.append((run[0], run[1], run[2]))
        open_ = keep
    done += [(t, s, n) for t, s, n in open_]
    return sorted(done)
