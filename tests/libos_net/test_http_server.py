"""The web server: replies, hostile clients, and real ones over TAP."""

from __future__ import annotations

import errno
import hashlib
import json
import random
import socket
import struct
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from libos.net.base import SECOND, ip, mac
from libos.net.host import Address, Host
from libos.net.http.documents import Document, MemoryDocuments
from libos.net.http.request import Path
from libos.net.http.server import Limits, Server
from libos.net.http.sockets import Sockets
from libos.net.loop import Loop
from libos.net.tcp.connection import Connection
from libos.net.tcp.state import State
from tests.libos_net.kit import B, Lab
from tests.libos_net.namespace import HOST_IP, HOST_MAC, Namespace, eventually

FILES = {
    b"index.html": b"<p>hello</p>\n",
    b"empty": b"",
    b"big": random.Random(1).randbytes(100_000),
    b"dir/a&b.txt": b"a",
    b"dir/deep/file": b"deep",
}
NOW = 1_700_000_000


class Site:
    """A server on host b of a lab, and clients on host a. `fast`: by the fast path, if it can."""

    def __init__(self, limits: Limits | None = None, *, fast: bool = False) -> None:
        self.lab = Lab()
        documents = MemoryDocuments(FILES, modified=1_600_000_000)
        self.server = Server(self.lab.b.tcp.listen(80), documents, lambda: NOW, limits)
        if fast:
            self.lab.b.answer_at_once(80, self.server.at_once)

    def act(self) -> None:
        self.server.turn(self.lab.clock())

    def client(self) -> Connection:
        connection = self.lab.a.tcp.connect(B.ip, 80, self.lab.clock())
        self.lab.run(lambda: connection.state is State.ESTABLISHED, self.act)
        return connection

    def wait(self, seconds: float) -> None:
        end = self.lab.clock() + int(seconds * SECOND)
        while self.lab.clock() < end:
            if not self.lab.turn(self.act):
                self.lab.clock.advance_to(self.lab.clock() + SECOND)
        self.lab.turn(self.act)

    def ask(self, text: bytes) -> bytes:
        """Everything that a client gets for what it says, up to the end of the connection."""
        connection = self.client()
        connection.write(text)
        return self.rest(connection)

    def rest(self, connection: Connection) -> bytes:
        got = bytearray()

        def act() -> None:
            self.act()
            got.extend(connection.read())

        self.lab.run(lambda: connection.at_end or connection.state is State.CLOSED, act)
        connection.close()
        return bytes(got)


def get(target: bytes, *fields: bytes, method: bytes = b"GET") -> bytes:
    lines = [method + b" " + target + b" HTTP/1.1", b"Host: x", *fields, b"", b""]
    return b"\r\n".join(lines)


CLOSE = b"Connection: close"


def split(reply: bytes) -> tuple[int, dict[bytes, bytes], bytes]:
    head, _, body = reply.partition(b"\r\n\r\n")
    first, *lines = head.split(b"\r\n")
    return int(first.split()[1]), dict(line.split(b": ", 1) for line in lines), body


both_ways = pytest.mark.parametrize("fast", [False, True])


@both_ways
def test_documents_are_served(fast: bool) -> None:
    site = Site(fast=fast)
    for name, data in FILES.items():
        target = b"/" + name.replace(b"&", b"%26")
        status, fields, body = split(site.ask(get(target, CLOSE)))
        assert (status, body) == (200, data)
        assert int(fields[b"Content-Length"]) == len(data)
        assert fields[b"Date"] == b"Tue, 14 Nov 2023 22:13:20 GMT"
        status, head_fields, body = split(site.ask(get(target, CLOSE, method=b"HEAD")))
        assert (status, body, head_fields) == (200, b"", fields)


@both_ways
def test_directories(fast: bool) -> None:
    site = Site(fast=fast)
    assert split(site.ask(get(b"/", CLOSE)))[2] == FILES[b"index.html"]
    status, fields, _ = split(site.ask(get(b"/dir", CLOSE)))
    assert (status, fields[b"Location"]) == (301, b"/dir/")
    _, _, body = split(site.ask(get(b"/dir/", CLOSE)))
    assert b'<a href="a%26b.txt">a&amp;b.txt</a>' in body
    assert b'<a href="deep/">deep/</a>' in body
    assert split(site.ask(get(b"/big/", CLOSE)))[0] == 404


@both_ways
def test_errors(fast: bool) -> None:
    site = Site(fast=fast)
    assert split(site.ask(get(b"/none", CLOSE)))[0] == 404
    status, fields, _ = split(site.ask(get(b"/", method=b"POST")))
    assert (status, fields[b"Allow"]) == (405, b"GET, HEAD")
    assert split(site.ask(get(b"/../etc/passwd")))[0] == 400
    assert split(site.ask(b"\x16\x03\x01\0\r\n\r\n"))[0] == 400
    assert split(site.ask(b"GET / HTTP/1.1\r\nX: " + b"a" * 20_000))[0] == 431
    assert site.server.tally.refused == 5


