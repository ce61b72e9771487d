"""Taking positions back, as frames are taken back (`xnfs/memory/revocation`).

Who has ADMIN over an account may ask it for positions, in favour of another account. Unused quota
goes at once. For the rest the account is asked in the way that it has chosen (`REVOCATION`):
cooperatively, by an upcall that says how many and until when, and then it gives up those that it
likes; or they are taken, the last ones first, and it is told (NOTIFY) or not (TRANSPARENT). What
it has left is in the exposed table.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from xnfs.capability import ADMIN
from xnfs.cpu.dispatch import MAX_CYCLES, operation
from xnfs.cpu.environment import Environment
from xnfs.cpu.numbers import COOPERATIVE, REPOSSESSED, REVOKE_SLOTS, SLOTS_REVOKED, TRANSPARENT
from xnfs.cpu.processor import Processor
from xnfs.errors import Refused

if TYPE_CHECKING:
    from xnfs.machine import Machine


class Claim:
    """Positions that an account was asked for and has not given up yet."""

    __slots__ = ("creditor", "slots")

    def __init__(self, slots: int, creditor: int) -> None:
        self.slots = slots
        self.creditor = creditor


class Reclaim:
    """The part of the kernel that asks for positions, and takes them."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._claims: dict[int, Claim] = {}  # by debtor
        self.asked = 0
        self.forced = 0

    @operation(REVOKE_SLOTS, "check")
    def revoke_slots(
        self,
        cpu: Processor,
        env: Environment,
        account: int,
        slots: int,
        patience: int,
        to: int,
        token: bytes,
    ) -> int:
        """Ask an account for positions, in favour of `to`, whose quota grows by them and who is
        woken when it has got all. Returns how many it got at once. `patience`: cycles until the
        rest is taken by force.

        Raises NoSuchEnvironment, CapabilityError (ADMIN), Refused: more than it has, or it was
        asked before and has not answered, or it would pay itself.
        """
        debtor = self._machine.checked(account, token, ADMIN)
        creditor = self._machine.environment(to)
        if debtor is creditor or not 0 < patience <= MAX_CYCLES:
            raise Refused("an account is asked by another, and given time")
        if account in self._claims:
            raise Refused("the account has not answered the last time it was asked")
        most = debtor.slots + debtor.positions.bit_count()
        if not 0 < slots <= most:
            raise Refused(f"{slots} positions of {most}")
        claim = self._claims[account] = Claim(slots, to)
        self.asked += slots
        self.paid(debtor)
        if claim.slots:
            style = self._machine.revocation.style(debtor)
            deadline = cpu.now + patience
            if style == COOPERATIVE and self._machine.exceptions.post(
                debtor, SLOTS_REVOKED, claim.slots, deadline
            ):
                self._machine.at(deadline, self._expired, (debtor, claim))
            else:
                self._take(debtor, claim, tell=style != TRANSPARENT)
        return slots - claim.slots

    def _expired(self, time: int, what: tuple[Environment, Claim]) -> None:
        debtor, claim = what
        if self._claims.get(debtor.id) is claim:
            self._take(debtor, claim, tell=True)

    def _take(self, debtor: Environment, claim: Claim, tell: bool) -> None:
        """By force. Each position that is freed pays, so the claim shrinks."""
        slices = self._machine.slices
        while claim.slots and debtor.positions:
            self.forced += 1
            slices.take(*slices.place_of(debtor.positions.bit_length() - 1))
        if tell:
            self._machine.exceptions.post(debtor, REPOSSESSED)

    def paid(self, owner: Environment) -> None:
        """The quota of an account has grown: what it was asked for goes out of it."""
        claim = self._claims.get(owner.id)
        if claim is None:
            return
        creditor = self._machine.living(claim.creditor)
        if creditor is None:
            del self._claims[owner.id]
            return
        pays = min(claim.slots, owner.slots)
        owner.slots -= pays
        creditor.slots += pays
        claim.slots -= pays
        if not claim.slots:
            del self._claims[owner.id]
            self._machine.slices.wake_by_id(claim.creditor)

    def drop(self, env: Environment) -> None:
        """An environment ends; what it has not given up goes to its account."""
        claim = self._claims.pop(env.id, None)
        if claim is not None:
            self._machine.slices.wake_by_id(claim.creditor)
