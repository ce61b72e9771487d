"""The loop: run a workload once, then look at every disk that a power cut could have left.

A `Trial` knows a file system; this knows none. Every disk that is looked at is recovered by the
real code and judged by the trial's oracles; a disk that must look like one before is not looked at
again (`prune.py`), but for a hundredth of them, as an audit. The promise is asked for again where
the cut or the last sync is another. Recovery may be cut, too.
"""

from __future__ import annotations

import random
import time
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Protocol

from xnfs import MemoryDevice
from xnfs.disk.recording import RecordingDevice
from xnfs_trials.crash.choices import QUICK, Plan
from xnfs_trials.crash.memo import Memo, Sharing, Verdict
from xnfs_trials.crash.model import Cut
from xnfs_trials.crash.prune import View
from xnfs_trials.crash.rawdisk import RawDisk, read_super
from xnfs_trials.crash.recovery import Recovery, after, collecting, recover
from xnfs_trials.crash.states import (
    NEVER,
    Cutter,
    Event,
    Flush,
    State,
    Write,
    image_digests,
    image_key,
)

#: of the states that were pruned, so many are looked at all the same
AUDIT = 0.01


class Trial(Protocol):
    """One workload that has run, and what there is to say of the disks it may leave."""

    base: dict[int, bytes]
    events: list[Event]
    marks: list[int]  # marks[v]: events before operation v+1
    asks: list[int]  # numbers of events after which a sync had returned

    def inspect(self, image: Mapping[int, bytes]) -> tuple[list[str], object]:
        """(what the raw bytes break, what they show): a function of the image alone."""

    def promise(self, shown: object, cut: Cut) -> list[str]:
        """What should be there and is not."""

    def mount(self, image: dict[int, bytes], shown: object) -> list[str]:
        """Mount with the real code, look, use, unmount: what goes wrong. Also independent of the
        cut."""

    def describe(self) -> list[str]:
        """The operations, for a failure."""


@dataclass
class Failure:
    """A disk that a power cut may leave, and what is wrong with it."""

    seed: int
    workload: str
    ops: list[str]  # all of them, one line each
    event: int  # the cut is after so many events
    version: int  # in the middle of this operation
    label: str
    wrong: list[str]
    events: Sequence[Event]  # all of them: what was written and flushed
    lost: tuple[int, ...]  # indices of the unflushed writes that did not reach the disk
    torn: tuple[int, int] | None  # (index of a write, mask of its sectors that did)
    image: dict[int, bytes]
    before: Failure | None = None  # for a cut during recovery: the cut that recovery followed

    def __str__(self) -> str:
        recent = self.events[max(0, self.event - 24) : self.event]
        lines = [
            f"seed {self.seed}, {self.workload or 'workload'}: cut after event {self.event} in"
            f" operation {self.version}: {self.label}",
            *(f"  wrong: {text[:400]}" for text in self.wrong[:6]),
            "  last events: "
            + " ".join("flush" if isinstance(e, Flush) else str(e.block) for e in recent),
            *(f"  op {op[:120]}" for op in self.ops[max(0, self.version - 12) : self.version + 1]),
        ]
        return "\n".join(lines)


@dataclass
class Stats:
    """What a run has looked at. Only `checked` counts: different disks that recovery and the
    oracles have seen, each once."""

    generated: int = 0  # states made
    pruned: int = 0  # of these: proved to be like one that was checked
    checked: int = 0  # of these: looked at
    left_out: int = 0  # legal states of the plan that a limit kept from being made
    promises: int = 0
    mounted: int = 0
    recovered: int = 0  # recovery ran on the real code, or its reads were those of a run before
    audited: int = 0  # pruned ones that were checked all the same
    deeper: int = 0  # of the checked: cuts during a recovery
    seconds: float = 0.0
    failures: list[Failure] = field(default_factory=list)

    @property
    def unique(self) -> int:
        """The same as `checked`."""
        return self.checked

    @property
    def rate(self) -> float:
        """States checked in a second."""
        return self.checked / self.seconds if self.seconds else 0.0

    def __str__(self) -> str:
        return (
            f"{self.generated} states, {self.pruned} pruned, {self.checked} checked"
            f" ({self.deeper} deeper), {self.left_out} left out, {self.promises} promises asked,"
            f" {self.mounted} mounted, {self.audited} audited, {self.seconds:.1f} s"
            f" ({self.rate:.0f} checked/s), {len(self.failures)} failures"
        )

    def add(self, other: Stats) -> None:
        """Sum up several runs."""
        for each in fields(self):
            mine, theirs = getattr(self, each.name), getattr(other, each.name)
            setattr(self, each.name, mine + theirs)