@both_ways
def test_ranges_and_conditions(fast: bool) -> None:
    site = Site(fast=fast)
    status, fields, body = split(site.ask(get(b"/big", b"Range: bytes=1000-1999", CLOSE)))
    assert (status, body) == (206, FILES[b"big"][1000:2000])
    assert fields[b"Content-Range"] == b"bytes 1000-1999/100000"
    status, fields, _ = split(site.ask(get(b"/big", b"Range: bytes=100000-", CLOSE)))
    assert (status, fields[b"Content-Range"]) == (416, b"bytes */100000")
    tag = split(site.ask(get(b"/big", CLOSE, method=b"HEAD")))[1][b"ETag"]
    for condition, wanted in [
        (b"If-None-Match: " + tag, 304),
        (b"If-None-Match: W/" + tag, 304),
        (b'If-None-Match: "other", *', 304),
        (b'If-None-Match: "other"', 200),
        (b"If-Modified-Since: Sun, 13 Sep 2020 12:26:40 GMT", 304),
        (b"If-Modified-Since: Sun, 13 Sep 2020 12:26:39 GMT", 200),
        (b"If-Modified-Since: yesterday", 200),
        (b"If-Modified-Since: Sun, 13 Sep 99999999999 12:26:39 GMT", 200),
        (b'If-Range: "old"\r\nRange: bytes=0-1', 200),
        (b"If-Range: " + tag + b"\r\nRange: bytes=0-1", 206),
    ]:
        assert split(site.ask(get(b"/big", condition, CLOSE)))[0] == wanted, condition


@both_ways
def test_requests_are_pipelined_and_the_connection_kept(fast: bool) -> None:
    site = Site(fast=fast)
    asked = get(b"/dir/deep/file") + get(b"/big") + get(b"/none") + get(b"/empty", CLOSE)
    reply = site.ask(asked)
    assert reply.count(b"HTTP/1.1 200 OK") == 3
    assert b"deepHTTP/1.1 200" in reply
    assert FILES[b"big"] in reply
    assert reply.index(b"404 Not Found") > reply.index(FILES[b"big"])
    site.wait(1)
    assert len(site.server) == 0


@both_ways
def test_request_in_single_bytes(fast: bool) -> None:
    site = Site(fast=fast)
    connection = site.client()
    connection.sender.nodelay = True
    for byte in get(b"/empty", CLOSE):
        connection.write(bytes([byte]))
        site.lab.turn(site.act)
    assert split(site.rest(connection))[0] == 200


def test_ready_answers_are_those_of_this_second() -> None:
    wall, files = [NOW], {b"f": b"old"}
    server = Server(Lab().b.tcp.listen(80), MemoryDocuments(files), lambda: wall[0])
    first = server.at_once(get(b"/f"))
    assert first is not None
    assert b"".join(first.slice(0, first.size)).endswith(b"old")
    server._documents = MemoryDocuments({b"f": b"new"})
    assert server.at_once(get(b"/f")) is first
    wall[0] += 1
    assert server.at_once(get(b"/f")) is not first
    second = server.at_once(get(b"/f") + get(b"/f", CLOSE) + get(b"/"))
    assert second is not None
    assert (b"".join(second.slice(0, second.size)).count(b"new"), second.last) == (2, True)
    assert server.at_once(get(b"/f")[:-1]) is None
    assert server.tally.requests == 5


def test_ready_answers_take_bounded_memory() -> None:
    """What there is no room to keep is the business of connections, of which each has a bound."""
    files = {b"small": b"s" * 1000, b"large": bytes(200_000)}
    server = Server(Lab().b.tcp.listen(80), MemoryDocuments(files), lambda: NOW)
    answers = [server.at_once(get(b"/large", b"X: %d" % n)) for n in range(100)]
    kept = {id(a) for a in answers if a is not None}
    assert 10 < len(kept) < 42  # of 200,000 bytes each
    assert server.at_once(get(b"/small")) is not None
    long = get(b"/large", b"X: " + b"x" * 2000)  # such a request is not kept, so nor is its answer
    assert server.at_once(long) is None
    assert server.at_once(get(b"/small", b"X: " + b"x" * 2000)) is not None


# --- hostile clients -----------------------------------------------------------------------------


@both_ways
def test_slow_head_gets_a_timeout(fast: bool) -> None:
    site = Site(fast=fast)
    connection = site.client()
    for _ in range(12):
        connection.write(b"X")
        site.wait(1)
    assert split(site.rest(connection))[0] == 408
    site.wait(5)
    assert len(site.server) == 0
    assert site.server.tally.timed_out == 1


