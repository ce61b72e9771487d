"""Exchanges on which nothing unusual happens, answered from frame to frame.

A handshake, requests whose answers lie ready, a close: that needs little of TCP. Here it gets that:
one look-up by the bytes of its addresses and ports, a comparison of its numbers with those
expected, the application's handler, one frame. It is what a handler of the kernel (ASH) does for an
endpoint, for answers that are too many or too long for one (Kaashoek et al. 1997, section 7.3); the
comparison is header prediction (Jacobson, "4BSD Header Prediction", 1990).

Whatever is not expected (a loss, options, numbers out of order, a request without a ready answer,
a reset, silence) makes the exchange a `Connection`, which does all of it from there: `hand_over`. A
new one is shown what it would have seen, with the numbers as they are now, so that no rule of TCP
is written twice.

Guarantees: no segment counts whose checksums do not hold; one answer is on the way at a time, no
more of it than the peer's window and a congestion window in slow start: who loses something, or has
reason to leave slow start, is a connection. Bounded: exchanges and connections together, half-open
ones, those in TIME-WAIT; answers by what a connection takes to send.
"""

from __future__ import annotations

import struct
from collections import OrderedDict, deque
from collections.abc import Callable
from functools import lru_cache
from typing import Final, Protocol

from libos.net import checksum
from libos.net.base import SECOND, Drops, Ip, Mac, Malformed, is_unicast
from libos.net.tcp.congestion import initial_window
from libos.net.tcp.connection import Connection, shift_for
from libos.net.tcp.ready import Ready
from libos.net.tcp.segment import (
    ACK,
    DEFAULT_MSS,
    FIN,
    MODULUS,
    PSH,
    SYN,
    Segment,
    build_options,
    parse_options_untrusted,
)
from libos.net.tcp.state import Ends
from libos.net.tcp.tuning import Tuning

_WORDS: Final = 65535
_TCP: Final = 6
_HEADERS: Final = 54  # of Ethernet, IPv4 and TCP, without options
#: to, type, version, total, fragment, protocol, the two addresses and ports, seq, ack, offset and
#: flags, window
_IN: Final = struct.Struct(">6s6xHBxH2xHxB2x12sIIHH4x")
#: Ethernet and the first two bytes of IPv4; total; identification to protocol; checksum; addresses
#: and ports; seq, ack, offset and flags, window, checksum, urgent
_OUT: Final = struct.Struct(">16sH6sH12sIIHHHH")
_MIDDLE: Final = bytes.fromhex("0000 4000 4006")  # no identification, don't fragment, 64 hops, TCP
_ENDS: Final = struct.Struct(">IIHH")  # peer, own address, the peer's port, own port
#: Offset and flags that matter: not PSH, ECN. Urgent data and odd flags match nothing below.
_BITS: Final = 0xFF37
_OFFSET: Final = 0x5000  # a header without options
_ACK: Final = _OFFSET | ACK
_FIN: Final = _OFFSET | FIN | ACK
_QUIET: Final = 5 * SECOND  # then it is the application's business: it has its own patience

_OPENING, _OPEN, _CLOSING, _CLOSED, _DONE = range(5)  # SYN-RECEIVED … FIN-WAIT-1, -2, TIME-WAIT


#: MSS, window shift and SACK-permitted of a peer's SYN.
Offered = tuple[int | None, int | None, bool]
#: What a segment's bytes are answered with, if they are whole requests; None: this is not for the
#: fast path.
Handler = Callable[[bytes], Ready | None]


class Ordinary(Protocol):
    """What is needed of `TcpTable`."""

    tuning: Tuning
    mss: int

    def __len__(self) -> int: ...
    def isn(self, ends: Ends, now: int) -> int: ...
    def adopt(self, connection: Connection) -> None: ...
    def touch(self, connection: Connection) -> None: ...


