"""What the disk was told, and what became of it: the story of one failure.

`timeline` puts a failure together from its record: each operation, what it made the device do,
which of the writes were durable, were there by luck, were torn or lost when the power went, and
which never happened. `lines` tells it as text; `page.py` draws it. Nothing here judges.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final

from xnfs_trials.crash.explore import Failure
from xnfs_trials.crash.ops import Op
from xnfs_trials.crash.rawdisk import RawDisk, Unreadable
from xnfs_trials.crash.states import Event, Flush, Write

#: What became of a write.
DURABLE, KEPT, TORN, LOST, LATER = "durable", "kept", "torn", "lost", "later"
#: Of what comes after the cut so much is shown.
_AFTER: Final = 4

_PLAIN: Final = {
    "create": "create the file {path}",
    "mkdir": "make the directory {path}",
    "symlink": "make the symbolic link {path}",
    "link": "give {path} the second name {to}",
    "unlink": "delete {path}",
    "rmdir": "remove the directory {path}",
    "rename": "rename {path} to {to}",
    "replace": "rename {path} over {to}",
    "exchange": "exchange {path} and {to}",
    "write": "write {size} bytes to {path} at {at}",
    "overwrite": "write {size} bytes over those of {path} at {at}",
    "append": "append {size} bytes to {path}",
    "mwrite": "write {size} bytes to {path} at {at}, as through a mapping",
    "truncate": "cut or extend {path} to {size} bytes",
    "allocate": "allocate {size} bytes of {path} at {at}",
    "punch": "make a hole of {size} bytes in {path} at {at}",
    "zero": "zero {size} bytes of {path} at {at}",
    "chmod": "change the mode of {path}",
    "setxattr": "set attribute {at} of {path}, {size} bytes",
    "removexattr": "remove attribute {at} of {path}",
    "fsync": "fsync {path}",
    "fdatasync": "fdatasync {path}",
    "sync": "sync everything",
    "hold": "open {path} and keep it open",
    "release": "close what is open",
    "writeback": "some dirty blocks are written back",
    "evict": "some cached blocks are dropped",
    "collect": "leaks are looked for",
    "idle": "nothing happens for a while",
}


def plain(op: Op) -> str:
    """An operation in words."""
    path, to = short(op.path or "/"), short(op.to or "/")
    words = _PLAIN.get(op.kind)
    if words is None:
        return short(str(op))
    text = words.format(path=path, to=to, at=op.at, size=op.size)
    return text + (", the size stays" if op.keep else "")


def short(text: str) -> str:
    """The text with very long words cut."""
    return re.sub(r"(\w{16})\w{8,}", r"\1…", text)


@dataclass
class Mark:
    """One event of the device. `block` is None for a flush; `what`: whose block it is."""

    number: int
    block: int | None
    what: str
    fate: str
    sectors: int = 255


@dataclass
class Step:
    """An operation and what the device did in it. `state`: "done", "cut" (the power went in the
    middle of it) or "later"."""

    text: str
    state: str
    marks: list[Mark] = field(default_factory=list)


@dataclass
class Timeline:
    """From the first operation to the cut, and a little of what never happened."""

    setting: list[str]
    steps: list[Step]
    event: int
    omitted: int  # events after the cut that are not shown

    @property
    def fates(self) -> Counter[str]:
        """How many writes met which fate."""
        return Counter(m.fate for s in self.steps for m in s.marks if m.block is not None)

    @property
    def summary(self) -> str:
        """Of the writes that no flush had made durable, what became of them."""
        fates = self.fates
        says = ((KEPT, "on the disk all the same"), (TORN, "torn"), (LOST, "lost"))
        parts = [f"{fates[fate]} {text}" for fate, text in says if fates[fate]]
        if not parts:
            return "everything written was durable"
        return f"of what no flush had followed: {', '.join(parts)}"

    @property
    def lanes(self) -> list[int]:
        """All blocks that were written, in order."""
        return sorted({m.block for s in self.steps for m in s.marks if m.block is not None})


def timeline(
    failure: Failure, marks: Sequence[int], ops: Sequence[str], setting: Sequence[str] = ()
) -> Timeline:
    """`marks[v]`: events before operation v began; `ops[v]`: what to call it."""
    image = {**failure.image, **{e.block: e.data for e in failure.events if isinstance(e, Write)}}
    names = _Names(image)
    last = min(len(failure.events), failure.event + _AFTER)
    steps = []
    for text, (begin, end) in zip(ops, pairwise([*marks, len(failure.events)]), strict=True):
        # What did nothing to the disk may have returned as well: the same disk is then left.
        state = "done" if end <= failure.event else "later" if begin >= failure.event else "cut"
        found = [_mark(failure, i, names) for i in range(begin, min(end, last))]
        if state != "later" or found:
            steps.append(Step(text, state, found))
    return Timeline(list(setting), steps, failure.event, len(failure.events) - last)


def _mark(failure: Failure, index: int, names: _Names) -> Mark:
    event = failure.events[index]
    if isinstance(event, Flush):
        return Mark(index, None, "flush", DURABLE if index < failure.event else LATER)
    fate, sectors = DURABLE, 255
    if index >= failure.event:
        fate = LATER
    elif index in failure.lost:
        fate = LOST
    elif failure.torn is not None and failure.torn[0] == index:
        fate, sectors = TORN, failure.torn[1]
    elif not _covered(failure.events, index, failure.event):
        fate = KEPT
    return Mark(index, event.block, names.of(event.block, event.data), fate, sectors)


def _covered(events: Sequence[Event], index: int, cut: int) -> bool:
    """Had the write completed before a flush was issued that has completed before the cut?"""
    ready = index + 1 + events[index].overlap
    return any(
        isinstance(e, Flush) and ready <= i and i + 1 + e.overlap <= cut
        for i, e in enumerate(events[:cut])
    )


class _Names:
    """What a block is, from its place and from the stamp in its bytes."""

    def __init__(self, image: Mapping[int, bytes]) -> None:
        self._areas: list[tuple[tuple[int, int], str]] = []
        self._types: dict[int, str] = {}
        try:
            self._disk: RawDisk | None = RawDisk(image, max(image, default=0) + 1)
        except Unreadable:
            self._disk = None
            return
        low = self._disk.super
        self._areas = [
            (low.log, "log"), (low.map, "free map"), (low.refs, "link counts"),
            (low.types, "types"), (low.roots, "roots"),
        ]  # fmt: skip
        self._types = {n: name.decode() for n, name in self._disk.type_names().items()}

    def of(self, block: int, data: bytes) -> str:
        """For people."""
        for (start, count), name in self._areas:
            if start <= block < start + count:
                return name
        if self._disk is None:
            return ""
        if not self._disk.in_data(block):
            return "superblock"
        if self._disk.stamp_ok(block, data):
            number = self._disk.stamp(data)[1]
            return self._types.get(number, f"type {number}")
        return "data"


_SAYS: Final = {
    DURABLE: "",
    KEPT: "there, though not flushed",
    LOST: "LOST",
    LATER: "never happened",
}


def lines(story: Timeline) -> Iterator[str]:
    """The timeline as text."""
    if story.setting:
        yield "There was, and durable:"
        yield from (f"    {text}" for text in story.setting)
        yield ""
    cut = False
    for step in story.steps:
        if step.state == "later" and not cut:
            cut = True
            yield _CUT
        yield step.text
        for mark in step.marks:
            if mark.number >= story.event and not cut:
                cut = True
                yield _CUT
            yield "    " + _line(mark)
    if not cut:
        yield _CUT
    if story.omitted:
        yield f"    ({story.omitted} more events never happened)"


_CUT: Final = "=" * 24 + " power cut " + "=" * 24


def _line(mark: Mark) -> str:
    if mark.block is None:
        note = " (never happened)" if mark.fate == LATER else ""
        return "flush " + "-" * 40 + note
    if mark.fate == TORN:
        says = "TORN: sectors " + "".join("#" if mark.sectors >> i & 1 else "." for i in range(8))
    else:
        says = _SAYS[mark.fate]
    return f"write block {mark.block:<5} {mark.what:<16} {says}".rstrip()
