"""Handlers: what they can do, what they can't, and that they can't take over the machine."""

from __future__ import annotations

import struct

import pytest

from tests.net.kit import Kernel, udp, udp_back, waiting
from xnfs import Refused
from xnfs.net import Action, Bound
from xnfs.net.handler import BUDGET

HEAD = "def handle(pkt, state, now):\n"
DATA = 42  # where the payload of an UDP packet begins

#: Answer each packet from a prebuilt one at 1024, its first payload byte counted up in the state.
ANSWER = f"""\
def handle(pkt, state, now):
    if len(pkt) < {DATA + 4}:
        return
    emit({Action.COPY}, 1024 + {DATA}, {DATA}, 4, 0)
    emit({Action.STORE}, 0, 8, (u32(state, 4) + 1) % 1000, 0)
    emit({Action.SEND}, 1024, {DATA + 4}, 0, 0)
"""


def handled(kernel: Kernel, source: str, port: int = 53) -> tuple[Bound, memoryview]:
    bound = kernel.bind(f"app{port}", port, wakes=port)
    area = kernel.net.install_handler(bound.capability, bound.endpoint, source, 1)
    area[1024 : 1024 + DATA + 4] = udp_back(port, bytes(4))
    return bound, area


def emits(*actions: tuple[int, ...]) -> str:
    return HEAD + "".join(f"    emit({', '.join(map(str, a))})\n" for a in actions)


def test_handler_answers_at_once() -> None:
    kernel = Kernel()
    bound, area = handled(kernel, ANSWER)
    kernel.arrive(udp(53, b"ping"), udp(53, b"pong"))
    assert [f[DATA:] for f in kernel.left()] == [b"ping", b"pong"]
    assert waiting(kernel.reader(bound)) == []  # nobody had to be scheduled
    assert kernel.woken == []
    assert area[:8] != bytes(8)
    stats = kernel.net.statistics(bound.capability, bound.endpoint)
    assert (stats.handled, stats.sent, stats.received) == (2, 2, 0)


def test_handler_without_actions_leaves_the_packet_to_the_ring() -> None:
    kernel = Kernel()
    bound, _ = handled(kernel, ANSWER)
    kernel.arrive(udp(53, b"abc"))
    assert waiting(kernel.reader(bound)) == [udp(53, b"abc")]
    assert kernel.woken == [53]


def test_handler_keeps_and_wakes() -> None:
    kernel = Kernel()
    bound, _ = handled(kernel, emits((Action.WAKE, 0, 0, 0, 0), (Action.KEEP, 0, 0, 0, 0)))
    kernel.arrive(udp(53))
    assert kernel.woken[0] == 53
    assert waiting(kernel.reader(bound)) == [udp(53)]


def test_handler_sums_while_it_copies() -> None:
    kernel = Kernel()
    words = struct.pack(">4H", 1, 2, 3, 0xFFFF)
    bound, area = handled(kernel, emits((Action.COPY_SUM, 512, DATA, 8, 6)))
    kernel.arrive(udp(53, words))
    assert area[512:520] == words
    kernel.arrive(udp(53, words[:6] + b"\0\1"))
    assert area[512:520] == words  # a wrong sum: nothing is done, and the ring has the packet
    assert len(waiting(kernel.reader(bound))) == 1


def test_handler_makes_checksums() -> None:
    kernel = Kernel()
    _, area = handled(kernel, emits((Action.SUM, 600, 700, 6, 5), (Action.WAKE, 0, 0, 0, 0)))
    area[600:602] = b"xx"
    area[700:706] = struct.pack(">3H", 0x8000, 0x8001, 7)
    kernel.arrive(udp(53))
    assert int.from_bytes(area[600:602], "big") == 0xFFFF - (0x8000 + 0x8001 + 7 + 5 - 0xFFFF)


IMPOSSIBLE = [
    (Action.COPY, 4090, DATA, 8, 0),
    (Action.COPY, 0, 60, 8, 0),
    (Action.COPY, 2**64 - 1, 2**64 - 1, 2**64 - 1, 0),
    (Action.COPY_SUM, 0, 60, 8, 0),
    (Action.STORE, 4090, 8, 1, 0),
    (Action.STORE, 0, 3, 1, 0),
    (Action.STORE, 0, 1, 256, 0),
    (Action.SUM, 4095, 0, 4, 0),
    (Action.SUM, 0, 4000, 200, 0),
    (Action.SEND, 0, 13, 0, 0),
    (Action.SEND, 4000, 100, 0, 0),
    (0, 0, 0, 0, 0),
    (99, 0, 0, 0, 0),
]


@pytest.mark.parametrize("action", IMPOSSIBLE)
def test_handler_does_all_or_nothing(action: tuple[int, ...]) -> None:
    kernel = Kernel()
    good = (Action.STORE, 0, 1, 77, 0)
    bound, area = handled(kernel, emits(good, action, good))
    before = bytes(area)
    kernel.arrive(udp(53))
    assert bytes(area) == before
    assert waiting(kernel.reader(bound)) == [udp(53)]
    assert kernel.net.statistics(bound.capability, bound.endpoint).impossible == 1


