"""The checker's view of one inode: header, extents, attributes. See `check`.

Extents are read leniently: a bad slot is given back to the free blocks where the kernel can tell
what it owns. What a mended inode loses was not reachable through it before, either."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from libfs.common.attributes import HEAD, NAMESPACES, parse_untrusted
from libfs.ffs import format as f
from libfs.ffs import slots as s
from libfs.ffs.data import MAX_SIZE
from libfs.ffs.extents import ExtentMap
from libfs.ffs.inode import DT_DIR, DT_LNK, DT_REG, NOTHING, Vnode
from libfs.ffs.slots import Slots
from libfs.ffs.volume import Batch, Volume
from xnfs import CorruptionError

if TYPE_CHECKING:
    from libfs.common.checking import Log

_KINDS: Final = (1, 2, 6, DT_REG, DT_LNK, 12)
_ACL_TAGS: Final = (1, 2, 4, 8, 16, 32)


class InodeChecker:
    """Checks inodes, one at a time."""

    def __init__(self, vol: Volume, log: Log, extents: ExtentMap) -> None:
        self._vol = vol
        self._log = log
        self._map = extents

    def check(self, ino: int) -> None:
        """Everything about an inode that is no directory."""
        v = self.header(ino, is_dir=False)
        blocks = self.attributes(v) + self._extents(v)
        if v.blocks != blocks and self._log("inode-blocks", ino, got=v.blocks, want=blocks):
            self._set(v, blocks=blocks)
        if v.mode >> 12 == DT_LNK and not v.size:
            self._log("inode-target", ino, repairable=False)

    def _set(self, v: Vnode, **fields: int) -> None:
        batch = Batch(self._vol, self._vol.who)
        batch.set(v, **fields)
        batch.commit()

    def _zero(self, v: Vnode, lo: int, hi: int) -> None:
        batch = Batch(self._vol, self._vol.who)
        batch.edit(v.ino, lo, bytes(hi - lo))
        batch.commit()

    # -- the header

    def header(self, ino: int, *, is_dir: bool) -> Vnode:
        """The inode, with a header that makes sense; for a directory of type ffs.dir `is_dir`."""
        v = self._vol.vnodes.get(ino)
        if v is not None:
            return v
        raw = self._vol.block(ino)
        v = Vnode(ino, f.HEADER.unpack_from(raw, f.HEADER_AT))
        right = self._mode(v, is_dir=is_dir) | self._flags(v, raw)
        right |= self._counters(v)
        if is_dir:
            right |= self._no_file(v)
        for name, value in right.items():
            if not self._log.repair:
                setattr(v, name, value)  # go on as if it were mended
        if right and self._log.repair:
            self._set(v, **right)
        self._vol.vnodes[ino] = v
        unused = [f.RESERVED]
        if v.is_dir and v.flags == f.I_HASHED:
            unused.append((f.INLINE_NAMES.records, f.INLINE_NAMES.limit))
        for lo, hi in unused:
            if any(raw[lo:hi]) and self._log("inode-reserved", ino):
                self._zero(v, lo, hi)
        return v

    def _counters(self, v: Vnode) -> dict[str, int]:
        """Counts that could not be counted up; what they must be is seen later."""
        right = {}
        for name, code in (("blocks", "inode-blocks"), ("entries", "dir-entries")):
            if (got := getattr(v, name)) > f.BLOCK_MASK:
                self._log(code, v.ino, got=got, want=0)
                right[name] = 0
        return right

    def _no_file(self, v: Vnode) -> dict[str, int]:
        """What a directory has not: a size, and a tree of extents."""
        right = {}
        if v.depth:
            self._log("extent-depth", v.ino, got=v.depth, want=0)
            right["depth"] = 0
        if v.size:
            self._log("inode-size", v.ino, got=v.size, want=0)
            right["size"] = 0
        return right

    def _mode(self, v: Vnode, *, is_dir: bool) -> dict[str, int]:
        kind = v.mode >> 12
        if kind == DT_DIR if is_dir else kind in _KINDS:
            return {}
        self._log("inode-mode", v.ino, got=v.mode)
        right = DT_DIR if is_dir else DT_REG
        return {"mode": right << 12 | v.mode & 0o700}

    def _flags(self, v: Vnode, raw: bytes) -> dict[str, int]:
        if v.mode >> 12 == DT_DIR:
            if v.flags in (f.I_INLINE, f.I_HASHED):
                return {}
            self._log("dir-flags", v.ino)
            kinds = {p >> 56 for (p,) in f.POINTER.iter_unpack(raw[512:1024])}
            hashed = not kinds.isdisjoint((f.P_LEAF, f.P_INDEX))
            return {"flags": f.I_HASHED if hashed else f.I_INLINE}
        extents = any(raw[f.INODE_SLOTS_AT : f.XATTR_POINTER])
        right = v.flags & f.I_INLINE & ~extents
        if v.flags == right:
            return {}
        self._log("inode-flags", v.ino, got=v.flags)
        return {"flags": right}

    # -- extents

    def _extents(self, v: Vnode) -> int:
        """Check the extent tree; how many blocks it owns with its nodes."""
        raw = self._vol.block(v.ino)
        if self._false_nodes(v, raw):
            raw = self._vol.block(v.ino)
        self._depth(v, raw)
        if v.flags & f.I_INLINE:
            self._inline(v, raw)
            return 0
        root = Slots(v.ino, v.depth, f.INODE_SLOTS_AT, f.INODE_SLOTS)
        v.slots = root
        owned, last, floor = 0, 0, 0
        nodes: set[int] = set()
        todo: list[Slots] = [self._slots(v, root, raw)]
        # Depth first, in the order of the file, so that `floor` only grows.
        while todo:
            slots = todo.pop()
            if not slots.level:
                count, floor, last = self._leaf(v, slots, floor, last)
                owned += count
                continue
            for _first, _count, kind, block, slot in reversed(list(slots.entries)):
                if block in nodes or self._elsewhere(v, block, slots.block, slot):
                    if self._log("block-twice", slots.block, slot=slot, other=block):
                        self._give_back(v, slots, slot, kind, block, 0)
                    continue
                nodes.add(block)
                todo.append(self._node(v, block, slots.level - 1))
        self._size(v, last)
        return owned + len(nodes) - self._cut_after_end(v)

    def _inline(self, v: Vnode, raw: bytes) -> None:
        if v.size > f.INLINE_MAX:
            if self._log("inode-size", v.ino, got=v.size, want=f.INLINE_MAX):
                self._set(v, size=f.INLINE_MAX)
            return
        lo, hi = f.INLINE_AT + v.size, f.INLINE_AT + f.INLINE_MAX
        if any(raw[lo:hi]) and self._log("inode-tail", v.ino):
            self._zero(v, lo, hi)

    def _false_nodes(self, v: Vnode, raw: bytes) -> bool:
        """Give back nodes that belong to another inode, before they say how deep this one is."""
        found = False
        for slot in range(f.INODE_SLOTS):
            pointer = f.SLOT.unpack_from(raw, f.INODE_SLOTS_AT + 16 * slot)[2]
            block = pointer & f.BLOCK_MASK
            if pointer >> f.KIND_SHIFT == f.P_NODE and self._elsewhere(v, block, v.ino, slot):
                root = Slots(v.ino, 1, f.INODE_SLOTS_AT, f.INODE_SLOTS)
                if self._log("block-twice", v.ino, slot=slot, other=block):
                    self._give_back(v, root, slot, f.P_NODE, block, 0)
                    found = True
        return found

    def _elsewhere(self, v: Vnode, block: int, parent: int, slot: int) -> bool:
        """Whether a node has another owner, and says that it belongs there."""
        self._vol.set_home(block, parent, slot)
        ino = f.NODE_HEAD.unpack_from(self._vol.block(block), f.NODE_AT)[2]
        return ino != v.ino and self._vol.xn.refs(block) > 1

    def _depth(self, v: Vnode, raw: bytes) -> None:
        """The depth follows from the level of the nodes that the inode names."""
        depth = v.depth
        area = raw[f.INODE_SLOTS_AT : f.INODE_SLOTS_AT + 16 * f.INODE_SLOTS]
        kinds = set()
        for slot, (_first, _count, pointer) in enumerate(f.SLOT.iter_unpack(area)):
            kinds.add(pointer >> f.KIND_SHIFT)
            if pointer >> f.KIND_SHIFT == f.P_NODE:
                block = pointer & f.BLOCK_MASK
                self._vol.set_home(block, v.ino, slot)
                level = f.NODE_HEAD.unpack_from(self._vol.block(block), f.NODE_AT)[0]
                depth = min(level, f.MAX_DEPTH - 1) + 1
        if f.P_NODE not in kinds:
            depth = 0
        if depth != v.depth:
            if self._log("extent-depth", v.ino, got=v.depth, want=depth):
                self._set(v, depth=depth)
            v.depth = depth

    def _node(self, v: Vnode, block: int, level: int) -> Slots:
        raw = self._vol.block(block)
        got_level, zero, ino = f.NODE_HEAD.unpack_from(raw, f.NODE_AT)
        got, want = (got_level, zero, ino), (level, 0, v.ino)
        if got != want and self._log("node-head", block, got=got, want=want):
            batch = Batch(self._vol, self._vol.who)
            batch.edit(block, *s.node_head(level, v.ino))
            batch.commit()
        node = s.new_node(block, level)
        self._vol.decoded[block] = node
        return self._slots(v, node, raw)

    def _slots(self, v: Vnode, slots: Slots, raw: bytes) -> Slots:
        """Decode slots; those of the wrong kind are given back or, nodes, reported."""
        size = len(slots.by_slot)
        area = raw[slots.at : slots.at + 16 * size]
        slots.free = []
        bad: list[tuple[int, int, int, int]] = []
        for slot, (first, count, pointer) in enumerate(f.SLOT.iter_unpack(area)):
            kind, block = pointer >> f.KIND_SHIFT, pointer & f.BLOCK_MASK
            if kind == f.P_NODE if slots.level else (kind in (1, 2) and count):
                if slots.level and count and self._log("extent-slot", slots.block, slot=slot):
                    self._edit(v, slots.block, slots.at + 16 * slot + 4, bytes(4))
                count = 0 if slots.level else count
                entry = (first, count, kind, block, slot)
                slots.by_slot[slot] = entry
                slots.entries.append(entry)
            elif pointer or first or count:
                bad.append((slot, kind, block, count))
            else:
                slots.free.append(slot)
        slots.entries.sort()
        slots.firsts = [entry[0] for entry in slots.entries]
        slots.free.reverse()
        for slot, kind, block, count in bad:
            if self._log("extent-slot", slots.block, repairable=kind != f.P_NODE, slot=slot):
                self._give_back(v, slots, slot, kind, block, count)
        return slots

    def _give_back(
        self, v: Vnode, slots: Slots, slot: int, kind: int, block: int, count: int
    ) -> None:
        """Clear a slot, and free what it owns."""
        batch = Batch(self._vol, self._vol.who)
        batch.edit(slots.block, slots.at + 16 * slot, bytes(16))
        if kind in (f.P_DATA, f.P_UNWRITTEN) and count:
            batch.free.append((self._vol.type[kind], block, count))
        elif kind == f.P_NODE:
            batch.free.append((self._vol.type[kind], block, 1))
        batch.commit()
        at = next((i for i, entry in enumerate(slots.entries) if entry[4] == slot), None)
        if at is None:
            slots.free.append(slot)
        else:
            slots.remove(at)
            slots.dirty.clear()
        v.last = NOTHING

    def _leaf(self, v: Vnode, slots: Slots, floor: int, last: int) -> tuple[int, int, int]:
        """Extents in order: (blocks owned, end of the last extent, end of the last with data)."""
        owned = 0
        for first, count, kind, block, slot in list(slots.entries):
            code = ""
            if first < floor:
                code = "extent-overlap"
            elif first + count > f.MAX_FILE_BLOCKS:
                code = "extent-range"
            if code and self._log(code, slots.block, first=first):
                self._give_back(v, slots, slot, kind, block, count)
                continue
            owned += count
            floor = max(floor, first + count)
            if kind == f.P_DATA:
                last = max(last, first)
        return owned, floor, last

    def _size(self, v: Vnode, last: int) -> None:
        """`last`: first file block of the last extent of data."""
        if v.size > MAX_SIZE and self._log("inode-size", v.ino, got=v.size, want=MAX_SIZE):
            self._set(v, size=min(v.size, (last + 1) * f.BLOCK))

    def _cut_after_end(self, v: Vnode) -> int:
        """Data wholly after the end would show itself when the file grows (D1)."""
        if self._log.summary.unrepaired:
            return 0  # the map may be unsound
        end = -(-v.size // f.BLOCK)
        freed = 0
        reported = False
        fb = end
        while fb < f.MAX_FILE_BLOCKS:
            piece = self._map.find(v, fb)
            if piece.kind == f.P_DATA and not reported:
                reported = True
                if not self._log("extent-end", v.ino):
                    return 0
            if piece.kind == f.P_DATA:
                freed += self._cut(v, fb, piece.end)
            fb = piece.end
        return freed

    def _cut(self, v: Vnode, lo: int, hi: int) -> int:
        batch = Batch(self._vol, self._vol.who)
        path = self._map.path(v, lo)
        gone = self._map.cut(batch, v, path[-1][0], lo, hi)
        batch.free += [(self._vol.type[kind], block, n) for kind, block, n in gone]
        lost = sum(n for _kind, _block, n in gone) + self._map.prune(batch, v, path)
        batch.commit()
        return lost

    # -- attributes

    def attributes(self, v: Vnode) -> int:
        """Check access list and records; 1 if there is a block of them, else 0."""
        raw = self._vol.block(v.ino)
        self._access_list(v, raw)
        found: dict[bytes, bytes] = {}
        self._records(v, v.ino, raw, f.RECORDS_AT, found)
        pointer = f.POINTER.unpack_from(raw, f.XATTR_POINTER)[0]
        if pointer >> f.KIND_SHIFT != f.P_XATTR:
            if pointer and self._log("extent-slot", v.ino, slot=f.INODE_SLOTS):
                self._zero(v, f.XATTR_POINTER, f.XATTR_POINTER + 8)
            return 0
        block = pointer & f.BLOCK_MASK
        self._vol.set_home(block, v.ino, 64 if v.is_dir else f.INODE_SLOTS)
        raw = self._vol.block(block)
        (ino,) = f.POINTER.unpack_from(raw, f.XATTR_INO_AT)
        if ino != v.ino and self._vol.xn.refs(block) > 1:
            if self._log("block-twice", v.ino, slot=f.INODE_SLOTS, other=block):
                batch = Batch(self._vol, self._vol.who)
                batch.edit(v.ino, f.XATTR_POINTER, bytes(8))
                batch.free.append((self._vol.type[f.P_XATTR], block, 1))
                batch.commit()
            return 0
        if ino != v.ino and self._log("xattr-head", block, got=ino):
            self._edit(v, block, f.XATTR_INO_AT, f.POINTER.pack(v.ino))
        self._records(v, block, raw, f.XATTR_BLOCK_AT, found)
        return 1

    def _edit(self, v: Vnode, block: int, at: int, data: bytes) -> None:
        batch = Batch(self._vol, self._vol.who)
        batch.edit(block, at, data)
        if block != v.ino:
            batch.witnesses[block] = v.ino
        batch.commit()

    def _records(
        self, v: Vnode, block: int, raw: bytes, at: int, found: dict[bytes, bytes]
    ) -> None:
        before = dict(found)
        try:
            parse_untrusted(block, raw[at:], found)
        except CorruptionError:
            if self._log("xattr-record", block):
                good = sum(_record_size(n, v) for n, v in found.items() if n not in before)
                self._edit(v, block, at + good, bytes(f.BLOCK - at - good))

    def _access_list(self, v: Vnode, raw: bytes) -> None:
        (count,) = f.ACL_COUNT.unpack_from(raw, f.ACL_AT)
        at = f.ACL_AT + f.ACL_COUNT.size
        if count <= f.ACL_ENTRIES:
            entries = f.ACL_ENTRY.iter_unpack(raw[at : at + count * f.ACL_ENTRY.size])
            if all(tag in _ACL_TAGS and perm <= 7 for tag, perm, _id in entries):
                return
        if self._log("acl-entry", v.ino):
            # Without its list the inode is for its owner alone: nobody gains by the damage.
            batch = Batch(self._vol, self._vol.who)
            batch.edit(v.ino, f.ACL_AT, bytes(f.RECORDS_AT - f.ACL_AT))
            batch.set(v, mode=v.mode & ~0o077)
            batch.commit()


def _record_size(name: bytes, value: bytes) -> int:
    prefix: Any = next(p for p in NAMESPACES if name.startswith(p))
    return HEAD.size + len(name) - len(prefix) + len(value)
