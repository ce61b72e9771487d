"""Requests in, answers out: find the opcode's handler, and turn whatever happens into an answer.

Does: check that a request is as long as its opcode demands, unpack it with one call, resolve who
asks, call the handler, send. The table at the end is the list of what is served.
Does not: read from the device or know about mounting (`session.py`).
Guarantees: whatever bytes a request consists of, `handle` returns, and each request that expects an
answer gets exactly one.

Left out on purpose, with "not implemented" (the host kernel then does it itself and asks no more):
OPEN, CREATE, OPENDIR, FLUSH (see `files`); GETLK, SETLK, SETLKW (the host kernel keeps locks);
INTERRUPT (no request waits for anything); BMAP, POLL, and the requests of DAX.
"""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final, NamedTuple

from libfs.kernel import abi
from libfs.kernel.abi import Op
from libfs.kernel.attributes import Attributes
from libfs.kernel.controls import Controls
from libfs.kernel.directories import Directories
from libfs.kernel.durable import Syncer, Waiting
from libfs.kernel.files import Files
from libfs.kernel.names import Names
from libfs.kernel.negotiate import Negotiation
from libfs.kernel.nodes import SUPERUSER, Nodes
from libfs.kernel.notices import Notices
from libfs.kernel.replies import Durable, Later, Lent, Reply, WrittenBack
from libfs.posix import FsError, Posix
from libfs.serve import Users, errno_of

log = logging.getLogger("xnfs")

#: Largest READ or WRITE, and a buffer that holds any request.
MAX_IO: Final = 1 << 20
BUFFER: Final = MAX_IO + 4096

_leader = abi.LEADER.unpack_from
_header = abi.OUT_HEADER.pack
_HEADER_SIZE: Final = abi.OUT_HEADER.size
#: Gone (interrupted, or the whole connection): nobody waits for this answer.
_NOBODY_WAITS: Final = (errno.ENOENT, errno.ENODEV, errno.ECONNABORTED)

Parts = Sequence[bytes | memoryview]
Send = Callable[[Parts], object]


class _Entry(NamedTuple):
    """One opcode. `tail`: what follows the fixed record, 0 nothing, 1 names, 2 bytes."""

    unpack: Callable[[memoryview], tuple[Any, ...]]
    size: int
    tail: int
    call: Callable[..., Reply]


