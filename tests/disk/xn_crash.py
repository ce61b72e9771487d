"""Power cuts under the system calls: which disks to look at, and what must be true of each.

The walker here shares no code with the kernel: it parses the bytes that SPEC.md describes. What it
checks follows from the promises alone (R1 to R5, one transaction for each change, durable on
return), given the states that the model went through and when syncs returned.
"""

from __future__ import annotations

import random
import struct
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain, combinations

from tests.disk.xn_actor import Actor
from tests.disk.xn_kit import DATA, NODE, NUMBER, RAW, UUID, Kit, slots_of
from tests.disk.xn_model import TAG, Model, Node, State
from xnfs import BLOCK, Caller, FramePool, MemoryDevice, Xn
from xnfs.disk.recording import RecordingDevice
from xnfs.disk.stacked import Fault, FaultingDevice
from xnfs.errors import DeviceError

SECTOR = 512


class Broken(AssertionError):
    """A promise that the disk after a cut does not keep."""


def need(true: object, *what: object) -> None:
    """Raise Broken unless true."""
    if not true:
        raise Broken(" ".join(map(str, what)))


# --- the walker -----------------------------------------------------------------------------


def block_of(disk: MemoryDevice, block: int) -> bytes:
    """4096 bytes."""
    raw = bytearray(BLOCK)
    disk.read(block, [memoryview(raw)])
    return bytes(raw)


@dataclass(slots=True)
class Tree:
    """What a walk from the root has found."""

    nodes: dict[int, tuple[int, int, dict[int, tuple[int, int, int]]]]  # id, version, slots
    pointers: Counter[int]
    kinds: dict[int, int]
    disk: MemoryDevice


