"""A failure made small: fewer operations, then the earliest cut that shows it, with the fewest
writes lost.

What counts as the same failure: the first thing that is wrong has the same oracle (and the same
rule, where it names one). The result is a failure like any other, with a seed and a workload that
show it again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

from xnfs_trials.crash.base import Shape
from xnfs_trials.crash.choices import QUICK, Plan
from xnfs_trials.crash.explore import Failure, explore
from xnfs_trials.crash.ops import Op, name_of, parse_name
from xnfs_trials.crash.subject import Subject
from xnfs_trials.crash.trial import PosixTrial

#: Failures of one workload that are compared, to find the simplest.
COMPARED = 64


@dataclass(frozen=True)
class Setting:
    """How a workload is run and looked at: all that a failure depends on besides the operations."""

    subject: Subject | str
    seed: int = 0
    plan: Plan = QUICK
    shape: Shape = field(default_factory=Shape)
    without: Collection[str] = ()
    lose: int | None = None
    mount_every: int = 1


def failures(setting: Setting, ops: Sequence[Op], stop_at: int = 1) -> list[Failure]:
    """What is wrong with a workload. Whatever the file system raises is a failure, too."""
    name = name_of(ops)
    try:
        trial = PosixTrial(
            setting.subject,
            ops,
            shape=setting.shape,
            without=setting.without,
            seed=setting.seed,
            lose=setting.lose,
        )
    except Exception as error:  # the subject's own code: anything may come
        wrong = f"{type(error).__name__}: {error}"
        text = "the workload itself fails"
        lines = [str(op) for op in ops]
        return [Failure(setting.seed, name, lines, 0, 0, text, [wrong], [], (), None, {})]
    return explore(
        trial,
        setting.seed,
        plan=setting.plan,
        mount_every=setting.mount_every,
        stop_at=stop_at,
        workload=name,
    ).failures


def kind_of(failure: Failure) -> str:
    """What makes two failures the same: `O1 R4`, `O3`, or the name of an exception."""
    return failure.wrong[0].split(":")[0] if failure.wrong else ""


def shrink(failure: Failure, setting: Setting, *, seconds: float = 10.0) -> Failure:
    """A smaller failure of the same kind, or this one if none is found in the time given."""
    deadline = time.monotonic() + seconds
    want = kind_of(failure)
    best = failure

    def fails(ops: Sequence[Op]) -> bool:
        nonlocal best
        if time.monotonic() > deadline or not ops:
            return False
        found = [f for f in failures(setting, ops) if kind_of(f) == want]
        if found:
            best = found[0]
        return bool(found)

    ops = _fewer(parse_name(failure.workload), fails)
    if time.monotonic() < deadline and ops:
        found = [f for f in failures(setting, ops, COMPARED) if kind_of(f) == want]
        best = min(found, key=_size, default=best)
    return best


def _fewer(ops: list[Op], fails: Callable[[Sequence[Op]], bool]) -> list[Op]:
    """Leave out as much as still fails: halves, then quarters, down to single operations."""
    step = max(1, len(ops) // 2)
    while True:
        at = len(ops) - step
        while at > -step:
            fewer = ops[: max(at, 0)] + ops[max(at, 0) + step :]
            if len(fewer) < len(ops) and fails(fewer):
                ops = fewer
            at -= step
        if step == 1:
            return ops
        step //= 2


def _size(failure: Failure) -> tuple[int, bool, int]:
    return failure.event, failure.torn is not None, len(failure.lost)
