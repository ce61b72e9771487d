"""Runs of many trials: which workloads, how many states, with or without a mutant."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from dataclasses import replace

import pytest
from xnfs_trials.crash.choices import QUICK
from xnfs_trials.crash.explore import Stats, Trial, explore
from xnfs_trials.crash.ffstrial import FfsTrial
from xnfs_trials.crash.states import Cutter
from xnfs_trials.crash.workload import random_ops

from libfs.posix.interface import FsError
from tests.crash.mutants import MUTANTS, Mutant
from tests.crash.toytrial import ToyTrial
from xnfs import XnError


def toy(seed: int) -> Trial:
    """System calls on the toy file system."""
    return ToyTrial(seed, 40)


def second_life(seed: int, *, cut_at: int = 200) -> Trial:
    """The same on a disk that a power cut left; the first workload ran on a sound kernel."""
    rng = random.Random(seed)
    image = some_state(toy(seed), rng, cut_at)
    return ToyTrial(seed + 1, 40, start=image)


def collecting(seed: int) -> Trial:
    """A second life, with the collector at work most of the time."""
    image = some_state(toy(seed), random.Random(seed), 200)
    return ToyTrial(seed + 1, 90, start=image, mode=-1)


def some_state(trial: Trial, rng: random.Random, most: int) -> Mapping[int, bytes]:
    """One of the disks that a power cut may leave."""
    last = rng.randrange(1, most)
    image: Mapping[int, bytes] = {}
    cutter = Cutter(trial.base, trial.events, rng, replace(QUICK, samples=4, torn=1))
    for number, state in enumerate(cutter.states(trial.asks)):
        image = state.image
        if number == last:
            break
    return dict(image)


def ffs(seed: int, length: int = 40) -> Trial:
    """FFS, with few frames and a small log."""
    rng = random.Random(seed)
    return FfsTrial(
        random_ops(rng, length),
        frames=rng.choice((64, 128, 512)),
        log_blocks=rng.choice((16, 32, None)),
        blocks=rng.choice((256, 512)),
    )


TRIALS = {"toy": toy, "second": second_life, "collecting": collecting, "ffs": ffs}


STATES, TRIALS_EACH = 9000, 300


def crash_run(kind: str, seeds: range, *, mount_every: int, samples: int = 8) -> Stats:
    """Many trials of one kind; stops at the first failure."""
    total = Stats()
    for seed in seeds:
        trial = TRIALS[kind](seed)
        plan = replace(QUICK, samples=samples)
        total.add(explore(trial, seed, plan=plan, mount_every=mount_every))
        if total.failures:
            break
    return total


def hunt(mutant: Mutant, *, states: int, trials: int) -> tuple[bool, int, str]:
    """Look for a state that shows the mutant: (killed, unique states looked at, how it showed)."""
    looked = 0
    for seed in range(trials):
        try:
            trial = _mutated(mutant, seed)
        except (XnError, FsError, AssertionError) as error:
            # The kernel's own checks met the mutant first. That is a kill, too.
            return True, looked, f"the workload failed: {type(error).__name__}: {error}"
        with pytest.MonkeyPatch.context() as patch:
            if mutant.mount:
                mutant.mount(patch)
            try:
                stats = explore(
                    trial,
                    seed,
                    mount_every=4,
                    plan=replace(QUICK, samples=3, torn=1, exhaustive=3),
                    limit=states - looked,
                )
            except (XnError, FsError, AssertionError) as error:
                return True, looked, f"the mount failed: {type(error).__name__}: {error}"
        looked += stats.unique
        if stats.failures:
            return True, looked, next(_reasons(stats), "?")
        if looked >= states:
            break
    return False, looked, "survived"


def table() -> Iterator[str]:
    """The mutants and what killed each, as a table for the docs."""
    yield "# Rules switched off, and what the crash tests saw\n"
    yield "Made by `python -m tests.crash.campaign`. Each mutant replaces a part of the kernel from"
    yield "outside; `tests/crash/mutants.py` says how. States: different disks looked at before"
    yield "one was wrong.\n"
    yield "| mutant | what is off | states | how it showed |\n|---|---|---|---|"
    for mutant in MUTANTS:
        killed, looked, why = hunt(mutant, states=STATES, trials=TRIALS_EACH)
        how = why[:90].replace("|", "/") if killed else "**survived**"
        yield f"| {mutant.name} | {mutant.rule} | {looked} | {how} |"


def _reasons(stats: Stats) -> Iterator[str]:
    yield from stats.failures[0].wrong


def _mutated(mutant: Mutant, seed: int) -> Trial:
    """The trial, run on the mutated kernel. What a first life leaves comes from a sound one."""
    if mutant.trial == "collecting":
        image = some_state(toy(seed), random.Random(seed), 200)
        with pytest.MonkeyPatch.context() as patch:
            if mutant.run:
                mutant.run(patch)
            return ToyTrial(seed + 1, 90, start=image, mode=-1)
    with pytest.MonkeyPatch.context() as patch:
        if mutant.run:
            mutant.run(patch)
        trial = TRIALS[mutant.trial](seed)
    if mutant.disk:
        trial.events = mutant.disk(trial.events)
    return trial


if __name__ == "__main__":
    for line in table():
        print(line, flush=True)
