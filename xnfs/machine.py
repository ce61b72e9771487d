"""The machine: processors, memory and environments put together under one clock.

    machine = Machine(processors=1, frames=256, seed=7)
    machine.boot(program, "its", "arguments")
    machine.run()

Everything that happens is decided by the programs, the seed and the cost model: the same run every
time. Time is counted in cycles. Each processor has its own clock; the processor that is behind goes
next, up to the next event or to the clock of the others, so what happens first is done first. When
no processor has anything to do, the clock jumps to the next event: idle time costs nothing.

With a `Wall` clock the same machine meets the outside: events happen when the host's time reaches
them, and other threads hand in what happens outside with `Wall.post`.

This module puts the parts together and holds no rule of protection of its own beyond `checked`. The
parts, each in its module, declare the operations of programs: `cpu/environments`, `cpu/slices`,
`cpu/exceptions`, `memory/access`, `memory/ownership`, `memory/revocation`.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from xnfs.capability import ALL, Capabilities
from xnfs.cpu.costs import Costs
from xnfs.cpu.dispatch import Loop, table
from xnfs.cpu.environment import Boot, Entry, Environment
from xnfs.cpu.environments import MAX_MADE, Environments, started
from xnfs.cpu.exceptions import Exceptions
from xnfs.cpu.exposed import CLOCK_WORD, ENVIRONMENTS_WORD, FREE_FRAMES_WORD, KERNEL, Tables
from xnfs.cpu.numbers import ANY, ENDED
from xnfs.cpu.predicates import Predicates
from xnfs.cpu.processor import Processor
from xnfs.cpu.reclaim import Reclaim
from xnfs.cpu.slices import Slices
from xnfs.cpu.trace import ENDED as TRACE_ENDED
from xnfs.cpu.trace import SPAWNED, Trace
from xnfs.cpu.transfers import Transfers
from xnfs.cpu.turns import Turns
from xnfs.cpu.wall import Wall
from xnfs.cpu.watch import Watch
from xnfs.errors import NoSpace, NoSuchEnvironment, Refused
from xnfs.memory.access import Access
from xnfs.memory.frames import FramePool
from xnfs.memory.ownership import Memory
from xnfs.memory.revocation import Revocation
from xnfs.memory.translations import Translations

NEVER: Final = 1 << 63
#: Capabilities that the host may have made.
HOST_TOKENS: Final = 1024
Action = Callable[[int, Any], None]


class Ending(NamedTuple):
    """How an environment ended. `why` is empty if it just returned or exited."""

    id: int
    why: str
    status: int
    cycles: int


class Machine:
    """One machine. One thread runs it; others use `Wall.post`."""

    def __init__(
        self,
        processors: int = 1,
        frames: int = 1024,
        slots: int = 64,
        environments: int = 1024,
        seed: int = 0,
        costs: Costs | None = None,
        trace: int = 0,
        wall: Wall | None = None,
        lines: int = 0,
        pool: FramePool | None = None,
    ) -> None:
        """`slots`: positions of each processor's vector. `environments`: as many at once. `trace`:
        records kept. `wall`: run in real time. `lines`: of Python that a program may run without
        yielding (`cpu/watch`; 0 = not watched). `pool`: frames shared with a block registry.
        """
        if min(processors, slots, environments) < 1:
            raise Refused("a machine needs a processor, a position and an environment")
        self.costs = costs or Costs()
        self.frames = pool or FramePool(frames)
        self.capabilities = Capabilities(
            b"xnfs machine %d" % seed, limit=environments * (MAX_MADE + 1) + HOST_TOKENS
        )
        self.processors = [Processor(i, slots, seed) for i in range(processors)]
        written = Tables(environments, self.frames.taken(), processors, slots)
        self._shown, self.bits, self.tables = written.words, written.bits, written.shown
        self.translations = Translations(self.processors, self.frames.count)
        self.trace = Trace(trace)
        self.wall = wall
        if wall is not None:
            wall.begin(self.costs.hz)
        self.now = 0
        self._acting: Processor | None = None  # whose turn it is
        self.events = 0  # carried out
        self._queue: list[tuple[int, int, Action, Any]] = []
        self._events_made = 0
        self._environments: list[Environment | None] = [None] * environments
        # A number is reused as late as possible, and with a new generation.
        self._numbers = deque(range(environments))
        self._generation = [2] * environments  # ids 0 and 1 are nobody and the kernel
        self.ended: deque[Ending] = deque(maxlen=4096)
        self.slices = Slices(self)
        self.turns = Turns(self)
        self.predicates = Predicates(self)
        self.transfers = Transfers(self)
        self.reclaim = Reclaim(self)
        self.exceptions = Exceptions(self)
        self.access = Access(self)
        self.memory = Memory(self)
        self.revocation = Revocation(self)
        self.members = Environments(self)
        parts = (
            self.members,
            self.slices,
            self.turns,
            self.predicates,
            self.transfers,
            self.reclaim,
            self.exceptions,
            self.access,
            self.memory,
            self.revocation,
        )
        self._table = table(parts, self.costs)
        self.loop = Loop(
            self._table,
            self.exceptions.fault,
            self.exceptions.returned,
            self.exceptions.failed,
            Watch(lines) if lines else None,
        )

    # --- for the host -----------------------------------------------------------------------

    def boot(
        self,
        program: Entry,
        *args: Any,
        slots: int = 1,
        quota: tuple[int, int, int] | None = None,
    ) -> int:
        """Start a program with so many positions of its own. `quota`: frames, positions (those
        included) and environments that it may take or give away; as many as there are, unless
        given.

        Raises NoSpace, Refused.
        """
        total = len(self.processors) * self.tables.slots
        env = self.create(program, args, None)
        env.frames, env.slots, env.environments = quota or (
            self.frames.count,
            total,
            self.tables.max_environments,
        )
        try:
            for _ in range(slots):
                self.slices.slot_alloc(self.processors[0], env, env.id, ANY, ANY, env.token)
        except NoSpace:
            self.end(env, "no slices")
            raise
        return env.id

    def run(self, until: int = NEVER) -> bool:
        """Run up to a time (cycles). True: nothing is left to do before anything comes from
        outside.
        """
        processors, queue = self.processors, self._queue
        while True:
            if self.wall is not None:
                self.wall.take(self)
            cpu = None
            for each in processors:
                if not each.idle and (cpu is None or each.now < cpu.now):
                    cpu = each
            event = queue[0][0] if queue else NEVER
            now = event if cpu is None or event <= cpu.now else cpu.now
            if cpu is None and self.wall is not None and self.wall.wait(min(event, until)):
                continue  # something came from outside
            if now >= until:
                if until != NEVER:
                    self.now = max(self.now, until)
                return cpu is None and not queue
            self.now = max(self.now, now)
            if cpu is None or event <= cpu.now:
                self._fire()
            else:
                self._acting = cpu
                self._turn(cpu, min(event, until))
                self._acting = None

    def close(self) -> None:
        """End every environment, so that no program is left to end whenever Python gets to it."""
        for env in self._environments:
            if env is not None:
                self.end(env, "the machine is closed")

    def at(self, time: int, action: Action, what: Any = None) -> None:
        """Have `action(time, what)` done when the clock reaches a time. For parts and devices."""
        self._events_made += 1
        heapq.heappush(self._queue, (time, self._events_made, action, what))

    def counters(self) -> dict[str, int]:
        """Everything that is counted."""
        counts = self.loop.counts
        named = {op.name: counts[i] for i, op in enumerate(self._table) if op and counts[i]}
        calls = sum(counts[i] for i, op in enumerate(self._table) if op and op.crosses)
        access, exceptions = self.access, self.exceptions
        return named | {
            "crossings": calls + exceptions.delivered + access.misses - access.exceptions,
            "calls": calls,
            "refused": self.loop.refused,
            "exceptions": exceptions.delivered,
            "resumed": exceptions.resumed,
            "upcalls": exceptions.upcalls,
            "tlb_misses": access.misses,
            "stlb_hits": access.stlb_hits,
            "refills": access.refills,
            "tlb_exceptions": access.exceptions,
            "frames_asked": self.revocation.asked,
            "frames_forced": self.revocation.forced,
            "tag_flushes": sum(cpu.tlb.flushes for cpu in self.processors),
            "forfeited": self.turns.forfeited,
            "early": self.turns.early,
            "predicate_looks": self.predicates.looks,
            "transfers": self.transfers.calls + self.transfers.sends,
            "idle_cycles": sum(cpu.idle_cycles for cpu in self.processors),
            "switches": sum(cpu.switches for cpu in self.processors),
            "events": self.events,
        }

    def cycles(self, id: int) -> int:
        """Processor time that an environment has had. Raises NoSuchEnvironment: it is forgotten."""
        env = self.living(id)
        if env is not None:
            return env.cycles if env.cpu is None else env.cycles + env.cpu.now - env.cpu.started
        for ending in reversed(self.ended):
            if ending.id == id:
                return ending.cycles
        raise NoSuchEnvironment(f"environment {id} is forgotten")

    def mint(self, *resource: str, rights: int = ALL) -> bytes:
        """A capability of the host's, to hand to a program: ("env",) is over all environments."""
        return self.capabilities.mint(resource, rights, "host")

    # --- for the parts ----------------------------------------------------------------------

    def environment(self, id: int) -> Environment:
        """A living environment. Raises NoSuchEnvironment."""
        env = self.living(id)
        if env is None:
            raise NoSuchEnvironment(f"there is no environment {id}")
        return env

    def living(self, id: int) -> Environment | None:
        """The environment of that number, if it lives."""
        env = self._environments[id % len(self._environments)]
        return env if env is not None and env.id == id else None

    @property
    def time(self) -> int:
        """The time of what is happening just now."""
        return self.now if self._acting is None else self._acting.now

    def checked(self, id: int, token: bytes, rights: int) -> Environment:
        """A living environment over which the token gives these rights.

        Raises NoSuchEnvironment, CapabilityError.
        """
        env = self.environment(id)
        self.capabilities.check(token, env.resource, rights)
        return env

    def create(
        self, entry: Entry, args: tuple[Any, ...], account: Environment | None
    ) -> Environment:
        """A new environment, named below the account. Raises NoSpace, Refused, CapabilityError."""
        if not self._numbers:
            raise NoSpace("the table of environments is full")
        number = self._numbers[0]
        id = self._generation[number] * self.tables.max_environments + number
        above = ("env",) if account is None else account.resource
        name = str(id)
        env = Environment(id, (*above, name), account.id if account else KERNEL)
        env.token = self.capabilities.mint(env.resource, ALL, name)
        try:
            env.generator = started(entry, Boot(id, env.token, self.tables, args))
        except Refused:
            self.capabilities.revoke(env.token)
            raise
        self._numbers.popleft()
        self._generation[number] += 1
        self._environments[number] = env
        self.show(env)
        self._shown[ENVIRONMENTS_WORD] += 1
        if self.trace.on:
            self.trace.add(self.now, 0, id, SPAWNED, env.parent)
        return env

    def end(self, env: Environment, why: str, status: int = 0) -> None:
        """Take everything back from an environment. Its quotas go to its account."""
        if env.state == ENDED:
            return
        if env.cpu is not None:
            env.cpu.until = 0
            self.turns.leave(env.cpu)
        self.transfers.drop(env)
        self.reclaim.drop(env)
        self.predicates.drop(env)
        self.slices.drop(env)
        self.memory.drop(env)
        self.revocation.drop(env)
        env.state = ENDED
        env.alarm = 0
        self.members.drop(env)
        number = env.id % len(self._environments)
        self._environments[number] = None
        parent = self.living(env.parent)
        if parent is not None:
            self.revocation.paid(parent, env.frames)
            parent.slots += env.slots
            parent.environments += env.environments + 1
        self._numbers.append(number)
        self.ended.append(Ending(env.id, why, status, env.cycles))
        self.show(env, status)
        self._shown[ENVIRONMENTS_WORD] -= 1
        if self.trace.on:
            self.trace.add(self.now, 0, env.id, TRACE_ENDED, why)
        for generator in (env.generator, *(was.generator for was in env.stack or ())):
            _close(generator)
        env.stack = None

    # --- exposed words ----------------------------------------------------------------------

    def show(self, env: Environment, status: int = 0) -> None:
        """Expose an environment's state."""
        at = self.tables.environments + 3 * (env.id % self.tables.max_environments)
        self._shown[at] = env.id << 8 | env.state
        self._shown[at + 1] = status & (1 << 64) - 1
        self._shown[at + 2] = env.cycles

    def show_cycles(self, env: Environment) -> None:
        """Expose what an environment has had of processors."""
        at = self.tables.environments + 3 * (env.id % self.tables.max_environments)
        self._shown[at + 2] = env.cycles

    def show_clock(self, time: int) -> None:
        """Expose the time, before somebody looks."""
        self._shown[CLOCK_WORD] = time

    def show_frame(self, frame: int, owner: int) -> None:
        """Expose whose a frame is."""
        self._shown[self.tables.frames + frame] = owner
        self._shown[FREE_FRAMES_WORD] = self.frames.free_frames

    def show_slot(self, cpu: Processor, position: int, owner: int) -> None:
        """Expose whose a position is."""
        self._shown[self.tables.positions + cpu.id * self.tables.slots + position] = owner

    # --- time -------------------------------------------------------------------------------

    def _fire(self) -> None:
        """Carry out the next event."""
        time, _, action, what = heapq.heappop(self._queue)
        self.events += 1
        self._shown[CLOCK_WORD] = self.now
        action(time, what)
        if self.slices.asked:
            self.slices.stir(self.now)

    def _turn(self, cpu: Processor, stop: int) -> None:
        """Run one processor, until `stop` at the latest, or until another is behind it."""
        env = cpu.env
        if env is None:
            if not self.turns.begin(cpu):
                return
            env = cpu.env
            assert env is not None
            self._shown[CLOCK_WORD] = cpu.now
        if cpu.now < cpu.slice_end:
            cpu.stop = min(stop, cpu.slice_end)
            cpu.until = cpu.stop
            for other in self.processors:
                if other is not cpu and not other.idle:
                    cpu.until = min(cpu.until, max(other.now, cpu.now) + 1)
            if env.upcalls is not None:
                self.exceptions.deliver(cpu, env)
            if cpu.env is env:
                self.loop.run(cpu, env)
        if cpu.env is not None and cpu.now >= cpu.slice_end:
            self.turns.expire(cpu)


def _close(generator: Any) -> None:
    """Let a program's `finally` run; what it makes of it is nobody's concern. One that yields there
    is told again, but not for ever.
    """
    for _ in range(16):
        try:
            generator.close()
        except RuntimeError:
            continue
        except BaseException:
            return
        return
