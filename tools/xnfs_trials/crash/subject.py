"""The file system on trial, by name: `load("ffs")`, or `load("module:Class")` for anybody's.

A class is a subject when it has two static methods:

    mkfs(xn, cap, name)                     an empty file system under the root `name`, durable
    mount(xn, cap, name, readonly=False)    the `FileSystem` of `libfs.posix.interface`

That is enough for every trial. Inode numbers must stay over a remount, as they must while mounted.
Four more attributes are optional:

    raw_walk(disk)      the tree, from the recovered bytes of an image alone; without it a trial
                        mounts each state, read-only, and looks. Breaks of the format's own rules
                        go to `disk.find`.
    crash_promises      what it keeps beyond the basic promise (`model.py`): WHOLE, ORDER
    spare_blocks        how many blocks it may keep, when all is deleted, beyond a new one's;
                        None: not asked
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

from libfs.ffs import Ffs
from libfs.ffs import check as check_ffs
from libfs.lfs import Lfs
from libfs.lfs import check as check_lfs
from libfs.posix.interface import FileSystem
from xnfs import Xn
from xnfs_trials.crash.checker import Checker
from xnfs_trials.crash.lfswalk import ROOT, LfsWalk
from xnfs_trials.crash.model import ORDER, WHOLE
from xnfs_trials.crash.rawdisk import RawDisk
from xnfs_trials.crash.trees import Tree

Mkfs = Callable[[Xn, bytes, str], None]
Mount = Callable[..., FileSystem]
RawWalk = Callable[[RawDisk], Tree]
Check = Callable[..., object]

UUID = bytes(range(16))


@dataclass(frozen=True)
class Subject:
    """A file system that can be made, mounted, and perhaps read without its code."""

    spec: str
    mkfs: Mkfs
    mount: Mount
    raw_walk: RawWalk | None = None
    check: Check | None = None
    promises: frozenset[str] = frozenset()
    spare: int | None = 0


class FfsSubject:
    """FFS, with an independent reader of its bytes."""

    crash_promises = frozenset({WHOLE, ORDER})

    @staticmethod
    def mkfs(xn: Xn, cap: bytes, name: str) -> None:
        """Always the same bytes."""
        Ffs.mkfs(xn, cap, name, uuid=UUID)

    mount = staticmethod(Ffs.mount)
    check = staticmethod(check_ffs)

    @staticmethod
    def raw_walk(disk: RawDisk) -> Tree:
        """Follow its pointers, and check the shape of what they lead to."""
        walk = Checker(disk)
        walk.run()
        return Tree(walk.inodes, walk.root)


class LfsSubject:
    """LFS, with an independent reader. What is dead in its log stays in use until it is cleaned."""

    crash_promises = frozenset({WHOLE, ORDER})
    spare_blocks = None

    @staticmethod
    def mkfs(xn: Xn, cap: bytes, name: str) -> None:
        """Always the same bytes."""
        Lfs.mkfs(xn, cap, name, uuid=UUID)

    mount = staticmethod(Lfs.mount)
    check = staticmethod(check_lfs)

    @staticmethod
    def raw_walk(disk: RawDisk) -> Tree:
        """Read its map and its log, and check that what is named is what it is taken for."""
        walk = LfsWalk(disk)
        walk.run()
        return Tree(walk.inodes, ROOT)


#: Short names.
KNOWN = {"ffs": f"{__name__}:FfsSubject", "lfs": f"{__name__}:LfsSubject"}


@lru_cache(maxsize=64)
def load(spec: str) -> Subject:
    """The subject of a name or of `module:Class`.

    Raises ValueError if there is no such module or class, or one of its methods is missing.
    """
    module, _, attribute = KNOWN.get(spec, spec).partition(":")
    try:
        kind = getattr(importlib.import_module(module), attribute)
        return subject(kind, spec)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"no file system {spec!r}: {error}") from error


def subject(kind: type, spec: str = "") -> Subject:
    """A class as a subject. Raises AttributeError if it can't be one."""
    mkfs: Mkfs = kind.mkfs  # type: ignore[attr-defined]
    mount: Mount = kind.mount  # type: ignore[attr-defined]
    return Subject(
        spec or f"{kind.__module__}:{kind.__qualname__}",
        mkfs,
        mount,
        getattr(kind, "raw_walk", None),
        getattr(kind, "check", None),
        getattr(kind, "crash_promises", frozenset()),
        getattr(kind, "spare_blocks", 0),
    )
