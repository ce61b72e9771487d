"""What the tests of the machine share: programs that note what they see, run to their end."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any

from xnfs import ALLOC, READ, WRITE, Boot, Machine, Program, calls

RW = READ | WRITE
Body = Callable[[Boot, list[Any]], Program]


def run(*bodies: Body, limit: int = 10**10, **options: Any) -> tuple[Machine, list[list[Any]]]:
    """Run programs `body(me, notes)` on one machine until nothing is left to do, or to a time."""
    machine = Machine(**options)
    notes: list[list[Any]] = [[] for _ in bodies]
    for body, note in zip(bodies, notes, strict=True):
        machine.boot(lambda me, body=body, note=note: body(me, note))
    machine.run(until=limit)
    return machine, notes


def endings(machine: Machine) -> list[str]:
    """Why each environment that has ended did so, in that order."""
    return [ending.why for ending in machine.ended]


def frame_at(me: Boot, page: int, rights: int = RW) -> Program:
    """A new frame of the caller's own, bound at a page. Returns its number."""
    frame = yield (calls.FRAME_ALLOC, me.id, calls.ANY, me.token)
    yield (calls.BIND, page, frame, rights, me.token)
    return frame


def handle(me: Boot, handler: Callable[[int, int, int], Program]) -> Program:
    """Have exceptions handled, with a save area of its own. Returns its frame."""
    frame = yield (calls.FRAME_ALLOC, me.id, calls.ANY, me.token)
    yield (calls.SAVE_AREA, frame, 0, me.token)
    yield (calls.HANDLER, calls.EXCEPTION, handler)
    return frame


def child(me: Boot, entry: Callable[[Boot], Generator[Any, Any, Any]], frames: int = 0) -> Program:
    """Spawn a program with a slice and some quota of frames. Returns its id."""
    id = yield (calls.SPAWN, entry, (), me.id, me.token)
    yield (calls.GIVE_QUOTA, me.id, id, frames, 1, 0, me.token)
    yield (calls.SLOT_ALLOC, id, calls.ANY, calls.ANY, me.token)
    return id


def until(me: Boot, id: int, state: int) -> Program:
    """Yield until another is in a state."""
    while me.tables.state(id) != state:
        yield (calls.YIELD, 0)


def accepted(me: Boot) -> Program:
    """Wait for a capability. Returns it."""
    while True:
        tokens = yield (calls.ACCEPT,)
        if tokens:
            return tokens[0]
        yield (calls.YIELD, 0)


__all__ = ["ALLOC", "RW", "accepted", "child", "endings", "frame_at", "handle", "run", "until"]
