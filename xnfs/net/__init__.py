"""The network of the exokernel: interfaces, packet filters, rings, handlers.

The public names are these; like those of `xnfs` itself they are all that `libos` may use.
"""

from xnfs.net.interface import Clock, Interface
from xnfs.net.pcap import PcapError, PcapWriter, Record, Recorded, Replay, read_pcap_untrusted
from xnfs.net.tap import TapDevice
from xnfs.net.wire import Conditions, Impaired, Tally, VirtualClock, Wire

__all__ = [
    "Clock",
    "Conditions",
    "Impaired",
    "Interface",
    "PcapError",
    "PcapWriter",
    "Record",
    "Recorded",
    "Replay",
    "Tally",
    "TapDevice",
    "VirtualClock",
    "Wire",
    "read_pcap_untrusted",
]
