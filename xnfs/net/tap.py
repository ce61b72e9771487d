"""A TAP device: an Ethernet interface of Linux whose other end is this process.

What the host sends out through the interface arrives here, and the other way round, so that real
programs (`ping`, `curl`) are the peers. The device belongs to the network namespace of the thread
that opens it and vanishes when it is closed. Giving it an address and bringing it up is
`ip address` and `ip link`, not done here.

Linux only; needs /dev/net/tun and CAP_NET_ADMIN in the namespace (root, or `unshare -rn`).
Source: Linux, Documentation/networking/tuntap.rst.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from typing import Final

from xnfs.errors import DeviceError
from xnfs.net.interface import DEFAULT_MTU, ETHERNET_HEADER

_TUNSETIFF: Final = 0x400454CA
_IFF_TAP: Final = 0x0002
_IFF_NO_PI: Final = 0x1000  # frames come as they are, without four bytes before them
_IFF_VNET_HDR: Final = 0x4000  # but with a virtio_net_hdr before them
#: virtio 1.2, section 5.1.6: flags, gso_type, hdr_len, gso_size, csum_start, csum_offset; as the
#: processor has them.
_VNET: Final = struct.Struct("=BBHHHH")
_PLAIN: Final = bytes(_VNET.size)
_NEEDS_CHECKSUM: Final = 1
_TCP_OVER_IPV4: Final = 1
_HEADERS: Final = 40  # of TCP and IPv4, without options
_CHECKSUM_AT: Final = 16  # in a TCP header
_LONGEST: Final = 65535  # an IPv4 packet
_NAME_BYTES: Final = 16  # with the zero at the end


class TapDevice:
    """An `Interface` over the file descriptor of an attached TAP device, which it then owns."""

    def __init__(self, fd: int, mtu: int = DEFAULT_MTU, *, cuts: bool = False) -> None:
        """`cuts`: the descriptor is of `open_tap(name, cuts=True)`."""
        os.set_blocking(fd, False)
        self._cuts = cuts
        self._fd = fd
        self._mtu = mtu
        self._most = ETHERNET_HEADER + mtu
        self._longest = ETHERNET_HEADER + (_LONGEST if cuts else mtu)
        #: what goes before a frame that the host is to cut
        self._cut_from_here = _VNET.pack(
            _NEEDS_CHECKSUM,
            _TCP_OVER_IPV4,
            ETHERNET_HEADER + _HEADERS,
            mtu - _HEADERS,
            ETHERNET_HEADER + _HEADERS // 2,
            _CHECKSUM_AT,
        )
        self.dropped = 0  # frames that did not fit, or found the queue full

    @classmethod
    def open(cls, name: str, mtu: int = DEFAULT_MTU, *, cuts: bool = False) -> TapDevice:
        """Create the device, or attach to one made by `ip tuntap add`. Raises DeviceError."""
        return cls(open_tap(name, cuts=cuts), mtu, cuts=cuts)

    @property
    def mtu(self) -> int:
        """See Interface. Set the host's end to the same: `ip link set NAME mtu N`."""
        return self._mtu

    def fileno(self) -> int:
        """For `select` and its kin: readable when a frame has arrived."""
        return self._fd

    def send(self, frame: bytes) -> bool:
        """See Interface. Raises DeviceError when the device is gone.

        A device that `cuts` takes frames of up to 64 KiB that are longer than its MTU: TCP over
        IPv4, both without options, the checksum of TCP being that of the pseudo header. The host
        takes each as the packets of its MTU that it stands for, their checksums being right.
        """
        if not ETHERNET_HEADER <= len(frame) <= self._longest:
            self.dropped += 1
            return False
        try:
            if self._cuts:
                before = _PLAIN if len(frame) <= self._most else self._cut_from_here
                os.writev(self._fd, (before, frame))
            else:
                os.write(self._fd, frame)
        except OSError as error:
            # EIO: the host's end is down, which is a wire with the plug out.
            if error.errno not in (errno.EAGAIN, errno.ENOBUFS, errno.EIO, errno.EINVAL):
                raise DeviceError(error.errno or errno.EIO, f"TAP: {error}") from error
            self.dropped += 1
            return False
        return True

    def receive(self) -> bytes | None:
        """See Interface. Raises DeviceError when the device is gone."""
        while True:
            try:
                # One byte more than the longest frame, so that a longer one is seen to be longer.
                frame = os.read(self._fd, self._most + 1 + self._cuts * _VNET.size)
            except BlockingIOError:
                return None
            except OSError as error:
                raise DeviceError(error.errno or errno.EIO, f"TAP: {error}") from error
            if self._cuts:
                frame = frame[_VNET.size :]  # says nothing: we have asked the host for no favour
            if ETHERNET_HEADER <= len(frame) <= self._most:
                return frame
            self.dropped += 1

    def close(self) -> None:
        """Give the device up; one that `open` made is gone."""
        os.close(self._fd)


def open_tap(name: str, *, cuts: bool = False) -> int:
    """The file descriptor of the TAP device of that name. Raises DeviceError."""
    raw = name.encode("ascii", "replace")
    if not 0 < len(raw) < _NAME_BYTES:
        raise DeviceError(errno.EINVAL, f"the name of an interface has 1 to 15 bytes: {name!r}")
    flags = _IFF_TAP | _IFF_NO_PI | (_IFF_VNET_HDR if cuts else 0)
    fd = -1
    try:
        fd = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
        fcntl.ioctl(fd, _TUNSETIFF, struct.pack("16sH22x", raw, flags))
    except OSError as error:
        if fd >= 0:
            os.close(fd)
        raise DeviceError(error.errno or errno.EIO, f"TAP device {name}: {error}") from error
    return fd
