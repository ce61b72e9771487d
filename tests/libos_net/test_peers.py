"""The protocols against those of Linux: ping, nc, curl, Python's sockets, tcpdump, tshark."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest

from tests.libos_net.namespace import HOST_IP, PEER_IP, eventually, has_netem
from tests.libos_net.peers import ECHO, SINK, SOURCE, Machine
from xnfs.net import Conditions

LOSSY = Conditions(loss=0.05, reordering=0.1, late=2_000_000, queue=2000)
NETEM = "netem delay 1ms loss 5% reorder 10%"


def test_ping_is_answered() -> None:
    with Machine() as machine:
        done = machine.space.run("ping", "-c", "3", "-i", "0.01", HOST_IP)
        assert "3 packets transmitted, 3 received, 0% packet loss" in done.stdout
        # 45 fragments each way: the largest datagram that there is.
        done = machine.space.run("ping", "-c", "1", "-s", "65507", HOST_IP)
        assert "1 packets transmitted, 1 received, 0% packet loss" in done.stdout


def test_nc_gets_its_words_back() -> None:
    with Machine() as machine:
        said = machine.space.sh(f"echo over udp | nc -u -w 1 -W 1 {HOST_IP} {ECHO}")
        assert said == "over udp\n"
        assert machine.space.sh(f"echo over tcp | nc -N {HOST_IP} {ECHO}") == "over tcp\n"


def test_closed_ports_refuse() -> None:
    ask = (
        "import socket; s = socket.socket(type=socket.SOCK_DGRAM); s.settimeout(10);"
        f"s.connect(('{HOST_IP}', 81)); s.send(b'x'); s.recv(10)"
    )
    with Machine() as machine:
        refused = machine.space.run("nc", "-v", "-w", "5", HOST_IP, "81")
        assert "Connection refused" in refused.stderr
        refused = machine.space.run(sys.executable, "-c", ask)
        assert "ConnectionRefusedError" in refused.stderr


CLIENT = """
import hashlib, socket, sys, threading
address, port, size = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
body = hashlib.shake_128(b"client").digest(size)
peer = socket.create_connection((address, port), timeout=100)
def write():
    peer.sendall(body)
    peer.shutdown(socket.SHUT_WR)
threading.Thread(target=write).start()
got = hashlib.sha256()
while piece := peer.recv(1 << 16):
    got.update(piece)
print(got.hexdigest(), hashlib.sha256(body).hexdigest())
"""


def _client(machine: Machine, port: int, size: int, timeout: float = 100) -> tuple[str, str]:
    """What a client in the namespace got, and what it sent, as digests."""
    done = machine.space.run(
        sys.executable, "-c", CLIENT, HOST_IP, str(port), str(size), timeout=timeout
    )
    assert done.returncode == 0, done
    got, sent = done.stdout.split()
    return got, sent


def test_python_socket_echo_of_a_mebibyte() -> None:
    with Machine() as machine:
        got, sent = _client(machine, ECHO, 1 << 20)
        assert got == sent
        eventually(lambda: machine.open_connections == 0, "the connection is over")


def test_no_packet_is_malformed(tmp_path: Path) -> None:
    pcap = tmp_path / "all.pcap"
    with Machine(pcap) as machine:
        machine.space.sh(f"ping -c 2 -i 0.01 -s 3000 {HOST_IP}")
        machine.space.sh(f"echo over udp | nc -u -w 1 -W 1 {HOST_IP} {ECHO}")
        machine.space.run("nc", "-w", "5", HOST_IP, "81")
        _client(machine, ECHO, 100_001)
    # Both count a packet of Linux as well as ours: neither may be wrong.
    wrong = "_ws.malformed || _ws.expert.severity >= 8388608"
    wrong += "".join(f" || {p}.checksum.status == 0" for p in ("ip", "tcp", "udp", "icmp"))
    options = [w for p in ("ip", "tcp", "udp") for w in ("-o", f"{p}.check_checksum:TRUE")]
    assert _output("tshark", "-n", "-r", str(pcap), *options, "-Y", wrong) == ""
    kinds = _output("tshark", "-n", "-r", str(pcap), "-T", "fields", "-e", "frame.protocols")
    assert {"eth:ethertype:arp", "eth:ethertype:ip:icmp:data"} <= set(kinds.splitlines())
    text = _output("tcpdump", "-n", "-v", "-r", str(pcap))
    assert f"{HOST_IP}.{ECHO} > {PEER_IP}" in text
    for complaint in ("bad cksum", "truncated", "incorrect", "invalid", "[|"):
        assert complaint not in text


def _output(*words: str) -> str:
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done
    return done.stdout


def test_curl_fetches() -> None:
    # HTTP/0.9: what comes is the document.
    with Machine(size=200_000) as machine:
        url = f"http://{HOST_IP}:{SOURCE}/"
        digest = machine.space.sh(f"curl -sS --http0.9 {url} | sha256sum").split()[0]
        assert digest == hashlib.sha256(machine.body).hexdigest()


@pytest.mark.parametrize("how", ["wire", *(["netem"] if has_netem() else [])])
def test_transfer_over_a_bad_path(how: str) -> None:
    _over_a_bad_path(how, 256 * 1024)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["wire", *(["netem"] if has_netem() else [])])
def test_ten_mebibytes_over_a_bad_path(how: str) -> None:
    _over_a_bad_path(how, 10 << 20)


def _over_a_bad_path(how: str, size: int) -> None:
    with Machine(bad=LOSSY if how == "wire" else None, size=size) as machine:
        if how == "netem":
            machine.space.sh(f"tc qdisc add dev tap0 root {NETEM}")
        got, _ = _client(machine, SOURCE, 0, 250)
        assert got == hashlib.sha256(machine.body).hexdigest()
        _, sent = _client(machine, SINK, size, 250)
        eventually(lambda: machine.count == size, "all has come")
        assert machine.received.hexdigest() == sent


def test_host_speaks_to_the_kernel_of_linux() -> None:
    """The active side: our host opens the connection."""
    server = (
        "import socket; s = socket.create_server(('', 5000)); print('ready', flush=True);"
        "c, _ = s.accept(); d = c.recv(100); c.sendall(d.upper()); c.close()"
    )
    with Machine() as machine, machine.space.start(sys.executable, "-c", server) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"ready\n"
        machine.call(PEER_IP, 5000, b"hello")
        eventually(lambda: machine.answer == b"HELLO", "the answer has come")
        assert child.wait(10) == 0
