"""The web server against a general one and `python -m http.server`: documents of five sizes.

    python benchmarks/web.py [--rounds 3] [--seconds 2] [--connections 10] [--quick]

`wrk` in a network namespace of its own is the client. It reaches this server, and variants of it
that have one technique more each, over a TAP device, and `python -m http.server` on a FUSE mount of
the same image over a veth pair. All of them take turns, for each size; a figure is the median of
the rounds. CPU time is the server's (with the file system's process for `http.server`; what the
kernel does for TCP of `http.server` within interrupts is nobody's and not in it), packets are those
of the interface, both ways. Source of the sizes: Kaashoek et al. 1997, figure 3. Needs root and
wrk. Prints Markdown.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[1] / "tools"))

from xnfs_tools import cli
from xnfs_tools.serve import NOBODY, PosixDocuments
from xnfs_tools.session import Session, open_image

from libos.net.base import ip, mac
from libos.net.host import Address, Host
from libos.net.http.documents import Document, Listing, MemoryDocument
from libos.net.http.request import Path as UrlPath
from libos.net.http.server import Limits, Server
from libos.net.loop import Loop
from libos.net.tcp.connection import Connection
from libos.net.tcp.table import Listener
from libos.net.tcp.tuning import BURST, Tuning
from tests.libos_net.namespace import HOST_IP, HOST_MAC, Namespace
from xnfs.net import TapDevice

SIZES: Final = (0, 100, 1_000, 10_000, 100_000)
_VETH: Final = ("10.8.0.1", "10.8.0.2")
_TICK: Final = os.sysconf("SC_CLK_TCK")


# --- the general server -----------------------------------------------------------------------


class GeneralDocuments:
    """Files by general calls: each is opened, read into memory of its own and closed, each time."""

    def __init__(self, session: Session) -> None:
        self._posix = session.posix

    def find(self, path: UrlPath) -> Document | Listing | None:
        """See Documents."""
        posix = self._posix
        attr = posix.getattr(NOBODY, posix.root)
        for name in path:
            attr = posix.lookup(NOBODY, attr.ino, name)
        fh = posix.open(NOBODY, attr.ino, os.O_RDONLY)
        try:
            data = b"".join(
                posix.read(fh, at, min(65536, attr.size - at)) for at in range(0, attr.size, 65536)
            )
        finally:
            posix.release(fh)
        return MemoryDocument(data, b"%x-%x" % (attr.ino, attr.mtime), attr.mtime // 10**9)


class GeneralSocket:
    """A connection behind general calls: a write is copied, and each call sends at once, so that
    a head, a body and a FIN have packets of their own."""

    def __init__(self, connection: Connection, send: Callable[[], None]) -> None:
        self._connection, self._send = connection, send
        self.notify: Callable[[Any], None] | None = None
        connection.notify = self._notify
        self.no_delay, self.read = connection.no_delay, connection.read
        self.abort = connection.abort

    def _notify(self, _connection: Connection) -> None:
        if self.notify is not None:
            self.notify(self)

    @property
    def writable(self) -> int:
        """See Connection."""
        return self._connection.writable

    @property
    def at_end(self) -> bool:
        """See Connection."""
        return self._connection.at_end

    @property
    def closed(self) -> bool:
        """See Connection."""
        return self._connection.closed

    def write(self, data: bytes | memoryview) -> int:
        """See Connection."""
        taken = self._connection.write(bytearray(data[: self.writable]))  # type: ignore[arg-type]
        self._send()
        return taken

    def shut_down(self) -> None:
        """See Connection."""
        self._connection.shut_down()
        self._send()

    def close(self) -> None:
        """See Connection."""
        self._connection.close()
        self._send()


class GeneralSockets:
    """Where they come from."""

    def __init__(self, listener: Listener, host: Host, tap: TapDevice) -> None:
        self._listener, self._host, self._tap = listener, host, tap

    def accept(self) -> GeneralSocket | None:
        """See Listener."""
        connection = self._listener.accept()
        return GeneralSocket(connection, self._send) if connection is not None else None

    def _send(self) -> None:
        self._host.advance(time.monotonic_ns())
        for frame in self._host.take():
            self._tap.send(frame)


# --- servers ----------------------------------------------------------------------------------


def ours(session: Session, host: Host, tap: TapDevice) -> Server:
    """As `xnfs serve --tap` has it."""
    server = without_fast(session, host, tap)
    host.answer_at_once(80, server.at_once)
    return server


def without_fast(session: Session, host: Host, tap: TapDevice) -> Server:
    """The same, but every client has a connection."""
    return Server(host.tcp.listen(80), PosixDocuments(session.posix), _wall)


def without_kept(session: Session, host: Host, tap: TapDevice) -> Server:
    """And each reply is made anew."""
    documents = PosixDocuments(session.posix)
    return Server(host.tcp.listen(80), documents, _wall, Limits(kept=0))


def general(session: Session, host: Host, tap: TapDevice) -> Server:
    """The same protocols and the same server, without the techniques."""
    sockets = GeneralSockets(host.tcp.listen(80), host, tap)
    return Server(sockets, GeneralDocuments(session), _wall, Limits(kept=0))


def _wall() -> int:
    return int(time.time())


class Peer(Protocol):
    """A server to be measured."""

    def running(self) -> AbstractContextManager[tuple[str, list[int]]]:
        """While it runs: where, and the processes whose time counts."""


@dataclass
class OnTap:
    """A server of `libos`, in a process of its own on the TAP device."""

    image: str
    tap: TapDevice
    make: Callable[[Session, Host, TapDevice], Server]
    burst: bool

    @contextmanager
    def running(self) -> Iterator[tuple[str, list[int]]]:
        """See Peer."""
        child = multiprocessing.get_context("fork").Process(target=self.serve)
        child.start()
        assert child.pid is not None
        try:
            yield f"http://{HOST_IP}", [child.pid]
        finally:
            child.terminate()
            child.join()

    def serve(self) -> None:
        """The life of the process."""
        stopped: list[int] = []
        signal.signal(signal.SIGTERM, lambda number, _frame: stopped.append(number))
        with open_image(self.image, readonly=True) as session:
            while self.tap.receive() is not None:
                pass  # for the server before
            tuning = Tuning(burst=BURST if self.burst else 0)
            host = Host(Address(mac(HOST_MAC), ip(HOST_IP)), tuning=tuning)
            server = self.make(session, host, self.tap)
            Loop(host, self.tap, self.tap.fileno(), server.turn).run(lambda: bool(stopped))


@dataclass
class HttpServer:
    """`python -m http.server` in a namespace with one end of a veth pair."""

    mount: Path
    fs_pid: int
    protocol: str
    namespace: int  # a process in it

    @contextmanager
    def running(self) -> Iterator[tuple[str, list[int]]]:
        """See Peer."""
        words = ["nsenter", "-t", str(self.namespace), "-n", sys.executable, "-m", "http.server"]
        words += ["80", "-d", str(self.mount), "-b", _VETH[1], "--protocol", self.protocol]
        quiet = subprocess.DEVNULL
        with subprocess.Popen(words, stdout=quiet, stderr=quiet) as child:
            try:
                yield f"http://{_VETH[1]}", [child.pid, self.fs_pid]
            finally:
                child.terminate()


# --- measuring --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sample:
    """One run: requests a second, and for each request µs of CPU, and packets."""

    rate: float
    cpu: float
    packets: float


def cpu_seconds(pids: list[int]) -> float:
    """User and system time of processes so far."""
    fields = [Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split() for pid in pids]
    return sum(int(f[11]) + int(f[12]) for f in fields) / _TICK


def packets(space: Namespace) -> int:
    """Of the namespace's interfaces, both ways."""
    lines = space.run("cat", "/proc/net/dev").stdout.splitlines()[2:]
    counts = [line.partition(":")[2].split() for line in lines if "lo:" not in line]
    return sum(int(c[1]) + int(c[9]) for c in counts)


