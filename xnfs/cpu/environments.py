"""Environments come and go, pass quotas on, and hand capabilities to each other.

Names are hierarchical: an environment spawned on the account of another is named below it, so
whoever has the account's capability has rights over all that is the child's. What an environment
may take (frames, positions, further environments) is a quota that was given to it out of another's,
so all quotas together never grow, and no number of children gets more than their parent had.
"""

from __future__ import annotations

from types import GeneratorType
from typing import TYPE_CHECKING, Any, Final

from xnfs.capability import ADMIN, ALLOC, READ
from xnfs.cpu.dispatch import operation
from xnfs.cpu.environment import Environment
from xnfs.cpu.numbers import (
    ACCEPT,
    CLOCK,
    END,
    EXIT,
    GIVE_QUOTA,
    GRANT,
    NARROW,
    NULL,
    QUOTA,
    REGISTERS,
    REVOKE,
    SET_REGISTERS,
    SPAWN,
)
from xnfs.cpu.processor import Processor
from xnfs.errors import NoSpace, Refused

if TYPE_CHECKING:
    from xnfs.machine import Machine

#: Live capabilities that one environment has made, by narrowing and granting.
MAX_MADE: Final = 64
#: Capabilities from one environment that another has not yet accepted: nobody can fill the whole
#: inbox, so nobody can keep others from giving.
MAX_INBOX: Final = 8
#: Names that a capability may be narrowed by at once.
MAX_NAMES: Final = 32
_WORD: Final = 1 << 64


