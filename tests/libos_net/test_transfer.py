"""TCP over a simulated wire that loses, reorders, doubles and damages frames."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from libos.net.tcp.state import State
from libos.net.tcp.tuning import Tuning
from tests.libos_net.kit import BAD, GOOD, B, Lab, both_ways
from xnfs.net import Conditions

PLAIN = Tuning(sack=False, window_scaling=False)


def test_transfer_on_a_good_path() -> None:
    lab = Lab(GOOD)
    there, back = both_ways(lab, 1 << 20)
    assert there.intact
    assert back.intact
    assert there.sender.sender.retransmissions == 0
    # 1 MiB at 100 Mbit/s is 88 ms; slow start from ten segments takes five round trips of 10 ms.
    assert lab.clock() < 1_400_000_000


@pytest.mark.parametrize("tuning", [Tuning(), PLAIN], ids=["sack", "plain"])
def test_transfer_on_a_bad_path(tuning: Tuning) -> None:
    lab = Lab(BAD, seed=3, tuning=tuning)
    there, back = both_ways(lab, 1 << 20)
    assert there.intact
    assert back.intact
    assert there.sender.sender.retransmissions > 20
    assert lab.wire.there.tally.lost > 20
    assert lab.wire.there.tally.reordered > 50
    assert {"tcp: checksum"} <= set(lab.b.drops)


def test_transfer_is_the_same_in_each_run() -> None:
    runs = []
    for _ in range(2):
        lab = Lab(BAD, seed=5)
        both_ways(lab, 100_000)
        runs.append((lab.clock(), lab.turns, lab.seen))
    assert runs[0] == runs[1]


def test_one_turn_sends_a_bounded_number_of_segments() -> None:
    """And the next goes on where it stopped: no connection waits for ever."""
    lab = Lab()
    lab.connected(79)  # so that addresses are known
    listener = lab.b.tcp.listen(80)
    opened = [lab.a.tcp.connect(B.ip, 80, lab.clock()) for _ in range(60)]
    lab.run(lambda: all(c.state is State.ESTABLISHED for c in opened))
    lab.pass_time(1)
    for connection in opened:
        connection.write(bytes(14_600))
    counts = []
    while lab.a.deadline() == 0:
        lab.a.advance(lab.clock())
        counts.append(len(lab.a.take()))
    assert sum(counts) == 600
    assert counts[:2] == [260, 260]
    assert len(listener) == 60


@pytest.mark.slow
@pytest.mark.parametrize("tuning", [Tuning(), PLAIN], ids=["sack", "plain"])
def test_transfer_of_ten_mebibytes_on_a_bad_path(tuning: Tuning) -> None:
    there, back = both_ways(Lab(BAD, seed=1, tuning=tuning), 10 << 20, 3000)
    assert there.intact
    assert back.intact


conditions = st.builds(
    Conditions,
    latency=st.integers(0, 100_000_000),
    jitter=st.integers(0, 20_000_000),
    bandwidth=st.sampled_from([0, 1_000_000, 100_000_000]),
    queue=st.integers(4, 200),
    loss=st.floats(0, 0.2),
    duplication=st.floats(0, 0.3),
    corruption=st.floats(0, 0.1),
    reordering=st.floats(0, 0.5),
    late=st.integers(0, 200_000_000),
)
tunings = st.builds(
    Tuning,
    send_buffer=st.sampled_from([1, 1000, 65536, 262144]),
    receive_buffer=st.sampled_from([100, 3000, 65536, 1 << 20]),
    sack=st.booleans(),
    window_scaling=st.booleans(),
)


@settings(max_examples=25)
@given(how=conditions, tuning=tunings, seed=st.integers(0, 999), size=st.integers(0, 12_000))
def test_transfer_whatever_the_path(how: Conditions, tuning: Tuning, seed: int, size: int) -> None:
    lab = Lab(how, seed, tuning)
    there, back = both_ways(lab, min(size, tuning.send_buffer * 50), 10_000)
    assert there.intact
    assert back.intact
    mine, theirs = there.sender, there.receiver
    lab.run(lambda: mine.state is theirs.state is State.CLOSED, seconds=1000)
    assert len(lab.a.tcp) == len(lab.b.tcp) == 0
