"""The fast path of TCP: what it answers by itself, and that all else becomes a connection."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest

from libos.net.http.documents import MemoryDocuments
from libos.net.http.server import Server
from libos.net.tcp.connection import Connection
from libos.net.tcp.ready import Ready
from libos.net.tcp.segment import ACK, FIN, MODULUS, PSH, RST, SYN, Segment
from libos.net.tcp.state import State
from libos.net.tcp.table import Listener
from libos.net.tcp.tuning import BURST, Tuning
from tests.libos_net.kit import BAD, B, Lab
from tests.libos_net.script import ISS, Script

ANSWER = bytes(range(250)) + b"!"  # an odd number of bytes


class Quick(Script):
    """A host that answers `ask` with ANSWER, `bye` with the same and its end."""

    def __init__(self, tuning: Tuning | None = None) -> None:
        super().__init__(tuning)
        self.listener: Listener = self.host.tcp.listen(80)
        self.asked: list[bytes] = []
        self.host.answer_at_once(80, self.answer)

    def answer(self, data: bytes) -> Ready | None:
        self.asked.append(data)
        if data not in (b"ask", b"bye"):
            return None
        return Ready([ANSWER], data == b"bye")

    def shake_hands(self, **how: Any) -> None:
        (answer,) = self.say(SYN, **how)
        assert (answer.flags, answer.ack) == (SYN | ACK, (self.seq + 1) % MODULUS)
        self.seq, self.ack = (self.seq + 1) % MODULUS, (answer.seq + 1) % MODULUS
        assert self.say(ACK) == []

    def told(self, data: bytes) -> None:
        """The peer's numbers after it has said something and taken the answer."""
        self.seq = (self.seq + len(data)) % MODULUS
        self.ack = (self.ack + len(ANSWER) + (data == b"bye")) % MODULUS

    @property
    def plain(self) -> bool:
        """Whether everything went by the fast path."""
        return len(self.host.tcp) == 0

    @property
    def exchanges(self) -> int:
        """How many the fast path has."""
        assert self.host._fast is not None
        return len(self.host._fast)

    def taken(self) -> Connection:
        """The connection that the exchange has become."""
        connection = self.listener.accept()
        assert connection is not None
        assert self.exchanges == 0
        return connection


def body(segments: list[Segment]) -> bytes:
    return b"".join(bytes(part) for s in segments for part in s.data)


def test_whole_exchange_without_a_connection() -> None:
    """Numbers pass 2**32 on the way; checksums are looked at by `hear`."""
    script = Quick()
    script.shake_hands(mss=1460, sack_ok=True)
    for _ in range(200):
        (answer,) = script.say(ACK | PSH, b"ask")
        assert (answer.seq, answer.flags, body([answer])) == (script.ack, ACK | PSH, ANSWER)
        script.told(b"ask")
        assert answer.ack == script.seq
    (answer,) = script.say(ACK, b"bye")
    assert (answer.flags, body([answer])) == (ACK | PSH | FIN, ANSWER)
    script.told(b"bye")
    assert script.say(ACK) == []
    (answer,) = script.say(FIN | ACK)
    assert (answer.flags, answer.ack) == (ACK, (script.seq + 1) % MODULUS)
    assert script.plain
    assert script.wait(130) == []
    assert script.exchanges == 0  # TIME-WAIT is over


def test_options_of_the_handshake_are_answered() -> None:
    script = Quick()
    (answer,) = script.say(SYN, mss=900, sack_ok=True)
    assert (answer.mss, answer.sack_ok, answer.shift, answer.window) == (1460, True, None, 65535)
    script = Quick()
    (answer,) = script.say(SYN)
    assert (answer.mss, answer.sack_ok) == (1460, False)


def unknown(script: Quick) -> list[Segment]:
    return script.say(ACK, b"what?")


def in_parts(script: Quick) -> list[Segment]:
    return script.say(ACK, b"as")


def early(script: Quick) -> list[Segment]:
    return script.say(ACK, b"ask", seq=script.seq + 2)


def with_options(script: Quick) -> list[Segment]:
    return script.say(ACK, b"ask", sacks=((5, 9),))


def old(script: Quick) -> list[Segment]:
    return script.say(ACK, b"ask", seq=script.seq - 3)


def half_close(script: Quick) -> list[Segment]:
    return script.say(FIN | ACK)


