"""Wakeup predicates: what a sleeping environment waits for, as downloaded code.

After Kaashoek et al. 1997, section 5.1: an environment that waits for something downloads a test of
memory, and the kernel runs it when the environment's turn comes, before it is given the slice. So
nothing has to know who waits for what: page-in done, packet arrived, time reached, child ended are
words that change, and any combination of them is one predicate:

    def ready(kernel, a, b, c, d, args):
        return u64(a, 0) != u64(a, 8) or u64(kernel, 0) >= args[0]

`kernel` are the exposed words (`xnfs/cpu/exposed.py`), `a` to `d` up to four frames that the
environment holds, zeros if fewer; `args` up to eight integers given with each wait. The verifier
bounds the steps, and the time they take is the waiting environment's.

The frames are a secure binding: checked when the predicate is downloaded, gone when the environment
loses one of them, and then a wait for it ends with an error.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from xnfs.capability import READ
from xnfs.cpu.dispatch import operation
from xnfs.cpu.environment import Environment
from xnfs.cpu.exposed import CLOCK_WORD
from xnfs.cpu.numbers import PREDICATE, PREDICATE_FREE, WAIT, WAITING
from xnfs.cpu.processor import Processor
from xnfs.errors import NoSpace, Refused
from xnfs.memory.frames import FRAME
from xnfs.sandbox import Buffer, Ints, Param, Program, Signature, VerifyError, verify

if TYPE_CHECKING:
    from xnfs.machine import Machine

#: Steps of one predicate, in the worst case; frames, integers, predicates of one environment.
MAX_STEPS: Final = 2048
MAX_FRAMES: Final = 4
MAX_ARGS: Final = 8
MAX_PREDICATES: Final = 8
#: Verified programs remembered: most environments use the same few.
_MAX_KNOWN: Final = 256
_WORD: Final = 1 << 64
_ZEROS: Final = memoryview(bytes(FRAME))


class Predicate:
    """One that an environment has downloaded."""

    __slots__ = ("cost", "frames", "program", "timed", "views")

    def __init__(
        self, program: Program, frames: tuple[int, ...], views: list[memoryview], cost: int
    ) -> None:
        self.program = program
        self.frames = frames
        self.views = views
        self.cost = cost  # cycles of each look
        at = 8 * CLOCK_WORD
        self.timed = any(b == "kernel" and lo <= at < hi for b, lo, hi in program.reads)


class Wait:
    """What an environment waits for."""

    __slots__ = ("args", "predicate")

    def __init__(self, predicate: Predicate, args: tuple[int, ...]) -> None:
        self.predicate = predicate
        self.args = args


def signature(words: int) -> Signature:
    """The shape of a predicate, for a machine with so many exposed words."""
    frames = [Buffer(name, FRAME) for name in ("a", "b", "c", "d")]
    params: list[Param] = [Buffer("kernel", 8 * words), *frames, Ints("args", MAX_ARGS)]
    return Signature("ready", tuple(params), returns=(0, 1))


class Predicates:
    """The part of the kernel that looks for sleepers."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        words = machine.tables.words
        self._kernel = words.cast("B")
        self._signature = signature(len(words))
        self._known: dict[str, Program] = {}
        self._of: dict[int, dict[int, Predicate]] = {}  # environment -> number -> predicate
        self.timed = 0  # waits that the clock alone may end
        self.looks = 0

    # --- operations -------------------------------------------------------------------------

    @operation(PREDICATE, "download", "check")
    def predicate(
        self,
        cpu: Processor,
        env: Environment,
        source: str,
        frames: tuple,  # type: ignore[type-arg]  # checked here
        token: bytes,
    ) -> int:
        """Download a predicate over up to four frames that the token lets the caller read.

        Raises Refused: not verified (which line, and why), or no such frames; CapabilityError;
        NoSpace: the frames' limits, or too many predicates.
        """
        if len(frames) > MAX_FRAMES or not all(type(frame) is int for frame in frames):
            raise Refused(f"a predicate sees up to {MAX_FRAMES} frames")
        own = self._of.get(env.id, {})
        if len(own) >= MAX_PREDICATES:
            raise NoSpace(f"{MAX_PREDICATES} predicates downloaded")
        program = self._verified(source)
        for frame in frames:
            self._machine.memory.bindings.hold(env.id, frame, READ, token)
        views = [self._machine.frames.view(frame).toreadonly() for frame in frames]
        views += [_ZEROS] * (MAX_FRAMES - len(frames))
        number = min(set(range(MAX_PREDICATES)) - own.keys())
        cost = program.steps * self._machine.costs.step
        own[number] = Predicate(program, frames, views, cost)
        self._of[env.id] = own
        return number

    @operation(PREDICATE_FREE)
    def predicate_free(self, cpu: Processor, env: Environment, number: int) -> None:
        """Forget a predicate. The frames stay held. Raises Refused."""
        self._own(env, number)
        del self._of[env.id][number]

    @operation(WAIT)
    def wait(
        self,
        cpu: Processor,
        env: Environment,
        number: int,
        args: tuple,  # type: ignore[type-arg]  # checked here
        time: int,
    ) -> bool:
        """Sleep until the predicate holds (True). At that time, if it is not 0, or when somebody
        wakes the caller or enters it for an upcall, the wait ends with False.

        Raises Refused: no such predicate, or not up to eight 64-bit integers; CapabilityError: a
        frame of the predicate was lost.
        """
        predicate = self._own(env, number)
        if len(args) > MAX_ARGS or not all(type(n) is int and 0 <= n < _WORD for n in args):
            raise Refused(f"a wait has up to {MAX_ARGS} integers of 64 bits")
        if time < 0:
            raise Refused(f"a wait until {time}")
        wait = Wait(predicate, args)
        cpu.now += predicate.cost
        if self._look(wait, cpu.now):
            return True
        if env.upcalls is not None or 0 < time <= cpu.now:
            return False
        env.wait = wait
        self.timed += predicate.timed
        self._machine.slices.suspend(env, WAITING, time)
        cpu.until = 0
        self._machine.turns.leave(cpu)
        return False

    # --- looking ----------------------------------------------------------------------------

    def holds(self, cpu: Processor, env: Environment) -> bool:
        """Its turn has come: does what it waits for hold?"""
        assert env.wait is not None
        cost = env.wait.predicate.cost
        cpu.now += cost
        env.cycles += cost
        return self._look(env.wait, cpu.now)

    def _look(self, wait: Wait, time: int) -> bool:
        self.looks += 1
        self._machine.show_clock(time)
        found: int = wait.predicate.program.run(self._kernel, *wait.predicate.views, wait.args)
        return found == 1

    def ended(self, env: Environment) -> None:
        """It waits no longer."""
        if env.wait is not None:
            self.timed -= env.wait.predicate.timed
            env.wait = None

    def lost(self, env: Environment, frame: int) -> None:
        """An environment no longer holds a frame: predicates that see it go."""
        own = self._of.get(env.id)
        if own is None:
            return
        for number in [n for n, p in own.items() if frame in p.frames]:
            gone = own.pop(number)
            if env.wait is not None and env.wait.predicate is gone:
                self._machine.slices.wake(env, self._machine.time)
                env.error = Refused(f"frame {frame} of the predicate was lost")

    def drop(self, env: Environment) -> None:
        """An environment ends."""
        self.ended(env)
        self._of.pop(env.id, None)

    def _own(self, env: Environment, number: int) -> Predicate:
        predicate = self._of.get(env.id, {}).get(number)
        if predicate is None:
            raise Refused(f"there is no predicate {number}")
        return predicate

    def _verified(self, source: str) -> Program:
        program = self._known.get(source)
        if program is None:
            try:
                program = verify(source, self._signature, budget=MAX_STEPS)
            except VerifyError as error:
                raise Refused(f"the predicate is not safe: {error}") from None
            if len(self._known) >= _MAX_KNOWN:
                self._known.clear()
            self._known[source] = program
        return program
