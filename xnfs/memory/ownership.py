"""Frames as applications get, share and give them up.

A frame is allocated by number or any, on an account whose quota pays; it is cleared, because it
comes with its last owner's bytes. Everything about it is decided by a capability that dominates its
name, (..., owner, "f<number>"): ALLOC to free it, give it away or limit it, READ and WRITE to bind
it.

Guarantees: a frame has one owner; no binding outlives the owner's or the capability's; what a call
refuses has had no effect.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from xnfs.capability import ALLOC, READ, WRITE
from xnfs.cpu.dispatch import operation
from xnfs.cpu.environment import Environment
from xnfs.cpu.numbers import (
    ANY,
    BIND,
    CLEAR_BITS,
    FRAME_ALLOC,
    FRAME_FREE,
    FRAME_GIVE,
    FRAME_LIMIT,
    MODIFIED,
    PIN,
    REFERENCED,
    RELEASE,
    UNBIND,
)
from xnfs.cpu.processor import Processor
from xnfs.errors import NoFrames, NoSpace, Refused
from xnfs.memory.bindings import Bindings
from xnfs.memory.frames import FRAME
from xnfs.memory.tlb import PAGE_BITS, PAGES, WRITABLE

if TYPE_CHECKING:
    from xnfs.machine import Machine

#: Pages of a bootstrapping segment. Its frames are never taken by force, so it is small.
MAX_PINNED: Final = 8
_ZEROS: Final = bytes(FRAME)


class Memory:
    """The part of the kernel that owns memory."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._frames = machine.frames
        self._translations = machine.translations
        self.bindings = Bindings(
            machine.frames.count, machine.capabilities, machine.translations, self._lost
        )
        self._bits = machine.bits
        self._owned: dict[int, dict[int, None]] = {}  # environment -> its frames, oldest first

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
        self._frames.view(frame)[:] = _ZEROS
        self._bits[frame] = 0
        self._enter(frame, owner)
        return frame

    @operation(FRAME_FREE, "frame", "check")
    def frame_free(self, cpu: Processor, env: Environment, frame: int, token: bytes) -> None:
        """Give a frame back; every binding of it is broken. Raises Refused, CapabilityError."""
        self._machine.capabilities.check(token, self.bindings.resource(frame), ALLOC)
        self.free(frame)

    @operation(FRAME_GIVE, "frame", "check", "check")
    def frame_give(
        self,
        cpu: Processor,
        env: Environment,
        frame: int,
        token: bytes,
        account: int,
        consent: bytes,
    ) -> None:
        """Make a frame another account's, bytes and all; every binding of it is broken. `consent`
        is a capability (ALLOC) over the account, whose quota pays.

        Raises Refused, NoSuchEnvironment, CapabilityError, NoFrames.
        """
        self._machine.capabilities.check(token, self.bindings.resource(frame), ALLOC)
        taker = self._machine.checked(account, consent, ALLOC)
        giver = self._machine.environment(self.owner(frame))
        if giver is taker:
            return
        if taker.frames < 1:
            raise NoFrames("the quota of frames is used up")
        self._leave(frame)
        self._frames.free([frame])
        self._frames.take(taker.id, frame)
        taker.frames -= 1
        self._enter(frame, taker)
        self._machine.revocation.paid(giver, 1)

    @operation(FRAME_LIMIT, "check")
    def frame_limit(
        self,
        cpu: Processor,
        env: Environment,
        frame: int,
        readers: int,
        writers: int,
        token: bytes,
    ) -> None:
        """Let no more than so many hold the frame for reading only, and for writing.

        Raises Refused: more do already; CapabilityError (ALLOC).
        """
        self._machine.capabilities.check(token, self.bindings.resource(frame), ALLOC)
        self.bindings.limit(frame, readers, writers)

    @operation(CLEAR_BITS, "check", "unbind")
    def clear_bits(
        self, cpu: Processor, env: Environment, frame: int, bits: int, token: bytes
    ) -> None:
        """Clear REFERENCED or MODIFIED or both; the next access sets them again.

        Raises Refused, CapabilityError (WRITE).
        """
        self._machine.capabilities.check(token, self.bindings.resource(frame), WRITE)
        if bits & ~(REFERENCED | MODIFIED):
            raise Refused(f"there are no bits {bits:#x}")
        self._bits[frame] &= ~bits
        self._translations.clean(frame)

    # --- bindings ---------------------------------------------------------------------------

    @operation(BIND, "bind", "check")
    def bind(
        self, cpu: Processor, env: Environment, page: int, frame: int, rights: int, token: bytes
    ) -> None:
        """Translate a page to a frame: READ, or READ | WRITE. The check of the binding is here.

        Raises Refused, CapabilityError, NoSpace (limit of the frame).
        """
        entry = self._bound(env, page, frame, rights, token)
        if env.pinned is not None:
            env.pinned.pop(page, None)
        self._translations.put(cpu, env.id << PAGE_BITS | page, entry)
        self._bits[frame] |= REFERENCED

    @operation(PIN, "bind", "check")
    def pin(
        self, cpu: Processor, env: Environment, page: int, frame: int, rights: int, token: bytes
    ) -> None:
        """Bind a page in the bootstrapping segment: it never misses to the application, and while
        it is bound the owner's frame is not taken by force. UNBIND ends it.

        Raises as BIND; NoSpace: the segment is full.
        """
        pinned = env.pinned or {}
        if page not in pinned and len(pinned) >= MAX_PINNED:
            raise NoSpace(f"{MAX_PINNED} pages are pinned")
        entry = self._bound(env, page, frame, rights, token)
        if env.pinned is None:  # asked for again: holding may have broken another binding
            env.pinned = {}
        env.pinned[page] = entry
        self._translations.put(cpu, env.id << PAGE_BITS | page, entry)
        self._bits[frame] |= REFERENCED

    @operation(UNBIND, "unbind")
    def unbind(self, cpu: Processor, env: Environment, page: int) -> None:
        """Forget the translation of a page of the caller, if there is one. Raises Refused."""
        if not 0 <= page < PAGES:
            raise Refused(f"there is no page {page}")
        self._translations.forget(env.id << PAGE_BITS | page)
        if env.pinned is not None:
            env.pinned.pop(page, None)

    @operation(RELEASE, "unbind")
    def release(self, cpu: Processor, env: Environment, frame: int) -> None:
        """Break all that the caller has bound of a frame, and hold it no longer. Raises Refused."""
        self.bindings.resource(frame)
        self.bindings.release(env.id, frame)

    def _bound(self, env: Environment, page: int, frame: int, rights: int, token: bytes) -> int:
        """Check a binding; the entry for it."""
        if not 0 <= page < PAGES or rights not in (READ, READ | WRITE):
            raise Refused("no such page, or no such protection")
        self.bindings.hold(env.id, frame, rights, token)
        return frame << 2 | (WRITABLE if rights & WRITE else 0)

    def _lost(self, id: int, frame: int) -> None:
        """An environment no longer holds a frame: nor is it its save area, nor pinned, nor
        does a predicate see it.
        """
        env = self._machine.living(id)
        if env is None:
            return
        if env.area is not None and env.area[0] == frame:
            env.area = None
        if env.pinned is not None:
            env.pinned = {p: e for p, e in env.pinned.items() if e >> 2 != frame} or None
        self._machine.predicates.lost(env, frame)

    # --- owners -----------------------------------------------------------------------------

    def owner(self, frame: int) -> int:
        """The environment whose frame it is. Raises Refused."""
        self.bindings.resource(frame)
        owner = self._frames.owner(frame)
        assert type(owner) is int
        return owner

    def owned(self, env: Environment) -> list[int]:
        """An environment's frames, oldest first."""
        return list(self._owned.get(env.id, ()))

    def vital(self, env: Environment) -> set[int]:
        """Frames without which an environment could not be told anything."""
        pinned = {entry >> 2 for entry in (env.pinned or {}).values()}
        return pinned | {env.area[0]} if env.area is not None else pinned

    def free(self, frame: int) -> None:
        """Take a frame from its owner, bindings first."""
        owner = self._machine.environment(self.owner(frame))
        self._leave(frame)
        self._frames.free([frame])
        self._machine.show_frame(frame, 0)
        self._machine.revocation.paid(owner, 1)

    def drop(self, env: Environment) -> None:
        """All frames of an environment that ends, and all that it has bound."""
        for frame in self.owned(env):
            self.free(frame)
        self.bindings.drop(env.id)

    def _enter(self, frame: int, owner: Environment) -> None:
        self._owned.setdefault(owner.id, {})[frame] = None
        self.bindings.resources[frame] = (*owner.resource, f"f{frame}")
        self._machine.show_frame(frame, owner.id)

    def _leave(self, frame: int) -> None:
        owner = self.owner(frame)
        self.bindings.break_frame(frame)
        self.bindings.resources[frame] = None
        owned = self._owned[owner]
        del owned[frame]
        if not owned:
            del self._owned[owner]
