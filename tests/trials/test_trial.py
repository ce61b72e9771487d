"""Trials of any file system: with its own reader and without, shrunk, soaked, and in hypothesis'
hands."""

from __future__ import annotations

import random

import pytest
from hypothesis import HealthCheck, settings
from xnfs_trials.crash import soak
from xnfs_trials.crash.choices import Plan
from xnfs_trials.crash.explore import Stats, explore
from xnfs_trials.crash.machine import machine_of
from xnfs_trials.crash.memo import Memo
from xnfs_trials.crash.ops import name_of, parse_name
from xnfs_trials.crash.shrink import Setting, failures, kind_of, shrink
from xnfs_trials.crash.subject import load
from xnfs_trials.crash.trial import PosixTrial, second_life

from tests.trials import liars
from tests.trials.liars import PLAIN, lying

SMALL = Plan(exhaustive=3, near=1, samples=2, torn=1, depth=1, states=40)


def test_subject_by_name() -> None:
    assert load("ffs").raw_walk is not None
    other = load("xnfs_trials.crash.subject:FfsSubject")
    assert other.mkfs is load("ffs").mkfs
    for spec in ("nothing", "no.such.module:Class", "xnfs:Missing", "xnfs:Xn"):
        with pytest.raises(ValueError, match="no file system"):
            load(spec)


@pytest.mark.parametrize(
    "name",
    [
        "replace A/foo bar; fsync bar; unlink bar; sync",
        "exchange A B; create A/foo; fsync A/foo",
        "mwrite foo 2048 8192; fdatasync foo; truncate foo 0; fsync foo",
        "setxattr foo 1 2048; link foo bar; fsync bar; removexattr bar 1; sync",
    ],
)
def test_trial_without_a_reader(name: str) -> None:
    """What any file system gets: its tree is read through a mount of each state."""
    stats = explore(PosixTrial(PLAIN, parse_name(name)), 1, plan=SMALL, mount_every=8)
    assert not stats.failures, stats.failures[0]
    assert stats.checked > 10


def test_trial_same_twice() -> None:
    ops = soak.short(random.Random(5))
    one, two = (PosixTrial("ffs", ops, seed=5) for _ in range(2))
    assert one.events == two.events
    assert one.marks == two.marks
    assert one.base == two.base


def test_second_life() -> None:
    """A cut, a mount, other operations with the collector at work, and every cut of those."""
    collected = 0
    for seed in range(6):
        rng = random.Random(seed)
        life = second_life("ffs", soak.short(rng), soak.short(rng), SMALL, seed=seed)
        collected += not life.xn.leaky
        stats = explore(life, seed, plan=SMALL, mount_every=8, limit=30)
        assert not stats.failures, stats.failures[0]
    assert collected


def test_second_life_writes_other_bytes() -> None:
    """Or a write that is lost would not be missed."""
    ops = parse_name("write foo 0 4096; sync")
    trial = PosixTrial("ffs", ops)
    life = trial.after_cut(random.Random(1), SMALL, last=True)
    life.runner.run(ops)
    datas = [next(n.data for n in t.model.live() if n.data) for t in (trial, life)]
    assert len(set(datas)) == 2


@pytest.mark.parametrize("seed", range(3))
def test_soak_short(seed: int) -> None:
    memo = Memo()
    for number in range(3 * seed, 3 * seed + 3):
        trial = PosixTrial("ffs", soak.short(random.Random(number)), seed=number)
        stats = explore(trial, number, plan=SMALL, mount_every=8, memo=memo)
        assert not stats.failures, stats.failures[0]


def test_mounts_are_counted_over_all_trials_of_a_memo() -> None:
    """A workload that finds fewer new disks than that would never mount one by itself."""
    memo, total = Memo(), Stats()
    for kind in ("create", "mkdir", "symlink"):
        trial = PosixTrial("ffs", parse_name(f"{kind} A/foo; sync"))
        total.add(explore(trial, 1, plan=SMALL, mount_every=6, memo=memo, limit=4))
    assert 0 < total.checked // 6 - 1 <= total.mounted <= total.checked // 6
    assert not total.failures


def test_soak_long_fills_the_disk() -> None:
    trial = PosixTrial("ffs", soak.long(random.Random(3)), seed=3)
    assert any("ENOSPC" in line for line in trial.describe())
    stats = explore(trial, 3, plan=SMALL, mount_every=8, limit=40)
    assert not stats.failures, stats.failures[0]


def test_shrink_leaves_what_matters() -> None:
    noise = (
        "create A/foo; write A/bar 0 4096; sync; rename foo B/bar; chmod A/foo 7; mkdir A/C; sync"
    )
    setting = Setting(lying(liars.RenamesInSteps), plan=SMALL)
    found = failures(setting, parse_name(noise))
    assert found
    small = shrink(found[0], setting)
    assert kind_of(small) == kind_of(found[0]) == "O4"
    assert small.workload == "rename foo B/bar"
    assert len(small.lost) <= len(found[0].lost)
    again = failures(setting, parse_name(small.workload))
    assert [kind_of(f) for f in again] == ["O4"]


def test_shrink_an_exception() -> None:
    def broken(fs: object) -> liars.Liar:
        raise RuntimeError("can't")

    setting = Setting(lying(broken), plan=SMALL)
    found = failures(setting, parse_name("create foo; create bar; sync"))
    assert kind_of(found[0]) == "RuntimeError"
    assert shrink(found[0], setting).wrong == ["RuntimeError: can't"]


def test_soak_names_are_workloads() -> None:
    ops = soak.long(random.Random(9))
    assert parse_name(name_of(ops)) == ops


Ffs = machine_of("ffs")
Ffs.TestCase.settings = settings(
    max_examples=6, stateful_step_count=15, deadline=None, suppress_health_check=list(HealthCheck)
)
TestFfsMachine = Ffs.TestCase
