"""System calls that change who owns what: `change` and its fixed shapes, and the temporary root.

Each call copies its arguments, checks that the caller may name every block in it, makes room in the
log, and hands over. Whether the change is exactly what is claimed is for `change.py` (and
`reshape.py`, for calls that are no sum of pointers) to say; whether the file system's own rules
agree, for `acl.py`. Bytes that own nothing are written by `page_calls.py`.

Relies on `syscalls.py` for the lock, rights and room. Guarantees: a call is refused without effect
or carried out whole; it stays within one root, but for pointers that move between two of which the
caller holds both (`crossing.py`).

Source: Kaashoek et al. 1997, section 4 and table 1.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from xnfs.capability import ALLOC, READ, WRITE
from xnfs.disk.arguments import Copy, plain_copies, plain_diff, plain_extents
from xnfs.disk.blocktype import ZERO
from xnfs.disk.flow import Edit
from xnfs.disk.page_calls import PageCalls
from xnfs.disk.records import OP_ACCESS, OP_DEATH, Caller, Diff, Extent
from xnfs.disk.syscalls import syscall
from xnfs.errors import NotCached, Refused


class ChangeCalls(PageCalls):
    """Changes of metadata, the temporary root, and the question whether an acl would agree."""

    # -- changes of metadata

    @syscall
    def change(
        self,
        who: Caller,
        edits: Sequence[tuple[int, Diff]],
        *,
        alloc: Sequence[Extent] = (),
        free: Sequence[Extent] = (),
        share: Sequence[Extent] = (),
        inits: Mapping[int, Diff] | None = None,
        copies: Sequence[tuple[int, int, int]] = (),
        witness: int = 0,
        witnesses: Mapping[int, int] | None = None,
    ) -> None:
        """Edit metadata blocks, atomically: in memory now, on the disk in one transaction.

        Pointers added minus removed must equal `alloc + share - free` exactly. `inits`: first bytes
        of allocated blocks, durable no later than the pointers; those of a block of data may go on
        in others behind it. `copies`: likewise (target, source,
        count), allocated blocks of data that begin with the bytes of cached ones that the caller
        may read; both lie in one frame until either is written. `witness`: the block shown to every
        acl; `witnesses`: by edited block. Edits in several roots may only move pointers: see
        `move`. Not durable until `sync`. Raises Refused, NotFree, NotEmpty, NotCached, NoFrames,
        AclRefused, CapabilityError; then nothing has changed.
        """
        edits = list(edits)
        self._make_room(len(edits))
        self._writable()
        pages = [(self._meta(who, block, WRITE), plain_diff(diff)) for block, diff in edits]
        alloc, free, share = plain_extents(alloc), plain_extents(free), plain_extents(share)
        if not pages:
            raise Refused("a change edits at least one block")
        root = pages[0][0].root
        roots = {page.root for page, _ in pages}
        if len(roots) > 1:
            if alloc or free or share:
                raise Refused("a change of several roots only moves pointers between them")
            for each in roots:
                self._may(who, each, ALLOC)
        elif alloc:
            self._may(who, root, ALLOC)
        first = {block: plain_diff(diff) for block, diff in (inits or {}).items()}
        self._check_claims((*alloc, *free, *share))
        shown = {block: self._meta(who, w, READ) for block, w in (witnesses or {}).items()}
        if witness:
            shown[0] = self._meta(who, witness, READ)
        filled = self._sources(who, plain_copies(copies)) if copies else []
        self._changer.change(who, pages, alloc, free, share, first, filled, shown)

    def _sources(self, who: Caller, copies: Sequence[Copy]) -> Sequence[Copy]:
        """The copies, all of whose sources are data, filled, and such as the caller may read."""
        registry = self._registry
        for _target, source, count in copies:
            records = registry.of_run(source, count)
            for root in {page.root for page in records}:
                self._may(who, root, READ)
            if any(page.meta or page.type.unreadable for page in records):
                raise Refused(f"blocks [{source}, {source + count}) are not all plain data")
            if not registry.unfilled.isdisjoint(range(source, source + count)):
                raise NotCached(f"blocks [{source}, {source + count}) are not all filled")
        return copies

    def _check_claims(self, claims: Iterable[Extent]) -> None:
        lo, hi = self._data
        for _t, start, count in claims:
            if count < 1 or start < lo or start + count > hi:
                raise Refused(f"claim [{start}, {start + count}) is not in the data area")

    def alloc(
        self,
        who: Caller,
        parent: int,
        diff: Diff,
        claim: Sequence[Extent],
        *,
        init: Diff = (),
        witness: int = 0,
    ) -> None:
        """O' = O + claim: `parent` becomes the first owner of free blocks, which are zero."""
        inits = {claim[0][1]: init} if init and claim else {}
        self.change(who, [(parent, diff)], alloc=claim, inits=inits, witness=witness)

    def free(
        self, who: Caller, parent: int, diff: Diff, claim: Sequence[Extent], *, witness: int = 0
    ) -> None:
        """O' = O - claim. The blocks are free when no durable pointer can name them (R1)."""
        self.change(who, [(parent, diff)], free=claim, witness=witness)

    def update(self, who: Caller, block: int, diff: Diff, *, witness: int = 0) -> None:
        """O' = O."""
        self.change(who, [(block, diff)], witness=witness)

    def move(
        self,
        who: Caller,
        src: int,
        src_diff: Diff,
        dst: int,
        dst_diff: Diff,
        *,
        witness: int = 0,
    ) -> None:
        """Pointers go from `src` to `dst`; the sum stays (R3).

        If `dst` lies in another root, what is named goes there with all that it owns, for who may
        change and enlarge both. Each of these blocks has one owner and is nobody's to hold; all of
        its metadata is cached (NotCached says what is not).
        """
        self.change(who, [(src, src_diff), (dst, dst_diff)], witness=witness)

    def swap(
        self,
        who: Caller,
        one: int,
        one_diff: Diff,
        other: int,
        other_diff: Diff,
        *,
        witness: int = 0,
    ) -> None:
        """Two blocks trade pointers; the sum stays (R3)."""
        self.change(who, [(one, one_diff), (other, other_diff)], witness=witness)

    @syscall
    def relocate(
        self, who: Caller, parent: int, diff: Diff, old: int, new: int, *, witness: int = 0
    ) -> None:
        """The same metadata object at a new address: `parent`'s pointer goes from `old` to `new`,
        children stay.

        `old` is free once its last durable copy can't be reached (R1). Raises as `change`.
        """
        self._make_room(1)
        self._writable()
        page = self._meta(who, parent, WRITE)
        moved = self._meta(who, old, WRITE)
        self._may(who, page.root, ALLOC)
        if moved.root != page.root:
            raise Refused("a change stays within one root")
        shown = {0: self._meta(who, witness, READ)} if witness else {}
        self._reshaper.relocate(who, page, plain_diff(diff), moved, new, shown)

    # -- the temporary root

    @syscall
    def hold(self, who: Caller, block: int) -> None:
        """Keep a metadata block alive in memory after its last owner has gone. Not over a crash."""
        page = self._meta(who, block, WRITE)
        self._ledger.held.add(block)
        self._saw([(page.type.number, block, 1)])

    @syscall
    def alloc_held(self, who: Caller, root_block: int, extent: Extent, *, init: Diff) -> None:
        """A metadata block that only the temporary root owns. `root_block`: any cached block of the
        root.
        """
        self._writable()
        page = self._meta(who, root_block, WRITE)
        self._may(who, page.root, ALLOC)
        (claim,) = plain_extents([extent])
        self._reshaper.alloc_held(who, page, claim, plain_diff(init))

    @syscall
    def drop(self, who: Caller, block: int, *, free: Sequence[Extent] = ()) -> None:
        """Let go of a held block. If nothing else owns it, it is freed, and with it the data that
        it owns, which must be exactly `free` (NotEmpty).

        Whose it is, and who may have it open, the kernel doesn't know: the acl is asked (OP_DEATH,
        with 1 as the mask). Raises AclRefused.
        """
        self._writable()
        page = self._meta(who, block, WRITE)
        if block not in self._ledger.held:
            raise Refused(f"block {block} is not held")
        last = bytes(page.view)
        edit = Edit(block, page.type, page, (), last, bytearray(last))
        self._acls.ask(who, page.type, OP_DEATH, 1, edit, (0, ZERO))
        claims = plain_extents(free)
        if self._ledger.owners(block) == 0:
            self._reshaper.bury_held(page, claims)
        elif claims:
            raise Refused(f"block {block} has other owners")
        self._ledger.let_go(block)

    # -- questions

    @syscall
    def refs(self, block: int) -> int:
        """How many pointers in memory name the block."""
        return self._ledger.named(block)

    @syscall
    def access(self, who: Caller, block: int, mask: int, *, witness: int = 0) -> None:
        """Ask the block's acl for read 4, write 2, search 1. Raises AclRefused with its errno."""
        page = self._meta(who, block, READ)
        shown = self._meta(who, witness, READ) if witness else None
        old = bytes(page.view)
        edit = Edit(block, page.type, page, (), old, bytearray(old))
        seen = (shown.block, bytes(shown.view)) if shown else (0, ZERO)
        self._acls.ask(who, page.type, OP_ACCESS, mask & 7, edit, seen)
