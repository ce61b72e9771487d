"""How a request of a program becomes a call in the kernel, and the loop that runs programs.

A part of the kernel declares its operations where it carries them out:

    @operation(FRAME_FREE, "frame", "check")
    def frame_free(self, cpu: Processor, env: Environment, frame: int, token: bytes) -> None:

The number is what programs yield; the names are fields of `Costs`, whose sum is charged when the
request is issued (`crossing` comes on top, unless `instruction=True`); the annotations of the
operands are checked for each request, exactly: int, bytes, tuple, str, or Any for what is handed on
unseen. So a handler never sees a value of another type, and never runs code of its caller. It may

- return a value, which the program gets;
- raise an XnError, which is raised in the program, where it yielded, and has had no effect;
- raise Fault: the exception goes to the application, and the request may be tried again;
- add to `cpu.now` what the request costs beyond its price;
- set `cpu.until` to 0, when it may no longer be this environment's turn (`Machine.stop`).

The loop knows nothing of slices and exceptions. It returns to the machine whenever something is to
be decided.
"""

from __future__ import annotations

import functools
import typing
from collections.abc import Callable, Iterable
from types import FunctionType
from typing import Any, Final, TypeVar

from xnfs.cpu.costs import Costs
from xnfs.cpu.environment import Environment
from xnfs.cpu.numbers import ILLEGAL, LIMIT
from xnfs.cpu.processor import Processor
from xnfs.cpu.watch import Watch
from xnfs.errors import Refused, XnError

Handler = Callable[..., Any]
F = TypeVar("F", bound=Handler)

#: Beyond this no number of cycles goes: exposed words have 64 bits.
MAX_CYCLES: Final = 1 << 62


class Fault(Exception):
    """The instruction can't be carried out: an exception for the application."""

    def __init__(self, cause: int, address: int) -> None:
        self.cause = cause
        self.address = address


class Operation(typing.NamedTuple):
    """One line of the table."""

    handler: Handler
    kinds: tuple[type, ...]  # of the whole request: int (the number), then the operands
    cost: int
    name: str
    crosses: bool


def operation(number: int, *prices: str, instruction: bool = False) -> Callable[[F], F]:
    """Declare a method to be the operation of that number."""

    def mark(method: F) -> F:
        method.__dict__["operation"] = (number, prices, not instruction)
        return method

    return mark


def table(parts: Iterable[object], costs: Costs) -> list[Operation | None]:
    """All operations that the parts declare, by number."""
    made: list[Operation | None] = [None] * LIMIT
    for part in parts:
        for name, method in vars(type(part)).items():
            if not isinstance(method, FunctionType) or "operation" not in method.__dict__:
                continue
            number, prices, crosses = method.__dict__["operation"]
            if made[number] is not None:
                raise ValueError(f"two operations have the number {number}")
            cost = sum(getattr(costs, price) for price in prices)
            made[number] = _operation(part, name, method, cost, crosses, costs)
    return made


def _operation(
    part: object, name: str, method: FunctionType, cost: int, crosses: bool, costs: Costs
) -> Operation:
    kinds = _kinds(method)
    price = cost + costs.crossing if crosses else cost
    return Operation(getattr(part, name), kinds, price, name, crosses)


@functools.cache
def _kinds(method: FunctionType) -> tuple[type, ...]:
    """The types of a request: the number, then the operands after self, cpu and env."""
    hints = typing.get_type_hints(method)
    operands = method.__code__.co_varnames[3 : method.__code__.co_argcount]
    return (int, *(object if hints[name] is Any else hints[name] for name in operands))


def refusal(op: Operation, request: tuple[Any, ...]) -> Refused | None:
    """Why the operands are not the operation's; None if they are after all (one is Any)."""
    if len(request) != len(op.kinds):
        return Refused(f"{op.name} has {len(op.kinds) - 1} operands, not {len(request) - 1}")
    for value, kind in zip(request, op.kinds, strict=True):
        if kind is not object and type(value) is not kind:
            return Refused(f"{op.name}: {type(value).__name__} where {kind.__name__} is due")
    return None


class Loop:
    """Runs one environment on one processor until `cpu.until`."""

    def __init__(
        self,
        operations: list[Operation | None],
        fault: Callable[[Processor, Environment, tuple[Any, ...], Fault], None],
        returned: Callable[[Processor, Environment, Any], None],
        failed: Callable[[Environment, BaseException], None],
        watch: Watch | None = None,
    ) -> None:
        """`fault`, `returned`, `failed`: what happens when a request faults, and when a generator
        ends or raises. `watch`: over programs that do not yield.
        """
        self._watch = watch
        self._operations = operations
        self._fault = fault
        self._returned = returned
        self._failed = failed
        self.counts = [0] * LIMIT
        self.refused = 0

    def run(self, cpu: Processor, env: Environment) -> None:
        """Carry out requests until the processor's time is up or the environment stops."""
        if env.left and not spend(cpu, env, env.left):
            return
        operations, counts = self._operations, self.counts
        generator = env.generator
        send, throw = generator.send, generator.throw
        if self._watch is not None:
            send, throw = self._watch.over(send), self._watch.over(throw)
        value, error, retry = env.value, env.error, env.retry
        env.value = env.error = env.retry = None
        while cpu.now < cpu.until:
            try:
                if error is not None:
                    thrown, error = error, None
                    request = throw(thrown)
                elif retry is not None:
                    request, retry = retry, None
                else:
                    request = send(value)
            except StopIteration as stop:
                self._returned(cpu, env, stop.value)
                return
            except BaseException as failure:  # Ctrl-C, too, when it hits a program that won't yield
                self._failed(env, failure)
                return
            env.pc += 1
            value = None
            if type(request) is int:
                if not 0 <= request <= MAX_CYCLES:
                    error = self._refuse(cpu, Refused("nobody can compute for so long"))
                elif not spend(cpu, env, request or 1):  # time must pass, or the slice never ends
                    break
                continue
            try:
                if type(request) is not tuple or not request or type(request[0]) is not int:
                    raise Fault(ILLEGAL, 0)
                number = request[0]
                op = operations[number] if 0 <= number < LIMIT else None
                if op is None:
                    raise Refused("there is no such operation")
                if tuple(map(type, request)) != op.kinds:
                    wrong = refusal(op, request)
                    if wrong is not None:
                        raise wrong
                counts[number] += 1
                cpu.now += op.cost
                value = op.handler(cpu, env, *request[1:])
            except XnError as refused:
                error = self._refuse(cpu, refused)
            except Fault as fault:
                self._fault(cpu, env, request, fault)
                return
            except ValueError:
                # A number so long that Python does not print it can be in no table, so the handler
                # was about to refuse it. Looked for here, where it costs nothing to the others.
                if not any(type(each) is int and abs(each) >> 64 for each in request):
                    raise
                error = self._refuse(cpu, Refused("an operand has more than 64 bits"))
        env.value, env.error, env.retry = value, error, retry

    def _refuse(self, cpu: Processor, error: XnError) -> XnError:
        """Without the kernel's frames, which a traceback would hand to the program."""
        cpu.now += 1
        self.refused += 1
        return error.with_traceback(None)


def spend(cpu: Processor, env: Environment, cycles: int) -> bool:
    """Compute; False if that does not end before `cpu.stop`, and goes on when the turn comes."""
    now = cpu.now + cycles
    if now > cpu.stop:
        env.left = now - cpu.stop
        cpu.now = cpu.stop
        return False
    env.left = 0
    cpu.now = now
    return True
