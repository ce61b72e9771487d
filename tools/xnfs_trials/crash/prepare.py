"""What a sequence of operations needs before it can run: files, directories, bytes, attributes.

`prepare(ops)` runs the operations on a sketch of the tree. What an operation needs and is not there
is made: in the setting (before anything is recorded, and durable) if no earlier operation has named
that path or one above it, else right before the operation, which is how ACE does it too. So every
sequence can run, and a part of one as well, which is what shrinking asks for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from xnfs_trials.crash.ops import Op

#: What a file holds that is made because an operation needs bytes in it: more than FFS keeps
#: inline, and no whole number of blocks.
FILLED = 9 * 1024
_ON_ROOT = frozenset("chmod setxattr removexattr fsync fdatasync".split())
_ON_FILES = frozenset("write overwrite append mwrite truncate allocate punch zero".split())


@dataclass
class _Thing:
    """A file ("f"), directory ("d") or symbolic link ("l")."""

    kind: str
    size: int = 0
    xattrs: set[int] = field(default_factory=set)


def _above(path: str) -> str:
    return path.rpartition("/")[0]


class _Sketch:
    """The tree as it will be."""

    def __init__(self) -> None:
        root = _Thing("d")
        self.things: dict[str, _Thing] = {"": root, "/": root}
        self.touched: set[str] = set()
        self.setting: list[Op] = []
        self.ops: list[Op] = []

    # -- making what is missing

    def need(self, *ops: Op) -> None:
        """Do these first: in the setting if no operation has come near their paths."""
        for op in ops:
            self._apply(op)
            early = not any(self._near(p) for p in op.paths)
            (self.setting if early else self.ops).append(op)

    def _near(self, path: str) -> bool:
        """Has an operation named the path, or one above or below it?"""
        if any(p.startswith(path + "/") for p in self.touched):
            return True
        while path:
            if path in self.touched:
                return True
            path = _above(path)
        return False

    def directory(self, path: str) -> None:
        """There must be a directory."""
        if self._is(path, "d"):
            return
        self.absent(path)
        self.need(Op("mkdir", path))

    def file(self, path: str, size: int = 0) -> None:
        """There must be a file; of `size` bytes, unless an earlier operation left it smaller."""
        made = not self._is(path, "f")
        if made:
            self.absent(path)
            self.need(Op("create", path))
        if self.things[path].size < size and (made or not self._near(path)):
            self.need(Op("write", path, size=size))

    def there(self, path: str) -> None:
        """There must be something, a file if it must be made."""
        if path not in self.things:
            self.file(path)

    def absent(self, path: str) -> None:
        """Nothing may be there, but there must be a directory to put it in."""
        self.directory(_above(path))
        if path in self.things:
            self.empty(path)
            self.need(Op("rmdir" if self._is(path, "d") else "unlink", path))

    def empty(self, path: str) -> None:
        """Nothing may be below."""
        for below in sorted(self._below(path), reverse=True):
            self.need(Op("rmdir" if self._is(below, "d") else "unlink", below))

    def _is(self, path: str, kind: str) -> bool:
        return path in self.things and self.things[path].kind == kind

    def _below(self, path: str) -> list[str]:
        return [p for p in self.things if p.startswith(path + "/")]

    # -- operations

    def add(self, op: Op) -> None:
        """An operation of the sequence, after all that it needs. Raises ValueError."""
        if "/" in op.paths and op.kind not in _ON_ROOT:
            raise ValueError(f"{op}: not of the root")
        if op.to and (
            f"{op.to}/".startswith(f"{op.path}/") or f"{op.path}/".startswith(f"{op.to}/")
        ):
            raise ValueError(f"{op}: one is the other, or lies below it")
        self._require(op)
        self._apply(op)
        self.ops.append(op)
        self.touched.update(op.paths)

    def _require(self, op: Op) -> None:
        if op.kind in ("create", "mkdir", "symlink"):
            self.absent(op.path)
        elif op.kind == "hold":
            self.file(op.path)
        elif op.kind in ("unlink", "chmod", "fsync", "fdatasync", "setxattr", "removexattr"):
            self._require_one(op)
        elif op.kind == "rmdir":
            self.directory(op.path)
            self.empty(op.path)
        elif op.kind in ("link", "rename", "replace", "exchange"):
            self._require_two(op)
        elif op.kind in _ON_FILES:
            self.file(op.path, 0 if op.kind == "write" and not op.at else FILLED)

    def _require_one(self, op: Op) -> None:
        if op.kind == "unlink" and self._is(op.path, "d"):
            self.absent(op.path)
        if op.kind == "setxattr" and self._is(op.path, "l"):
            self.absent(op.path)
        self.there(op.path)
        if op.kind == "removexattr" and op.at not in self.things[op.path].xattrs:
            self._require_one(setting := Op("setxattr", op.path, at=op.at, size=64))
            self.need(setting)

    def _require_two(self, op: Op) -> None:
        wants_dir = op.kind != "link" and _looks_like_directory(op.path)
        if op.path not in self.things:
            (self.directory if wants_dir else self.file)(op.path)
        if op.kind == "link":
            if self._is(op.path, "d"):
                self.absent(op.path)
                self.file(op.path)
            self.absent(op.to)
        elif op.kind == "rename":
            if op.to in self.things and self.things[op.to] is not self.things[op.path]:
                self.absent(op.to)
            self.directory(_above(op.to))
        elif op.kind == "replace":
            self._same_kind(op)
        elif op.to not in self.things:
            (self.directory if _looks_like_directory(op.to) else self.file)(op.to)

    def _same_kind(self, op: Op) -> None:
        if self._is(op.path, "d"):
            self.directory(op.to)
            self.empty(op.to)
        elif op.to not in self.things or self._is(op.to, "d"):
            self.file(op.to)

    def _apply(self, op: Op) -> None:
        """The effect on the sketch."""
        things = self.things
        if op.kind in ("create", "mkdir", "symlink"):
            kind = {"create": "f", "mkdir": "d", "symlink": "l"}[op.kind]
            things[op.path] = _Thing(kind)
        elif op.kind == "link":
            things[op.to] = things[op.path]
        elif op.kind in ("unlink", "rmdir"):
            del things[op.path]
        elif op.kind in ("rename", "replace", "exchange"):
            self._move(op)
        elif op.kind == "truncate":
            things[op.path].size = op.size
        elif op.kind == "append":
            things[op.path].size = things[op.path].size // 16 * 16 + op.size
        elif op.kind in _ON_FILES and not (op.keep or op.kind == "punch"):
            things[op.path].size = max(things[op.path].size, op.at + op.size)
        elif op.kind == "setxattr":
            things[op.path].xattrs.add(op.at)
        elif op.kind == "removexattr":
            things[op.path].xattrs.discard(op.at)

    def _move(self, op: Op) -> None:
        things = self.things
        if things.get(op.to) is things[op.path]:
            return  # two names of one file
        src = {p: things.pop(p) for p in [op.path, *self._below(op.path)]}
        dst = {p: things.pop(p) for p in [op.to, *self._below(op.to)] if p in things}
        things.update({op.to + p[len(op.path) :]: t for p, t in src.items()})
        if op.kind == "exchange":
            things.update({op.path + p[len(op.to) :]: t for p, t in dst.items()})


def _within(path: str, directory: str) -> bool:
    return f"{path}/".startswith(f"{directory}/")


def _looks_like_directory(path: str) -> bool:
    """Directories of the workloads have names in capitals."""
    return path.rpartition("/")[2].isupper()


def prepare(ops: Sequence[Op]) -> tuple[list[Op], list[Op]]:
    """(what must be there before, the operations with what they need in between).

    Raises ValueError for an operation that nothing can make fit.
    """
    sketch = _Sketch()
    for op in ops:
        sketch.add(op)
    return sketch.setting, sketch.ops
