"""An exception on the exokernel against the same as a signal of a monolithic system."""

from __future__ import annotations

from libos.experiments.result import Result
from libos.signals import Signals
from xnfs import Boot, Machine, Program, calls

ROUNDS = 100


def _handler(cause: int, address: int, place: int = 0) -> Program:
    """What the application wants to do: one cycle, and on."""
    yield 1
    return (calls.SKIP, 0)


def signals() -> Result:
    """Cycles, time, crossings and words copied for one exception on each path."""
    rows = []
    for name, signal in (("exokernel", False), ("monolithic", True)):
        machine = Machine()
        spent: list[int] = []
        copied: list[int] = []

        def program(
            me: Boot, signal: bool = signal, spent: list[int] = spent, copied: list[int] = copied
        ) -> Program:
            frame = yield (calls.FRAME_ALLOC, me.id, calls.ANY, me.token)
            path = Signals(me, _handler)
            if signal:
                yield from path.start(frame)
            else:
                yield (calls.SAVE_AREA, frame, 0, me.token)
                yield (calls.HANDLER, calls.EXCEPTION, _handler)
            before = yield (calls.CLOCK,)
            for _ in range(ROUNDS):
                yield (calls.LOAD, 0x1000)
            spent.append((yield (calls.CLOCK,)) - before)
            copied.append(path.words)

        machine.boot(program)
        machine.run()
        counts = machine.counters()
        cycles = spent[0] // ROUNDS
        crossings = counts["exceptions"] + counts.get("null", 0)
        words = 6 * ROUNDS + copied[0]  # the save area has six words
        time = machine.costs.seconds(cycles) * 1e6
        rows.append((name, cycles, time, crossings // ROUNDS, words // ROUNDS))
    return Result(
        "What does an exception cost, from the fault to the next instruction?",
        ("path", "cycles", "microseconds", "crossings", "words saved"),
        tuple(rows),
        ("cycles",),
    )
