"""A sync may run beside any request, so a commit may come between any two calls of the kernel that
the request makes. Here one comes before nearly every call that changes something."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest
from xnfs_trials.crash import ffstrial
from xnfs_trials.crash.choices import QUICK
from xnfs_trials.crash.explore import explore
from xnfs_trials.crash.ffstrial import FfsTrial
from xnfs_trials.crash.workload import random_ops

from xnfs import Caller, Xn


class Interrupting(Xn):
    """Commits everything before calls that change something."""

    _dice = random.Random(1)

    def _commit_now(self) -> None:
        if self._dice.random() < 0.7:
            super().sync(Caller(self.admin))

    def change(self, *args: Any, **kwargs: Any) -> None:
        self._commit_now()
        super().change(*args, **kwargs)

    def write_raw(self, *args: Any, **kwargs: Any) -> None:
        self._commit_now()
        super().write_raw(*args, **kwargs)

    def depend(self, *args: Any, **kwargs: Any) -> None:
        self._commit_now()
        super().depend(*args, **kwargs)

    def drop(self, *args: Any, **kwargs: Any) -> None:
        self._commit_now()
        super().drop(*args, **kwargs)


def run(seed: int, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = random.Random(seed)
    ops = random_ops(rng, count)
    with monkeypatch.context() as patch:
        patch.setattr(ffstrial, "Xn", Interrupting)
        trial = FfsTrial(ops, log_blocks=32)
    stats = explore(trial, seed, mount_every=16, plan=replace(QUICK, samples=3, torn=1))
    assert not stats.failures, stats.failures[0]


@pytest.mark.parametrize("seed", range(6))
def test_syncs_beside_requests(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    run(seed, 30, monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1000, 1100))
def test_syncs_beside_requests_long(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    run(seed, 40, monkeypatch)
