"""Many workloads on one file system: cut into slices, run anywhere, put together.

A `Slice` says everything that its run depends on, in a few plain values; `run_slice` has no other
input and no effect. So it does not matter where or in which order slices run, a campaign that was
stopped goes on where it was, and any failure can be had again from its seed and its operations.

`campaign` hands slices to an `Executor` (`executors.py`: this process, others, a Dask cluster) and
stores what comes back (`results.py`). Slices grow until each takes long enough that handing it
over costs nothing. What a workload is: `families.py`; what is looked at: `explore.py`, `trial.py`.
"""

from __future__ import annotations

import gc
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from xnfs_trials.crash.choices import FULL, QUICK, Plan
from xnfs_trials.crash.explore import Failure, Stats, explore
from xnfs_trials.crash.families import FAMILIES, Named, family
from xnfs_trials.crash.memo import Memo
from xnfs_trials.crash.results import Done, Results
from xnfs_trials.crash.subject import load
from xnfs_trials.crash.trial import PosixTrial

#: What one slice should take, s. Handing one over costs a few ms.
SLICE_SECONDS: Final = 0.5
MAX_SLICE: Final = 512
#: States of a workload, and of one recovery, unless all are asked for. Few short ones have more.
STATES: Final = 1000
AGAIN: Final = 32
#: Of metadata in which at most so many sectors change, all subsets of its sectors are made.
FEW: Final = 3
#: Workloads of more operations leave trees that take long to read; fewer of their states are made.
LONG: Final = 20
FEWER: Final = 100
#: Of the states checked every so many-th is also mounted, used up, and checked by fsck.
MOUNT_EVERY: Final = 32
#: Slices under way for each worker: one runs, one waits.
AHEAD: Final = 2


@dataclass(frozen=True)
class Job:
    """What all slices of a campaign have in common. `fs`: "ffs", "lfs" or "module:Class"; `path`: a
    directory in which modules are looked for, too; `states`: make at most so many for each
    workload, spread over all cuts; `full`: every state that the rules name, not a sample."""

    fs: str
    seed: int = 0
    states: int | None = None
    path: str = ""
    full: bool = False

    def plan(self, length: int = 0) -> Plan:
        """Which states are made of a workload of so many operations."""
        if self.full:
            return replace(FULL, states=self.states)
        states = self.states or (STATES if length <= LONG else FEWER)
        return replace(QUICK, depth=2, states=states, again=AGAIN, few=FEW)

    def name(self) -> dict[str, object]:
        """What the results depend on."""
        return {"fs": self.fs, "seed": self.seed, "states": self.states, "full": self.full}


@dataclass(frozen=True)
class Slice:
    """Workloads number `first` to `first + count` of a family."""

    job: Job
    workload: str
    first: int
    count: int


def run_slice(work: Slice) -> Done:
    """Run it. The same slice gives the same result, but for the seconds."""
    _look_in(work.job.path)
    total, memo = Stats(), Memo()
    begin = time.perf_counter()
    # What somebody has written down is looked at closely.
    every = MOUNT_EVERY if work.workload in FAMILIES else 1
    with _patient_collector():
        for number, named in family(work.workload, work.job.seed).part(work.first, work.count):
            total.add(run_workload(work.job, named, number, memo=memo, mount_every=every))
    total.seconds = time.perf_counter() - begin
    return Done(work.workload, work.first, work.count, total)


@contextmanager
def _patient_collector() -> Iterator[None]:
    """Python's collector of cycles comes seldom: what a slice makes is mostly kept, and it would go
    over all of it each time (12 % of a run)."""
    before = gc.get_threshold()
    gc.set_threshold(20_000, 20, 20)
    try:
        yield
    finally:
        gc.set_threshold(*before)