class _Exchange:
    """One peer. Numbers are modulo 2**32; `start` is that of the answer's first byte."""

    __slots__ = (
        "acked", "answer", "ends_sum", "expected", "handler", "head", "heard", "ipv4_sum", "key",
        "mss", "nxt", "offered", "own_shift", "places", "room", "sent", "shift", "size", "start",
        "state", "tcp_sum", "waiting", "window",
    )  # fmt: skip

    def __init__(
        self, key: bytes, head: bytes, handler: Handler, expected: int, start: int, offered: Offered
    ) -> None:
        self.key, self.head, self.handler, self.offered = key, head, handler, offered
        self.places = key[4:8] + key[:4] + key[10:] + key[8:10]
        hosts = int.from_bytes(key[:8], "big") % _WORDS
        self.ipv4_sum = hosts + 0x4500 + 20 + 0x4000 + 0x4006  # of the header but for its length
        self.tcp_sum = hosts + _TCP
        self.ends_sum = self.tcp_sum + int.from_bytes(key[8:], "big") % _WORDS
        self.state = _OPENING
        self.expected = expected  # RCV.NXT
        self.start = self.nxt = start
        self.window = self.shift = self.own_shift = self.room = self.mss = 0
        self.answer: Ready | None = None
        self.size = self.sent = self.acked = 0  # bytes of the answer
        #: since when what was sent is not acknowledged
        self.waiting: int | None = None
        self.heard = 0


