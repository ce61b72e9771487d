"""Damaging images by the thousand: every field and verb, pairs of them, and what coverage leads to.

Each image is a pure function of (subject, mutations, seed), so that any process can judge it, and a
failure is shown again by its words. Cases come in an order that takes one of each structure and
verb first: a short run is an even sample of the complete one.

`run` gives a `Report`; `pages` makes docs/damage.md of one.
"""

from __future__ import annotations

import itertools
import math
import random
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from xnfs_trials.damage.damage import Mutation, damage, reach
from xnfs_trials.damage.fields import fields
from xnfs_trials.damage.guided import explore
from xnfs_trials.damage.judge import OUTCOMES, Verdict, judge
from xnfs_trials.damage.subject import Subject, subject
from xnfs_trials.damage.verbs import VERBS

SUBJECTS: Final = ("clean", "cut", "lfs")
#: What has no second source: with a right checksum it can only be believed.
BELIEVED: Final = ("free map", "type catalogue", "type record", "lfs.gone")
BATCH: Final = 40

#: Name of a subject, and what is done to it.
Case = tuple[str, tuple[Mutation, ...]]
Progress = Callable[[int, int], None]


class Failure(NamedTuple):
    """An image that was judged wrong."""

    subject: str
    seed: int
    mutations: tuple[Mutation, ...]
    verdict: Verdict

    def __str__(self) -> str:
        what = "; ".join(map(str, self.mutations))
        return f"{self.verdict.outcome}: {what} ({self.subject}, {self.seed}): {self.verdict.words}"


@dataclass
class Report:
    """What a run has seen."""

    seed: int
    structures: int = 0
    fields: int = 0
    cases: int = 0  # single mutations that there are
    seconds: float = 0.0
    singles: Counter[tuple[str, str, bool, str]] = field(default_factory=Counter)
    pairs: Counter[str] = field(default_factory=Counter)
    possible_pairs: int = 0
    guided: Counter[str] = field(default_factory=Counter)
    lines: tuple[int, int] = (0, 0)  # reached by single mutations, and at the end
    kept: int = 0  # guided mutations that reached new lines
    failures: list[Failure] = field(default_factory=list)

    @property
    def images(self) -> int:
        """How many damaged images were judged."""
        return self.singles.total() + self.pairs.total() + self.guided.total()

    @property
    def outcomes(self) -> Counter[str]:
        """Of all of them."""
        out = self.pairs + self.guided
        for (_structure, _verb, _sealed, outcome), count in self.singles.items():
            out[outcome] += count
        return out


def run(
    *,
    seed: int = 0,
    singles: int | None = None,
    pairs: int | None = 0,
    guided: int = 0,
    seconds: float = math.inf,
    jobs: int = 1,
    subjects: Sequence[str] = SUBJECTS,
    progress: Progress | None = None,
) -> Report:
    """Judge so many single mutations (None: all), so many pairs (None: all, which takes months),
    and so many combinations that follow coverage; each for at most so many seconds.
    """
    report = Report(seed)
    cases = all_singles(subjects, seed)
    report.cases, report.possible_pairs = len(cases), math.comb(len(cases), 2)
    touched = {mutation.field for _name, (mutation,) in cases}
    report.fields = len(touched)
    report.structures = len({field.structure for field in touched})
    start = time.monotonic()
    tell = progress or (lambda done, total: None)
    with _Runner(jobs, seed) as runner:
        chosen = cases[:singles]
        for done, (case, verdict) in enumerate(runner.judge(chosen, start + seconds)):
            _name, (mutation,) = case
            key = (mutation.field.structure, mutation.verb, mutation.sealed, verdict.outcome)
            report.singles[key] += 1
            _note(report, case, verdict)
            tell(done + 1, len(chosen))
        some = itertools.islice(all_pairs(cases, seed), pairs)
        for case, verdict in runner.judge(some, time.monotonic() + seconds):
            report.pairs[verdict.outcome] += 1
            _note(report, case, verdict)
    if guided:
        _guided(report, subjects, guided, time.monotonic() + seconds)
    report.seconds = time.monotonic() - start
    return report


