"""Longer workloads, drawn by a seed: a dozen operations, or a hundred and more.

What they bring up and short ones don't: directories that split and inodes that fill, disks without
room, frames that run out, files that live on without a name, blocks that come back to somebody
else. The same seed gives the same operations.
"""

from __future__ import annotations

import random

from xnfs_trials.crash.ops import KINDS, Op

DIRS = ("", "A/", "B/", "A/C/", "D/")
NAMES = ("foo", "bar", "baz")
#: A name so long that few of them fill a block of names.
LONG = "x" * 180
K = 1024
MAX_SIZE = 40 * K

#: kind -> how often it is drawn
WEIGHTS = {
    **dict.fromkeys(KINDS, 2),
    "create": 8,
    "mkdir": 4,
    "link": 5,
    "unlink": 6,
    "rename": 6,
    "replace": 6,
    "exchange": 3,
    "write": 10,
    "overwrite": 4,
    "append": 6,
    "mwrite": 4,
    "truncate": 5,
    "fsync": 9,
    "fdatasync": 3,
    "sync": 2,
    "evict": 3,
    "writeback": 3,
    "hold": 2,
    "release": 1,
    "idle": 1,
}
#: What is drawn more often, by mode: each brings up other histories.
MODES: tuple[tuple[str, ...], ...] = (
    (),
    ("link", "unlink", "rename", "replace", "exchange", "mkdir", "rmdir", "fsync"),
    ("write", "append", "mwrite", "truncate", "allocate", "punch", "zero", "writeback", "fsync"),
    ("allocate", "write", "rename", "fsync", "sync", "writeback"),
    ("write", "unlink", "create", "hold", "release", "writeback", "fsync", "truncate"),
)


def short(rng: random.Random) -> list[Op]:
    """A dozen operations on a few names, with syncs among them."""
    return [*_draw(rng, 12, DIRS[:3], NAMES[:2]), Op("sync")]


def long(rng: random.Random) -> list[Op]:
    """Some hundred, until directories split and the disk is full, then until it is empty again."""
    names = (*NAMES, *(f"n{i}{LONG}" for i in range(24)))
    ops = _draw(rng, 60, DIRS, names)
    ops += [Op("create", f"D/n{i}{LONG}") for i in range(20)]
    ops += [Op("write", f"{d}foo", size=64 * 4 * K) for d in DIRS[:4]]  # more than there is room
    ops += _draw(rng, 30, DIRS, names)
    ops += [Op("unlink", path) for path in _paths(DIRS[:4], NAMES[:1])]
    return [*ops, *_draw(rng, 30, DIRS, names), Op("sync")]


def _paths(dirs: tuple[str, ...], names: tuple[str, ...]) -> list[str]:
    return [d + n for d in dirs for n in names]


def _draw(
    rng: random.Random, count: int, dirs: tuple[str, ...], names: tuple[str, ...]
) -> list[Op]:
    more = rng.choice(MODES)
    kinds = list(KINDS)
    weights = [WEIGHTS[kind] + 8 * more.count(kind) for kind in kinds]
    return [one(rng, kind, dirs, names) for kind in rng.choices(kinds, weights, k=count)]


def one(rng: random.Random, kind: str, dirs: tuple[str, ...], names: tuple[str, ...]) -> Op:
    """An operation of a kind on names that are drawn."""

    def path() -> str:
        return rng.choice(dirs) + rng.choice(names)

    def directory() -> str:
        return rng.choice([d for d in dirs if d]).rstrip("/")

    size = rng.choice((16, 512, 2560, 4 * K, 12 * K, 4 * K + 512))
    at = rng.choice((0, 4 * K, 512 * rng.randrange(40), 16 * rng.randrange(256)))
    keep = rng.random() < 0.5
    if kind in ("mkdir", "rmdir"):
        return Op(kind, directory())
    if kind in ("rename", "replace", "exchange") and rng.random() < 0.2:
        return _of_directories(kind, directory(), directory())
    if kind == "setxattr":
        return Op(kind, path(), at=rng.randrange(3), size=16 * rng.randrange(1, 128))
    if kind == "removexattr":
        return Op(kind, path(), at=rng.randrange(3))
    if kind == "truncate":
        return Op(kind, path(), size=rng.choice((0, at, MAX_SIZE)))
    if kind in ("chmod", "writeback", "evict", "collect"):
        return Op(kind, path() if kind == "chmod" else "", size=rng.randrange(256))
    letters = KINDS[kind]
    first, second = rng.sample(_paths(dirs, names), 2)
    return Op(
        kind,
        first if "p" in letters else "",
        second if "q" in letters else "",
        at if "a" in letters else 0,
        size if "n" in letters else 0,
        keep and "k" in letters,
    )


def _of_directories(kind: str, path: str, to: str) -> Op:
    """Not of one and something in it: that can't be made to fit."""
    if f"{path}/".startswith(f"{to}/") or f"{to}/".startswith(f"{path}/"):
        return Op("fsync", "/")
    return Op(kind, path, to)
