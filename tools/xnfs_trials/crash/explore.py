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
from dataclasses import replace
from typing import Protocol, TypeVar

from xnfs import MemoryDevice
from xnfs.disk.recording import RecordingDevice
from xnfs_trials.crash.choices import QUICK, Plan
from xnfs_trials.crash.findings import Failure, Stats
from xnfs_trials.crash.memo import Judged, Memo, Sharing, Verdict
from xnfs_trials.crash.model import Cut
from xnfs_trials.crash.prune import Impure, View
from xnfs_trials.crash.rawdisk import RawDisk, read_super
from xnfs_trials.crash.recovery import Recovery, collecting, recover
from xnfs_trials.crash.states import (
    NEVER,
    ZERO,
    Cutter,
    Event,
    Flush,
    State,
    Write,
    digest,
    image_key,
)

__all__ = ["Failure", "Stats", "Trial", "contents", "explore", "recorded"]

T = TypeVar("T")

#: of the states that were pruned, so many are looked at all the same
AUDIT = 0.01


class Trial(Protocol):
    """One workload that has run, and what there is to say of the disks it may leave."""

    base: dict[int, bytes]
    events: list[Event]
    marks: list[int]  # marks[v]: events before operation v+1
    asks: list[int]  # numbers of events after which a sync had returned

    def inspect(self, disk: RawDisk) -> tuple[list[str], object]:
        """(what the raw bytes break, what they show): a function of the bytes alone, as recovery
        must leave them."""

    def promise(self, shown: object, cut: Cut) -> list[str]:
        """What should be there and is not."""

    def mount(
        self, image: dict[int, bytes], recovered: Mapping[int, bytes], shown: object
    ) -> list[str]:
        """Mount with the real code, look, use, unmount: what goes wrong. Also independent of the
        cut. `recovered`: what recovery must make of the image."""

    def describe(self) -> list[str]:
        """The operations, for a failure."""


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
    checked by fsck (if that is not each, then sooner or later, one that shows something new), and
    the writes of its collection are cut. `memo`: shared with other trials, counts on over all
    of them: a small workload finds few disks that nobody has checked before.
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
        when, cut = (-1, -1), Cut(0, 0)
        for state in self.cutter.states(self.asks):
            if when != (state.event, state.acked):
                when = state.event, state.acked
                cut = Cut(state.acked, bisect_left(self.trial.marks, state.event))
            audit = self.audits.random() < AUDIT
            if not audit and self._is_fine(state, cut):  # most are, and this is the short way
                self.stats.generated += 1 + state.choice.alike
                self.stats.pruned += 1 + state.choice.alike
            else:
                yield from self._look(state, cut, self.trial.events, None, audit=audit)

    def _is_fine(self, state: State, cut: Cut) -> bool:
        """This very image is known, and with nothing wrong after this cut."""
        verdict = self.known.same(state)
        if verdict is None or verdict.broken:
            return False
        return self.known.answers.get((verdict.number, self._question(cut))) == []

    def _look(
        self,
        state: State,
        cut: Cut,
        events: Sequence[Event],
        before: Failure | None,
        above: Verdict | None = None,
        depth: int = 1,
        *,
        audit: bool,
    ) -> Iterator[Failure | None]:
        """`before`, `above`: what led to the recovery that was cut, if this is a second cut.
        `audit`: look also if it is pruned."""
        self.stats.generated += 1 + state.choice.alike
        self.stats.pruned += state.choice.alike
        verdict = self.known.same(state)
        alike = verdict is None
        if verdict is None:
            verdict = self.known.alike(state)
        wrong: list[str] = []
        fresh = verdict is None
        if verdict is None:
            self.stats.checked += 1
            self.memo.checked += 1
            self.stats.deeper += depth > 1
            verdict = self._inspect(state, wrong)
        else:
            self.stats.pruned += 1
        if above is not None:
            above.below[verdict.number] = verdict
        wrong += self._answer(verdict, cut)
        if audit and not fresh:
            wrong += self._audit(state, verdict, cut, alike=alike)
        yield self._failure(state, cut, wrong, events, before) if wrong else None
        if fresh and not wrong and self._goes_on(depth):
            yield from self._deeper(state, verdict, cut, events, before, depth)

    # -- asking the trial

    def _ask(self, image: Mapping[int, bytes]) -> tuple[list[str], object]:
        def look() -> tuple[list[str], object]:
            return self.trial.inspect(RawDisk(image, self.blocks))

        return _guarded("inspection", look, lambda texts: (texts, None))

    def _promise(self, shown: object, cut: Cut) -> list[str]:
        return _guarded("asking", lambda: self.trial.promise(shown, cut), list)

    def _mount(self, state: State, recovery: Recovery, shown: object) -> list[str]:
        image = dict(state.image)
        recovered = image | recovery.redone
        return _guarded("mount", lambda: self.trial.mount(image, recovered, shown), list)

    # -- one disk

    def _inspect(self, state: State, wrong: list[str]) -> Verdict:
        """Recover and inspect a disk, now and then mount it too, and remember."""
        recovery = self._recover(state.image, state.digest)
        wrong += self._recover_again(state, recovery)
        self.known.count += 1
        try:
            judged = self._judge(state, recovery)
            verdict = Verdict(self.known.count, [*judged.broken, *recovery.wrong], judged, recovery)
            self.known.add(state, _reads(recovery, judged), verdict)
        except Impure as error:
            judged = Judged(self.known.count, [], None, None)
            verdict = Verdict(self.known.count, [], judged, recovery)
            wrong.append(f"the inspection depends on more than the image: {error}")
        new = judged.number == verdict.number
        if not verdict.broken and not wrong and self._mount_this(new=new):
            self.stats.mounted += 1
            self.memo.mounted += 1
            wrong += self._mount(state, recovery, judged.shown)
        return verdict

    def _mount_this(self, *, new: bool) -> bool:
        due = self.memo.checked // self.mount_every - self.memo.mounted
        return due > 1 or (due == 1 and (new or self.mount_every == 1))

    def _judge(self, state: State, recovery: Recovery) -> Judged:
        """What the recovered disk shows. Raises Impure."""
        digests = state.digest
        if recovery.redone:
            digests = digests | {b: digest(b, data) for b, data in recovery.redone.items()}
        judged = self.known.judged(digests)
        if judged is None:
            self.stats.judged += 1
            view = View(recovery.over(state.image))
            broken, shown = self._ask(view)
            judged = Judged(self.known.count, broken, shown, view.reads)
            view.detach()
            self.known.judge(digests, judged)
        return judged

    def _recover(self, image: Mapping[int, bytes], digests: Mapping[int, int]) -> Recovery:
        """What the real code does to a disk when it opens it."""
        recovery = self.memo.recovery(digests)
        if recovery is None:
            recovery = recover(image, self.blocks)
            self.memo.recovered(digests, recovery)
            self.stats.recovered += 1
        return recovery

    def _recover_again(self, state: State, recovery: Recovery) -> list[str]:
        """A second recovery must change nothing."""
        if not recovery.events or recovery.wrong:
            return []
        written = {e.block: e.data for e in recovery.events if isinstance(e, Write)}
        digests = state.digest | {b: digest(b, data) for b, data in written.items()}
        image = state.image | written
        again = self._recover(image, digests)
        return list(again.wrong) + [
            f"a second recovery left other bytes in block {e.block}"
            for e in again.events
            if isinstance(e, Write) and e.data != image.get(e.block, ZERO)
        ]

    def _answer(self, verdict: Verdict, cut: Cut) -> list[str]:
        """What is wrong with a disk after this cut, where it has not been told yet; and with what
        is left if its recovery is cut."""
        out: list[str] = []
        # Of a broken disk nothing can be promised.
        question = verdict.number, None if verdict.broken else self._question(cut)
        answer = verdict.broken or self.known.answers.get(question)
        below: list[Verdict] = []
        if answer is None:
            answer = self._promised(verdict.judged, question[1], cut)
            self.known.answers.put(question, answer)
            below = list(verdict.below.values())
        if answer and question not in self._told:
            self._told.add(question)
            out += answer
        for each in below:  # after its own: what is wrong without a second cut is said so
            out += [f"if recovery is cut: {text}" for text in self._answer(each, cut)]
        return out

    def _promised(self, judged: Judged, asked: Hashable, cut: Cut) -> list[str]:
        """The same of what is shown, which many disks may show."""
        question = judged.number, asked
        answer = self.known.promises.get(question)
        if answer is None:
            self.stats.promises += 1
            answer = self._promise(judged.shown, cut)
            self.known.promises.put(question, answer)
        return answer

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

    def _audit(self, state: State, verdict: Verdict, cut: Cut, *, alike: bool) -> list[str]:
        """Look at a pruned disk all the same: is it what it was taken for? `alike`: it was not the
        same image, so that recovery is asked, too."""
        self.stats.audited += 1
        self.memo.audited += 1
        out = []
        if image_key(state.image) != state.key:
            out.append("the key of the image is not that of its bytes")
        image = dict(state.image)
        recovery = recover(image, self.blocks) if alike else verdict.recovery
        broken, shown = self._ask(image | recovery.redone)
        if [*broken, *recovery.wrong] != verdict.broken:
            out.append(f"{[*broken, *recovery.wrong]} are broken, not {verdict.broken}")
        elif recovery.events != verdict.recovery.events:
            out.append("recovery wrote something else")
        elif not verdict.broken:
            if self._promise(shown, cut) != self._promise(verdict.judged.shown, cut):
                out.append("it shows something else")
            if self.memo.audited % self.mount_every == 0:
                out += self._mount(state, recovery, shown)
        return [f"audit: pruned, but {text}" for text in out]

    # -- cuts in a row

    def _goes_on(self, depth: int) -> bool:
        """Is the recovery of a disk after so many cuts cut, too?"""
        third = depth == 2 and self.thirds.random() < self.plan.third
        return depth < self.plan.depth or third

    def _deeper(
        self,
        state: State,
        verdict: Verdict,
        cut: Cut,
        events: Sequence[Event],
        before: Failure | None,
        depth: int,
    ) -> Iterator[Failure | None]:
        """Cut the recovery that follows, and of every so many-th disk the collection, too."""
        runs = [verdict.recovery.events]
        if depth == 1 and self.memo.checked % self.mount_every == 0:
            runs.append(collecting(state.image, self.blocks))
        plan = replace(self.plan, states=self.plan.again, few=0)
        for run in filter(None, runs):
            first = self._failure(state, cut, [], events, before)
            cutter = Cutter(
                first.image,
                run,
                random.Random(f"{self.seed} {state.key}"),
                plan,
                metadata=self._metadata,
                known=state.digest,
            )
            for second in cutter.states():
                audit = self.audits.random() < AUDIT
                yield from self._look(second, cut, run, first, verdict, depth + 1, audit=audit)
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


def _reads(recovery: Recovery, judged: Judged) -> tuple[int, ...] | None:
    """What both depend on, in the order in which it was read."""
    if recovery.reads is None or judged.reads is None:
        return None
    rest = (block for block in judged.reads if block not in recovery.redone)
    return tuple(dict.fromkeys((*recovery.reads, *rest)))


def _guarded(what: str, look: Callable[[], T], failed: Callable[[list[str]], T]) -> T:
    """The result of a look; one that fails has found something."""
    try:
        return look()
    except Exception as error:
        return failed([f"{what} failed: {type(error).__name__}: {error}"])


def _metadata(base: Mapping[int, bytes], blocks: int) -> Callable[[Write], bool]:
    """Which writes are metadata: the kernel's areas, and what has a valid stamp."""
    raw = RawDisk(base, blocks)
    offsets = set(raw.stamp_offsets().values())

    def is_metadata(write: Write) -> bool:
        if not raw.in_data(write.block):
            return True
        return any(raw.stamp_ok(write.block, write.data, offset) for offset in offsets)

    return is_metadata
