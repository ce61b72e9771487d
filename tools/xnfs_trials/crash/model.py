"""What the file system was told, version by version, and what a power cut may leave of it.

Version v is the state after v operations. The promise that `explain` holds an image against
(DESIGN.md, section 5):

- Each inode that the image shows (attributes, extended attributes, link count and names, all
  together) is one that existed at some version since it was last synced: never a mixture of two
  versions, never an older one.
  Only a change of size may be seen half done (a large file is cut and grown in steps).
- Each 512-byte sector of a file is one that the file had at some version since then.
- Each name of a directory is bound as at some version since the directory, or the file it names,
  was last synced.
- What was synced, and has had a name ever since, is there.
"""

from __future__ import annotations

import stat
import struct
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Generic, TypeVar

from xnfs_trials.crash.rawwalk import TAG, Inode, Report

SECTOR = 512
BLOCK = 4096
CELL = struct.Struct("<IIII")


T = TypeVar("T")


def tagged(fid: int, offset: int, size: int, version: int) -> bytes:
    """Bytes that say whose they are: cells of 16 bytes (magic, file, cell number, version)."""
    first = offset // 16
    return b"".join(CELL.pack(TAG, fid, first + i, version) for i in range(size // 16))


@dataclass(frozen=True)
class Record:
    """Everything about an inode that lives in its own block, and its names: one atomic thing."""

    mode: int
    uid: int = 0
    gid: int = 0
    nlink: int = 1
    size: int = 0
    target: bytes = b""
    xattrs: frozenset[tuple[bytes, bytes]] = frozenset()
    names: frozenset[tuple[int, bytes]] = frozenset()  # (the directory's inode, name)


@dataclass
class History(Generic[T]):
    """A value over versions."""

    at: list[int] = field(default_factory=list)
    value: list[T] = field(default_factory=list)

    def put(self, version: int, value: T) -> None:
        """From this version on the value is this."""
        if self.at and self.at[-1] == version:
            self.value[-1] = value
        elif not self.value or self.value[-1] != value:
            self.at.append(version)
            self.value.append(value)

    def window(self, low: int, high: int) -> list[T]:
        """All values that were current at some version in [low, high]."""
        first = max(0, bisect_right(self.at, low) - 1)
        return self.value[first : bisect_right(self.at, max(low, high))]


@dataclass
class Node:
    """One inode that ever existed."""

    number: int
    ino: int
    born: int
    now: Record
    data: bytes = b""
    records: History[Record] = field(default_factory=History)
    contents: History[bytes] = field(default_factory=History)
    bindings: dict[bytes, History[int]] = field(default_factory=dict)  # 0 = no such name
    acks: History[int] = field(default_factory=History)  # event -> version synced, everything
    data_acks: History[int] = field(default_factory=History)  # the same for bytes and size
    dead: bool = False

    @property
    def is_dir(self) -> bool:
        return stat.S_ISDIR(self.now.mode)


@dataclass(frozen=True)
class Cut:
    """Where the power went: after which event of the device, in the middle of which operation."""

    event: int
    version: int


class Model:
    """A file system in memory that remembers all its versions. Node 1 is the root directory."""

    def __init__(self, root_ino: int, mode: int) -> None:
        self.version = 0
        self.nodes: dict[int, Node] = {}
        self.by_ino: dict[int, list[Node]] = {}
        self.add(root_ino, Record(mode, nlink=2))

    # -- changes

    def add(self, ino: int, record: Record) -> Node:
        """A new inode."""
        node = Node(len(self.nodes) + 1, ino, self.version, record)
        self.nodes[node.number] = node
        self.by_ino.setdefault(ino, []).append(node)
        node.records.put(self.version, record)
        node.contents.put(self.version, b"")
        return node

    def set(self, node: Node, **changes: object) -> None:
        """Change attributes at the current version."""
        node.now = replace(node.now, **changes)  # type: ignore[arg-type]
        node.records.put(self.version, node.now)

    def set_data(self, node: Node, data: bytes) -> None:
        """Change a file's bytes (and size) at the current version."""
        node.data = data
        node.contents.put(self.version, data)
        self.set(node, size=len(data))

    def bind(self, directory: Node, name: bytes, child: Node) -> None:
        """Add a name."""
        directory.bindings.setdefault(name, History([directory.born], [0])).put(
            self.version, child.number
        )
        self.set(
            child,
            names=child.now.names | {(directory.ino, name)},
            nlink=child.now.nlink if child.is_dir else len(child.now.names) + 1,
        )
        if child.is_dir:
            self.set(directory, nlink=directory.now.nlink + 1)

    def unbind(self, directory: Node, name: bytes, child: Node) -> None:
        """Remove a name."""
        directory.bindings[name].put(self.version, 0)
        self.set(
            child,
            names=child.now.names - {(directory.ino, name)},
            nlink=child.now.nlink if child.is_dir else len(child.now.names) - 1,
        )
        if child.is_dir:
            self.set(directory, nlink=directory.now.nlink - 1)

    def bury(self, node: Node) -> None:
        """The last name went: the inode is free and its number may come again."""
        node.dead = True

    def entries(self, directory: Node) -> dict[bytes, Node]:
        """The names of a directory now."""
        now = {name: h.value[-1] for name, h in directory.bindings.items()}
        return {name: self.nodes[n] for name, n in now.items() if n}

    def live(self) -> list[Node]:
        """Inodes with a name, and the root."""
        return [n for n in self.nodes.values() if not n.dead]

    def ack(self, nodes: list[Node], event: int, *, data_only: bool = False) -> None:
        """A sync of these returned, after this many events of the device."""
        for node in nodes:
            (node.data_acks if data_only else node.acks).put(event, self.version)

    # -- the promise

    def explain(self, report: Report, cut: Cut) -> Iterator[str]:
        """Everything in an image that the promise does not allow."""
        shown: set[int] = set()
        for inode in report.inodes.values():
            reasons = []
            for node in self.by_ino.get(inode.ino, []):
                if node.born > cut.version:
                    continue
                reason = self._mismatch(node, inode, cut)
                if reason is None:
                    shown.add(node.number)
                    break
                reasons.append(reason)
            else:
                yield f"inode {inode.ino} matches no version: {reasons[-1:]}"
        for node in self.nodes.values():
            if node.number in shown or node.born > cut.version:
                continue
            low = self._low(node, cut)
            if low is not None and all(
                r.names or node.number == 1 for r in node.records.window(low, cut.version)
            ):
                name = next(iter(node.records.window(low, cut.version)[0].names), "/")
                yield f"inode {node.ino} ({name}), synced at version {low}, is gone"

    def _low(self, node: Node, cut: Cut) -> int | None:
        acks = node.acks.window(cut.event, cut.event) if node.acks.at else []
        return acks[0] if acks and node.acks.at[0] <= cut.event else None

    def _mismatch(self, node: Node, inode: Inode, cut: Cut) -> str | None:
        """Why the inode of the image is no allowed version of this node; None if it is."""
        low = self._low(node, cut)
        low = node.born if low is None else low
        got = self._record(node, inode)
        records = node.records.window(low, cut.version)
        if got not in records and not _between(got, records):
            return f"{got} is none of {records} (versions {low}..{cut.version})"
        if node.is_dir:
            return self._entries_mismatch(node, inode, low, cut)
        if stat.S_ISREG(got.mode):
            return self._data_mismatch(node, inode, low, cut)
        return None

    def _record(self, node: Node, inode: Inode) -> Record:
        return Record(
            inode.mode,
            inode.uid,
            inode.gid,
            inode.nlink,
            len(inode.target) if inode.target else 0 if node.is_dir else inode.size,
            inode.target,
            frozenset(inode.xattrs.items()),
            frozenset(inode.names),
        )

    def _data_mismatch(self, node: Node, inode: Inode, low: int, cut: Cut) -> str | None:
        if node.data_acks.at and node.data_acks.at[0] <= cut.event:
            low = max(low, node.data_acks.window(cut.event, cut.event)[0])
        versions = node.contents.window(low, cut.version)
        sizes = [len(v) for v in versions]
        if not any(min(a, b) <= inode.size <= max(a, b) for a, b in pairwise(sizes[:1] + sizes)):
            return f"size {inode.size} since version {low}"
        got = inode.content()
        if got in versions:
            return None
        for at in range(0, inode.size, SECTOR):
            want = min(SECTOR, inode.size - at)
            sector = got[at : at + want]
            if all(v[at : at + want].ljust(want, b"\0") != sector for v in versions):
                return f"bytes at {at} of size {inode.size} are of no version {low}..{cut.version}"
        return None

    def _entries_mismatch(self, node: Node, inode: Inode, low: int, cut: Cut) -> str | None:
        for name in inode.entries.keys() - node.bindings.keys():
            return f"name {name!r} never existed"
        for name, history in node.bindings.items():
            child = inode.entries.get(name)
            allowed = {self.nodes[n].ino if n else None for n in history.window(low, cut.version)}
            if child not in allowed:
                return f"{name!r} is {child}, not {allowed} (versions {low}..{cut.version})"
        return None


def _between(got: Record, records: list[Record]) -> bool:
    """A size may change in steps: any size between two versions that follow each other."""
    return any(
        min(a.size, b.size) <= got.size <= max(a.size, b.size)
        and (replace(got, size=a.size) == a or replace(got, size=b.size) == b)
        for a, b in pairwise(records)
    )
