"""Ways to carry FUSE requests between the host kernel and Python, with next to nothing behind them.

    python benchmarks/transports.py [--rounds N]         (as root)

A file system of one file in memory is served in each of these ways, all mounted at once and taken
in turns:

    read/write      read one request, write one answer: what `libfs.kernel` does
    2, 4 threads    the same, each thread on a clone of the descriptor (FUSE_DEV_IOC_CLONE)
    splice          requests come through a pipe; the bytes of a READ go into one by vmsplice(2),
                    both in pieces of 512 KiB, since a pipe takes no more than 1 MiB
    io_uring        `uring.py`; needs Linux 6.14, and turns `enable_uring` on while it mounts

What is measured: fstat(2), each a GETATTR, by one process and by four; reads and writes of 1 MiB
that go around the page cache. Per operation: the rate, and µs of the server's CPU.
Does not: measure a file system; `cost.py` does.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import errno
import fcntl
import mmap
import os
import platform
import signal
import statistics
import struct
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

import uring

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from libfs.kernel import abi, mounting
from libfs.kernel.abi import Init, Op

MIB = 1 << 20
BUFFER = MIB + 4096
FILE = 2
_CLONE = 0x8004E500
_FOPEN_DIRECT_IO = 1
_HEADER = struct.Struct("=IIQQ")  # length, opcode, unique, node
_READ = struct.Struct("=" + abi.IN_READ)
_OUT = abi.OUT_HEADER


class Null:
    """The root, and in it one file of 1 MiB that takes what is written."""

    def __init__(self) -> None:
        self.memory = mmap.mmap(-1, MIB)
        self.bytes = memoryview(self.memory)

    def attributes(self, node: int) -> tuple[int, ...]:
        mode = 0o100644 if node == FILE else 0o40755
        return (node, MIB if node == FILE else 0, 8, *[0] * 6, mode, 1, 0, 0, 0, 4096, 0)

    def answer(
        self, op: int, node: int, fixed: memoryview, data: memoryview
    ) -> bytes | memoryview | int:
        """Bytes to answer with, or an errno. `data`: what follows the opcode's fixed record."""
        if op == Op.GETATTR:
            return abi.ATTR.pack(0, *self.attributes(node))  # for how long it is valid: never
        if op == Op.READ:
            _fh, _offset, size = _READ.unpack_from(fixed)
            return self.bytes[:size]
        if op == Op.WRITE:
            self.bytes[: len(data)] = data
            return abi.WRITE.pack(len(data))
        if op == Op.LOOKUP and bytes(data[:5]) == b"file\0":
            return abi.ENTRY.pack(FILE, 0, 1000, 0, *self.attributes(FILE))
        if op == Op.OPEN:
            return abi.OPEN.pack(0, _FOPEN_DIRECT_IO)
        if op in (Op.RELEASE, Op.FLUSH, Op.DESTROY):
            return b""
        return errno.ENOENT if op == Op.LOOKUP else errno.ENOSYS