def _guided(report: Report, subjects: Sequence[str], images: int, until: float) -> None:
    for name in subjects:
        found = explore(
            subject(name), report.seed, images // len(subjects), judge_case, until=until
        )
        report.lines = (report.lines[0] + found.before, report.lines[1] + found.after)
        report.kept += found.kept
        for mutations, verdict in found.judged:
            report.guided[verdict.outcome] += 1
            _note(report, (name, mutations), verdict)


def _note(report: Report, case: Case, verdict: Verdict) -> None:
    if verdict.wrong:
        report.failures.append(Failure(case[0], report.seed, case[1], verdict))


# -- cases


def all_singles(subjects: Sequence[str] = SUBJECTS, seed: int = 0) -> list[Case]:
    """Every field, verb and variant of these subjects, one of each structure and verb first.

    The order of structures and verbs is drawn by the seed. The subjects differ in what the log
    holds, and in little else: what is the same in both is damaged once.
    """
    groups: dict[tuple[str, str, bool], list[Case]] = {}
    seen: set[tuple[object, bytes]] = set()
    for name in subjects:
        base = subject(name)
        for found in fields(base):
            raw = base.contents.get(found.blocks[0], b"")[found.offset :][: found.size]
            if (found, raw) in seen and not found.structure.startswith("log"):
                continue
            seen.add((found, raw))
            for verb, sealed in itertools.product(VERBS, (False, True)):
                case = (name, (Mutation(found, verb, sealed),))
                groups.setdefault((found.structure, verb, sealed), []).append(case)
    order = list(groups.values())
    random.Random(seed).shuffle(order)
    turns = itertools.zip_longest(*order)
    return [case for turn in turns for case in turn if case is not None]


def all_pairs(singles: Sequence[Case], seed: int) -> Iterator[Case]:
    """Every pair of mutations of one subject, each once, in an order drawn by the seed."""
    for name in dict.fromkeys(name for name, _mutations in singles):
        mine = [mutation for its, (mutation,) in singles if its == name]
        total = math.comb(len(mine), 2)
        step = random.Random(seed).randrange(1, max(total, 2)) | 1
        while total > 1 and math.gcd(step, total) > 1:
            step += 2
        for turn in range(total):
            a, b = _pair(turn * step % total)
            yield name, (mine[a], mine[b])


def _pair(number: int) -> tuple[int, int]:
    """The pair a < b with that number: 01, 02, 12, 03, ..."""
    b = (1 + math.isqrt(1 + 8 * number)) // 2
    return number - b * (b - 1) // 2, b


# -- judging


def judge_case(base: Subject, mutations: tuple[Mutation, ...], seed: int) -> Verdict | None:
    """The verdict on one image; None if the mutations change nothing."""
    image = damage(base, mutations, seed)
    damaged = reach(base, image)
    if not damaged:
        return None
    return judge(
        base,
        image,
        damaged,
        sealed=any(m.sealed for m in mutations),
        forged=any(m.sealed and m.field.structure in BELIEVED for m in mutations),
    )


def _judge_batch(batch: Sequence[Case], seed: int) -> list[tuple[Case, Verdict]]:
    found = ((case, judge_case(subject(case[0]), case[1], seed)) for case in batch)
    return [(case, verdict) for case, verdict in found if verdict is not None]


class _Runner:
    """Judges cases in this process, or in several."""

    def __init__(self, jobs: int, seed: int) -> None:
        self._seed = seed
        self._jobs = jobs
        self._pool = ProcessPoolExecutor(jobs) if jobs > 1 else None

    def __enter__(self) -> _Runner:
        return self

    def __exit__(self, *_error: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def judge(self, cases: Iterable[Case], until: float) -> Iterator[tuple[Case, Verdict]]:
        """Verdicts in the order of the cases, until the time is up."""
        source = iter(cases)
        batches = iter(lambda: list(itertools.islice(source, BATCH)), [])
        if self._pool is None:
            for batch in batches:
                for case in batch:
                    if time.monotonic() > until:
                        return
                    yield from _judge_batch([case], self._seed)
            return
        running: deque[Future[list[tuple[Case, Verdict]]]] = deque()
        for batch in batches:
            if time.monotonic() > until:
                break
            running.append(self._pool.submit(_judge_batch, batch, self._seed))
            if len(running) == 2 * self._jobs:
                yield from running.popleft().result()
        for future in running:
            yield from future.result()


__all__ = ["OUTCOMES", "Failure", "Report", "all_pairs", "all_singles", "judge_case", "run"]
