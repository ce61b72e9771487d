"""Positions: who owns which time slices, and who could run (Engler et al. 1995, section 5.1.1).

Each processor has a vector of positions. An environment owns positions, and gets a slice of
`Costs.quantum` cycles whenever one of them is reached and it is ready. Which positions to ask for,
and to whom to yield, is the environment's policy; the kernel goes round (`turns`).

`ready` has a bit for each position whose owner could run. Of those, `asked` are the ones where that
must be found out when the position is reached: the owner waits for a predicate, or for the end of a
call. Nobody looks at predicates while a processor idles, so it is made to look again after each
event, and every quantum while anything can change without one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from xnfs.capability import ALLOC, WRITE
from xnfs.cpu.dispatch import operation
from xnfs.cpu.environment import AWAKE, Environment
from xnfs.cpu.numbers import ANY, ASLEEP, CALLING, READY, SLOT_ALLOC, SLOT_FREE, WAITING
from xnfs.cpu.processor import Processor
from xnfs.errors import NoSpace, NotFree, Refused

if TYPE_CHECKING:
    from xnfs.machine import Machine


class Slices:
    """The part of the kernel that owns positions, and the states of their owners."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self.processors = machine.processors
        self._slots = len(self.processors[0].vector)
        self._all = (1 << self._slots) - 1  # all positions of a processor
        #: positions whose owner could run, as in `Environment.positions`
        self.ready = 0
        self.asked = 0  # of these, positions whose owner must be asked first
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

    # --- states -----------------------------------------------------------------------------

    def block(self, env: Environment, time: int) -> None:
        """Put an environment to sleep, until a time if it is not 0. Upcalls that wait go first."""
        if env.upcalls is not None:
            env.doze = time
            return
        env.state = ASLEEP
        env.alarm = time
        self.ready &= ~env.positions
        self.asked &= ~env.positions
        self._machine.show(env)
        if time:
            self._machine.at(time, self._ring, env)

    def suspend(self, env: Environment, state: int, time: int = 0) -> None:
        """It runs again when its predicate holds (WAITING), or when its call has ended (CALLING);
        a wait also ends at the time, if it is not 0.
        """
        env.state = state
        env.alarm = time
        self.ready |= env.positions
        self.asked |= env.positions
        self._machine.show(env)
        if time:
            self._machine.at(time, self._ring, env)

    def resume(self, env: Environment, time: int) -> None:
        """It is ready, whatever it was."""
        if env.wait is not None:
            self._machine.predicates.ended(env)
        env.state = READY
        env.alarm = 0
        self.ready |= env.positions
        self.asked &= ~env.positions
        self._machine.show(env)
        self.kick(env, time)

    def _alarm(self, time: int, env: Environment) -> None:
        if env.alarm == time:
            self.rise(env, time)

    def rise(self, env: Environment, time: int) -> None:
        """End a sleep or a wait; no effect on others."""
        if env.state in (ASLEEP, WAITING):
            if env.soon:
                for cpu in self.processors:
                    if self.has_position(cpu, env):
                        cpu.early[env.id] = env
            self.resume(env, time)

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
        """Idle processors with a position of this environment, or of one whose call it carries out,
        go on at that time.
        """
        positions, caller = env.positions, env.caller
        while caller is not None:
            positions |= caller.positions
            caller = caller.caller
        for cpu in self.processors:
            if cpu.idle and positions >> cpu.id * self._slots & self._all:
                self._go_on(cpu, time)

    def stir(self, time: int) -> None:
        """Something has happened: idle processors ask again."""
        for cpu in self.processors:
            if cpu.idle and self.asked >> cpu.id * self._slots & self._all:
                self._go_on(cpu, time)

    def idled(self, cpu: Processor) -> None:
        """A processor has found nobody. If a predicate may come to hold without any event, it looks
        again in a while.
        """
        if cpu.looks or not self.asked >> cpu.id * self._slots & self._all:
            return
        if self._machine.predicates.timed or not all(each.idle for each in self.processors):
            cpu.looks = True
            self._machine.at(cpu.now + self._machine.costs.quantum, self._look, cpu)

    def _look(self, time: int, cpu: Processor) -> None:
        cpu.looks = False  # `stir` comes after each event

    def _go_on(self, cpu: Processor, time: int) -> None:
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
        if owner.state in (READY, WAITING, CALLING):
            self.ready |= bit
            if owner.state != READY:
                self.asked |= bit
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
        self.asked &= ~bit
        self._machine.show_slot(cpu, position, 0)
        self._machine.reclaim.paid(owner)

    def has_position(self, cpu: Processor, env: Environment) -> bool:
        """True if a position of the processor is the environment's."""
        return env.positions >> cpu.id * self._slots & self._all != 0

    def candidates(self, cpu: Processor) -> int:
        """Positions of the processor whose owner could run and does not already."""
        ready = self.ready
        if len(self.processors) > 1:
            for other in self.processors:
                if other.env is not None and other is not cpu:
                    ready &= ~other.env.positions  # it can't run twice at once
            ready = ready >> cpu.id * self._slots & self._all
        return ready

    def drop(self, env: Environment) -> None:
        """All positions of an environment that ends."""
        while env.positions:
            self.take(*self.place_of(env.positions.bit_length() - 1))

    def place_of(self, bit: int) -> tuple[Processor, int]:
        """Where a bit of `Environment.positions` lies."""
        return self.processors[bit // self._slots], bit % self._slots
