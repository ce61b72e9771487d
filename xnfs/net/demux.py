"""Finding the owner of a packet: all filters of an interface merged into one tree.

A node has tables; a table has a mask, and for each value under that mask a branch. A cube goes into
the table whose mask it fixes wholly; where it fixes a part only, the table is split at what they
have in common; where nothing, it gets a table beside. So filters that look at the same fields share
one table, and to find among them costs one look into a hash table, however many they are: DPF's
result (Engler and Kaashoek, SIGCOMM 1996), on masks instead of atoms; a table beside another is
tuple space search (Srinivasan, Suri, Varghese, SIGCOMM 1999).

Guarantees: `find` gives the latest owner whose cubes hold a packet; `overlapping` gives exactly
the owners that have a packet in common with a cube.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from xnfs.net.cube import Cube, head_bits


@dataclass(slots=True)
class _Table:
    """All cubes here fix the bits of `mask`."""

    mask: int
    branches: dict[int, _Node] = field(default_factory=dict)


@dataclass(slots=True)
class _Node:
    """Cubes whose bits above this node are decided; `ends` are those with no bits left."""

    ends: list[tuple[Cube, int]] = field(default_factory=list)
    tables: list[_Table] = field(default_factory=list)

    @property
    def empty(self) -> bool:
        return not self.ends and not self.tables


class Demux:
    """Cubes and their owners, which are numbers. A later owner has the higher number."""

    def __init__(self) -> None:
        self._root = _Node()

    def add(self, owner: int, cubes: Iterable[Cube]) -> None:
        """Packets in these cubes are the owner's, before those of lower numbers."""
        for cube in cubes:
            _insert(self._root, cube, owner)

    def remove(self, owner: int, cubes: Iterable[Cube]) -> None:
        """Take back what `add` was given."""
        for cube in cubes:
            _delete(self._root, cube, owner, cube.mask)

    def find(self, frame: bytes) -> int | None:
        """The latest owner of a packet; None: nobody wants it."""
        bits, length, found = head_bits(frame), len(frame), -1
        nodes = [self._root]
        while nodes:
            node = nodes.pop()
            for cube, owner in node.ends:
                if owner > found and cube.lo <= length <= cube.hi:
                    found = owner
            for table in node.tables:
                branch = table.branches.get(bits & table.mask)
                if branch is not None:
                    nodes.append(branch)
        return None if found < 0 else found

    def looks(self, frame: bytes) -> int:
        """How many tables `find` looks into for a packet: its cost, for tests and statistics."""
        bits, count = head_bits(frame), 0
        nodes = [self._root]
        while nodes:
            for table in nodes.pop().tables:
                count += 1
                branch = table.branches.get(bits & table.mask)
                if branch is not None:
                    nodes.append(branch)
        return count

    def overlapping(self, cube: Cube) -> set[int]:
        """The owners that have a packet in common with the cube."""
        return {owner for other, owner in _near(self._root, cube) if other.overlaps(cube)}


def _insert(root: _Node, cube: Cube, owner: int) -> None:
    node, left = root, cube.mask
    while left:
        table = _table_for(node, left)
        node = table.branches.setdefault(cube.value & table.mask, _Node())
        left &= ~table.mask
    node.ends.append((cube, owner))


def _table_for(node: _Node, left: int) -> _Table:
    """A table of the node whose mask lies within `left`; split or added if there is none."""
    best = max(node.tables, key=lambda t: (t.mask & left).bit_count(), default=None)
    for table in node.tables:
        if table.mask & ~left == 0:
            return table
    if best is None or not best.mask & left:
        node.tables.append(_Table(left))
        return node.tables[-1]
    return _split(best, best.mask & left)


def _split(table: _Table, common: int) -> _Table:
    """Decide `common` first, and the rest of the table's mask below it."""
    rest = table.mask & ~common
    above: dict[int, _Node] = {}
    for value, child in table.branches.items():
        node = above.setdefault(value & common, _Node(tables=[_Table(rest)]))
        node.tables[0].branches[value & rest] = child
    table.mask, table.branches = common, above
    return table


def _delete(node: _Node, cube: Cube, owner: int, left: int) -> bool:
    """Whether the cube was found below this node, and removed."""
    if not left:
        if (cube, owner) not in node.ends:
            return False
        node.ends.remove((cube, owner))
        return True
    for table in node.tables:
        value = cube.value & table.mask
        branch = table.branches.get(value)
        if branch is None or table.mask & ~left:
            continue
        if _delete(branch, cube, owner, left & ~table.mask):
            if branch.empty:
                del table.branches[value]
            if not table.branches:
                node.tables.remove(table)
            return True
    return False


def _near(node: _Node, cube: Cube) -> Iterator[tuple[Cube, int]]:
    """All that may overlap: branches whose value contradicts the cube are left out."""
    yield from node.ends
    for table in node.tables:
        common = table.mask & cube.mask
        if common == table.mask:
            branch = table.branches.get(cube.value & table.mask)
            if branch is not None:
                yield from _near(branch, cube)
            continue
        for value, branch in table.branches.items():
            if not (value ^ cube.value) & common:
                yield from _near(branch, cube)
