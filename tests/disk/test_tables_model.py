"""The tables against a plain model, through random calls, writes and power cuts."""

from __future__ import annotations

import random

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.disk.tables_kit import (
    DISK,
    G,
    load,
    sync,
)
from xnfs.disk.recording import RecordingDevice
from xnfs.errors import NotFree, Refused


class TablesMachine(RuleBasedStateMachine):
    """Random calls on the tables of a recorded disk, against a dict of totals. What is written
    together is there together after a power cut, or not at all: the log sees to that.

    After a power cut a total that is read back must lie between the lowest and the highest that
    it has had since the last sync (R4, R5: too high is a leak, too low is a loss).
    """

    blocks = st.integers(G.data_start, G.data_start + 40) | st.integers(4020, 4060)
    runs = st.integers(1, 50)

    @initialize()
    def start(self) -> None:
        self.disk = RecordingDevice(DISK.fork())
        self.tables = load(self.disk)
        self.model: dict[int, int] = {}
        self.low: dict[int, int] = {}  # smallest total that a cut may show
        self.high: dict[int, int] = {}
        self.written = [0]  # numbers of events between which all or nothing is there

    def _set(self, block: int, total: int) -> None:
        self.model[block] = total
        self.low[block] = min(self.low.get(block, 0), total)
        self.high[block] = max(self.high.get(block, 0), total)

    @rule(start=blocks, count=runs)
    def raise_run(self, start: int, count: int) -> None:
        run = range(start, start + count)
        if any(self.model.get(b) for b in run):
            with pytest.raises(NotFree):
                self.tables.raise_run(start, count)
        else:
            self.tables.raise_run(start, count)
            for b in run:
                self._set(b, 1)

    @rule(block=blocks)
    def raise_one(self, block: int) -> None:
        self._set(block, self.model.get(block, 0) + 1)
        assert self.tables.raise_one(block) == self.model[block]

    @rule(start=blocks, count=runs)
    def lower_run(self, start: int, count: int) -> None:
        run = range(start, start + count)
        if all(self.model.get(b) for b in run):
            self.tables.lower_run(start, count)
            for b in run:
                self._set(b, self.model[b] - 1)
        else:
            with pytest.raises(Refused):
                self.tables.lower_run(start, count)

    @rule()
    def write(self) -> None:
        for bno in reversed(self.tables.dirty_blocks()):
            self.disk.write(bno, [self.tables.encode(bno)])
            self.tables.mark_written(bno)
        self.written.append(len(self.disk.events))

    @rule()
    def sync(self) -> None:
        sync(self.tables, self.disk)
        self.low, self.high = dict(self.model), dict(self.model)

    @rule(seed=st.integers(0, 999))
    def cut(self, seed: int) -> None:
        cut = len(self.disk.events)
        there = {e.id for e in self.disk.events[: random.Random(seed).choice(self.written)]}
        keep = [e.id for e in self.disk.pending(cut) if e.id in there]
        self.disk, self.written = RecordingDevice(self.disk.image_at(cut, keep, {})), [0]
        self.tables = load(self.disk)
        for block in self.model:
            total = self.tables.total(block)
            assert self.low.get(block, 0) <= total <= self.high.get(block, 0)
            self.model[block] = total
        self.low, self.high = dict(self.model), dict(self.model)

    @precondition(lambda self: self.tables.dirty_blocks() == [])
    @rule()
    def reload(self) -> None:
        self.tables = load(self.disk)

    @invariant()
    def agrees(self) -> None:
        assert all(self.tables.total(block) == n for block, n in self.model.items())
        used = sum(1 for n in self.model.values() if n)
        assert self.tables.free_blocks == G.data_end - G.data_start - used
        assert sum(self.tables.group_free(g) for g in range(3)) == self.tables.free_blocks
        for block in (G.data_start, 4020):
            shared = any(self.model.get(b, 0) > 1 for b in range(block, block + 100))
            assert self.tables.any_shared(block, 100) == shared


TestTablesMachine = TablesMachine.TestCase
