"""Rules of the network switched off, one at a time, and the test that notices.

    python -m tests.net.mutants [WORD ...]

prints the table of docs/mutants-network.md, for the mutants whose name has one of the words. Each
mutant changes one place in a copy of the sources, and the narrow tests run there.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final, NamedTuple

TOP: Final = Path(__file__).parents[2]
KERNEL: Final = [f"tests/net/test_{n}.py" for n in ("network", "handler", "demux", "meaning")]
PROTOCOLS: Final = [
    f"tests/libos_net/test_{n}.py"
    for n in ("states", "ip", "transfer", "checksum", "fuzz", "endpoint", "fastpath", "burst")
]
WEB: Final = [f"tests/libos_net/test_{n}.py" for n in ("http_request", "http_server", "fastpath")]


class Mutant(NamedTuple):
    """`old`, which is there, becomes `new`."""

    name: str
    path: str
    old: str
    new: str


MUTANTS: Final = [
    Mutant(
        "filter overlap not refused",
        "xnfs/net/network.py",
        '        _refuse_overlap("filter"',
        '        0 and _refuse_overlap("filter"',
    ),
    Mutant(
        "template overlap not refused",
        "xnfs/net/network.py",
        '        _refuse_overlap("template"',
        '        0 and _refuse_overlap("template"',
    ),
    Mutant(
        "grants not checked",
        "xnfs/net/network.py",
        "            self._endpoint(token, number, ALLOC)",
        "            pass",
    ),
    Mutant(
        "later endpoint does not win",
        "xnfs/net/demux.py",
        "if owner > found and",
        "if found < 0 and",
    ),
    Mutant(
        "later fragments classified",
        "xnfs/net/network.py",
        "        if offset:\n            number = port",
        "        if 0:\n            number = port",
    ),
    Mutant(
        "later fragments sent by anybody",
        "xnfs/net/network.py",
        "return sender.sending.owner(key, now) is not None",
        "return True",
    ),
    Mutant(
        "template not checked",
        "xnfs/net/network.py",
        "        if not self._may_send(sender, frame):",
        "        if 0:",
    ),
    Mutant(
        "handler's sends not checked",
        "xnfs/net/network.py",
        "        if not self._may_send(endpoint, frame):",
        "        if 0:",
    ),
    Mutant(
        "ring believes consumed",
        "xnfs/net/ring.py",
        "not 0 <= waiting < self._slots",
        "waiting >= self._slots",
    ),
    Mutant(
        "ring overwrites",
        "xnfs/net/ring.py",
        "if not 0 <= waiting < self._slots or",
        "if",
    ),
    Mutant(
        "ring not cleared",
        "xnfs/net/ring.py",
        "memory[:] = bytes(len(memory))",
        "pass",
    ),
    Mutant(
        "handler not all or nothing",
        "xnfs/net/handler.py",
        "if not all(self._possible_untrusted(a, frame) for a in actions) or",
        "actions=[a for a in actions if self._possible_untrusted(a, frame)]\n        if",
    ),
    Mutant(
        "actions unchecked",
        "xnfs/net/handler.py",
        "if not all(self._possible_untrusted(a, frame) for a in actions) or",
        "if",
    ),
    Mutant(
        "no allowance",
        "xnfs/net/handler.py",
        "if until > now + SECOND:",
        "if 0:",
    ),
    Mutant(
        "allowance renewed on bind",
        "xnfs/net/network.py",
        "if not left and spent.full_at <= now:",
        "if not left:",
    ),
    Mutant(
        "COPY_SUM not summed",
        "xnfs/net/handler.py",
        " and _sum(frame[b : b + c]) == d",
        "",
    ),
    Mutant(
        "held fragments unbounded",
        "xnfs/net/fragments.py",
        "if self._held >= MAX_HELD:",
        "if 0:",
    ),
    Mutant(
        "fragments never expire",
        "xnfs/net/fragments.py",
        ".ends <= now:",
        ".ends < 0:",
    ),
    Mutant(
        "cube lengths ignored",
        "xnfs/net/cube.py",
        "return self.lo <= other.hi and other.lo <= self.hi",
        "return True",
    ),
    Mutant(
        "meaning: < as <=",
        "xnfs/net/meaning.py",
        '"<": operator.lt',
        '"<": operator.le',
    ),
    Mutant(
        "meaning: known bits forgotten",
        "xnfs/net/bits.py",
        "if b >= 0 and cube.mask >> b & 1 else b",
        "if 0 else b",
    ),
    Mutant(
        "demux split loses children",
        "xnfs/net/demux.py",
        "above.setdefault(value & common, _Node(tables=[_Table(rest)]))",
        "above[value & common] = _Node(tables=[_Table(rest)])",
    ),
    Mutant(
        "options overflow the MTU",
        "libos/net/tcp/connection.py",
        "segment.sacks = segment.sacks[:",
        "segment.sacks = segment.sacks or segment.sacks[:",
    ),
    Mutant(
        "Karn ignored",
        "libos/net/tcp/scoreboard.py",
        "if sent.tries == 1 and sent.fate is not Fate.ARRIVED:\n                rtt",
        "if 1:\n                rtt",
    ),
    Mutant(
        "any RST in window resets",
        "libos/net/tcp/connection.py",
        "if seq != self.receiver.nxt:",
        "if 0:",
    ),
    Mutant(
        "SYN in window resets",
        "libos/net/tcp/connection.py",
        "elif segment.flags & SYN:\n            self._challenge(now)",
        "elif segment.flags & SYN:\n            self._end(104)",
    ),
    Mutant(
        "half-open unbounded",
        "libos/net/tcp/table.py",
        "if len(listener.half_open) >= self.tuning.backlog:",
        "if 0:",
    ),
    Mutant(
        "accept queue unbounded",
        "libos/net/tcp/table.py",
        "if len(listener) >= self.tuning.backlog or full:",
        "if full:",
    ),
    Mutant(
        "runs unbounded",
        "libos/net/tcp/receiver.py",
        "elif len(self._runs) >= MAX_RUNS and start > self.nxt:",
        "elif 0:",
    ),
    Mutant(
        "TIME-WAIT unbounded",
        "libos/net/tcp/table.py",
        "if len(self._time_wait) > self.tuning.max_time_wait:",
        "if 0:",
    ),
    Mutant(
        "overlapping fragments taken",
        "libos/net/ipv4.py",
        "if any(s < end and start < s + len(p) for s, p in partial.pieces.items()):",
        "if 0:",
    ),
    Mutant(
        "fragment bytes unbounded",
        "libos/net/ipv4.py",
        "while self._held > MAX_HELD or len(self._partial) > MAX_DATAGRAMS:",
        "while 0:",
    ),
    Mutant(
        "fragments never time out",
        "libos/net/ipv4.py",
        "if now < partial.ends:",
        "if 1:",
    ),
    Mutant(
        "IPv4 checksum ignored",
        "libos/net/ipv4.py",
        "if not checksum.holds(data[:size]):",
        "if 0:",
    ),
    Mutant(
        "TCP checksum ignored",
        "libos/net/tcp/segment.py",
        "if not checksum.holds(",
        "if 0 and not checksum.holds(",
    ),
    Mutant(
        "UDP checksum ignored",
        "libos/net/udp.py",
        "if summed and not",
        "if 0 and not",
    ),
    Mutant(
        "ICMP checksum ignored",
        "libos/net/icmp.py",
        "if not checksum.holds(data):",
        "if 0:",
    ),
    Mutant(
        "source routes taken",
        "libos/net/ipv4.py",
        "if options[at] in _SOURCE_ROUTES:",
        "if 0:",
    ),
    Mutant(
        "no persist timer",
        "libos/net/tcp/sender.py",
        "        elif self._probe_at is None:\n            self._probe_at = now + self.rtt.rto",
        "        elif 0:\n            pass",
    ),
    Mutant(
        "acks at once",
        "libos/net/tcp/connection.py",
        "        elif self._ack_at is None:",
        "        elif 1:\n            self._ack_now = True\n        elif self._ack_at is None:",
    ),
    Mutant(
        "acks never",
        "libos/net/tcp/connection.py",
        "if self._ack_at is not None and now >= self._ack_at:",
        "if 0:",
    ),
    Mutant(
        "no Nagle",
        "libos/net/tcp/sender.py",
        "(self.nodelay or self._board.empty or self.fin is not None)",
        "True",
    ),
    Mutant(
        "silly windows offered",
        "libos/net/tcp/receiver.py",
        "if edge - self.edge >= min(mss, self._limit // 2):",
        "if edge > self.edge:",
    ),
    Mutant(
        "window updates not said",
        "libos/net/tcp/connection.py",
        "if data and self.receiver.would_grow",
        "if 0 and self.receiver.would_grow",
    ),
    Mutant(
        "no fast retransmit (plain)",
        "libos/net/tcp/sender.py",
        "if self._duplicates == DUP_THRESHOLD and",
        "if 0 and",
    ),
    Mutant(
        "no fast retransmit (SACK)",
        "libos/net/tcp/sender.py",
        "if self.sack and self._board.find_lost()",
        "if 0 and self._board.find_lost()",
    ),
    Mutant(
        "lost retransmissions unseen",
        "libos/net/tcp/scoreboard.py",
        "sent.order < overtaken:",
        "sent.order < overtaken and sent.tries == 1:",
    ),
    Mutant(
        "loss does not halve",
        "libos/net/tcp/congestion.py",
        (
            "        self.threshold = max(flight // 2, 2 * self.mss)\n"
            "        self.window = self.threshold\n"
        ),
        "        pass\n",
    ),
    Mutant(
        "timeout does not slow",
        "libos/net/tcp/congestion.py",
        "        self.window = self.mss\n        self._counted = 0\n\n    def idle",
        "        self._counted = 0\n\n    def idle",
    ),
    Mutant(
        "no slow start",
        "libos/net/tcp/congestion.py",
        "    return min(10 * mss, max(2 * mss, 14600))",
        "    return 1 << 30",
    ),
    Mutant(
        "no congestion avoidance",
        "libos/net/tcp/congestion.py",
        "if self.window < self.threshold:",
        "if 1:",
    ),
    Mutant(
        "no back-off",
        "libos/net/tcp/rtt.py",
        "self._doublings = min(self._doublings + 1, 16)",
        "pass",
    ),
    Mutant(
        "orphans for ever",
        "libos/net/tcp/connection.py",
        "if self._orphan and self._wait_until is None:",
        "if 0:",
    ),
    Mutant(
        "acks of the unsent taken",
        "libos/net/tcp/connection.py",
        "if ack > sender.nxt or ack < sender.una - max(sender.widest, 1):",
        "if 0:",
    ),
    Mutant(
        "errors unlimited",
        "libos/net/host.py",
        "if not self._errors.allow(now):",
        "if 0:",
    ),
    Mutant(
        "errors about errors",
        "libos/net/host.py",
        "if offset or (protocol == ipv4.ICMP and head[(head[0] & 15) * 4] in icmp.ERRORS):",
        "if 0:",
    ),
    Mutant(
        "arp believes all",
        "libos/net/arp.py",
        "(sender in self._asking or asked or sender in self._entries)",
        "True",
    ),
    Mutant(
        "arp cache unbounded",
        "libos/net/arp.py",
        "if len(self._entries) > _MAX_ENTRIES:",
        "if 0:",
    ),
    Mutant(
        "path MTU of guesses",
        "libos/net/tcp/connection.py",
        (
            "        if self.sender.una <= unwrap(sequence, self.sender.una) < self.sende"
            "r.nxt:\n"
            "            self.sender.path_mtu"
        ),
        "        if 1:\n            self.sender.path_mtu",
    ),
    Mutant(
        "no partial ack",
        "libos/net/tcp/sender.py",
        "elif self._recovering and not self.sack and not self._timed_out:",
        "elif 0:",
    ),
    Mutant(
        "no keep-alive",
        "libos/net/tcp/connection.py",
        "            self._keep_alive(now)\n",
        "            pass\n",
    ),
    Mutant(
        "data after close taken",
        "libos/net/tcp/connection.py",
        "        if segment.data and self._orphan:",
        "        if 0:",
    ),
    Mutant(
        "UDP queue unbounded",
        "libos/net/udp.py",
        "if len(self._queue) >= _MAX_QUEUED or",
        "if",
    ),
    Mutant(
        "one turn sends all",
        "libos/net/tcp/table.py",
        "and sent < _MOST_SENT",
        "",
    ),
    Mutant(
        "fast path believes bad checksums",
        "libos/net/tcp/fastpath.py",
        "        if not _intact(frame, total, key):",
        "        if 0:",
    ),
    Mutant(
        "fast path takes any number",
        "libos/net/tcp/fastpath.py",
        "        if seq != exchange.expected or (",
        "        if (",
    ),
    Mutant(
        "fast path sends beyond the window",
        "libos/net/tcp/fastpath.py",
        "        stop = exchange.acked + min(exchange.room, exchange.window)",
        "        stop = exchange.acked + exchange.room",
    ),
    Mutant(
        "fast path sends beyond the initial window",
        "libos/net/tcp/fastpath.py",
        "        made.room = initial_window(made.mss)",
        "        made.room = 1 << 20",
    ),
    Mutant(
        "fast path does not start slowly",
        "libos/net/tcp/fastpath.py",
        "min(gone - exchange.acked, 2 * exchange.mss)",
        "gone - exchange.acked",
    ),
    Mutant(
        "fast path keeps an old window",
        "libos/net/tcp/fastpath.py",
        "        if now - exchange.heard > self._table.tuning.min_rto:",
        "        if 0:",
    ),
    Mutant(
        "flight is not in the connection",
        "libos/net/tcp/fastpath.py",
        "max(made.sender.congestion.window, flight)",
        "1460",
    ),
    Mutant(
        "fast path forgets what was lost",
        "libos/net/tcp/fastpath.py",
        "                self._connect(exchange, since)",
        "                pass",
    ),
    Mutant(
        "half-open exchanges unbounded",
        "libos/net/tcp/fastpath.py",
        "        if len(self._half_open) >= tuning.backlog:",
        "        if 0:",
    ),
    Mutant(
        "exchanges in TIME-WAIT unbounded",
        "libos/net/tcp/fastpath.py",
        "        if len(self._done) > self._table.tuning.max_time_wait:",
        "        if 0:",
    ),
    Mutant(
        "exchanges unbounded",
        "libos/net/tcp/fastpath.py",
        "        if len(self) + len(self._table) >= tuning.max_connections:",
        "        if 0:",
    ),
    Mutant(
        "old handshake ends TIME-WAIT",
        "libos/net/tcp/fastpath.py",
        "            if bits & 0x37 != SYN or not 0 < ahead < MODULUS >> 1:",
        "            if bits & 0x37 != SYN:",
    ),
    Mutant(
        "silent exchanges stay",
        "libos/net/tcp/fastpath.py",
        "            if exchange.state != _DONE and now - exchange.heard >= _QUIET:",
        "            if 0:",
    ),
    Mutant(
        "answer is not in the connection",
        "libos/net/tcp/fastpath.py",
        "                made.write(piece)\n",
        "                pass\n",
    ),
    Mutant(
        "kept sums of another size",
        "libos/net/tcp/ready.py",
        "        segments = self._segments.get(size)",
        "        segments = next(iter(self._segments.values()), None)",
    ),
    Mutant(
        "runs are not taken apart",
        "libos/net/tcp/scoreboard.py",
        "        if not any(sent.size for sent in self._sent):",
        "        if 1:",
    ),
    Mutant(
        "full segments beyond the congestion window",
        "libos/net/tcp/sender.py",
        "        count = min(waiting, self.congestion.window - self._board.pipe) // mss",
        "        count = waiting // mss",
    ),
    Mutant(
        "full segments beyond the peer's window",
        "libos/net/tcp/sender.py",
        "        waiting = min(self.queue.end - 1, self.una + self.window) - nxt",
        "        waiting = self.queue.end - 1 - nxt",
    ),
    Mutant(
        "spans longer than a frame",
        "libos/net/tcp/connection.py",
        "            if seq == hi and (hi - lo) % size == 0 and end - lo <= most:",
        "            if seq == hi and (hi - lo) % size == 0 and most:",
    ),
    Mutant(
        "paths lead out of the root",
        "libos/net/http/request.py",
        '        if name == b"..":',
        "        if 0:",
    ),
    Mutant(
        "clients unbounded",
        "libos/net/http/server.py",
        "        if len(self._clients) >= self._limits.clients:",
        "        if 0:",
    ),
    Mutant(
        "patience without end",
        "libos/net/http/server.py",
        "                if now >= client.deadline:",
        "                if 0:",
    ),
    Mutant(
        "read on after the last request",
        "libos/net/http/server.py",
        "                if not replies[-1].keep_alive:",
        "                if 0:",
    ),
    Mutant(
        "kept for another second",
        "libos/net/http/kept.py",
        "            self._turn(now)\n        return self._ready.get(data)",
        "            pass\n        return self._ready.get(data)",
    ),
]


def noticed(mutant: Mutant, copy: Path) -> str:
    """The first test that fails with the mutant in place; empty: none."""
    path = copy / mutant.path
    good = path.read_text()
    if mutant.old not in good:
        raise LookupError(f"{mutant.name}: the place is not there any more")
    path.write_text(good.replace(mutant.old, mutant.new, 1))
    tests = KERNEL if mutant.path.startswith("xnfs") else PROTOCOLS
    tests = WEB if "/http/" in mutant.path else tests
    words = ["-q", "-x", "-n", "0", "-m", "not slow", "-p", "no:cacheprovider", "--timeout", "120"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *words, *tests],
        cwd=copy,
        capture_output=True,
        text=True,
        check=False,
    )
    path.write_text(good)
    failed = [line for line in done.stdout.splitlines() if line.startswith("FAILED")]
    return failed[0].split()[1].rpartition("/")[2] if failed else ""


def main(words: list[str]) -> int:
    """Print the table. 1: a mutant survived."""
    survived = 0
    print("| what is off | in | the test that notices |\n|---|---|---|")
    with tempfile.TemporaryDirectory() as directory:
        copy = Path(directory)
        for name in ("xnfs", "libos", "tests"):
            ignore = shutil.ignore_patterns("__pycache__")
            shutil.copytree(TOP / name, copy / name, ignore=ignore)
        shutil.copy(TOP / "pyproject.toml", copy)
        for mutant in MUTANTS:
            if words and not any(word in mutant.name for word in words):
                continue
            test = noticed(mutant, copy)
            survived += not test
            print(f"| {mutant.name} | `{mutant.path}` | `{test or 'none'}` |", flush=True)
    return min(survived, 1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
