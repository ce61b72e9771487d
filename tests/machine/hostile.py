"""Programs that try everything: any call, with operands that are right, wrong, stale, forged, huge
or of the wrong type, chosen by small numbers so that a failing script can be made shorter.

A script is a list of (number, choices); the operand's name says from which pool it is taken, so a
new system call is tried without a word here. `honest` is who must not notice.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Generator, Iterable
from typing import Any

from tests.machine.conserve import Violation, check, check_instructions, must
from xnfs import Boot, Costs, Machine, Program, XnError, calls

Choice = tuple[int, ...]
Script = list[tuple[int, Choice]]
Entry = Callable[..., Generator[Any, Any, Any]]
HONEST_PAGES = 4


class Int(int):
    """Not quite an int; its operators would run in the kernel."""

    def __ge__(self, other: object) -> bool:
        raise RuntimeError("code of a program ran in the kernel")

    __lt__ = __rshift__ = __and__ = __eq__ = __ge__
    __hash__ = int.__hash__


WRONG: tuple[Any, ...] = (
    None,
    True,
    1.5,
    "x",
    b"x",
    [1],
    (),
    Int(3),
    {},
    object(),
    10**30,
    -(10**9),
)


def raising(*args: object) -> Program:
    """Starts, and raises."""
    yield 1
    raise ValueError


def at_once(*args: object) -> Program:
    """Raises before it is a generator."""
    raise ValueError


def clinging(*args: object) -> Program:
    """Does not want to end."""
    try:
        while True:
            yield (calls.SLEEP, 0)
    finally:
        yield 5


def spinning(*args: object) -> Program:
    """Never gives the processor away."""
    while True:
        yield 10**7


def skipping(*args: object) -> Program:
    """A handler that works."""
    yield 1
    return (calls.SKIP, 3)


def strange(*args: object) -> Program:
    """A handler that answers nonsense."""
    yield 1
    return (Int(2), Int(3))


ENTRIES: tuple[Any, ...] = (raising, at_once, clinging, spinning, skipping, strange, 0, len, 7)


#: Downloaded code that is none.
SOURCES = ("", "def f(: return", "import os", "x" * 10_000)


class Hostile:
    """What hostile programs know, together."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._names = {
            number: (op.handler.__code__.co_varnames[3 : op.handler.__code__.co_argcount])
            for number, op in enumerate(machine._table)
            if op is not None
        }
        self.numbers = sorted(self._names)
        self.ids: list[int] = [0, 1, -1, 10**20]
        self.tokens: list[bytes] = [b"", bytes(32)]
        self.last: dict[int, bytes] = {}  # what each got last

    def program(self, me: Boot) -> Program:
        """Carry out the script; errors are answers."""
        self.ids.append(me.id)
        self.tokens.append(me.token)
        (script,) = me.args
        for number, *operands in self._start(me):
            with contextlib.suppress(XnError):
                yield (number, *operands)
        for number, choice in script:
            try:
                answer = yield self._request(me, number, choice)
            except XnError:
                continue
            for each in answer if type(answer) is tuple else (answer,):
                if type(each) is bytes and len(each) == 32:
                    self.tokens.append(each)
                    self.last[me.id] = each
                elif type(each) is int and each > 1024:
                    self.ids.append(each)

    def _start(self, me: Boot) -> list[tuple[Any, ...]]:
        """What makes a long life likely: a handler, memory that is bound, and something to
        share.
        """
        own = [f for f in range(me.tables.positions - me.tables.frames) if self._owns(me, f)]
        start: list[tuple[Any, ...]] = [(calls.HANDLER, calls.EXCEPTION, skipping)]
        for page, frame in enumerate(own):
            start += [(calls.SAVE_AREA, frame, 0, me.token), (calls.BIND, page, frame, 3, me.token)]
        return start

    def _owns(self, me: Boot, frame: int) -> bool:
        return me.tables.frame_owner(frame) == me.id

    def _request(self, me: Boot, number: int, choice: Choice) -> Any:
        if choice[0] == 0:
            return WRONG[choice[1] % len(WRONG)]
        names = self._names[number]
        operands = [self._operand(me, name, c) for name, c in zip(names, choice[1:], strict=False)]
        if choice[0] == 1:
            operands.append(choice[1])
        return (number, *operands)

    def _operand(self, me: Boot, name: str, choice: int) -> Any:
        if choice % 23 == 22:
            return WRONG[choice // 23 % len(WRONG)]
        kind, pick = choice % 3, choice // 3
        frames = self._machine.frames.count
        if name in ("token", "consent"):
            last = self.last.get(me.id, me.token)
            return (me.token, last, self.tokens[pick % len(self.tokens)])[kind]
        if name in ("account", "id", "to", "giver", "taker"):
            return me.id if kind == 0 else self.ids[pick % len(self.ids)]
        if name == "frame":
            own = [frame for frame in range(frames) if self._owns(me, frame)]
            if kind == 0 or not own:
                return pick % (frames + 2) - 1
            return own[pick % len(own)]
        if name == "entry":
            return self.program if kind == 0 else ENTRIES[pick % len(ENTRIES)]
        if name == "args":
            return ([],)
        if name == "below":
            return (f"f{pick % frames}",) if kind == 0 else ()
        if name == "source":
            return SOURCES[pick % len(SOURCES)]
        if name == "address":
            return pick % 8 * 4096 + (8, 0, 3)[kind]
        if name == "data":
            return bytes(pick % 20)
        if name in ("time", "patience", "cycles"):
            return pick * 50_000
        if name == "rights":
            return (3, 1, (31, 9, 11, pick)[pick % 4])[kind]
        if name in ("page", "readers", "writers"):
            return pick % 3
        return pick % 9


def honest(me: Boot) -> Program:
    """Memory and time of its own, looked after for ever."""
    frames = []
    for page in range(HONEST_PAGES):
        frames.append((yield (calls.FRAME_ALLOC, me.id, calls.ANY, me.token)))
        yield (calls.BIND, page, frames[page], 3, me.token)
        yield (calls.STORE, page << 12, 1000 + page)
    rounds = 0
    while True:
        for page in range(HONEST_PAGES):
            yield (calls.BIND, page, frames[page], 3, me.token)
            if (yield (calls.LOAD, page << 12)) != 1000 + page:
                return 1
            if (yield (calls.LOAD, (page << 12) + 8)) not in (0, rounds):
                return 2
            yield (calls.STORE, (page << 12) + 8, rounds + 1)
        rounds += 1
        yield (calls.YIELD, 0)


def attack(scripts: Iterable[Script], processors: int = 1, steps: int = 400) -> Machine:
    """Run scripts against an honest program, checking everything after every step."""
    costs = Costs(quantum=2000)
    machine = Machine(processors=processors, frames=16, slots=8, environments=16, costs=costs)
    try:
        _attack(machine, scripts, steps)
    finally:
        machine.close()
    return machine


def _attack(machine: Machine, scripts: Iterable[Script], steps: int) -> None:
    hostile = Hostile(machine)
    id = machine.boot(honest, quota=(HONEST_PAGES, 1, 0))
    # The account that the hostile programs end on; it does nothing.
    chief = machine.boot(chieftain, quota=(12, 6, 9), slots=0)
    quotas = HONEST_PAGES + 12, 1 + 6, 1 + 10
    hostile.ids += [id, chief]
    boss = machine.environment(chief)
    for script in scripts:
        env = machine.create(hostile.program, (script,), boss)
        boss.environments -= 1
        boss.frames -= 3
        boss.slots -= 2
        env.frames, env.slots = 3, 2
        for _ in range(2):
            machine.memory.frame_alloc(machine.processors[0], env, env.id, -1, env.token)
        machine.slices.slot_alloc(machine.processors[0], env, env.id, -1, -1, env.token)
    before = (0, 0, 0)
    for _ in range(steps):
        if not step(machine):
            break
        done = sum(machine.loop.counts[calls.SPAWN :]), machine.events, len(machine.ended)
        if done == before:
            check_instructions(machine)
        else:
            check(machine, quotas)
            unharmed(machine, id)
        before = done
    unharmed(machine, id)
    reached = machine.environment(id).pc
    for _ in range(100):  # whatever grace another is given, it is no more than this
        if machine.environment(id).pc == reached:
            machine.run(until=machine.now + 20 * machine.costs.quantum)
    must(machine.environment(id).pc > reached, "the honest program gets no time")


def unharmed(machine: Machine, id: int) -> None:
    """Nobody has taken anything from the honest program's account; gifts it can't help."""
    env = machine.living(id)
    if env is None:
        raise Violation("the honest program has ended")
    must(env.positions.bit_count() == 1, "the honest program's position is gone")
    must(env.frames + len(machine.memory.owned(env)) >= HONEST_PAGES, "its frames are fewer")
    must(env.state == calls.READY, "the honest program sleeps")


def chieftain(me: Boot) -> Program:
    """Holds quotas, and does nothing."""
    while True:
        yield (calls.SLEEP, 0)


def step(machine: Machine) -> bool:
    """One request, or one event; False if nothing is left to do."""
    times = [cpu.now for cpu in machine.processors if not cpu.idle]
    times += [machine._queue[0][0]] if machine._queue else []
    if not times:
        return False
    machine.run(until=min(times) + 1)
    return True


#: What ends a script, and so is rare in random ones.
ENDS = {calls.EXIT, calls.END, calls.SLEEP}


#: Requests that mean something together. A choice is (shape, then for each operand 3 * pick +
#: kind): tokens are the own one (0), the last one got (1) or anybody's (2), frames anybody's (0) or
#: own (1).
IDIOMS: tuple[Script, ...] = (
    [  # bind under a capability, and revoke it
        (calls.NARROW, (2, 0, 1, 8)),
        (calls.BIND, (2, 0, 1, 0, 1)),
        (calls.LOAD, (2, 1)),
        (calls.REVOKE, (2, 1)),
    ],
    [  # ask for more than a capability gives
        (calls.NARROW, (2, 0, 1, 5)),
        (calls.BIND, (2, 3, 1, 0, 1)),
        (calls.STORE, (2, 4, 0)),
    ],
    [  # limit, and go beyond
        (calls.RELEASE, (2, 1)),
        (calls.FRAME_LIMIT, (2, 1, 0, 3, 0)),
        (calls.BIND, (2, 0, 1, 1, 0)),
    ],
    [  # share, and use what others share
        (calls.NARROW, (2, 0, 1, 8)),
        (calls.GRANT, (2, 1, 200)),
        (calls.ACCEPT, (2,)),
        (calls.BIND, (2, 6, 120, 0, 1)),
        (calls.PIN, (2, 6, 120, 1, 1)),
    ],
    [(calls.END, (2, 13, 0))],  # the honest one, or the account
    [(calls.FRAME_ALLOC, (2, 16, 0, 0))],
    [(calls.GIVE_QUOTA, (2, 13, 0, 3, 3, 3, 0))],
)


def random_script(seed: int, numbers: list[int], length: int) -> Script:
    """A script from a seed. Most of its requests have the right shape."""
    rng = random.Random(seed)
    often = [n for n in numbers if n not in ENDS] * 4 + numbers
    often += [n for n in numbers if n >= calls.NARROW] * 8
    script: Script = []
    while len(script) < length:
        if rng.random() < 0.15:
            script += rng.choice(IDIOMS)
            continue
        shape = rng.choice((0, 1, *range(2, 40)))
        script.append((rng.choice(often), (shape, *(rng.randrange(400) for _ in range(8)))))
    return script
