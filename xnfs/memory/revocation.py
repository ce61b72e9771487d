"""Taking frames back (Engler et al. 1995, sections 3.3 and 3.4).

Who has ADMIN over an account may ask it for frames, in favour of another account. Unused quota goes
at once. For the rest, how it is asked is the account's choice:

- COOPERATIVE (visible revocation): an upcall says how many and until when; the application frees
  which it likes, in its own order, after whatever it wants to save. Every frame that it frees
  pays. When the time is over the abort protocol takes the rest by force.
- NOTIFY: frames are taken at once, and an upcall says that the repossession vector has their
numbers.
- TRANSPARENT: frames are taken at once, and nobody says so; the application finds out by
exceptions.

By force the oldest frames go first, but never the save area or what is pinned: an application that
loses those could not even be told. Every binding is broken; the bytes are gone.

An account that names no handler for REVOKED is notified, and one without a handler for REPOSSESSED
is not told anything but through the vector.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from xnfs.capability import ADMIN
from xnfs.cpu.dispatch import MAX_CYCLES, operation
from xnfs.cpu.environment import Environment
from xnfs.cpu.numbers import (
    COOPERATIVE,
    REPOSSESSED,
    REVOCATION,
    REVOKE_FRAMES,
    REVOKED,
    TRANSPARENT,
    VECTOR,
)
from xnfs.cpu.processor import Processor
from xnfs.errors import Refused

if TYPE_CHECKING:
    from xnfs.machine import Machine

#: Numbers of frames in a repossession vector; older ones go.
MAX_VECTOR: Final = 1024


class Debt:
    """What an account has been asked for and has not paid."""

    __slots__ = ("creditor", "frames")

    def __init__(self, frames: int, creditor: int) -> None:
        self.frames = frames
        self.creditor = creditor


class Revocation:
    """The part of the kernel that asks for frames, and takes them."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._debts: dict[int, Debt] = {}  # by debtor
        self._vectors: dict[int, list[int]] = {}
        self._styles: dict[int, int] = {}  # those that are not COOPERATIVE
        self.asked = 0  # frames
        self.forced = 0  # of them, taken by force

    # --- operations -------------------------------------------------------------------------

    @operation(REVOCATION)
    def revocation(self, cpu: Processor, env: Environment, style: int) -> None:
        """Choose how the caller is asked. Raises Refused."""
        if not TRANSPARENT <= style <= COOPERATIVE:
            raise Refused(f"there is no style {style}")
        self._styles[env.id] = style

    @operation(REVOKE_FRAMES, "check")
    def revoke_frames(
        self,
        cpu: Processor,
        env: Environment,
        account: int,
        frames: int,
        patience: int,
        to: int,
        token: bytes,
    ) -> int:
        """Ask an account for frames, in favour of `to`, which is woken when it has got what it will
        get. Returns how many it got at once. `patience`: cycles until the rest is taken by force.

        Raises NoSuchEnvironment, CapabilityError (ADMIN), Refused: more than it could give, or it
        has not answered yet, or it would pay itself.
        """
        debtor = self._machine.checked(account, token, ADMIN)
        creditor = self._machine.environment(to)
        if debtor is creditor or not 0 < patience <= MAX_CYCLES:
            raise Refused("an account is asked by another, and given time")
        if account in self._debts:
            raise Refused("the account has not answered the last time it was asked")
        most = debtor.frames + len(self._takeable(debtor))
        if not 0 < frames <= most:
            raise Refused(f"{frames} frames of {most}")
        debt = self._debts[account] = Debt(frames, to)
        self.asked += frames
        self.paid(debtor, 0)
        if debt.frames:
            self._press(cpu, debtor, debt, patience)
        return frames - debt.frames

    @operation(VECTOR)
    def vector(self, cpu: Processor, env: Environment) -> tuple[int, ...]:
        """The repossession vector: frames taken by force since the last call."""
        return tuple(self._vectors.pop(env.id, ()))

    def style(self, env: Environment) -> int:
        """How an environment wants to be asked."""
        return self._styles.get(env.id, COOPERATIVE)

    # --- protocol ---------------------------------------------------------------------------

    def _press(self, cpu: Processor, debtor: Environment, debt: Debt, patience: int) -> None:
        style = self.style(debtor)
        if style == COOPERATIVE:
            deadline = cpu.now + patience
            if self._machine.exceptions.post(debtor, REVOKED, debt.frames, deadline):
                self._machine.at(deadline, self._expired, (debtor, debt))
                return
        self._abort(debtor, debt, tell=style != TRANSPARENT)

    def _expired(self, time: int, what: tuple[Environment, Debt]) -> None:
        debtor, debt = what
        if self._debts.get(debtor.id) is debt:
            self._abort(debtor, debt, tell=True)

    def _abort(self, debtor: Environment, debt: Debt, tell: bool) -> None:
        """Take what is owed. What the debtor has pinned meanwhile it keeps."""
        taken = self._takeable(debtor)[: debt.frames]
        for frame in taken:
            self._machine.memory.free(frame)
        self.forced += len(taken)
        if self._debts.pop(debtor.id, None) is not None:
            self._machine.slices.wake_by_id(debt.creditor)
        if tell and taken:
            vector = self._vectors.setdefault(debtor.id, [])
            vector += taken
            del vector[:-MAX_VECTOR]
            self._machine.exceptions.post(debtor, REPOSSESSED)

    def _takeable(self, debtor: Environment) -> list[int]:
        """What can be taken from an environment by force, oldest first."""
        memory = self._machine.memory
        vital = memory.vital(debtor)
        return [frame for frame in memory.owned(debtor) if frame not in vital]

    def paid(self, owner: Environment, freed: int) -> None:
        """An account has so many frames of quota more. What it owes goes out of it."""
        owner.frames += freed
        debt = self._debts.get(owner.id)
        if debt is None:
            return
        creditor = self._machine.living(debt.creditor)
        if creditor is None:
            del self._debts[owner.id]
            return
        pays = min(debt.frames, owner.frames)
        owner.frames -= pays
        creditor.frames += pays
        debt.frames -= pays
        if not debt.frames:
            del self._debts[owner.id]
            self._machine.slices.wake_by_id(debt.creditor)

    def drop(self, env: Environment) -> None:
        """An environment ends; what it owes it can't pay."""
        debt = self._debts.pop(env.id, None)
        if debt is not None:
            self._machine.slices.wake_by_id(debt.creditor)
        self._vectors.pop(env.id, None)
        self._styles.pop(env.id, None)
