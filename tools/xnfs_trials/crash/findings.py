"""What a run has looked at, and what it has found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields

from xnfs_trials.crash.states import Event, Flush


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
    judged: int = 0  # of the checked: whose bytes, once recovered, nobody had seen like that
    promises: int = 0
    mounted: int = 0  # of the checked: also mounted, used, emptied, collected and seen by fsck
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
            f" ({self.deeper} deeper, {self.judged} recovered ones differ, {self.mounted} mounted),"
            f" {self.left_out} left out, {self.promises} promises asked, {self.audited} audited,"
            f" {self.seconds:.1f} s"
            f" ({self.rate:.0f} checked/s), {len(self.failures)} failures"
        )

    def add(self, other: Stats) -> None:
        """Sum up several runs."""
        for each in fields(self):
            mine, theirs = getattr(self, each.name), getattr(other, each.name)
            setattr(self, each.name, mine + theirs)
