"""One workload on one file system: run, recorded, and every oracle ready to look at what is left.

`PosixTrial` is a `Trial` (`explore.py`) for any `Subject`: the image is tiny, with a canary in all
free blocks and a second file system among the first one's blocks (`base.py`); the operations run
through the POSIX layer, and on the model alike (`runner.py`); and what a cut leaves is judged by
the raw bytes, by the promise, and by a mount (`oracles.py`).

`Session` is the same while it is under way, for who wants to choose the next operation when he has
seen the last one (`machine.py`).
"""

from __future__ import annotations

import pickle
import random
from collections.abc import Collection, Hashable, Mapping, Sequence
from contextlib import suppress
from itertools import count

from libfs.posix import FsError
from xnfs import Caller, DeviceError, MemoryDevice, XnError
from xnfs.disk.recording import RecordingDevice
from xnfs_trials.crash.base import Base, Shape, base_for, open_subject
from xnfs_trials.crash.choices import Plan
from xnfs_trials.crash.explore import contents, recorded
from xnfs_trials.crash.lossy import LossyDevice
from xnfs_trials.crash.model import Cut, Model
from xnfs_trials.crash.ops import Op
from xnfs_trials.crash.oracles import Oracles
from xnfs_trials.crash.prepare import prepare
from xnfs_trials.crash.rawdisk import RawDisk
from xnfs_trials.crash.runner import Runner
from xnfs_trials.crash.states import Cutter, Event
from xnfs_trials.crash.subject import Subject, load
from xnfs_trials.crash.trees import Tree, read_tree

_numbers = count()


