"""TCP against a script: every state, every way out of it, and segments that don't belong."""

from __future__ import annotations

import errno
import itertools

import pytest

from libos.net.base import MILLISECOND, SECOND
from libos.net.tcp.connection import Connection
from libos.net.tcp.segment import ACK, FIN, MODULUS, PSH, RST, SYN, Segment
from libos.net.tcp.state import State
from libos.net.tcp.tuning import Tuning
from tests.libos_net.script import ISS, PEER, Script

LONG = 130  # seconds: more than twice the longest life of a segment


def state(connection: Connection) -> State:
    """Read anew each time: mypy takes an attribute for what it was before."""
    return connection.state


def flags(segments: list[Segment]) -> list[int]:
    return [s.flags & ~PSH for s in segments]


# --- opening -------------------------------------------------------------------------------------


def test_passive_open_and_echo() -> None:
    script = Script()
    connection = script.open(mss=1000)
    assert script.say(ACK, b"hello") == []  # the acknowledgement waits a little for an answer
    assert connection.read() == b"hello"
    connection.write(b"HELLO")
    (answer,) = script.hear()
    assert bytes(answer.data[0]) == b"HELLO"
    assert answer.ack == (ISS + 6) % MODULUS


def test_acknowledgement_is_delayed_no_longer_than_it_may() -> None:
    script = Script()
    script.open()
    assert script.say(ACK, b"hello") == []
    assert script.wait(0.039) == []
    (ack,) = script.wait(0.001)
    assert (ack.flags, ack.ack) == (ACK, (ISS + 6) % MODULUS)


def test_syn_ack_is_repeated_and_given_up() -> None:
    script = Script()
    script.host.tcp.listen(80)
    script.say(SYN)
    tries = script.wait(200)
    assert flags(tries) == [SYN | ACK] * 6
    assert len(script.host.tcp) == 0


def test_syn_again_is_answered_at_once() -> None:
    script = Script()
    script.host.tcp.listen(80)
    first = script.say(SYN)
    assert script.say(SYN) == first


def test_active_open() -> None:
    script = Script()
    connection = script.host.tcp.connect(PEER.ip, 4000, script.now)
    (syn,) = script.hear()
    assert (syn.flags, syn.mss, syn.sack_ok, syn.shift) == (SYN, 1460, True, 3)
    script.host_port, script.ack = syn.source_port, syn.seq + 1
    (ack,) = script.say(SYN | ACK, mss=500)
    assert (ack.flags, connection.state) == (ACK, State.ESTABLISHED)
    assert connection.sender.mss == 500
    assert ack.window <= 0xFFFF


def test_active_open_is_refused() -> None:
    script = Script()
    connection = script.host.tcp.connect(PEER.ip, 4000, script.now)
    (syn,) = script.hear()
    script.host_port = syn.source_port
    assert script.say(RST | ACK, seq=0, ack=syn.seq) == []  # of another connection
    assert script.say(RST, seq=0) == []
    assert state(connection) is State.SYN_SENT
    assert script.say(RST | ACK, seq=0, ack=syn.seq + 1) == []
    assert (connection.state, connection.error) == (State.CLOSED, errno.ECONNREFUSED)


def test_active_open_gives_up() -> None:
    script = Script()
    connection = script.host.tcp.connect(PEER.ip, 4000, script.now)
    assert flags(script.wait(200)) == [SYN] * 7
    assert (connection.state, connection.error) == (State.CLOSED, errno.ETIMEDOUT)


def test_active_open_answers_an_old_connection_with_a_reset() -> None:
    script = Script()
    script.host.tcp.connect(PEER.ip, 4000, script.now)
    (syn,) = script.hear()
    script.host_port = syn.source_port
    (reset,) = script.say(SYN | ACK, ack=syn.seq + 77)
    assert (reset.flags, reset.seq) == (RST, (syn.seq + 77) % MODULUS)


def test_both_ends_open_at_once() -> None:
    script = Script()
    connection = script.host.tcp.connect(PEER.ip, 4000, script.now)
    (syn,) = script.hear()
    script.host_port = syn.source_port
    (answer,) = script.say(SYN)
    assert (answer.flags, answer.seq) == (SYN | ACK, syn.seq)
    assert state(connection) is State.SYN_RECEIVED
    script.seq, script.ack = ISS + 1, syn.seq + 1
    script.say(ACK)
    assert state(connection) is State.ESTABLISHED


