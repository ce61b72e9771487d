"""Families of workloads, each numbered: member n is the same for ever, given the seed.

    one        every operation with every way of making it durable, in the manner of ACE
    two        every pair of them
    three      three of them, drawn by the seed, more often rename, link and unlink; endless
    random     a dozen operations on a few names, with syncs among them; endless
    soak       some hundred, until the disk is full, and empty again; endless

The first two are in scattered order, so that a part of them is a sample. Anything else is one
workload in full: operations with semicolons between.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from xnfs_trials.crash import ace, soak
from xnfs_trials.crash.ops import Op, name_of, parse_name

#: (name, operations)
Named = tuple[str, list[Op]]


@dataclass(frozen=True)
class Family:
    """`count`: how many there are, None = no end. `make`: members from a number on."""

    count: int | None
    make: Callable[[int], Iterator[Named]]

    def part(self, first: int, count: int) -> Iterator[tuple[int, Named]]:
        """(number, member) of some in a row."""
        return zip(range(first, first + count), self.make(first), strict=False)


#: What can be asked for by name.
FAMILIES: Final = ("one", "two", "three", "random", "soak")
_DRAWN: Final[dict[str, Callable[[random.Random], list[Op]]]] = {
    "three": ace.three,
    "random": soak.short,
    "soak": soak.long,
}
#: Prime: how far apart the enumerated workloads are that follow each other.
STRIDE: Final = 104_729


def family(name: str, seed: int) -> Family:
    """The family of a name, or the one workload that the text is. Raises ValueError."""
    if name in ("one", "two"):
        every = ace.one() if name == "one" else ace.two()
        n = every.count
        return Family(n, lambda first: (every[i * STRIDE % n] for i in range(first, n)))
    if name in _DRAWN:
        return Family(None, lambda first: _drawn(name, seed, first))
    ops = parse_name(name)
    if not ops:
        raise ValueError(f"no workload: {name!r}")
    return Family(1, lambda first: iter([(name_of(ops), ops)][first:]))


def _drawn(name: str, seed: int, number: int) -> Iterator[Named]:
    while True:
        ops = _DRAWN[name](random.Random(f"{name} {seed} {number}"))
        yield name_of(ops), ops
        number += 1
