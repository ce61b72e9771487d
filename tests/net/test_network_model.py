"""Endpoints against a model: whatever is bound, granted and unbound, packets go where they must.

The model knows filters as functions over a small universe of packets, and decides overlap by trying
them all. The kernel has to give the same answers from its cubes and its tree.
"""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from tests.net.kit import Kernel, udp, waiting
from xnfs import Refused
from xnfs.net import Bound, RingReader
from xnfs.net.network import FILTER, FILTER_BUDGET
from xnfs.sandbox import verify

PORTS = range(1, 5)
#: For any two conditions that overlap there is a packet here that both accept.
UNIVERSE = [
    udp(port, bytes(size), source)
    for port in range(1, 7)
    for source in range(1, 6)
    for size in (0, 9)
]

CONDITIONS = [
    "1",
    "0",
    "len(pkt) < 45",
    *(f"be16(pkt, 36) == {port}" for port in PORTS),
    *(f"be16(pkt, 34) == {port}" for port in PORTS),
    *(f"be16(pkt, 36) == {port} and be16(pkt, 34) != 2" for port in PORTS),
    *(f"be16(pkt, 36) > {port}" for port in PORTS),
    "u8(pkt, 37) & 1 and len(pkt) >= 45",
]
conditions = st.sampled_from(CONDITIONS)


def source(condition: str) -> str:
    return f"def accept(pkt):\n    if len(pkt) < 38:\n        return 0\n    return {condition}\n"


def packets_of(condition: str) -> set[bytes]:
    run = verify(source(condition), FILTER, budget=FILTER_BUDGET).run
    return {packet for packet in UNIVERSE if run(packet)}


ACCEPTED = {condition: packets_of(condition) for condition in CONDITIONS}


@dataclass
class Endpoint:
    """What the model knows of one."""

    bound: Bound
    reader: RingReader
    receives: set[bytes]
    sends: set[bytes]


class Endpoints(RuleBasedStateMachine):
    """Bind, unbind, receive, send."""

    bound = Bundle("bound")

    def __init__(self) -> None:
        super().__init__()
        self.kernel = Kernel(frames=512)
        self.cap = self.kernel.application("app")
        self.alive: dict[int, Endpoint] = {}

    def owner(self, packet: bytes, kind: str) -> int | None:
        """The latest endpoint that has a packet."""
        owners = [n for n, e in self.alive.items() if packet in getattr(e, kind)]
        return max(owners, default=None)

    @rule(target=bound, receives=conditions, sends=conditions, granted=st.booleans())
    def bind(self, receives: str, sends: str, granted: bool) -> int:
        mine = (ACCEPTED[receives], ACCEPTED[sends])
        others = {n: e for n, e in self.alive.items() if e.receives & mine[0] or e.sends & mine[1]}
        grants = [(n, e.bound.capability) for n, e in others.items()] if granted else []
        try:
            bound = self.kernel.net.bind(
                self.cap, "eth", source(receives), source(sends), 17, grants=grants
            )
        except Refused:
            assert others
            assert not granted
            return 0
        assert granted or not others
        self.alive[bound.endpoint] = Endpoint(bound, self.kernel.reader(bound), *mine)
        return bound.endpoint

    @rule(number=consumes(bound))
    def unbind(self, number: int) -> None:
        endpoint = self.alive.pop(number, None)
        if endpoint is not None:
            self.kernel.net.unbind(endpoint.bound.capability, number)

    @rule(packet=st.sampled_from(UNIVERSE))
    def arrive(self, packet: bytes) -> None:
        self.kernel.arrive(packet)
        for number, endpoint in self.alive.items():
            wanted = [packet] if number == self.owner(packet, "receives") else []
            assert waiting(endpoint.reader) == wanted

    @rule(number=bound, packet=st.sampled_from(UNIVERSE))
    def send(self, number: int, packet: bytes) -> None:
        endpoint = self.alive.get(number)
        if endpoint is None:
            return
        try:
            self.kernel.net.send(endpoint.bound.capability, number, packet)
            assert number == self.owner(packet, "sends")
            assert self.kernel.left() == [packet]
        except Refused:
            assert number != self.owner(packet, "sends")

    @invariant()
    def frames_are_accounted_for(self) -> None:
        assert self.kernel.pool.free_frames == 512 - 17 * len(self.alive)


TestEndpoints = Endpoints.TestCase
TestEndpoints.settings = settings(stateful_step_count=12)