class Session:
    """A mount of a `Null`, from the server's side."""

    def __init__(self, directory: str, *, ring: bool, most: int) -> None:
        """`most`: bytes of one READ or WRITE."""
        self.null = Null()
        wanted = mounting.Wanted.parse([])
        with uring.enabled() if ring else contextlib.nullcontext():
            self.fd = mounting.mount(directory, "null", wanted)
            os.set_blocking(self.fd, True)
            self._introduce(ring, most)

    def _introduce(self, ring: bool, most: int) -> None:
        request = os.read(self.fd, BUFFER)
        _length, _op, unique, _node = _HEADER.unpack_from(request)
        low, _ahead, offered = struct.unpack_from("=III", request, abi.IN_HEADER_SIZE + 4)
        high = abi.IN_INIT_EXT.unpack_from(request, abi.IN_HEADER_SIZE + 16)[0]
        flags = int(Init.BIG_WRITES | Init.MAX_PAGES | Init.INIT_EXT | Init.ASYNC_DIO)
        if ring:
            flags |= uring.OVER_IO_URING
            if not high << 32 & uring.OVER_IO_URING:
                raise SystemExit("this kernel does not offer FUSE over io_uring")
        flags &= offered | high << 32
        answer = abi.INIT.pack(
            *(abi.MAJOR, min(low, abi.MINOR), 0, flags & 0xFFFFFFFF),
            *(16, 12, most, 1, most // 4096, flags >> 32),
        )
        os.writev(self.fd, [_OUT.pack(_OUT.size + len(answer), 0, unique), answer])

    def parts(self, request: memoryview) -> list[bytes | memoryview]:
        """The answer to a request as it is read; [] if none is expected."""
        _length, op, unique, node = _HEADER.unpack_from(request)
        if op in (Op.FORGET, Op.BATCH_FORGET, Op.INTERRUPT):
            return []
        at = {Op.WRITE: 40, Op.READ: 40, Op.GETATTR: 16}.get(op, 0) + abi.IN_HEADER_SIZE
        reply = self.null.answer(op, node, request[abi.IN_HEADER_SIZE :], request[at:])
        if isinstance(reply, int):
            return [_OUT.pack(_OUT.size, -reply, unique)]
        return [_OUT.pack(_OUT.size + len(reply), 0, unique), reply]


def plain(session: Session, fd: int) -> None:
    """One request after the other."""
    buffer = memoryview(bytearray(BUFFER))
    while True:
        length = os.readv(fd, [buffer])
        if parts := session.parts(buffer[:length]):
            os.writev(fd, parts)


def threads(number: int) -> Callable[[Session], None]:
    """So many of them, each with a clone of the descriptor."""

    def serve(session: Session) -> None:
        running = []
        for _ in range(number - 1):
            clone = os.open(mounting.DEVICE, os.O_RDWR)
            fcntl.ioctl(clone, _CLONE, struct.pack("=I", session.fd))
            running.append(threading.Thread(target=until_gone, args=(plain, session, clone)))
            running[-1].start()
        try:
            plain(session, session.fd)
        finally:
            for one in running:
                one.join()

    return serve


def spliced(session: Session) -> None:
    """Both ways through pipes. Whatever comes has to come through one, since nobody knows what it
    will be; the bytes of a WRITE go from it to where they are kept, those of a READ into one
    without a copy."""
    fd, libc = session.fd, ctypes.CDLL(None, use_errno=True)
    (take, put), (answer, fill) = os.pipe(), os.pipe()
    for end in (take, answer):
        fcntl.fcntl(end, fcntl.F_SETPIPE_SZ, MIB)
    source = uring.address(session.null.memory)
    head = memoryview(bytearray(8192))
    fixed = abi.IN_HEADER_SIZE + _READ.size
    while True:
        length = os.splice(fd, put, BUFFER)
        os.readv(take, [head[: min(length, fixed)]])
        _length, op, unique, _node = _HEADER.unpack_from(head)
        if op == Op.WRITE:
            left = session.null.bytes[: length - fixed]
            while len(left):
                left = left[os.readv(take, [left]) :]
            reply = abi.WRITE.pack(length - fixed)
            os.writev(fd, [_OUT.pack(_OUT.size + len(reply), 0, unique), reply])
            continue
        if length > fixed:
            os.readv(take, [head[fixed:length]])
        parts = session.parts(head[:length])
        if op != Op.READ:
            if parts:
                os.writev(fd, parts)
            continue
        size = len(parts[1])
        os.write(fill, parts[0])
        done = 0
        while done < size:
            iovec = struct.pack("=QQ", source + done, size - done)
            done += libc.vmsplice(fill, iovec, 1, 0)
        os.splice(answer, fd, _OUT.size + size)


def over_io_uring(session: Session) -> None:
    """See `uring`. FORGET and INTERRUPT go on coming the other way; neither matters here."""
    null = session.null

    def answer(header: memoryview, payload: memoryview, size: int) -> int:
        _length, op, unique, node = _HEADER.unpack_from(header)
        reply = null.answer(op, node, header[uring.FIXED_AT :], payload[:size])
        if isinstance(reply, int):
            _OUT.pack_into(header, 0, _OUT.size, -reply, unique)
            return 0
        length = len(reply)
        _OUT.pack_into(header, 0, _OUT.size + length, 0, unique)
        payload[:length] = reply
        return length

    uring.Ring(session.fd, BUFFER, depth=4).serve(answer)


def until_gone(serve: Callable[..., None], *arguments: object) -> None:
    """Until the mount is gone."""
    try:
        serve(*arguments)
    except OSError as error:
        if error.errno not in (errno.ENODEV, errno.ECONNABORTED):
            raise


WAYS: dict[str, Callable[[Session], None]] = {
    "read/write": threads(1),
    "2 threads": threads(2),
    "4 threads": threads(4),
    "splice": spliced,
    "io_uring": over_io_uring,
}


# -- the other side


def stat_many(path: Path, number: int) -> None:
    fd = os.open(path, os.O_RDONLY)
    for _ in range(number):
        os.fstat(fd)
    os.close(fd)


def stat_from_four(path: Path, number: int) -> None:
    children = []
    for _ in range(4):
        children.append(os.fork())
        if not children[-1]:
            stat_many(path, number // 4)
            os._exit(0)
    for child in children:
        os.waitpid(child, 0)


def transfer(call: Callable[[int, Sequence[mmap.mmap], int], int]) -> Callable[[Path, int], None]:
    def work(path: Path, number: int) -> None:
        buffer = mmap.mmap(-1, MIB)  # begins with a page, so that it is one request
        fd = os.open(path, os.O_RDWR)
        for _ in range(number):
            if call(fd, [buffer], 0) != MIB:
                raise SystemExit("a transfer was cut short")
        os.close(fd)

    return work


WORK: dict[str, tuple[int, Callable[[Path, int], None]]] = {
    "GETATTR, 1 process": (4000, stat_many),
    "GETATTR, 4 processes": (4000, stat_from_four),
    "READ 1 MiB": (300, transfer(os.preadv)),
    "WRITE 1 MiB": (300, transfer(os.pwritev)),
}


def start(way: str, directory: Path) -> int:
    """A server in a process of its own; its number."""
    directory.mkdir()
    child = os.fork()
    if not child:
        status = 1
        try:
            # A pipe takes 1 MiB, a request of that is some bytes longer.
            most = MIB // 2 if way == "splice" else MIB
            session = Session(str(directory), ring=way == "io_uring", most=most)
            until_gone(WAYS[way], session)
            status = 0
        except Exception:
            traceback.print_exc()
        finally:
            mounting.unmount(str(directory), lazy=True)
            os._exit(status)
    while not os.path.ismount(directory):
        if os.waitpid(child, os.WNOHANG)[0]:
            raise SystemExit(f"{way}: the server ended")
        time.sleep(0.01)
    return child


def cpu(pid: int) -> int:
    """ns that a process has computed."""
    return time.clock_gettime_ns((~pid << 3) | 2)


def main() -> int:
    """Print the table."""
    ap = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    ap.add_argument("--rounds", type=int, default=5)
    ap.add_argument("--ways", default=",".join(WAYS), help="some of: " + ", ".join(WAYS))
    args = ap.parse_args()
    if os.geteuid():
        print("needs root", file=sys.stderr)
        return 1
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    ways = [way for way in args.ways.split(",") if way != "io_uring" or uring.PARAMETER.exists()]
    found: dict[tuple[str, str], list[tuple[float, float]]] = {}
    with tempfile.TemporaryDirectory(prefix="xnfs-bench-") as folder:
        servers: list[tuple[str, Path, int]] = []
        try:
            for i, way in enumerate(ways):
                directory = Path(folder) / str(i)
                servers.append((way, directory, start(way, directory)))
            for turn in range(args.rounds):
                first = turn % len(servers)
                for way, directory, server in servers[first:] + servers[:first]:
                    for name, (number, work) in WORK.items():
                        spent, begun = cpu(server), time.perf_counter()
                        work(directory / "file", number)
                        taken = time.perf_counter() - begun
                        found.setdefault((name, way), []).append(
                            (number / taken, (cpu(server) - spent) / number / 1000)
                        )
        finally:
            for _way, directory, server in servers:
                mounting.unmount(str(directory), lazy=True)
                os.waitpid(server, 0)
                directory.rmdir()
    print(f"Linux {platform.release()}, Python {platform.python_version()}, {os.cpu_count()} CPUs;")
    print(f"medians of {args.rounds} rounds: a second, and µs of the server's CPU for each\n")
    print("| operation | " + " | ".join(ways) + " |")
    print("|---|" + "---:|" * len(ways))
    for name in WORK:
        cells = []
        for way in ways:
            rates, costs = zip(*found[name, way], strict=True)
            cells.append(f"{statistics.median(rates):.0f}, {statistics.median(costs):.1f}")
        print(f"| {name} | " + " | ".join(cells) + " |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