def test_idle_clients_are_let_go() -> None:
    site = Site(Limits(idle=5 * SECOND))
    connection = site.client()
    connection.write(get(b"/empty"))
    site.wait(4)
    assert len(site.server) == 1
    site.wait(5)
    assert connection.at_end or connection.read()
    connection.close()
    site.wait(5)
    assert len(site.server) == 0


@both_ways
def test_client_that_takes_nothing_is_cut_off(fast: bool) -> None:
    site = Site(fast=fast)
    connection = site.client()
    for _ in range(20):
        connection.write(get(b"/big"))
    site.wait(50)
    assert len(site.server) == 0
    connection.read()
    site.wait(5)
    assert connection.state is State.CLOSED


@both_ways
def test_half_open_clients_are_let_go(fast: bool) -> None:
    site = Site(fast=fast)
    connection = site.client()
    connection.shut_down()
    site.wait(5)
    assert len(site.server) == 0


def test_clients_with_ready_answers_are_let_go_when_silent() -> None:
    """After a while they are connections, and have the server's patience."""
    site = Site(Limits(idle=5 * SECOND), fast=True)
    connection = site.client()
    connection.write(get(b"/empty"))
    site.wait(4)
    assert (len(site.server), len(site.lab.b.tcp)) == (0, 0)
    assert split(connection.read())[0] == 200
    site.wait(4)
    assert len(site.server) == 1
    site.wait(20)
    assert connection.at_end
    assert len(site.server) == 0


def test_too_many_clients_are_turned_away() -> None:
    site = Site(Limits(clients=3))
    clients = [site.client() for _ in range(5)]
    replies = [site.rest(c) for c in clients[3:]]
    assert all(b"503 Service Unavailable" in r for r in replies)
    assert site.server.tally.turned_away == 2


class Broken:
    """A document that can't be read to its end."""

    size, tag, modified = 100_000, b"broken", 0

    def pieces(self, lo: int, hi: int) -> Iterator[memoryview]:
        yield memoryview(bytes(1000))
        raise OSError(errno.EIO, "the disk says no")


class BrokenDocuments:
    def find(self, path: Path) -> Document:
        return Broken()


def test_document_that_can_not_be_read_ends_the_connection() -> None:
    """Its length was promised: the client must see that it did not come."""
    site = Site()
    site.server._documents = BrokenDocuments()
    connection = site.client()
    connection.write(get(b"/x") + get(b"/x"))
    site.wait(1)
    assert (connection.state, connection.error) == (State.CLOSED, errno.ECONNRESET)
    assert site.server.tally.broken_off == 1
    assert len(site.server) == 0


@both_ways
def test_resets_in_the_middle_leave_nothing(fast: bool) -> None:
    site = Site(fast=fast)
    for _ in range(20):
        connection = site.client()
        connection.write(get(b"/big"))
        site.lab.turn(site.act)
        connection.abort()
        site.wait(0.1)
    site.wait(1)
    assert len(site.server) == 0
    assert len(site.lab.b.tcp) == 0


# --- real clients --------------------------------------------------------------------------------

MANY = """
import hashlib, http.client, json, sys, threading
done, errors = [], []
def work():
    try:
        peer = http.client.HTTPConnection(sys.argv[1], 80, timeout=60)
        for name in ("/", "/big", "/empty", "/dir/deep/file") * 3:
            peer.request("GET", name)
            done.append((name, hashlib.sha256(peer.getresponse().read()).hexdigest()))
    except Exception as error:
        errors.append(repr(error))
threads = [threading.Thread(target=work) for _ in range(25)]
[t.start() for t in threads]
[t.join() for t in threads]
print(json.dumps([done, errors]))
"""


@pytest.fixture
def served() -> Iterator[Namespace]:
    """A namespace in which port 80 of our host is a web server."""
    space = Namespace()
    host = Host(Address(mac(HOST_MAC), ip(HOST_IP)))
    server = Server(host.tcp.listen(80), MemoryDocuments(FILES), lambda: int(time.time()))
    host.answer_at_once(80, server.at_once)
    stop = threading.Event()
    loop = Loop(host, space.tap, space.tap.fileno(), server.turn)
    thread = threading.Thread(target=loop.run, args=(stop.is_set,))
    thread.start()
    yield space
    stop.set()
    thread.join()
    space.__exit__()


def test_curl(served: Namespace) -> None:
    url = f"http://{HOST_IP}"
    assert served.sh(f"curl -sS {url}/") == "<p>hello</p>\n"
    digest = served.sh(f"curl -sS {url}/big | sha256sum").split()[0]
    assert digest == hashlib.sha256(FILES[b"big"]).hexdigest()
    part = served.sh(f"curl -sS -r 10-19 {url}/big | sha256sum").split()[0]
    assert part == hashlib.sha256(FILES[b"big"][10:20]).hexdigest()
    # One connection for both, and a reply that says that nothing has changed.
    said = served.sh(f"curl -sSv -o /dev/null {url}/ -o /dev/null {url}/empty 2>&1")
    assert "Re-using existing connection" in said
    said = served.sh(f"curl -sS --path-as-is -w '%{{http_code}}' -o /dev/null {url}/../etc/passwd")
    assert said == "400"


