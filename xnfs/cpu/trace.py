"""What happened, in order: a bounded ring of records, for tests, tools and timelines.

Off (capacity 0) it costs a test of a flag. A record is (time, processor, environment, what,
detail); `what` is one of the words below.
"""

from __future__ import annotations

from collections import deque
from typing import Any, Final, NamedTuple

RUN: Final = "run"  # a stay on the processor has ended; detail = when it began
UPCALL: Final = "upcall"  # detail = kind
FAULT: Final = "fault"  # detail = (cause, address)
SPAWNED: Final = "spawn"  # detail = parent
ENDED: Final = "end"  # detail = why


class Record(NamedTuple):
    """One thing that happened."""

    time: int
    processor: int
    environment: int
    what: str
    detail: Any


class Trace:
    """The last `capacity` records."""

    __slots__ = ("on", "records")

    def __init__(self, capacity: int) -> None:
        self.on = capacity > 0
        self.records: deque[Record] = deque(maxlen=capacity)

    def add(self, time: int, processor: int, environment: int, what: str, detail: Any) -> None:
        """Remember; the oldest goes."""
        self.records.append(Record(time, processor, environment, what, detail))
