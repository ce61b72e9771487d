"""An environment: what the kernel keeps for one running program.

The program is a Python generator. What it is doing (its instruction pointer, as it were) is
`generator`, with `value`, `error` or `retry`: how it goes on. `stack` holds what upcalls have
interrupted. Everything that is rarely there is None until it is, because there may be thousands of
environments and most of them sleep.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any, NamedTuple

from xnfs.capability import Resource
from xnfs.cpu.numbers import READY

if TYPE_CHECKING:
    from xnfs.cpu.exposed import Exposed
    from xnfs.cpu.predicates import Wait
    from xnfs.cpu.processor import Processor

#: No sleep to go back to.
AWAKE = -1

Program = Generator[Any, Any, Any]
Entry = Callable[..., Program]


class Boot(NamedTuple):
    """What a program is started with: `program(me)`.

    `id` and `token` are its own: the token has all rights over all that will be its. `tables` are
    the exposed words of the kernel, read-only. `args` come from whoever spawned it.
    """

    id: int
    token: bytes
    tables: Exposed
    args: tuple[Any, ...]


class Context:
    """What an upcall interrupted, and how it goes on."""

    __slots__ = ("doze", "error", "generator", "kind", "left", "retry", "value")

    def __init__(self, env: Environment, kind: int) -> None:
        self.generator = env.generator
        self.value = env.value
        self.error = env.error
        self.retry = env.retry
        self.left = env.left
        self.doze = env.doze
        self.kind = kind  # of the upcall


class Environment:
    """One environment. `id` is its place in the exposed tables and a generation: never reused."""

    __slots__ = (
        "alarm",
        "area",
        "callee",
        "caller",
        "cpu",
        "cycles",
        "doze",
        "environments",
        "error",
        "excess",
        "frames",
        "generator",
        "handlers",
        "id",
        "inbox",
        "left",
        "parent",
        "pc",
        "pinned",
        "places",
        "registers",
        "resource",
        "retry",
        "slots",
        "soon",
        "stack",
        "state",
        "token",
        "upcalls",
        "value",
        "wait",
    )

    def __init__(self, id: int, resource: Resource, parent: int) -> None:
        self.id = id
        self.resource = resource
        self.parent = parent  # who gets the quotas back
        self.state = READY
        self.cpu: Processor | None = None  # where it runs just now
        self.places = 0  # its positions: see `positions`
        self.token = b""
        self.generator: Program
        self.value: Any = None
        self.error: BaseException | None = None
        self.retry: tuple[Any, ...] | None = None
        self.left = 0  # cycles still to be spent before it goes on
        self.doze = AWAKE  # the sleep that a posted upcall interrupts: when it ends, as in SLEEP
        self.stack: list[Context] | None = None
        self.upcalls: list[tuple[int, tuple[Any, ...]]] | None = None  # not yet delivered
        self.handlers: dict[int, Entry] | None = None
        self.registers = (0, 0, 0)
        self.area: tuple[int, int] | None = None  # (frame, offset) that exceptions are saved to
        self.pinned: dict[int, int] | None = None  # page -> entry, refilled by the kernel
        self.inbox: list[bytes] | None = None  # capabilities granted and not yet accepted
        self.alarm = 0  # when a timer may wake it
        self.soon = False  # wants the next free slot after a sleep
        self.excess = 0  # cycles used beyond its slices and not yet paid for
        self.callee: Environment | None = None  # whom it has called
        self.caller: Environment | None = None  # whose call it carries out
        self.wait: Wait | None = None  # for which predicate
        self.pc = 0  # requests made
        self.cycles = 0  # of processor time
        self.frames = 0  # quotas: what it may take for itself or give away
        self.slots = 0
        self.environments = 0

    @property
    def positions(self) -> int:
        """Its positions as a mask; those of the second processor come after the first one's.

        Most environments have one position, and a mask of a thousand bits takes five times the
        memory of its number, so a single one is kept as that, inverted.
        """
        return self.places if self.places >= 0 else 1 << ~self.places

    @positions.setter
    def positions(self, mask: int) -> None:
        single = mask & (mask - 1) == 0 and mask
        self.places = ~(mask.bit_length() - 1) if single else mask