class FastPath:
    """All exchanges of one host. `input` comes before everything else that looks at a frame."""

    def __init__(
        self,
        own: Mac,
        address: Ip,
        table: Ordinary,
        send: Callable[[bytes], None],
        routed: Callable[[Ip], bool],
        drops: Drops,
    ) -> None:
        """`routed` says whether an address can be answered at all."""
        self._own, self._address, self._table = own, address, table
        self._send, self._routed, self._drops = send, routed, drops
        self._raw_address = address.to_bytes(4, "big")
        self._handlers: dict[int, Handler] = {}
        self._exchanges: dict[bytes, _Exchange] = {}
        self._half_open: OrderedDict[bytes, None] = OrderedDict()
        self._done: OrderedDict[bytes, int] = OrderedDict()  # TIME-WAIT, until when
        self._unanswered: deque[tuple[int, _Exchange]] = deque()  # (since when, of what)
        self._next_look = 0
        self._handed = False  # by `advance`: the application has a connection to accept
        tuning = table.tuning
        self._window = tuning.receive_buffer
        #: bytes of one frame: more than a segment where the interface cuts
        self._step = max(tuning.burst // table.mss, 1) * table.mss
        self._own_shift = shift_for(tuning.receive_buffer) if tuning.window_scaling else None

    def __len__(self) -> int:
        return len(self._exchanges)

    def serve(self, port: int, handler: Handler) -> None:
        """Answer at once on a port that somebody listens on."""
        self._handlers[port] = handler

    # --- frames -----------------------------------------------------------------------------

    def input(self, frame: bytes, now: int) -> bool:
        """Take in a frame; False: it is not for the fast path, and nothing was done."""
        if len(frame) < _HEADERS:
            return False
        to, kind, first, total, part, protocol, key, seq, ack, bits, window = _IN.unpack_from(frame)
        exchange = self._exchanges.get(key)
        if exchange is None and (
            bits & 0x37 != SYN or int.from_bytes(key[10:], "big") not in self._handlers
        ):
            return False
        if to != self._own or kind != 0x0800 or first != 0x45 or part & 0x3FFF:
            return False
        if protocol != _TCP or not 40 <= total <= len(frame) - 14:
            return False
        if not _intact(frame, total, key):
            return False
        if exchange is None:
            return self._open(frame, key, seq, bits, total, now)
        if exchange.state == _DONE:
            ahead = (seq - exchange.expected) % MODULUS
            if bits & 0x37 != SYN or not 0 < ahead < MODULUS >> 1:
                return False
            self._forget(exchange)  # RFC 9293, section 3.6.1
            return self._open(frame, key, seq, bits, total, now)
        bits &= _BITS
        if seq != exchange.expected or (bits != _ACK and bits != _FIN):
            return False
        if ack != exchange.nxt or exchange.sent < exchange.size:
            return self._partly(exchange, ack, bits, window, total, now)
        return self._expected(exchange, frame[_HEADERS : 14 + total], bits, window, now)

    def _partly(
        self, exchange: _Exchange, ack: int, bits: int, window: int, total: int, now: int
    ) -> bool:
        """A part of a long answer has arrived: slow start (RFC 5681, RFC 3465), and more of it."""
        gone = (ack - exchange.start) % MODULUS
        if exchange.state == _OPENING or bits != _ACK or total != 40:
            return False
        if not exchange.acked < gone <= exchange.sent:
            return False
        if exchange.sent < exchange.size:
            exchange.room += min(gone - exchange.acked, 2 * exchange.mss)
        exchange.acked = gone
        exchange.window, exchange.heard = window << exchange.shift, now
        self._send_on(exchange, now)
        return True

    def _expected(self, exchange: _Exchange, data: bytes, bits: int, window: int, now: int) -> bool:
        """The segment that comes next when all goes well: nothing is on the way any more."""
        if now - exchange.heard > self._table.tuning.min_rto:  # RFC 5681, section 4.1
            exchange.room = initial_window(exchange.mss)
        exchange.window, exchange.heard, exchange.waiting = window << exchange.shift, now, None
        if exchange.start != exchange.nxt:
            exchange.start, exchange.answer = exchange.nxt, None
            exchange.size = exchange.sent = exchange.acked = 0
        if exchange.state == _OPENING:
            del self._half_open[exchange.key]
            exchange.state = _OPEN
        elif exchange.state == _CLOSING:
            exchange.state = _CLOSED
        if bits == _FIN:
            if data or exchange.state != _CLOSED:
                return False
            self._peer_closed(exchange, now)
            return True
        if not data:
            return True
        if exchange.state != _OPEN:
            return False
        answer = exchange.handler(data)
        if answer is None or not 0 < answer.size <= self._table.tuning.send_buffer:
            return False
        if exchange.window < min(answer.size, exchange.mss):
            return False  # small windows are another matter (RFC 9293, section 3.8.6.2.1)
        exchange.expected = (exchange.expected + len(data)) % MODULUS
        exchange.answer, exchange.size = answer, answer.size
        self._send_on(exchange, now)
        return True

    def _send_on(self, exchange: _Exchange, now: int) -> None:
        """As much of the answer as may be on the way, in full segments but for the last."""
        answer, mss, size = exchange.answer, exchange.mss, exchange.size
        assert answer is not None
        stop = exchange.acked + min(exchange.room, exchange.window)
        stop = size if stop >= size else stop - stop % mss
        step = self._step if mss == self._table.mss else mss
        while exchange.sent < stop:
            at = exchange.sent
            exchange.sent = end = min(stop, at + step)
            flags, over = _ACK, end == size and answer.last
            if end == size:
                flags |= PSH | (FIN if over else 0)
            if end - at > mss:
                self._transmit(exchange, flags, b"".join(answer.slice(at, end)))
            else:
                self._transmit(exchange, flags, *answer.segment(at, mss))
            exchange.nxt = (exchange.start + end + over) % MODULUS
            if over:
                exchange.state = _CLOSING
        exchange.waiting = now
        self._unanswered.append((now, exchange))

    def _peer_closed(self, exchange: _Exchange, now: int) -> None:
        """Both ends have said that they are at the end; ours is acknowledged."""
        exchange.expected = (exchange.expected + 1) % MODULUS
        exchange.state = _DONE
        self._transmit(exchange, _ACK)
        self._done[exchange.key] = now + 2 * self._table.tuning.max_segment_lifetime
        if len(self._done) > self._table.tuning.max_time_wait:
            self._forget(self._exchanges[next(iter(self._done))])

    # --- opening ----------------------------------------------------------------------------

    def _open(self, frame: bytes, key: bytes, seq: int, bits: int, total: int, now: int) -> bool:
        peer, address, peer_port, port = _ENDS.unpack(key)
        size, tuning = (bits >> 12) * 4, self._table.tuning
        if address != self._address or not is_unicast(peer) or peer == address or not peer_port:
            return False
        if frame[6] & 1 or size + 20 != total or not self._routed(Ip(peer)):
            return False
        if len(self) + len(self._table) >= tuning.max_connections:
            self._drops["tcp: backlog full"] += 1
            return True
        options = frame[54 : 34 + size]
        if options[:2] == b"\x02\x04" and options[4:8] == b"\x04\x02\x08\x0a":
            options = options[:6] + options[16:]  # Linux's order; its time differs each time
        offered = _options(options)
        if offered is None:
            return False
        iss = self._table.isn(Ends(port, Ip(peer), peer_port), now)
        head = frame[6:12] + self._own + b"\x08\x00\x45\x00"
        handler, start = self._handlers[port], (iss + 1) % MODULUS
        made = _Exchange(key, head, handler, (seq + 1) % MODULUS, start, offered)
        own, (mss, shift, sack_ok) = self._table.mss, offered
        theirs = DEFAULT_MSS if mss is None else mss
        made.mss = min(own, theirs)
        made.room = initial_window(made.mss)
        scale = None if shift is None else self._own_shift
        if shift is not None and scale is not None:
            made.shift, made.own_shift = shift, scale
        self._exchanges[key] = made
        if len(self._half_open) >= tuning.backlog:
            self._forget(self._exchanges[next(iter(self._half_open))])
        self._half_open[key] = None
        options = _own_options(own, scale, sack_ok and tuning.sack)
        bits = (5 + len(options) // 4) << 12 | SYN | ACK
        made.nxt = iss % MODULUS
        self._transmit(made, bits, options, checksum.partial_sum(options))
        made.nxt = start
        made.heard = now
        made.waiting = now
        self._unanswered.append((now, made))
        return True

    # --- out --------------------------------------------------------------------------------

    def _transmit(self, exchange: _Exchange, bits: int, data: bytes = b"", total: int = 0) -> None:
        """One segment; `data` follow the first twenty bytes, `total` is their sum."""
        length, seq, ack = 20 + len(data), exchange.nxt, exchange.expected
        window = self._window
        if not bits & SYN:  # RFC 7323, section 2.2
            window >>= exchange.own_shift
        if window > _WORDS:
            window = _WORDS
        if len(data) > self._table.mss:  # cut by the interface, which sums from this sum on
            tcp = checksum.fold(exchange.tcp_sum + length)
        else:
            tcp = _WORDS - (exchange.ends_sum + length + seq + ack + bits + window + total) % _WORDS
        ipv4 = _WORDS - (exchange.ipv4_sum + length) % _WORDS
        header = _OUT.pack(
            exchange.head, 20 + length, _MIDDLE, ipv4, exchange.places,
            seq, ack, bits, window, tcp, 0,
        )  # fmt: skip
        self._send(header + data)

    # --- time -------------------------------------------------------------------------------

    def deadline(self) -> int | None:
        """When `advance` has something to do."""
        if self._handed:
            return 0
        queue = self._unanswered
        while queue and queue[0][1].waiting != queue[0][0]:
            queue.popleft()
        if queue:
            return min(queue[0][0] + self._table.tuning.first_rto, self._next_look)
        return self._next_look if self._exchanges else None

    def advance(self, now: int) -> None:
        """What was not acknowledged in time, and who is silent, is a connection from now on."""
        self._handed = False
        queue, late = self._unanswered, now - self._table.tuning.first_rto
        while queue and queue[0][0] <= late:
            since, exchange = queue.popleft()
            if exchange.waiting == since and self._exchanges.get(exchange.key) is exchange:
                self._connect(exchange, since)
                self._handed = True
        if now < self._next_look:
            return
        self._next_look = now + SECOND
        while self._done and self._done[next(iter(self._done))] <= now:
            self._forget(self._exchanges[next(iter(self._done))])
        for exchange in list(self._exchanges.values()):
            if exchange.state != _DONE and now - exchange.heard >= _QUIET:
                self._connect(exchange, now)
                self._handed = True

    # --- the ordinary way -------------------------------------------------------------------

    def hand_over(self, ends: Ends, now: int) -> Connection | None:
        """The exchange with that peer as a connection, which the table then has; None: none."""
        key = _ENDS.pack(ends.peer, self._address, ends.peer_port, ends.port)
        exchange = self._exchanges.get(key)
        return None if exchange is None else self._connect(exchange, now)

    def _forget(self, exchange: _Exchange) -> None:
        del self._exchanges[exchange.key]
        self._half_open.pop(exchange.key, None)
        self._done.pop(exchange.key, None)
        exchange.waiting = None

    def _connect(self, exchange: _Exchange, when: int) -> Connection:
        """A connection that has seen what this exchange has, and sent what it has at `when`."""
        self._forget(exchange)
        state, table = exchange.state, self._table
        peer, _, peer_port, port = _ENDS.unpack(exchange.key)
        ends = Ends(port, Ip(peer), peer_port)
        over = state in (_CLOSED, _DONE)  # our FIN is acknowledged: it is the number before
        start = (exchange.start + exchange.acked - over) % MODULUS
        expected = (exchange.expected - (state == _DONE)) % MODULUS
        made = Connection(ends, (start - 1) % MODULUS, table.mss, table.tuning, table.touch)
        syn = Segment(peer_port, port, (expected - 1) % MODULUS, 0, SYN, 1, (), *exchange.offered)
        made.passive_open(syn, when)
        if state == _OPENING:
            made.flush(when)
            table.adopt(made)
            return made
        made.flush(when)
        flight = exchange.sent - exchange.acked
        window = max(exchange.window, flight + 1) >> exchange.shift
        heard = Segment(peer_port, port, expected, start, ACK, min(window + 1, _WORDS))
        made.input(heard, when)
        made.no_delay()
        made.sender.congestion.window = max(made.sender.congestion.window, flight)
        if exchange.answer is not None:
            for piece in exchange.answer.slice(exchange.acked, exchange.size):
                made.write(piece)
        if state >= _CLOSING or (exchange.answer is not None and exchange.answer.last):
            made.close()
        made.flush(when)
        if over:
            heard.ack = exchange.nxt
            made.input(heard, when)
        if state == _DONE:
            heard.flags |= FIN
            made.input(heard, when)
            made.flush(when)
        table.adopt(made)
        return made


def _intact(frame: bytes, total: int, key: bytes) -> bool:
    """Whether both checksums hold."""
    if int.from_bytes(frame[14:34], "big") % _WORDS:
        return False
    words = int.from_bytes(frame[34 : 14 + total], "big")
    before = int.from_bytes(key[:8], "big") + _TCP + total - 20
    return not ((words << 8 if total & 1 else words) + before) % _WORDS


@lru_cache(maxsize=256)
def _options(raw: bytes) -> Offered | None:
    """What the options of a SYN say; None: malformed. Peers of one kind say the same."""
    segment = Segment(0, 0, 0, 0, SYN, 0)
    try:
        parse_options_untrusted(memoryview(raw), segment)
    except Malformed:
        return None
    return segment.mss, segment.shift, segment.sack_ok


@lru_cache(maxsize=8)
def _own_options(mss: int, shift: int | None, sack_ok: bool) -> bytes:
    """What the answer to a SYN carries."""
    return build_options(Segment(0, 0, 0, 0, SYN, 0, (), mss, shift, sack_ok))
