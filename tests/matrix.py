"""The mutation matrix: every rule of the kernel, the device and the oracles switched off, and what
saw it. `python -m tests.matrix` prints docs/mutants.md; with `--only crash` (kernel, attack,
oracles) a part of it.

What the mutants are is written where they are hunted: `tests/crash/mutants*.py`,
`tests/disk/test_xn_mutants.py`, `tests/attack/mutants.py`, `tests/trials/test_oracles.py`. Each
hunt must end in a kill within 1,000 states or 10 seconds of the processor.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import pytest

from tests.attack import test_mutants as attacks
from tests.attack.mutants import MUTANTS as ATTACKS
from tests.attack.mutants import TOO_STRICT
from tests.crash.campaign import MUTANTS as CRASHES
from tests.crash.campaign import SECONDS, STATES, hunt
from tests.disk import test_xn_mutants as walks
from tests.trials import test_oracles as oracles
from xnfs.disk import blocktype


@dataclass(frozen=True)
class Row:
    """One mutant: what is off, how many disks or calls were looked at for how long, what showed
    it ("" = nothing)."""

    name: str
    off: str
    looked: int
    seconds: float
    how: str

    @property
    def in_time(self) -> bool:
        """Killed, and within the bound."""
        return bool(self.how) and (self.looked <= STATES or self.seconds <= SECONDS)

    def __str__(self) -> str:
        how = self.how.replace("|", "/").replace("\n", " ")[:70] or "**survived**"
        looked = f"{self.looked:,}" if self.looked else ""
        return f"| `{self.name}` | {self.off} | {looked} | {self.seconds:.1f} | {how} |"


@dataclass(frozen=True)
class Campaign:
    """One way to hunt: how it is headed, what is counted, and its rows as they are found."""

    title: str
    unit: str
    second: str  # head of the second column
    rows: Callable[[], Iterator[Row]]


def crash() -> Iterator[Row]:
    """Cuts of workloads, every disk recovered and judged."""
    for mutant in CRASHES:
        found = hunt(mutant)
        yield Row(mutant.name, mutant.rule, found.states, found.seconds, found.how)


def kernel() -> Iterator[Row]:
    """The same of the system calls alone, with a walk and a judge of their own."""
    for name, mutate in walks.MUTANTS.items():
        with pytest.MonkeyPatch.context() as patch, walks.counted(patch) as looked:
            mutate(patch)
            begin = time.process_time()
            how = walks.search(walks.FIRST_SEED.get(name, 0), 40) or ""
            yield Row(name, "random calls", looked(), time.process_time() - begin, how)
    for name, (mutate, story) in walks.STORIES.items():
        with pytest.MonkeyPatch.context() as patch, walks.counted(patch) as looked:
            mutate(patch)
            begin, how = time.process_time(), ""
            try:
                story()
            except Exception as error:
                how = f"{story.__name__}: {type(error).__name__}"
            yield Row(name, "a story", looked(), time.process_time() - begin, how)


def attack() -> Iterator[Row]:
    """Hostile cases, all sequences of two calls, long random ones. What is counted is calls."""
    attacks.prepare()
    for name, mutate in ATTACKS.items():
        with pytest.MonkeyPatch.context() as patch:
            mutate(patch)
            begin = time.process_time()
            found_by, attack_it = attacks.by(name)
            tried, how = attack_it()
            strict = " (too strict)" if name in TOO_STRICT else ""
            yield Row(name, found_by + strict, tried, time.process_time() - begin, how)
        blocktype._proof.cache_clear()


def clauses() -> Iterator[Row]:
    """Clauses of the oracles removed in turn: a defect that was found goes by. Killed: that shows,
    since a test asks for it."""
    for clause, (owner, name, nothing, defect, found) in oracles.CLAUSES.items():
        begin = time.process_time()
        assert found()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(owner, name, nothing)
            how = "" if found() else f"{defect}: found with it, not without"
        where = f"{owner.__name__}.{name}"
        yield Row(where, clause, 0, time.process_time() - begin, how)


CAMPAIGNS = {
    "crash": Campaign("Crash campaign", "states", "what is off", crash),
    "kernel": Campaign("Crashes of the system calls alone", "disks", "found by", kernel),
    "attack": Campaign("Attack", "calls", "found by", attack),
    "oracles": Campaign("Oracles removed", "", "clause", clauses),
}

HEAD = """\
# Rules switched off, and what saw it

Made by `python -m tests.matrix`. Each mutant replaces a part of the kernel, of the disk or of the
explorer from outside, one at a time. *States*: different disks that were looked at, all oracles
included, until one was wrong; *disks*: cuts that were looked at; *calls*: system calls made.
Seconds are of one processor, on a machine with other work. A hunt begins with a workload that
brings up what the mutant is about, and must end within 1,000 states or 10 seconds.
"""


def page(only: Iterable[str] = CAMPAIGNS) -> Iterator[str]:
    """The document, line by line. The sums come last: they are known then."""
    yield HEAD
    sums = []
    for name in only:
        campaign = CAMPAIGNS[name]
        yield f"\n## {campaign.title}\n"
        yield f"| mutant | {campaign.second} | {campaign.unit} | seconds | how it showed |"
        yield "|---|---|---|---|---|"
        rows = []
        for row in campaign.rows():
            rows.append(row)
            yield str(row)
        killed, late = sum(bool(r.how) for r in rows), sum(not r.in_time for r in rows)
        sums.append(f"| {campaign.title} | {len(rows)} | {killed} | {len(rows) - late} |")
    yield "\n## In all\n\n| campaign | mutants | killed | within the bound |\n|---|---|---|---|"
    yield from sums


if __name__ == "__main__":
    chosen = sys.argv[2:] if sys.argv[1:2] == ["--only"] else list(CAMPAIGNS)
    for line in page(chosen):
        print(line, flush=True)
