"""A host on the exokernel: an endpoint of `xnfs.net.Network` that looks like an interface.

Packets come out of the ring, go out through the template; the filter is the host's address.
"""

from __future__ import annotations

from libos.net.filters import for_host, from_host
from libos.net.host import Address
from xnfs.net import Bound, Network, RingReader


class EndpointPort:
    """What `Loop` and `Host` need of an interface, over one endpoint."""

    def __init__(self, network: Network, bound: Bound) -> None:
        self.bound = bound
        self._network = network
        self._ring = RingReader(network.ring(bound.capability, bound.endpoint))

    def send(self, frame: bytes) -> bool:
        """Raises Refused: the template does not accept it."""
        return self._network.send(self.bound.capability, self.bound.endpoint, frame)

    def receive(self) -> bytes | None:
        """The next packet of the ring."""
        taken = self._ring.take()
        return None if taken is None else taken[1]


def bind_host(
    network: Network,
    capability: bytes,
    interface: str,
    address: Address,
    pages: int = 129,
    *,
    wakes: int | None = None,
) -> EndpointPort:
    """An endpoint for all packets of one address. Raises what `Network.bind` does."""
    receives, sends = for_host(address.ip), from_host(address.mac, address.ip)
    bound = network.bind(capability, interface, receives, sends, pages, wakes=wakes)
    return EndpointPort(network, bound)