def test_many_clients_at_once(served: Namespace) -> None:
    done, errors = json.loads(served.run(sys.executable, "-c", MANY, HOST_IP).stdout)
    assert errors == []
    assert len(done) == 25 * 12
    names = {
        "/": b"index.html",
        "/big": b"big",
        "/empty": b"empty",
        "/dir/deep/file": b"dir/deep/file",
    }
    for name, digest in done:
        assert digest == hashlib.sha256(FILES[names[name]]).hexdigest()


# --- over the host's sockets ---------------------------------------------------------------------


@pytest.fixture
def sockets() -> Iterator[tuple[Sockets, Server]]:
    """The same server on a socket of the host."""
    stop = threading.Event()
    with Sockets("127.0.0.1", 0) as made:
        documents = MemoryDocuments(FILES, modified=1_600_000_000)
        server = Server(made, documents, lambda: NOW, Limits(stalled=SECOND // 2))
        thread = threading.Thread(target=made.run, args=(server, stop.is_set))
        thread.start()
        yield made, server
        stop.set()
        thread.join()


def said_by(port: int, text: bytes) -> bytes:
    """All that a server answers on a socket of the host."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as peer:
        peer.sendall(text)
        got = b""
        while piece := peer.recv(1 << 16):
            got += piece
        return got


def test_sockets_serve_the_same(sockets: tuple[Sockets, Server]) -> None:
    made, server = sockets
    site = Site()
    for text in (
        get(b"/big", CLOSE),
        get(b"/") + get(b"/big") + get(b"/none") + get(b"/dir/", CLOSE),
        get(b"/big", b"Range: bytes=5-9", CLOSE, method=b"HEAD"),
        b"nonsense\r\n\r\n",
    ):
        assert said_by(made.port, text) == site.ask(text)
    eventually(lambda: len(server) == 0, "all are gone")


def test_sockets_serve_many_at_once(sockets: tuple[Sockets, Server]) -> None:
    made, server = sockets
    text = get(b"/big") * 3 + get(b"/index.html", CLOSE)
    answers: list[bytes] = []

    def work() -> None:
        answers.append(said_by(made.port, text))

    threads = [threading.Thread(target=work) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(answers)) == 1
    assert answers[0].count(FILES[b"big"]) == 3
    eventually(lambda: len(server) == 0, "all are gone")


def test_sockets_of_hostile_clients_are_closed(sockets: tuple[Sockets, Server]) -> None:
    made, server = sockets
    address = ("127.0.0.1", made.port)
    with socket.create_connection(address) as greedy, socket.create_connection(address) as rude:
        greedy.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        for _ in range(30):
            greedy.sendall(get(b"/big") * 10)  # and takes nothing
        rude.sendall(get(b"/big"))
        rude.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        rude.close()
        eventually(lambda: server.tally.timed_out == 1, "the greedy one is cut off")
        eventually(lambda: len(server) == 0, "both are gone")
    assert said_by(made.port, get(b"/empty", CLOSE)).startswith(b"HTTP/1.1 200")


class Changing:
    """Documents that are found anew, and counted."""

    def __init__(self) -> None:
        self.found = 0

    def find(self, path: Path) -> Document:
        self.found += 1
        return MemoryDocuments({b"x": b"%d" % self.found}).find((b"x",))  # type: ignore[return-value]


def test_a_reply_is_kept_within_its_second() -> None:
    lab, documents, time_of_day = Lab(), Changing(), [NOW]
    server = Server(lab.b.tcp.listen(80), documents, lambda: time_of_day[0], Limits(kept=2))

    def ask(target: bytes) -> bytes:
        connection, got = lab.a.tcp.connect(B.ip, 80, lab.clock()), bytearray()
        connection.write(get(target, CLOSE))

        def act() -> None:
            server.turn(lab.clock())
            got.extend(connection.read())

        lab.run(lambda: connection.at_end, act)
        connection.close()
        return bytes(got)

    first = ask(b"/a")
    assert ask(b"/a") == first
    assert documents.found == 1
    assert [split(ask(target))[2] for target in (b"/b", b"/c", b"/b")] == [b"2", b"3", b"2"]
    assert split(ask(b"/a"))[2] == b"4"  # the first of three had to go
    time_of_day[0] += 1
    assert split(ask(b"/a"))[2] == b"5"
    ask(b"/" + b"long" * 300)
    ask(b"/" + b"long" * 300)
    assert documents.found == 7  # too long to be kept
