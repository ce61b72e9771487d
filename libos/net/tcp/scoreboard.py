"""What was sent and is not acknowledged: flying, known to have arrived, or lost.

A segment is lost when three that were sent after it have arrived (RFC 5681's three duplicates;
RFC 6675's DupThresh). Counting in the order of sending, not of sequence numbers, finds lost
retransmissions as well (the idea of RFC 8985, without its clock). Without SACK a duplicate
acknowledgement says that one segment arrived and not which, so they are counted.

`pipe` is what is believed to be in the network, in bytes (RFC 6675, section 4).
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
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
    """One segment, from `seq` to `end`; or a run of new ones, of `size` bytes each, whose orders
    follow each other. Runs are taken apart as soon as anything is said of a segment but that all
    up to it have arrived."""

    seq: int
    end: int
    at: int  # when it was sent last
    order: int  # the how-many-eth transmission that was
    tries: int = 1
    fate: Fate = Fate.FLYING
    size: int = 0  # 0: this is one segment


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

    def sent_run(self, seq: int, count: int, size: int, now: int) -> None:
        """As many new segments of `size` bytes each, in order."""
        run = Sent(seq, seq + count * size, now, self._orders + 1, size=size if count > 1 else 0)
        self._sent.append(run)
        self._orders += count
        self._flying += count * size

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

    def acknowledge(self, una: int, blocks: Sequence[tuple[int, int]], now: int) -> Progress:
        """All below `una`, and the blocks, have arrived."""
        if blocks:
            self._split_runs()
        rtt, acked, arrived, keep = None, 0, 0, 0
        once: list[int] = []  # the last orders of those sent once, which ascend
        for sent in self._sent:
            if sent.size and sent.seq < una:
                count = (min(una, sent.end) - sent.seq) // sent.size
                acked += self._shorten(sent, count)
                rtt = now - sent.at if count else rtt
                once += range(max(sent.order - DUP_THRESHOLD, sent.order - count), sent.order)
                if sent.seq < sent.end:
                    break
                keep += 1
                continue
            if sent.end > una:
                break
            keep += 1
            acked += sent.end - sent.seq
            if sent.tries == 1 and sent.fate is not Fate.ARRIVED:
                rtt = now - sent.at
                once.append(sent.order)
            self._uncount(sent)
        del self._sent[:keep]
        for order in once[-DUP_THRESHOLD:]:
            self._overtakes(order)
        if self._sent and self._sent[0].seq < una:
            self._split_runs()
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
        self._split_runs()
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
        self._split_runs()
        self._lose(self._sent[0])
        return True

    def lose_all(self) -> None:
        """A timeout: nothing is in the network any more (RFC 6298, section 5; RFC 2018, 5.1)."""
        self._split_runs()
        for sent in self._sent:
            if sent.fate is Fate.FLYING:
                self._lose(sent)
        self._duplicates = 0

    def _shorten(self, run: Sent, count: int) -> int:
        """So many segments at the beginning of a run have arrived; their bytes."""
        gone = count * run.size
        run.seq += gone
        run.order += count
        self._flying -= gone
        return gone

    def _split_runs(self) -> None:
        """Each segment by itself."""
        if not any(sent.size for sent in self._sent):
            return
        apart: list[Sent] = []
        for sent in self._sent:
            if sent.size:
                ends = range(sent.seq + sent.size, sent.end + 1, sent.size)
                apart += [
                    Sent(end - sent.size, end, sent.at, order)
                    for order, end in enumerate(ends, sent.order)
                ]
            else:
                apart.append(sent)
        self._sent = apart

    def _lose(self, sent: Sent) -> None:
        sent.fate = Fate.LOST
        self._lost += 1
        self._flying -= sent.end - sent.seq

    def _uncount(self, sent: Sent) -> None:
        """A segment has arrived: it is no longer counted in what it was."""
        if sent.fate is Fate.FLYING:
            self._flying -= sent.end - sent.seq
        elif sent.fate is Fate.LOST:
            self._lost -= 1
        else:
            self._reported -= 1

    def _overtakes(self, order: int) -> None:
        """One has arrived that was sent once: of one sent twice nobody knows which arrived."""
        heapq.heappush(self._latest, order)
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
                self._uncount(sent)
                if sent.tries == 1:
                    self._overtakes(sent.order)
                sent.fate = Fate.ARRIVED
                self._reported += 1
                count += sent.end - sent.seq
        return count
