"""Cut the power everywhere: nothing is broken, nothing synced is lost, whatever was written or
not."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from xnfs_trials.crash.choices import QUICK
from xnfs_trials.crash.explore import explore
from xnfs_trials.crash.ffstrial import FfsTrial
from xnfs_trials.crash.workload import KINDS, Op

from tests.crash.campaign import crash_run

#: kind of trial, trials in a default run, in a slow one
RUNS = [("toy", 48, 1500), ("second", 24, 600), ("collecting", 16, 600), ("ffs", 20, 700)]


@pytest.mark.parametrize(("kind", "few", "many"), RUNS, ids=[r[0] for r in RUNS])
def test_crash(kind: str, few: int, many: int) -> None:
    stats = crash_run(kind, range(few), mount_every=16, samples=5)
    print(kind, stats)
    assert not stats.failures, stats.failures[0]
    assert stats.unique > 100 * few // 4


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(("kind", "few", "many"), RUNS, ids=[r[0] for r in RUNS])
def test_crash_campaign(kind: str, few: int, many: int) -> None:
    stats = crash_run(kind, range(1000, 1000 + many), mount_every=16)
    print(kind, stats)
    assert not stats.failures, stats.failures[0]


number = st.integers(0, 255)
ops: st.SearchStrategy[list[Op]] = st.lists(
    st.tuples(st.sampled_from(list(KINDS)), number, number, number), min_size=1, max_size=25
)


@settings(max_examples=12)
@given(ops=ops)
def test_crash_ffs_any_sequence(ops: list[Op]) -> None:
    """The same with sequences that hypothesis chooses, and shrinks."""
    trial = FfsTrial(ops, blocks=256, log_blocks=16)
    plan = replace(QUICK, samples=3, torn=1, exhaustive=4)
    stats = explore(trial, len(ops), plan=plan, mount_every=32)
    assert not stats.failures, stats.failures[0]


def test_crash_one_operation() -> None:
    """Each operation alone, between two syncs, every state mounted."""
    before: list[Op] = [("create", 0, 1, 0), ("write", 0, 0, 3), ("mkdir", 0, 2, 0)]
    before += [("create", 1, 3, 0), ("setxattr", 0, 0, 9), ("sync", 0, 0, 0)]
    for kind in KINDS:
        trial = FfsTrial([*before, (kind, 1, 4, 5), ("fsync", 1, 0, 0)], blocks=256, log_blocks=16)
        plan = replace(QUICK, samples=4, torn=1)
        stats = explore(trial, 1, plan=plan, mount_every=4)
        assert not stats.failures, f"{kind}: {stats.failures[0]}"