class Environments:
    """The part of the kernel that knows who there is."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._capabilities = machine.capabilities
        self._made: dict[int, dict[bytes, None]] = {}  # maker -> its tokens, in order
        self._maker: dict[bytes, int] = {}

    # --- instructions -----------------------------------------------------------------------

    @operation(CLOCK, "instruction", instruction=True)
    def clock(self, cpu: Processor, env: Environment) -> int:
        """Cycles since the machine was started."""
        return cpu.now

    @operation(SET_REGISTERS, "instruction", instruction=True)
    def set_registers(self, cpu: Processor, env: Environment, r0: int, r1: int, r2: int) -> None:
        """Load the three scratch registers. Raises Refused: not 64 bits."""
        if not (0 <= r0 < _WORD and 0 <= r1 < _WORD and 0 <= r2 < _WORD):
            raise Refused("a register has 64 bits")
        env.registers = (r0, r1, r2)

    @operation(REGISTERS, "instruction", instruction=True)
    def registers(self, cpu: Processor, env: Environment) -> tuple[int, int, int]:
        """The three scratch registers."""
        return env.registers

    # --- life -------------------------------------------------------------------------------

    @operation(SPAWN, "spawn", "check")
    def spawn(
        self,
        cpu: Processor,
        env: Environment,
        entry: Any,
        args: tuple,  # type: ignore[type-arg]  # handed on unseen
        account: int,
        token: bytes,
    ) -> int:
        """Make an environment that will run `entry(Boot)`, named below the account. It has no
        slices and no quota yet.

        Raises NoSuchEnvironment, CapabilityError (ALLOC), NoSpace (quota), Refused (nothing to
        run).
        """
        machine = self._machine
        owner = machine.checked(account, token, ALLOC)
        if not callable(entry):
            raise Refused("there is nothing to run")
        if owner.environments < 1:
            raise NoSpace("the quota of environments is used up")
        child = machine.create(entry, args, owner)
        owner.environments -= 1
        return child.id

    @operation(NULL)
    def null(self, cpu: Processor, env: Environment) -> None:
        """Nothing: what a crossing costs."""

    @operation(EXIT)
    def exit(self, cpu: Processor, env: Environment, status: int) -> None:
        """End the caller."""
        self._machine.end(env, "", status)

    @operation(END, "check")
    def end(self, cpu: Processor, env: Environment, id: int, token: bytes) -> None:
        """End an environment. Raises NoSuchEnvironment, CapabilityError (ADMIN)."""
        self._machine.end(self._machine.checked(id, token, ADMIN), "ended by another", 0)

    @operation(GIVE_QUOTA, "check")
    def give_quota(
        self,
        cpu: Processor,
        env: Environment,
        giver: int,
        taker: int,
        frames: int,
        slots: int,
        environments: int,
        token: bytes,
    ) -> None:
        """Pass unused quota from one account to another.

        Raises NoSuchEnvironment, CapabilityError (ALLOC on the giver), Refused: more than it has.
        """
        source = self._machine.checked(giver, token, ALLOC)
        target = self._machine.environment(taker)
        if not (
            0 <= frames <= source.frames
            and 0 <= slots <= source.slots
            and 0 <= environments <= source.environments
        ):
            raise Refused("the giver has no such quota")
        source.frames -= frames
        source.slots -= slots
        source.environments -= environments
        self._machine.revocation.paid(target, frames)
        target.slots += slots
        target.environments += environments

    @operation(QUOTA, "check")
    def quota(
        self, cpu: Processor, env: Environment, account: int, token: bytes
    ) -> tuple[int, int, int]:
        """The unused quota of an account: frames, positions, environments.

        Raises NoSuchEnvironment, CapabilityError (READ).
        """
        of = self._machine.checked(account, token, READ)
        return of.frames, of.slots, of.environments

    # --- capabilities -----------------------------------------------------------------------

    @operation(NARROW, "check")
    def narrow(
        self,
        cpu: Processor,
        env: Environment,
        token: bytes,
        below: tuple,  # type: ignore[type-arg]  # names, checked here
        rights: int,
    ) -> bytes:
        """A capability for a resource below the token's own, or for fewer rights; for the caller.

        Raises CapabilityError, NoSpace, Refused: not a tuple of strings.
        """
        if len(below) > MAX_NAMES or not all(type(name) is str for name in below):
            raise Refused("a resource is a tuple of names, not too many")
        self._room(env)
        resource = self._capabilities.resource_of(token) + below
        return self._remember(env, self._capabilities.narrow(token, resource, rights))

    @operation(GRANT, "check")
    def grant(self, cpu: Processor, env: Environment, token: bytes, to: int) -> bytes:
        """The same capability for another, who finds it with ACCEPT.

        Raises NoSuchEnvironment, CapabilityError (GRANT), NoSpace.
        """
        other = self._machine.environment(to)
        self._room(env)
        waiting = [token for token in other.inbox or () if self._capabilities.alive(token)]
        if sum(self._maker.get(token) == env.id for token in waiting) >= MAX_INBOX:
            raise NoSpace("the other has not accepted what it was given")
        made = self._remember(env, self._capabilities.grant(token, str(to)))
        other.inbox = [*waiting, made]
        return made

    @operation(ACCEPT)
    def accept(self, cpu: Processor, env: Environment) -> tuple[bytes, ...]:
        """Capabilities granted since the last call that are still alive."""
        given, env.inbox = env.inbox or (), None
        return tuple(token for token in given if self._capabilities.alive(token))

    @operation(REVOKE, "check")
    def revoke(self, cpu: Processor, env: Environment, token: bytes) -> None:
        """End a capability and all that derive from it, and break every binding made with them.

        Raises CapabilityError: forged or revoked; Refused: it is an environment's own.
        """
        if self._capabilities.minted(token):
            raise Refused("an environment's own capability goes with it")
        self.forget(token)

    def forget(self, token: bytes) -> None:
        """Revoke, whoever made it."""
        doomed = self._capabilities.revoke(token)
        for each in doomed:
            maker = self._maker.pop(each, None)
            if maker is not None:
                del self._made[maker][each]
        self._machine.memory.bindings.break_tokens(doomed)

    def drop(self, env: Environment) -> None:
        """What an environment has made ends with it, and so does its own."""
        made = self._made.get(env.id, {})
        while made:
            self.forget(next(iter(made)))
        self._made.pop(env.id, None)
        self.forget(env.token)

    def _room(self, env: Environment) -> None:
        if len(self._made.get(env.id, ())) >= MAX_MADE:
            raise NoSpace(f"{MAX_MADE} capabilities made and not revoked")

    def _remember(self, env: Environment, token: bytes) -> bytes:
        self._made.setdefault(env.id, {})[token] = None
        self._maker[token] = env.id
        return token


def started(entry: Any, boot: Any) -> Any:
    """The generator of a program. Raises Refused: it is none."""
    try:
        generator = entry(boot)
    except BaseException as failure:
        raise Refused(f"the program does not start: {type(failure).__name__}") from None
    if type(generator) is not GeneratorType:
        raise Refused("a program is a generator function")
    return generator
