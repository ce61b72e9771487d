"""Time slices: whose turn it is (Engler et al. 1995, section 5.1.1).

Each processor has a vector of positions. An environment owns positions, and gets a slice of
`Costs.quantum` cycles whenever one of them is reached and it is ready. Which positions to ask for,
and to whom to yield, is the environment's policy; the kernel goes round.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from xnfs.capability import ALLOC, WRITE
from xnfs.cpu.dispatch import operation
from xnfs.cpu.environment import Environment
from xnfs.cpu.numbers import ANY, ASLEEP, READY, SLEEP, SLOT_ALLOC, SLOT_FREE, WAKE, YIELD
from xnfs.cpu.processor import Processor
from xnfs.cpu.trace import RUN
from xnfs.errors import NoSpace, NotFree, Refused

if TYPE_CHECKING:
    from xnfs.machine import Machine


class Slices:
    """The part of the kernel that shares processors."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self.processors = machine.processors
        self._alarms = 0

    # --- operations -------------------------------------------------------------------------

    @operation(SLOT_ALLOC, "check")
    def slot_alloc(
        self,
        cpu: Processor,
        env: Environment,
        account: int,
        processor: int,
        position: int,
        token: bytes,
    ) -> tuple[int, int]:
        """Take a free position for an environment; either number may be ANY.

        Raises NoSuchEnvironment, CapabilityError (ALLOC), Refused (quota, no such place), NotFree,
        NoSpace.
        """
        machine = self._machine
        owner = machine.checked(account, token, ALLOC)
        if owner.slots < 1:
            raise NoSpace("the quota of slices is used up")
        cpu_, at = self._find(processor, position)
        owner.slots -= 1
        self.give(cpu_, at, owner)
        return cpu_.id, at

    @operation(SLOT_FREE, "check")
    def slot_free(
        self, cpu: Processor, env: Environment, processor: int, position: int, token: bytes
    ) -> None:
        """Give a position back. Raises Refused, CapabilityError (WRITE on its owner)."""
        place = self._place(processor, position)
        owner = place.vector[position]
        if owner is None:
            raise Refused("nobody has that position")
        self._machine.checked(owner.id, token, WRITE)
        self.take(place, position)

    @operation(YIELD)
    def yield_(self, cpu: Processor, env: Environment, to: int) -> None:
        """Give the rest of the slice away: to one environment, or (0) to the next position.

        Raises NoSuchEnvironment; Refused: it sleeps, or runs elsewhere.
        """
        if to:
            other = self._machine.environment(to)
            if other.state != READY or (other.cpu is not None and other is not env):
                raise Refused(f"environment {to} can't run now")
            if other is not env:
                self.leave(cpu)
                self._start(cpu, other)
        else:
            self.leave(cpu)
        cpu.until = 0

    @operation(SLEEP)
    def sleep(self, cpu: Processor, env: Environment, time: int) -> None:
        """Take no slices before that time; 0: until woken. A time that has passed is a yield."""
        if time < 0:
            raise Refused(f"a sleep until {time}")
        if not time or time > cpu.now:
            self.block(env, time)
        cpu.until = 0
        self.leave(cpu)

    @operation(WAKE, "check")
    def wake_(self, cpu: Processor, env: Environment, id: int, token: bytes) -> None:
        """End another's sleep. Raises NoSuchEnvironment, CapabilityError (WRITE on it)."""
        self.wake(self._machine.checked(id, token, WRITE), cpu.now)

    # --- states -----------------------------------------------------------------------------

    def block(self, env: Environment, time: int) -> None:
        """Put an environment to sleep, until a time if it is not 0."""
        env.state = ASLEEP
        self._machine.show(env)
        self._mask(env, ready=False)
        self._alarms += 1
        env.alarm = self._alarms
        if time:
            self._machine.at(time, self._alarm, (env, self._alarms))

    def _alarm(self, time: int, what: tuple[Environment, int]) -> None:
        env, alarm = what
        if env.alarm == alarm:
            self.wake(env, time)

    def wake(self, env: Environment, time: int) -> None:
        """Make a sleeper ready; no effect on others."""
        if env.state != ASLEEP:
            return
        env.state = READY
        env.alarm = 0
        self._machine.show(env)
        self._mask(env, ready=True)
        self.kick(env, time)

    def kick(self, env: Environment, time: int) -> None:
        """Idle processors with a position of this environment go on at that time."""
        if env.masks is not None:
            for cpu in self.processors:
                if cpu.idle and env.masks[cpu.id]:
                    cpu.idle = False
                    cpu.idle_cycles += max(0, time - cpu.now)
                    cpu.now = max(cpu.now, time)

    def _mask(self, env: Environment, ready: bool) -> None:
        if env.masks is not None:
            for cpu, mask in zip(self.processors, env.masks, strict=True):
                cpu.ready = cpu.ready | mask if ready else cpu.ready & ~mask

    # --- positions --------------------------------------------------------------------------

    def _place(self, processor: int, position: int) -> Processor:
        if not 0 <= processor < len(self.processors):
            raise Refused(f"there is no processor {processor}")
        cpu = self.processors[processor]
        if not 0 <= position < len(cpu.vector):
            raise Refused(f"there is no position {position}")
        return cpu

    def _find(self, processor: int, position: int) -> tuple[Processor, int]:
        """A free position as asked for. Raises Refused, NotFree, NoSpace."""
        if processor != ANY and position != ANY:
            cpu = self._place(processor, position)
            if cpu.vector[position] is not None:
                raise NotFree(f"position {position} of processor {processor} is taken")
            return cpu, position
        choice = self.processors if processor == ANY else [self._place(processor, 0)]
        if position != ANY:
            self._place(choice[0].id, position)
        for cpu in choice:
            if position == ANY and None in cpu.vector:
                return cpu, cpu.vector.index(None)
            if position != ANY and cpu.vector[position] is None:
                return cpu, position
        raise NoSpace("every position is taken")

    def give(self, cpu: Processor, position: int, owner: Environment) -> None:
        """Make a free position an environment's."""
        if owner.masks is None:
            owner.masks = [0] * len(self.processors)
        cpu.vector[position] = owner
        owner.masks[cpu.id] |= 1 << position
        self._machine.show_slot(cpu, position, owner.id)
        if owner.state == READY:
            cpu.ready |= 1 << position
            self.kick(owner, self._machine.now)

    def take(self, cpu: Processor, position: int) -> None:
        """Make a position free; its owner may take another."""
        owner = cpu.vector[position]
        assert owner is not None
        assert owner.masks is not None
        cpu.vector[position] = None
        owner.masks[cpu.id] &= ~(1 << position)
        owner.slots += 1
        cpu.ready &= ~(1 << position)
        self._machine.show_slot(cpu, position, 0)

    def drop(self, env: Environment) -> None:
        """All positions of an environment that ends."""
        if env.masks is not None:
            for cpu in self.processors:
                for position in range(len(cpu.vector)):
                    if env.masks[cpu.id] >> position & 1:
                        self.take(cpu, position)

    # --- turns ------------------------------------------------------------------------------

    def begin(self, cpu: Processor) -> bool:
        """Give the processor to the owner of the next position that can run; False: it idles."""
        blocked = 0
        for other in self.processors:
            if other.env is not None and other is not cpu and other.env.masks is not None:
                blocked |= other.env.masks[cpu.id]
        position = cpu.next_position(blocked)
        if position < 0:
            cpu.idle = True
            return False
        env = cpu.vector[position]
        assert env is not None
        cpu.position = position
        cpu.slice_end = cpu.now + self._machine.costs.quantum
        self._start(cpu, env)
        return True

    def _start(self, cpu: Processor, env: Environment) -> None:
        cpu.now += self._machine.costs.switch
        cpu.started = cpu.now
        cpu.switches += 1
        cpu.tlb.enter(env.id)
        cpu.env = env
        env.cpu = cpu

    def leave(self, cpu: Processor) -> None:
        """Take the processor from whoever has it."""
        env = cpu.env
        if env is None:
            return
        env.cycles += cpu.now - cpu.started
        if self._machine.trace.on:
            self._machine.trace.add(cpu.now, cpu.id, env.id, RUN, cpu.started)
        cpu.env = None
        env.cpu = None
        if env.state == READY and len(self.processors) > 1:
            self.kick(env, cpu.now)
