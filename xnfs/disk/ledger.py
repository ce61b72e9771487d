"""Who owns what, now and durably: the will-free lists, reference counts and ties (R1, R4, R5).

The invariant (DESIGN section 4): `tables.total(b)` is at every moment an upper bound of the durable
pointers to b and of the pointers in memory. Nothing but `total(b) == 0` makes b free.

    owners in memory = total - gone - (1 if b is held and has lost every owner)

A pointer change ties the blocks that it concerns; tied blocks commit in one transaction (R2, R3).
The ledger keeps the ties; `commit.py` follows them. It checks nothing about who may change what:
that is `change.py`.

Source: Ganger and Patt 1994 (the three rules); Kaashoek et al. 1997, section 4.3.1 (will-free
list).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from xnfs.disk.registry import MetaPage, Registry
from xnfs.disk.tables import Tables


@dataclass(eq=False, slots=True)
class Due:
    """What a page dropped before its version went to the disk: runs of data, single blocks."""

    removed: list[tuple[int, int]]
    dropped: list[int]


class Ledger:
    """Ownership of blocks in memory, against the tables' durable upper bound."""

    def __init__(self, tables: Tables, registry: Registry) -> None:
        self._tables = tables
        self._registry = registry
        self.gone: dict[int, int] = {}
        self.ties: dict[int, set[int]] = {}
        self.held: set[int] = set()
        self.orphans: set[int] = set()
        self._due: list[Due] = []

    # -- questions

    def owners(self, block: int) -> int:
        """How many pointers in memory name a block that is cached. For the others see `named`."""
        gone = self.gone.get(block, 0)
        return self._tables.total(block) - gone - (block in self.orphans)

    def named(self, block: int) -> int:
        """How many pointers in memory name the block, whatever it is: a run dropped as a whole is
        nobody's, though its blocks count as if it were until they are free. Looks at all pages.
        """
        owners = self.owners(block)
        if owners == 1 and block not in self.gone:
            owners -= any(start <= block < start + count for start, count in self.waiting())
        return owners

    def tie(self, a: int, b: int) -> None:
        """From here until the commit, neither goes to disk without the other."""
        self.ties.setdefault(a, set()).add(b)
        self.ties.setdefault(b, set()).add(a)

    def component(self, blocks: Iterable[int]) -> set[int]:
        """Everything tied to these blocks, directly or through others."""
        seen: set[int] = set()
        todo = list(blocks)
        ties = self.ties
        while todo:
            block = todo.pop()
            if block in seen:
                continue
            seen.add(block)
            if block in ties:
                todo.extend(ties[block])
        return seen

    # -- pointers appear

    def reserve(self, start: int, count: int) -> None:
        """Blocks of an unreadable type get their first owner. Marked (R4), and from then on treated
        as if a durable pointer named them: so a run of any length costs nothing to remember.
        """
        self._tables.raise_run(start, count)

    def allocate(self, page: MetaPage, start: int, count: int, *, meta: bool) -> None:
        """`page` becomes the first owner of free blocks. R4: marked before a pointer is durable."""
        self._tables.raise_run(start, count)
        page.added.update(range(start, start + count))
        if meta:
            for block in range(start, start + count):
                self.tie(page.block, block)

    def share(self, page: MetaPage, block: int) -> None:
        """`page` becomes a further owner. R5: raised before the second pointer is durable."""
        if block in self.orphans:
            self.orphans.discard(block)
        else:
            self._tables.raise_one(block)
        page.shared[block] = page.shared.get(block, 0) + 1
        self.tie(page.block, block)
        cached = self._registry.get(block)
        if cached is not None and not cached.meta:
            # Data that was of an unreadable type a moment ago must not be durable as both.
            for other in self._registry.metadata.values():
                if block in other.filled:
                    self.tie(other.block, block)

    def hold_new(self, block: int) -> None:
        """A free block gets the temporary root as its only owner."""
        self._tables.raise_run(block, 1)
        self.held.add(block)
        self.orphans.add(block)

    # -- pointers move

    def transfer(self, src: MetaPage, dst: MetaPage, start: int, count: int, *, meta: bool) -> None:
        """Pointers go from `src` to `dst`. R3: both pages commit together, so no cut shows neither.

        What `src` owned durably, `dst` is taken to own durably: its removal from `dst` waits for
        the commit of `dst`, and so for that of `src`.
        """
        self.tie(src.block, dst.block)
        run = range(start, start + count)
        shared = src.shared.keys() & run if src.shared else ()
        for block in shared:
            _take_one(src.shared, block)
            dst.shared[block] = dst.shared.get(block, 0) + 1
        # One pointer takes one mark with it.
        _carry(src.added, dst.added, run, shared)
        _carry(src.filled, dst.filled, run, shared)
        if meta:
            for block in run:
                self.tie(dst.block, block)

    def retype(self, src: MetaPage, dst: MetaPage, start: int, count: int) -> None:
        """Blocks of an unreadable type turn into data. A durable pointer may exist, so they are not
        new; but their bytes must be durable before `dst` says that they can be read (R2)."""
        if src is not dst:
            self.transfer(src, dst, start, count, meta=False)
        dst.filled.update(range(start, start + count))

    # -- pointers disappear

    def remove_data(self, page: MetaPage, start: int, count: int) -> None:
        """`page` drops data blocks. R1: those that may be durably owned wait for its commit."""
        run = range(start, start + count)
        page.filled.difference_update(run)
        if page.shared or self._tables.any_shared(start, count):
            for block in run:
                self.remove_one(page, block)
            return
        fresh = page.added.intersection(run) if page.added else ()
        if len(fresh) == count:
            page.added.difference_update(run)
            self._tables.lower_run(start, count)
        elif not fresh:
            page.removed.append((start, count))
            self._wait(page)
        else:
            for block in run:
                self.remove_data(page, block, 1)

    def discard(self, page: MetaPage, start: int, count: int) -> None:
        """As `remove_data`; and the pages that nobody owns any more go."""
        shared = self._tables.any_shared(start, count)
        self.remove_data(page, start, count)
        run = range(start, start + count)
        self._registry.drop(b for b in run if not shared or self.owners(b) < 1)

    def remove_one(self, page: MetaPage, block: int) -> None:
        """`page` drops one pointer to a block that is counted by itself."""
        if page.shared.get(block):
            _take_one(page.shared, block)
            self._lower(block)
        elif block in page.added:
            page.added.discard(block)
            self._lower(block)
        else:
            page.dropped.append(block)
            self.gone[block] = self.gone.get(block, 0) + 1
            self._wait(page)
        self.tie(page.block, block)

    def _wait(self, page: MetaPage) -> None:
        """A page that no durable pointer names may never be dirty again; being tied, if only to
        itself, makes it part of the next commit.
        """
        if page.fresh:
            self.tie(page.block, page.block)

    def bury(self, dead: MetaPage) -> None:
        """`dead` lost its last owner and will never be written: what waits for its commit waits for
        any other page of the same transaction. If there is none, nothing durable leads to it.
        """
        heir = self._heir(dead)
        if heir is None:
            self.settle([self.take(dead, reached=False)])
        else:
            heir.removed += dead.removed
            heir.dropped += dead.dropped
            self._wait(heir)
            for other in self.ties[dead.block] - {dead.block, heir.block}:
                self.tie(heir.block, other)
        self.forget(dead.block)
        self._registry.drop([dead.block])

    def _heir(self, dead: MetaPage) -> MetaPage | None:
        seen, todo = {dead.block}, [dead.block]
        while todo:
            for block in self.ties.get(todo.pop(), ()):
                page = self._registry.get(block)
                if isinstance(page, MetaPage) and page is not dead:
                    return page
                if block not in seen:
                    seen.add(block)
                    todo.append(block)
        return None

    def forget(self, block: int) -> None:
        """The block is no more: nothing is tied to it."""
        for other in self.ties.pop(block, ()):
            tied = self.ties.get(other)
            if tied is not None:
                tied.discard(block)
                if not tied:
                    del self.ties[other]

    # -- durable

    def take(self, page: MetaPage, *, reached: bool) -> Due:
        """The page's version goes to the disk: what it dropped falls due when that is durable. If
        the page is reached by a pointer that may be durable then, so is what it added.
        """
        due = Due(page.removed, page.dropped)
        page.removed, page.dropped = [], []
        self._due.append(due)
        if reached:
            page.added, page.shared, page.filled = set(), {}, set()
            self.forget(page.block)
        return due

    def settle(self, due: Iterable[Due]) -> None:
        """A transaction is durable: what fell due may fall (R1, second halves of R4 and R5)."""
        for drops in due:
            self._due.remove(drops)
            for start, count in drops.removed:
                self._tables.lower_run(start, count)
            for block in drops.dropped:
                if self.gone[block] == 1:
                    del self.gone[block]
                else:
                    self.gone[block] -= 1
                self._lower(block)

    def _lower(self, block: int) -> None:
        """One pointer less. A held block keeps its last count for the temporary root."""
        if block in self.held and self._tables.total(block) == 1:
            self.orphans.add(block)
        else:
            self._tables.lower_one(block)

    def abandon(self, block: int) -> None:
        """Forget a page and all that is known of it: the block becomes a leak."""
        self.held.discard(block)
        self.orphans.discard(block)
        self.forget(block)
        self._registry.drop([block])

    def let_go(self, block: int) -> None:
        """The temporary root gives an ownerless block up."""
        self.held.discard(block)
        if block in self.orphans:
            self.orphans.discard(block)
            self._tables.lower_one(block)

    def waiting(self) -> Iterator[tuple[int, int]]:
        """Runs that nobody owns in memory but that a durable pointer may still name."""
        for page in self._registry.metadata.values():
            yield from page.removed
            yield from ((block, 1) for block in page.dropped)
        for due in self._due:
            yield from due.removed
            yield from ((block, 1) for block in due.dropped)


def _carry(src: set[int], dst: set[int], run: range, but: Iterable[int]) -> None:
    if src:
        marked = src.intersection(run).difference(but)
        src -= marked
        dst |= marked


def _take_one(counts: dict[int, int], block: int) -> None:
    if counts[block] == 1:
        del counts[block]
    else:
        counts[block] -= 1
