"""System calls on the catalogues: types, roots, the free map, and capabilities for them.

Here a file system introduces itself (its types, its root) and learns what the disk holds; none of
these calls looks inside a file system. Not here: where a root's name lies (`roots.py`), the proof
of a type (`typetable.py`), the tokens (`xnfs/capability.py`), ownership inside a root
(`change_calls.py`).

Relies on `syscalls.py` for the lock and for rights. Guarantees: only who holds the whole disk adds
or removes a root, and a root's capability never gives more than that of whoever mounted it.

Source: Kaashoek et al. 1997, section 4 and table 1.
"""

from __future__ import annotations

from xnfs.capability import ADMIN, ALLOC, READ
from xnfs.disk.change_calls import ChangeCalls
from xnfs.disk.layout import FIRST_TYPE
from xnfs.disk.records import Caller, RootEntry, RootInfo, TypeSpec
from xnfs.disk.syscalls import DISK, syscall
from xnfs.errors import CapabilityError, NoSpace, Refused


class CatalogueCalls(ChangeCalls):
    """Types, roots, the free map, capabilities."""

    # -- types

    @syscall
    def install_type(self, who: Caller, spec: TypeSpec) -> int:
        """Install a type, proved sound; the same again gives the same number. Durable on return.

        Raises Refused (which rule, or which line of which UDF), NoSpace.
        """
        self._caps.check(who.cap, DISK, ALLOC)
        number = self._types.number(spec.name)
        if number is None:
            self._writable()
        with self._committer.stops_on_failure(retry=True):
            self._types.reserve(root.type for root in self._roots.entries())
            return self._types.install(spec)

    @syscall
    def type_number(self, name: str) -> int | None:
        """The number of an installed type."""
        return self._types.number(name)

    @syscall
    def types(self) -> tuple[tuple[int, TypeSpec], ...]:
        """All types installed on this image."""
        return tuple((t.number, t.spec) for t in self._types)

    # -- roots

    @syscall
    def roots(self) -> tuple[RootEntry, ...]:
        """All roots of this image."""
        return self._roots.entries()

    @syscall
    def install_root(self, who: Caller, name: str, type_number: int, *, hint: int = 0) -> RootInfo:
        """Create a root: its first block is allocated, zero. Durable after `sync`.

        Raises Refused (name in use, no type of metadata), UnknownType, NoSpace.
        """
        self._caps.check(who.cap, DISK, ADMIN | READ)
        self._writable()
        if self._types.get(type_number).stamp is None or type_number < FIRST_TYPE:
            raise Refused(f"type {type_number} can't be a root's")
        self._make_room(1)
        page, diff_for = self._roots.free_slot(name, type_number, self._clock())
        start, n = self._tables.find_free(hint, 1)
        if not n:
            raise NoSpace("no free block")
        claim = [(type_number, start, 1)]
        self._changer.change(who, [(page, diff_for(start))], claim, (), (), {}, (), {})
        self._adopt(start, name)
        return self._info(who, name, start, type_number)

    @syscall
    def mount_root(self, who: Caller, name: str) -> RootInfo:
        """Bind a root's first block. The capability gives what the caller's gives, but for ADMIN.

        Raises Refused if there is no such root, CorruptionError.
        """
        self._may(who, name, READ)
        page, part, start, kind = self._roots.find(name)
        self._pages.read_in(page, part, start, 1)
        self._adopt(start, name)
        return self._info(who, name, start, kind)

    @syscall
    def remove_root(self, who: Caller, name: str) -> None:
        """Forget a root and everything below it. Durable after `sync`; its blocks are leaks,
        collected as such.

        Its pages are dropped from the registry, its capabilities revoked. Raises Refused if there
        is no such root.
        """
        self._caps.check(who.cap, DISK, ADMIN)
        self._writable()
        self._committer.commit()
        page, diff = self._roots.clear_slot(name)
        self._reshaper.abandon(page, diff)
        for block in [b for b, p in self._registry.pages.items() if p.root == name]:
            self._ledger.abandon(block)
        self._caps.revoke_below(("disk", "root", name))
        self._leaky = True
        self._committer.commit()

    def _adopt(self, block: int, name: str) -> None:
        self._registry.pages[block].root = name

    def _info(self, who: Caller, name: str, block: int, kind: int) -> RootInfo:
        rights = self._rights(who, name) & ~ADMIN
        cap = self._caps.narrow(who.cap, ("disk", "root", name), rights)
        return RootInfo(name, block, kind, cap)

    # -- the free map, exposed

    @syscall
    def find_free(self, hint: int, count: int) -> tuple[int, int]:
        """The first run of `count` free blocks from `hint` on, else the longest one seen: (start,
        n).
        """
        return self._tables.find_free(hint, count)

    @syscall
    def free_blocks(self) -> int:
        """How many blocks are free. Blocks that wait for a commit are not."""
        return self._tables.free_blocks

    @syscall
    def group_free(self, group: int) -> int:
        """Free blocks among group*4032 … group*4032+4031."""
        return self._tables.group_free(group)

    # -- capabilities

    @syscall
    def narrow(self, who: Caller, root: str, rights: int) -> bytes:
        """A capability for less: one root, fewer rights."""
        return self._caps.narrow(who.cap, ("disk", "root", root), rights)

    @syscall
    def grant(self, who: Caller, holder: str) -> bytes:
        """The caller's capability for another holder."""
        return self._caps.grant(who.cap, holder)

    @syscall
    def revoke(self, who: Caller, cap: bytes) -> None:
        """End a capability that the caller gave away, and all that derive from it."""
        if cap != who.cap and not self._caps.derives(cap, who.cap):
            raise CapabilityError("only who gave a capability can revoke it")
        self._caps.revoke(cap)
