"""The sending half of a connection: what to send, what to send again, and when.

It numbers what the application writes, keeps within the peer's window and the congestion window,
repeats what is lost, and probes a window that is closed. SYN and FIN take one number each and are
sent, lost and repeated like bytes; which segment carries them is the business of `connection`.

Sources: RFC 9293, section 3.8; RFC 5681 and RFC 6582 (fast retransmit and recovery, without SACK);
RFC 6675 (with it); RFC 3042 (a duplicate acknowledgement lets one new segment go: here that
follows from `pipe`); RFC 6298, section 5.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from libos.net.base import earliest
from libos.net.tcp.congestion import Reno
from libos.net.tcp.rtt import RttEstimator
from libos.net.tcp.scoreboard import DUP_THRESHOLD, Scoreboard
from libos.net.tcp.segment import DEFAULT_MSS, Sacks, unwrap
from libos.net.tcp.sendqueue import SendQueue
from libos.net.tcp.tuning import Tuning

Span = tuple[int, int]
_MAX_WINDOW: Final = 1 << 30


class Sender:
    """SND.UNA is `una`, SND.NXT `nxt`, SND.WND `window` (RFC 9293, section 3.3.1)."""

    def __init__(self, iss: int, tuning: Tuning) -> None:
        self.iss = iss
        self.una = self.nxt = iss
        self.window = 1  # the SYN may go
        self.widest = 1  # that the peer ever offered
        self.shift = 0
        self.sack = False
        self.nodelay = False
        self.queue = SendQueue(iss + 1)
        self.fin: int | None = None  # the number of the FIN, once the application has closed
        self.rtt = RttEstimator(tuning)
        self.congestion = Reno(DEFAULT_MSS)
        self.timeouts = 0  # of the oldest segment, or unanswered probes, one after the other
        self.retransmissions = 0
        self._tuning = tuning
        self._board = Scoreboard()
        self._rto_at: int | None = None
        self._probe_at: int | None = None
        self._probe_now = False
        self._recover = iss  # recovery ends when all below is acknowledged
        self._recovering = False
        self._timed_out = False  # in the recovery that a timeout began
        self._duplicates = 0
        self._resend_now = False
        self._last_sent = 0
        self._window_seq = self._window_ack = 0  # SND.WL1 and SND.WL2

    @property
    def mss(self) -> int:
        """The most data that one segment carries."""
        return self.congestion.mss

    @property
    def room(self) -> int:
        """Bytes that the application may write now."""
        return max(0, self._tuning.send_buffer - len(self.queue)) if self.fin is None else 0

    @property
    def drained(self) -> bool:
        """Whether all that was written, and the FIN if there is one, is acknowledged."""
        return self._board.empty and self.una >= (
            self.queue.end if self.fin is None else self.fin + 1
        )

    def close(self) -> None:
        """The application writes no more: a FIN follows the last byte."""
        if self.fin is None:
            self.fin = self.queue.end

    # --- what comes in ----------------------------------------------------------------------

    def acknowledged(
        self, seq: int, ack: int, window: int, sacks: Sacks, empty: bool, now: int
    ) -> bool:
        """An acceptable acknowledgement, una <= ack <= nxt. True: it brought something new.

        `empty`: the segment has neither data nor FIN, so it may be a duplicate.
        """
        self.timeouts = 0 if self._board.empty else self.timeouts
        window_was = self.window
        if self._update_window(seq, ack, window):
            self._probe_at = None
        blocks = [self._block(lo, hi) for lo, hi in sacks] if self.sack else []
        limited = self._board.pipe + 2 * self.mss > self.congestion.window
        progress = self._board.acknowledge(ack, [b for b in blocks if b[0] < b[1]], now)
        if progress.rtt is not None:
            self.rtt.sample(progress.rtt)
        if progress.acked:
            self._advance(ack, progress.acked, limited, now)
        elif empty and self.window == window_was and not self._board.empty:
            self._duplicate()
        if self.sack and self._board.find_lost() and not self._recovering:
            self._enter_recovery()
        return bool(progress.acked or progress.arrived or self.window != window_was)

    def _update_window(self, seq: int, ack: int, window: int) -> bool:
        """RFC 9293, section 3.10.7.4: only a segment that is no older than the last may."""
        if (seq, ack) < (self._window_seq, self._window_ack):
            return False
        self._window_seq, self._window_ack = seq, ack
        self.window = min(window, _MAX_WINDOW)
        self.widest = max(self.widest, self.window)
        return True

    def first_window(self, seq: int, ack: int, window: int) -> None:
        """The handshake says what the peer offers."""
        self._window_seq, self._window_ack = seq, ack
        self.window = self.widest = window

    def _block(self, lo: int, hi: int) -> Span:
        """A SACK block, cut down to what was sent: the peer may say anything."""
        return max(unwrap(lo, self.una), self.una), min(unwrap(hi, self.una), self.nxt)

    def _advance(self, ack: int, acked: int, limited: bool, now: int) -> None:
        self.una = ack
        self.queue.release(ack)
        self.timeouts = 0
        self.rtt.progress()
        self._duplicates = 0
        if self._recovering and ack >= self._recover:
            self._recovering = self._timed_out = False
        elif self._recovering and not self.sack and not self._timed_out:
            self._resend_now = self._board.lose_first()  # a partial one (RFC 6582, section 3.2)
        if limited and (not self._recovering or self._timed_out):
            self.congestion.acknowledged(acked)
        self._rto_at = None if self._board.empty else now + self.rtt.rto

    def _duplicate(self) -> None:
        if self.sack:
            return  # what the blocks say is more
        self._duplicates += 1
        self._board.duplicate(self.mss)
        if self._duplicates == DUP_THRESHOLD and not self._recovering and self.una > self._recover:
            self._board.lose_first()
            self._enter_recovery()

    def _enter_recovery(self) -> None:
        self._recovering = True
        self._recover = self.nxt
        self.congestion.lost(self.nxt - self.una)
        self._resend_now = True

    def syn_again(self) -> None:
        """Our SYN was lost, or must be repeated with an acknowledgement."""
        if self.una == self.iss:
            self._board.lose_all()
            self._resend_now = True

    def path_mtu(self, mss: int) -> None:
        """A router said that segments must be smaller (RFC 1191): what flies will not arrive."""
        if mss < self.mss:
            self.congestion.set_mss(mss)
            self._board.lose_all()
            self._resend_now = True

    # --- time -------------------------------------------------------------------------------

    def deadline(self) -> int | None:
        """When `expire` has something to do."""
        return earliest(self._rto_at, self._probe_at)

    def expire(self, now: int) -> None:
        """Timers that are due. The caller gives up when `timeouts` is too high."""
        if self._rto_at is not None and now >= self._rto_at:
            self.timeouts += 1
            self._board.lose_all()
            first = self._board.first.tries == 1 or not self._timed_out
            self.congestion.timed_out(self.nxt - self.una, first)
            self._recovering = self._timed_out = True
            self._recover = self.nxt
            self._duplicates = 0
            self.rtt.back_off()
            self._rto_at = now + self.rtt.rto
        if self._probe_at is not None and now >= self._probe_at:
            self.timeouts += 1
            self.rtt.back_off()
            self._probe_at = now + self.rtt.rto
            self._probe_now = True

    # --- what goes out ----------------------------------------------------------------------

    def due(self, now: int, most: int = 0) -> Iterator[Span]:
        """The spans of the sequence space that may be sent now, counted as sent: one segment each,
        or several new ones that are full, if `most` bytes take more than one."""
        yield from self._resend(now)
        if self._board.empty and now - self._last_sent > self.rtt.rto and self.una > self.iss + 1:
            self.congestion.idle()
        yield from self._full_segments(now, most)
        while (span := self._next_span()) is not None:
            self._board.sent(*span, now)
            self.nxt = span[1]
            self._on_the_way(now)
            yield span
        self._watch_window(now)

    def probe_due(self) -> bool:
        """Whether an empty segment is to be sent that the peer must answer with its window."""
        due, self._probe_now = self._probe_now, False
        return due

    def _resend(self, now: int) -> Iterator[Span]:
        while (lost := self._board.next_lost(self.mss)) is not None:
            size = lost.end - lost.seq
            full = self._board.pipe and self._board.pipe + size > self.congestion.window
            if full and not self._resend_now:
                return
            self._resend_now = False
            self._board.resent(lost, now)
            self.retransmissions += 1
            self._on_the_way(now)
            yield lost.seq, lost.end

    def _on_the_way(self, now: int) -> None:
        self._last_sent = now
        if self._rto_at is None:
            self._rto_at = now + self.rtt.rto

    def _full_segments(self, now: int, most: int) -> Iterator[Span]:
        """New segments that have more behind them: what nothing forbids but the windows."""
        mss, nxt = self.mss, self.nxt
        waiting = min(self.queue.end - 1, self.una + self.window) - nxt
        count = min(waiting, self.congestion.window - self._board.pipe) // mss
        if nxt == self.iss:
            return
        at_once = max(most // mss, 1)
        while count > 0:
            n = min(count, at_once)
            self._board.sent_run(self.nxt, n, mss, now)
            span = self.nxt, self.nxt + n * mss
            self.nxt = span[1]
            self._on_the_way(now)
            yield span
            count -= n

    def _next_span(self) -> Span | None:
        """The next new segment, unless a window, Nagle or silly windows forbid it."""
        if self.nxt == self.iss:
            return self.iss, self.iss + 1  # the SYN, alone
        waiting = self.queue.end - self.nxt
        size = min(waiting, self.mss, self.una + self.window - self.nxt)
        fin = self.fin is not None and self.nxt <= self.fin == self.nxt + max(size, 0)
        fin = fin and self.una + self.window > self.nxt + max(size, 0)
        if size <= 0 and not fin:
            return None
        size = max(size, 0)
        pipe = self._board.pipe
        if pipe and pipe + size > self.congestion.window:
            return None
        # RFC 9293, sections 3.7.4 (Nagle) and 3.8.6.2.1 (silly window syndrome).
        last = size == waiting and (self.nodelay or self._board.empty or self.fin is not None)
        if size < self.mss and not (last or size * 2 >= self.widest):
            if not (self._probe_now and size):
                return None
            self._probe_now = False  # the window is small and stays so: send what it takes
        return self.nxt, self.nxt + size + fin

    def _watch_window(self, now: int) -> None:
        """The persist timer runs while the peer's window alone keeps something from being sent."""
        unsent = self.queue.end > self.nxt or self.fin == self.nxt
        if not unsent or not self._board.empty:
            self._probe_at = None
        elif self._probe_at is None:
            self._probe_at = now + self.rtt.rto
