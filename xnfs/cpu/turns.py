"""Turns: who gets the processor, for how long, and what overtime costs.

The vector of positions is visited in order (`slices`). What comes on top, after Engler et al. 1995,
section 5.1.1:

- *Directed yield*: the rest of a slice goes to an environment of the owner's choice.
- *Prologue and epilogue*: upcalls at the begin and the end of a slice. Without an epilogue an
  environment is interrupted where it is. With one it is told that its slice is over, and gives the
  processor up itself, after saving what it likes or ending a critical section that it is in.
- *Excess time*: what an environment uses beyond its slice is remembered to the cycle, and taken off
  its later slices, whole ones first. At `Costs.excess` cycles the environment is ended: it does not
  give the processor up.
- *The next free slot*: who asked for it (`SOON`) gets, after a sleep, its turn at the next position
  that nobody uses, before its own. It pays for that turn as for overtime, so it comes sooner and
  gets no more. A position whose owner can run is delayed by one slice at most for each free one
  before it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from xnfs.capability import WRITE
from xnfs.cpu.dispatch import operation
from xnfs.cpu.environment import Environment
from xnfs.cpu.numbers import (
    CALLING,
    EPILOGUE,
    PROLOGUE,
    READY,
    SLEEP,
    SOON,
    WAITING,
    WAKE,
    YIELD,
)
from xnfs.cpu.processor import Processor
from xnfs.cpu.trace import RUN
from xnfs.errors import Refused

if TYPE_CHECKING:
    from xnfs.machine import Machine


class Turns:
    """The part of the kernel that passes processors on."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._slices = machine.slices
        self.forfeited = 0  # slices that paid for excess time
        self.early = 0  # slices at a free position, by SOON

    # --- operations -------------------------------------------------------------------------

    @operation(YIELD)
    def yield_(self, cpu: Processor, env: Environment, to: int) -> None:
        """Give the rest of the slice away: to one environment, or (0) to the next position. It is
        as if a position of the other's had been reached: what it waits for is looked at, and if it
        has called somebody, that one runs.

        Raises NoSuchEnvironment; Refused: it sleeps or waits, or runs elsewhere.
        """
        if to:
            other = self._machine.environment(to)
            if other is not env:
                runner = self._runner(cpu, other)
                if runner is None or runner is env:
                    raise Refused(f"environment {to} can't run now")
                self.hand_over(cpu, runner)
        else:
            self.leave(cpu)
        cpu.until = 0

    @operation(SLEEP)
    def sleep(self, cpu: Processor, env: Environment, time: int) -> None:
        """Take no slices before that time; 0: until woken. A time that has passed is a yield."""
        if time < 0:
            raise Refused(f"a sleep until {time}")
        if not time or time > cpu.now:
            self._slices.block(env, time)
        cpu.until = 0
        self.leave(cpu)

    @operation(WAKE, "check")
    def wake(self, cpu: Processor, env: Environment, id: int, token: bytes) -> None:
        """End another's sleep. Raises NoSuchEnvironment, CapabilityError (WRITE on it)."""
        self._slices.wake(self._machine.checked(id, token, WRITE), cpu.now)

    @operation(SOON)
    def soon(self, cpu: Processor, env: Environment, on: int) -> None:
        """After its sleeps the caller wants the next free slot (1), or its own position (0)."""
        if on not in (0, 1):
            raise Refused("SOON is on or off")
        env.soon = on == 1

    # --- the next turn ----------------------------------------------------------------------

    def begin(self, cpu: Processor) -> bool:
        """Give the processor to the next that can run; False: it idles."""
        quantum = self._machine.costs.quantum
        ready = self._slices.candidates(cpu)
        owing = False
        while ready:
            position = cpu.next_position(ready)
            if cpu.early and self._begin_early(cpu, position):
                return True
            owner = cpu.vector[position]
            assert owner is not None
            env: Environment | None = owner
            if owner.state != READY:
                env = self._runner(cpu, owner)
            if env is not None and env.excess < quantum:
                cpu.position = position
                cpu.slice_end = cpu.nominal = cpu.now + quantum - env.excess
                env.excess = 0
                self._start(cpu, env)
                return True
            ready &= ~(1 << position)
            if env is not None:  # this slice pays for an earlier one
                env.excess -= quantum
                self.forfeited += 1
                owing = True
            if not ready and owing:  # nobody else wants it, so paying takes no time
                ready = self._slices.candidates(cpu)
                owing = False
        cpu.idle = True
        self._slices.idled(cpu)
        return False

    def _begin_early(self, cpu: Processor, position: int) -> bool:
        """Before `position` is served: is there a free one for somebody who is in a hurry?"""
        costs = self._machine.costs
        free = (cpu.position + 1) % len(cpu.vector)
        if free == position:
            return False
        while cpu.early:
            id, env = next(iter(cpu.early.items()))
            del cpu.early[id]
            if (
                env.state == READY
                and env.cpu is None
                and env is not cpu.vector[position]
                and env.excess + costs.quantum < costs.excess
                and self._slices.has_position(cpu, env)
            ):
                cpu.position = free
                cpu.nominal = cpu.now  # nothing of this slice is its own
                cpu.slice_end = cpu.now + costs.quantum
                self.early += 1
                self._start(cpu, env)
                return True
        return False

    def _runner(self, cpu: Processor, owner: Environment) -> Environment | None:
        """Who runs at a position whose owner does not: whoever it has called, or itself if what it
        waits for has come about.
        """
        env = owner
        while env.state == CALLING:
            assert env.callee is not None
            env = env.callee
        if env.state == WAITING and self._machine.predicates.holds(cpu, env):
            self._slices.wake(env, cpu.now)
            env.value = True
        return env if env.state == READY and env.cpu is None else None

    # --- from one to the other --------------------------------------------------------------

    def _start(self, cpu: Processor, env: Environment) -> None:
        if cpu.last != env.id:  # a run of slices is one switch
            cpu.last = env.id
            cpu.now += self._machine.costs.switch
            cpu.switches += 1
            cpu.tlb.enter(env.id)
        cpu.started = cpu.now
        cpu.env = env
        env.cpu = cpu
        if env.handlers is not None and PROLOGUE in env.handlers:
            self._machine.exceptions.post(env, PROLOGUE, cpu.slice_end)

    def hand_over(self, cpu: Processor, other: Environment) -> None:
        """The rest of the slice is another's. What is overtime already can't be given away."""
        overtime = cpu.overtime
        self.leave(cpu)
        if not overtime:
            cpu.nominal = max(cpu.nominal, cpu.now)
            self._start(cpu, other)

    def expire(self, cpu: Processor) -> None:
        """The slice is over: tell the environment, or interrupt it, or end it."""
        env = cpu.env
        assert env is not None
        machine = self._machine
        if cpu.overtime:
            machine.end(env, "kept the processor")
            return
        if env.handlers is not None and EPILOGUE in env.handlers:
            grace = machine.costs.excess - env.excess - (cpu.now - cpu.nominal)
            if grace > 0 and machine.exceptions.post(env, EPILOGUE, cpu.now + grace):
                cpu.overtime = True
                cpu.slice_end = cpu.now + grace
                return
        self.leave(cpu)

    def leave(self, cpu: Processor) -> None:
        """Take the processor from whoever has it."""
        env = cpu.env
        if env is None:
            return
        env.cycles += cpu.now - cpu.started
        if cpu.now > cpu.nominal:
            env.excess += cpu.now - cpu.nominal
        if self._machine.trace.on:
            self._machine.trace.add(cpu.now, cpu.id, env.id, RUN, cpu.started)
        self._machine.show_cycles(env)
        cpu.env = None
        cpu.overtime = False
        env.cpu = None
        if env.state == READY and len(self._slices.processors) > 1:
            self._slices.kick(env, cpu.now)
