"""The states of a TCP connection, and what names it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from libos.net.base import Ip


class State(Enum):
    """RFC 9293, section 3.3.2. LISTEN is a `Listener`."""

    SYN_SENT = "SYN-SENT"
    SYN_RECEIVED = "SYN-RECEIVED"
    ESTABLISHED = "ESTABLISHED"
    FIN_WAIT_1 = "FIN-WAIT-1"
    FIN_WAIT_2 = "FIN-WAIT-2"
    CLOSE_WAIT = "CLOSE-WAIT"
    CLOSING = "CLOSING"
    LAST_ACK = "LAST-ACK"
    TIME_WAIT = "TIME-WAIT"
    CLOSED = "CLOSED"


@dataclass(frozen=True, slots=True)
class Ends:
    """The two ends of a connection; the own address is the host's."""

    port: int
    peer: Ip
    peer_port: int