class Walker:
    """Reads the tables and the tree off a disk."""

    def __init__(self, disk: MemoryDevice) -> None:
        self.disk = disk
        head = block_of(disk, 0)
        self.map_start, _n, self.refs_start = struct.unpack_from("<QQQ", head, 136)
        (self.roots_start,) = struct.unpack_from("<Q", head, 184)
        (self.data_start,) = struct.unpack_from("<Q", head, 200)
        self.data_end = disk.blocks - 1
        self.map = block_of(disk, self.map_start)

    def total(self, block: int) -> int:
        """What the tables say; an image of the tests is one group."""
        if not self.map[block // 8] >> block % 8 & 1:
            return 0
        (flags,) = struct.unpack_from("<I", self.map, 504)
        table, entry = divmod(block, 2016)  # counts come first
        if not flags & 1 << table:
            return 1
        raw = block_of(self.disk, self.refs_start + table)
        at = entry // 252 * SECTOR + entry % 252 * 2
        return max(1, int.from_bytes(raw[at : at + 2], "little"))

    def roots(self) -> list[int]:
        """First blocks of all roots."""
        raw = self.stamped(self.roots_start, 1)
        slots = [struct.unpack_from("<Q", raw, 128 + 128 * i + 64)[0] for i in range(31)]
        return [block for block in slots if block]

    def stamped(self, block: int, kind: int) -> bytes:
        """A metadata block whose stamp must be right."""
        raw = block_of(self.disk, block)
        crc, got = struct.unpack_from("<II", raw, 0)
        want = zlib.crc32(UUID + struct.pack("<Q", block) + raw[4:])
        need(crc == want, f"block {block}: checksum")
        need(got == kind, f"block {block}: type {got}, not {kind}")
        return raw

    def walk(self) -> Tree:
        """Everything below the roots; raises Broken for what no disk may show."""
        roots = self.roots()
        tree = Tree({}, Counter(roots), dict.fromkeys(roots, NODE), self.disk)
        todo = list(roots)
        while todo:
            block = todo.pop()
            if block in tree.nodes:
                continue
            raw = self.stamped(block, NUMBER[NODE])
            slots = slots_of(raw)
            tree.nodes[block] = (*TAG.unpack_from(raw, RAW[0]), slots)
            for kind, start, count in slots.values():
                need(self.data_start <= start and start + count <= self.data_end, "wild pointer")
                for child in range(start, start + count):
                    tree.pointers[child] += 1
                    seen = tree.kinds.setdefault(child, kind)
                    need({seen, kind} <= {kind}, f"R2: block {child} is kind {seen} and {kind}")
                    if kind == NODE:
                        todo.append(child)
        for block, n in tree.pointers.items():
            total = self.total(block)
            need(total >= n, f"R4/R5: block {block} has {n} pointers, the tables say {total}")
        return tree

    def check_exact(self, tree: Tree) -> None:
        """No leak, no count too high."""
        for block in range(self.data_start, self.data_end):
            total, n = self.total(block), tree.pointers[block]
            need(total == n, f"leak: block {block} has {n} pointers, the tables say {total}")


# --- what must be true ----------------------------------------------------------------------


@dataclass(slots=True)
class Sync:
    """One commit: between which events, after which change, and of what (None: everything)."""

    begin: int
    end: int | None
    op: int
    blocks: list[int] | None


@dataclass(slots=True)
class Run:
    """A recorded workload."""

    actor: Actor
    disk: RecordingDevice
    syncs: list[Sync]
    ends: list[int] = field(default_factory=list)  # op -> number of events when it returned

    @property
    def states(self) -> list[State]:
        """By number of the last change."""
        return self.actor.states


def record(
    seed: float,
    steps: int,
    base: MemoryDevice,
    *,
    partial: bool,
    frames: int = 256,
    again: bool = False,
    fault: Fault | None = None,
) -> Run:
    """Run a random workload on a recording device. `again`: on a disk that has had a life before.

    With a fault it ends when that strikes.
    """
    disk = RecordingDevice(base)
    device = FaultingDevice(disk)
    kit = Kit(device, frames=frames)
    if fault:
        device.plant(fault)
    syncs: list[Sync] = []
    model = _found(kit, Walker(base)) if again else None
    actor = Actor(kit, seed, partial=partial, model=model)
    seen = kit.xn._committer.commit

    def noted(blocks: object = None) -> None:
        some = None if blocks is None else list(blocks)  # type: ignore[call-overload]
        # A commit inside a change comes before its effect.
        sync = Sync(len(disk.events), None, len(actor.states) - 1, some)
        syncs.append(sync)
        seen(some)
        sync.end = len(disk.events)

    kit.xn._committer.commit = noted  # type: ignore[method-assign]
    run = Run(actor, disk, syncs, [0] * actor.op + [len(disk.events)])
    for _ in range(steps):
        try:
            actor.step()
        except DeviceError:
            assert fault is not None
            break
        run.ends.append(len(disk.events))
    return run


def _found(kit: Kit, walker: Walker) -> Model:
    """The model of a tree as it stands on a disk."""
    tree = walker.walk()
    nodes = {b: Node(i, version, dict(slots)) for b, (i, version, slots) in tree.nodes.items()}
    data = {b: block_of(walker.disk, b) for b, kind in tree.kinds.items() if kind == DATA}
    return Model.of(kit.root, kit.xn.data_area, nodes, data)


class Judge:
    """Says whether a disk is one that a cut may leave."""

    def __init__(self, run: Run, cut: int) -> None:
        self.run, self.cut = run, cut
        first = run.actor.first
        done = [s for s in run.syncs if s.blocks is None and s.end is not None and s.end <= cut]
        #: the last whole sync that had returned, and the last change that had begun
        self.since = max((s.op for s in done), default=first)
        begun = [op for op in range(first + 1, len(run.states)) if run.ends[op - 1] <= cut]
        self.latest = max(begun, default=first)
        self.some = [
            (b, s.op)
            for s in run.syncs
            if s.blocks is not None and s.end is not None and s.end <= cut and s.op > self.since
            for b in s.blocks
        ]

    def check(self, tree: Tree) -> None:
        """All that must be true of a tree. Raises Broken."""
        self._known_versions(tree)
        self._nothing_lost(tree)
        self._whole_changes(tree)
        self._contents(tree)
        if not self.run.actor.partial:
            self._one_state(tree)

    def _known_versions(self, tree: Tree) -> None:
        """Each node is as some change left it."""
        for block, (_id, version, slots) in tree.nodes.items():
            need(version <= self.latest, f"node {block}: from the future")
            states = self.run.states[min(version, self.latest) : self.latest + 1]
            same = any(
                (n := s.nodes.get(block)) and n.version == version and n.slots == slots
                for s in states
            )
            need(same, f"node {block}: version {version} with {slots} never was")

    def _nothing_lost(self, tree: Tree) -> None:
        """R3: what was reachable in all states that the cut may show is there, new enough."""
        root = self.run.actor.kit.root
        found = {node_id: version for node_id, version, _s in tree.nodes.values()}
        states = self.run.states[self.since : self.latest + 1]
        always = set.intersection(*({s.nodes[b].id for b in s.reachable(root)} for s in states))
        need(always <= found.keys(), f"R3: lost nodes {always - found.keys()}")
        first = {n.id: n.version for n in states[0].nodes.values()}
        for node_id in always & first.keys():
            need(found[node_id] >= first[node_id], f"node {node_id} fell back behind a sync")
        for block, op in self.some:
            node = self.run.states[op].nodes.get(block)
            if node is None:
                continue
            later = self.run.states[op : self.latest + 1]
            if all(node.id in {s.nodes[b].id for b in s.reachable(root)} for s in later):
                need(found.get(node.id, -1) >= node.version, f"sync of block {block} was lost")

    def _whole_changes(self, tree: Tree) -> None:
        """A change shows in all nodes that it edited, or in none."""
        for version in range(self.since + 1, self.latest + 1):
            after = self.run.states[version]
            edited = {n.id for n in after.nodes.values() if n.version == version}
            shown = {found >= version for i, found, _s in tree.nodes.values() if i in edited}
            need(len(shown) < 2, f"change {version} is there in part")

    def _contents(self, tree: Tree) -> None:
        """R2: data shows only what its owner wrote since it was allocated, in whole sectors."""
        for block, (_id, version, slots) in tree.nodes.items():
            for kind, start, count in slots.values():
                if kind == DATA:
                    for data in range(start, start + count):
                        self._data(tree.disk, block, version, data)

    def _data(self, disk: MemoryDevice, owner: int, version: int, block: int) -> None:
        states = self.run.states[version : self.latest + 1]
        born = next((s.born[block] for s in states if block in s.born), None)
        need(born is not None, f"data {block} of node {owner} was never data")
        assert born is not None
        texts = self.run.actor.model.texts[block, born]
        raw = block_of(disk, block)
        for at in range(0, BLOCK, SECTOR):
            piece = raw[at : at + SECTOR]
            need(
                any(text[at : at + SECTOR] == piece for text in texts),
                f"R2: block {block} of node {owner} shows {piece[:24]!r}",
            )

    def _one_state(self, tree: Tree) -> None:
        """Only whole syncs: the tree is that of the last one, or of the one under way."""
        ops = {self.since} | {
            s.op for s in self.run.syncs if s.begin < self.cut and s.op >= self.since
        }
        got = {b: (version, slots) for b, (_id, version, slots) in tree.nodes.items()}
        root = self.run.actor.kit.root
        for op in ops:
            state = self.run.states[op]
            want = {b: (n.version, n.slots) for b in state.reachable(root) if (n := state.nodes[b])}
            if want == got:
                return
        raise Broken(f"the tree is none of the states {sorted(ops)}")


# --- which disks ----------------------------------------------------------------------------


def subsets(
    run: Run, cut: int, rng: random.Random, budget: int
) -> Iterator[tuple[set[int], dict[int, list[int]]]]:
    """(writes that reached the disk, sectors of those that were torn)."""
    pending = [e.id for e in run.disk.pending(cut)]
    if len(pending) <= 3:
        every = chain.from_iterable(combinations(pending, n) for n in range(len(pending) + 1))
        yield from ((set(keep), {}) for keep in every)
    else:
        yield set(), {}
        yield set(pending), {}
        yield set(pending[-1:]), {}
        for _ in range(budget):
            p = rng.choice((0.1, 0.5, 0.9))
            yield {e for e in pending if rng.random() < p}, {}
    if pending:
        for _ in range(max(1, budget // 2)):
            keep = {e for e in pending if rng.random() < 0.6}
            yield keep, {e: tear(rng) for e in keep if rng.random() < 0.5}


def tear(rng: random.Random) -> list[int]:
    """Which sectors of a block arrived."""
    if rng.random() < 0.5:
        return list(range(rng.randint(0, 7)))
    return [i for i in range(8) if rng.random() < 0.5]


def recover(disk: MemoryDevice) -> Xn:
    """Open a disk after a cut."""
    return Xn(disk, frames=FramePool(256), clock=lambda: 1)


def examine(run: Run, cut: int, keep: set[int], torn: dict[int, list[int]], *, again: bool) -> None:
    """Cut, recover, walk, judge, collect, and look for leaks. Raises Broken, or what Xn raises."""
    disk = run.disk.image_at(cut, keep, torn)
    if again:
        _cut_recovery(run, cut, disk)
    xn = recover(disk)
    first = disk.fork()
    walker = Walker(disk)
    tree = walker.walk()
    Judge(run, cut).check(tree)
    twice = disk.fork()
    recover(twice)
    need(_same(twice, first), "recovery twice gives other bytes")
    me = Caller(xn.admin)
    while not xn.collect(me, 8).done:
        pass
    xn.close()
    walker = Walker(disk)
    after = walker.walk()
    need(after.nodes == tree.nodes, "the collection changed the tree")
    walker.check_exact(after)


def lives(seed: int, count: int, steps: int, base: MemoryDevice, *, budget: int = 2) -> int:
    """Several lives, each ended by a cut at which some disks are judged; one of them lives on."""
    rng = random.Random(seed)
    looked, disk = 0, base
    for life in range(count):
        run = record(rng.random(), steps, disk.fork(), partial=rng.random() < 0.7, again=life > 0)
        events = len(run.disk.events)
        for _ in range(budget):
            cut = rng.randint(1, events) if events else 0
            pending = [e.id for e in run.disk.pending(cut)]
            keep = {e for e in pending if rng.random() < rng.choice((0.1, 0.5, 0.9))}
            torn = {e: tear(rng) for e in keep if rng.random() < 0.2}
            looked += 1
            try:
                examine(run, cut, keep, torn, again=False)
            except Exception as e:
                raise Broken(f"seed {seed} life {life} cut {cut} keep {sorted(keep)}: {e!r}") from e
            disk = run.disk.image_at(cut, keep, torn)
    return looked


def _cut_recovery(run: Run, cut: int, disk: MemoryDevice) -> None:
    """A second cut, at every event of the recovery."""
    second = RecordingDevice(disk.fork())
    recover(second)  # type: ignore[arg-type]
    rng = random.Random(cut)
    for at in range(1, len(second.events)):
        pending = [e.id for e in second.pending(at)]
        keep = {e for e in pending if rng.random() < 0.5}
        again = second.image_at(at, keep, {e: tear(rng) for e in keep if rng.random() < 0.5})
        recover(again)
        Judge(run, cut).check(Walker(again).walk())


def _same(a: MemoryDevice, b: MemoryDevice) -> bool:
    return all(block_of(a, block) == block_of(b, block) for block in range(a.blocks))


def explore(run: Run, seed: int, *, budget: int = 4, stride: int = 1, again: float = 0.05) -> int:
    """Look at disks of every `stride`-th cut. Returns how many."""
    rng = random.Random(seed)
    looked = 0
    for cut in range(1, len(run.disk.events) + 1, stride):
        for keep, torn in subsets(run, cut, rng, budget):
            looked += 1
            try:
                examine(run, cut, keep, torn, again=rng.random() < again)
            except Exception as e:
                raise Broken(f"seed {seed} cut {cut} keep {sorted(keep)} torn {torn}: {e!r}") from e
    return looked