def urgent(script: Quick) -> list[Segment]:
    return script.say(ACK | 0x20, b"ask")


@pytest.mark.parametrize("event", [unknown, in_parts, early, with_options, old, half_close, urgent])
@pytest.mark.parametrize("before", [0, 2])
def test_what_is_not_expected_makes_a_connection(
    event: Callable[[Quick], list[Segment]], before: int
) -> None:
    """It has all that came before, and goes on as one that was one from the beginning."""
    script = Quick()
    script.shake_hands(mss=1460, sack_ok=True)
    for _ in range(before):
        script.say(ACK, b"ask")
        script.told(b"ask")
    assert script.plain
    heard = event(script)
    connection = script.taken()
    plain = Script()
    twin = plain.open(mss=1460, sack_ok=True)
    plain.seq = twin.receiver.nxt % MODULUS
    expected = event(plain)  # type: ignore[arg-type]
    assert [(s.flags, (s.ack - script.seq) % MODULUS, body([s])) for s in heard] == [
        (s.flags, (s.ack - plain.seq) % MODULUS, body([s])) for s in expected
    ]
    assert connection.state is twin.state
    assert connection.read() == twin.read()
    connection.write(b"served")
    assert body(script.hear()) == b"served"


def test_reset_is_heard() -> None:
    script = Quick()
    script.shake_hands()
    assert script.say(RST) == []
    assert script.taken().closed
    assert script.plain


def test_lost_answer_is_sent_again() -> None:
    script = Quick()
    script.shake_hands()
    (first,) = script.say(ACK, b"ask")
    heard = script.wait(1.1)
    assert [(s.seq, body([s])) for s in heard] == [(first.seq, ANSWER)]
    script.told(b"ask")
    assert script.say(ACK) == []
    assert script.taken().sender.drained


def test_lost_answer_and_end_are_sent_again() -> None:
    script = Quick()
    script.shake_hands()
    script.say(ACK, b"bye")
    (again,) = script.wait(1.1)
    assert (body([again]), again.flags & FIN) == (ANSWER, FIN)
    script.told(b"bye")
    script.say(ACK)
    (answer,) = script.say(FIN | ACK)
    assert answer.flags == ACK
    assert script.listener.accept() is None  # it has been served: nobody is to take it
    assert script.wait(130) == []
    assert script.plain


def test_lost_handshake_is_sent_again() -> None:
    script = Quick()
    (first,) = script.say(SYN, mss=1000)
    (again,) = script.wait(1.1)
    assert (again.flags, again.seq, again.mss) == (SYN | ACK, first.seq, 1460)
    script.seq, script.ack = ISS + 1, first.seq + 1
    script.say(ACK)
    assert script.taken().state is State.ESTABLISHED


def test_request_while_an_answer_is_on_the_way() -> None:
    """The peer has seen nothing of the first answer yet: congestion control is TCP's."""
    script = Quick()
    script.shake_hands()
    script.say(ACK, b"ask")
    script.say(ACK, b"ask", seq=script.seq + 3)
    connection = script.taken()
    assert connection.read() == b"ask"
    connection.write(b"second")
    heard = script.hear()
    assert body(heard)[-6:] == b"second"
    assert heard[0].seq == (script.ack + len(ANSWER)) % MODULUS


def test_segments_that_are_not_intact_are_not_believed() -> None:
    script = Quick()
    script.shake_hands()
    good = script.frame(ACK, b"ask")
    for at in (24, 33, 36, 40, 47, 50, 55):
        bad = bytearray(good)
        bad[at] ^= 4
        script.host.input(bytes(bad), script.now)
        assert script.hear() == []
    assert script.asked == []
    script.host.input(good[:-1], script.now)
    assert script.hear() == []


def test_small_window_makes_a_connection() -> None:
    script = Quick()
    script.shake_hands(mss=1460)
    script.say(ACK, b"ask", window=len(ANSWER) - 1)
    assert script.taken().read() == b"ask"


def test_silence_makes_a_connection() -> None:
    script = Quick()
    script.shake_hands()
    script.say(ACK, b"ask")
    script.told(b"ask")
    script.say(ACK)
    assert script.wait(7) == []
    script.taken().write(b"you there?")
    assert body(script.hear()) == b"you there?"


SHARED = Ready([ANSWER, ANSWER], True)


