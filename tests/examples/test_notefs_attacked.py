"""NoteFs stands the power cuts; each of the mistakes is found, and soon."""

from __future__ import annotations

import pytest
from xnfs_trials.crash.campaign import Job, run_workload
from xnfs_trials.crash.explore import Failure
from xnfs_trials.crash.families import family

#: Workloads of two operations, in their scattered order, and disks of each.
WORKLOADS, STATES = 40, 60


def _first_failure(fs: str, most: int) -> Failure | None:
    job = Job(fs, states=STATES)
    for number, named in family("two", 0).part(0, most):
        failures = run_workload(job, named, number, mount_every=16).failures
        if failures:
            return failures[0]
    return None


def test_notefs_survives() -> None:
    assert _first_failure("examples.notefs:NoteFs", 20) is None


@pytest.mark.parametrize(
    ("mistake", "oracle"), [("Forgetful", "O3"), ("Hasty", "O3"), ("StepByStep", "O4")]
)
def test_notefs_mistakes_are_found(mistake: str, oracle: str) -> None:
    failure = _first_failure(f"examples.notefs_buggy:{mistake}", WORKLOADS)
    assert failure is not None
    assert failure.wrong[0].startswith(oracle)
