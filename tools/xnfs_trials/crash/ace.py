"""All short workloads, enumerated and named, in the manner of ACE (Mohan et al., OSDI 2018).

A *step* is one operation over a small name space (files `foo` and `bar` in the root, in A and in B;
directories A, B, A/C), followed by a persistence point: fsync of what it named, fdatasync, fsync of
the directory, sync, or nothing. A workload of n operations is n steps, and the last always has a
persistence point. What an operation needs (`prepare.py`) is set up before.

    one()    every step
    two()    every pair; of two first steps that are each other's mirror image (`foo` and `bar`, or
             A and B, change places everywhere) only one is in it, as the second steps are complete
    three()  drawn, with more of rename, link and unlink

Each family can be counted, indexed and sliced without being made; a workload's name is its text, so
it means the same operations for ever.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from xnfs_trials.crash.ops import Op, name_of, parse_name

Workload = tuple[str, list[Op]]
Step = tuple[Op, ...]  # the operation, and its persistence point if it has one

FILES = ("foo", "bar", "A/foo", "A/bar", "B/foo", "B/bar")
DIRS = ("A", "B", "A/C")
#: Pairs of directories of which the first can be moved to the second's place.
DIR_PAIRS = (("A", "B"), ("B", "A"), ("B", "A/C"), ("A/C", "B"))
K = 1024


def _data_ops(path: str) -> Iterator[Op]:
    """Bytes: a file holds 9 KiB where an operation needs some (`prepare.FILLED`)."""
    yield from (Op("write", path, at=at, size=size) for at, size in ((0, 512), (0, 12 * K)))
    yield Op("write", path, at=16 * K, size=4 * K)  # beyond the end
    for at, size in ((0, 4 * K), (2 * K, 4 * K), (6 * K, 2 * K)):
        yield Op("overwrite", path, at=at, size=size)
    yield from (Op("append", path, size=size) for size in (512, 8 * K))
    yield from (Op("mwrite", path, at=at, size=8 * K) for at in (0, 2 * K, 4 * K))
    yield from (Op("truncate", path, size=size) for size in (0, 2 * K + 512, 16 * K))
    for at in (0, 8 * K):
        yield from (Op("allocate", path, at=at, size=8 * K, keep=keep) for keep in (True, False))
    yield from (Op("punch", path, at=at, size=4 * K) for at in (0, 4 * K, 6 * K))
    yield Op("zero", path, at=2 * K, size=4 * K)
    yield from (Op("zero", path, at=8 * K, size=4 * K, keep=keep) for keep in (True, False))
    yield from (Op("setxattr", path, at=1, size=size) for size in (64, 2 * K))
    yield Op("removexattr", path, at=1)


def _name_ops() -> Iterator[Op]:
    for path in FILES:
        yield from (Op(kind, path) for kind in ("create", "symlink", "unlink"))
    for path in DIRS:
        yield from (Op(kind, path) for kind in ("mkdir", "rmdir"))
    for path in FILES:
        for to in FILES:
            if path != to:
                yield from (Op(kind, path, to) for kind in ("link", "rename", "replace"))
            if path < to:
                yield Op("exchange", path, to)
    for path, to in DIR_PAIRS:
        yield from (Op(kind, path, to) for kind in ("rename", "replace"))
    yield from (Op("exchange", path, to) for path, to in (("A", "B"), ("A/C", "B"), ("foo", "B")))


def _points(op: Op) -> Iterator[Op]:
    """The persistence points that make sense after an operation."""
    names = dict.fromkeys(p for p in (op.to, op.path) if p)
    there = [p for p in names if _is_there(op, p)]
    above = dict.fromkeys(p.rpartition("/")[0] or "/" for p in names)
    yield from (Op("fsync", path) for path in there)
    if not op.to and op.kind not in ("create", "mkdir", "symlink", "unlink", "rmdir"):
        yield Op("fdatasync", op.path)
    else:
        yield from (Op("fsync", path) for path in above)
    yield Op("sync")


def _is_there(op: Op, path: str) -> bool:
    """Is there a file or directory to sync under this path after the operation?"""
    if op.kind in ("unlink", "rmdir", "symlink"):
        return False
    return op.kind not in ("rename", "replace") or path == op.to


@lru_cache(maxsize=1)
def operations() -> tuple[Op, ...]:
    """Every operation of the name space."""
    data = [op for path in FILES for op in _data_ops(path)]
    return (*_name_ops(), *data)


@lru_cache(maxsize=1)
def last_steps() -> tuple[Step, ...]:
    """Every operation with every persistence point."""
    return tuple((op, point) for op in operations() for point in _points(op))


@lru_cache(maxsize=1)
def first_steps() -> tuple[Step, ...]:
    """The same and those without one; of mirror images one."""
    steps: list[Step] = []
    for op in operations():
        steps += [(op,), *((op, point) for point in _points(op))]
    named = {name_of(step): step for step in steps}
    return tuple(
        step
        for name, step in named.items()
        if not any(other < name and other in named for other in _mirrors(name))
    )


def _mirrors(name: str) -> Iterator[str]:
    """The name with its leaf names, its directories, or both, exchanged."""
    leaves = {"foo": "bar", "bar": "foo"}
    tops = {"A": "B", "B": "A"}
    for words in (leaves, tops, leaves | tops):
        parts = re.split(r"\b(foo|bar|A|B)\b", name)
        yield "".join(words.get(part, part) for part in parts)


@dataclass(frozen=True)
class Family:
    """Workloads by number: each is one of `parts[0]`, one of `parts[1]`, ..."""

    parts: tuple[tuple[Step, ...], ...]
    start: int = 0
    stride: int = 1

    @property
    def count(self) -> int:
        """How many there are."""
        total = 1
        for part in self.parts:
            total *= len(part)
        return max(0, -(-(total - self.start) // self.stride))

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Workload:
        if not 0 <= index < self.count:
            raise IndexError(index)
        number = self.start + index * self.stride
        steps: list[Step] = []
        for part in reversed(self.parts):
            number, at = divmod(number, len(part))
            steps.append(part[at])
        ops = [op for step in reversed(steps) for op in step]
        return name_of(ops), ops

    def __iter__(self) -> Iterator[Workload]:
        return (self[i] for i in range(self.count))

    def slice(self, i: int, n: int) -> Family:
        """The i-th of n parts that together are the whole: every n-th workload from i on."""
        if not 0 <= i < n:
            raise ValueError(f"slice {i} of {n}")
        return Family(self.parts, self.start + i * self.stride, self.stride * n)


def one() -> Family:
    """Every one-operation workload."""
    return Family((last_steps(),))


def two() -> Family:
    """Every two-operation workload, but for mirror images."""
    return Family((first_steps(), last_steps()))


#: How much more often an operation is drawn for `three`.
FOCUS = {"rename": 3, "replace": 3, "link": 3, "unlink": 8, "exchange": 2, "create": 2}


def three(rng: random.Random) -> list[Op]:
    """A three-operation workload, drawn."""
    first, last = first_steps(), last_steps()
    weights = [[FOCUS.get(step[0].kind, 1) for step in part] for part in (first, last)]
    steps = [*rng.choices(first, weights[0], k=2), *rng.choices(last, weights[1])]
    return [op for step in steps for op in step]


def workload(name: str) -> list[Op]:
    """The operations of a name. Raises ValueError."""
    return parse_name(name)
