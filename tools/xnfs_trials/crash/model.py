"""What the file system was told, version by version, and what a power cut may leave of it.

Version v is the state after v operations. The promise that `explain` holds a tree against, for any
file system on XN (docs/promise.md says it for users):

- O3. What was synced, and has had a name ever since, is there; and it shows no version older than
  the one that was synced. `fdatasync` promises this for bytes and size alone.
- O4. Each inode is one that existed: its names and its link count together are those of one
  version (so a rename or an exchange is whole or not at all), each other attribute is that of one.
  Only a change of size may be seen half done (a large file is cut and grown in steps).
- O4. Each 512-byte sector of a file is one that the file had at some version.
- O4. Each name of a directory is bound as at some version.

Nothing else is promised: changes of different inodes, and different sectors of a file, may become
durable in any order, and none of them without a sync. A file system may promise more:

- WHOLE: all attributes of an inode, with its names, are of one version, never a mixture.
- ORDER: a sync of anything makes every earlier change of a name durable.
"""

from __future__ import annotations

import pickle
import stat
import struct
from bisect import bisect_right
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from itertools import pairwise
from typing import Generic, Protocol, TypeVar

from xnfs_trials.crash.rawwalk import TAG, Inode

SECTOR = 512
BLOCK = 4096
CELL = struct.Struct("<IIII")
TAG_XATTR = 0x56415458

WHOLE, ORDER = "whole", "order"

T = TypeVar("T")


