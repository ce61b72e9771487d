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
from dataclasses import dataclass, field, fields
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
class Failure:
    """A disk that a power cut may leave, and what is wrong with it."""

    seed: int
    workload: str
    ops: list[str]  # all of them, one line each
    event: int  # the cut is after so many events
    version: int  # in the middle of this operation
    label: str
    wrong: list[str]
    events: list[Event]  # all of them: what was written and flushed
    lost: tuple[int, ...]  # indices of the unflushed writes that did not reach the disk
    torn: tuple[int, int] | None  # (index of a write, mask of its sectors that did)
    image: dict[int, bytes]
    before: Failure | None = None  # for a cut during recovery: the cut that recovery followed

    def __str__(self) -> str:
        recent = self.events[max(0, self.event - 24) : self.event]
        lines = [
            f"seed {self.seed}, {self.workload or 'workload'}: cut after event {self.event} in"
            f" operation {self.version}: {self.label}",
            *(f"  wrong: {text[:400]}" for text in self.wrong[:6]),
            "  last events: "
            + " ".join("flush" if isinstance(e, Flush) else str(e.block) for e in recent),
            *(f"  op {op[:120]}" for op in self.ops[max(0, self.version - 12) : self.version + 1]),
        ]
        return "\n".join(lines)


@dataclass
class Stats:
    """What a run has looked at. Only `checked` counts: different disks that recovery and the
    oracles have seen, each once."""

    generated: int = 0  # states made
    pruned: int = 0  # of these: proved to be like one that was checked
    checked: int = 0  # of these: looked at
    left_out: int = 0  # legal states of the plan that a limit kept from being made
    promises: int = 0
    mounted: int = 0
    recovered: int = 0  # recovery ran on the real code, or its reads were those of a run before
    audited: int = 0  # pruned ones that were checked all the same
    deeper: int = 0  # of the checked: cuts during a recovery
    seconds: float = 0.0
    failures: list[Failure] = field(default_factory=list)

    @property
    def unique(self) -> int:
        """The same as `checked`."""
        return self.checked

    @property
    def rate(self) -> float:
        """States checked in a second."""
        return self.checked / self.seconds if self.seconds else 0.0

    def __str__(self) -> str:
        return (
            f"{self.generated} states, {self.pruned} pruned, {self.checked} checked"
            f" ({self.deeper} deeper), {self.left_out} left out, {self.promises} promises asked,"
            f" {self.mounted} mounted, {self.audited} audited, {self.seconds:.1f} s"
            f" ({self.rate:.0f} checked/s), {len(self.failures)} failures"
        )

    def add(self, other: Stats) -> None:
        """Sum up several runs."""
        for each in fields(self):
            mine, theirs = getattr(self, each.name), getattr(other, each.name)
            setattr(self, each.name, mine + theirs)


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
    workload: str = "",
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
            stats.failures.append(_failure(trial, seed, workload, state, cut, wrong))
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
        stats.checked += 1
        broken, shown = trial.inspect(state.image)
        seen[state.key] = shown
        yield from broken
        if not broken and stats.unique % mount_every == 0:
            stats.mounted += 1
            yield from trial.mount(dict(state.image), shown)
    else:
        stats.pruned += 1
    last_ask = max((a for a in trial.asks if a <= cut.event), default=0)
    question = state.key, Cut(last_ask, cut.version)
    if question not in asked:
        asked.add(question)
        stats.promises += 1
        yield from trial.promise(seen[state.key], cut)


def _failure(
    trial: Trial, seed: int, workload: str, state: State, cut: Cut, wrong: list[str]
) -> Failure:
    return Failure(
        seed=seed,
        workload=workload,
        ops=list(trial.describe()),
        event=state.event,
        version=cut.version,
        label=state.label,
        wrong=wrong,
        events=list(trial.events),
        lost=(),
        torn=state.torn,
        image=dict(state.image),
    )