def recorded(device: RecordingDevice) -> list[Event]:
    """The recording as writes and flushes."""
    out: list[Event] = []
    for index, e in enumerate(device.events):
        overlap = NEVER if e.done is None else e.done - index - 1
        if e.block is None:
            out.append(Flush(index, overlap=overlap))
        else:
            out.append(Write(e.block, e.data, index, overlap=overlap))
    return out


def contents(device: MemoryDevice) -> dict[int, bytes]:
    """The blocks of a disk in memory."""
    return dict(device._contents)


def explore(
    trial: Trial,
    seed: int,
    *,
    plan: Plan = QUICK,
    mount_every: int = 1,
    stop_at: int = 1,
    limit: int | None = None,
    workload: str = "",
    memo: Memo | None = None,
) -> Stats:
    """Look at the states of a trial. Stops after `stop_at` failures or `limit` checked states.

    `mount_every`: of the states checked each so many-th is also mounted, used up, collected and
    checked by fsck, and the writes of its collection are cut. `memo`: shared with other trials.
    """
    run = _Run(trial, seed, plan, mount_every, workload, memo or Memo())
    begin = time.perf_counter()
    for failure in run.all():
        if failure is not None:
            run.stats.failures.append(failure)
        if len(run.stats.failures) >= stop_at:
            break
        if limit is not None and run.stats.checked >= limit:
            break
    run.stats.left_out += run.cutter.left_out
    run.stats.seconds = time.perf_counter() - begin
    return run.stats


