"""The numbers of TCP that are policy, with where they come from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from libos.net.base import MILLISECOND, SECOND

BURST: Final = 65535 - 40  # bytes that fit into an IPv4 packet behind two headers


@dataclass(frozen=True, slots=True)
class Tuning:
    """One set for all connections of a host."""

    send_buffer: int = 256 * 1024
    receive_buffer: int = 256 * 1024
    #: RFC 6298 says 1 s and allows less; 200 ms is what Linux and FreeBSD use: more than the
    #: delay of any acknowledgement that today's peers hold back.
    min_rto: int = 200 * MILLISECOND
    first_rto: int = SECOND  # RFC 6298, section 2.1
    max_rto: int = 60 * SECOND
    delayed_ack: int = 40 * MILLISECOND  # RFC 9293, section 3.8.6.3: at most 500 ms
    syn_tries: int = 6  # about a minute; RFC 9293 asks for 3 minutes at least for an active open
    data_tries: int = 12  # several minutes; RFC 9293, section 3.8.3, asks for 100 s at least
    max_segment_lifetime: int = 30 * SECOND  # RFC 9293 says 2 minutes; 30 s as in Linux
    fin_wait: int = 60 * SECOND  # how long a peer may leave us in FIN-WAIT-2 after `close`
    challenge_interval: int = 100 * MILLISECOND  # less than any timeout after which peers probe
    keepalive_idle: int = 7200 * SECOND  # RFC 9293, section 3.8.4: two hours at least
    keepalive_interval: int = 75 * SECOND
    keepalive_probes: int = 9
    backlog: int = 128  # half-open connections of one listener, and those not yet accepted
    max_connections: int = 4096
    max_time_wait: int = 1024
    sack: bool = True  # RFC 2018
    window_scaling: bool = True  # RFC 7323
    #: Bytes of a segment that the interface cuts into packets, if it can. It does not change what
    #: may be sent, or when.
    burst: int = 0
