"""Our server without a mount: the dispatcher, given the requests that the host kernel would send.

Does: for a kind of operation, build the requests that Linux sends for it (seen in traces of real
mounts; the answers to earlier ones are used as the kernel would use them), and profile only what
the server does with them. The image lies in memory, so no device is waited for.
Does not: stand for a real mount; `cost.py` without --profile has the figures of one.
"""

from __future__ import annotations

import cProfile
import pstats
import struct
import sys
import time
from collections.abc import Callable
from pathlib import Path

# The builder of requests is that of the tests, and lies in this tree only.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from libfs.ffs import Ffs
from libfs.kernel import abi
from libfs.kernel.abi import Fattr, Init, Op
from tests.kernel.wire import FIXED, Wire
from xnfs import FramePool, MemoryDevice, Xn, format_image

BLOCKS = 1 << 18
FRAMES = 1 << 14
TIMES = Fattr.MTIME | Fattr.CTIME
PAGE = b"x" * 4096
MODE = 0o644
NOW = int(time.time())


class Host:
    """The host kernel's part: asks, and keeps what it is told. `spent`: ns in the server."""

    def __init__(self) -> None:
        device = MemoryDevice(BLOCKS)
        format_image(device, uuid=bytes(16), label="", now=0)
        xn = Xn(device, frames=FramePool(FRAMES))
        Ffs.mkfs(xn, xn.admin, "main")
        self._wire = Wire(Ffs.mount(xn, xn.admin, "main"))
        self.profiler: cProfile.Profile | None = None
        self.spent = 0
        everything = sum(Init) & 0xFFFFFFFF
        self._wire.good(Op.INIT, abi.MAJOR, abi.MINOR, 1 << 20, everything)
        self.top = self.made(Op.MKDIR, b"top", 0o755, 0)
        self.nodes: list[int] = []

    def ask(self, op: Op, *fields: int, node: int = 0, tail: bytes = b"") -> bytes:
        """One request; the answer without its header. Errors are answers, too."""
        dispatcher, answers = self._wire.dispatcher, self._wire.answers
        body = struct.pack("=" + FIXED.get(op, ""), *fields) + tail
        request = self._wire.request(op, node or self.top, body)
        dispatcher.buffer[: len(request)] = request
        if self.profiler:
            self.profiler.enable()
        start = time.perf_counter_ns()
        dispatcher.handle(len(request))
        if dispatcher.undurable:
            dispatcher.settle()
            dispatcher.syncer.end()
            dispatcher.syncer.run()
        self.spent += time.perf_counter_ns() - start
        if self.profiler:
            self.profiler.disable()
        answer = answers[-1][abi.OUT_HEADER.size :] if answers else b""
        answers.clear()
        return answer

    def made(self, op: Op, name: bytes, *fields: int, node: int = 0) -> int:
        """A request that is answered with an entry; its node."""
        answer = self.ask(op, *fields, node=node or abi.ROOT_ID, tail=name + b"\0")
        return int(abi.ENTRY.unpack(answer)[0])

    # -- what more than one kind consists of

    def walk(self) -> None:
        """A directory that has changed is looked at again before the next use of its names."""
        self.ask(Op.GETATTR, 0, 0)

    def absent(self, name: bytes) -> None:
        """A name is looked for before it is made."""
        self.ask(Op.LOOKUP, tail=name + b"\0")

    def create(self, i: int) -> None:
        """open(O_CREAT | O_EXCL), close."""
        self.walk()
        self.absent(b"f%05d" % i)
        self.nodes.append(
            self.made(Op.MKNOD, b"f%05d" % i, 0o100000 | MODE, 0, 0o22, node=self.top)
        )

    def write(self, node: int, page: int) -> None:
        """A page from the page cache, and the times that the kernel keeps."""
        self.ask(Op.WRITE, 0, page * 4096, 4096, 1, node=node, tail=PAGE)
        self.times(node)

    def times(self, node: int) -> None:
        """Times that the kernel has kept until now."""
        when = (0, NOW, NOW, 0, 0, 0)  # seconds of atime, mtime, ctime; their ns
        self.ask(Op.SETATTR, TIMES, 0, 0, *when, 0, 0, 0, node=node)

    def fsync(self, node: int) -> None:
        """fsync(2)."""
        self.ask(Op.FSYNC, 0, 0, node=node)


# -- the kinds: what is there before, and one operation


def create_4k(host: Host, i: int) -> None:
    host.create(i)
    host.ask(Op.GETXATTR, 0, node=host.nodes[i], tail=b"security.capability\0")
    host.write(host.nodes[i], 0)


