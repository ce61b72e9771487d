"""The map of a file: which disk block holds which block of the file.

Twelve slots in the inode; when they are full, a tree of nodes of 250 slots, up to three levels
(SPEC, ffs.inode). As in a B-tree full blocks are split on the way down, so that an insertion finds
a free slot; unlike in one, a node is only given back when it is empty. The first node of a block
covers everything from the start. Each split is a change of its own: the tree is whole after each.

Not here: bytes (`data`). It relies on `Slots` for one block and on `Batch` for atomicity.
"""

from __future__ import annotations

import errno
from typing import Final

from libfs.ffs import format as f
from libfs.ffs import slots as s
from libfs.ffs.inode import NOTHING, Piece, Vnode
from libfs.ffs.place import Placer
from libfs.ffs.slots import Slots
from libfs.ffs.volume import Batch, Volume
from libfs.posix.interface import FsError
from xnfs import Caller, CorruptionError

HOLE: Final = 0


class ExtentMap:
    """The maps of all files of a mount."""

    def __init__(self, vol: Volume, place: Placer) -> None:
        self._vol = vol
        self._place = place

    # -- looking

    def root(self, v: Vnode) -> Slots:
        """The slots in the inode."""
        slots = v.slots
        if slots is None:
            raw = self._vol.block(v.ino)
            slots = v.slots = s.decode_inode_untrusted(v.ino, raw, v.depth)
        return slots

    def _node(self, v: Vnode, parent: Slots, at: int) -> Slots:
        """The node behind entry `at`."""
        _first, _count, _kind, block, slot = parent.entries[at]
        node = self._vol.decoded.get(block)
        if node is None:
            self._vol.set_home(block, parent.block, slot)
            raw = self._vol.block(block)
            node = s.decode_node_untrusted(block, raw, parent.level - 1, v.ino)
            self._vol.decoded[block] = node
        if not isinstance(node, Slots) or node.level != parent.level - 1:
            raise CorruptionError(block, "use", "a second one", "one")
        return node

    def blocks(self, v: Vnode) -> list[Slots]:
        """The slots in the inode and those in all nodes, parents first."""
        found = [self.root(v)]
        for slots in found:
            if slots.level:
                found += [self._node(v, slots, at) for at in range(len(slots.entries))]
        return found

    def find(self, v: Vnode, fb: int) -> Piece:
        """What lies at file block `fb`, as far as it goes."""
        slots, limit = self.root(v), f.MAX_FILE_BLOCKS
        while True:
            at = slots.find(fb)
            if slots.level and at < 0 and slots.entries:
                at = 0
            if at + 1 < len(slots.firsts):
                limit = min(limit, slots.firsts[at + 1])
            if not slots.level or at < 0:
                break
            slots = self._node(v, slots, at)
        if at >= 0:
            first, count, kind, block, slot = slots.entries[at]
            if fb < first + count:
                piece = Piece(first, first + count, kind, block, slots.block, slot)
                v.last = piece
                return piece
        return Piece(fb, max(limit, fb + 1), HOLE, 0, 0, 0)

    def path(self, v: Vnode, fb: int) -> list[tuple[Slots, int]]:
        """From the inode down to the block of slots that covers `fb`: (slots, entry taken). The
        entry of the last one is -1 if it begins after `fb`."""
        slots = self.root(v)
        out = []
        while True:
            at = slots.find(fb)
            if slots.level and at < 0:
                if not slots.entries:
                    break
                at = 0
            out.append((slots, at))
            if not slots.level:
                return out
            slots = self._node(v, slots, at)
        out.append((slots, -1))
        return out

    # -- room

    def reserve(self, who: Caller, v: Vnode, fb: int, wanted: int = 2) -> Slots:
        """Make sure that the level-0 block that covers `fb` has `wanted` free slots; give it."""
        for _turn in range(4 * (f.MAX_DEPTH + 2)):
            path = self.path(v, fb)
            leaf = path[-1][0]
            if leaf.level:
                self._add_node(who, v, path, fb)
            elif len(leaf.free) >= wanted:
                return leaf
            else:
                self._split(who, v, path, fb)
        raise FsError(errno.ENOSPC)

    def _split(self, who: Caller, v: Vnode, path: list[tuple[Slots, int]], fb: int) -> None:
        """Split the highest full block above which there is room, or grow the tree."""
        depth = len(path) - 1
        while depth > 0 and not path[depth - 1][0].free:
            depth -= 1
        if depth == 0:
            self._deepen(who, v)
        else:
            self._divide(who, v, path[depth - 1][0], path[depth][0], fb)

    def _deepen(self, who: Caller, v: Vnode) -> None:
        """Move all slots of the inode to a new node below it."""
        root = self.root(v)
        if root.level == f.MAX_DEPTH:
            raise FsError(errno.EFBIG)
        batch = Batch(self._vol, who)
        node = self._new_node(v, root.level)
        for first, count, kind, block, _slot in root.entries:
            self._adopt(batch, node, first, count, kind, block)
        while root.entries:
            root.remove(len(root.entries) - 1)
        batch.use(root)
        root.level += 1
        entry = root.insert(0, 0, f.P_NODE, node.block)
        self._born(batch, v, node, root, entry[4])
        batch.watch(v)
        batch.set(v, depth=root.level, blocks=v.blocks + 1)
        v.last = NOTHING
        batch.commit()

    def _divide(self, who: Caller, v: Vnode, parent: Slots, full: Slots, fb: int) -> None:
        """Give a full node a sibling with its upper half; with nothing if it grows at its end."""
        batch = Batch(self._vol, who)
        node = self._new_node(v, full.level)
        batch.use(full)
        batch.use(parent)
        if fb > full.firsts[-1] and full.level == 0:
            first = fb
        else:
            half = len(full.entries) // 2
            first = full.firsts[half]
            for a, count, kind, block, _slot in full.entries[half:]:
                self._adopt(batch, node, a, count, kind, block)
            while len(full.entries) > half:
                full.remove(len(full.entries) - 1)
        entry = parent.insert(first, 0, f.P_NODE, node.block)
        self._born(batch, v, node, parent, entry[4])
        batch.watch(v)
        batch.set(v, blocks=v.blocks + 1)
        v.last = NOTHING
        batch.commit()

    def _add_node(self, who: Caller, v: Vnode, path: list[tuple[Slots, int]], fb: int) -> None:
        """The tree ends above level 0: fsck took a node away, or it is empty."""
        parent = path[-1][0]
        batch = Batch(self._vol, who)
        node = self._new_node(v, parent.level - 1)
        batch.use(parent)
        entry = parent.insert(fb, 0, f.P_NODE, node.block)
        self._born(batch, v, node, parent, entry[4])
        batch.watch(v)
        batch.set(v, blocks=v.blocks + 1)
        batch.commit()

    def _new_node(self, v: Vnode, level: int) -> Slots:
        block, _n = self._vol.find_free(self._place.near(v), 1)
        return s.new_node(block, level)

    def _adopt(
        self, batch: Batch, node: Slots, first: int, count: int, kind: int, block: int
    ) -> None:
        entry = node.insert(first, count, kind, block)
        if kind == f.P_NODE:
            batch.home(block, node.block, entry[4])

    def _born(self, batch: Batch, v: Vnode, node: Slots, parent: Slots, slot: int) -> None:
        diff = [s.node_head(node.level, v.ino), *node.diffs()]
        batch.birth(f.P_NODE, node.block, diff)
        batch.home(node.block, parent.block, slot)
        self._vol.decoded[node.block] = node

    # -- changes, as part of a batch; `leaf` comes from `reserve`

    def put(
        self, batch: Batch, v: Vnode, leaf: Slots, first: int, count: int, kind: int, block: int
    ) -> None:
        """Map a hole to blocks: grow the extent before or after it, or take a slot."""
        batch.use(leaf)
        batch.watch(v)
        v.last = NOTHING
        at = leaf.find(first)
        if at >= 0:
            a, n, k, b, _slot = leaf.entries[at]
            if k == kind and a + n == first and b + n == block and n + count < 1 << 32:
                leaf.replace(at, a, n + count, k, b)
                return
        if at + 1 < len(leaf.entries):
            a, n, k, b, _slot = leaf.entries[at + 1]
            if k == kind and first + count == a and block + count == b and n + count < 1 << 32:
                leaf.replace(at + 1, first, n + count, k, block)
                return
        leaf.insert(first, count, kind, block)

    def cut(
        self, batch: Batch, v: Vnode, leaf: Slots, lo: int, hi: int
    ) -> list[tuple[int, int, int]]:
        """Unmap what of [lo, hi) lies in this leaf, which needs a free slot if that is the middle
        of one extent. Gives the (kind, block, count) that are no longer owned."""
        batch.use(leaf)
        batch.watch(v)
        v.last = NOTHING
        gone: list[tuple[int, int, int]] = []
        at = len(leaf.entries) - 1
        while at >= 0:
            first, count, kind, block, _slot = leaf.entries[at]
            a, b = max(first, lo), min(first + count, hi)
            if a < b:
                gone.append((kind, block + a - first, b - a))
                self._trim(leaf, at, a, b)
            elif first + count <= lo:
                break
            at -= 1
        return gone

    def _trim(self, leaf: Slots, at: int, a: int, b: int) -> None:
        """Take file blocks [a, b) out of extent `at`."""
        first, count, kind, block, _slot = leaf.entries[at]
        if first == a and first + count == b:
            leaf.remove(at)
        elif first == a:
            leaf.replace(at, b, first + count - b, kind, block + b - first)
        else:
            leaf.replace(at, first, a - first, kind, block)
            if b < first + count:
                leaf.insert(b, first + count - b, kind, block + b - first)

    def prune(self, batch: Batch, v: Vnode, path: list[tuple[Slots, int]]) -> int:
        """Give back the nodes at the end of `path` that are empty; how many."""
        freed = 0
        node_type = self._vol.type[f.P_NODE]
        while len(path) > 1 and not path[-1][0].entries:
            node = path.pop()[0]
            parent, at = path[-1]
            batch.use(parent)
            batch.free.append((node_type, parent.remove(at)[3], 1))
            freed += 1
            self._vol.decoded.pop(node.block, None)
        root = path[0][0]
        if len(path) == 1 and not root.entries and root.level:
            root.level = 0
            batch.set(v, depth=0)
        return freed

    def used_leaf(self, v: Vnode, lo: int, hi: int) -> list[tuple[Slots, int]] | None:
        """The path to the last level-0 block with something in [lo, hi); None if there is none."""
        while hi > lo:
            path = self.path(v, hi - 1)
            leaf, at = path[-1]
            if not leaf.level and at >= 0:
                first, count = leaf.entries[at][:2]
                return path if first + count > lo else None
            if leaf.level == 0 and not leaf.entries and len(path) > 1:
                return path
            floor = self._floor(path)
            if floor is None or floor >= hi:
                return None
            hi = floor
        return None

    def _floor(self, path: list[tuple[Slots, int]]) -> int | None:
        """Where the part of the map begins that the end of `path` covers; None: at the start."""
        for slots, at in reversed(path[:-1]):
            if at > 0:
                return slots.firsts[at]
        return None
