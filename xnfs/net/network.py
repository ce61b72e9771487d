"""The network's system calls: binding packets, sending, receiving, handlers.

An application binds an *endpoint*: a filter (which packets are its own), a template (which packets
it may send), and a ring (where its packets wait). Both are programs of the sandbox,

    def accept(pkt): ...        returns something else than 0 for the packets meant

and what they mean is decided exactly (`meaning`). So the kernel knows, when an endpoint is bound,
whether it takes packets from another, or speaks for another, and refuses unless the other has
granted that: the other endpoint and a capability with the right ALLOC for it, shown in `grants`.
Where an overlap was granted the later endpoint has the packets. The published exokernels left open
what happens when an application claims packets that aren't its own; this closes it.

Relies on: one caller at a time; the interfaces. Guarantees: an endpoint gets the packets of its
filter and no others; it sends what its template accepts and nothing else; no call and no packet
takes more memory than the frames that the holder was given, and the tables here, which are bounded.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from xnfs.capability import ADMIN, ALLOC, GRANT, READ, WRITE, Capabilities
from xnfs.errors import NoFrames, NoSpace, Refused
from xnfs.memory.frames import FramePool
from xnfs.net.cube import MAX_FRAME, MIN_FRAME, Cube
from xnfs.net.demux import Demux
from xnfs.net.fragments import Follower, fragment_of
from xnfs.net.handler import STEPS_PER_SECOND, Allowance, Handler, Tally
from xnfs.net.interface import Clock, Interface
from xnfs.net.meaning import meaning
from xnfs.net.records import Bound, EndpointStatistics, NetworkStatistics
from xnfs.net.ring import MAX_PAGES, Ring
from xnfs.sandbox import Buffer, Program, Signature, VerifyError, verify

FILTER: Final = Signature("accept", (Buffer("pkt", MAX_FRAME, MIN_FRAME),), returns=(0, 2**64 - 1))
FILTER_BUDGET: Final = 4000  # steps
MAX_ENDPOINTS: Final = 4096
_FRAGMENTED_SENDS: Final = 16  # datagrams of one endpoint that are being sent in fragments


@dataclass(slots=True)
class _Port:
    """An interface, and who has which packets of it."""

    interface: Interface
    filters: Demux = field(default_factory=Demux)
    templates: Demux = field(default_factory=Demux)
    fragments: Follower = field(default_factory=Follower)
    unclaimed: int = 0


@dataclass(slots=True)
class _Endpoint:
    number: int
    port: _Port
    resource: tuple[str, ...]
    holder: str
    filter: list[Cube]
    template: Program
    template_cubes: list[Cube]
    ring: Ring
    memory: memoryview
    frames: list[int]
    wakes: int | None
    allowance: Allowance
    sending: Follower = field(default_factory=lambda: Follower(_FRAGMENTED_SENDS))
    handler: Handler | None = None
    area_frames: list[int] = field(default_factory=list)
    sent: int = 0
    refused: int = 0


class Network:
    """All interfaces and endpoints of one kernel."""

    def __init__(
        self,
        capabilities: Capabilities,
        frames: FramePool,
        clock: Clock,
        wake: Callable[[int], None] = lambda _environment: None,
        handler_steps: int = STEPS_PER_SECOND,
    ) -> None:
        """`wake` makes an environment runnable: a packet has come, or a handler asks for it.

        `handler_steps` is what the handlers of one holder may spend in a second.
        """
        self._capabilities, self._frames = capabilities, frames
        self._clock, self._wake = clock, wake
        self._ports: dict[str, _Port] = {}
        self._endpoints: dict[int, _Endpoint] = {}
        self._allowances: dict[str, tuple[Allowance, int]] = {}  # of holders, with endpoints
        self._handler_steps = handler_steps
        self._made = 0

    def attach(self, name: str, interface: Interface) -> None:
        """Add an interface. The kernel's alone: no system call leads here."""
        if name in self._ports:
            raise Refused(f"there is an interface {name!r} already")
        self._ports[name] = _Port(interface)

    # --- endpoints --------------------------------------------------------------------------

    def bind(
        self,
        capability: bytes,
        interface: str,
        filter: str,
        template: str,
        pages: int,
        *,
        grants: Sequence[tuple[int, bytes]] = (),
        wakes: int | None = None,
    ) -> Bound:
        """Make an endpoint with a ring of `pages` frames, which count against the holder's quota.

        Needs ALLOC for the interface, ("net", name). `wakes` is the environment to wake when a
        packet comes to an empty ring.
        Raises: CapabilityError; Refused (a program that can't be verified or decided, with its
        line, or packets that are another's); NoFrames; NoSpace.
        """
        port = self._port(interface)
        self._capabilities.check(capability, ("net", interface), ALLOC)
        holder = self._capabilities.holder_of(capability)
        if not 2 <= pages <= MAX_PAGES:
            raise Refused(f"a ring of {pages} pages: 2 to {MAX_PAGES} are allowed")
        _, wanted = _understood("filter", filter)
        sends, claimed = _understood("template", template)
        allowed = self._granted(grants)
        _refuse_overlap("filter", port.filters, wanted, allowed)
        _refuse_overlap("template", port.templates, claimed, allowed)
        if len(self._endpoints) >= MAX_ENDPOINTS:
            raise NoSpace(f"{MAX_ENDPOINTS} endpoints are bound")
        number = self._made + 1
        resource = ("net", interface, str(number))
        rights = READ | WRITE | ALLOC | GRANT | ADMIN
        token = self._capabilities.mint(resource, rights, holder)
        try:
            frames, memory = self._memory(holder, pages)
        except NoFrames:
            self._capabilities.revoke(token)
            raise
        self._made = number
        ring = Ring(memory, port.interface.mtu)
        self._endpoints[number] = _Endpoint(
            number, port, resource, holder, wanted, sends, claimed, ring, memory, frames, wakes,
            self._allowance(holder),
        )  # fmt: skip
        port.filters.add(number, wanted)
        port.templates.add(number, claimed)
        return Bound(number, token)

    def unbind(self, capability: bytes, endpoint: int) -> None:
        """End an endpoint; its frames are free, its packets anybody's. Needs ADMIN."""
        gone = self._endpoint(capability, endpoint, ADMIN)
        self._drop_handler(gone)
        gone.port.filters.remove(endpoint, gone.filter)
        gone.port.templates.remove(endpoint, gone.template_cubes)
        del self._endpoints[endpoint]
        self._frames.free(gone.frames, gone.holder)
        allowance, count = self._allowances[gone.holder]
        # It stays until it is full again: binding anew brings no new allowance.
        self._allowances[gone.holder] = (allowance, count - 1)
        self._capabilities.revoke_below(gone.resource)

    def ring(self, capability: bytes, endpoint: int) -> memoryview:
        """Map the ring (see `ring`): what is written there is seen by the kernel. Needs READ."""
        return self._endpoint(capability, endpoint, READ).memory

    def statistics(self, capability: bytes, endpoint: int) -> EndpointStatistics:
        """Needs READ."""
        e = self._endpoint(capability, endpoint, READ)
        tally = Tally() if e.handler is None else e.handler.tally
        return EndpointStatistics(
            e.ring.produced,
            e.ring.dropped,
            e.sent,
            e.refused,
            tally.runs,
            tally.deferred,
            tally.refused,
            tally.steps,
        )

    def interface_statistics(self, interface: str) -> NetworkStatistics:
        """Anybody may look."""
        port = self._port(interface)
        return NetworkStatistics(port.unclaimed, port.fragments.dropped)

    # --- packets ----------------------------------------------------------------------------

    def send(self, capability: bytes, endpoint: int, frame: bytes) -> bool:
        """Send a packet. False: the interface is full. Needs WRITE.

        Raises Refused: the template does not accept the packet.
        """
        sender = self._endpoint(capability, endpoint, WRITE)
        frame = bytes(frame)  # what is checked is what is sent
        if not self._may_send(sender, frame):
            sender.refused += 1
            raise Refused(f"endpoint {endpoint} has no right to send that packet")
        sender.sent += 1
        return sender.port.interface.send(frame)

    def service(self, limit: int = 64) -> int:
        """Take in packets of all interfaces, at most `limit` of each; how many that were.

        The kernel's alone: what an interrupt does.
        """
        count = 0
        for port in self._ports.values():
            for _ in range(limit):
                frame = port.interface.receive()
                if frame is None:
                    break
                count += 1
                self._arrived(port, frame, self._clock())
        return count

    # --- handlers ---------------------------------------------------------------------------

    def install_handler(
        self, capability: bytes, endpoint: int, source: str, pages: int
    ) -> memoryview:
        """Run a handler for each packet of the endpoint from now on; its area, mapped.

        In place of the one before, if there was one. Needs ADMIN.
        Raises: Refused, with the line; NoFrames.
        """
        owner = self._endpoint(capability, endpoint, ADMIN)
        if not 1 <= pages <= MAX_PAGES:
            raise Refused(f"an area of {pages} pages: 1 to {MAX_PAGES} are allowed")
        frames, area = self._memory(owner.holder, pages)
        area[:] = bytes(len(area))
        try:
            handler = Handler(source, area)
        except Refused:
            self._frames.free(frames, owner.holder)
            raise
        self._drop_handler(owner)
        owner.handler, owner.area_frames = handler, frames
        return area

    def remove_handler(self, capability: bytes, endpoint: int) -> None:
        """Packets go to the ring again; the area is free. Needs ADMIN."""
        self._drop_handler(self._endpoint(capability, endpoint, ADMIN))

    # --- within -----------------------------------------------------------------------------

    def _arrived(self, port: _Port, frame: bytes, now: int) -> None:
        if not MIN_FRAME <= len(frame) <= MAX_FRAME:
            port.unclaimed += 1
            return
        fragment = fragment_of(frame)
        if fragment is None:
            self._deliver(port, port.filters.find(frame), frame, now)
            return
        key, offset, _more = fragment
        if offset:
            number = port.fragments.owner(key, now)
            if number is None:
                port.fragments.hold(key, frame, now)
            else:
                self._into_ring(port, number, frame, now)
            return
        number = port.filters.find(frame)
        if number is None:
            port.unclaimed += 1
            return
        self._into_ring(port, number, frame, now)
        for held in port.fragments.first(key, number, now):
            self._into_ring(port, number, held, now)

    def _deliver(self, port: _Port, number: int | None, frame: bytes, now: int) -> None:
        if number is None:
            port.unclaimed += 1
            return
        endpoint = self._endpoints[number]
        handler = endpoint.handler
        if handler is None or not handler.arrive(
            frame,
            now,
            endpoint.allowance,
            lambda reply: self._reply(endpoint, reply),
            lambda: self._wake_owner(endpoint),
        ):
            self._into_ring(port, number, frame, now)

    def _into_ring(self, port: _Port, number: int, frame: bytes, now: int) -> None:
        endpoint = self._endpoints.get(number)
        if endpoint is None:  # unbound since the first fragment came
            port.unclaimed += 1
            return
        was_empty = endpoint.ring.empty()
        if endpoint.ring.put(frame, now) and was_empty:
            self._wake_owner(endpoint)

    def _wake_owner(self, endpoint: _Endpoint) -> None:
        if endpoint.wakes is not None:
            self._wake(endpoint.wakes)

    def _reply(self, endpoint: _Endpoint, frame: bytes) -> bool:
        """A handler sends: as protected as `send`, but nobody is there to be told."""
        if not self._may_send(endpoint, frame):
            endpoint.refused += 1
            return False
        endpoint.sent += 1
        return endpoint.port.interface.send(frame)

    def _may_send(self, sender: _Endpoint, frame: bytes) -> bool:
        if not MIN_FRAME <= len(frame) <= MAX_FRAME:
            return False
        fragment, now = fragment_of(frame), self._clock()
        if fragment is None:
            return self._matches(sender, frame)
        key, offset, _more = fragment
        if offset:
            return sender.sending.owner(key, now) is not None
        if not self._matches(sender, frame):
            return False
        sender.sending.first(key, sender.number, now)
        return True

    def _matches(self, sender: _Endpoint, frame: bytes) -> bool:
        """Whether the template accepts the packet, and nobody later was granted it."""
        if not sender.template.run(frame):
            return False
        return sender.port.templates.find(frame) == sender.number

    def _granted(self, grants: Sequence[tuple[int, bytes]]) -> set[int]:
        """The endpoints whose packets the caller may take."""
        for number, token in grants:
            self._endpoint(token, number, ALLOC)
        return {number for number, _ in grants}

    def _memory(self, holder: str, pages: int) -> tuple[list[int], memoryview]:
        """Frames next to each other, of the holder's quota."""
        frames = self._frames.alloc(holder, pages)
        if frames[-1] - frames[0] != pages - 1:
            self._frames.free(frames, holder)
            raise NoFrames(f"no {pages} frames next to each other are free")
        return frames, self._frames.view_run(frames[0], pages)

    def _allowance(self, holder: str) -> Allowance:
        now = self._clock()
        for other, (spent, left) in list(self._allowances.items()):
            if not left and spent.full_at <= now:
                del self._allowances[other]
        allowance, count = self._allowances.get(holder, (Allowance(self._handler_steps), 0))
        self._allowances[holder] = (allowance, count + 1)
        return allowance

    def _drop_handler(self, owner: _Endpoint) -> None:
        if owner.handler is not None:
            self._frames.free(owner.area_frames, owner.holder)
            owner.handler, owner.area_frames = None, []

    def _port(self, interface: str) -> _Port:
        port = self._ports.get(interface)
        if port is None:
            raise Refused(f"there is no interface {interface!r}")
        return port

    def _endpoint(self, capability: bytes, number: int, rights: int) -> _Endpoint:
        endpoint = self._endpoints.get(number)
        if endpoint is None:
            raise Refused(f"there is no endpoint {number}")
        self._capabilities.check(capability, endpoint.resource, rights)
        return endpoint


def _understood(what: str, source: str) -> tuple[Program, list[Cube]]:
    """A program of the signature FILTER, and its meaning."""
    try:
        program = verify(source, FILTER, budget=FILTER_BUDGET)
        return program, meaning(program)
    except VerifyError as error:
        raise Refused(f"{what}: {error}") from None


def _refuse_overlap(what: str, known: Demux, cubes: list[Cube], granted: set[int]) -> None:
    for cube in cubes:
        others = known.overlapping(cube) - granted
        if others:
            raise Refused(f"{what}: some of these packets are endpoint {min(others)}'s")
