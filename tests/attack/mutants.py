"""Kernels with one check switched off, each of which the adversary must see.

A mutant patches the kernel from outside. What a hostile caller could do then is in its name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import pytest

from xnfs import Refused
from xnfs.capability import Capabilities
from xnfs.disk import blocktype, change, change_calls, flow
from xnfs.disk.acl import Acls
from xnfs.disk.arguments import Copy
from xnfs.disk.blocktype import BlockType
from xnfs.disk.change import Changer
from xnfs.disk.commit import Committer
from xnfs.disk.extents import difference, merge
from xnfs.disk.flow import Edit, Flow, balance
from xnfs.disk.ledger import Ledger
from xnfs.disk.order import Order
from xnfs.disk.pages import PageIO
from xnfs.disk.records import BLOCK, Extent
from xnfs.disk.registry import MetaPage, Registry
from xnfs.disk.reshape import Reshaper
from xnfs.disk.syscalls import Boundary
from xnfs.disk.typetable import TypeTable
from xnfs.sandbox import verify

Patch = pytest.MonkeyPatch
Mutant = Callable[[Patch], None]


def _nothing(*_arguments: object, **_more: object) -> None:
    return None


def _true(*_arguments: object) -> bool:
    return True


def _sums(patch: Patch, believe: Callable[..., tuple[Any, Any, Any]]) -> None:
    """`believe(added, removed, alloc, free, share)` gives the claims that the check then sees."""

    def lax(
        plan: Sequence[Edit],
        alloc: Sequence[Extent],
        free: Sequence[Extent],
        share: Sequence[Extent],
        types: TypeTable,
    ) -> Flow:
        gone = [e for edit in plan for e in edit.removed]
        less, more = difference(gone, [e for edit in plan for e in edit.added])
        alloc, free, share = believe(more, less, alloc, free, share)
        return balance(plan, alloc, free, share, types)

    patch.setattr(change, "balance", lax)


def free_checks_one_direction(patch: Patch) -> None:
    """What is added is not looked at: the first hole of the published XN."""

    def believe(more: Any, _less: Any, alloc: Any, free: Any, share: Any) -> tuple[Any, Any, Any]:
        _, extra = difference(merge([*alloc, *share]), more)
        return alloc, free, [*share, *extra]

    _sums(patch, believe)


def alloc_checks_one_direction(patch: Patch) -> None:
    """What is removed is not looked at."""
    _sums(patch, lambda _more, less, alloc, _free, share: (alloc, less, share))


def claims_of_used_blocks(patch: Patch) -> None:
    """A claim on an existing block, under another type too."""
    patch.setattr(Changer, "_check_alloc", _nothing)
    patch.setattr(Ledger, "allocate", lambda self, page, start, count, meta: None)


def diff_in_its_first_partition_only(patch: Patch) -> None:
    parts_of = BlockType.parts_of
    patch.setattr(
        BlockType, "parts_of", lambda self, at, size: sorted(parts_of(self, at, size))[:1]
    )


def diff_of_the_stamp(patch: Patch) -> None:
    real = BlockType.parts_of

    def parts_of(self: BlockType, offset: int, length: int) -> Sequence[int]:
        if offset < 0 or length <= 0 or offset + length > BLOCK:
            return real(self, offset, length)
        kinds = set(self._part_map[offset : offset + length])
        return [k - blocktype.FIRST_PART for k in kinds if k >= blocktype.FIRST_PART]

    patch.setattr(BlockType, "parts_of", parts_of)


def raw_range_inclusive(patch: Patch) -> None:
    def is_raw(self: BlockType, offset: int, length: int) -> bool:
        lo, hi = self.spec.raw
        return lo - 1 <= offset <= hi and lo <= offset + length <= hi

    patch.setattr(BlockType, "is_raw", is_raw)


def partition_range_inclusive(patch: Patch) -> None:
    """A UDF may read one byte beyond its partition."""

    class Lax:
        def __init__(self, program: Any) -> None:
            self.run = program.run
            self.reads = [(b, lo, hi - 1) for b, lo, hi in program.reads]

    patch.setattr(blocktype, "verify", lambda *a, **k: Lax(verify(*a, **k)))


def partitions_may_overlap(patch: Patch) -> None:
    part_map = blocktype._part_map

    def lax(spec: Any, ranges: Sequence[tuple[int, int]]) -> Any:
        done: list[tuple[int, int]] = []
        for lo, hi in ranges:
            done += [(lo, hi)] if all(hi <= a or b <= lo for a, b in done) else []
        return part_map(spec, done)

    patch.setattr(blocktype, "_part_map", lax)


def owners_die_with_children(patch: Patch) -> None:
    patch.setattr(BlockType, "owns_nothing", _true)


def unseen_blocks_die(patch: Patch) -> None:
    def dying(self: Changer, flow: Flow, plan: Sequence[Edit]) -> list[Edit]:
        drops, kinds = self._drops(flow)
        edited = {edit.block: edit for edit in plan}
        return [
            self._check_death(b, kinds[b], edited.get(b))
            for b, n in drops.items()
            if self._ledger.owners(b) <= n and self._registry.get(b) is not None
        ]

    patch.setattr(Changer, "_dying", dying)


def shares_across_roots(patch: Patch) -> None:
    check = Changer._check_shareable

    def lax(self: Changer, block: int, t: int, root: str) -> None:
        page = self._registry.get(block)
        check(self, block, t, page.root if page else root)

    patch.setattr(Changer, "_check_shareable", lax)


def rights_are_not_looked_at(patch: Patch) -> None:
    """A capability for one root opens every root."""
    patch.setattr(Boundary, "_may", _nothing)


def reading_is_writing(patch: Patch) -> None:
    check = Capabilities.check
    patch.setattr(
        Capabilities, "check", lambda self, token, resource, _r: check(self, token, resource, 1)
    )


def revoked_but_not_its_children(patch: Patch) -> None:
    def revoke(self: Capabilities, token: bytes) -> list[bytes]:
        self._entry(token).children = None
        self._entries.pop(token)
        return [token]

    patch.setattr(Capabilities, "revoke", revoke)


def anybody_revokes(patch: Patch) -> None:
    patch.setattr(Capabilities, "derives", _true)


def revoked_capabilities_live(patch: Patch) -> None:
    patch.setattr(Capabilities, "revoke", _nothing)


def capabilities_outlive_their_root(patch: Patch) -> None:
    patch.setattr(Capabilities, "revoke_below", _nothing)


def fresh_metadata_is_not_zeroed(patch: Patch) -> None:
    add = Registry.add_blank

    def dirty(self: Registry, *arguments: Any) -> None:
        patch.setattr("xnfs.disk.registry.ZERO", memoryview(b"poison!!" * 512))
        add(self, *arguments)

    patch.setattr(Registry, "add_blank", dirty)


def fresh_data_is_not_zeroed(patch: Patch) -> None:
    patch.setattr(Registry, "clear", _nothing)


def unread_pages_are_shown(patch: Patch) -> None:
    add = Registry.add_run

    def valid(self: PageIO, parent: MetaPage, part: int, start: int, count: int) -> None:
        kind = self._bindable(parent, part, start, count)
        for block in range(start, start + count):
            if block not in self._registry.pages:
                add(self._registry, block, 1, kind, parent.block, parent.root)

    patch.setattr(PageIO, "bind", valid)


def writeback_skips_the_taint_check(patch: Patch) -> None:
    def write_back(self: Committer, blocks: Iterable[int]) -> None:
        blocks = set(blocks)
        attached = self._registry.attached & blocks
        self._registry.attached -= attached
        self._write_plain((self._registry.plain & blocks) | attached)

    patch.setattr(Committer, "write_back", write_back)


def blocks_read_in_by_anybody(patch: Patch) -> None:
    def child_type(self: PageIO, parent: MetaPage, part: int, start: int, count: int) -> BlockType:
        return self._types.get(16)

    patch.setattr(PageIO, "child_type", child_type)


def freed_blocks_are_free_at_once(patch: Patch) -> None:
    def remove_data(self: Ledger, page: MetaPage, start: int, count: int) -> None:
        self._tables.lower_run(start, count)
        page.added.difference_update(range(start, start + count))

    patch.setattr(Ledger, "remove_data", remove_data)


def acls_are_not_asked(patch: Patch) -> None:
    patch.setattr(Acls, "ask", _nothing)


def only_the_first_acl_is_asked(patch: Patch) -> None:
    ask_all = Acls.ask_all

    def first(self: Acls, who: Any, plan: Sequence[Edit], *rest: Any) -> None:
        ask_all(self, who, plan[:1], *rest)

    patch.setattr(Acls, "ask_all", first)


def locks_hold_nobody(patch: Patch) -> None:
    def meta(self: Boundary, who: Any, block: int, rights: int) -> MetaPage:
        page = self._page(who, block, rights)
        if not isinstance(page, MetaPage):
            raise Refused("plain data")
        return page

    patch.setattr(Boundary, "_meta", meta)


def others_pages_can_be_dropped(patch: Patch) -> None:
    patch.setattr(Boundary, "_rights", lambda self, who, root: 31)


def dirty_pages_can_be_dropped(patch: Patch) -> None:
    def evict(self: PageIO, blocks: set[int]) -> int:
        self._registry.drop(blocks)
        return len(blocks)

    patch.setattr(PageIO, "evict", evict)


def orders_may_be_circles(patch: Patch) -> None:
    def declare(self: Order, before: int, after: int) -> None:
        self._after.setdefault(after, set()).add(before)

    patch.setattr(Order, "declare", declare)


def relocation_of_shared_nodes(patch: Patch) -> None:
    check = Reshaper._check_relocation

    def lax(self: Reshaper, parent: MetaPage, diff: Any, old: MetaPage, new: int) -> Edit:
        owners = self._ledger.owners
        with pytest.MonkeyPatch.context() as inner:
            inner.setattr(Ledger, "owners", lambda _self, b: min(owners(b), 1))
            return check(self, parent, diff, old, new)

    patch.setattr(Reshaper, "_check_relocation", lax)


def newborns_bring_pointers(patch: Patch) -> None:
    compare = flow.compare

    def blind(edit: Edit, data: tuple[int, int]) -> None:
        compare(edit, data)
        if edit.page is None:
            edit.added = []

    patch.setattr(change, "compare", blind)


def pointers_beyond_the_disk(patch: Patch) -> None:
    patch.setattr("xnfs.disk.flow.bound", _nothing)
    patch.setattr(change_calls.ChangeCalls, "_check_claims", _nothing)


def hidden_blocks_can_be_read(patch: Patch) -> None:
    def bindable(self: PageIO, parent: MetaPage, part: int, start: int, count: int) -> BlockType:
        return self.child_type(parent, part, start, count)

    patch.setattr(PageIO, "_bindable", bindable)


def a_run_is_checked_at_its_start(patch: Patch) -> None:
    def first_only(
        self: Any, who: Any, start: int, offset: int, size: int, rights: int
    ) -> tuple[int, int]:
        first, last = start + offset // BLOCK, start + (offset + size - 1) // BLOCK
        self._page(who, first, rights)
        if rights & 2 and self._registry.locks.get(first) not in (None, who.cap):
            raise Refused("locked")
        self._registry.of_run(first, last - first + 1)
        return first, last - first + 1

    patch.setattr("xnfs.disk.page_calls.PageCalls._run", first_only)


def anything_can_be_copied(patch: Patch) -> None:
    def pages(self: change_calls.ChangeCalls, _who: Any, copies: Sequence[Copy]) -> Sequence[Copy]:
        for _target, source, count in copies:
            self._registry.of_run(source, count)
        return copies

    patch.setattr(change_calls.ChangeCalls, "_sources", pages)


def copies_show_later_writes(patch: Patch) -> None:
    patch.setattr(Registry, "own", _nothing)


def types_can_be_redefined(patch: Patch) -> None:
    install = TypeTable.install

    def again(self: TypeTable, spec: Any) -> int:
        self._names.pop(spec.name, None)
        return install(self, spec)

    patch.setattr(TypeTable, "install", again)


# -- too strict: what may be done is refused, or what must happen does not


def freed_blocks_never_come_back(patch: Patch) -> None:
    def settle(self: Ledger, due: Iterable[Any]) -> None:
        for drops in due:
            self._due.remove(drops)

    patch.setattr(Ledger, "settle", settle)


def locks_hold_their_holder(patch: Patch) -> None:
    meta = Boundary._meta

    def strict(self: Boundary, who: Any, block: int, rights: int) -> MetaPage:
        page = meta(self, who, block, rights)
        if block in self._registry.locks:
            raise Refused("locked")
        return page

    patch.setattr(Boundary, "_meta", strict)


def nothing_has_two_owners(patch: Patch) -> None:
    def strict(self: Changer, block: int, t: int, root: str) -> None:
        raise Refused(f"block {block} has an owner")

    patch.setattr(Changer, "_check_shareable", strict)


def nothing_moves(patch: Patch) -> None:
    def strict(self: Reshaper, parent: MetaPage, diff: Any, old: MetaPage, new: int) -> Edit:
        raise Refused("a node stays where it is")

    patch.setattr(Reshaper, "_check_relocation", strict)


def pages_of_others_stay(patch: Patch) -> None:
    """Nobody may have a page written back or dropped that is not his."""
    patch.setattr(PageIO, "evict", lambda self, blocks, busy: 0)


def nothing_is_revoked(patch: Patch) -> None:
    def strict(self: Capabilities, token: bytes) -> None:
        raise Refused("what was given is given")

    patch.setattr(Capabilities, "revoke", strict)


def _all(namespace: Mapping[str, Any]) -> dict[str, Mutant]:
    return {
        name: thing
        for name, thing in namespace.items()
        if callable(thing)
        and getattr(thing, "__module__", "") == __name__
        and not name.startswith("_")
    }


#: name -> what switches the check off
MUTANTS: dict[str, Mutant] = _all(globals())
#: of these, the kernels that are too careful
TOO_STRICT = frozenset(
    """
    freed_blocks_never_come_back locks_hold_their_holder nothing_has_two_owners nothing_moves
    pages_of_others_stay nothing_is_revoked
    """.split()
)