class Dispatcher:
    """See the module. `buffer` takes a request; `handle` answers it through `send`.

    Requests that wait for durability are handed to `syncer` by the next `settle`: it is to be
    called when no request is at hand. `syncer`, `notices` and `controls` each need a thread.
    """

    def __init__(self, posix: Posix, send: Send, negotiation: Negotiation) -> None:
        self.buffer = memoryview(bytearray(BUFFER))
        self.nodes = Nodes(posix)
        self.notices = Notices(send, self.nodes)
        self.syncer = Syncer(posix, self._answer_error)
        self.controls = Controls(posix, self.nodes, self.notices)
        self.undurable: list[Waiting] = []
        self._send = send
        self._negotiation = negotiation
        self._users = Users()
        self._unknown: set[int] = set()
        self.attributes = Attributes(posix, self.nodes)
        self._names = Names(posix, self.nodes)
        self._directories = Directories(posix, self.nodes)
        self._files = Files(posix, self.nodes, self.attributes, self.notices)
        self._table = self._make_table()

    def handle(self, length: int) -> None:
        """Answer the request in the first `length` bytes of the buffer."""
        buffer = self.buffer
        if length < abi.IN_HEADER_SIZE:
            return  # it has no number to answer to
        opcode = _leader(buffer)[1]
        entry = self._table.get(opcode)
        if entry is None:
            self._refuse(opcode)
            return
        unpack, size, tail, call = entry
        if length < size or (tail == 1 and (length == size or buffer[length - 1] != 0)):
            if call not in self._silent:
                self._answer_error(_number(buffer), errno.EINVAL)
            return
        unique, node, uid, gid, pid, *fields = unpack(buffer)
        user = SUPERUSER if uid == 0 == gid else self._users.get(uid, gid, pid)
        try:
            if tail == 0:
                reply = call(node, user, *fields)
            else:
                rest = buffer[size:length]
                reply = call(node, user, *fields, bytes(rest) if tail == 1 else rest)
        except FsError as error:
            self._answer_error(unique, error.errno or errno.EIO)
        except Exception as error:
            self._answer_error(unique, errno_of(error))
        else:
            if isinstance(reply, bytes):
                header = _header(_HEADER_SIZE + len(reply), 0, unique)
                self._deliver([header, reply] if reply else [header])
            elif isinstance(reply, int):
                self._answer_error(unique, reply)
            elif reply is not None:
                self._put_off(unique, reply)

    def handle_in_turn(self, length: int) -> None:
        """As `handle`, for a file system with several fronts: a notice that is sent after this has
        begun comes after its answer (`Notices`)."""
        with self.notices.turn:
            self.handle(length)

    def _put_off(self, unique: int, reply: Durable | WrittenBack | Lent | Later) -> None:
        if isinstance(reply, Lent):
            self._lend(unique, reply)
        elif isinstance(reply, Durable):
            self.undurable.append((unique, reply))
        elif isinstance(reply, Later):
            reply.start(partial(self._finish, unique))
        else:
            ino, start, length, work = reply
            finish = partial(self._finish, unique, work)
            self.notices.when_written_back(ino, start, length, finish)

    def _lend(self, unique: int, reply: Lent) -> None:
        """Send bytes from where they lie, before anything can happen to them."""

        def send(parts: Parts) -> None:
            length = _HEADER_SIZE + sum(map(len, parts))
            self._deliver([_header(length, 0, unique), *parts])

        try:
            reply.lend(send)
        except Exception as error:
            self._answer_error(unique, errno_of(error))

    def _finish(self, unique: int, work: Callable[[], bytes]) -> None:
        """Answer a request that was put off. May be called by any thread."""
        try:
            reply = work()
        except Exception as error:
            self._answer_error(unique, errno_of(error))
        else:
            self._deliver([_header(_HEADER_SIZE + len(reply), 0, unique), reply])

    def settle(self) -> None:
        """Those that wait for durability may begin to: they share one commit."""
        waiting, self.undurable = self.undurable, []
        if waiting:
            self.syncer.put(waiting)

    def _deliver(self, parts: Parts) -> None:
        try:
            self._send(parts)
        except OSError as error:
            if error.errno not in _NOBODY_WAITS:
                log.error("an answer could not be sent: %s", error)

    def _answer_error(self, unique: int, number: int) -> None:
        self._deliver([_header(_HEADER_SIZE, -number, unique)])

    def _refuse(self, opcode: int) -> None:
        """Not implemented. Worth one line in the log, if the opcode is one that nobody knows."""
        self._answer_error(_number(self.buffer), errno.ENOSYS)
        if opcode not in _LEFT_OUT and opcode not in self._unknown and len(self._unknown) < 64:
            self._unknown.add(opcode)
            log.info("the kernel asked for operation %d, which is not known here", opcode)

    # -- what needs the dispatcher itself

    def _init(
        self,
        node: int,
        user: object,
        major: int,
        minor: int,
        ahead: int,
        flags: int,
        tail: memoryview,
    ) -> bytes:
        """The kernel introduces itself."""
        answer = self._negotiation.answer(major, minor, ahead, flags, tail)
        agreed = self._negotiation.flags
        self.nodes.kernel_keeps_times = bool(agreed & abi.Init.WRITEBACK_CACHE)
        return answer

    def _destroy(self, node: int, user: object) -> bytes:
        """The mount is gone; reading the next request will say so."""
        return b""

    def _forget(self, node: int, user: object, count: int) -> None:
        self.nodes.forget(node, count)

    def _batch_forget(self, node: int, user: object, count: int, tail: memoryview) -> None:
        step = abi.FORGET_ONE.size
        whole = min(count, len(tail) // step) * step
        for node, lookups in abi.FORGET_ONE.iter_unpack(tail[:whole]):
            self.nodes.forget(node, lookups)

    def _make_table(self) -> dict[int, _Entry]:
        names, files = self._names, self._files
        attributes, directories = self.attributes, self._directories
        listed: list[tuple[Op, str, int, Callable[..., Reply]]] = [
            (Op.LOOKUP, "", 1, names.lookup),
            (Op.FORGET, abi.IN_FORGET, 0, self._forget),
            (Op.GETATTR, abi.IN_GETATTR, 0, attributes.getattr),
            (Op.SETATTR, abi.IN_SETATTR, 0, attributes.setattr),
            (Op.READLINK, "", 0, attributes.readlink),
            (Op.SYMLINK, "", 1, names.symlink),
            (Op.MKNOD, abi.IN_MKNOD, 1, names.mknod),
            (Op.MKDIR, abi.IN_MKDIR, 1, names.mkdir),
            (Op.UNLINK, "", 1, names.unlink),
            (Op.RMDIR, "", 1, names.rmdir),
            (Op.RENAME, abi.IN_RENAME, 1, names.rename),
            (Op.LINK, abi.IN_LINK, 1, names.link),
            (Op.READ, abi.IN_READ, 0, files.read),
            (Op.WRITE, abi.IN_WRITE, 2, files.write),
            (Op.STATFS, "", 0, files.statfs),
            (Op.RELEASE, abi.IN_RELEASE, 0, files.release),
            (Op.FSYNC, abi.IN_FSYNC, 0, files.fsync),
            (Op.SETXATTR, abi.IN_SETXATTR, 2, attributes.setxattr),
            (Op.GETXATTR, abi.IN_GETXATTR, 1, attributes.getxattr),
            (Op.LISTXATTR, abi.IN_GETXATTR, 0, attributes.listxattr),
            (Op.REMOVEXATTR, "", 1, attributes.removexattr),
            (Op.INIT, abi.IN_INIT, 2, self._init),
            (Op.READDIR, abi.IN_READ, 0, directories.readdir),
            (Op.FSYNCDIR, abi.IN_FSYNC, 0, directories.fsyncdir),
            (Op.ACCESS, abi.IN_ACCESS, 0, attributes.access),
            (Op.DESTROY, "", 0, self._destroy),
            (Op.IOCTL, abi.IN_IOCTL, 2, self.controls.ioctl),
            (Op.BATCH_FORGET, abi.IN_BATCH_FORGET, 2, self._batch_forget),
            (Op.FALLOCATE, abi.IN_FALLOCATE, 0, files.fallocate),
            (Op.READDIRPLUS, abi.IN_READ, 0, directories.readdirplus),
            (Op.RENAME2, abi.IN_RENAME2, 1, names.rename2),
            (Op.LSEEK, abi.IN_LSEEK, 0, files.lseek),
            (Op.COPY_FILE_RANGE, abi.IN_COPY, 0, files.copy),
            (Op.COPY_FILE_RANGE_64, abi.IN_COPY, 0, files.copy64),
            (Op.SYNCFS, "", 0, files.syncfs),
            (Op.TMPFILE, abi.IN_CREATE, 1, files.tmpfile),
            (Op.STATX, abi.IN_STATX, 0, attributes.statx),
        ]
        if self._negotiation.opens:
            listed += [
                (Op.OPEN, abi.IN_OPEN, 0, files.open),
                (Op.OPENDIR, abi.IN_OPEN, 0, files.open),
                (Op.RELEASEDIR, abi.IN_RELEASE, 0, files.release),
            ]
        if self._negotiation.shared:
            listed.append((Op.CREATE, abi.IN_CREATE, 1, files.create))
        self._silent = (self._forget, self._batch_forget)
        table = {}
        for opcode, fixed, tail, call in listed:
            record = abi.request(fixed)
            table[int(opcode)] = _Entry(record.unpack_from, record.size, tail, call)
        return table


_LEFT_OUT: Final = frozenset(Op)


def _number(buffer: memoryview) -> int:
    """The number of a request whose record may be cut short."""
    unique: int = abi.request().unpack_from(buffer)[0]
    return unique