def test_segments_for_nobody_are_reset() -> None:
    script = Script()
    (reset,) = script.say(SYN)
    assert (reset.flags, reset.seq, reset.ack) == (RST | ACK, 0, ISS + 1)
    (reset,) = script.say(ACK, b"x", ack=55)
    assert (reset.flags, reset.seq) == (RST, 55)
    assert script.say(RST) == []


def test_wrong_acknowledgement_of_our_syn_is_reset() -> None:
    script = Script()
    listener = script.host.tcp.listen(80)
    (answer,) = script.say(SYN)
    script.seq = ISS + 1
    (reset,) = script.say(ACK, ack=answer.seq + 2)
    assert reset.flags == RST
    assert listener.accept() is None


# --- closing -------------------------------------------------------------------------------------


def test_we_close_first() -> None:
    script = Script()
    connection = script.open()
    connection.close()
    (fin,) = script.hear()
    assert (fin.flags & ~PSH, connection.state) == (FIN | ACK, State.FIN_WAIT_1)
    script.ack += 1
    assert script.say(ACK) == []
    assert state(connection) is State.FIN_WAIT_2
    (ack,) = script.say(FIN | ACK)
    assert (ack.flags, ack.ack) == (ACK, (ISS + 2) % MODULUS)
    assert state(connection) is State.TIME_WAIT
    # The last acknowledgement was lost: it is said again, and the waiting begins anew.
    script.wait(50)
    (again,) = script.say(FIN | ACK)
    assert again.flags == ACK
    script.wait(50)
    assert state(connection) is State.TIME_WAIT
    script.wait(20)
    assert state(connection) is State.CLOSED
    assert len(script.host.tcp) == 0


def test_peer_closes_first() -> None:
    script = Script()
    connection = script.open()
    (ack,) = script.say(FIN | ACK, b"bye")
    assert (ack.ack, connection.state) == ((ISS + 5) % MODULUS, State.CLOSE_WAIT)
    assert (connection.at_end, connection.read()) == (False, b"bye")
    assert connection.at_end
    connection.write(b"last")
    connection.close()
    (last,) = script.hear()  # the FIN goes with the last bytes
    assert (last.flags, bytes(last.data[0])) == (FIN | ACK | PSH, b"last")
    assert state(connection) is State.LAST_ACK
    script.seq, script.ack = script.seq + 4, script.ack + 5
    script.say(ACK)
    assert state(connection) is State.CLOSED
    assert len(script.host.tcp) == 0


def test_both_close_at_once() -> None:
    script = Script()
    connection = script.open()
    connection.shut_down()
    script.hear()
    script.say(FIN | ACK)
    assert state(connection) is State.CLOSING
    script.seq, script.ack = script.seq + 1, script.ack + 1
    script.say(ACK)
    assert state(connection) is State.TIME_WAIT
    script.wait(LONG)
    assert state(connection) is State.CLOSED


def test_fin_with_the_acknowledgement_of_ours() -> None:
    script = Script()
    connection = script.open()
    connection.shut_down()
    script.hear()
    script.ack += 1
    script.say(FIN | ACK)
    assert state(connection) is State.TIME_WAIT


def test_half_closed_connection_still_receives() -> None:
    script = Script()
    connection = script.open()
    connection.shut_down()
    script.hear()
    script.ack += 1
    script.say(ACK)
    script.say(ACK, b"more")
    assert connection.read() == b"more"


def test_new_syn_ends_time_wait() -> None:
    script = Script()
    connection = script.open()
    connection.close()
    script.hear()
    script.ack += 1
    script.say(FIN | ACK)
    assert state(connection) is State.TIME_WAIT
    (answer,) = script.say(SYN, seq=ISS + 5000)
    assert answer.flags == SYN | ACK
    assert state(connection) is State.CLOSED


def test_time_wait_is_bounded() -> None:
    script = Script(Tuning(max_time_wait=3))
    listener = script.host.tcp.listen(80)
    for port in range(5000, 5010):
        script.port, script.seq = port, ISS
        (answer,) = script.say(SYN)
        script.seq, script.ack = ISS + 1, answer.seq + 1
        script.say(ACK)
        connection = listener.accept()
        assert connection is not None
        connection.close()
        script.hear()
        script.ack += 1
        script.say(FIN | ACK)
    assert len(script.host.tcp) == 3


def test_data_for_a_closed_application_is_reset() -> None:
    script = Script()
    connection = script.open()
    connection.close()
    script.hear()
    answers = script.say(ACK, b"anybody?")
    assert flags(answers) == [RST | ACK]
    assert state(connection) is State.CLOSED


