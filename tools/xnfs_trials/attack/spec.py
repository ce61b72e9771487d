"""What XN's system calls may do and what they must refuse, on one page, written from DESIGN.md.

`State.apply(call)` gives the state after a call, or None where it must be refused. Each method is a
call: first what it needs, then, after `effect`, what it does. The world that it speaks of is in
`world.py`.

It shares no code with the kernel and imports nothing but that and the standard library. What the
kernel is free to decide (blocks kept until the next commit though nothing durable can name them any
more, pages kept though they could go, data that stay dirty because the log may still need what is
on the disk) is in `maybe`, `unsure` and `kept`, and settled by looking: `settle`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from xnfs_trials.attack.world import (
    DATA,
    HIDDEN,
    NODE,
    RIGHTS,
    SLOTS,
    Block,
    Call,
    Claims,
    Edits,
    Go,
    No,
    Pointer,
    need,
    node,
)


@dataclass(slots=True)
class State:
    """Who owns what, now and perhaps durably; what is cached, locked, held; which tokens live."""

    blocks: dict[int, Block]
    due: set[int] = field(default_factory=set)  # dropped, durably named until the next commit
    maybe: set[int] = field(default_factory=set)  # likewise, as far as the kernel can know
    unsure: set[int] = field(default_factory=set)  # pages that it may have dropped
    kept: set[int] = field(default_factory=set)  # dirty data that it may have written back
    tokens: dict[str, bool] = field(default_factory=lambda: {"a": True, "b": True})
    quiet: bool = True  # nothing was changed since the last commit
    checking: bool = False

    @classmethod
    def first(cls) -> State:
        """Two empty roots, durable."""
        return cls({i: node(home, dirty=False, fresh=False) for i, home in enumerate("ab")})

    def apply(self, call: Call) -> State | None:
        """The state after a call, or None: it must be refused, and has no effect."""
        name, who, arguments = call
        self.checking = True
        try:
            getattr(self, name)(who, *arguments)
            return self
        except No:
            return None
        except Go:
            new = State(
                {n: b.copy() for n, b in self.blocks.items()},
                set(self.due), set(self.maybe), set(), set(), dict(self.tokens), self.quiet,
            )  # fmt: skip
            getattr(new, name)(who, *arguments)
            return new
        finally:
            self.checking = False

    def effect(self) -> None:
        """Here the checks of a call end. Most calls are refused, and need no copy of the state."""
        if self.checking:
            raise Go

    # -- questions

    def owners(self, block: int) -> int:
        """How many pointers name it; the catalogue names the roots."""
        named = [p[1] for b in self.blocks.values() for p in b.slots if p]
        return named.count(block) + (block in (0, 1))

    def free(self, block: int) -> bool:
        """May be given to anybody."""
        return block >= 0 and block not in self.blocks.keys() | self.due | self.maybe

    def live(self, who: str) -> None:
        """The capability is not revoked."""
        need(self.tokens.get(who))

    def may(self, who: str, home: str, right: str) -> None:
        """The capability gives this right over a file system."""
        self.live(who)
        need(who[0] == home, right in RIGHTS[who])

    def page(self, who: str, block: int, right: str) -> Block:
        """A cached block that the caller may name."""
        page = self.blocks.get(block)
        if page is None or not page.cached:
            raise No
        self.may(who, page.home, right)
        return page

    def meta(self, who: str, block: int, right: str) -> Block:
        """A cached node, not locked by another if it is to be changed."""
        page = self.page(who, block, right)
        need(page.kind == NODE, right == "r" or self.unlocked(page, who))
        return page

    def unlocked(self, page: Block, who: str) -> bool:
        """Nobody else has locked it."""
        return page.lock in (None, who)

    # -- who owns what

    def change(
        self, who: str, edits: Edits, alloc: Claims = (), free: Claims = (), share: Claims = (),
        inits: Mapping[int, Pointer] | None = None,
    ) -> None:  # fmt: skip
        """Pointers added minus removed are exactly alloc + share - free."""
        edits, alloc, free, share = list(edits), list(alloc), list(free), list(share)
        pages = {p: self.meta(who, p, "w") for p, _ in edits}
        home = pages[edits[0][0]].home
        need(len(pages) == len(edits), all(p.home == home for p in pages.values()))
        need(all(block >= 0 for _kind, block in [*alloc, *free, *share]))
        if alloc:
            self.may(who, home, "a")
        for kind, block in share:
            page = self.blocks.get(block)
            need(page, page and page.cached and page.home == home and page.kind == kind)
            need(self.owners(block) or (page and page.held))
        born = [block for kind, block in alloc if kind == NODE]
        need(not set(inits or {}) - set(born), len({b for _k, b in alloc}) == len(alloc))
        need(not set(born) & set(pages))
        after = {p: list(page.slots) for p, page in pages.items()}
        after |= {b: [(inits or {}).get(b), *[None] * (SLOTS - 1)] for b in born}
        for p, writes in edits:
            for slot, pointer in writes:
                after[p][slot] = pointer
        empty = [None] * SLOTS
        gains = {
            p: Counter(slots) - Counter(pages[p].slots if p in pages else empty)
            for p, slots in after.items()
        }
        losses = {p: Counter(page.slots) - Counter(after[p]) for p, page in pages.items()}
        net: Counter[Pointer | None] = Counter()
        for more in gains.values():
            net.update(more)
        for less in losses.values():
            net.subtract(less)
        del net[None]
        need(all(key[1] >= 0 for more in gains.values() for key in more if key))
        need(+net == Counter([*alloc, *share]), -net == Counter(free))
        for kind, block in alloc:
            need(self.free(block) or (kind == DATA and (HIDDEN, block) in free))
        dying = []
        for (kind, block), n in Counter(free).items():
            last = self.owners(block) == n and not self.blocks[block].held
            if last and kind == NODE:
                need(self.blocks[block].cached, not any(after.get(block, self.blocks[block].slots)))
            if last and (DATA, block) not in alloc:
                dying.append(block)
        self.effect()
        for kind, block in alloc:
            new = Block(kind, home, reserved=kind == HIDDEN)
            if kind == HIDDEN:
                new.cached = new.filled = new.dirty = False
            elif (HIDDEN, block) in free:
                new.reserved = self.blocks[block].reserved
            self.blocks[block] = new
        self._marks(losses, gains, alloc, free)
        for p, slots in after.items():
            self.blocks[p].slots, self.blocks[p].dirty = slots, True
        for block in dying:
            del self.blocks[block]
        self.quiet = False

    def _marks(
        self, losses: Mapping[int, Counter[Any]], gains: Mapping[int, Counter[Any]],
        alloc: Claims, free: Claims,
    ) -> None:  # fmt: skip
        """R1: a pointer that never went to the disk is gone at once, others wait for the commit. A
        mark moves with its pointer. Hidden blocks count as durable from the first moment.
        """
        moved: list[tuple[int, bool]] = []
        left = Counter(free)
        for p, less in losses.items():
            page = self.blocks[p]
            for key in less.elements():
                if key is None:
                    continue
                young = key[1] in page.young
                if young:
                    page.young.remove(key[1])
                if not left[key]:
                    moved.append((key[1], young))
                elif not young and (DATA, key[1]) not in alloc:
                    unknown = page.adrift or (page.fresh and self.blocks[key[1]].reserved)
                    (self.maybe if unknown else self.due).add(key[1])
                left[key] -= left[key] > 0
        retyped = {b for k, b in free if k == HIDDEN}
        for p, more in gains.items():
            for key in more.elements():
                if key is None or key[0] == HIDDEN:
                    continue
                source = next((m for m in moved if m[0] == key[1]), None)
                if source:
                    moved.remove(source)
                if source[1] if source else key[1] not in retyped:
                    self.blocks[p].young.append(key[1])

    def relocate(self, who: str, parent: int, slot: int, old: int, new: int) -> None:
        """The same node at a free address; its parent's pointer follows."""
        page, moved = self.meta(who, parent, "w"), self.meta(who, old, "w")
        self.may(who, page.home, "a")
        need(parent != old, moved.home == page.home, page.slots[slot] == (NODE, old))
        need(self.free(new), self.owners(old) == 1, not moved.held)
        self.effect()
        if old in page.young:
            page.young.remove(old)
        else:
            (self.maybe if page.adrift else self.due).add(old)
        page.slots[slot], page.dirty = (NODE, new), True
        page.young.append(new)
        del self.blocks[old]
        self.blocks[new] = replace(moved, dirty=True, fresh=True)
        self.quiet = False

    def hold(self, who: str, block: int) -> None:
        """The temporary root owns a node too."""
        page = self.meta(who, block, "w")
        self.effect()
        page.held = True

    def alloc_held(self, who: str, near: int, claim: Pointer) -> None:
        """A node that only the temporary root owns."""
        page = self.meta(who, near, "w")
        self.may(who, page.home, "a")
        need(claim[0] == NODE, self.free(claim[1]))
        self.effect()
        self.blocks[claim[1]] = node(page.home, held=True)
        self.quiet = False

    def drop(self, who: str, block: int, free: Claims = ()) -> None:
        """The temporary root lets go; what nobody owns then is free, and with it the data that it
        owns: exactly what is claimed.
        """
        page = self.meta(who, block, "w")
        owned = Counter(p for p in page.slots if p) if not self.owners(block) else Counter()
        need(page.held, Counter(free) == owned, all(kind != NODE for kind, _block in free))
        self.effect()
        page.held, self.quiet = False, False
        if self.owners(block):
            return
        self._marks({block: owned}, {}, (), free)
        del self.blocks[block]
        for _kind, data in free:
            if data in self.blocks and not self.owners(data):
                del self.blocks[data]

    # -- bytes and pages

    def mount(self, who: str, root: int) -> None:
        """Bind a root's first block."""
        page = self.blocks[root]
        self.may(who, page.home, "r")
        self.effect()
        page.cached = page.filled = True

    def readin(self, who: str, parent: int, slot: int, block: int) -> None:
        """Only what the parent owns there; never what can't be read."""
        pointer = self.meta(who, parent, "r").slots[slot]
        need(pointer, pointer and pointer[0] != HIDDEN and pointer[1] == block)
        self.effect()
        page = self.blocks[block]
        page.cached = page.filled = True

    def bind(self, who: str, parent: int, slot: int, block: int) -> None:
        """The same for data that is about to be overwritten; nobody sees it before."""
        need(self.meta(who, parent, "w").slots[slot] == (DATA, block))
        self.effect()
        self.blocks[block].cached = True

    def read(self, who: str, block: int) -> None:
        """Bytes that are there."""
        need(self.page(who, block, "r").filled)

    def write(self, who: str, block: int) -> None:
        """A whole block of data, or the raw range of a node."""
        page = self.page(who, block, "w")
        need(self.unlocked(page, who))
        self.effect()
        page.text, page.filled, page.dirty = who[0], True, True

    def poke(self, who: str, block: int) -> None:
        """Raw bytes where a node's pointers are."""
        need(self.page(who, block, "w").kind != NODE)

    def evict(self, who: str, block: int) -> None:
        """Drop a clean page that nobody needs; others stay. No error either way."""
        page = self.blocks.get(block)
        if page is None or not page.cached:
            return
        self.live(who)
        if who[0] != page.home or page.pins or page.lock or page.held or page.dirty:
            return
        if page.kind == NODE and (page.fresh or page.young):
            return
        self.effect()
        if self.quiet and not any(block in n.young for n in self.blocks.values()):
            page.cached = page.filled = False
        else:
            self.unsure.add(block)

    def pin(self, who: str, block: int) -> None:
        """Counted."""
        page = self.page(who, block, "r")
        self.effect()
        page.pins += 1

    def unpin(self, who: str, block: int) -> None:
        """As often as pinned."""
        page = self.page(who, block, "r")
        need(page.pins)
        self.effect()
        page.pins -= 1

    def lock(self, who: str, block: int) -> None:
        """One capability at a time."""
        page = self.page(who, block, "w")
        need(self.unlocked(page, who))
        self.effect()
        page.lock = who

    def unlock(self, who: str, block: int) -> None:
        """By whom it was locked."""
        page = self.page(who, block, "w")
        need(page.lock == who)
        self.effect()
        page.lock = None

    # -- durability

    def writeback(self, who: str) -> None:
        """Data and fresh nodes, in place: nothing durable changes. The newest transaction may
        vouch for the bytes of data that a durable pointer names: they may stay dirty."""
        self.effect()
        nodes = [page for page in self.blocks.values() if page.kind == NODE and not page.fresh]
        named = {b for n in nodes for b in Counter(p[1] for p in n.slots if p) - Counter(n.young)}
        for block, page in self.blocks.items():
            if page.dirty and page.kind == DATA and block in named:
                self.kept.add(block)
            else:
                page.dirty = page.dirty and page.kind == NODE and not page.fresh

    def sync(self, who: str) -> None:
        """All that a durable pointer leads to is durable; what was dropped is free."""
        self.effect()
        todo = [b for b in self.blocks.values() if b.kind == NODE and not b.fresh]
        while todo:
            for pointer in todo.pop().slots:
                child = self.blocks[pointer[1]] if pointer else None
                if child and child.kind == NODE and child.fresh:
                    child.fresh, child.adrift = False, False
                    todo.append(child)
        durable = self.reached([0, 1])
        for block, page in self.blocks.items():
            page.dirty, page.adrift, page.reserved = False, block not in durable, False
            page.young = page.young if page.fresh else []
        self.due, self.maybe, self.quiet = set(), set(), True

    def collect(self, who: str) -> None:
        """What neither a root nor the temporary root reaches is free."""
        self.sync(who)
        reached = self.reached([0, 1, *(n for n, b in self.blocks.items() if b.held)])
        self.blocks = {n: b for n, b in self.blocks.items() if n in reached}

    def reached(self, todo: list[int]) -> set[int]:
        """What these lead to."""
        seen: set[int] = set()
        while todo:
            block = todo.pop()
            if block not in seen:
                seen.add(block)
                todo += [p[1] for p in self.blocks[block].slots if p]
        return seen

    # -- capabilities

    def narrow(self, who: str, home: str, rights: str) -> None:
        """For less. In this world only `rw` is ever made."""
        self.may(who, home, "r")
        need(set(rights) <= set(RIGHTS[who]))
        self.effect()
        self.tokens[home + "'"] = True

    def revoke(self, who: str, token: str) -> None:
        """One's own, or what derives from it. Its locks end with it."""
        self.live(who)
        need(self.tokens.get(token), who in (token, token[0]))
        self.effect()
        for derived in [t for t in self.tokens if t in (token, token + "'")]:
            self.tokens[derived] = False
            for page in self.blocks.values():
                page.lock = None if page.lock == derived else page.lock

    # -- what the kernel may decide

    def settle(self, cached: set[int], free: set[int], dirty: set[int]) -> None:
        """Take over what is seen of what the kernel was free to keep."""
        for block in self.kept - dirty:
            self.blocks[block].dirty = False
        self.kept = set()
        self.maybe -= free | self.blocks.keys()
        for block in self.unsure - cached:
            self.blocks[block].cached = self.blocks[block].filled = False
        self.unsure = set()