def test_handler_sends_only_what_the_template_accepts() -> None:
    kernel = Kernel()
    bound, area = handled(kernel, ANSWER)
    area[1024 : 1024 + DATA + 4] = udp_back(54, bytes(4))
    kernel.arrive(udp(53, b"ping"))
    assert kernel.left() == []
    assert kernel.net.statistics(bound.capability, bound.endpoint).refused == 1


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ("    emit(1, u8(pkt, 14), 0, 0, 0)\n", "line 2: load of 1 bytes .* 'pkt'"),
        ("    emit(1, u8(state, 256), 0, 0, 0)\n", "line 2: load of 1 bytes .* 'state'"),
        ("    for i in range(17):\n        emit(6, 0, 0, 0, 0)\n", "line 3: more than 16 emits"),
        ("    emit(1, 2)\n", "line 2: emit takes 5 values"),
        ("    while 1:\n        pass\n", "line 2"),
        (
            "    x = 0\n    for i in range(1000):\n        x = i\n    emit(x, 0, 0, 0, 0)\n",
            f"line [34]: more than the budget of {BUDGET} steps",
        ),
    ],
)
def test_handler_that_does_not_verify_is_refused(body: str, why: str) -> None:
    kernel = Kernel()
    bound = kernel.bind("app", 53)
    free = kernel.pool.free_frames
    with pytest.raises(Refused, match=f"handler: {why}"):
        kernel.net.install_handler(bound.capability, bound.endpoint, HEAD + body, 1)
    assert kernel.pool.free_frames == free


def test_handler_is_removed_with_its_area() -> None:
    kernel = Kernel()
    bound, _ = handled(kernel, ANSWER)
    free = kernel.pool.free_frames
    kernel.net.remove_handler(bound.capability, bound.endpoint)
    assert kernel.pool.free_frames == free + 1
    kernel.arrive(udp(53, b"ping"))
    assert waiting(kernel.reader(bound)) == [udp(53, b"ping")]


# --- no livelock ---------------------------------------------------------------------------------

FEW = 200_000  # steps a second, so that they are used up soon


def test_flood_uses_up_the_allowance_and_no_more() -> None:
    """Then packets go to the ring; time brings the allowance back."""
    kernel = Kernel(handler_steps=FEW)
    slow = HEAD + "    x = 0\n    for i in range(600):\n        x = i\n    emit(6, 0, 0, 0, 0)\n"
    bound, _ = handled(kernel, slow)
    for _ in range(200):
        kernel.arrive(udp(53))
    stats = kernel.net.statistics(bound.capability, bound.endpoint)
    assert stats.handled + stats.deferred + stats.impossible == 200
    assert stats.handled <= FEW // 1800
    assert stats.deferred > 0
    assert FEW - 1800 < stats.steps <= FEW  # what is left is too little for a run
    kernel.clock.advance_to(kernel.clock() + 1_000_000_000)
    kernel.arrive(udp(53))
    after = kernel.net.statistics(bound.capability, bound.endpoint)
    assert after.handled == stats.handled + 1


def test_binding_anew_brings_no_new_allowance() -> None:
    kernel = Kernel(handler_steps=FEW)
    bound, _ = handled(kernel, ANSWER)
    while not kernel.net.statistics(bound.capability, bound.endpoint).deferred:
        kernel.arrive(*(udp(53, b"ping") for _ in range(50)))
        kernel.left()
    kernel.net.unbind(bound.capability, bound.endpoint)
    bound, _ = handled(kernel, ANSWER)
    kernel.arrive(udp(53, b"ping"))
    assert kernel.net.statistics(bound.capability, bound.endpoint).deferred == 1


def test_handlers_that_answer_each_other_end() -> None:
    """Two kernels on one wire without latency, each answering the other, while no time passes."""
    one = Kernel(handler_steps=FEW)
    first, _ = handled(one, ANSWER)
    # The answer of port 53 looks like a packet to the peer's port 1000, and the other way round.
    two = Kernel(handler_steps=FEW)
    two.clock, two.wire = one.clock, one.wire
    two.net.attach("far", one.wire.b)
    echo = (
        "def accept(pkt):\n    return len(pkt) >= 38 and be16(pkt, 12) == 0x0800 and "
        "be16(pkt, 36) == {}\n"
    )
    cap = two.capabilities.mint(("net", "far"), 31, "far")
    far = two.net.bind(cap, "far", echo.format(1000), echo.format(53), 3)
    there = two.net.install_handler(far.capability, far.endpoint, ANSWER, 1)
    there[1024 : 1024 + DATA + 4] = udp(53, bytes(4))
    one.wire.b.send(udp(53, b"ping"))
    rounds = 0
    while one.net.service() + two.net.service():
        rounds += 1
        assert rounds < FEW // 100
    assert rounds > 100
    assert one.net.statistics(first.capability, first.endpoint).deferred <= 1
