"""The kernel under a toy file system: every system call that changes pointers, and nothing else.

Nodes carry a number of their own, so that it can be told which object a block holds. The checks
are the same as for FFS: the raw bytes keep R1 to R5, what was synced is there, and recovery ends,
twice the same.
"""

from __future__ import annotations

import random
import struct
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from tests.crash.explore import contents, recorded
from tests.crash.model import Cut
from tests.crash.rawdisk import BLOCK, RawDisk
from tests.disk.toyfs import DATA, LEAF, NODE, Toy, slot, slot_at
from xnfs import Caller, FramePool, MemoryDevice, NoSpace, NotEmpty, NotFree, Refused, Xn
from xnfs.disk.fsck import check_image
from xnfs.disk.recording import RecordingDevice

CANARY = b"\xca\xfe\xba\xbe" * 4
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


@dataclass
class Shown:
    """What an image contains: identity -> pointers to it."""

    objects: Counter[int]
    leaks: int
    recovered: dict[int, bytes]


def identity(kind: int, raw: bytes) -> int:
    """Which object a block says that it is."""
    at = IDENT if kind == NODE else 64 if kind == LEAF else 0
    return int(struct.unpack_from("<Q", raw, at)[0])


class ToyTrial:
    """A random sequence of system calls on one root."""

    def __init__(
        self,
        seed: int,
        count: int,
        blocks: int = 160,
        start: Mapping[int, bytes] | None = None,
    ) -> None:
        """`start`: a disk that a power cut left; its recovery is recorded as well."""
        self.rng = random.Random(seed)
        disk = MemoryDevice(blocks, dict(start or {}))
        if start is None:
            Toy(disk).xn.close()
            fill_canary(disk)
        self.blocks = blocks
        self.base: Mapping[int, bytes] = contents(disk)
        self.device = RecordingDevice(disk)
        self.toy = Toy(self.device, fresh=False)
        self.marks: list[int] = []
        self.asks: list[int] = [0]
        self.ask_at: dict[int, list[int]] = {}
        self.voids: list[tuple[int, int]] = []  # (events, object): unlinked while held
        self.log: list[str] = []
        self.things = {0: Thing(0, NODE, self.toy.root)}
        self.dead: list[Thing] = []
        self._adopt()
        self.next = max(self.things) + 1
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
                xn.readin(me, node.block, index, block, count)
                ident = identity(kind, xn.read(me, block, 0, BLOCK))
                known = ident in self.things
                thing = self.things.setdefault(ident, Thing(ident, kind, block, count))
                self._own(node, index, thing)
                if kind == NODE and not known:
                    todo.append(thing)
        self.ask_at[0] = list(self.things)

    # -- operations

    def _step(self) -> None:
        self.marks.append(len(self.device.events))
        names = ["add"] * 5 + ["leaf", "data", "data", "share", "move", "swap", "relocate", "free"]
        names += ["free", "free", "collect", "write", "sync", "some", "some", "writeback", "evict", "hold"]
        name = self.rng.choice(names)
        try:
            text = getattr(self, "_" + name)()
        except (NotFree, NoSpace, NotEmpty, Refused) as e:
            text = f"{type(e).__name__}: {e}"
        self.log.append(f"{len(self.marks)} {name}: {text}")

    def _pick(self, *kinds: int) -> Thing:
        found = [t for t in self.things.values() if t.kind in kinds and not t.held]
        return self.rng.choice(found)

    def _empty_slot(self, node: Thing) -> int | None:
        free = [i for i in range(SLOTS) if i not in node.slots]
        return self.rng.choice(free) if free else None

    def _add(self, kind: int = NODE, count: int = 1) -> str:
        parent = self._pick(NODE)
        index = self._empty_slot(parent)
        xn, me = self.toy.xn, self.toy.me
        block, n = xn.find_free(self.rng.randrange(self.blocks), count)
        if index is None or n < count:
            return "no room"
        thing = Thing(self.next, kind, block, count)
        ident = struct.pack("<Q", thing.ident)
        inits = {block: [(IDENT if kind == NODE else 64, ident)]} if kind != DATA else {}
        diff = [(slot_at(index), slot(kind, block, count))]
        number = self.toy.number(kind)
        xn.change(me, [(parent.block, diff)], alloc=[(number, block, count)], inits=inits)
        if kind == DATA:
            xn.write_raw(me, block, 0, (ident + bytes(8)) * (count * BLOCK // 16))
        self.things[self.next] = thing
        self.next += 1
        self._own(parent, index, thing)
        return f"{thing.ident} = {block}+{count} in {parent.ident}.{index} ({parent.block})"

    def _own(self, parent: Thing, index: int, child: Thing) -> None:
        parent.slots[index] = child.ident
        child.owners.add((parent.ident, index))

    def _disown(self, parent: Thing, index: int) -> Thing:
        child = self.things[parent.slots.pop(index)]
        child.owners.discard((parent.ident, index))
        if not child.owners and not child.held:
            child.gone = len(self.marks)
            self.dead.append(self.things.pop(child.ident))
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
        return f"{child.ident} ({child.block}) from {src.block} to {dst.block}.{index}"

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
        block, n = self.toy.xn.find_free(self.rng.randrange(self.blocks), 1)
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
        node = self.things[parent]
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
        found = [t for t in found if t.kind != DATA]
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
        self.ask_at.setdefault(now, []).extend(t.ident for t in things)

    def _sync(self) -> str:
        self.toy.xn.sync(self.toy.me)
        self._acknowledge(list(self.things.values()))
        return "all"

    def _some(self) -> str:
        thing = self._pick(NODE, LEAF)
        self.toy.xn.sync(self.toy.me, [thing.block])
        self._acknowledge([thing])
        return f"{thing.ident} ({thing.block})"

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
        if not self.toy.xn.leaky:
            return "nothing"
        return str(self.toy.xn.collect(self.toy.me, self.rng.randrange(1, 4)))

    # -- what an image shows

    def describe(self) -> list[str]:
        return self.log

    def inspect(self, image: Mapping[int, bytes]) -> tuple[list[str], object]:
        disk = RawDisk(image, self.blocks)
        disk.recover()
        names = {name: number for number, name in disk.type_names().items()}
        kinds = {NODE: names[b"t.node"], DATA: names[b"t.data"], LEAF: names[b"t.leaf"]}
        owners: Counter[int] = Counter()
        objects: Counter[int] = Counter()
        kind_of: dict[int, int] = {}
        start = disk.super.roots[0]
        if not disk.stamp_ok(start, disk.block(start)):
            disk.find("R2", start, "root catalogue is torn")
        root = struct.unpack_from("<Q", disk.block(start), 128 + 64)[0]
        todo = [(NODE, root, 1)]
        while todo:
            kind, first, count = todo.pop()
            for block in range(first, first + count):
                if not disk.in_data(block):
                    disk.find("pointer", block, "outside")
                    continue
                owners[block] += 1
                if kind_of.setdefault(block, kind) != kind:
                    disk.find("R1", block, "two types")
                    continue
                raw = disk.block(block)
                ident = identity(kind, raw)
                objects[ident] += 1
                if CANARY in raw:
                    disk.find("R2", block, "never initialised")
                if owners[block] > 1 or kind == DATA:
                    continue
                if not disk.stamp_ok(block, raw) or disk.stamp(raw)[1] != kinds[kind]:
                    disk.find("R2", block, f"stamp of a node or leaf ({kind}) is wrong")
                    continue
                if kind == NODE:
                    for at in range(64, 64 + 16 * SLOTS, 16):
                        k, n, b = struct.unpack_from("<IIQ", raw, at)
                        if k:
                            todo.append((k, b, n))
        for block, seen in owners.items():
            if not disk.in_use(block):
                disk.find("R4", block, "named, and free in the map")
            elif seen > max(1, disk.refs(block)):
                disk.find("R5", block, f"{seen} pointers, counted {disk.refs(block)}")
        data = range(disk.super.data_start, self.blocks - 1)
        leaks = sum(1 for b in data if disk.in_use(b) and b not in owners)
        wrong = [f"{f.rule} block {f.block}: {f.text}" for f in disk.findings]
        return wrong, Shown(objects, leaks, disk.image)

    def promise(self, shown: object, cut: Cut) -> list[str]:
        """What was synced before the cut and not freed since is there."""
        assert isinstance(shown, Shown)
        must = {
            ident
            for at, idents in self.ask_at.items()
            for ident in idents
            if at <= cut.event
            and not any(at <= e < cut.event for e, held in self.voids if held == ident)
        }
        gone = {t.ident for t in self.dead if t.gone is not None and t.gone <= cut.version}
        return [f"object {i}, synced, is gone" for i in must - gone if not shown.objects[i]]

    def mount(self, image: dict[int, bytes], shown: object) -> list[str]:
        """Recovery gives the same bytes as the checker's, twice; fsck is clean; leaks are
        collected."""
        assert isinstance(shown, Shown)
        return mount_checks(image, self.blocks, shown.recovered)


def mount_checks(image: dict[int, bytes], blocks: int, want: Mapping[int, bytes]) -> list[str]:
    """What any file system's image must stand: recovery, fsck, collection."""
    out = []
    result = check_image(MemoryDevice(blocks, dict(image)), repair=False, report=lambda f: None)
    if not result.clean:
        found: list[str] = []
        check_image(
            MemoryDevice(blocks, dict(image)), repair=False, report=lambda f: found.append(str(f))
        )
        out += [f"fsck: {text}" for text in found]
    disk = MemoryDevice(blocks, dict(image))
    for turn in ("first", "second"):
        Xn(disk, frames=FramePool(64), clock=lambda: 1)
        low = RawDisk(disk._contents, blocks).super
        for block in range(low.map[0], blocks - 1):
            if disk._contents.get(block, bytes(BLOCK)) != want.get(block, bytes(BLOCK)):
                out.append(f"{turn} recovery left other bytes in block {block}")
    xn = Xn(disk, frames=FramePool(256), clock=lambda: 1)
    who = Caller(xn.admin)
    while not xn.collect(who, 1000).done:
        pass
    xn.close()
    result = check_image(disk, repair=False, report=lambda f: out.append(f"after collecting: {f}"))
    if result.leaked:
        out.append(f"{result.leaked} blocks are left by the collector")
    return out


def fill_canary(disk: MemoryDevice) -> int:
    """Free blocks hold bytes that nobody may ever see. Returns how many there are."""
    raw = RawDisk(disk._contents, disk.blocks)
    free = [b for b in range(raw.super.data_start, disk.blocks - 1) if not raw.in_use(b)]
    for block in free:
        disk.write(block, [CANARY * (BLOCK // len(CANARY))])
    return len(free)