def tagged(fid: int, offset: int, size: int, version: int, tag: int = TAG) -> bytes:
    """Bytes that say whose they are: cells of 16 bytes (what they are for, file, cell, version).

    `version`: `Model.stamp`, so that no two operations write the same bytes.
    """
    first = offset // 16
    return b"".join(CELL.pack(tag, fid, first + i, version) for i in range(size // 16))


class Shown(Protocol):
    """What an image shows: inodes by number."""

    @property
    def inodes(self) -> Mapping[int, Inode]: ...


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

    def __init__(
        self, root_ino: int, mode: int, promises: Collection[str] = frozenset({WHOLE})
    ) -> None:
        self.version = 0
        self.before = 0  # versions of the histories that were forgotten
        self.promises = promises
        self.name_acks: History[int] = History()  # event -> version whose names are all durable
        self.last = 0  # number of the newest node; no number is used twice
        self.nodes: dict[int, Node] = {}
        self.by_ino: dict[int, list[Node]] = {}
        self.add(root_ino, Record(mode, nlink=2))

    @property
    def stamp(self) -> int:
        """The number of the operation under way among all that led here, also before version 0."""
        return self.before + self.version

    # -- changes

    def add(self, ino: int, record: Record) -> Node:
        """A new inode."""
        self.last += 1
        node = Node(self.last, ino, self.version, record)
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
        unbound: History[int] = History([directory.born], [0])
        directory.bindings.setdefault(name, unbound).put(self.version, child.number)
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
        if ORDER in self.promises:
            self.name_acks.put(event, self.version)

    def settle(self) -> None:
        """What is now is version 0, and durable: there is no history before it."""
        self.before, self.version, self.by_ino = self.stamp, 0, {}
        self.nodes = {n.number: n for n in self.live()}
        for node in self.nodes.values():
            node.born = 0
            self.by_ino.setdefault(node.ino, []).append(node)
            node.records = History([0], [node.now])
            node.contents = History([0], [node.data])
            bound = {name: h.value[-1] for name, h in node.bindings.items()}
            node.bindings = {name: History([0], [n]) for name, n in bound.items() if n}
            node.acks, node.data_acks = History([0], [0]), History()
        self.name_acks = History([0], [0]) if ORDER in self.promises else History()

    def newest(self) -> Model:
        """A model in which only what is now was ever, and is durable."""
        twin: Model = pickle.loads(pickle.dumps(self))
        twin.settle()
        return twin

    def rebased(self, tree: Shown, cut: Cut) -> Model:
        """The model of what a cut has left, as version 0: what the tree shows, by the numbers that
        its inodes had. What `explain` does not allow is left out."""
        model = Model.__new__(Model)
        model.before, model.version = self.stamp, 0
        model.promises, model.name_acks = self.promises, History()
        model.nodes, model.by_ino = {}, {}
        numbers: dict[int, int] = {}
        for inode in tree.inodes.values():
            known = [n for n in self.by_ino.get(inode.ino, []) if n.born <= cut.version]
            node, _ = self._match(known, inode, cut, synced=True)
            if node is None:
                continue
            numbers[inode.ino] = node.number
            data = inode.content() if stat.S_ISREG(inode.mode) else b""
            now = self._record(node, inode)
            model.nodes[node.number] = Node(node.number, inode.ino, 0, now, data)
        for inode in tree.inodes.values():
            if inode.ino in numbers:
                bound = {n: numbers[c] for n, c in inode.entries.items() if c in numbers}
                histories = {name: History([0], [number]) for name, number in bound.items()}
                model.nodes[numbers[inode.ino]].bindings = histories
        model.last = self.last
        model.settle()
        return model

    # -- the promise

    def explain(self, tree: Shown, cut: Cut, without: Collection[str] = ()) -> Iterator[str]:
        """Everything in a tree that the promise does not allow. `without`: clauses not asked."""
        shown: set[int] = set()
        for inode in tree.inodes.values():
            known = [n for n in self.by_ino.get(inode.ino, []) if n.born <= cut.version]
            node, reason = self._match(known, inode, cut, synced="O3" not in without)
            if node is not None:
                shown.add(node.number)
                continue
            shown.update(n.number for n in known)
            older, _ = self._match(known, inode, cut, synced=False)
            if older is not None:
                yield f"O3: inode {inode.ino} is as before its sync: {reason}"
            elif "O4" not in without:
                yield f"O4: inode {inode.ino} matches no version: {reason}"
        if "O3" not in without:
            yield from self._gone(shown, cut)

    def _match(
        self, known: list[Node], inode: Inode, cut: Cut, *, synced: bool
    ) -> tuple[Node | None, str]:
        """Which of the nodes that had this number it may be; else why not the last of them."""
        reason = ""
        for node in reversed(known):  # an older one may look alike: the newest is what is there
            why = self._mismatch(node, inode, cut, synced=synced)
            if why is None:
                return node, ""
            reason = reason or why
        return None, reason or "there never was one"

    def _gone(self, shown: Collection[int], cut: Cut) -> Iterator[str]:
        for node in self.nodes.values():
            if node.number in shown or node.born > cut.version:
                continue
            low = max(_low(node.acks, cut, -1), self._names_low(node, cut, -1))
            records = node.records.window(low, cut.version) if low >= 0 else []
            if records and all(r.names or node.number == 1 for r in records):
                name = next(iter(records[0].names), "/")
                yield f"O3: inode {node.ino} ({name}), synced at version {low}, is gone"

    def _names_low(self, node: Node, cut: Cut, default: int) -> int:
        low = _low(self.name_acks, cut, default)
        return low if low >= node.born else default

    def _mismatch(self, node: Node, inode: Inode, cut: Cut, *, synced: bool) -> str | None:
        """Why the inode of the image is no allowed version of this node; None if it is."""
        low = names_low = data_low = node.born
        if synced:
            low = _low(node.acks, cut, low)
            names_low = max(low, self._names_low(node, cut, low))
            data_low = max(low, _low(node.data_acks, cut, low))
        got = self._record(node, inode)
        records = node.records.window(low, cut.version)
        alike = got in records or (
            _between(got, records) if WHOLE in self.promises else _each(got, records)
        )
        if not alike:
            return f"{_unlike(got, records)} (versions {low}..{cut.version})"
        if names_low > low:
            links = [(r.nlink, r.names) for r in node.records.window(names_low, cut.version)]
            if (got.nlink, got.names) not in links:
                return f"{got.names} is none of {links} (versions {names_low}..{cut.version})"
        if node.is_dir:
            return self._entries_mismatch(node, inode, names_low, cut)
        if stat.S_ISREG(got.mode):
            return self._data_mismatch(node, inode, data_low, cut)
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
        versions = node.contents.window(low, cut.version)
        sizes = [len(v) for v in versions]
        if not _size_between(inode.size, sizes):
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
                shown = "gone" if child is None else f"inode {child}"
                want = " or ".join(sorted("nothing" if c is None else str(c) for c in allowed))
                return f"{name!r} is {shown}, not {want} (versions {low}..{cut.version})"
        return None


def _unlike(got: Record, records: list[Record]) -> str:
    """What a record has that none of these has, for people."""
    parts = []
    for each in fields(Record):
        there = getattr(got, each.name)
        known = list(dict.fromkeys(getattr(r, each.name) for r in records))
        if there not in known:
            parts.append(f"{each.name} is {there!r}, not {' or '.join(map(repr, known))}")
    return "; ".join(parts) or "a mixture of versions"


def _low(acks: History[int], cut: Cut, default: int) -> int:
    """The version that the last sync before the cut made durable."""
    if not acks.at or acks.at[0] > cut.event:
        return default
    return acks.window(cut.event, cut.event)[0]


def _each(got: Record, records: list[Record]) -> bool:
    """Each attribute is that of some version; names and link count are of one."""
    attributes = {pair for r in records for pair in r.xattrs}
    always = records[0].xattrs.intersection(*(r.xattrs for r in records))
    return (
        any((r.nlink, r.names) == (got.nlink, got.names) for r in records)
        and any(r.mode == got.mode for r in records)
        and any((r.uid, r.gid) == (got.uid, got.gid) for r in records)
        and any(r.target == got.target for r in records)
        and _size_between(got.size, [r.size for r in records])
        and always <= got.xattrs <= attributes
        and len({name for name, _ in got.xattrs}) == len(got.xattrs)
    )


def _size_between(size: int, sizes: list[int]) -> bool:
    """A size may change in steps: any size between two versions that follow each other."""
    return any(min(a, b) <= size <= max(a, b) for a, b in pairwise(sizes[:1] + sizes))


def _between(got: Record, records: list[Record]) -> bool:
    """A size may change in steps: any size between two versions that follow each other."""
    return any(
        min(a.size, b.size) <= got.size <= max(a.size, b.size)
        and (replace(got, size=a.size) == a or replace(got, size=b.size) == b)
        for a, b in pairwise(records)
    )
