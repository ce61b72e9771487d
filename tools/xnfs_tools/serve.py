"""`xnfs serve`: a web server for the files of an image.

With `--tap` it is a host of its own on a TAP device, with the protocols of `libos.net`; otherwise
it uses the sockets of this host. Here are the files. Served is what everybody may read; symbolic
links are not followed.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import signal
import stat
import sys
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

from libfs.posix import Posix
from libfs.posix.interface import Attr, FsError, Ino, User
from libos.net.base import Ip, mac
from libos.net.host import Address, Host
from libos.net.http.documents import Document, Listing
from libos.net.http.request import Path
from libos.net.http.server import Server
from libos.net.http.sockets import Sockets
from libos.net.loop import Loop
from libos.net.tcp.tuning import BURST, Tuning
from xnfs import XnError
from xnfs.net import TapDevice
from xnfs_tools.command import Codes, Failed, Parser, parser, run, words
from xnfs_tools.session import open_image

PROG: Final = "xnfs serve"
CODES: Final = Codes(failed=1, usage=2)
NOBODY: Final = User(65534, 65534)

#: Files of up to so many bytes are kept at hand, so many bytes of them: less than XN lends of a
#: session's frames, so that what is kept lies in the registry and nowhere else.
_SMALL: Final = 256 * 1024
_KEPT: Final = 12 << 20
_CHUNK: Final = 64 * 1024
_DT_DIR: Final = 4


@dataclass(frozen=True)
class _File:
    """A file. What goes out are the registry's pages, on loan until they are acknowledged."""

    posix: Posix
    attr: Attr
    kept: Sequence[memoryview] = ()  # all of it, or nothing

    @property
    def size(self) -> int:
        """See Document."""
        return self.attr.size

    @property
    def tag(self) -> bytes:
        """See Document."""
        return b"%x-%x-%x" % (self.attr.ino, self.attr.mtime, self.attr.size)

    @property
    def modified(self) -> int:
        """See Document."""
        return self.attr.mtime // 10**9

    def pieces(self, lo: int, hi: int) -> Iterable[memoryview]:
        """See Document."""
        return self._fetched(lo, hi) if self.size > _SMALL else tuple(_cut(self.kept, lo, hi))

    def fetch(self) -> Sequence[memoryview]:
        """All pieces, at once."""
        return tuple(self._fetched(0, self.size))

    def _fetched(self, lo: int, hi: int) -> Iterator[memoryview]:
        fh = self.posix.open(NOBODY, self.attr.ino, os.O_RDONLY)
        try:
            while lo < hi:
                pieces = self.posix.borrow(fh, lo, min(_CHUNK, hi - lo))
                if not sum(map(len, pieces)):
                    raise FsError(5, "the file ends before it should")
                yield from pieces
                lo += sum(map(len, pieces))
        finally:
            self.posix.release(fh)


def _cut(pieces: Sequence[memoryview], lo: int, hi: int) -> Iterator[memoryview]:
    """The bytes lo..hi of them."""
    for piece in pieces:
        if lo < len(piece) and hi > 0:
            yield piece[max(lo, 0) : hi]
        lo, hi = lo - len(piece), hi - len(piece)


class PosixDocuments:
    """The files of a POSIX layer, as `Documents`; nobody else may change them meanwhile."""

    def __init__(self, posix: Posix) -> None:
        self._posix = posix
        self._kept: OrderedDict[bytes, _File] = OrderedDict()
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
            kept = self._kept[file.tag] = replace(file, kept=file.fetch())
            self._bytes += attr.size
            while self._bytes > _KEPT:
                self._bytes -= self._kept.popitem(last=False)[1].size
        self._kept.move_to_end(file.tag)
        return kept


def arguments() -> Parser:
    """The command line."""
    made = parser(PROG, "Serve the files of an image over HTTP.")
    made.add_argument("image", metavar="IMAGE", help="the image; it must not be mounted")
    made.add_argument(
        "--tap", metavar="NAME", help="a TAP device, instead of the sockets of this host"
    )
    made.add_argument(
        "--address",
        metavar="ADDRESS",
        help="the server's address (default: 127.0.0.1; with --tap 10.9.0.2/24)",
    )
    made.add_argument("--port", metavar="PORT", help="the TCP port (default: 8080; with --tap 80)")
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """The command; it ends on SIGINT or SIGTERM."""
    return run(PROG, CODES, lambda: _main(words(argv)))


def _main(argv: Sequence[str]) -> int:
    args = arguments().parse_args(argv)
    try:
        usual = ("10.9.0.2/24", "80") if args.tap else ("127.0.0.1", "8080")
        address = ipaddress.IPv4Interface(args.address or usual[0])
        port = int(args.port or usual[1])
        if not 0 < port < 65536:
            raise ValueError(f"no port: {port}")
    except ValueError as error:
        raise Failed(str(error)) from None
    with open_image(args.image, readonly=True) as session:
        documents = PosixDocuments(session.posix)
        if args.tap:
            _on_tap(args.tap, address, port, documents)
        else:
            _on_sockets(str(address.ip), port, documents)
    return 0


def _on_tap(
    name: str, address: ipaddress.IPv4Interface, port: int, documents: PosixDocuments
) -> None:
    try:
        tap = TapDevice.open(name, cuts=True)
    except XnError as error:
        raise Failed(str(error)) from None
    # An address for the link that follows from the other one, of those that anybody may take.
    own = mac(f"0200{int(address.ip):08x}")
    place = Address(own, Ip(int(address.ip)), address.network.prefixlen)
    host = Host(place, tuning=Tuning(burst=BURST))
    server = Server(host.tcp.listen(port), documents, _wall)
    host.answer_at_once(port, server.at_once)
    try:
        with _serving(str(address.ip), port) as until:
            Loop(host, tap, tap.fileno(), server.turn).run(until)
    finally:
        tap.close()


def _on_sockets(address: str, port: int, documents: PosixDocuments) -> None:
    try:
        sockets = Sockets(address, port)
    except OSError as error:
        raise Failed(f"{address}:{port}: {error.strerror}") from None
    with sockets, _serving(address, port) as until:
        sockets.run(Server(sockets, documents, _wall), until)


@contextlib.contextmanager
def _serving(address: str, port: int) -> Iterator[Callable[[], bool]]:
    """Say so; gives whether to stop, which SIGINT and SIGTERM ask for meanwhile."""
    stopped: list[int] = []
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(n, lambda got, _frame: stopped.append(got)) for n in numbers]
    try:
        print(f"serving on http://{address}:{port}/", file=sys.stderr, flush=True)
        yield lambda: bool(stopped)
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


def _wall() -> int:
    return int(time.time())