@pytest.mark.parametrize("mss", [64, 249, 536, 1460])
def test_answer_of_several_segments(mss: int) -> None:
    """Numbers, flags and sums are those that a connection would send."""
    script = Quick()
    script.host.answer_at_once(80, lambda _data: SHARED)
    script.shake_hands(mss=mss)
    heard = script.say(ACK, b"x", window=60_000)
    assert body(heard) == ANSWER * 2
    assert {len(body([s])) for s in heard[:-1]} <= {mss}
    assert [s.flags for s in heard] == [ACK] * (len(heard) - 1) + [ACK | PSH | FIN]
    assert [s.seq for s in heard] == [(script.ack + mss * k) % MODULUS for k in range(len(heard))]
    assert script.plain


LONG = random.Random(1).randbytes(100_001)


class Reader:
    """Asks for LONG and acknowledges what comes, `each` bytes at a time."""

    def __init__(self, script: Quick, window: int = 60_000) -> None:
        self.script, self.window = script, window
        script.host.answer_at_once(80, lambda _data: Ready([LONG[:5000], LONG[5000:]], False))
        script.shake_hands(mss=1460, sack_ok=True)
        self.got = bytearray()
        self.sizes: list[int] = []
        self.take(script.frame(ACK, b"ask", window=window))
        script.seq = (script.seq + 3) % MODULUS

    def take(self, frame: bytes) -> None:
        """What comes then; in order, and no more than the window."""
        self.script.host.input(frame, self.script.now)
        self.script.host.advance(self.script.now)
        for answer in self.script.host.take():
            seq = int.from_bytes(answer[38:42], "big")
            assert seq == (self.script.ack + len(self.got)) % MODULUS
            self.got += answer[54:]
            self.sizes.append(len(answer) - 54)
        assert self.flight <= self.window
        self.most = self.flight

    acked = 0

    @property
    def flight(self) -> int:
        return len(self.got) - self.acked

    def acknowledge(self, count: int) -> None:
        self.acked += count
        ack = (self.script.ack + self.acked) % MODULUS
        self.take(self.script.frame(ACK, ack=ack, window=self.window))


@pytest.mark.parametrize("burst", [0, BURST])
def test_long_answer_goes_out_in_slow_start(burst: int) -> None:
    script = Quick(Tuning(burst=burst))
    reader = Reader(script)
    assert reader.flight == 14600
    assert len(reader.sizes) == (1 if burst else 10)
    reader.acknowledge(2920)
    assert reader.flight == 14600 + 2920
    reader.acknowledge(14600)
    assert reader.flight == 14600 + 2 * 2920  # one acknowledgement, two segments more (RFC 3465)
    while len(reader.got) < len(LONG):
        reader.acknowledge(min(2920, reader.flight))
    assert reader.got == LONG
    reader.acknowledge(reader.flight)
    assert script.plain
    assert script.wait(3) == []


def test_long_answer_after_a_silence_begins_slowly() -> None:
    """RFC 5681, section 4.1: what was known of the path is old."""
    script = Quick()
    reader = Reader(script)
    while len(reader.got) < len(LONG):
        reader.acknowledge(min(2920, reader.flight))
    reader.acknowledge(reader.flight)
    script.ack = (script.ack + len(LONG)) % MODULUS
    assert script.wait(1) == []
    assert len(body(script.say(ACK, b"ask", window=60_000))) == 14600
    assert script.plain


def test_long_answer_keeps_to_the_peers_window() -> None:
    reader = Reader(Quick(Tuning(burst=BURST)), window=10_000)
    assert reader.flight == 8760  # whole segments
    reader.acknowledge(8760)
    assert reader.flight == 8760
    assert reader.script.plain


