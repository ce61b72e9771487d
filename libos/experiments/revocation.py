"""Three ways to take memory from an application, under a neighbour who wants ever more."""

from __future__ import annotations

from typing import Final

from libos.experiments.result import Result
from libos.experiments.rig import Rig
from libos.pager import Pager
from libos.policies import Mru
from xnfs import Boot, Program, calls

PAGES: Final = 40
STYLES: Final = {
    "transparent": calls.TRANSPARENT,
    "notify": calls.NOTIFY,
    "cooperative": calls.COOPERATIVE,
}
#: Frames taken each time, and how often.
BITE: Final = 6
TIMES: Final = 4


def _run(style: int) -> tuple[int, int, int, int]:
    """(frames taken by force, pages lost, page-ins, exceptions)."""
    rig = Rig(frames=256, cache=64)
    swap = rig.swap()
    pagers: list[Pager] = []

    def worker(me: Boot) -> Program:
        """Scans its pages; whatever is lost it has to compute again."""
        pager = Pager(me, Mru(), swap, PAGES, style=style)
        pagers.append(pager)
        yield from pager.start()
        for page in range(PAGES):
            yield (calls.STORE, page << 12, page + 1)
        for _ in range(20):
            for page in range(PAGES):
                yield 2000
                word = yield (calls.LOAD, page << 12)
                if word != page + 1:
                    yield 100_000  # computed anew
                    yield (calls.STORE, page << 12, page + 1)
            yield (calls.YIELD, 0)

    def neighbour(me: Boot) -> Program:
        victim, token = me.args
        for _ in range(TIMES):
            now = yield (calls.CLOCK,)
            yield (calls.SLEEP, now + 300_000)
            if me.tables.state(victim) in (calls.NONE, calls.ENDED):
                return
            got = yield (calls.REVOKE_FRAMES, victim, BITE, 50_000_000, me.id, token)
            if got < BITE:
                yield (calls.SLEEP, 0)  # woken when it has the rest

    victim = rig.machine.boot(worker, quota=(PAGES + 1, 1, 0))
    rig.machine.boot(neighbour, victim, rig.machine.mint("env"), quota=(0, 1, 0))
    rig.machine.run()
    if any(ending.why for ending in rig.machine.ended):
        raise RuntimeError(str([ending.why for ending in rig.machine.ended]))
    counts = rig.machine.counters()
    lost = len(pagers[0].lost)
    return counts["frames_forced"], lost, swap.read, counts["exceptions"]


def styles() -> Result:
    """Transparent, notify, cooperative: what each costs the one who is asked."""
    rows = [(name, *_run(style)) for name, style in STYLES.items()]
    return Result(
        f"How should memory be taken? {TIMES} times {BITE} of {PAGES} frames.",
        ("style", "taken by force", "pages lost", "page-ins", "exceptions"),
        tuple(rows),
        ("pages lost", "page-ins"),
    )
