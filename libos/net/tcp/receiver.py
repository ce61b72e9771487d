"""The receiving half of a connection: puts bytes in order and says how many more may come.

Memory is bounded by the window: nothing outside it is kept, and of what came out of order at most
`MAX_RUNS` runs. The right edge of the window never moves back (RFC 9293, section 3.8.6), and moves
on in large steps only (section 3.8.6.2.2). Out-of-order bytes are reported by SACK (RFC 2018).
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from typing import Final

MAX_RUNS: Final = 256
MAX_BLOCKS: Final = 4  # of SACK, without timestamps
_SMALL: Final = 512


class Receiver:
    """RCV.NXT is `nxt`, RCV.WND the distance from there to `edge`."""

    def __init__(self, irs: int, limit: int) -> None:
        self.irs = irs
        self.nxt = irs + 1
        self.fin: int | None = None  # the number of the peer's FIN, once it is known
        self._limit = limit
        self._ready: deque[bytes] = deque()
        self._held = 0  # bytes in `_ready`
        self._starts: list[int] = []  # runs beyond `nxt`, in order, with gaps between them
        self._runs: list[bytearray] = []
        self._recent: list[int] = []  # numbers in runs, the latest first: for SACK
        self.edge = self.nxt + limit

    @property
    def readable(self) -> int:
        """Bytes in order that the application has not read."""
        return self._held

    @property
    def ended(self) -> bool:
        """Whether the peer's FIN has come, and all before it."""
        return self.fin is not None and self.nxt > self.fin

    @property
    def gaps(self) -> bool:
        """Whether something is missing before what has come."""
        return bool(self._starts)

    def limit_window(self, limit: int) -> None:
        """Before the first data: offer no more than that."""
        self._limit = min(self._limit, limit)
        self.edge = self.nxt + self._limit

    def window(self, mss: int) -> int:
        """RCV.WND to offer now; moves the edge on where that is worth it."""
        edge = self.nxt + self._limit - self._held
        if edge - self.edge >= min(mss, self._limit // 2):
            self.edge = edge
        return self.edge - self.nxt

    def would_grow(self, mss: int) -> bool:
        """Whether the window could be opened enough for the peer to be told at once."""
        room = self.nxt + self._limit - self._held - self.edge
        return room >= min(2 * mss, self._limit // 2) and self.edge - self.nxt < self._limit // 2

    def acceptable(self, seq: int, length: int) -> bool:
        """RFC 9293, section 3.4, table 6; and an empty segment just after the window.

        That is what a peer sends that has filled the window, and its acknowledgement counts.
        """
        if length == 0:
            return self.nxt <= seq <= self.edge
        return seq < self.edge and seq + length > self.nxt

    def accept(self, seq: int, data: memoryview, fin: bool) -> bool:
        """Take in a segment's bytes, as far as they are new and in the window.

        True: it was the next one in order. False: acknowledge at once.
        """
        if fin and self.fin is None and self.nxt <= seq + len(data) <= self.edge:
            self.fin = seq + len(data)
        end = min(seq + len(data), self.edge, self.edge if self.fin is None else self.fin)
        start = max(seq, self.nxt)
        if start > self.nxt or self._starts:
            if start < end:
                self._insert(start, data[start - seq : end - seq])
                self._drain()
            in_order = False
        else:
            if start < end:
                self._append(bytes(data[start - seq : end - seq]))
            in_order = start == seq
        if self.fin is not None and self.nxt == self.fin:
            self.nxt += 1
        return in_order

    def read(self, most: int) -> bytes:
        """Up to `most` bytes in order; empty if there are none now."""
        if most >= self._held:
            parts = list(self._ready)
            self._ready.clear()
        else:
            parts = self._take(most)
        data = parts[0] if len(parts) == 1 else b"".join(parts)
        self._held -= len(data)
        return data

    def sacks(self) -> tuple[tuple[int, int], ...]:
        """Runs beyond `nxt`, that with the newest bytes first (RFC 2018, section 4)."""
        blocks: list[tuple[int, int]] = []
        for number in self._recent:
            at = bisect_left(self._starts, number + 1) - 1
            if at >= 0 and number < self._starts[at] + len(self._runs[at]):
                block = (self._starts[at], self._starts[at] + len(self._runs[at]))
                if block not in blocks:
                    blocks.append(block)
        return tuple(blocks[:MAX_BLOCKS])

    def _take(self, most: int) -> list[bytes]:
        parts = []
        while most > 0:
            part = self._ready.popleft()
            if len(part) > most:
                self._ready.appendleft(part[most:])
                part = part[:most]
            parts.append(part)
            most -= len(part)
        return parts

    def _append(self, data: bytes) -> None:
        """Bytes that are the next in order. Small ones are put together: each costs memory."""
        if self._ready and len(data) < _SMALL and len(self._ready[-1]) < _SMALL:
            self._ready[-1] += data
        else:
            self._ready.append(data)
        self._held += len(data)
        self.nxt += len(data)

    def _insert(self, start: int, data: memoryview) -> None:
        """Bytes that wait for others before them. Runs that touch become one."""
        end = start + len(data)
        at = bisect_left(self._starts, start)
        if at and self._starts[at - 1] + len(self._runs[at - 1]) >= start:
            at -= 1  # it goes on where the run before ends, or lies within it
            run = self._runs[at]
            new = end - (self._starts[at] + len(run))
            if new > 0:
                run += data[len(data) - new :]
        elif len(self._runs) >= MAX_RUNS and start > self.nxt:
            return
        else:
            self._starts.insert(at, start)
            self._runs.insert(at, bytearray(data))
        self._swallow(at)
        # The run is known by a number that surely lies in it.
        self._recent = [start, *(n for n in self._recent if n != start)][: 2 * MAX_BLOCKS]

    def _swallow(self, at: int) -> None:
        """Join to run `at` those that it now reaches."""
        run, end = self._runs[at], self._starts[at] + len(self._runs[at])
        while at + 1 < len(self._runs) and self._starts[at + 1] <= end:
            beyond = self._runs[at + 1][end - self._starts[at + 1] :]
            run += beyond
            end += len(beyond)
            del self._starts[at + 1], self._runs[at + 1]

    def _drain(self) -> None:
        """What is next in order now can be read."""
        if self._starts and self._starts[0] == self.nxt:
            self._append(bytes(self._runs[0]))
            del self._starts[0], self._runs[0]
            self._recent = [n for n in self._recent if n >= self.nxt]
