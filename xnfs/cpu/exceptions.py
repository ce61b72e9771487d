"""Exceptions and upcalls: how the kernel enters a program (Engler et al. 1995, section 5.1.2).

An exception does not make the kernel keep anything: it saves three scratch registers, the place of
the exception, the bad address and the cause to an area that the application named, by physical
address (so saving can't miss in the TLB), and jumps to the application's handler. The handler puts
the registers back itself and goes on where it wants: the kernel is not entered again.

The save area is a word that counts the levels in use, then LEVELS records of 48 bytes. The count is
in the application's own memory, and the application lowers it when it resumes; the kernel only
checks that it is in range. So exceptions nest, in handlers too, to a depth of LEVELS.

An environment ends when an exception finds no handler, no save area, or no level left, or when a
handler's generator raises.

Other upcalls (`Exceptions.post`) use the same way in, without a save area: they come between two
requests, never in the middle of one.
"""

from __future__ import annotations

import struct
from types import GeneratorType
from typing import TYPE_CHECKING, Any, Final

from xnfs.capability import READ, WRITE
from xnfs.cpu.dispatch import Fault, operation
from xnfs.cpu.environment import AWAKE, Context, Environment
from xnfs.cpu.numbers import (
    ASLEEP,
    CALLED,
    EXCEPTION,
    HANDLER,
    KINDS,
    SAVE_AREA,
    SKIP,
    UNWIND,
    WAITING,
)
from xnfs.cpu.processor import Processor
from xnfs.cpu.trace import FAULT, UPCALL
from xnfs.errors import Refused
from xnfs.memory.frames import FRAME

if TYPE_CHECKING:
    from xnfs.machine import Machine

LEVELS: Final = 8
_LEVEL: Final = struct.Struct("<Q")
_RECORD: Final = struct.Struct("<6Q")  # cause, bad address, place, r0, r1, r2
AREA: Final = _LEVEL.size + LEVELS * _RECORD.size
#: Upcalls waiting for one environment; more are lost, and counted.
MAX_POSTED: Final = 64
#: Upcalls inside of each other, of all kinds; others wait.
MAX_NESTED: Final = 32