def measure(peer: Peer, space: Namespace, size: int, kept: bool, args: Any) -> Sample:
    """Run a server, and the client against it."""
    with peer.running() as (place, pids):
        url = f"{place}/{size}.bin"
        for _ in range(100):
            done = space.run("curl", "-sf", "-m", "2", "-o", "/dev/null", url)
            if done.returncode == 0:
                break
            time.sleep(0.05)
        assert done.returncode == 0, done.stderr
        words = ["wrk", "-t1", f"-c{args.connections}", f"-d{args.seconds}s", url]
        words += [] if kept else ["-H", "Connection: close"]
        before = cpu_seconds(pids), packets(space)
        said = space.run(*words).stdout
        cpu, sent = cpu_seconds(pids) - before[0], packets(space) - before[1]
    assert "Non-2xx" not in said, said
    for line in re.findall(r"Socket errors.*", said):
        print(line, url, file=sys.stderr)
    found = re.search(r"(\d+) requests in ([\d.]+)(ms|s)", said)
    assert found is not None, said
    count = max(int(found[1]), 1)
    seconds = float(found[2]) / (1000 if found[3] == "ms" else 1)
    return Sample(count / seconds, cpu / count * 1e6, sent / count)


def build(work: Path) -> Path:
    """An image with a document of each size."""
    tree = work / "tree"
    tree.mkdir()
    tree.chmod(0o755)
    for size in SIZES:
        (tree / f"{size}.bin").write_bytes(os.urandom(size))
    image = work / "disk.xnfs"
    assert cli.main(["mkfs", "-d", str(tree), str(image), "16m"]) == 0
    return image


