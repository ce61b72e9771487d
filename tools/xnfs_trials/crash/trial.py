"""One workload on one file system: run, recorded, and every oracle ready to look at what is left.

`PosixTrial` is a `Trial` for any `Subject`. The image is tiny, made once for each setting and
shared (blocks are immutable); free blocks hold a canary, and a second file system with known
content lies among the first one's blocks.

The raw bytes are judged by the oracles; what a mount of the real code shows must be what the bytes
show; and after that everything must still work. `oracles.py` has the list.
"""

from __future__ import annotations

import pickle
import random
from collections.abc import Collection, Sequence

from libfs.posix import FsError
from xnfs import Caller, MemoryDevice, XnError
from xnfs.disk.recording import RecordingDevice
from xnfs_trials.crash.base import Base, Shape, base_for, contents, open_subject
from xnfs_trials.crash.explore import recorded
from xnfs_trials.crash.model import Cut, Model
from xnfs_trials.crash.ops import Op, Runner
from xnfs_trials.crash.oracles import Oracles, Shown
from xnfs_trials.crash.prepare import prepare
from xnfs_trials.crash.states import Event
from xnfs_trials.crash.subject import Subject, load
from xnfs_trials.crash.trees import read_tree


class PosixTrial:
    """One sequence of operations, run and recorded. `without`: oracles that are switched off."""

    def __init__(
        self,
        subject: Subject | str,
        ops: Sequence[Op],
        *,
        shape: Shape = Shape(),  # noqa: B008 (frozen)
        without: Collection[str] = (),
        seed: int = 0,
    ) -> None:
        self.subject = load(subject) if isinstance(subject, str) else subject
        self.shape, self.without = shape, frozenset(without)
        self.setting, self.ops = prepare(ops)
        start = base_for(self.subject, tuple(self.setting), shape)
        self._run(start, seed)
        self.oracles = Oracles(self.subject, self.model, start, shape, self.without)

    def _run(self, start: Base, seed: int) -> None:
        self.model: Model = pickle.loads(start.model)
        disk = MemoryDevice(self.shape.blocks, dict(start.image))
        self.device = RecordingDevice(disk)
        self.xn, self.posix = open_subject(self.subject, self.device, self.shape.frames)
        first = len(self.device.events)  # a mount marks the image as in use: not the workload's
        self.base = contents(disk)
        xn, who = self.xn, Caller(self.xn.admin)

        def some(n: int) -> list[int]:
            rng = random.Random(seed << 32 | n)
            return [b for b in range(*xn.data_area) if rng.random() < 0.5]

        def evict(n: int) -> None:
            xn.evict(who, some(n))

        self.runner = Runner(
            self.posix,
            self.model,
            lambda: len(self.device.events) - first,
            writeback=lambda n: xn.writeback(who, some(n)),
            evict=evict,
        )
        self.runner.run(self.ops)
        self.marks = self.runner.marks
        self.events: list[Event] = recorded(self.device)[first:]
        acks = {e for n in self.model.nodes.values() for h in (n.acks, n.data_acks) for e in h.at}
        self.asks = sorted(acks)
        self.trouble = self.runner.trouble + self._alive()

    def _alive(self) -> list[str]:
        """Without any cut the file system shows the newest version of everything."""
        try:
            tree = read_tree(self.posix)
        except (FsError, XnError) as error:
            return [f"O4: the tree can't be read: {error}"]
        now = Cut(len(self.events), self.model.version)
        live = pickle.loads(pickle.dumps(self.model))
        live.ack(live.live(), now.event)
        return [f"O4: before any cut: {text}" for text in live.explain(tree, now)]

    def describe(self) -> list[str]:
        return self.runner.log

    def inspect(self, image: dict[int, bytes]) -> tuple[list[str], object]:
        """See `Trial`. What went wrong while the workload ran is said of the first state."""
        trouble, self.trouble = self.trouble, []
        broken, shown = self.oracles.inspect(image)
        return trouble + broken, shown

    def promise(self, shown: object, cut: Cut) -> list[str]:
        assert isinstance(shown, Shown)
        return self.oracles.promise(shown, cut)

    def mount(self, image: dict[int, bytes], shown: object) -> list[str]:
        assert isinstance(shown, Shown)
        return self.oracles.mount(image, shown)
