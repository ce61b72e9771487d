"""What looks at disks have shown so far, for one workload or for many.

Trials that share say so (`Sharing`); what is known of a disk then serves all of them. Recoveries
are the same for everybody: they depend on the disk and the kernel alone.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
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
class Judged:
    """What the bytes show once recovery is over: `broken` rules, and what is `shown`. `reads`: what
    that depends on; None: everything."""

    number: int
    broken: list[str]
    shown: object
    reads: tuple[int, ...] | None


@dataclass(slots=True)
class Verdict:
    """What one look at a disk has shown. `below`: verdicts on what its recovery leaves if cut."""

    number: int
    broken: list[str]
    judged: Judged
    recovery: Recovery
    below: dict[int, Verdict] = field(default_factory=dict)


class Memo:
    """Verdicts and answers so far, of at most `most` disks for each family of trials, and as many
    recoveries. `checked`, `mounted`, `audited`: how many disks, in all trials together."""

    def __init__(self, most: int = 8000) -> None:
        self.most = most
        self.checked = self.mounted = self.audited = 0
        self.families: dict[Hashable, Known] = {}
        self._recoveries: ReadTree[Recovery] = ReadTree()

    def known(self, trial: object) -> Known:
        """What is known to trials like this one; of one that does not share, nothing."""
        if not isinstance(trial, Sharing):
            return Known(self.most)
        return self.families.setdefault(trial.family, Known(self.most))

    def recovery(self, digests: Mapping[int, int]) -> Recovery | None:
        """What recovery did to a disk that agrees with this one on all that it read."""
        return self._recoveries.find(digests)

    def recovered(self, digests: Mapping[int, int], recovery: Recovery) -> None:
        """Remember. Raises Impure."""
        if self._recoveries.size >= self.most:
            self._recoveries = ReadTree()
        if recovery.reads is not None:
            self._recoveries.add(recovery.reads, digests, recovery)


class Known:
    """What trials of one family have found out. When it is too much all is forgotten."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.count = 0
        self.keys: Bounded[int, Verdict] = Bounded(16 * most)
        #: by the number of a verdict, and by that of what is shown
        self.answers: Bounded[tuple[int, Hashable], list[str]] = Bounded(8 * most)
        self.promises: Bounded[tuple[int, Hashable], list[str]] = Bounded(8 * most)
        self._tree: ReadTree[Verdict] = ReadTree()
        self._judged: ReadTree[Judged] = ReadTree()
        self._forget_at = most

    def same(self, state: State) -> Verdict | None:
        """The verdict on this very image, or on one that was found to be alike."""
        return self.keys.get(state.key)

    def alike(self, state: State) -> Verdict | None:
        """The verdict on an image that agrees with this one on all that was read."""
        verdict = self._tree.find(state.digest)
        if verdict is not None:
            self.keys.put(state.key, verdict)
        return verdict

    def judged(self, digests: Mapping[int, int]) -> Judged | None:
        """What a recovered disk showed that agrees with this one on all that was read."""
        return self._judged.find(digests)

    def judge(self, digests: Mapping[int, int], judged: Judged) -> None:
        """Remember. Raises Impure."""
        if self._judged.size >= self.most:
            self._judged = ReadTree()
        if judged.reads is not None:
            self._judged.add(judged.reads, digests, judged)

    def add(self, state: State, reads: tuple[int, ...] | None, verdict: Verdict) -> None:
        """Remember. Raises Impure."""
        if self.count >= self._forget_at:
            self.keys, self._tree = Bounded(16 * self.most), ReadTree()
            self._forget_at = self.count + self.most
        self.keys.put(state.key, verdict)
        if reads is not None:
            self._tree.add(reads, state.digest, verdict)
