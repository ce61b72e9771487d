"""`xnfs serve`: a web server for the files of an image, with an address of its own on a TAP device.

The protocols are `libos.net`; here are the files. Served is what everybody may read; symbolic
links are not followed.
"""

from __future__ import annotations

import ipaddress
import os
import signal
import stat
import sys
import time
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from libfs.posix import Posix
from libfs.posix.interface import Attr, FsError, Ino, User
from libos.net.base import Ip, mac
from libos.net.host import Address, Host
from libos.net.http.documents import Document, Listing, MemoryDocument
from libos.net.http.request import Path
from libos.net.http.server import Server
from libos.net.loop import Loop
from xnfs import XnError
from xnfs.net import TapDevice
from xnfs_tools.command import Codes, Failed, Parser, parser, run, words
from xnfs_tools.session import open_image

PROG: Final = "xnfs serve"
CODES: Final = Codes(failed=1, usage=2)
NOBODY: Final = User(65534, 65534)

#: Files of up to so many bytes are kept in memory, so many bytes of them.
_SMALL: Final = 256 * 1024
_KEPT: Final = 32 << 20
_CHUNK: Final = 64 * 1024
_DT_DIR: Final = 4


@dataclass(frozen=True)
class _File:
    """A file that is too large to be kept."""

    posix: Posix
    attr: Attr

    @property
    def size(self) -> int:
        """See Document."""
        return self.attr.size

    @property
    def tag(self) -> bytes:
        """See Document."""
        return _tag(self.attr)

    @property
    def modified(self) -> int:
        """See Document."""
        return self.attr.mtime // 10**9

    def pieces(self, lo: int, hi: int) -> Iterator[memoryview]:
        """See Document."""
        fh = self.posix.open(NOBODY, self.attr.ino, os.O_RDONLY)
        try:
            while lo < hi:
                data = self.posix.read(fh, lo, min(_CHUNK, hi - lo))
                if not data:
                    raise FsError(5, "the file ends before it should")
                yield memoryview(data)
                lo += len(data)
        finally:
            self.posix.release(fh)


class PosixDocuments:
    """The files of a POSIX layer, as `Documents`; nobody else may change them meanwhile."""

    def __init__(self, posix: Posix) -> None:
        self._posix = posix
        self._kept: OrderedDict[bytes, MemoryDocument] = OrderedDict()
        self._bytes = 0

    def find(self, path: Path) -> Document | Listing | None:
        """See Documents. What can't be read is not there."""
        try:
            attr = self._posix.getattr(NOBODY, self._posix.root)
            for name in path:
                attr = self._posix.lookup(NOBODY, attr.ino, name)
            if stat.S_ISDIR(attr.mode):
                return Listing(tuple(sorted(self._names(attr.ino))))
            return self._file(attr) if stat.S_ISREG(attr.mode) else None
        except FsError:
            return None

    def _names(self, directory: Ino) -> Iterable[bytes]:
        fh = self._posix.opendir(NOBODY, directory)
        try:
            cookie = 0
            while found := self._posix.readdir(fh, cookie):
                for entry in found:
                    if entry.name not in (b".", b".."):
                        yield entry.name + (b"/" if entry.d_type == _DT_DIR else b"")
                cookie = found[-1].next
        finally:
            self._posix.releasedir(fh)

    def _file(self, attr: Attr) -> Document:
        file = _File(self._posix, attr)
        if attr.size > _SMALL:
            self._posix.release(self._posix.open(NOBODY, attr.ino, os.O_RDONLY))  # may nobody?
            return file
        kept = self._kept.get(file.tag)
        if kept is None:
            data = b"".join(file.pieces(0, attr.size))
            kept = self._kept[file.tag] = MemoryDocument(data, file.tag, file.modified)
            self._bytes += len(data)
            while self._bytes > _KEPT:
                self._bytes -= self._kept.popitem(last=False)[1].size
        self._kept.move_to_end(file.tag)
        return kept


def _tag(attr: Attr) -> bytes:
    return b"%x-%x-%x" % (attr.ino, attr.mtime, attr.size)


def arguments() -> Parser:
    """The command line."""
    made = parser(PROG, "Serve the files of an image over HTTP, on a TAP device.")
    made.add_argument("image", metavar="IMAGE", help="the image; it must not be mounted")
    made.add_argument(
        "--tap", metavar="NAME", default="tap0", help="the TAP device (default: tap0)"
    )
    made.add_argument(
        "--address",
        metavar="ADDRESS",
        default="10.9.0.2/24",
        help="the server's own, not the host's (default: 10.9.0.2/24)",
    )
    made.add_argument("--port", metavar="PORT", default="80", help="the TCP port (default: 80)")
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """The command; it ends on SIGINT or SIGTERM."""
    return run(PROG, CODES, lambda: _main(words(argv)))


def _main(argv: Sequence[str]) -> int:
    args = arguments().parse_args(argv)
    try:
        address = ipaddress.IPv4Interface(args.address)
        port = int(args.port)
        if not 0 < port < 65536:
            raise ValueError(f"no port: {port}")
    except ValueError as error:
        raise Failed(str(error)) from None
    # An address for the link that follows from the other one, of those that anybody may take.
    own = mac(f"0200{int(address.ip):08x}")
    with open_image(args.image, readonly=True) as session:
        try:
            tap = TapDevice.open(args.tap)
        except XnError as error:
            raise Failed(str(error)) from None
        host = Host(Address(own, Ip(int(address.ip)), address.network.prefixlen))
        server = Server(host.tcp, port, PosixDocuments(session.posix), lambda: int(time.time()))
        print(f"serving {args.image} on http://{address.ip}:{port}/", file=sys.stderr, flush=True)
        stopped: list[int] = []
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda got, _frame: stopped.append(got))
        try:
            Loop(host, tap, tap.fileno(), server.turn).run(lambda: bool(stopped))
        finally:
            tap.close()
    return 0
