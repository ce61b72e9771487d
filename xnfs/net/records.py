"""What the network's system calls give back: plain data."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Bound:
    """What `bind` gives: the endpoint's number, and all rights over it."""

    endpoint: int
    capability: bytes


@dataclass(frozen=True, slots=True)
class EndpointStatistics:
    """Packets of one endpoint."""

    received: int  # put into the ring
    dropped: int  # the ring was full
    sent: int
    refused: int  # did not match the template
    handled: int  # runs of the handler
    deferred: int  # the handler had no allowance left
    impossible: int  # the handler asked for what can't be done
    steps: int  # of the allowance that the handler spent


@dataclass(frozen=True, slots=True)
class NetworkStatistics:
    """Packets of one interface that went to no endpoint."""

    unclaimed: int
    fragments_dropped: int
