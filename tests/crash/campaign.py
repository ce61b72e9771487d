"""Runs of many trials: which workloads, how many states, with or without a mutant."""

from __future__ import annotations

import random
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import count

import pytest
from xnfs_trials.crash.choices import QUICK
from xnfs_trials.crash.explore import Stats, Trial, explore
from xnfs_trials.crash.ffstrial import FfsTrial
from xnfs_trials.crash.ops import parse_name
from xnfs_trials.crash.states import Cutter
from xnfs_trials.crash.trial import PosixTrial
from xnfs_trials.crash.workload import random_ops

from libfs.posix.interface import FsError
from tests.crash.mutants import RULES, Mutant
from tests.crash.mutants_device import DEVICES
from tests.crash.mutants_partly import PARTLY
from tests.crash.mutants_strict import STRICT
from tests.crash.toyops import MODES
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
    return ToyTrial(seed + 1, 90, start=image, mode=MODES[-1])


def replacing(seed: int) -> Trial:
    """Pointers moved over others, and blocks taken again at once."""
    return ToyTrial(seed, 40, mode="replace replace replace replace data leaf some some hasty")


def sharing(seed: int) -> Trial:
    """Blocks with several owners, and what happens beside them."""
    return ToyTrial(seed, 40, mode=MODES[4] + " share share share free free some")


def tails(seed: int) -> Trial:
    """Data overwritten right after they were synced."""
    return ToyTrial(seed, 40, mode=MODES[6])


def tails_again(seed: int) -> Trial:
    """The same in a second life."""
    image = some_state(tails(seed), random.Random(seed), 200)
    return ToyTrial(seed + 1, 40, start=image, mode=MODES[6])


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


MUTANTS = (*RULES, *PARTLY, *STRICT, *DEVICES)
TRIALS = {
    "toy": toy,
    "second": second_life,
    "collecting": collecting,
    "replacing": replacing,
    "sharing": sharing,
    "tails": tails,
    "tails again": tails_again,
    "ffs": ffs,
}


#: within so many states, or so many seconds of the processor, a mutant must be killed
STATES, SECONDS = 1000, 10.0


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


@dataclass(frozen=True)
class Hunt:
    """What became of a mutant: how many different disks were looked at, for how long, and what was
    wrong with the last one ("" = it survived)."""

    states: int
    seconds: float
    how: str


def hunt(mutant: Mutant, *, states: int = STATES, seconds: float = SECONDS) -> Hunt:
    """Look for a disk that shows the mutant, until so many were seen and so much time is over."""
    begin, looked = time.process_time(), 0
    for seed in count(mutant.first):
        how = ""
        try:
            trial = _mutated(mutant, seed)
        except (XnError, FsError, AssertionError) as error:
            # The kernel's own checks, or the lack of what it must do, met the mutant first.
            how = f"the workload fails: {type(error).__name__}: {error}"
        else:
            with pytest.MonkeyPatch.context() as patch:
                if mutant.mount:
                    mutant.mount(patch)
                stats = explore(
                    trial,
                    seed,
                    mount_every=4,
                    plan=replace(QUICK, samples=3, torn=1, exhaustive=3, depth=mutant.depth),
                    limit=max(1, states - looked),
                )
            looked += stats.checked
            how = next((text for failure in stats.failures for text in failure.wrong), "")
        spent = time.process_time() - begin
        if how or (looked >= states and spent >= seconds):
            return Hunt(looked, spent, how)
    raise AssertionError("there is no last seed")


def _mutated(mutant: Mutant, seed: int) -> Trial:
    """The trial, run on the mutated kernel. What a first life leaves comes from a sound one."""
    if mutant.trial == "collecting":
        image = some_state(toy(seed), random.Random(seed), 200)
        with pytest.MonkeyPatch.context() as patch:
            if mutant.run:
                mutant.run(patch)
            return ToyTrial(seed + 1, 90, start=image, mode=MODES[-1])
    if mutant.trial not in TRIALS:
        PosixTrial("ffs", parse_name(mutant.trial))  # what it begins on comes from a sound kernel
    with pytest.MonkeyPatch.context() as patch:
        if mutant.run:
            mutant.run(patch)
        trial = _trial(mutant.trial, seed)
    if mutant.disk:
        trial.events = mutant.disk(trial.events)
    return trial


def _trial(kind: str, seed: int) -> Trial:
    if kind in TRIALS:
        return TRIALS[kind](seed)
    return PosixTrial("ffs", parse_name(kind), seed=seed)
