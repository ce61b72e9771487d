"""What the simulated machine costs its host: operations a second, many environments, memory.

    python benchmarks/machine.py [--runs N]

Prints Markdown; each figure is the median of the runs. Time is the processor time of this process
(one thread), not of a clock on the wall, so that others on the host disturb it little. An operation
is one request that a program yields and the machine carries out, the program's own Python included.
The bounds that always hold are in `tests/machine/test_speed.py`.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import statistics
import sys
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Final

sys.path.insert(0, str(Path(__file__).parents[1]))

from xnfs import READ, WRITE, Boot, Costs, Machine, Program, calls

_ROUNDS: Final = 20_000
_MANY: Final = 1000
_SECOND: Final = Costs().hz
_PAGES: Final = 128  # twice the TLB


def _bound(me: Boot, pages: int) -> Program:
    """So many pages, bound to one frame."""
    frame = yield (calls.FRAME_ALLOC, me.id, calls.ANY, me.token)
    for page in range(pages):
        yield (calls.BIND, page, frame, READ | WRITE, me.token)
    return frame


def _memory(me: Boot) -> Program:
    """Loads and stores of one page: the TLB has it."""
    yield from _bound(me, 1)
    for i in range(_ROUNDS):
        yield (calls.STORE, 8, i)
        yield (calls.LOAD, 8)


def _misses(me: Boot) -> Program:
    """Loads that the software TLB answers, for the most part."""
    yield from _bound(me, _PAGES)
    for i in range(2 * _ROUNDS):
        yield (calls.LOAD, i % _PAGES << 12)


def _null(me: Boot) -> Program:
    """System calls that do nothing."""
    for _ in range(2 * _ROUNDS):
        yield (calls.NULL,)


def _bindings(me: Boot) -> Program:
    """A capability checked, a page bound, and the binding broken."""
    frame = yield from _bound(me, 1)
    for _ in range(_ROUNDS):
        yield (calls.BIND, 1, frame, READ | WRITE, me.token)
        yield (calls.UNBIND, 1)


def _switches(me: Boot) -> Program:
    """The processor given up, and had again."""
    for _ in range(2 * _ROUNDS):
        yield (calls.YIELD, 0)


def _mixed(me: Boot) -> Program:
    """Two of memory, two of computing, a page bound and unbound, a call, the rest of a slice."""
    frame = yield from _bound(me, 1)
    for i in range(_ROUNDS // 4):
        yield (calls.STORE, 8, i)
        yield (calls.LOAD, 8)
        yield 10
        yield 10
        yield (calls.BIND, 1, frame, READ | WRITE, me.token)
        yield (calls.UNBIND, 1)
        yield (calls.NULL,)
        yield (calls.YIELD, 0)


_LOADS: Final[dict[str, tuple[Callable[[Boot], Program], int]]] = {
    "loads and stores, TLB hits": (_memory, 2 * _ROUNDS),
    f"loads of {_PAGES} pages in turn": (_misses, 2 * _ROUNDS),
    "null system calls": (_null, 2 * _ROUNDS),
    "pages bound and unbound": (_bindings, 2 * _ROUNDS),
    "yields": (_switches, 2 * _ROUNDS),
    "a mix of them": (_mixed, 2 * _ROUNDS),
}


def _rate(program: Callable[[Boot], Program], operations: int) -> float:
    """Operations in a second of processor time."""
    machine = Machine()
    machine.boot(program)
    began = time.process_time()
    machine.run()
    taken = time.process_time() - began
    if machine.ended[0].why:
        raise SystemExit(f"{program.__name__}: {machine.ended[0].why}")
    return operations / taken


def _waking(me: Boot) -> Program:
    """Wakes once a second."""
    for _ in itertools.repeat(None):
        yield (calls.SLEEP, (yield (calls.CLOCK,)) + _SECOND)


def _computing(me: Boot) -> Program:
    """Computes for ever, with a system call every tenth of a millisecond."""
    for _ in itertools.repeat(None):
        yield _SECOND // 10_000
        yield (calls.NULL,)


def _idle(me: Boot) -> Program:
    """Sleeps until somebody wakes it."""
    yield (calls.SLEEP, 0)


def _many(program: Callable[[Boot], Program]) -> Machine:
    machine = Machine(slots=_MANY, environments=_MANY + 1)
    for _ in range(_MANY):
        machine.boot(program)
    return machine


def _minute(program: Callable[[Boot], Program]) -> float:
    """Processor time for a simulated minute of a thousand environments, in seconds."""
    machine = _many(program)
    began = time.process_time()
    machine.run(until=60 * _SECOND)
    taken = time.process_time() - began
    if machine.ended:
        raise SystemExit(f"{program.__name__}: {machine.ended[0].why}")
    return taken


def _bytes() -> float:
    """Memory of one idle environment, its generator and its position in the vector included."""
    machine = Machine(slots=_MANY, environments=_MANY + 1)
    gc.collect()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(_MANY):
            machine.boot(_idle)
        machine.run()
        gc.collect()
        return (tracemalloc.get_traced_memory()[0] - before) / _MANY
    finally:
        tracemalloc.stop()


def main() -> None:
    """All of it, as one table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=3, metavar="N")
    runs = parser.parse_args().runs

    def line(what: str, unit: str, goal: str, measure: Callable[[], float]) -> None:
        figure = statistics.median(measure() for _ in range(runs))
        print(f"| {what} | {unit} | {figure:,.{2 if figure < 100 else 0}f} | {goal} |", flush=True)

    print("| what | unit | figure | goal |\n|---|---|---:|---:|")
    for name, (program, operations) in _LOADS.items():
        goal = "300,000" if program is _mixed else ""
        line(name, "operations/s", goal, lambda p=program, n=operations: _rate(p, n))
    minute = f"a minute of {_MANY:,} environments"
    line(f"{minute}, each wakes once a second", "s", "60", lambda: _minute(_waking))
    line(f"{minute}, all compute and call", "s", "60", lambda: _minute(_computing))
    line(f"an idle environment, of {_MANY:,}", "bytes", "1,024", _bytes)


if __name__ == "__main__":
    main()
