"""A machine for hypothesis: operations, flushes, evictions, faults, cuts and remounts in any order.

    class TestFfs(machine_of("ffs").TestCase): ...

Each step is an operation on a small name space, or the power goes: then the states that the cut
could have left are looked at as in any trial, and life goes on with one of them, which the model
takes as its new beginning. Hypothesis draws the steps, and shrinks them.

Needs hypothesis, which the trials otherwise do not.
"""

from __future__ import annotations

import random

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from xnfs_trials.crash.base import Shape, base_for
from xnfs_trials.crash.choices import Plan
from xnfs_trials.crash.explore import explore
from xnfs_trials.crash.ops import KINDS, Op
from xnfs_trials.crash.soak import one
from xnfs_trials.crash.subject import Subject, load
from xnfs_trials.crash.trial import Session

DIRS = ("", "A/", "B/")
NAMES = ("foo", "bar")
SHAPE = Shape()
#: What is looked at when the power goes.
PLAN = Plan(exhaustive=3, near=1, samples=2, torn=1, depth=1, states=40)

_kinds = st.sampled_from([k for k in KINDS if k not in ("sync", "evict", "writeback", "collect")])
_seeds = st.integers(0, (1 << 16) - 1)


class CrashMachine(RuleBasedStateMachine):
    """One life of a file system, with cuts in it."""

    subject: Subject

    @initialize()
    def begin(self) -> None:
        """An empty file system."""
        self.base = base_for(self.subject, (), SHAPE)
        self.session = Session(self.subject, SHAPE, self.base)
        for name in ("A", "B"):
            self.session.runner.apply(Op("mkdir", name))

    @rule(kind=_kinds, seed=_seeds)
    def operation(self, kind: str, seed: int) -> None:
        """One operation; what does not fit is skipped."""
        self.session.runner.apply(one(random.Random(seed), kind, DIRS, NAMES))

    @rule()
    def flush(self) -> None:
        """Make everything durable."""
        self.session.runner.apply(Op("sync"))

    @rule(n=_seeds)
    def evict(self, n: int) -> None:
        """Some clean pages go."""
        self.session.runner.apply(Op("evict", size=n))

    @rule(n=_seeds)
    def write_back(self, n: int) -> None:
        """Some dirty pages are written, in whatever order, and nothing is flushed."""
        self.session.runner.apply(Op("writeback", size=n))

    @rule(n=_seeds)
    def collect(self, n: int) -> None:
        """A few steps of the collector, if a cut may have left leaks."""
        self.session.runner.apply(Op("collect", size=n))

    @rule(flushes=st.integers(0, 2))
    def fault(self, flushes: int) -> None:
        """One of the next flushes fails, and forgets what it was for."""
        if not self.session.lossy.struck:
            self.session.lose(flushes)

    @rule()
    def remount(self) -> None:
        """Unmount in order, if the disk is sound, and mount again."""
        session = self.session
        if session.lossy.fail_at is not None:
            return
        session.runner.apply(Op("sync"))
        self._go_on(random.Random(0), last=True)

    @rule(seed=_seeds)
    def crash(self, seed: int) -> None:
        """The power goes: look at what may be left, and go on with some of it."""
        self._go_on(random.Random(seed), last=False)

    def _go_on(self, rng: random.Random, *, last: bool) -> None:
        """From one of the states: the last one, in which everything is durable, or any."""
        session = self.session
        session.stop()
        stats = explore(session, 1, plan=PLAN, mount_every=16, workload="machine")
        assert not stats.failures, str(stats.failures[0])
        self.session = session.after_cut(rng, PLAN, last=last)

    def teardown(self) -> None:
        """What has happened since the last cut is looked at, too."""
        if hasattr(self, "session"):
            self._go_on(random.Random(0), last=True)


def machine_of(spec: str) -> type[CrashMachine]:
    """The machine of a subject."""
    return type("Machine", (CrashMachine,), {"subject": load(spec)})
