"""A network namespace of its own, with a TAP device whose other end the test holds.

A child made by `unshare -rn` opens the device and hands its descriptor over; it keeps the
namespace alive until its input is closed, and both vanish with it. So nothing is left behind,
whatever happens to the test, and neither root nor a free name is needed.
"""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import Final

from xnfs.net import TapDevice

PEER_IP: Final = "10.9.0.1"  # the kernel's end
HOST_IP: Final = "10.9.0.2"  # our stack's
HOST_MAC: Final = "02:00:00:00:00:02"

_CHILD: Final = """
import socket, sys
from xnfs.net.tap import open_tap
control = socket.socket(fileno=int(sys.argv[1]))
socket.send_fds(control, [b"tap"], [open_tap("tap0", cuts=sys.argv[2] == "cuts")])
sys.stdin.read()
"""

Done = subprocess.CompletedProcess[str]


class Namespace:
    """Use as a context. `tap` is our end of its only interface."""

    def __init__(self, mtu: int = 1500, *, cuts: bool = False) -> None:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            self._child = subprocess.Popen(
                [
                    "unshare",
                    "-rn",
                    sys.executable,
                    "-c",
                    _CHILD,
                    str(theirs.fileno()),
                    "cuts" * cuts,
                ],
                stdin=subprocess.PIPE,
                pass_fds=[theirs.fileno()],
                env={"PYTHONPATH": ":".join(filter(None, sys.path))},
            )
            theirs.close()
            ours.settimeout(30)
            _, fds, _, _ = socket.recv_fds(ours, 16, 1)
        self.tap = TapDevice(fds[0], mtu, cuts=cuts)
        self.sh(f"ip link set tap0 mtu {mtu} up && ip address add {PEER_IP}/24 dev tap0")

    def __enter__(self) -> Namespace:
        return self

    def __exit__(self, *_error: object) -> None:
        self.tap.close()
        with self._child:  # closes its input, which ends it
            pass

    @property
    def pid(self) -> int:
        """A process inside."""
        return self._child.pid

    def command(self, *words: str) -> list[str]:
        """The command that runs `words` inside."""
        enter = ["nsenter", "-t", str(self._child.pid), "-U", "-n", "--preserve-credentials"]
        return [*enter, "--", *words]

    def run(self, *words: str, timeout: float = 60) -> Done:
        """Run a program inside, to its end."""
        return subprocess.run(
            self.command(*words), capture_output=True, text=True, check=False, timeout=timeout
        )

    def sh(self, script: str) -> str:
        """Run a shell script inside, which must succeed; its output."""
        done = self.run("sh", "-ec", script)
        assert done.returncode == 0, done
        return done.stdout

    def start(self, *words: str) -> subprocess.Popen[bytes]:
        """Start a program inside."""
        return subprocess.Popen(self.command(*words), stdin=subprocess.PIPE, stdout=subprocess.PIPE)


def eventually(condition: Callable[[], bool], what: str, seconds: float = 20) -> None:
    """Wait until something holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(0.005)


def has_netem() -> bool:
    """Whether this kernel has the queueing discipline `netem`."""
    words: Sequence[str] = ("unshare", "-rn", "tc", "qdisc", "add", "dev", "lo", "root", "netem")
    return subprocess.run(words, capture_output=True, check=False).returncode == 0