def test_close_with_unread_bytes_resets() -> None:
    script = Script()
    connection = script.open()
    script.say(ACK, b"unread")
    connection.close()
    assert flags(script.hear()) == [RST | ACK]


def test_peer_that_never_closes_is_left() -> None:
    script = Script()
    connection = script.open()
    connection.close()
    script.hear()
    script.ack += 1
    script.say(ACK)
    assert state(connection) is State.FIN_WAIT_2
    script.wait(61)
    assert state(connection) is State.CLOSED


def test_peer_that_takes_nothing_after_close_is_left() -> None:
    """A window of 0 for ever, after the application has gone, holds memory for a minute only."""
    script = Script()
    connection = script.open()
    connection.write(b"x" * 20_000)
    connection.close()
    script.hear()
    for _ in range(100):
        script.say(ACK, window=0)
        script.wait(1)
    assert state(connection) is State.CLOSED


# --- blind attackers, and segments that don't belong (RFC 5961) ----------------------------------


def test_reset_must_name_the_next_number() -> None:
    script = Script()
    connection = script.open()
    (challenge,) = script.say(RST, seq=ISS + 2)
    assert challenge.flags == ACK
    assert script.say(RST, seq=ISS - 5) == []
    assert state(connection) is State.ESTABLISHED
    assert script.say(RST) == []
    assert (connection.state, connection.error) == (State.CLOSED, errno.ECONNRESET)


def test_syn_never_resets() -> None:
    script = Script()
    connection = script.open()
    for seq in (ISS, ISS + 1, ISS + 5000):
        script.now += SECOND
        (challenge,) = script.say(SYN, seq=seq)
        assert challenge.flags == ACK
    assert state(connection) is State.ESTABLISHED


def test_two_ends_that_disagree_do_not_shout() -> None:
    script = Script()
    script.open()
    answers = [len(script.say(ACK, seq=ISS - 1000)) for _ in range(50)]
    assert sum(answers) == 1
    script.now += 100 * MILLISECOND
    assert len(script.say(ACK, seq=ISS - 1000)) == 1


def test_acknowledgement_of_what_was_never_sent() -> None:
    script = Script()
    connection = script.open()
    (answer,) = script.say(ACK, b"evil", ack=script.ack + 1)
    assert answer.flags == ACK
    assert connection.readable == 0


def test_data_outside_the_window_is_answered_and_dropped() -> None:
    script = Script(Tuning(receive_buffer=1000))
    connection = script.open()
    for seq in (ISS - 100, ISS + 2000):
        (answer,) = script.say(ACK, b"x" * 50, seq=seq)
        assert (answer.flags, answer.ack) == (ACK, (ISS + 1) % MODULUS)
    assert connection.readable == 0


# --- losses --------------------------------------------------------------------------------------


def test_out_of_order_data_is_put_in_order_and_reported() -> None:
    script = Script()
    connection = script.open(sack_ok=True)
    for at in (20, 10, 30):
        (duplicate,) = script.say(ACK, bytes([at]) * 5, seq=script.seq + at)
        assert duplicate.ack == (ISS + 1) % MODULUS
        assert duplicate.sacks[0] == ((ISS + 1 + at) % MODULUS, (ISS + 6 + at) % MODULUS)
    assert len(duplicate.sacks) == 3
    (ack,) = script.say(ACK, b"a" * 22)  # overlaps what is there
    assert ack.ack == (ISS + 26) % MODULUS
    assert connection.read() == b"a" * 22 + bytes([20]) * 3


def test_three_duplicates_resend_at_once() -> None:
    script = Script()
    connection = script.open(mss=100)
    connection.sender.nodelay = True
    connection.write(b"x" * 1000)
    sent = script.hear()
    assert len(sent) == 10
    assert script.say(ACK) == []
    assert script.say(ACK) == []
    (again,) = script.say(ACK)
    assert (again.seq, connection.sender.retransmissions) == (sent[0].seq, 1)
    assert connection.sender.congestion.window == 500
    # A partial acknowledgement names the next one that is missing (RFC 6582).
    script.ack = sent[4].seq
    assert sent[4].seq in [s.seq for s in script.say(ACK)]


def test_sack_resends_what_is_missing_only() -> None:
    script = Script()
    connection = script.open(mss=100, sack_ok=True)
    connection.write(b"x" * 1000)
    sent = script.hear()
    arrived = ((sent[1].seq, sent[3].seq), (sent[4].seq, sent[8].seq))
    answers = script.say(ACK, sacks=arrived)
    assert [s.seq for s in answers][:2] == [sent[0].seq, sent[3].seq]
    assert connection.sender.retransmissions == 2


