"""What the system calls must do, as plain dictionaries, and a user who holds the kernel to it.

`Model` knows blocks, who points at them, and when they must be free; it shares no code with the
kernel. `Actor` makes random changes, to the kernel and to the model, and compares.
Every change writes its number into all nodes that it edits, so that a crash test can see whether
each change is there as a whole.
"""

from __future__ import annotations

import struct
from collections import Counter
from dataclasses import dataclass, field

from tests.disk.xn_kit import NODE

Pointer = tuple[int, int, int]
TAG = struct.Struct("<QQ")  # identity of the node, number of its last change


@dataclass(slots=True)
class Node:
    """A node in memory."""

    id: int
    version: int
    slots: dict[int, Pointer] = field(default_factory=dict)


@dataclass(slots=True)
class State:
    """The whole tree after some change."""

    nodes: dict[int, Node]
    born: dict[int, int]  # data block -> number of the change that made it data

    def reachable(self, root: int) -> set[int]:
        """Nodes below the root."""
        seen: set[int] = set()
        todo = [root]
        while todo:
            block = todo.pop()
            if block not in seen:
                seen.add(block)
                for kind, start, count in self.nodes[block].slots.values():
                    if kind == NODE:
                        todo += range(start, start + count)
        return seen


class Model:
    """Blocks and their owners."""

    def __init__(self, root: int, area: tuple[int, int]) -> None:
        self.root, self.area = root, area
        self.nodes = {root: Node(0, 0)}
        self.born: dict[int, int] = {}
        self.texts: dict[tuple[int, int], list[bytes]] = {}  # (block, born) -> what was written
        self.held: set[int] = set()
        self.durable = {root}  # blocks that nodes below the root named at the last sync
        self.perhaps: set[int] = set()  # may be kept a little longer than need be
        self.exact = True  # no partial sync since the last whole one

    @classmethod
    def of(
        cls, root: int, area: tuple[int, int], nodes: dict[int, Node], texts: dict[int, bytes]
    ) -> Model:
        """What was found on a disk, all of it durable."""
        model = cls(root, area)
        model.nodes = nodes
        version = max(node.version for node in nodes.values())
        model.born = dict.fromkeys(texts, version)
        model.texts = {(block, version): [text] for block, text in texts.items()}
        model.synced()
        return model

    def owners(self) -> Counter[int]:
        """How many pointers name each block."""
        out = Counter({self.root: 1})
        for node in self.nodes.values():
            for _kind, start, count in node.slots.values():
                out.update(range(start, start + count))
        return out

    def used(self) -> set[int]:
        """Blocks that must not be given to anyone."""
        return set(self.owners()) | self.held | self.durable

    def synced(self) -> None:
        """Everything is durable."""
        self.durable = {self.root}
        for block in self.below(self.root):
            for _kind, start, count in self.nodes[block].slots.values():
                self.durable.update(range(start, start + count))
        # What held nodes own, that no durable pointer names, need not wait, but may.
        self.perhaps, self.exact = set(self.owners()), True

    def below(self, block: int) -> set[int]:
        """The nodes that a node reaches, itself included."""
        return State(self.nodes, self.born).reachable(block)

    def forget_dead(self) -> None:
        """Drop what lost its last owner, and what only that owned."""
        while True:
            owners = self.owners()
            dead = [b for b in self.nodes if not owners[b] and b not in self.held]
            if not dead:
                break
            for block in dead:
                del self.nodes[block]
        for block in [b for b in self.born if not owners[b]]:
            del self.born[block]

    def state(self) -> State:
        """A copy."""
        nodes = {b: Node(n.id, n.version, dict(n.slots)) for b, n in self.nodes.items()}
        return State(nodes, dict(self.born))
