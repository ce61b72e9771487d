"""A user who makes random system calls, and holds the kernel to the model after each."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from contextlib import suppress

from tests.disk.xn_kit import DATA, HIDDEN, NODE, RAW, Kit, extent, fill, slot, slots_of
from tests.disk.xn_model import TAG, Model, Node, Pointer
from xnfs import BLOCK, CycleError, NoFrames, NotEmpty, Refused

USED_SLOTS = 8  # of 100: so that pointers meet
Edits = dict[int, dict[int, Pointer | None]]


class Actor:
    """Does random things."""

    def __init__(
        self, kit: Kit, seed: float, *, partial: bool = True, model: Model | None = None
    ) -> None:
        self.kit, self.xn, self.rng = kit, kit.xn, random.Random(seed)
        self.model = model or Model(kit.root, kit.xn.data_area)
        self.leaky = model is not None
        self.op = max(node.version for node in self.model.nodes.values())
        self.ids = max(node.id for node in self.model.nodes.values())
        self.first = self.op
        self.states = [self.model.state()] * (self.op + 1)
        self.refused = 0
        self.partial = partial
        self._watch()

    def _watch(self) -> None:
        """Learn of commits that the kernel makes by itself."""
        commit = self.xn._committer.commit

        def seen(blocks: Iterable[int] | None = None) -> None:
            commit(blocks)
            if blocks is None:
                self.model.synced()
            else:
                self.model.exact = False

        self.xn._committer.commit = seen  # type: ignore[method-assign]

    # -- one step

    def step(self) -> None:
        """One random call, and the check of what it did."""
        self.op += 1
        names = [*OPS, *PARTIAL_OPS] if self.partial else OPS
        getattr(self, "do_" + self.rng.choice(names))()
        self.states.append(self.model.state())

    def check(self) -> None:
        """The kernel agrees with the model."""
        model, xn = self.model, self.xn
        owners = model.owners()
        lo, hi = model.area
        used = model.used()
        if model.exact:
            spare = len(model.perhaps - used)
            assert 0 <= hi - lo - len(used) - xn.free_blocks() <= spare, self.op
        for block in range(lo, hi):
            refs = xn.refs(block)
            if owners[block] or block in model.nodes:
                assert refs == owners[block], (self.op, block)
            elif block not in used | model.perhaps and model.exact:
                assert refs == 0, (self.op, block)
        assert self.kit.frames_used() == xn.stats()["pages"]
        for block, node in model.nodes.items():
            if xn.cached(block):
                raw = xn.read(self.kit.me, block, 0, BLOCK)
                assert slots_of(raw) == node.slots, (self.op, block)
                assert TAG.unpack_from(raw, RAW[0]) == (node.id, node.version)
        for block, born in model.born.items():
            if xn.cached(block):
                text = model.texts[block, born][-1]
                assert xn.read(self.kit.me, block, 0, BLOCK) == text, (self.op, block)

    # -- helpers

    def pick(self, blocks: Iterable[int]) -> int | None:
        """One of them."""
        every = sorted(blocks)
        return self.rng.choice(every) if every else None

    def ensure(self, block: int) -> bool:
        """Have a block in the registry."""
        path: list[tuple[int, int, int]] = []
        at = block
        if not self.xn.cached(self.kit.root):
            self.xn.mount_root(self.kit.admin, "main")
        while not self.xn.cached(at):
            parent, part = next(
                (p, i)
                for p, node in self.model.nodes.items()
                for i, (_k, start, count) in node.slots.items()
                if start <= at < start + count
            )
            path.append((parent, part, at))
            at = parent
        for parent, part, child in reversed(path):
            try:
                self.xn.readin(self.kit.me, parent, part, child, 1)
            except NoFrames:
                return False
        return True

    def make_frames(self) -> None:
        """Sync and evict, as a libFS does that has no frames left."""
        self.xn.sync(self.kit.me)
        self.xn.evict(self.kit.me, range(*self.model.area))

    def slot_of(self, block: int, *, empty: bool) -> int | None:
        node = self.model.nodes[block]
        if empty:
            return self.pick(set(range(USED_SLOTS)) - node.slots.keys())
        return self.pick(node.slots)

    def random_pointer(self) -> tuple[int, int, Pointer] | None:
        block = self.pick(b for b, n in self.model.nodes.items() if n.slots)
        if block is None:
            return None
        index = self.slot_of(block, empty=False)
        assert index is not None
        return block, index, self.model.nodes[block].slots[index]

    def random_hole(self, but: Iterable[int] = ()) -> tuple[int, int] | None:
        block = self.pick(self.model.nodes.keys() - set(but))
        if block is None or (index := self.slot_of(block, empty=True)) is None:
            return None
        return block, index

    def find(self, count: int) -> int | None:
        start, n = self.xn.find_free(self.rng.randrange(*self.model.area), count)
        return start if n == count else None

    def change(
        self,
        edits: Edits,
        *,
        alloc: Sequence[Pointer] = (),
        free: Sequence[Pointer] = (),
        share: Sequence[Pointer] = (),
    ) -> bool:
        """One change, to the kernel and then to the model. False if there are no frames."""
        model = self.model
        needed = set(edits) | {b for k, b, _n in share for _ in (k,)}
        needed |= {b for k, s, n in free if k == NODE for b in range(s, s + n)}
        if not all(self.ensure(b) for b in needed) or not all(self.xn.cached(b) for b in needed):
            self.make_frames()
            return False
        born = [b for k, s, n in alloc if k == NODE for b in range(s, s + n)]
        ids = {b: self.ids + 1 + i for i, b in enumerate(born)}
        diffs = []
        for block, slots in edits.items():
            pointers = [slot(i, *(p or ())) for i, p in slots.items()]
            diffs.append((block, [*pointers, (RAW[0], TAG.pack(model.nodes[block].id, self.op))]))
        try:
            self.xn.change(
                self.kit.me,
                diffs,
                alloc=[extent(*e) for e in alloc],
                free=[extent(*e) for e in free],
                share=[extent(*e) for e in share],
                inits={b: [(RAW[0], TAG.pack(ids[b], self.op))] for b in born},
            )
        except Refused:
            if not self.leaky:
                raise
            return False  # a count is too high still
        except NoFrames:
            self.make_frames()
            return False
        self.ids += len(born)
        for block, slots in edits.items():
            node = model.nodes[block]
            node.version = self.op
            for index, pointer in slots.items():
                node.slots.pop(index, None)
                if pointer:
                    node.slots[index] = pointer
        for block in born:
            model.nodes[block] = Node(ids[block], self.op)
        model.forget_dead()
        for kind, start, count in alloc:
            if kind == HIDDEN:  # taken for durable from the start
                self.model.perhaps.update(range(start, start + count))
            if kind == DATA:
                for block in range(start, start + count):
                    model.born[block] = self.op
                    model.texts[block, self.op] = [bytes(BLOCK)]
        return True

    # -- the calls

    def do_add(self) -> None:
        hole = self.random_hole()
        kind = self.rng.choice((DATA, DATA, NODE, NODE, NODE, HIDDEN))
        count = 1 if kind == NODE else self.rng.randint(1, 3)
        start = self.find(count)
        if hole is None or start is None:
            return
        pointer = kind, start, count
        done = self.change({hole[0]: {hole[1]: pointer}}, alloc=[pointer])
        if done and kind == DATA and self.rng.random() < 0.7:
            self._write(range(start, start + count))

    def do_free(self) -> None:
        found = self.random_pointer()
        if found is None:
            return
        block, index, pointer = found
        kind, start, _count = pointer
        model = self.model
        last = kind == NODE and model.owners()[start] == 1 and start not in model.held
        if not last or not model.nodes[start].slots:
            self.change({block: {index: None}}, free=[pointer])
            return
        try:
            self.change({block: {index: None}}, free=[pointer])
        except NotEmpty:
            self.refused += 1
        else:
            # No frames: then the kernel was not asked.
            assert self.leaky or not self.xn.cached(start) or start in model.nodes

    def do_free_tree(self) -> None:
        """A node and its children that nobody else has, at once."""
        found = self.random_pointer()
        if found is None or found[2][0] != NODE:
            return
        block, index, (_kind, top, _one) = found
        model, owners = self.model, self.model.owners()
        if owners[top] != 1 or top in model.held or block == top:
            return
        edits: Edits = {block: {index: None}}
        free: list[Pointer] = [(NODE, top, 1)]
        todo = [top]
        while todo:
            at = todo.pop()
            slots = model.nodes[at].slots
            if slots:
                edits[at] = dict.fromkeys(slots)
            for pointer in slots.values():
                free.append(pointer)
                kind, start, _n = pointer
                if kind == NODE:
                    if owners[start] != 1 or start in model.held or start in edits:
                        return
                    todo.append(start)
        if len(edits) <= self.xn.stats()["log_capacity"]:
            self.change(edits, free=free)

    def do_move(self) -> None:
        found, hole = self.random_pointer(), self.random_hole()
        if found is None or hole is None:
            return
        src, i, pointer = found
        if pointer[0] == NODE and hole[0] in self.model.below(pointer[1]):
            return
        edits: Edits = {src: {i: None}}
        edits.setdefault(hole[0], {})[hole[1]] = pointer
        if len(edits) <= self.xn.stats()["log_capacity"]:
            self.change(edits)

    def do_swap(self) -> None:
        a, b = self.random_pointer(), self.random_pointer()
        if a is None or b is None or a[0] == b[0]:
            return
        for (block, _i, _p), (_b, _j, other) in ((a, b), (b, a)):
            if other[0] == NODE and block in self.model.below(other[1]):
                return
        if self.xn.stats()["log_capacity"] >= 2:
            self.change({a[0]: {a[1]: b[2]}, b[0]: {b[1]: a[2]}})

    def do_split(self) -> None:
        """Half of a run goes to another slot, perhaps of another node."""
        found, hole = self.random_pointer(), self.random_hole()
        if found is None or hole is None or found[2][2] < 2:
            return
        block, index, (kind, start, count) = found
        cut = self.rng.randint(1, count - 1)
        edits: Edits = {block: {index: (kind, start, cut)}}
        edits.setdefault(hole[0], {})[hole[1]] = (kind, start + cut, count - cut)
        if len(edits) <= self.xn.stats()["log_capacity"]:
            self.change(edits)

    def do_share(self) -> None:
        hole = self.random_hole()
        block = self.pick([*self.model.nodes.keys() - {self.kit.root}, *self.model.born])
        if hole is None or block is None:
            return
        kind = NODE if block in self.model.nodes else DATA
        if kind == NODE and hole[0] in self.model.below(block):
            return
        pointer = kind, block, 1
        self.change({hole[0]: {hole[1]: pointer}}, share=[pointer])

    def do_retype(self) -> None:
        found = self.random_pointer()
        if found is None or found[2][0] != HIDDEN:
            return
        block, index, (_kind, start, count) = found
        n = self.rng.randint(1, count)
        at = start + (self.rng.randint(0, 1) * (count - n))
        data = DATA, at, n
        edits: Edits = {block: {index: data}}
        rest = (start + n, count - n) if at == start else (start, count - n)
        if rest[1]:
            hole = self.random_hole()
            if hole is None:
                return
            edits.setdefault(hole[0], {})[hole[1]] = (HIDDEN, *rest)
        if len(edits) > self.xn.stats()["log_capacity"]:
            return
        if self.change(edits, free=[(HIDDEN, at, n)], alloc=[data]):
            self._write(range(at, at + n))

    def do_relocate(self) -> None:
        found, new = self.random_pointer(), self.find(1)
        if found is None or found[2][0] != NODE or new is None:
            return
        block, index, (_kind, old, _one) = found
        model = self.model
        if model.owners()[old] != 1 or old in model.held or block == old:
            return
        if not (self.ensure(old) and self.ensure(block) and self.xn.cached(old)):
            self.make_frames()
            return
        tag = RAW[0], TAG.pack(model.nodes[block].id, self.op)
        diff = [slot(index, NODE, new), tag]
        try:
            self.xn.relocate(self.kit.me, block, diff, old, new)
        except Refused:
            assert self.leaky  # its count is too high still
            return
        except NoFrames:
            self.make_frames()
            return
        model.nodes[block].slots[index] = (NODE, new, 1)
        model.nodes[block].version = self.op
        model.nodes[new] = model.nodes.pop(old)

    def do_touch(self) -> None:
        """An update without pointers, by either call."""
        block = self.pick(self.model.nodes)
        assert block is not None
        if not self.ensure(block):
            self.make_frames()
            return
        node = self.model.nodes[block]
        tag = TAG.pack(node.id, self.op)
        if self.rng.random() < 0.5:
            self.xn.write_raw(self.kit.me, block, RAW[0], tag)
        else:
            self.xn.update(self.kit.me, block, [(RAW[0], tag)])
        node.version = self.op

    def do_pair(self) -> None:
        """Two nodes that have nothing to do with each other, in one change."""
        blocks = self.rng.sample(sorted(self.model.nodes), min(2, len(self.model.nodes)))
        if len(blocks) <= self.xn.stats()["log_capacity"]:
            self.change({block: {} for block in blocks})

    def do_write(self) -> None:
        block = self.pick(self.model.born)
        if block is not None:
            self._write([block])

    def _write(self, blocks: Iterable[int]) -> None:
        for block in blocks:
            born = self.model.born[block]
            text = fill(b"<%d of %d by %d>" % (block, born, self.op))
            if not self.ensure(block):
                self.make_frames()
                return
            texts = self.model.texts[block, born]
            if self.rng.random() < 0.2:
                text = text[:1000] + texts[-1][1000:]
                self.xn.write_raw(self.kit.me, block, 0, text[:1000])
            else:
                self.xn.write_raw(self.kit.me, block, 0, text)
            texts.append(text)

    def do_hold(self) -> None:
        block = self.pick(self.model.nodes)
        assert block is not None
        if self.ensure(block):
            self.xn.hold(self.kit.me, block)
            self.model.held.add(block)

    def do_drop(self) -> None:
        block = self.pick(self.model.held)
        if block is None:
            return
        full = not self.model.owners()[block] and bool(self.model.nodes[block].slots)
        try:
            self.xn.drop(self.kit.me, block)
        except NotEmpty:
            assert full
            self.refused += 1
            return
        assert self.leaky or not full  # a count that is too high hides that it was the last
        self.model.held.discard(block)
        self.model.forget_dead()

    def do_alloc_held(self) -> None:
        start = self.find(1)
        if start is None or len(self.model.held) > 3 or not self.ensure(self.kit.root):
            return
        self.ids += 1
        init = [(RAW[0], TAG.pack(self.ids, self.op))]
        try:
            self.xn.alloc_held(self.kit.me, self.kit.root, extent(NODE, start), init=init)
        except NoFrames:
            self.make_frames()
            return
        self.model.nodes[start] = Node(self.ids, self.op)
        self.model.held.add(start)

    def do_depend(self) -> None:
        blocks = [b for b in (*self.model.nodes, *self.model.born) if self.xn.cached(b)]
        if blocks:
            with suppress(CycleError):
                self.xn.depend(self.kit.me, self.rng.choice(blocks), self.rng.choice(blocks))

    def do_sync(self) -> None:
        self.xn.sync(self.kit.me)

    def do_sync_some(self) -> None:
        blocks = [b for b in (*self.model.nodes, *self.model.born) if self.rng.random() < 0.15]
        self.xn.sync(self.kit.me, blocks)
        self.model.exact = False

    def do_writeback(self) -> None:
        lo, hi = self.model.area
        self.xn.writeback(self.kit.me, [b for b in range(lo, hi) if self.rng.random() < 0.4])

    def do_evict(self) -> None:
        lo, hi = self.model.area
        self.xn.evict(self.kit.me, [b for b in range(lo, hi) if self.rng.random() < 0.5])

    def do_read(self) -> None:
        for block in [*self.model.nodes, *self.model.born]:
            if self.rng.random() < 0.3 and not self.ensure(block):
                self.make_frames()
                return

    def do_collect(self) -> None:
        for _ in range(self.rng.randint(1, 4)):
            status = self.xn.collect(self.kit.admin, self.rng.randint(1, 5))
            assert status.freed == 0 or self.leaky, self.op


OPS = tuple(
    (
        "add add add add add add free free free move move move share share write write write"
        " relocate relocate sync sync sync free_tree swap split retype retype touch pair pair"
        " hold drop drop alloc_held writeback evict read collect"
    ).split()
)
PARTIAL_OPS = ("sync_some", "sync_some", "sync_some", "depend")
