"""The map of an inode: file block -> address, as a radix tree; the inode map is one, too.

Up to 34 values lie in the record; beyond that they are addresses of nodes of 504 values, up to
three levels. A node that changed stays in memory until `flush` gives it a new address: nothing is
overwritten, so a changed node changes all above it. Values are addresses (format.address), 0 for a
hole; what they name is nothing to this module.

Relies on a store that reads nodes and is told of addresses that are given up.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator, MutableSequence, Sequence
from typing import Final, Protocol

from libfs.lfs import format as f
from xnfs import CorruptionError

#: Nodes of one map that stay in memory, but for those that changed.
KEPT: Final = 4096
#: Stands in a node for one that has no address yet: in memory only.
UNWRITTEN: Final = 1

#: (kind, inode, index, bytes) -> address of the block that was written
Write = Callable[[int, int, int, bytes], int]


class Store(Protocol):
    """Where nodes come from."""

    def node(self, ino: int, level: int, index: int, address: int) -> array[int]:
        """The values of a node. Raises CorruptionError, DeviceError."""

    def died(self, address: int, size: int) -> None:
        """What was at this address is needed no more."""


class Tree:
    """A map from numbers below 34 * 504**3 to addresses."""

    __slots__ = ("_nodes", "_store", "depth", "dirty", "ino", "tops")

    def __init__(self, store: Store, ino: int, depth: int = 0, tops: Sequence[int] = ()) -> None:
        self._store = store
        self.ino = ino
        self.depth = depth
        self.tops = list(tops)
        self._nodes: dict[tuple[int, int], array[int]] = {}
        self.dirty: set[tuple[int, int]] = set()

    # -- looking

    def get(self, i: int) -> int:
        """The value at `i`."""
        if not self.depth:
            return self.tops[i] if i < len(self.tops) else 0
        node = self._node(1, i // f.FAN)
        return node[i % f.FAN] if node is not None else 0

    def address(self, level: int, index: int) -> int:
        """Where a node is; 0 if there is none, UNWRITTEN if it has no address yet."""
        if level > self.depth:
            return 0
        if level == self.depth:
            return self.tops[index] if index < len(self.tops) else 0
        above = self._node(level + 1, index // f.FAN)
        return above[index % f.FAN] if above is not None else 0

    def _node(self, level: int, index: int) -> array[int] | None:
        node = self._nodes.get((level, index))
        if node is None:
            at = self.address(level, index)
            if not at:
                return None
            if len(self._nodes) >= KEPT:
                self.forget()
            node = self._nodes[level, index] = self._store.node(self.ino, level, index, at)
        return node

    def items(self, lo: int = 0, hi: int = f.MAX_FILE_BLOCKS) -> Iterator[tuple[int, int]]:
        """(i, value) of all that is there in [lo, hi), ascending."""
        for first, values in self.spans(lo, hi):
            for i, value in enumerate(values, first):
                if value:
                    yield i, value

    def values(self, lo: int, hi: int) -> Sequence[int]:
        """All values of [lo, hi), 0 where there is none."""
        if hi == lo + 1:
            return [self.get(lo)]
        out = [0] * (hi - lo)
        for first, values in self.spans(lo, hi):
            out[first - lo : first - lo + len(values)] = values
        return out

    def spans(self, lo: int, hi: int) -> Iterator[tuple[int, Sequence[int]]]:
        """(i, values from there on), ascending: pieces of [lo, hi), beside which nothing is there.
        The values are copies."""
        if not self.depth:
            yield lo, self.tops[lo:hi]
            return
        first, end = lo // f.FAN, -(-hi // f.FAN)
        for index in [first] if end <= first + 1 else self._leaves(first, end):
            node = self._node(1, index)
            if node is not None:
                base = index * f.FAN
                skip = max(lo - base, 0)
                yield base + skip, node[skip : hi - base]

    def _leaves(self, lo: int, hi: int) -> Iterator[int]:
        """Indices in [lo, hi) of the nodes of level 1."""
        span = f.FAN ** (self.depth - 1)
        for top in range(lo // span, min(len(self.tops), -(-hi // span))):
            if self.tops[top]:
                yield from self._below(self.depth, top, lo, hi)

    def _below(self, level: int, index: int, lo: int, hi: int) -> Iterator[int]:
        if level == 1:
            if lo <= index < hi:
                yield index
            return
        node = self._node(level, index)
        span = f.FAN ** (level - 2)
        base = index * f.FAN
        if node is not None:
            for i in range(max(lo // span - base, 0), min(-(-hi // span) - base, f.FAN)):
                if node[i]:
                    yield from self._below(level - 1, base + i, lo, hi)

    def at_level(self, level: int) -> Iterator[tuple[int, int]]:
        """(index, address) of every node of a level; of level 0, every value."""
        if level == self.depth:
            yield from ((i, at) for i, at in enumerate(list(self.tops)) if at)
            return
        for index, _at in self.at_level(level + 1):
            node = self._node(level + 1, index)
            if node is not None:
                yield from ((index * f.FAN + i, at) for i, at in enumerate(node) if at)

    def nodes(self) -> Iterator[tuple[int, int, int]]:
        """(level, index, address) of every node that has an address, those above first."""
        for level in range(self.depth, 0, -1):
            for index, at in self.at_level(level):
                if at > UNWRITTEN:
                    yield level, index, at

    def walk(self, bad: Callable[[CorruptionError], None]) -> Iterator[tuple[int, int, int]]:
        """(level, index, address) of all nodes and, as level 0, values. `bad` is told of nodes that
        can't be read; what is below them is left out."""
        for index, at in enumerate(list(self.tops)):
            if at:
                yield from self._walk(self.depth, index, at, bad)

    def _walk(
        self, level: int, index: int, at: int, bad: Callable[[CorruptionError], None]
    ) -> Iterator[tuple[int, int, int]]:
        yield level, index, at
        if not level:
            return
        try:
            node = self._node(level, index)
        except CorruptionError as error:
            bad(error)
            return
        for i, value in enumerate(node or ()):
            if value:
                yield from self._walk(level - 1, index * f.FAN + i, value, bad)

    def readable(self, level: int, index: int) -> bool:
        """Whether a node can be had."""
        try:
            return self._node(level, index) is not None
        except CorruptionError:
            return False

    # -- changing

    def set(self, i: int, value: int) -> int:
        """Put a value; the one that was there."""
        if not value and i >= self.limit:
            return 0
        while i >= self.limit:
            self._grow()
        values: MutableSequence[int] = self.tops
        at = i
        if self.depth:
            values, at = self._own(1, i // f.FAN), i % f.FAN
        elif i >= len(self.tops):
            self.tops += [0] * (i + 1 - len(self.tops))
        old = values[at]
        values[at] = value
        return old

    def put(self, i: int, values: Sequence[int]) -> list[int]:
        """Put values from `i` on, none of them 0; those that were there."""
        if len(values) == 1:
            return [self.set(i, values[0])]
        end = i + len(values)
        while end > self.limit:
            self._grow()
        if not self.depth:
            self.tops += [0] * (end - len(self.tops))
            old = self.tops[i:end]
            self.tops[i:end] = values
            return old
        old = []
        for index in range(i // f.FAN, (end - 1) // f.FAN + 1):
            node, base = self._own(1, index), index * f.FAN
            lo, hi = max(i, base), min(end, base + f.FAN)
            old += node[lo - base : hi - base]
            node[lo - base : hi - base] = array("Q", values[lo - i : hi - i])
        return old

    @property
    def limit(self) -> int:
        """Numbers below this fit without another level."""
        return f.TOPS * int(f.FAN**self.depth)

    def _grow(self) -> None:
        tops = self.tops
        self.depth += 1
        self.tops = []
        if any(tops):
            values = array("Q", tops + [0] * (f.FAN - len(tops)))
            self.tops = [UNWRITTEN]
            self._nodes[self.depth, 0] = values
            self.dirty.add((self.depth, 0))

    def _own(self, level: int, index: int) -> array[int]:
        """A node that may be changed: it will be written anew, and so will those above."""
        key = level, index
        node = self._node(level, index)
        if node is None:
            node = self._nodes[key] = array("Q", bytes(f.FAN * 8))
            self._put(level, index, UNWRITTEN)
        self.dirty.add(key)
        return node

    def _put(self, level: int, index: int, address: int) -> None:
        if level == self.depth:
            if index >= len(self.tops):
                self.tops += [0] * (index + 1 - len(self.tops))
            self.tops[index] = address
        else:
            self._own(level + 1, index // f.FAN)[index % f.FAN] = address

    def clear(self, lo: int, hi: int) -> list[tuple[int, int]]:
        """Take away all of [lo, hi); (i, value) of what was there. Nodes left empty go, too."""
        gone = list(self.items(lo, hi))
        for i, _value in gone:
            self.set(i, 0)
        if self.depth:
            for index in sorted({i // f.FAN for i, _value in gone}):
                self._prune(1, index)
        while self.tops and not self.tops[-1]:
            self.tops.pop()
        if not self.tops:
            self.depth = 0
        return gone

    def _prune(self, level: int, index: int) -> None:
        node = self._node(level, index)
        if node is None or any(node):
            return
        at = self.address(level, index)
        del self._nodes[level, index]
        self.dirty.discard((level, index))
        if at > UNWRITTEN:
            self._store.died(at, f.BLOCK)
        self._put(level, index, 0)
        if level < self.depth:
            self._prune(level + 1, index // f.FAN)

    def cut(self, level: int, index: int) -> None:
        """Forget a node, and with it all below."""
        self._nodes.pop((level, index), None)
        self.dirty.discard((level, index))
        self._put(level, index, 0)

    def touch(self, level: int, index: int) -> None:
        """The node is to be written anew, though nothing in it changes."""
        if self.address(level, index):
            self._own(level, index)

    # -- writing

    def would_write(self, keys: Iterable[int]) -> int:
        """How many nodes a flush would write, if values at these keys change before."""
        keys = list(keys)
        depth, most = self.depth, max(keys, default=0)
        while most >= f.TOPS * int(f.FAN**depth):
            depth += 1
        total, below = 0, set(keys)
        for level in range(1, depth + 1):
            below = {i // f.FAN for i in below}
            below.update(index for height, index in self.dirty if height == level)
            total += len(below)
        return total

    def flush(self, write: Write) -> None:
        """Give every changed node an address, those below first."""
        for level in range(1, self.depth + 1):
            for key in sorted(key for key in self.dirty if key[0] == level):
                index = key[1]
                old = self.address(level, index)
                new = write(f.P_MAP1 + level - 1, self.ino, index, self._nodes[key].tobytes())
                self._put(level, index, new)
                if old > UNWRITTEN:
                    self._store.died(old, f.BLOCK)
        self.dirty.clear()

    def forget(self) -> None:
        """Let go of nodes in memory that are on the disk as they are."""
        if len(self._nodes) > len(self.dirty):
            self._nodes = {key: node for key, node in self._nodes.items() if key in self.dirty}