class Session:
    """A file system mounted on a recorded disk, beside its model. A `Trial` once it is stopped.

    `image`: where it starts, all of it durable; `model`: of that image. `without`: oracles that are
    switched off.
    """

    def __init__(
        self,
        subject: Subject,
        shape: Shape,
        base: Base,
        *,
        image: Mapping[int, bytes] | None = None,
        model: Model | None = None,
        without: Collection[str] = (),
        seed: int = 0,
    ) -> None:
        self.subject, self.shape = subject, shape
        self.model: Model = pickle.loads(base.model) if model is None else model
        self.oracles = Oracles(subject, self.model, base, shape, without)
        self._number = next(_numbers)
        self._disk = MemoryDevice(shape.blocks, dict(base.image if image is None else image))
        self._device = RecordingDevice(self._disk)
        self.lossy = LossyDevice(self._device)
        self.xn, self.posix = open_subject(subject, self.lossy, shape.frames)
        self._first = len(self._device.events)  # a mount's own writes are not the workload's
        self.base = contents(self._disk)
        self._seed = seed
        self.runner = Runner(
            self.posix,
            self.model,
            self._now,
            writeback=self._writeback,
            evict=self._evict,
            collect=self._collect,
        )
        self.marks = self.runner.marks
        self.events: list[Event] = []
        self.asks: list[int] = []
        self.trouble: list[str] = []

    def _now(self) -> int:
        return len(self._device.events) - self._first

    def _some(self, n: int) -> list[int]:
        rng = random.Random(self._seed << 32 | n)
        return [b for b in range(*self.xn.data_area) if rng.random() < 0.5]

    def _writeback(self, n: int) -> None:
        with suppress(DeviceError):  # after a failed flush nothing is written any more
            self.xn.writeback(Caller(self.xn.admin), self._some(n))

    def _evict(self, n: int) -> None:
        self.xn.evict(Caller(self.xn.admin), self._some(n))

    def _collect(self, n: int) -> None:
        if self.xn.leaky:
            with suppress(DeviceError):
                self.xn.collect(Caller(self.xn.admin), 1 + n % 4)

    def lose(self, flushes: int) -> None:
        """Let so many flushes pass; the next one fails, and its writes are lost."""
        self.lossy.fail_at = flushes

    def stop(self) -> None:
        """No more operations: from here on it can be explored."""
        self.events = recorded(self._device)[self._first :]
        acks = {e for n in self.model.nodes.values() for h in (n.acks, n.data_acks) for e in h.at}
        self.asks = sorted(acks | set(self.model.name_acks.at))
        # After a failed flush a file system may stop, and refuse whatever it is asked.
        trouble = [] if self.lossy.struck else self.runner.trouble + self._alive()
        trouble += self.oracles.left(self._disk)
        self.trouble = [text for text in trouble if text[:2] not in self.oracles.without]

    def _alive(self) -> list[str]:
        """Without any cut the file system shows the newest version of everything."""
        try:
            tree = read_tree(self.posix)
        except (FsError, XnError) as error:
            return [f"O4: the tree can't be read: {error} (before any cut)"]
        now = Cut(len(self.events), self.model.version)
        newest = self.model.newest()
        without = self.oracles.without | {"O3"}  # nothing has been cut
        return [f"{text} (before any cut)" for text in newest.explain(tree, now, without)]

    def after_cut(self, rng: random.Random, plan: Plan, *, last: bool = False) -> Session:
        """A second life: mounted on one of the disks that a cut of the first could have left (with
        `last`, on the one where everything is durable), with a model of what is there."""
        image, event = dict(self.base), 0
        cutter = Cutter(self.base, self.events, rng, plan)
        number = rng.randrange(64)
        for i, state in enumerate(cutter.states(self.asks)):
            image, event = dict(state.image), state.event
            if i == number and not last:
                break
        disk = RawDisk(image, self.shape.blocks)
        disk.recover()
        _, tree = self.inspect(disk)
        if not isinstance(tree, Tree):
            raise ValueError("nothing can be read after this cut")
        cut = Cut(event, sum(mark < event for mark in self.marks))
        model = self.model.rebased(tree, cut)
        without = self.oracles.without
        return Session(
            self.subject, self.shape, self.oracles.base, image=image, model=model, without=without
        )

    # -- as a Trial

    @property
    def family(self) -> Hashable:
        """Trials that look at bytes in the same way share what they have seen. One that has gone
        wrong by itself shares nothing."""
        alone = self._number if self.trouble else None
        return self.subject.spec, self.shape, self.oracles.without, alone

    def oracle(self, cut: Cut) -> Hashable:
        """What the promise depends on: the workload, the operation, and the last sync before."""
        last = max((a for a in self.asks if a <= cut.event), default=0)
        return self._number, last, cut.version

    def describe(self) -> list[str]:
        """The operations, with what became of each."""
        return self.runner.log

    def inspect(self, disk: RawDisk) -> tuple[list[str], object]:
        """What the bytes break, and what they show; and all that went wrong before any cut."""
        broken, tree = self.oracles.inspect(disk)
        return self.trouble + broken, tree

    def promise(self, shown: object, cut: Cut) -> list[str]:
        """O2, O3 and O4."""
        return self.oracles.promise(_tree(shown), cut)

    def mount(
        self, image: dict[int, bytes], recovered: Mapping[int, bytes], shown: object
    ) -> list[str]:
        """O5, and O6 once more."""
        return self.oracles.mount(image, recovered, _tree(shown))


def _tree(shown: object) -> Tree | None:
    assert shown is None or isinstance(shown, Tree)
    return shown


class PosixTrial(Session):
    """One sequence of operations, run and recorded, after what it needs (`prepare.py`).

    `lose`: let so many flushes pass, then fail one and forget its writes.
    """

    def __init__(
        self,
        subject: Subject | str,
        ops: Sequence[Op],
        *,
        shape: Shape = Shape(),  # noqa: B008 (frozen)
        without: Collection[str] = (),
        seed: int = 0,
        lose: int | None = None,
    ) -> None:
        subject = load(subject) if isinstance(subject, str) else subject
        self.setting, self.ops = prepare(ops)
        base = base_for(subject, tuple(self.setting), shape)
        super().__init__(subject, shape, base, without=without, seed=seed)
        if lose is not None:
            self.lose(lose)
        self.runner.run(self.ops)
        self.stop()


def second_life(
    subject: Subject | str,
    first: Sequence[Op],
    second: Sequence[Op],
    plan: Plan,
    *,
    seed: int = 0,
    without: Collection[str] = (),
) -> Session:
    """A cut in the first workload, and the second on what is left, stopped. What of it does not fit
    the tree that is left is skipped; the collector is at work in between."""
    trial = PosixTrial(subject, first, seed=seed, without=without)
    session = trial.after_cut(random.Random(seed), plan)
    for number, op in enumerate(second):
        session.runner.apply(op)
        session.runner.apply(Op("collect", size=number))
    session.stop()
    return session
