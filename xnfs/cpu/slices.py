"""Time slices: whose turn it is (Engler et al. 1995, section 5.1.1).

Each processor has a vector of positions. An environment owns positions, and gets a slice of
`Costs.quantum` cycles whenever one of them is reached and it is ready. Which positions to ask for,
and to whom to yield, is the environment's policy; the kernel goes round.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from xnfs.capability import ALLOC, WRITE
from xnfs.cpu.dispatch import operation
from xnfs.cpu.environment import AWAKE, Environment
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
        self._slots = len(self.processors[0].vector)
        self._all = (1 << self._slots) - 1  # all positions of a processor
        #: positions whose owner could run, as in `Environment.positions`
        self.ready = 0
        self._ring = self._alarm  # bound once, not for each sleep

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
        """Put an environment to sleep, until a time if it is not 0. Upcalls that wait go first."""
        if env.upcalls is not None:
            env.doze = time
            return
        env.state = ASLEEP
        env.alarm = time
        self.ready &= ~env.positions
        self._machine.show(env)
        if time:
            self._machine.at(time, self._ring, env)

    def _alarm(self, time: int, env: Environment) -> None:
        if env.alarm == time:
            self.rise(env, time)

    def rise(self, env: Environment, time: int) -> None:
        """Make a sleeper ready; no effect on others."""
        if env.state == ASLEEP:
            env.state = READY
            env.alarm = 0
            self.ready |= env.positions
            self._machine.show(env)
            self.kick(env, time)

    def wake(self, env: Environment, time: int) -> None:
        """End every sleep: its own, and those that upcalls have interrupted."""
        env.doze = AWAKE
        for was in env.stack or ():
            was.doze = AWAKE
        self.rise(env, time)

    def wake_by_id(self, id: int) -> None:
        """End the sleep of an environment, if it lives."""
        env = self._machine.living(id)
        if env is not None:
            self.wake(env, self._machine.time)

    def kick(self, env: Environment, time: int) -> None:
        """Idle processors with a position of this environment go on at that time."""
        for cpu in self.processors:
            if cpu.idle and env.positions >> cpu.id * self._slots & self._all:
                cpu.idle = False
                cpu.idle_cycles += max(0, time - cpu.now)
                cpu.now = max(cpu.now, time)

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
        bit = 1 << cpu.id * self._slots + position
        cpu.vector[position] = owner
        owner.positions |= bit
        self._machine.show_slot(cpu, position, owner.id)
        if owner.state == READY:
            self.ready |= bit
            self.kick(owner, self._machine.time)

    def take(self, cpu: Processor, position: int) -> None:
        """Make a position free; its owner may take another."""
        owner = cpu.vector[position]
        assert owner is not None
        bit = 1 << cpu.id * self._slots + position
        cpu.vector[position] = None
        owner.positions &= ~bit
        owner.slots += 1
        self.ready &= ~bit
        self._machine.show_slot(cpu, position, 0)

    def drop(self, env: Environment) -> None:
        """All positions of an environment that ends."""
        while env.positions:
            last = env.positions.bit_length() - 1
            self.take(self.processors[last // self._slots], last % self._slots)

    # --- turns ------------------------------------------------------------------------------

    def begin(self, cpu: Processor) -> bool:
        """Give the processor to the owner of the next position that can run; False: it idles."""
        ready = self.ready
        if len(self.processors) > 1:
            for other in self.processors:
                if other.env is not None and other is not cpu:
                    ready &= ~other.env.positions  # it can't run twice at once
            ready = ready >> cpu.id * self._slots & self._all
        position = cpu.next_position(ready)
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
