"""The loop: run a workload once, then look at every disk that a power cut could have left.

A `Trial` knows a file system; this knows none. Identical images are looked at once (the promise
may still differ: it is asked again where the cut or the last sync is another). A failure says
seed, cut and the writes that were lost.
"""

from __future__ import annotations

import random
import time
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol

from xnfs import MemoryDevice
from xnfs.disk.recording import RecordingDevice
from xnfs_trials.crash.model import Cut
from xnfs_trials.crash.states import EXHAUSTIVE, Cutter, Event, Flush, State, Write


class Trial(Protocol):
    """One workload that has run, and what there is to say of the disks it may leave."""

    base: dict[int, bytes]
    events: list[Event]
    marks: list[int]  # marks[v]: events before operation v+1
    asks: list[int]  # numbers of events after which a sync had returned

    def inspect(self, image: dict[int, bytes]) -> tuple[list[str], object]:
        """(what the raw bytes break, what they show): does not depend on the cut."""

    def promise(self, shown: object, cut: Cut) -> list[str]:
        """What should be there and is not."""

    def mount(self, image: dict[int, bytes], shown: object) -> list[str]:
        """Mount with the real code, look, use, unmount: what goes wrong. Also independent of the
        cut."""

    def describe(self) -> list[str]:
        """The operations, for a failure."""


@dataclass
class Stats:
    """What a run has looked at."""

    generated: int = 0
    unique: int = 0
    promises: int = 0
    mounted: int = 0
    seconds: float = 0.0
    failures: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        rate = self.unique / self.seconds if self.seconds else 0
        return (
            f"{self.generated} states, {self.unique} unique, {self.promises} promises asked,"
            f" {self.mounted} mounted, {self.seconds:.1f} s ({rate:.0f} unique/s),"
            f" {len(self.failures)} failures"
        )

    def add(self, other: Stats) -> None:
        """Sum up several runs."""
        self.generated += other.generated
        self.unique += other.unique
        self.promises += other.promises
        self.mounted += other.mounted
        self.seconds += other.seconds
        self.failures += other.failures


def recorded(device: RecordingDevice) -> list[Event]:
    """The recording as plain writes and flushes."""
    return [Flush() if e.block is None else Write(e.block, e.data) for e in device.events]


def contents(device: MemoryDevice) -> dict[int, bytes]:
    """The blocks of a disk in memory."""
    return dict(device._contents)


def explore(
    trial: Trial,
    seed: int,
    *,
    mount_every: int = 1,
    samples: int = 8,
    torn: int = 2,
    exhaustive: int = EXHAUSTIVE,
    stop_at: int = 1,
    limit: int | None = None,
) -> Stats:
    """Look at the states of a trial. Stops after `stop_at` failures or `limit` unique states."""
    rng = random.Random(seed)
    stats = Stats()
    begin = time.perf_counter()
    cutter = Cutter(
        trial.base, trial.events, rng, samples=samples, torn=torn, exhaustive=exhaustive
    )
    seen: dict[int, object] = {}
    asked: set[tuple[int, Cut]] = set()
    for state in cutter.states(trial.asks):
        stats.generated += 1
        cut = _cut(trial, state)
        wrong = list(_look(trial, state, cut, seen, asked, stats, mount_every))
        if wrong:
            stats.failures.append(_story(trial, seed, state, cut, wrong))
            if len(stats.failures) >= stop_at:
                break
        if limit is not None and stats.unique >= limit:
            break
    stats.seconds = time.perf_counter() - begin
    return stats


def _cut(trial: Trial, state: State) -> Cut:
    """The operation under way: of those begun before the last event of the state, the last one."""
    return Cut(state.event, bisect_left(trial.marks, state.event))


def _look(
    trial: Trial,
    state: State,
    cut: Cut,
    seen: dict[int, object],
    asked: set[tuple[int, Cut]],
    stats: Stats,
    mount_every: int,
) -> Iterator[str]:
    if state.key not in seen:
        stats.unique += 1
        broken, shown = trial.inspect(state.image)
        seen[state.key] = shown
        yield from broken
        if not broken and stats.unique % mount_every == 0:
            stats.mounted += 1
            yield from trial.mount(dict(state.image), shown)
    last_ask = max((a for a in trial.asks if a <= cut.event), default=0)
    question = state.key, Cut(last_ask, cut.version)
    if question not in asked:
        asked.add(question)
        stats.promises += 1
        yield from trial.promise(seen[state.key], cut)


def _story(trial: Trial, seed: int, state: State, cut: Cut, wrong: list[str]) -> str:
    """A failure for people."""
    ops = trial.describe()[max(0, cut.version - 12) : cut.version + 1]
    recent = []
    for number in range(max(0, state.event - 24), state.event):
        event = trial.events[number]
        recent.append("flush" if isinstance(event, Flush) else str(event.block))
    lines = [
        f"seed {seed}, cut after event {state.event} in operation {cut.version}: {state.label}",
        *(f"  wrong: {text[:400]}" for text in wrong[:6]),
        "  last events: " + " ".join(recent),
        *(f"  op {text[:120]}" for text in ops),
    ]
    return "\n".join(lines)
