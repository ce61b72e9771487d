"""What was sent and is not acknowledged: flying, known to have arrived, or lost.

A segment is lost when three that were sent after it have arrived (RFC 5681's three duplicates;
RFC 6675's DupThresh). Counting in the order of sending, not of sequence numbers, finds lost
retransmissions as well (the idea of RFC 8985, without its clock). Without SACK a duplicate
acknowledgement says that one segment arrived and not which, so they are counted.

`pipe` is what is believed to be in the network, in bytes (RFC 6675, section 4).
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Final

DUP_THRESHOLD: Final = 3


class Fate(Enum):
    """What is believed of a segment."""

    FLYING = 1
    ARRIVED = 2  # by SACK
    LOST = 3


@dataclass(slots=True)
class Sent:
    """One segment, from `seq` to `end`."""

    seq: int
    end: int
    at: int  # when it was sent last
    order: int  # the how-many-eth transmission that was
    tries: int = 1
    fate: Fate = Fate.FLYING


@dataclass(frozen=True, slots=True)
class Progress:
    """What an acknowledgement brought."""

    acked: int  # bytes newly acknowledged, cumulatively
    arrived: int  # bytes newly reported by SACK
    rtt: int | None


class Scoreboard:
    """The segments of one connection, in the order of their sequence numbers."""

    def __init__(self) -> None:
        self._sent: list[Sent] = []
        self._orders = 0
        self._latest: list[int] = []  # a heap: the highest orders that have arrived
        self._flying = 0
        self._lost = 0
        self._reported = 0  # segments that arrived by SACK
        self._duplicates = 0  # bytes that duplicate acknowledgements stand for

    @property
    def pipe(self) -> int:
        """Bytes in the network."""
        return max(0, self._flying - self._duplicates)

    @property
    def empty(self) -> bool:
        """Whether all is acknowledged."""
        return not self._sent

    @property
    def first(self) -> Sent:
        """The oldest one. There must be one."""
        return self._sent[0]

    def sent(self, seq: int, end: int, now: int) -> None:
        """A new segment is on the way."""
        self._orders += 1
        self._sent.append(Sent(seq, end, now, self._orders))
        self._flying += end - seq

    def next_lost(self, mss: int) -> Sent | None:
        """The first that is to be sent again, of at most `mss` bytes."""
        if not self._lost:
            return None
        at = next(i for i, s in enumerate(self._sent) if s.fate is Fate.LOST)
        lost = self._sent[at]
        if lost.end - lost.seq > mss:  # the path takes less than when it was first sent
            rest = Sent(lost.seq + mss, lost.end, lost.at, lost.order, lost.tries, Fate.LOST)
            self._sent.insert(at + 1, rest)
            lost.end = rest.seq
            self._lost += 1
        return lost

    def resent(self, lost: Sent, now: int) -> None:
        """What `next_lost` gave is on the way again."""
        self._orders += 1
        lost.at, lost.order, lost.tries, lost.fate = now, self._orders, lost.tries + 1, Fate.FLYING
        self._lost -= 1
        self._flying += lost.end - lost.seq

    def acknowledge(self, una: int, blocks: Iterable[tuple[int, int]], now: int) -> Progress:
        """All below `una`, and the blocks, have arrived."""
        rtt, acked, arrived, keep = None, 0, 0, 0
        for sent in self._sent:
            if sent.end > una:
                break
            keep += 1
            acked += sent.end - sent.seq
            if sent.tries == 1 and sent.fate is not Fate.ARRIVED:
                rtt = now - sent.at
            self._settle(sent)
        del self._sent[:keep]
        if self._sent and self._sent[0].seq < una:
            acked += self._cut(self._sent[0], una)
        for lo, hi in blocks:
            arrived += self._arrived(lo, hi)
        if acked:
            self._duplicates = max(0, self._duplicates - acked)
        if not self._sent:
            self._duplicates = 0
        return Progress(acked, arrived, rtt)

    def find_lost(self) -> bool:
        """Mark what has been overtaken three times. True if anything is newly lost."""
        # What is acknowledged in order overtakes nothing.
        if not self._reported or len(self._latest) < DUP_THRESHOLD:
            return False
        overtaken = self._latest[0]
        found = False
        for sent in self._sent:
            if sent.fate is Fate.FLYING and sent.order < overtaken:
                self._lose(sent)
                found = True
        return found

    def duplicate(self, mss: int) -> None:
        """A duplicate acknowledgement came from a peer without SACK."""
        self._duplicates = min(self._duplicates + mss, self._flying)

    def lose_first(self) -> bool:
        """The oldest is lost. False: it is known to be already."""
        if not self._sent or self._sent[0].fate is not Fate.FLYING:
            return False
        self._lose(self._sent[0])
        return True

    def lose_all(self) -> None:
        """A timeout: nothing is in the network any more (RFC 6298, section 5; RFC 2018, 5.1)."""
        for sent in self._sent:
            if sent.fate is Fate.FLYING:
                self._lose(sent)
        self._duplicates = 0

    def _lose(self, sent: Sent) -> None:
        sent.fate = Fate.LOST
        self._lost += 1
        self._flying -= sent.end - sent.seq

    def _settle(self, sent: Sent) -> None:
        """A segment has arrived: it is no longer counted in what it was."""
        if sent.fate is Fate.FLYING:
            self._flying -= sent.end - sent.seq
        elif sent.fate is Fate.LOST:
            self._lost -= 1
        else:
            self._reported -= 1
        # Of one that was sent twice nobody knows which arrived, so it proves no order.
        if sent.tries == 1 and sent.fate is not Fate.ARRIVED:
            heapq.heappush(self._latest, sent.order)
            if len(self._latest) > DUP_THRESHOLD:
                heapq.heappop(self._latest)

    def _cut(self, sent: Sent, una: int) -> int:
        """The first part of a segment has arrived."""
        gone = una - sent.seq
        if sent.fate is Fate.FLYING:
            self._flying -= gone
        sent.seq = una
        return gone

    def _arrived(self, lo: int, hi: int) -> int:
        """SACK says that lo..hi has arrived."""
        count = 0
        for sent in self._sent:
            if sent.seq >= hi:
                break
            if sent.seq >= lo and sent.end <= hi and sent.fate is not Fate.ARRIVED:
                self._settle(sent)
                sent.fate = Fate.ARRIVED
                self._reported += 1
                count += sent.end - sent.seq
        return count
