"""Which states to make at one cut, each with a number, so that a run can make a part of them.

A choice names the pending writes that reached the disk, as a mask, and the one that tore. The
choices of a cut are families laid end to end: subsets, then torn blocks. Subsets come in the order
of a Gray code, so that neighbours differ in one write.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import comb, isqrt
from typing import NamedTuple

WHOLE = 255  # all eight sectors
PREFIXES = 7  # of the nine prefixes of a block two are "not at all" and "whole"
SUBSETS = 254  # of its 256 sets of sectors, likewise


@dataclass(frozen=True)
class Plan:
    """Which states are made. The defaults are the maxima: of up to `exhaustive` unflushed writes
    every subset; above, all with at most `near` lost or at most `near` there, and `samples` random
    ones."""

    exhaustive: int = 14
    near: int = 2
    samples: int = 4096
    torn: int | None = None  # None: every prefix of each block, every subset of metadata; else: so
    #                          many random tears at each cut, and
    few: int = 0  # every subset of the sectors that change in the newest block, if it is metadata
    #               and they are at most so many
    states: int | None = None  # make at most so many, spread over all cuts; the rest is left out
    depth: int = 2  # cuts in a row: 2 = also during the recovery that follows a cut
    again: int | None = None  # at most so many states of one recovery
    third: float = 0.02  # of the second cuts this part is followed by a third


FULL = Plan()
QUICK = Plan(exhaustive=6, near=1, samples=8, torn=2, depth=1)


class Choice(NamedTuple):
    """The writes that are there (a mask over the pending ones), and of one of these the sectors
    that are. `alike`: how many other choices differ only in sectors that are old and new alike."""

    mask: int
    torn: int = 0
    sectors: int = WHOLE
    alike: int = 0


@dataclass(frozen=True)
class Cutpoint:
    """One cut: after `number` events, these could be lost. `settled`: became durable just before.

    `newest`: True: only states that hold the last pending write, the others have been seen; False:
    all of them, once more (a sync has returned); None: only the one that holds none (a flush has
    completed). `closing`: a flush or the end comes next. `metadata`: of which pending writes every
    subset of the sectors is wanted; `few`: the sectors that change in the newest one, if so few.
    """

    number: int
    acked: int
    pending: tuple[int, ...]
    settled: tuple[int, ...]
    newest: bool | None
    closing: bool = False
    metadata: int = 0
    few: tuple[int, ...] = ()


#: (how many, the choice with a number below that)
Family = tuple[int, Callable[[int], Choice]]


def number_of(cut: Cutpoint, plan: Plan) -> int:
    """How many states the plan asks for at a cut."""
    return sum(count for count, _ in _families(cut, plan, random.Random(0)))


def pick(cut: Cutpoint, plan: Plan, share: int, rng: random.Random) -> Iterator[Choice]:
    """The first, and of the others a seeded choice, `share` in all; all if there are no more."""
    families = _families(cut, plan, rng)
    total = sum(count for count, _ in families)
    numbers: Sequence[int] = range(total)
    if share < total:
        numbers = [0, *sorted(rng.sample(range(1, total), share - 1))]
    base, at = 0, 0
    for number in numbers:
        while number - base >= families[at][0]:
            base += families[at][0]
            at += 1
        yield families[at][1](number - base)


def share_out(counts: Sequence[int], most: int | None) -> list[int]:
    """At most `most` together, but one each: small counts in full, the large ones alike."""
    if most is None or sum(counts) <= most:
        return list(counts)
    left, level = most, 0
    for seen, count in enumerate(sorted(counts)):
        level = max(1, left // (len(counts) - seen))
        if count > level:
            break
        left -= count
    return [min(count, level) for count in counts]


def _families(cut: Cutpoint, plan: Plan, rng: random.Random) -> list[Family]:
    n = len(cut.pending)
    if cut.newest is None or not n:
        return [(1, lambda i: Choice(0))]
    last = 1 << n - 1 if cut.newest else 0
    free = n - 1 if cut.newest else n  # the bits that vary
    if n <= plan.exhaustive:
        families = [(1 << free, lambda i: Choice(i ^ i >> 1 | last))]
    else:
        families = [
            (_sets(free, plan.near), lambda i: Choice(_set(free, i) ^ (1 << n) - 1)),
            (_sets(free, plan.near - bool(last)), lambda i: Choice(_set(free, i) | last)),
            (plan.samples, lambda i: Choice(rng.getrandbits(n) | last)),
        ]
    if cut.newest:
        families += _tears(cut, plan, rng)
    return families


def _tears(cut: Cutpoint, plan: Plan, rng: random.Random) -> Iterator[Family]:
    n = len(cut.pending)
    full, last = (1 << n) - 1, 1 << n - 1
    if plan.torn is not None:
        yield plan.torn, lambda i: _random_tear(n, rng)
        if cut.few:
            alike = (1 << 8 - len(cut.few)) - 1
            yield (
                (1 << len(cut.few)) - 2,
                lambda i: Choice(full, n - 1, _spread(cut.few, i + 1), alike),
            )
        return
    yield PREFIXES, lambda i: Choice(last, n - 1, (2 << i) - 1)
    yield PREFIXES * n, lambda i: Choice(full, i // PREFIXES, (2 << i % PREFIXES) - 1)
    if cut.metadata >> n - 1:
        yield SUBSETS, lambda i: Choice(last, n - 1, i + 1)
        yield SUBSETS, lambda i: Choice(full, n - 1, i + 1)
    if cut.closing:
        which = [i for i in range(n - 1) if cut.metadata >> i & 1]
        count = SUBSETS * len(which)
        yield count, lambda i: Choice(full, which[i // SUBSETS], i % SUBSETS + 1)


def _random_tear(n: int, rng: random.Random) -> Choice:
    """The newest write, torn, with others."""
    mask = rng.getrandbits(n) if rng.random() < 0.5 else (1 << n) - 1
    prefix = rng.random() < 0.6
    sectors = (1 << rng.randrange(1, 8)) - 1 if prefix else rng.randrange(1, 255)
    return Choice(mask | 1 << n - 1, n - 1, sectors)


def _spread(sectors: Sequence[int], which: int) -> int:
    """Some of these sectors, as a mask over all eight."""
    return sum(1 << sector for i, sector in enumerate(sectors) if which >> i & 1)


def _sets(n: int, most: int) -> int:
    """How many sets of at most `most` (0..2) of n things there are."""
    return sum(comb(n, k) for k in range(most + 1))


def _set(n: int, number: int) -> int:
    """The set with a number, as a mask: the empty one, those of one, those of two."""
    if number <= n:
        return 1 << number >> 1
    number -= n + 1
    high = (isqrt(8 * number + 1) + 1) // 2  # pairs (low, high), low < high, ordered by high
    return 1 << high | 1 << number - high * (high - 1) // 2
