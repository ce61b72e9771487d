"""Memory as programs see it: frames under capabilities, and translations that they bind.

A translation is a secure binding (Engler et al. 1995, section 3.2): the capability is checked when
the application asks for the binding (`BIND`), and not when it is used. A load that misses in the
TLB is looked up in the software TLB of the kernel, then in the application's bootstrapping segment,
and then the application gets an exception: which structure it keeps its translations in is its own
affair.

The software TLB (4096 entries, direct-mapped) holds everything that a TLB holds, so breaking a
binding means looking in one place: for each frame the keys under which it is in there are known.

Guarantees: no translation leads to a frame whose owner has freed it, or that was bound under a
capability since revoked; a frame given to somebody is cleared.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from xnfs.capability import ALLOC, READ, WRITE, Resource
from xnfs.cpu.dispatch import Fault, operation
from xnfs.cpu.environment import Environment
from xnfs.cpu.numbers import (
    ADDRESS,
    ANY,
    BIND,
    FRAME_ALLOC,
    FRAME_FREE,
    LOAD,
    PROTECTION,
    STORE,
    TLB_LOAD,
    TLB_STORE,
    UNBIND,
)
from xnfs.cpu.processor import Processor
from xnfs.errors import NoFrames, NoSpace, Refused
from xnfs.memory.frames import FRAME
from xnfs.memory.tlb import DIRTY, PAGE_BITS, PAGES, WRITABLE

if TYPE_CHECKING:
    from xnfs.machine import Machine

STLB_ENTRIES: Final = 4096
#: Environments that may have one frame bound.
MAX_HOLDERS: Final = 64
#: Bits of a frame: it was loaded into a TLB; it was stored to.
REFERENCED, MODIFIED = 1, 2
#: Bits that no address of a word has.
_BAD_WORD: Final = ~((1 << 48) - 8)
_ZEROS: Final = bytes(FRAME)


class Memory:
    """The part of the kernel that owns memory."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._frames = frames = machine.frames
        self._words = frames.words()
        self._resources: list[Resource | None] = [None] * frames.count
        self._holders: list[dict[int, tuple[int, bytes]] | None] = [None] * frames.count
        self._keys: list[set[int] | None] = [None] * frames.count  # where the STLB has it
        self._owned: dict[int, set[int]] = {}  # environment -> its frames
        self._held: dict[int, set[int]] = {}  # environment -> frames that it has bound
        self._under: dict[bytes, set[tuple[int, int]]] = {}  # token -> (frame, environment)
        self._stlb_keys = [-1] * STLB_ENTRIES
        self._stlb: list[int] = [0] * STLB_ENTRIES
        self.bits = bytearray(frames.count)
        self.misses = 0  # in the hardware TLB
        self.stlb_hits = 0
        self.refills = 0  # from bootstrapping segments
        self.exceptions = 0  # left to applications

    # --- instructions -----------------------------------------------------------------------

    @operation(LOAD, "access", instruction=True)
    def load(self, cpu: Processor, env: Environment, address: int) -> int:
        """The word at an address."""
        if address & _BAD_WORD:
            raise Fault(ADDRESS, address)
        entry = cpu.tlb.entries.get(env.id << PAGE_BITS | address >> 12)
        if entry is None:
            entry = self._miss(cpu, env, address, TLB_LOAD)
        return self._words[entry >> 2 << 9 | (address & 4095) >> 3]

    @operation(STORE, "access", instruction=True)
    def store(self, cpu: Processor, env: Environment, address: int, word: int) -> None:
        """Put a word at an address. Raises Refused: not 64 bits."""
        if address & _BAD_WORD:
            raise Fault(ADDRESS, address)
        if word >> 64:
            raise Refused("a word has 64 bits")
        entry = cpu.tlb.entries.get(env.id << PAGE_BITS | address >> 12)
        if entry is None:
            entry = self._miss(cpu, env, address, TLB_STORE)
        if not entry & DIRTY:
            entry = self._first_store(cpu, env, address, entry)
        self._words[entry >> 2 << 9 | (address & 4095) >> 3] = word

    def _miss(self, cpu: Processor, env: Environment, address: int, cause: int) -> int:
        """A translation that the TLB has not. Raises Fault: only the application may know one."""
        page = address >> 12
        key = env.id << PAGE_BITS | page
        at = stlb_index(env.id, page)
        self.misses += 1
        if self._stlb_keys[at] == key:
            self.stlb_hits += 1
            cpu.now += self._machine.costs.stlb
            entry = self._stlb[at]
        elif env.pinned is not None and page in env.pinned:
            self.refills += 1
            cpu.now += self._machine.costs.refill
            entry = env.pinned[page]
            self._insert(key, at, entry)
        else:
            self.exceptions += 1
            raise Fault(cause, address)
        self.bits[entry >> 2] |= REFERENCED
        cpu.tlb.put(key, entry)
        return entry

    def _first_store(self, cpu: Processor, env: Environment, address: int, entry: int) -> int:
        """A store through a translation that has seen none. Raises Fault: it may not."""
        if not entry & WRITABLE:
            raise Fault(PROTECTION, address)
        page = address >> 12
        entry |= DIRTY
        cpu.tlb.entries[env.id << PAGE_BITS | page] = entry
        self._stlb[stlb_index(env.id, page)] = entry
        self.bits[entry >> 2] |= MODIFIED
        return entry

    # --- frames -----------------------------------------------------------------------------

    @operation(FRAME_ALLOC, "frame", "check", "clear")
    def frame_alloc(
        self, cpu: Processor, env: Environment, account: int, frame: int, token: bytes
    ) -> int:
        """A frame for an account, by number or ANY; cleared.

        Raises NoSuchEnvironment, CapabilityError (ALLOC), NoFrames (quota, or none is free),
        NotFree, Refused.
        """
        owner = self._machine.checked(account, token, ALLOC)
        if owner.frames < 1:
            raise NoFrames("the quota of frames is used up")
        if frame == ANY:
            (frame,) = self._frames.alloc(owner.id)
        else:
            self._frames.take(owner.id, frame)
        owner.frames -= 1
        self._owned.setdefault(owner.id, set()).add(frame)
        self._frames.view(frame)[:] = _ZEROS
        self._resources[frame] = (*owner.resource, f"f{frame}")
        self.bits[frame] = 0
        self._machine.show_frame(frame, owner.id)
        return frame

    @operation(FRAME_FREE, "frame", "check")
    def frame_free(self, cpu: Processor, env: Environment, frame: int, token: bytes) -> None:
        """Give a frame back; every binding of it is broken. Raises Refused, CapabilityError."""
        self._machine.capabilities.check(token, self._resource(frame), ALLOC)
        self.release(frame)

    def release(self, frame: int) -> None:
        """Take a frame from its owner, bindings first."""
        owner = self._frames.owner(frame)
        assert type(owner) is int
        self.break_frame(frame)
        self._resources[frame] = None
        self._frames.free([frame])
        self._owned[owner].discard(frame)
        self._machine.environment(owner).frames += 1
        self._machine.show_frame(frame, 0)

    def _resource(self, frame: int) -> Resource:
        resource = self._resources[frame] if 0 <= frame < self._frames.count else None
        if resource is None:
            raise Refused(f"frame {frame} is no environment's")
        return resource

    # --- bindings ---------------------------------------------------------------------------

    @operation(BIND, "bind", "check")
    def bind(
        self, cpu: Processor, env: Environment, page: int, frame: int, rights: int, token: bytes
    ) -> None:
        """Translate a page to a frame: READ, or READ and WRITE. The check of the binding is here.

        Raises Refused, CapabilityError, NoSpace (too many hold the frame).
        """
        if not 0 <= page < PAGES or rights not in (READ, READ | WRITE):
            raise Refused("no such page, or no such protection")
        self.hold(env, frame, rights, token)
        key = env.id << PAGE_BITS | page
        entry = frame << 2 | (WRITABLE if rights & WRITE else 0)
        self._insert(key, stlb_index(env.id, page), entry)
        for other in self._machine.processors:
            if other is not cpu:
                other.tlb.drop(key)
        cpu.tlb.put(key, entry)
        self.bits[frame] |= REFERENCED

    @operation(UNBIND, "unbind")
    def unbind(self, cpu: Processor, env: Environment, page: int) -> None:
        """Forget the translation of a page of the caller, if there is one."""
        if not 0 <= page < PAGES:
            raise Refused(f"there is no page {page}")
        self._forget(env.id << PAGE_BITS | page, stlb_index(env.id, page))
        if env.pinned is not None:
            env.pinned.pop(page, None)

    def hold(self, env: Environment, frame: int, rights: int, token: bytes) -> None:
        """Check, and remember under which capability an environment has a frame."""
        holders = self._holders[frame] if 0 <= frame < self._frames.count else None
        if holders is not None:
            held = holders.get(env.id)
            if held is not None and held[1] == token and not rights & ~held[0]:
                return
        self._machine.capabilities.check(token, self._resource(frame), rights)
        if holders is None:
            holders = self._holders[frame] = {}
        held = holders.get(env.id)
        if held is None:
            if len(holders) >= MAX_HOLDERS:
                raise NoSpace(f"{MAX_HOLDERS} environments hold the frame")
        elif held[1] == token:
            rights |= held[0]
        else:
            self._unhold(frame, env.id)
        holders[env.id] = (rights, token)
        self._holders[frame] = holders
        self._held.setdefault(env.id, set()).add(frame)
        self._under.setdefault(token, set()).add((frame, env.id))

    def _unhold(self, frame: int, id: int) -> None:
        """Break all that one environment has bound of a frame."""
        holders = self._holders[frame]
        if holders is None or id not in holders:
            return
        _, token = holders.pop(id)
        if not holders:
            self._holders[frame] = None
        self._held[id].discard(frame)
        under = self._under[token]
        under.discard((frame, id))
        if not under:
            del self._under[token]
        for key in [k for k in self._keys[frame] or () if k >> PAGE_BITS == id]:
            self._forget(key, stlb_index(id, key & (PAGES - 1)))
        self._machine.unpin(id, frame)

    def break_frame(self, frame: int) -> None:
        """Break every binding of a frame."""
        for id in list(self._holders[frame] or ()):
            self._unhold(frame, id)

    def break_tokens(self, tokens: Iterable[bytes]) -> None:
        """Break every binding that was made under one of these."""
        for token in tokens:
            for frame, id in list(self._under.get(token, ())):
                self._unhold(frame, id)

    def drop(self, env: Environment) -> None:
        """All frames of an environment that ends, and all that it has bound."""
        for frame in sorted(self._owned.get(env.id, ())):
            self.release(frame)
        for frame in sorted(self._held.get(env.id, ())):
            self._unhold(frame, env.id)
        self._owned.pop(env.id, None)
        self._held.pop(env.id, None)

    def _insert(self, key: int, at: int, entry: int) -> None:
        """Into the software TLB; what it replaces leaves the hardware's, too."""
        if self._stlb_keys[at] != -1:
            self._forget(self._stlb_keys[at], at)
        self._stlb_keys[at] = key
        self._stlb[at] = entry
        keys = self._keys[entry >> 2]
        if keys is None:
            keys = self._keys[entry >> 2] = set()
        keys.add(key)

    def _forget(self, key: int, at: int) -> None:
        if self._stlb_keys[at] != key:
            return
        self._stlb_keys[at] = -1
        frame = self._stlb[at] >> 2
        keys = self._keys[frame]
        assert keys is not None
        keys.discard(key)
        if not keys:
            self._keys[frame] = None
        for cpu in self._machine.processors:
            cpu.tlb.drop(key)


def stlb_index(id: int, page: int) -> int:
    """Where a translation lies in the software TLB."""
    return (page ^ id * 0x9E5) & (STLB_ENTRIES - 1)
