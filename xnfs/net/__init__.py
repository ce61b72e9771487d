"""The network of the exokernel: interfaces, packet filters, rings, handlers.

The public names are these; like those of `xnfs` itself they are all that `libos` may use.
"""

from xnfs.net.handler import Action
from xnfs.net.interface import Clock, Interface
from xnfs.net.network import Network
from xnfs.net.pcap import PcapError, PcapWriter, Record, Recorded, Replay, read_pcap_untrusted
from xnfs.net.records import Bound, EndpointStatistics, NetworkStatistics
from xnfs.net.ring import RingReader
from xnfs.net.tap import TapDevice
from xnfs.net.wire import Conditions, Impaired, Tally, VirtualClock, Wire

__all__ = [
    "Action",
    "Bound",
    "Clock",
    "Conditions",
    "EndpointStatistics",
    "Impaired",
    "Interface",
    "Network",
    "NetworkStatistics",
    "PcapError",
    "PcapWriter",
    "Record",
    "Recorded",
    "Replay",
    "RingReader",
    "Tally",
    "TapDevice",
    "VirtualClock",
    "Wire",
    "read_pcap_untrusted",
]
