"""What looks at disks have shown so far, for one workload or for many.

Trials that share say so (`Sharing`); what is known of a disk then serves all of them. Recoveries
are the same for everybody: they depend on the disk and the kernel alone.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from xnfs_trials.crash.model import Cut
from xnfs_trials.crash.prune import Bounded, ReadTree
from xnfs_trials.crash.recovery import Recovery
from xnfs_trials.crash.states import State


@runtime_checkable
class Sharing(Protocol):
    """A trial that shares verdicts with others."""

    family: Hashable  # trials of one family have the same `inspect`

    def oracle(self, cut: Cut) -> Hashable:
        """What the promise depends on besides what is shown: equal values, equal answers."""


@dataclass(slots=True)
class Verdict:
    """What one look at a disk has shown."""

    number: int
    broken: list[str]
    shown: object
    recovery: Recovery


class Memo:
    """Verdicts and answers so far, of at most `most` disks for each family of trials."""

    def __init__(self, most: int = 20_000) -> None:
        self.most = most
        self.families: dict[Hashable, Known] = {}
        self.recoveries: ReadTree[Recovery] = ReadTree()

    def known(self, trial: object) -> Known:
        """What is known to trials like this one; of one that does not share, nothing."""
        if not isinstance(trial, Sharing):
            return Known(self.most)
        return self.families.setdefault(trial.family, Known(self.most))


class Known:
    """What trials of one family have found out."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.keys: Bounded[int, Verdict] = Bounded(8 * most)
        self.tree: ReadTree[Verdict] = ReadTree()
        self.answers: Bounded[tuple[int, Hashable], list[str]] = Bounded(8 * most)
        self.count = 0

    def find(self, state: State) -> Verdict | None:
        """The verdict that a state shares with one before it."""
        verdict = self.keys.get(state.key)
        if verdict is None and (verdict := self.tree.find(state.digest)) is not None:
            self.keys.put(state.key, verdict)
        return verdict

    def add(self, state: State, reads: tuple[int, ...] | None, verdict: Verdict) -> None:
        """Remember. Raises Impure."""
        self.keys.put(state.key, verdict)
        if self.tree.size >= self.most:
            self.tree = ReadTree()
        if reads is not None:
            self.tree.add(reads, state.digest, verdict)