class _Run:
    """One exploration."""

    def __init__(
        self, trial: Trial, seed: int, plan: Plan, mount_every: int, workload: str, memo: Memo
    ) -> None:
        self.trial, self.seed, self.plan, self.workload = trial, seed, plan, workload
        self.mount_every = mount_every
        self.stats = Stats()
        self.memo, self.known = memo, memo.known(trial)
        self.blocks = read_super(trial.base, 1 + max(trial.base)).blocks
        self.audits = random.Random(f"audit {seed}")
        self.thirds = random.Random(f"third {seed}")
        self.asks = sorted(trial.asks)
        self._cut: Cut | None = None
        self._asked: Hashable = None
        self._told: set[tuple[int, Hashable]] = set()
        self._metadata = _metadata(trial.base, self.blocks)
        rng = random.Random(seed)
        self.cutter = Cutter(trial.base, trial.events, rng, plan, metadata=self._metadata)

    def all(self) -> Iterator[Failure | None]:
        """Look at each state; yield after each what is wrong with it."""
        for state in self.cutter.states(self.asks):
            version = bisect_left(self.trial.marks, state.event)
            yield from self._look(state, Cut(state.acked, version), self.trial.events, None)

    def _look(
        self,
        state: State,
        cut: Cut,
        events: Sequence[Event],
        before: Failure | None,
        depth: int = 1,
    ) -> Iterator[Failure | None]:
        self.stats.generated += 1
        verdict = self.known.find(state)
        wrong: list[str] = []
        fresh = verdict is None
        if verdict is None:
            self.stats.checked += 1
            self.stats.deeper += depth > 1
            verdict = self._inspect(state, wrong)
        else:
            self.stats.pruned += 1
        wrong += self._answer(verdict, cut)
        if not fresh and self.audits.random() < AUDIT:
            wrong += self._audit(state, verdict, cut)
        yield self._failure(state, cut, wrong, events, before) if wrong else None
        if fresh and not wrong:
            first = self._failure(state, cut, [], events, before)
            yield from self._deeper(state, verdict, cut, first, depth)

    # -- one disk

    def _inspect(self, state: State, wrong: list[str]) -> Verdict:
        """Recover and inspect a disk, now and then mount it too, and remember."""
        view = View(state.image)
        broken, shown = _guarded(self.trial, view)
        reads = view.reads
        recovery = self._recover(state.image, state.digest)
        wrong += self._recover_again(state, recovery)
        if not broken and not recovery.wrong and self.stats.checked % self.mount_every == 0:
            self.stats.mounted += 1
            wrong += self.trial.mount(dict(state.image), shown)
        view.detach()
        self.known.count += 1
        verdict = Verdict(self.known.count, [*broken, *recovery.wrong], shown, recovery)
        if reads is not None and recovery.reads is not None:
            reads = tuple(dict.fromkeys((*reads, *recovery.reads)))
        else:
            reads = None
        self.known.add(state, reads, verdict)
        return verdict

    def _recover(self, image: Mapping[int, bytes], digests: Mapping[int, int]) -> Recovery:
        """What the real code does to a disk when it opens it."""
        recovery = self.memo.recoveries.find(digests)
        if recovery is None:
            recovery = recover(image, self.blocks)
            if recovery.reads is not None:
                self.memo.recoveries.add(recovery.reads, digests, recovery)
            self.stats.recovered += 1
        return recovery

    def _recover_again(self, state: State, recovery: Recovery) -> list[str]:
        """A second recovery must find nothing to do."""
        if not recovery.events or recovery.wrong:
            return []
        image = after(state.image, recovery)
        again = self._recover(image, image_digests(image))
        return ["a second recovery wrote again"] if again.events else list(again.wrong)

    def _answer(self, verdict: Verdict, cut: Cut) -> list[str]:
        """What is wrong with a disk after this cut, where it has not been told yet."""
        out: list[str] = []
        # Of a broken disk nothing can be promised.
        question = verdict.number, None if verdict.broken else self._question(cut)
        answer = verdict.broken or self.known.answers.get(question)
        if answer is None:
            self.stats.promises += 1
            answer = self.trial.promise(verdict.shown, cut)
            self.known.answers.put(question, answer)
        if answer and question not in self._told:
            self._told.add(question)
            out += answer
        return out

    def _question(self, cut: Cut) -> Hashable:
        """What the promise depends on: the last sync that had returned, the operation under way."""
        if cut == self._cut:
            return self._asked
        self._cut, self._asked = cut, self._oracle(cut)
        return self._asked

    def _oracle(self, cut: Cut) -> Hashable:
        if isinstance(self.trial, Sharing):
            return self.trial.oracle(cut)
        at = bisect_right(self.asks, cut.event)
        return id(self.trial), self.asks[at - 1] if at else 0, cut.version

    def _audit(self, state: State, verdict: Verdict, cut: Cut) -> list[str]:
        """Look at a pruned disk all the same: is it what it was taken for?"""
        self.stats.audited += 1
        out = []
        if image_key(state.image) != state.key:
            out.append("the key of the image is not that of its bytes")
        image = dict(state.image)
        broken, shown = _guarded(self.trial, image)
        recovery = recover(image, self.blocks)
        if [*broken, *recovery.wrong] != verdict.broken:
            out.append(f"{[*broken, *recovery.wrong]} are broken, not {verdict.broken}")
        elif recovery.events != verdict.recovery.events:
            out.append("recovery wrote something else")
        elif not verdict.broken:
            if self.trial.promise(shown, cut) != self.trial.promise(verdict.shown, cut):
                out.append("it shows something else")
            if self.stats.audited % self.mount_every == 0:
                out += self.trial.mount(image, shown)
        return [f"audit: pruned, but {text}" for text in out]

    # -- cuts in a row

    def _deeper(
        self, state: State, verdict: Verdict, cut: Cut, first: Failure, depth: int
    ) -> Iterator[Failure | None]:
        """Cut the recovery that follows, and of every so many-th disk the collection, too."""
        if depth >= self.plan.depth + (self.thirds.random() < self.plan.third and depth == 2):
            return
        runs = [verdict.recovery.events]
        if depth == 1 and self.stats.checked % self.mount_every == 0:
            runs.append(collecting(state.image, self.blocks).events)
        plan = replace(self.plan, states=self.plan.again)
        for events in runs:
            if not events:
                continue
            cutter = Cutter(
                first.image,
                events,
                random.Random(f"{self.seed} {state.key}"),
                plan,
                metadata=self._metadata,
                known=state.digest,
            )
            for second in cutter.states():
                yield from self._look(second, cut, events, first, depth + 1)
            self.stats.left_out += cutter.left_out

    # -- for people

    def _failure(
        self,
        state: State,
        cut: Cut,
        wrong: list[str],
        events: Sequence[Event],
        before: Failure | None,
    ) -> Failure:
        return Failure(
            seed=self.seed,
            workload=self.workload,
            ops=self.trial.describe(),
            event=state.event,
            version=cut.version,
            label=state.label,
            wrong=wrong,
            events=events,
            lost=state.lost,
            torn=state.torn,
            image=dict(state.image),
            before=before,
        )


def _guarded(trial: Trial, image: Mapping[int, bytes]) -> tuple[list[str], object]:
    """An inspection that fails says so."""
    try:
        return trial.inspect(image)
    except Exception as error:
        return [f"can't be inspected: {type(error).__name__}: {error}"], None


def _metadata(base: Mapping[int, bytes], blocks: int) -> Callable[[Write], bool]:
    """Which writes are metadata: the kernel's areas, and what has a valid stamp."""
    raw = RawDisk(base, blocks)
    offsets = set(raw.stamp_offsets().values())

    def is_metadata(write: Write) -> bool:
        if not raw.in_data(write.block):
            return True
        return any(raw.stamp_ok(write.block, write.data, offset) for offset in offsets)

    return is_metadata
