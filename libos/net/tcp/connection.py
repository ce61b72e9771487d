"""One TCP connection: the state machine, from segments and time to segments.

It does no input or output: `input` takes a segment, `flush` gives those to send. The application
reads and writes at any time between. What is sent, and how it is put in order, is `sender` and
`receiver`; who gets a segment is `table`.

Sources: RFC 9293, sections 3.6 (closing) and 3.10 (events); RFC 5961 (blind attacks: a reset must
name the very next number, a SYN never resets); RFC 1122, section 4.2.2.13 (data for nobody).
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator

from libos.net.base import earliest
from libos.net.tcp.receiver import Receiver
from libos.net.tcp.segment import (
    ACK,
    DEFAULT_MSS,
    FIN,
    MAX_SHIFT,
    PSH,
    RST,
    SYN,
    Segment,
    unwrap,
)
from libos.net.tcp.sender import Sender, Span
from libos.net.tcp.state import Ends, State
from libos.net.tcp.tuning import Tuning

_OPENING = (State.SYN_SENT, State.SYN_RECEIVED)
_RECEIVING = (State.ESTABLISHED, State.FIN_WAIT_1, State.FIN_WAIT_2)
_AFTER_CLOSE = {
    State.SYN_RECEIVED: State.FIN_WAIT_1,
    State.ESTABLISHED: State.FIN_WAIT_1,
    State.CLOSE_WAIT: State.LAST_ACK,
}


class Connection:
    """Made by `TcpTable.connect`, or by a listener. `error` is an errno once it has failed."""

    def __init__(
        self,
        ends: Ends,
        iss: int,
        mss: int,
        tuning: Tuning,
        touch: Callable[[Connection], None] = lambda _: None,
    ) -> None:
        """`touch` is called when the application has done something that `flush` must follow."""
        self.ends = ends
        #: called after each segment that came, and at the end: for servers of many connections
        self.notify: Callable[[Connection], None] | None = None
        self._touch = touch
        self.state = State.SYN_SENT
        self.error = 0
        self.keepalive = False
        self.passive = False
        self._tuning = tuning
        self._own_mss = mss
        self._own_shift = shift_for(tuning.receive_buffer) if tuning.window_scaling else None
        self._shift = 0  # applied to windows that we offer, once both ends have agreed
        self._sack = False
        self.sender = Sender(iss, tuning)
        self.receiver = Receiver(-1, tuning.receive_buffer)
        self._replies: list[Segment] = []  # to be sent whatever else is
        self._ack_now = False
        self._ack_at: int | None = None
        self._unacked = 0  # bytes that arrived in order since the last acknowledgement
        self._orphan = False  # the application has let go of it
        self._wait_until: int | None = None  # end of TIME-WAIT, or of an orphan's FIN-WAIT-2
        self._next_challenge = 0
        self._heard = 0  # when the peer was last heard of
        self._probes = 0  # keep-alive probes since

    # --- for the application ----------------------------------------------------------------

    @property
    def readable(self) -> int:
        """Bytes that `read` would give now."""
        return self.receiver.readable

    @property
    def closed(self) -> bool:
        """Whether it is over, for whatever reason."""
        return self.state is State.CLOSED

    @property
    def at_end(self) -> bool:
        """Whether the peer has closed its half and all its bytes were read."""
        return self.receiver.ended and not self.receiver.readable

    @property
    def writable(self) -> int:
        """Bytes that `write` would take now."""
        return 0 if self.state is State.CLOSED else self.sender.room

    def no_delay(self) -> None:
        """Don't hold back small segments (Nagle): who writes whole replies has nothing to add."""
        self.sender.nodelay = True

    def read(self, most: int = 1 << 30) -> bytes:
        """Up to `most` bytes; empty if there are none now, or never again: see `at_end`."""
        data = self.receiver.read(most)
        if data and self.receiver.would_grow(self.sender.mss) and self.state in _RECEIVING:
            self._ack_now = True
            self._touch(self)
        return data

    def write(self, data: bytes | memoryview) -> int:
        """Take bytes to send, as many as there is room for; how many that was.

        A memoryview is kept, not copied: its bytes must stay as they are until acknowledged.
        """
        taken = data[: self.writable]
        self.sender.queue.append(taken)
        self._touch(self)
        return len(taken)

    def shut_down(self) -> None:
        """Write no more: the peer gets a FIN after the last byte. Reading goes on."""
        self._touch(self)
        if self.state is State.SYN_SENT:
            self._end(0)
            return
        self.sender.close()
        self.state = _AFTER_CLOSE.get(self.state, self.state)

    def close(self) -> None:
        """Let go of it: what was written is still sent, and what comes is refused with a reset."""
        self._orphan = True
        if self.receiver.readable and self.state is not State.CLOSED:
            self.abort()  # RFC 1122, section 4.2.2.13: the peer must learn that bytes were lost
        else:
            self.shut_down()

    def abort(self) -> None:
        """End it at once, with a reset."""
        self._touch(self)
        if self.state not in (State.SYN_SENT, State.TIME_WAIT, State.CLOSED):
            self._reply(RST | ACK, self.sender.nxt)
        self._end(errno.ECONNABORTED)

    # --- segments that arrive ---------------------------------------------------------------

    def input(self, segment: Segment, now: int) -> None:
        """Process a segment that belongs to this connection (RFC 9293, section 3.10.7)."""
        self._heard, self._probes = now, 0
        if self.state is State.SYN_SENT:
            self._in_syn_sent(segment, now)
            return
        seq = unwrap(segment.seq, self.receiver.nxt)
        if not self.receiver.acceptable(seq, segment.length):
            self._unacceptable(segment, seq, now)
            return
        if segment.flags & RST:
            self._reset_arrived(seq, now)
        elif segment.flags & SYN:
            self._challenge(now)
        elif segment.flags & ACK and self._acknowledged(segment, seq, now):
            self._take_data(segment, seq, now)

    def passive_open(self, segment: Segment, now: int) -> None:
        """The first segment of a connection that a listener got: a SYN."""
        self.passive = True
        self._synchronise(segment)
        self.state = State.SYN_RECEIVED
        self._heard = now

    def _in_syn_sent(self, segment: Segment, now: int) -> None:
        sender = self.sender
        ack = unwrap(segment.ack, sender.una)
        if segment.flags & ACK and not sender.iss < ack <= sender.nxt:
            if not segment.flags & RST:
                self._reply(RST, ack)
            return
        if segment.flags & RST:
            if segment.flags & ACK:
                self._end(errno.ECONNREFUSED)
            return
        if not segment.flags & SYN:
            return
        self._synchronise(segment)
        if segment.flags & ACK:
            # The window of a SYN is never scaled (RFC 7323, section 2.2).
            sender.acknowledged(self.receiver.irs, ack, segment.window, (), False, now)
            sender.first_window(self.receiver.irs, ack, segment.window)
            self.state = State.ESTABLISHED
            self._ack_now = True
        else:  # both ends open at once
            self.state = State.SYN_RECEIVED
            sender.syn_again()
        if segment.data:
            self._take_data(segment, self.receiver.nxt, now)

    def _synchronise(self, segment: Segment) -> None:
        """The peer's SYN: its numbers, and what both ends agree on."""
        self.receiver = Receiver(segment.seq, self._tuning.receive_buffer)
        self.sender.congestion.set_mss(min(segment.mss or DEFAULT_MSS, self._own_mss))
        if segment.shift is not None and self._own_shift is not None:
            self._shift, self.sender.shift = self._own_shift, segment.shift
        else:
            self._own_shift = None
            self.receiver.limit_window(0xFFFF)
        self._sack = self.sender.sack = segment.sack_ok and self._tuning.sack
        self.sender.first_window(segment.seq, 0, segment.window)

    def _unacceptable(self, segment: Segment, seq: int, now: int) -> None:
        if segment.flags & RST:
            return
        if self.state is State.SYN_RECEIVED and segment.flags & SYN:
            self.sender.syn_again()  # our answer was lost
        elif segment.length:
            self._reply(ACK, self.sender.nxt)
        else:
            self._challenge(now)
        if self.state is State.TIME_WAIT and segment.flags & FIN:
            self._wait_until = now + 2 * self._tuning.max_segment_lifetime

    def _reset_arrived(self, seq: int, now: int) -> None:
        if seq != self.receiver.nxt:
            self._challenge(now)
            return
        quiet = self.state in (State.CLOSING, State.LAST_ACK, State.TIME_WAIT)
        quiet = quiet or (self.state is State.SYN_RECEIVED and self.passive)
        self._end(0 if quiet else errno.ECONNRESET)

    def _acknowledged(self, segment: Segment, seq: int, now: int) -> bool:
        """Process the acknowledgement. False: the segment goes no further."""
        sender = self.sender
        ack = unwrap(segment.ack, sender.una)
        if self.state is State.SYN_RECEIVED:
            if not sender.una < ack <= sender.nxt:
                self._reply(RST, ack)
                return False
            self.state = State.ESTABLISHED if sender.fin is None else State.FIN_WAIT_1
            sender.first_window(seq, ack, segment.window << sender.shift)
        if ack > sender.nxt or ack < sender.una - max(sender.widest, 1):
            self._challenge(now)  # of what was never sent, or long ago (RFC 5961, section 5)
            return False
        empty = not segment.data and not segment.flags & FIN
        if ack >= sender.una:
            window = segment.window << sender.shift
            if sender.acknowledged(seq, ack, window, segment.sacks, empty, now) and self._orphan:
                self._wait_until = None
        if sender.drained and sender.fin is not None:
            self._fin_acknowledged(now)
        return self.state is not State.CLOSED

    def _fin_acknowledged(self, now: int) -> None:
        if self.state is State.FIN_WAIT_1:
            self.state = State.FIN_WAIT_2
        elif self.state is State.CLOSING:
            self._time_wait(now)
        elif self.state is State.LAST_ACK:
            self._end(0)

    def _take_data(self, segment: Segment, seq: int, now: int) -> None:
        fin = bool(segment.flags & FIN)
        if not segment.data and not fin:
            return
        if self.state not in _RECEIVING:
            self._ack_now = True  # a FIN came before, so these bytes are old
            return
        if segment.data and self._orphan:
            self.abort()
            return
        data = segment.data[0] if segment.data else b""
        before = self.receiver.nxt
        in_order = self.receiver.accept(seq, memoryview(data), fin)
        self._unacked += self.receiver.nxt - before
        if not in_order:
            self._reply_ack()  # each one: the peer counts them (RFC 5681, section 4.2)
        elif self._unacked >= 2 * self.sender.mss or fin:
            self._ack_now = True
        elif self._ack_at is None:
            self._ack_at = now + self._tuning.delayed_ack
        if self.receiver.ended:
            self._fin_arrived(now)

    def _fin_arrived(self, now: int) -> None:
        self._ack_now = True
        if self.state is State.ESTABLISHED:
            self.state = State.CLOSE_WAIT
        elif self.state is State.FIN_WAIT_1:
            self.state = State.CLOSING
        elif self.state is State.FIN_WAIT_2:
            self._time_wait(now)

    def _time_wait(self, now: int) -> None:
        self.state = State.TIME_WAIT
        self._wait_until = now + 2 * self._tuning.max_segment_lifetime

    # --- time -------------------------------------------------------------------------------

    def deadline(self) -> int | None:
        """By when `flush` must be called."""
        if self.state is State.CLOSED:
            return None
        alive = None
        if self.keepalive and self.state in (State.ESTABLISHED, State.CLOSE_WAIT):
            alive = self._heard + self._tuning.keepalive_idle
            alive += self._probes * self._tuning.keepalive_interval
        return earliest(self.sender.deadline(), self._ack_at, self._wait_until, alive)

    def _expire(self, now: int) -> None:
        tuning, sender = self._tuning, self.sender
        if self._ack_at is not None and now >= self._ack_at:
            self._ack_now = True
        if self._orphan and self._wait_until is None:
            # Nobody is there to lose patience with a peer that takes nothing.
            self._wait_until = now + tuning.fin_wait
        if self._wait_until is not None and now >= self._wait_until:
            self._end(0)
            return
        sender.expire(now)
        if sender.timeouts > (tuning.syn_tries if self.state in _OPENING else tuning.data_tries):
            self._end(self.error or errno.ETIMEDOUT)
        elif self.keepalive and self.state in (State.ESTABLISHED, State.CLOSE_WAIT):
            self._keep_alive(now)

    def _keep_alive(self, now: int) -> None:
        """RFC 9293, section 3.8.4: an old number, which the peer must answer."""
        tuning = self._tuning
        due = self._heard + tuning.keepalive_idle + self._probes * tuning.keepalive_interval
        if now < due:
            return
        if self._probes >= tuning.keepalive_probes:
            self._end(errno.ETIMEDOUT)
        else:
            self._probes += 1
            self._reply(ACK, self.sender.una - 1)

    # --- segments that leave ----------------------------------------------------------------

    def flush(self, now: int) -> list[Segment]:
        """All that is to be sent now: answers, what was lost, new data, an acknowledgement."""
        if self.state is not State.CLOSED:
            self._expire(now)
        segments, self._replies = self._replies, []
        if self.state is State.CLOSED:
            return segments
        segments += self._data(now)
        if self.sender.probe_due():
            segments.append(self._segment(ACK, self.sender.una - 1))
        elif self._ack_now:
            segments.append(self._segment(ACK, self.sender.nxt))
        if segments:
            self._ack_now, self._ack_at, self._unacked = False, None, 0
        return segments

    def _data(self, now: int) -> Iterator[Segment]:
        sender = self.sender
        for seq, end in self._spans(now):
            if seq == sender.iss:
                yield self._syn()
                continue
            fin = sender.fin is not None and end > sender.fin
            stop = end - fin
            flags = ACK | (FIN if fin else 0) | (PSH if stop == sender.queue.end else 0)
            segment = self._segment(flags, seq)
            segment.data = sender.queue.slice(seq, stop)
            # Options count against what a packet takes (RFC 6691): 4 bytes, and 8 for each block.
            segment.sacks = segment.sacks[: max(0, sender.mss - (stop - seq) - 4) // 8]
            yield segment

    def _spans(self, now: int) -> Iterator[Span]:
        """What is due; neighbours as one, for an interface that cuts it into packets as long as it
        carries. Each has a header without options then, and as much data as we would give it."""
        size = self.sender.mss
        cuts = size == self._own_mss and not self.receiver.gaps
        most = self._tuning.burst if cuts else 0
        lo = hi = 0
        for seq, end in self.sender.due(now, most):
            if seq == hi and (hi - lo) % size == 0 and end - lo <= most:
                hi = end
                continue
            if hi > lo:
                yield lo, hi
            lo, hi = seq, end
        if hi > lo:
            yield lo, hi

    def _syn(self) -> Segment:
        first = self.state is State.SYN_SENT
        segment = self._segment(SYN if first else SYN | ACK, self.sender.iss)
        segment.mss, segment.sacks = self._own_mss, ()
        segment.shift = self._own_shift
        segment.sack_ok = self._tuning.sack if first else self._sack
        segment.window = min(self.receiver.window(self._own_mss), 0xFFFF)
        if first:
            segment.ack = 0
        return segment

    def _segment(self, flags: int, seq: int) -> Segment:
        receiver = self.receiver
        window = min(receiver.window(self.sender.mss) >> self._shift, 0xFFFF)
        segment = Segment(self.ends.port, self.ends.peer_port, seq, receiver.nxt, flags, window)
        if self._sack and receiver.gaps:
            segment.sacks = receiver.sacks()
        return segment

    def _reply(self, flags: int, seq: int) -> None:
        if len(self._replies) < 64:  # more than comes in one turn, unless somebody floods
            self._replies.append(self._segment(flags, seq))

    def _reply_ack(self) -> None:
        self._reply(ACK, self.sender.nxt)

    def _challenge(self, now: int) -> None:
        """Acknowledge what does not belong, but not as often as it comes (RFC 5961, section 7).

        Otherwise two ends that disagree would tell each other so for ever.
        """
        if now >= self._next_challenge:
            self._next_challenge = now + self._tuning.challenge_interval
            self._ack_now = True

    def _end(self, error: int) -> None:
        self.error = error
        self.state = State.CLOSED

    # --- errors of the network --------------------------------------------------------------

    def unreachable(self, error: int, sequence: int) -> None:
        """ICMP says that the peer can't be reached: the end of an opening, else only a hint."""
        if not self.sender.una <= unwrap(sequence, self.sender.una) < self.sender.nxt:
            return  # somebody guesses (RFC 5927)
        if self.state is State.SYN_SENT:
            self._end(error)
        else:
            self.error = error

    def packet_too_big(self, mtu: int, sequence: int) -> None:
        """ICMP says that the path takes packets of `mtu` bytes (RFC 1191)."""
        if self.sender.una <= unwrap(sequence, self.sender.una) < self.sender.nxt:
            self.sender.path_mtu(mtu - 40)


def shift_for(window: int) -> int:
    """The least shift with which a window can be offered."""
    return min(max(window.bit_length() - 16, 0), MAX_SHIFT)