class Exceptions:
    """The part of the kernel that enters programs."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self.delivered = 0  # exceptions
        self.resumed = 0  # ends of handlers: no crossing
        self.upcalls = 0  # of every kind
        self.lost = 0  # upcalls that found too many waiting

    # --- operations -------------------------------------------------------------------------

    @operation(HANDLER)
    def handler(self, cpu: Processor, env: Environment, kind: int, entry: Any) -> None:
        """Name the entry for upcalls of a kind; 0 takes it away. Raises Refused."""
        if not 0 <= kind < KINDS or (entry != 0 if type(entry) is int else not callable(entry)):
            raise Refused("no such kind of upcall, or nothing that can be entered")
        if env.handlers is None:
            env.handlers = {}
        if type(entry) is int:
            env.handlers.pop(kind, None)
        else:
            env.handlers[kind] = entry

    @operation(SAVE_AREA, "check")
    def save_area(
        self, cpu: Processor, env: Environment, frame: int, offset: int, token: bytes
    ) -> None:
        """Name the save area: a frame that the caller may write. The check is made here, once; the
        binding ends with the frame's owner or the capability. Raises Refused, CapabilityError.
        """
        if offset % 8 or not 0 <= offset <= FRAME - AREA:
            raise Refused(f"a save area at {offset}")
        self._machine.memory.bindings.hold(env.id, frame, READ | WRITE, token)
        env.area = (frame, offset)
        _LEVEL.pack_into(self._machine.frames.view(frame), offset, 0)

    # --- entering ---------------------------------------------------------------------------

    def fault(
        self, cpu: Processor, env: Environment, request: tuple[Any, ...], fault: Fault
    ) -> None:
        """Deliver an exception: save, load, jump. The request is tried again when it is over."""
        machine = self._machine
        cpu.now += machine.costs.trap
        if machine.trace.on:
            machine.trace.add(cpu.now, cpu.id, env.id, FAULT, (fault.cause, fault.address))
        entry = env.handlers.get(EXCEPTION) if env.handlers else None
        if entry is None or env.area is None:
            machine.end(env, f"exception {fault.cause} at {fault.address:#x} and no handler")
            return
        frame, at = env.area
        view = machine.frames.view(frame)
        (level,) = _LEVEL.unpack_from(view, at)
        if level >= LEVELS:
            machine.end(env, f"exceptions nested {level} deep")
            return
        record = (fault.cause, fault.address & (1 << 64) - 1, env.pc, *env.registers)
        _RECORD.pack_into(view, at + _LEVEL.size + level * _RECORD.size, *record)
        _LEVEL.pack_into(view, at, level + 1)
        self.delivered += 1
        env.retry = request
        self.enter(cpu, env, EXCEPTION, entry, (fault.cause, fault.address, env.pc))

    def post(self, env: Environment, kind: int, *args: Any) -> bool:
        """Have an upcall delivered before the environment's next request; False if it has no
        handler of the kind, or too many are waiting. A sleep goes on afterwards.
        """
        if env.handlers is None or kind not in env.handlers:
            return False
        if env.upcalls is None:
            env.upcalls = []
        if len(env.upcalls) >= MAX_POSTED:
            self.lost += 1
            return False
        env.upcalls.append((kind, args))
        if env.state in (ASLEEP, WAITING):
            doze = env.alarm if env.state == ASLEEP else AWAKE  # a wait is over, with False
            self._machine.slices.rise(env, self._machine.time)
            env.doze = doze
        if env.cpu is not None:
            env.cpu.until = 0
        return True

    def deliver(self, cpu: Processor, env: Environment) -> None:
        """Enter the environment for the upcall that was posted first."""
        assert env.upcalls is not None
        if env.stack is not None and len(env.stack) >= MAX_NESTED:
            return
        kind, args = env.upcalls.pop(0)
        if not env.upcalls:
            env.upcalls = None
        entry = env.handlers.get(kind) if env.handlers else None
        if entry is not None:
            cpu.now += self._machine.costs.upcall
            self.enter(cpu, env, kind, entry, args)

    def enter(
        self, cpu: Processor, env: Environment, kind: int, entry: Any, args: tuple[Any, ...]
    ) -> None:
        """Put a handler on top of what an environment does."""
        machine = self._machine
        self.upcalls += 1
        if machine.trace.on:
            machine.trace.add(cpu.now, cpu.id, env.id, UPCALL, kind)
        try:
            generator = entry(*args)
        except BaseException as failure:
            machine.end(env, f"a handler raised {type(failure).__name__}")
            return
        if type(generator) is not GeneratorType:
            machine.end(env, "a handler is not a generator function")
            return
        if env.stack is None:
            env.stack = []
        env.stack.append(Context(env, kind))
        env.generator = generator
        env.value = env.error = env.retry = None
        env.left = 0
        env.doze = AWAKE

    # --- leaving ----------------------------------------------------------------------------

    def returned(self, cpu: Processor, env: Environment, result: Any) -> None:
        """A generator has ended: go on with what it interrupted, or, at the bottom, exit."""
        if not env.stack:
            self._machine.end(env, "", result if type(result) is int else 0)
            return
        was = env.stack.pop()
        if not env.stack:
            env.stack = None
        env.generator, env.left = was.generator, was.left
        env.value, env.error, env.retry = was.value, was.error, was.retry
        cpu.now += self._machine.costs.resume
        if was.kind == EXCEPTION:
            self._restore(env)
            self.resumed += 1
        if type(result) is tuple and len(result) == 2 and type(result[0]) is str:
            if result[0] == SKIP:
                env.retry, env.value = None, result[1]
            elif result[0] == UNWIND and issubclass(type(result[1]), BaseException):
                env.retry, env.left, env.error = None, 0, result[1]
                was.doze = AWAKE
        dozes = was.doze == 0 or was.doze > cpu.now
        if dozes:
            self._machine.slices.block(env, was.doze)
        if was.kind == CALLED and env.caller is not None:
            self._machine.transfers.finished(cpu, env, result)
        elif dozes:
            cpu.until = 0
            self._machine.turns.leave(cpu)

    def _restore(self, env: Environment) -> None:
        """What the application's epilogue does: registers back, one level down. In its own memory,
        so it is no concern of the kernel's what it finds there.
        """
        if env.area is None:
            return
        frame, at = env.area
        view = self._machine.frames.view(frame)
        (level,) = _LEVEL.unpack_from(view, at)
        if 0 < level <= LEVELS:
            level -= 1
            saved = _RECORD.unpack_from(view, at + _LEVEL.size + level * _RECORD.size)
            env.registers = saved[3:]
            _LEVEL.pack_into(view, at, level)

    def failed(self, env: Environment, failure: BaseException) -> None:
        """A generator has raised. That is the end: nobody else can know what to do about it."""
        where = "a handler" if env.stack else "the program"
        self._machine.end(env, f"{where} raised {type(failure).__name__}")