def mkdir(host: Host, i: int) -> None:
    host.walk()
    host.absent(b"d%05d" % i)
    host.nodes.append(host.made(Op.MKDIR, b"d%05d" % i, 0o755, 0o22, node=host.top))


def symlink(host: Host, i: int) -> None:
    host.walk()
    host.absent(b"s%05d" % i)
    host.ask(Op.SYMLINK, tail=b"s%05d\0target\0" % i)


def link(host: Host, i: int) -> None:
    host.walk()
    host.absent(b"l%05d" % i)
    host.ask(Op.LINK, host.nodes[0], tail=b"l%05d\0" % i)


def rename(host: Host, i: int) -> None:
    host.walk()
    host.absent(b"g%05d" % i)
    host.ask(Op.RENAME, host.top, tail=b"f%05d\0g%05d\0" % (i, i))
    host.times(host.nodes[i])


def chmod(host: Host, i: int) -> None:
    now = (0, 0, NOW, 0, 0, 0)
    bits = Fattr.MODE | Fattr.CTIME
    host.ask(Op.SETATTR, bits, 0, 0, *now, 0o100600, 0, 0, node=host.nodes[i])


def unlink(host: Host, i: int) -> None:
    host.walk()
    host.ask(Op.UNLINK, tail=b"f%05d\0" % i)
    host.times(host.nodes[i])
    host.ask(Op.FORGET, 1, node=host.nodes[i])


def rmdir(host: Host, i: int) -> None:
    host.walk()
    host.ask(Op.RMDIR, tail=b"d%05d\0" % i)
    host.ask(Op.FORGET, 1, node=host.nodes[i])


def lookup(host: Host, i: int) -> None:
    host.ask(Op.LOOKUP, tail=b"f%05d\0" % i)


def readdir(host: Host, i: int) -> None:
    """An operation is an entry: all of them, once."""
    if i:
        return
    offset = 0
    while answer := host.ask(Op.READDIRPLUS, 0, offset, 32768):
        at = 0
        while at < len(answer):
            _, offset, length, _ = abi.DIRENT.unpack_from(answer, at + abi.ENTRY.size)
            at += abi.ENTRY.size + abi.DIRENT.size + (length + 7 & ~7)


def read(host: Host, i: int) -> None:
    host.ask(Op.READ, 0, i % 1000 * 4096, 4096, node=host.nodes[0])


def overwrite_fsync(host: Host, i: int) -> None:
    host.write(host.nodes[0], i % 1000)
    host.fsync(host.nodes[0])


def append_fsync(host: Host, i: int) -> None:
    host.write(host.nodes[0], i)
    host.fsync(host.nodes[0])


def one_file(host: Host, n: int) -> None:
    host.create(0)


def pages(host: Host, n: int) -> None:
    host.create(0)
    for page in range(1000):
        host.write(host.nodes[0], page)


def each(act: Callable[[Host, int], None]) -> Callable[[Host, int], None]:
    """So many of them."""

    def prepare(host: Host, n: int) -> None:
        for i in range(n):
            act(host, i)

    return prepare


def nothing(host: Host, n: int) -> None:
    pass


Step = Callable[[Host, int], None]
KINDS: dict[str, tuple[Step, Step]] = {
    "create": (nothing, Host.create),
    "create_4k": (nothing, create_4k),
    "mkdir": (nothing, mkdir),
    "symlink": (nothing, symlink),
    "link": (one_file, link),
    "rename": (each(Host.create), rename),
    "chmod": (each(Host.create), chmod),
    "unlink": (each(Host.create), unlink),
    "unlink_4k": (each(create_4k), unlink),
    "rmdir": (each(mkdir), rmdir),
    "lookup": (each(Host.create), lookup),
    "readdir": (each(Host.create), readdir),
    "read": (pages, read),
    "overwrite_fsync": (pages, overwrite_fsync),
    "append_fsync": (one_file, append_fsync),
}


def run(kind: str, n: int, profiler: cProfile.Profile | None = None) -> float:
    """µs in the server for each operation."""
    prepare, act = KINDS[kind]
    host = Host()
    prepare(host, n)
    host.fsync(host.nodes[0] if host.nodes else host.top)
    host.spent, host.profiler = 0, profiler
    for i in range(n):
        act(host, i)
    host.fsync(host.nodes[0] if kind == "create" else host.top)
    return host.spent / n / 1000


def profile(kind: str, n: int) -> int:
    """Print the profile of a kind."""
    if kind not in KINDS:
        print("kinds: " + " ".join(KINDS))
        return 2
    print(f"{kind}: {run(kind, n):.1f} µs in the server for each of {n}, without the profiler\n")
    profiler = cProfile.Profile()
    run(kind, n, profiler)
    pstats.Stats(profiler).sort_stats("tottime").print_stats(30)
    return 0