def run_workload(
    job: Job,
    named: Named,
    number: int = 0,
    *,
    memo: Memo | None = None,
    mount_every: int = 1,
    stop_at: int = 1,
) -> Stats:
    """One workload, all its states, until `stop_at` of them fail. Whatever the file system raises
    is a failure, too."""
    name, ops = named
    seed = job.seed + number
    try:
        trial = PosixTrial(job.fs, ops, seed=seed)
        return explore(
            trial,
            seed,
            plan=job.plan(len(ops)),
            mount_every=mount_every,
            stop_at=stop_at,
            workload=name,
            memo=memo,
        )
    except Exception as error:
        wrong = f"{type(error).__name__}: {error} ({_where(error)})"
        texts = [str(op) for op in ops]
        failure = Failure(
            seed, name, texts, 0, 0, "the workload itself fails", [wrong], [], (), None, {}
        )
        return Stats(failures=[failure])


def check_subject(job: Job) -> None:
    """See that the file system can be loaded, made and mounted; what that costs is then paid, also
    for processes that are forked later. Raises ValueError, with one line."""
    _look_in(job.path)
    try:
        PosixTrial(load(job.fs), [])
    except ValueError:
        raise
    except Exception as error:
        raise ValueError(f"{job.fs} can't be used: {type(error).__name__}: {error}") from error


def _where(error: Exception) -> str:
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{Path(last.filename).name}, line {last.lineno}"


def _look_in(path: str) -> None:
    if path and path not in sys.path:
        sys.path.insert(0, path)


# -- handing out


class Planner:
    """Hands out what is not done of some families, in turn, in slices of a good size."""

    def __init__(self, job: Job, workloads: Sequence[str], results: Results) -> None:
        self._job = job
        self._left = {w: _gaps(results.ranges(w), family(w, job.seed).count) for w in workloads}
        self._size = dict.fromkeys(workloads, 1)
        self._turn = list(workloads)

    def next(self) -> Slice | None:
        """The next slice; None when all is handed out. Families that end come before those that do
        not: these fill what time is left."""
        while self._turn:
            workload = self._turn[0]
            gap = next(self._left[workload], None)
            if gap is None:
                self._turn.pop(0)
                continue
            first, end = gap
            count = self._size[workload] if end is None else min(self._size[workload], end - first)
            if end is None or first + count < end:
                self._left[workload] = _chain((first + count, end), self._left[workload])
            return Slice(self._job, workload, first, count)
        return None

    def took(self, done: Done) -> None:
        """Learn how long a slice should be."""
        each = max(done.stats.seconds / done.count, 1e-6)
        size = int(SLICE_SECONDS / each)
        self._size[done.workload] = max(1, min(size, 2 * done.count, MAX_SLICE))


def _gaps(done: Iterable[tuple[int, int]], total: int | None) -> Iterator[tuple[int, int | None]]:
    """What lies between ranges, up to `total` (None: for ever)."""
    at = 0
    for first, end in done:
        if first > at:
            yield at, first
        at = max(at, end)
    if total is None or at < total:
        yield at, total


def _chain(
    one: tuple[int, int | None], rest: Iterator[tuple[int, int | None]]
) -> Iterator[tuple[int, int | None]]:
    yield one
    yield from rest


def campaign(
    job: Job,
    workloads: Sequence[str],
    executor: Executor,
    slots: int,
    results: Results,
    *,
    budget: float,
    stop_at: int = 1,
    watch: Callable[[Done | None], None] = lambda done: None,
) -> bool:
    """Run until everything is done, `budget` seconds are over or `stop_at` failures are found.

    `slots`: how many slices the executor runs at a time. `watch` is told of each that ends, and
    with None now and then. Slices under way at the end are waited for. True: everything is done.
    """
    planner = Planner(job, workloads, results)
    deadline = time.monotonic() + budget
    under_way: set[Future[Done]] = set()
    failures = 0
    complete = False
    while True:
        goes_on = time.monotonic() < deadline and failures < stop_at
        while goes_on and not complete and len(under_way) < AHEAD * slots:
            work = planner.next()
            if work is None:
                complete = True
            else:
                under_way.add(executor.submit(run_slice, work))
        if not under_way:
            return complete
        ended, under_way = wait(under_way, timeout=0.2, return_when=FIRST_COMPLETED)
        watch(None)
        for future in ended:
            done = future.result()
            planner.took(done)
            failures += len(done.stats.failures)
            results.add(done)
            watch(done)