@contextmanager
def mounted(image: Path, at: Path) -> Iterator[int]:
    """The image, read-only; the process that serves it."""
    at.mkdir()
    command = Path(sys.executable).with_name("mount.xnfs")
    words = [str(command), str(image), str(at), "-f", "-o", "ro"]
    with subprocess.Popen(words) as child:
        try:
            while not at.is_mount():
                assert child.poll() is None, "the image could not be mounted"
                time.sleep(0.02)
            yield child.pid
        finally:
            subprocess.run(["umount", at], check=True)


@contextmanager
def veth(space: Namespace) -> Iterator[int]:
    """A namespace joined to the client's by a veth pair; a process in it."""
    with subprocess.Popen(["unshare", "-n", "cat"], stdin=subprocess.PIPE) as child:
        while os.readlink(f"/proc/{child.pid}/ns/net") == os.readlink("/proc/self/ns/net"):
            time.sleep(0.01)
        inside = ["nsenter", "-t", str(child.pid), "-n", "ip"]
        for words in (
            f"link add web0 type veth peer name web1 netns {space.pid}",
            f"address add {_VETH[1]}/24 dev web0",
            "link set web0 up",
        ):
            subprocess.run([*inside, *words.split()], check=True)
        space.sh(f"ip link set web1 up && ip address add {_VETH[0]}/24 dev web1")
        yield child.pid


def table(peers: dict[str, Peer], space: Namespace, kept: bool, args: Any) -> None:
    """All servers, all sizes, in turns."""
    print(f"\n{'Kept connections' if kept else 'A connection for each request'}:\n")
    print("| bytes | server | requests/s | MB/s | µs of CPU a request | packets a request |")
    print("|---|---|---|---|---|---|")
    for size in SIZES:
        samples: dict[str, list[Sample]] = {name: [] for name in peers}
        for _ in range(args.rounds):
            for name, peer in peers.items():
                samples[name].append(measure(peer, space, size, kept, args))
        for name, got in samples.items():
            rate, cpu, sent = (
                statistics.median(getattr(s, key) for s in got)
                for key in ("rate", "cpu", "packets")
            )
            print(
                f"| {size} | {name} | {rate:.0f} | {rate * size / 1e6:.2f} | {cpu:.0f} "
                f"| {sent:.1f} |",
                flush=True,
            )


def main() -> None:
    """All tables."""
    words = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    words.add_argument("--rounds", type=int, default=3)
    words.add_argument("--seconds", type=int, default=2)
    words.add_argument("--connections", type=int, default=10)
    words.add_argument("--quick", action="store_true", help="one round of a second")
    args = words.parse_args()
    if args.quick:
        args.rounds = args.seconds = 1
    with ExitStack() as stack:
        work = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        image = build(work)
        space = stack.enter_context(Namespace(cuts=True))
        fs_pid = stack.enter_context(mounted(image, work / "mount"))
        there = stack.enter_context(veth(space))
        for kept in (False, True):
            variants = {
                "general": (general, False),
                "pages, merged packets": (without_kept, False),
                "and long segments": (without_kept, True),
                "and kept replies": (without_fast, True),
                "and fast path: this server": (ours, True),
            }
            peers: dict[str, Peer] = {
                name: OnTap(str(image), space.tap, make, burst)
                for name, (make, burst) in variants.items()
            }
            protocol = "HTTP/1.1" if kept else "HTTP/1.0"
            peers["http.server"] = HttpServer(work / "mount", fs_pid, protocol, there)
            table(peers, space, kept, args)


if __name__ == "__main__":
    main()