def test_lost_retransmission_is_sent_again_without_a_timeout() -> None:
    script = Script()
    connection = script.open(mss=100, sack_ok=True)
    connection.write(b"x" * 5000)
    sent = script.hear()
    first = script.say(ACK, sacks=((sent[1].seq, sent[9].seq + 100),))
    assert first[0].seq == sent[0].seq
    newest = first[-1].seq + 100
    assert len(first) == 5  # and new data, as much as half the window takes
    again = script.say(ACK, sacks=((sent[1].seq, newest),))
    assert again[0].seq == sent[0].seq
    assert connection.sender.timeouts == 0


def test_window_grows_from_ten_segments_and_by_one_after_a_loss() -> None:
    script = Script()
    connection = script.open(mss=1000)
    connection.sender.nodelay = True

    def round_trip() -> int:
        """Everything in flight is acknowledged; how many segments go out then."""
        script.ack = connection.sender.nxt % MODULUS
        return len(script.say(ACK, window=60_000))

    connection.write(b"x" * 200_000)
    script.say(ACK, window=60_000)
    assert connection.sender.nxt - connection.sender.una == 10_000  # RFC 6928
    assert round_trip() == 12  # one acknowledgement counts for two segments (RFC 3465)
    assert round_trip() == 14
    script.next()  # a timeout: one segment, then slow start up to half of what was in flight
    assert connection.sender.congestion.window == 1000
    assert connection.sender.congestion.threshold == 7000
    windows = []
    for _ in range(8):
        round_trip()
        windows.append(connection.sender.congestion.window // 1000)
    assert windows == [3, 5, 7, 8, 9, 10, 11, 12]


def test_timeout_resends_and_doubles() -> None:
    script = Script()
    connection = script.open(mss=100)
    connection.write(b"x")
    first = script.hear()
    began = script.now
    times: list[int] = []
    while len(times) < 4:
        (again,) = script.next()
        assert again.seq == first[0].seq
        times.append(script.now - began)
    gaps = [b - a for a, b in zip([0, *times], times, strict=False)]
    assert gaps[0] >= 200 * MILLISECOND
    assert all(1.9 < b / a < 2.1 for a, b in itertools.pairwise(gaps))
    assert connection.sender.congestion.window == 100


def test_time_of_what_was_sent_twice_is_not_measured() -> None:
    """Karn: nobody knows which of the two was acknowledged."""
    script = Script()
    connection = script.open()
    measured = connection.sender.rtt.smoothed
    connection.write(b"x")
    script.hear()
    script.next()
    script.now += 5 * SECOND
    script.ack += 1
    script.say(ACK)
    assert connection.sender.drained
    assert connection.sender.rtt.smoothed == measured == 0
    connection.write(b"y")
    script.hear()
    script.now += 80 * MILLISECOND
    script.ack += 1
    script.say(ACK)
    assert connection.sender.rtt.smoothed == 10 * MILLISECOND  # an eighth of it


def test_options_and_data_fit_into_a_packet() -> None:
    script = Script()
    connection = script.open(sack_ok=True, mss=1460)
    script.say(ACK, b"later", seq=script.seq + 10)
    connection.sender.nodelay = True
    connection.write(bytes(1460 + 1440))
    full, rest = script.hear()
    assert (full.length, full.sacks) == (1460, ())
    assert (rest.length, len(rest.sacks)) == (1440, 1)


def test_peer_that_vanishes_ends_the_connection() -> None:
    script = Script()
    connection = script.open()
    connection.write(b"x")
    script.wait(2000)
    assert (connection.state, connection.error) == (State.CLOSED, errno.ETIMEDOUT)


def test_zero_window_is_probed_and_opened() -> None:
    script = Script()
    connection = script.open()
    script.say(ACK, window=0)
    connection.write(b"hello")
    assert script.hear() == []
    probes = script.wait(10)
    assert len(probes) >= 3
    assert all(not p.data and p.seq == (script.ack - 1) % MODULUS for p in probes)
    (data,) = script.say(ACK, window=1000)
    assert bytes(data.data[0]) == b"hello"


def test_zero_window_that_is_confirmed_is_probed_for_ever() -> None:
    script = Script()
    connection = script.open()
    script.say(ACK, window=0)
    connection.write(b"hello")
    for _ in range(40):
        assert script.wait(60)
        script.say(ACK, window=0)
    assert state(connection) is State.ESTABLISHED


def test_full_receiver_closes_its_window_and_says_when_it_opens() -> None:
    script = Script(Tuning(receive_buffer=2000, window_scaling=False))
    connection = script.open()
    script.say(ACK, b"x" * 1000)
    script.seq += 1000
    (ack,) = script.say(ACK, b"x" * 1000)
    assert ack.window == 0
    script.seq += 1000
    connection.read(10)
    assert script.hear() == []  # not worth a segment: silly windows
    connection.read()
    (update,) = script.hear()
    assert update.window == 2000


def test_window_is_not_opened_by_a_few_bytes() -> None:
    """Silly windows (RFC 9293, section 3.8.6.2.2)."""
    script = Script(Tuning(receive_buffer=4000, window_scaling=False))
    connection = script.open()
    script.say(ACK, b"x" * 1000)
    script.seq += 1000
    connection.read(10)
    (ack,) = script.say(ACK, seq=script.seq - 1)
    assert ack.window == 3000
    connection.read(700)
    script.now += SECOND
    (ack,) = script.say(ACK, seq=script.seq - 1)
    assert ack.window == 3710


def test_small_writes_wait_for_the_acknowledgement() -> None:
    """Nagle; and `nodelay` switches it off."""
    script = Script()
    connection = script.open()
    connection.write(b"a")
    assert len(script.hear()) == 1
    connection.write(b"b")
    connection.write(b"c")
    assert script.hear() == []
    script.ack += 1
    (both,) = script.say(ACK)
    assert b"".join(both.data) == b"bc"
    connection.sender.nodelay = True
    connection.write(b"d")
    assert len(script.hear()) == 1


# --- keep-alive, floods --------------------------------------------------------------------------


def test_keep_alive_finds_out() -> None:
    tuning = Tuning(keepalive_idle=10 * SECOND, keepalive_interval=SECOND, keepalive_probes=3)
    script = Script(tuning)
    connection = script.open()
    assert script.wait(30) == []  # it is off unless it is asked for
    connection.keepalive = True
    script.say(ACK)
    (probe,) = script.wait(10.5)
    assert (probe.seq, probe.flags) == ((script.ack - 1) % MODULUS, ACK)
    script.say(ACK)  # the peer is alive
    assert len(script.wait(12.5)) == 3
    script.wait(2)
    assert (connection.state, connection.error) == (State.CLOSED, errno.ETIMEDOUT)


def test_keep_alive_of_the_peer_is_answered() -> None:
    script = Script()
    script.open()
    (answer,) = script.say(ACK, seq=script.seq - 1)
    assert (answer.flags, answer.ack) == (ACK, (ISS + 1) % MODULUS)


def test_syn_flood_is_bounded_and_others_get_in() -> None:
    script = Script(Tuning(backlog=16))
    listener = script.host.tcp.listen(80)
    for n in range(2000):
        source = type(PEER.ip)(PEER.ip + 1 + n % 200)
        script.host.input(script.frame(SYN, source=source, port=1024 + n), script.now)
        script.host.advance(script.now)
        script.host.take()
        assert len(script.host.tcp) <= 16
    (answer,) = script.say(SYN)
    script.seq, script.ack = ISS + 1, answer.seq + 1
    script.say(ACK)
    assert listener.accept() is not None
    assert script.host.drops["tcp: half-open connections dropped"] > 1900


def test_connections_that_nobody_accepts_are_bounded() -> None:
    script = Script(Tuning(backlog=4))
    script.host.tcp.listen(80)
    for port in range(5000, 5010):
        script.port, script.seq = port, ISS
        for answer in script.say(SYN):
            script.seq, script.ack = ISS + 1, answer.seq + 1
            script.say(ACK)
    assert len(script.host.tcp) == 4
    assert script.host.drops["tcp: backlog full"] == 6


@pytest.mark.parametrize("size", [1, 7, 50])
def test_runs_out_of_order_are_bounded(size: int) -> None:
    script = Script()
    connection = script.open()
    for n in range(1000):
        seq = script.seq + 1 + n * (size + 1)
        script.host.input(script.frame(ACK, b"x" * size, seq=seq), script.now)
    receiver = connection.receiver
    assert len(receiver._runs) == 256
    assert sum(map(len, receiver._runs)) == 256 * size
    assert connection.readable == 0


def test_no_more_than_the_peers_window_is_on_the_way() -> None:
    script = Script()
    connection = script.open(mss=1000)
    script.say(ACK, window=3500)
    connection.no_delay()
    connection.write(bytes(10_000))
    assert sum(s.length for s in script.hear()) <= 3500
