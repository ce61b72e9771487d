"""Random system calls on the toy file system: every one that changes pointers, remembered.

Nodes carry a number of their own, so that it can be told which object a block holds.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field

from xnfs_trials.crash.explore import contents, recorded
from xnfs_trials.crash.mounting import CANARY, fill_canary
from xnfs_trials.crash.rawdisk import BLOCK

from tests.disk.toyfs import DATA, HIDDEN, LEAF, NODE, Toy, slot, slot_at
from xnfs import MemoryDevice, NoFrames, NoSpace, NotEmpty, NotFree, Refused
from xnfs.disk.recording import RecordingDevice

MIXED = (
    "add add add add add leaf data data share move swap relocate free free free prune hasty"
    " write write reserve reveal collect sync some some some some some writeback evict hold"
)
#: What is called more often, by mode: each brings up other histories.
MODES = (
    "",
    "data data free free prune prune writeback writeback some some",
    "move move move swap free free data writeback some some",
    "add free write write write some some some some some some some",
    "share share free free leaf relocate relocate some hold",
    "reserve reserve reveal reveal reveal writeback some some",
    "tail tail tail tail tail tail writeback writeback some write write",
    "collect " * 10 + "add add move move move swap free free free data data data some some",
)
IDENT = 32  # where a node's own number lies
SLOTS = 6  # of the 100, so that they fill


@dataclass
class Thing:
    """A block of the toy in memory: what it is, and who points at it."""

    ident: int
    kind: int
    block: int
    count: int = 1
    owners: set[tuple[int, int]] = field(default_factory=set)  # (ident of the parent, slot)
    slots: dict[int, int] = field(default_factory=dict)  # slot -> ident
    held: bool = False
    synced: int | None = None  # the operation from which on it must be found
    gone: int | None = None  # the operation in which it lost its last owner


def identity(kind: int, raw: bytes) -> int:
    """Which object a block says that it is."""
    at = IDENT if kind == NODE else 64 if kind == LEAF else 0
    return int(struct.unpack_from("<Q", raw, at)[0])


class ToyActor:
    """A random sequence of system calls on one root."""

    def __init__(
        self,
        seed: int,
        count: int,
        blocks: int = 160,
        start: Mapping[int, bytes] | None = None,
        mode: str | None = None,
    ) -> None:
        """`start`: a disk that a power cut left; its recovery is recorded as well. `mode`: what is
        called more often; one of MODES by the seed if None."""
        self.rng = random.Random(seed)
        extra = self.rng.choice(MODES) if mode is None else mode
        self.choices = (MIXED + " " + extra).split()
        self.freed: list[int] = []  # lately: taken again soon
        self.moved: list[int] = []
        disk = MemoryDevice(blocks, dict(start or {}))
        if start is None:
            Toy(disk).xn.close()
            fill_canary(disk)
        self.blocks = blocks
        self.base = contents(disk)
        self.device = RecordingDevice(disk)
        frames = self.rng.choice((48, 64, 256))
        self.toy = Toy(self.device, fresh=False, frames=frames, dirt=CANARY)
        self.marks: list[int] = []
        self.asks: list[int] = [0]
        self.ask_at: dict[int, list[int]] = {}
        self.voids: list[tuple[int, int]] = []  # (events, object): unlinked while held
        self.log: list[str] = []
        self.things = {0: Thing(0, NODE, self.toy.root)}
        self.dead: list[Thing] = []
        self.hidden = seed + 1 << 32  # numbers for reserved blocks on the disk: they show none
        self._adopt()
        self.next = max(*self.things, self.hidden) + 1
        for _ in range(count):
            self._step()
        self.toy.xn.sync(self.toy.me)
        self.asks.append(len(self.device.events))
        self.events = recorded(self.device)

    def _adopt(self) -> None:
        """Know what is on the disk. All of it is durable, so all of it must stay."""
        xn, me = self.toy.xn, self.toy.me
        todo = [self.things[0]]
        while todo:
            node = todo.pop()
            raw = xn.read(me, node.block, 0, BLOCK)
            for index in range(SLOTS):
                kind, count, block = struct.unpack_from("<IIQ", raw, slot_at(index))
                if not kind:
                    continue
                if kind != HIDDEN:
                    xn.readin(me, node.block, index, block, count)
                if kind == HIDDEN:
                    self.hidden += 1
                    ident = self.hidden
                else:
                    ident = identity(kind, xn.read(me, block, 0, BLOCK))
                known = ident in self.things
                thing = self.things.setdefault(ident, Thing(ident, kind, block, count))
                self._own(node, index, thing)
                if kind == NODE and not known:
                    todo.append(thing)
        self.ask_at[0] = [t.ident for t in self.things.values() if t.kind != HIDDEN]

    # -- operations

    def _step(self) -> None:
        self.marks.append(len(self.device.events))
        name = self.rng.choice(self.choices)
        try:
            text = getattr(self, "_" + name)()
        except NoFrames:
            text = "no frames, evicted " + self._evict()
        except (NotFree, NoSpace, NotEmpty, Refused) as e:
            if name in ("sync", "some", "writeback", "evict", "collect"):
                raise
            text = f"{type(e).__name__}: {e}"
        self.log.append(f"{len(self.marks)} {name}: {text}")

    def _pick(self, *kinds: int) -> Thing:
        found = [t for t in self.things.values() if t.kind in kinds and not t.held]
        return self.rng.choice(found)

    def _empty_slot(self, node: Thing) -> int | None:
        free = [i for i in range(SLOTS) if i not in node.slots]
        return self.rng.choice(free) if free else None

    def _add(self, kind: int = NODE, count: int = 1, *, sync: bool = False) -> str:
        parent = self._pick(NODE)
        index = self._empty_slot(parent)
        xn, me = self.toy.xn, self.toy.me
        block, n = xn.find_free(self._hint(), count)
        if index is None or n < count:
            return "no room"
        thing = Thing(self.next, kind, block, count)
        ident = struct.pack("<Q", thing.ident)
        inits = {}
        if kind in (NODE, LEAF):
            inits[block] = [(IDENT if kind == NODE else 64, ident)]
        diff = [(slot_at(index), slot(kind, block, count))]
        number = self.toy.number(kind)
        xn.change(me, [(parent.block, diff)], alloc=[(number, block, count)], inits=inits)
        if kind == DATA:
            # Sometimes in part: the rest must read as zeros.
            size = count * BLOCK if self.rng.random() < 0.6 else 16 * self.rng.randrange(1, 256)
            xn.write_raw(me, block, 0, (ident + bytes(8)) * (size // 16))
        self.things[self.next] = thing
        self.next += 1
        self._own(parent, index, thing)
        if sync:
            xn.sync(me, [parent.block])
            self._acknowledge([parent, thing])
        return f"{thing.ident} = {block}+{count} in {parent.ident}.{index} ({parent.block})"

    def _hint(self) -> int:
        """Somewhere, or where something was: blocks that come back too soon are what R1 is
        about."""
        if self.freed and self.rng.random() < 0.7:
            return self.rng.choice(self.freed[-6:])
        return self.rng.randrange(self.blocks)

    def _own(self, parent: Thing, index: int, child: Thing) -> None:
        parent.slots[index] = child.ident
        child.owners.add((parent.ident, index))

    def _disown(self, parent: Thing, index: int) -> Thing:
        child = self.things[parent.slots.pop(index)]
        child.owners.discard((parent.ident, index))
        if not child.owners and not child.held:
            child.gone = len(self.marks)
            self.dead.append(self.things.pop(child.ident))
            self.freed.append(child.block)
        return child

    def _leaf(self) -> str:
        return self._add(LEAF)

    def _data(self) -> str:
        return self._add(DATA, self.rng.randrange(1, 4))

    def _below(self, thing: Thing, node: Thing) -> bool:
        """Is `thing` the node, or an ancestor of it?"""
        todo, seen = [node.ident], set()
        while todo:
            ident = todo.pop()
            if ident == thing.ident:
                return True
            if ident not in seen and ident in self.things:
                seen.add(ident)
                todo += [parent for parent, _ in self.things[ident].owners]
        return False

    def _share(self) -> str:
        parent, child = self._pick(NODE), self._pick(NODE, LEAF)
        index = self._empty_slot(parent)
        if index is None or not child.owners or self._below(child, parent):
            return "no room"
        self.toy.share(parent.block, index, child.kind, child.block)
        self._own(parent, index, child)
        return f"{child.ident} ({child.block}) in {parent.ident}.{index} ({parent.block})"

    def _pointer(self, child: Thing) -> bytes:
        return slot(child.kind, child.block, child.count)

    def _move(self) -> str:
        src, dst = self._pick(NODE), self._pick(NODE)
        index = self._empty_slot(dst)
        if not src.slots or index is None or src is dst:
            return "nothing"
        at = self.rng.choice(sorted(src.slots))
        child = self.things[src.slots[at]]
        if self._below(child, dst):
            return "nothing"
        cut, put = [(slot_at(at), bytes(16))], [(slot_at(index), self._pointer(child))]
        self.toy.xn.move(self.toy.me, src.block, cut, dst.block, put)
        self._own(dst, index, child)
        self._disown(src, at)
        self.moved = [*self.moved[-3:], child.block]
        return f"{child.ident} ({child.block}) from {src.block} to {dst.block}.{index}"

    def _replace(self) -> str:
        """Move something over something else, which loses an owner by it: a rename over a file."""
        src, dst = self._pick(NODE), self._pick(NODE)
        found = [i for i, ident in dst.slots.items() if not self.things[ident].slots]
        if not src.slots or not found or src is dst:
            return "nothing"
        at, over = self.rng.choice(sorted(src.slots)), self.rng.choice(sorted(found))
        child, old = self.things[src.slots[at]], self.things[dst.slots[over]]
        if child is old or self._below(child, dst):
            return "nothing"
        edits = [
            (src.block, [(slot_at(at), bytes(16))]),
            (dst.block, [(slot_at(over), self._pointer(child))]),
        ]
        claim = [(self.toy.number(old.kind), old.block, old.count)]
        self.toy.xn.change(self.toy.me, edits, free=claim)
        self._disown(dst, over)
        self._own(dst, over, child)
        self._disown(src, at)
        return f"{child.ident} from {src.block}.{at} over {old.ident} ({old.block}) in {dst.block}"

    def _swap(self) -> str:
        a, b = self._pick(NODE), self._pick(NODE)
        if not a.slots or not b.slots or a is b:
            return "nothing"
        i, j = self.rng.choice(sorted(a.slots)), self.rng.choice(sorted(b.slots))
        x, y = self.things[a.slots[i]], self.things[b.slots[j]]
        if x is y or self._below(x, b) or self._below(y, a):
            return "nothing"
        one, two = [(slot_at(i), self._pointer(y))], [(slot_at(j), self._pointer(x))]
        self.toy.xn.swap(self.toy.me, a.block, one, b.block, two)
        x.owners.discard((a.ident, i))
        y.owners.discard((b.ident, j))
        self._own(a, i, y)
        self._own(b, j, x)
        return f"{x.ident} in {a.block}.{i} and {y.ident} in {b.block}.{j}"

    def _relocate(self) -> str:
        thing = self._pick(NODE, LEAF)
        if len(thing.owners) != 1:
            return "nothing"
        (parent, index) = next(iter(thing.owners))
        block, n = self.toy.xn.find_free(self._hint(), 1)
        if not n:
            return "no room"
        diff = [(slot_at(index), slot(thing.kind, block))]
        where = self.things[parent].block
        self.toy.xn.relocate(self.toy.me, where, diff, thing.block, block)
        text = f"{thing.ident} from {thing.block} to {block} in {where}"
        thing.block = block
        return text

    def _free(self) -> str:
        found = [t for t in self.things.values() if t.owners and not t.slots]
        if not found:
            return "nothing"
        thing = self.rng.choice(found)
        parent, index = self.rng.choice(sorted(thing.owners))
        return self._release(self.things[parent], index, thing)

    def _prune(self) -> str:
        """Free a node right after its children: what waits for the node waits for its parent
        now."""
        found = [t for t in self.things.values() if t.kind == NODE and len(t.owners) == 1]
        found = [t for t in found if all(not self.things[i].slots for i in t.slots.values())]
        if not found:
            return "nothing"
        node = self.rng.choice(found)
        for index, ident in sorted(node.slots.items()):
            self._release(node, index, self.things[ident])
        parent, index = next(iter(node.owners))
        return "children and " + self._release(self.things[parent], index, node)

    def _release(self, node: Thing, index: int, thing: Thing) -> str:
        claim = [(self.toy.number(thing.kind), thing.block, thing.count)]
        self.toy.xn.free(self.toy.me, node.block, [(slot_at(index), bytes(16))], claim)
        self._disown(node, index)
        return f"{thing.ident} ({thing.block}+{thing.count}) of {node.ident} ({node.block})"

    def _write(self) -> str:
        thing = self._pick(NODE, LEAF)
        raw = bytes([self.rng.randrange(256)]) * 40
        if thing.kind == LEAF:
            self.toy.xn.write_raw(self.toy.me, thing.block, 2000, raw)
        else:
            self.toy.xn.update(self.toy.me, thing.block, [(3000, raw)])
        return f"{thing.ident} ({thing.block})"

    def _hold(self) -> str:
        """Keep an object over the loss of its last owner, then let it go."""
        found = [t for t in self.things.values() if len(t.owners) == 1 and not t.slots]
        found = [t for t in found if t.kind in (NODE, LEAF)]
        if not found:
            return "nothing"
        thing = self.rng.choice(found)
        xn, me = self.toy.xn, self.toy.me
        xn.hold(me, thing.block)
        thing.held = True
        parent, index = next(iter(thing.owners))
        node = self.things[parent]
        claim = [(self.toy.number(thing.kind), thing.block, 1)]
        xn.free(me, node.block, [(slot_at(index), bytes(16))], claim)
        self._disown(node, index)
        self.voids.append((len(self.device.events), thing.ident))
        if self.rng.random() < 0.5:
            self._some()
        if self.rng.random() < 0.3 and (at := self._empty_slot(node)) is not None:
            self.toy.share(node.block, at, thing.kind, thing.block)
            self._own(node, at, thing)
        xn.drop(me, thing.block)
        thing.held = False
        if not thing.owners:
            thing.gone = len(self.marks)
            self.dead.append(self.things.pop(thing.ident))
        return f"{thing.ident} ({thing.block})"

    # -- durability

    def _acknowledge(self, things: list[Thing]) -> None:
        now = len(self.device.events)
        self.asks.append(now)
        self.ask_at.setdefault(now, []).extend(t.ident for t in things if t.kind != HIDDEN)

    def _sync(self) -> str:
        self.toy.xn.sync(self.toy.me)
        self._acknowledge(list(self.things.values()))
        return "all"

    def _some(self) -> str:
        thing = self._pick(NODE, LEAF)
        self.toy.xn.sync(self.toy.me, [thing.block])
        self._acknowledge([thing])
        return f"{thing.ident} ({thing.block})"

    def _hasty(self) -> str:
        """Move something, free it, take its block again elsewhere, and sync that alone."""
        moved = self._move()
        if moved == "nothing":
            return moved
        found = [t for t in self.things.values() if len(t.owners) == 1 and not t.slots]
        thing = max(found, key=lambda t: t.block in self.moved, default=None)
        if thing is None:
            return moved
        parent, index = next(iter(thing.owners))
        freed = self._release(self.things[parent], index, thing)
        return f"{moved}; {freed}; {self._add(self.rng.choice((NODE, LEAF)), sync=True)}"

    def _tail(self) -> str:
        """Overwrite data right after the sync that made it known, or that wrote it last."""
        text = self._add(DATA, self.rng.randrange(1, 4), sync=True)
        found = [
            t
            for t in self.things.values()
            if t.kind == DATA and all(map(self.toy.xn.cached, range(t.block, t.block + t.count)))
        ]
        if not found:
            return text
        thing = max(found, key=lambda t: t.ident) if self.rng.random() < 0.7 else found[0]
        xn, me = self.toy.xn, self.toy.me
        ident = struct.pack("<QQ", thing.ident, 0)
        for _ in range(self.rng.randrange(1, 4)):
            # The same words, more of them or fewer.
            size = 16 * self.rng.randrange(1, 256 * thing.count)
            xn.write_raw(me, thing.block, 0, (ident * (256 * thing.count))[:size] + bytes(16))
            if self.rng.random() < 0.6:
                xn.writeback(me, range(thing.block, thing.block + thing.count))
            if self.rng.random() < 0.6:
                xn.sync(me, [thing.block])
        return f"{text}; {thing.ident} ({thing.block}) again"

    def _reserve(self) -> str:
        return self._add(HIDDEN, self.rng.randrange(1, 4))

    def _reveal(self) -> str:
        """Unreadable blocks turn into data."""
        found = [t for t in self.things.values() if t.kind == HIDDEN]
        if not found:
            return "nothing"
        thing = self.rng.choice(found)
        parent, index = next(iter(thing.owners))
        xn, me = self.toy.xn, self.toy.me
        run = thing.block, thing.count
        where = self.things[parent].block
        diff = [(slot_at(index), slot(DATA, *run))]
        free, alloc = [(self.toy.number(HIDDEN), *run)], [(self.toy.number(DATA), *run)]
        xn.change(me, [(where, diff)], free=free, alloc=alloc)
        ident = struct.pack("<QQ", thing.ident, 0)
        xn.write_raw(me, thing.block, 0, ident * (thing.count * BLOCK // 16))
        thing.kind = DATA
        return f"{thing.ident} ({thing.block}+{thing.count}) in {where}"

    def _writeback(self) -> str:
        blocks = [t.block + i for t in self.things.values() for i in range(t.count)]
        chosen = [b for b in blocks if self.rng.random() < 0.5]
        self.toy.xn.writeback(self.toy.me, chosen)
        return str(chosen)

    def _evict(self) -> str:
        data = [t for t in self.things.values() if t.kind == DATA]
        blocks = [t.block + i for t in data for i in range(t.count)]
        return str(self.toy.xn.evict(self.toy.me, blocks))

    def _collect(self) -> str:
        """A few steps of the collector; it sees changes between them."""
        if not self.toy.xn.leaky or len(self.marks) < 25:
            return "nothing"  # not before there is a tree to walk
        return str(self.toy.xn.collect(self.toy.me, 1))