@pytest.mark.parametrize("loss", ["reported", "silent"])
def test_long_answer_of_which_some_is_lost(loss: str) -> None:
    """A connection goes on in its middle, with what was on the way."""
    script = Quick()
    reader = Reader(script)
    reader.acknowledge(2920)
    reader.acknowledge(2920)
    sent, ack = len(reader.got), (script.ack + reader.acked) % MODULUS
    heard: list[Segment] = []
    if loss == "reported":
        first = (ack + 1460) % MODULUS
        for k in range(1, 5):
            block = (first, (first + 1460 * k) % MODULUS)
            heard += script.say(ACK, ack=ack, window=60_000, sacks=(block,))
        assert any(s.seq == ack and len(body([s])) == 1460 for s in heard)
    else:
        heard = script.wait(1.1)
        assert [(s.seq, len(body([s]))) for s in heard] == [(ack, 1460)]  # one, as after a timeout
    # All is acknowledged, as often as it takes.
    end = (script.ack + sent) % MODULUS
    heard = script.say(ACK, ack=end, window=60_000)
    for _ in range(100):
        for segment in sorted(heard, key=lambda s: (s.seq - end) % MODULUS):
            at = (segment.seq - script.ack) % MODULUS
            data = body([segment])
            assert LONG[at : at + len(data)] == data
            end = (segment.seq + len(data)) % MODULUS
        if (end - script.ack) % MODULUS == len(LONG):
            break
        heard = script.say(ACK, ack=end, window=60_000) or script.wait(0.3)
    script.say(ACK, ack=end)
    assert (end - script.ack) % MODULUS == len(LONG)
    assert script.taken().sender.drained


def test_everything_is_bounded() -> None:
    tuning = Tuning(backlog=10, max_time_wait=5, max_connections=30)
    script = Quick(tuning)
    for port in range(1000, 1100):
        script.port = port
        assert len(script.say(SYN, seq=ISS, ack=0)) == 1
    assert script.exchanges == 10
    script = Quick(tuning)
    for port in range(1000, 1020):
        script.port, script.seq, script.ack = port, ISS, 0
        script.shake_hands()
        script.say(ACK, b"bye")
        script.told(b"bye")
        script.say(FIN | ACK)
    assert script.exchanges == 5
    script = Quick(tuning)
    for port in range(1000, 1050):
        script.port, script.seq, script.ack = port, ISS, 0
        if heard := script.say(SYN):
            script.seq, script.ack = ISS + 1, heard[0].seq + 1
            script.say(ACK)
    assert script.exchanges + len(script.host.tcp) == 30


def test_time_wait_is_left_by_a_new_handshake_alone() -> None:
    script = Quick()
    script.shake_hands()
    script.say(ACK, b"bye")
    script.told(b"bye")
    script.say(FIN | ACK)
    seq = script.seq
    assert [s.flags for s in script.say(SYN, seq=seq - 1, ack=0)] in ([], [ACK])
    script = Quick()
    script.shake_hands()
    script.say(ACK, b"bye")
    script.told(b"bye")
    script.say(FIN | ACK)
    script.seq = (script.seq + 1000) % MODULUS
    script.shake_hands()
    (answer,) = script.say(ACK, b"ask")
    assert body([answer]) == ANSWER
    assert script.plain


def test_repeated_fin_is_acknowledged_again() -> None:
    script = Quick()
    script.shake_hands()
    script.say(ACK, b"bye")
    script.told(b"bye")
    script.say(FIN | ACK)
    (answer,) = script.say(FIN | ACK)
    assert (answer.flags, answer.ack) == (ACK, (script.seq + 1) % MODULUS)


@pytest.mark.parametrize("seed", range(3))
def test_bad_network_changes_no_answer(seed: int) -> None:
    """Frames are lost, doubled, late, damaged: exchanges become connections, replies are whole."""
    files = {b"%d" % n: random.Random(n).randbytes(n) for n in (0, 10, 1000, 5000, 40_000)}
    lab = Lab(BAD, seed=seed)
    server = Server(lab.b.tcp.listen(80), MemoryDocuments(files), lambda: 0)
    lab.b.answer_at_once(80, server.at_once)
    rng = random.Random(seed)
    for _ in range(30):
        size = rng.choice(list(files))
        client = lab.a.tcp.connect(B.ip, 80, lab.clock())
        client.write(b"GET /" + size + b" HTTP/1.1\r\nHost: x\r\n\r\n")
        client.write(b"GET /" + size + b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        got = bytearray()

        def act(client: Connection = client, got: bytearray = got) -> None:
            server.turn(lab.clock())
            got.extend(client.read())

        lab.run(lambda client=client: client.at_end or client.closed, act)  # type: ignore[misc]
        client.close()
        replies = bytes(got).split(b"HTTP/1.1 200 OK\r\n")[1:]
        assert [reply.partition(b"\r\n\r\n")[2] for reply in replies] == [files[size]] * 2
    lab.pass_time(200)
    assert len(lab.b.tcp) == 0
    assert lab.b._fast is not None
    assert len(lab.b._fast) == 0
