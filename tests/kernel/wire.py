"""The other end of the wire: a host kernel reduced to what a test wants to say."""

from __future__ import annotations

import struct
from typing import Final

from libfs.kernel import abi
from libfs.kernel.dispatch import Dispatcher
from libfs.kernel.negotiate import Negotiation
from libfs.posix import FileSystem, Posix

_HEADER: Final = struct.Struct("=IIQQIIIHH")
#: The fixed record of each opcode that has one, as the kernel would send it: all zeros will do.
FIXED: Final = {
    abi.Op.FORGET: abi.IN_FORGET,
    abi.Op.GETATTR: abi.IN_GETATTR,
    abi.Op.SETATTR: abi.IN_SETATTR,
    abi.Op.MKNOD: abi.IN_MKNOD,
    abi.Op.MKDIR: abi.IN_MKDIR,
    abi.Op.RENAME: abi.IN_RENAME,
    abi.Op.LINK: abi.IN_LINK,
    abi.Op.OPEN: abi.IN_OPEN,
    abi.Op.READ: abi.IN_READ,
    abi.Op.WRITE: abi.IN_WRITE,
    abi.Op.RELEASE: abi.IN_RELEASE,
    abi.Op.FSYNC: abi.IN_FSYNC,
    abi.Op.SETXATTR: abi.IN_SETXATTR,
    abi.Op.GETXATTR: abi.IN_GETXATTR,
    abi.Op.LISTXATTR: abi.IN_GETXATTR,
    abi.Op.INIT: abi.IN_INIT,
    abi.Op.READDIR: abi.IN_READ,
    abi.Op.READDIRPLUS: abi.IN_READ,
    abi.Op.FSYNCDIR: abi.IN_FSYNC,
    abi.Op.ACCESS: abi.IN_ACCESS,
    abi.Op.BATCH_FORGET: abi.IN_BATCH_FORGET,
    abi.Op.FALLOCATE: abi.IN_FALLOCATE,
    abi.Op.RENAME2: abi.IN_RENAME2,
    abi.Op.LSEEK: abi.IN_LSEEK,
    abi.Op.COPY_FILE_RANGE: abi.IN_COPY,
    abi.Op.COPY_FILE_RANGE_64: abi.IN_COPY,
    abi.Op.TMPFILE: abi.IN_CREATE,
    abi.Op.STATX: abi.IN_STATX,
}
UNANSWERED: Final = (abi.Op.FORGET, abi.Op.BATCH_FORGET)


class Wire:
    """A dispatcher over a file system, asked by hand."""

    def __init__(self, fs: FileSystem, *, opens: bool = False) -> None:
        self.posix = Posix(fs)
        self.negotiation = Negotiation(1 << 20, opens=opens)
        self.answers: list[bytes] = []
        self.notices: list[bytes] = []
        self.dispatcher = Dispatcher(
            self.posix,
            lambda parts: self.answers.append(b"".join(parts)),
            self.negotiation,
        )
        self._unique = 0

    def raw(self, request: bytes) -> list[bytes]:
        """Any bytes at all; the answers to them."""
        self.dispatcher.buffer[: len(request)] = request
        self.dispatcher.handle(len(request))
        self.dispatcher.settle()
        self.dispatcher.syncer.end()
        self.dispatcher.syncer.run()
        self.dispatcher.notices.end()
        self.dispatcher.notices.run()
        answers, self.answers = self.answers, []
        numbers = [abi.OUT_HEADER.unpack_from(answer)[2] for answer in answers]
        self.notices += [answer for answer, n in zip(answers, numbers, strict=True) if n == 0]
        return [answer for answer, n in zip(answers, numbers, strict=True) if n]

    def request(
        self, op: int, node: int = 1, body: bytes = b"", *, uid: int = 0, gid: int = 0
    ) -> bytes:
        """A well-formed request."""
        self._unique += 1
        length = _HEADER.size + len(body)
        return _HEADER.pack(length, op, self._unique, node, uid, gid, 0, 0, 0) + body

    def ask(
        self, op: abi.Op, *fields: int, node: int = 1, tail: bytes = b"", uid: int = 0, gid: int = 0
    ) -> tuple[int, bytes]:
        """errno and what follows the header of the answer. Fields: those of the fixed record."""
        body = struct.pack("=" + FIXED.get(op, ""), *fields) + tail
        answers = self.raw(self.request(op, node, body, uid=uid, gid=gid))
        assert len(answers) == (op not in UNANSWERED)
        if not answers:
            return 0, b""
        length, error, unique = abi.OUT_HEADER.unpack_from(answers[0])
        assert (length, unique) == (len(answers[0]), self._unique)
        return -error, answers[0][abi.OUT_HEADER.size :]

    def good(
        self, op: abi.Op, *fields: int, node: int = 1, tail: bytes = b"", uid: int = 0, gid: int = 0
    ) -> bytes:
        """As `ask`, where no error is expected."""
        error, payload = self.ask(op, *fields, node=node, tail=tail, uid=uid, gid=gid)
        assert error == 0
        return payload

    def make(self, name: bytes, mode: int = 0o100644, parent: int = 1) -> int:
        """A file, known to the kernel once; its node."""
        node: int = abi.ENTRY.unpack(
            self.good(abi.Op.MKNOD, mode, 0, 0, node=parent, tail=name + b"\0")
        )[0]
        return node

    def write(self, node: int, data: bytes, offset: int = 0) -> int:
        """Bytes, as from the page cache; the errno."""
        return self.ask(abi.Op.WRITE, 0, offset, len(data), 1, node=node, tail=data)[0]

    def read(self, node: int, offset: int = 0, size: int = 1 << 20) -> bytes:
        """Bytes."""
        return self.good(abi.Op.READ, 0, offset, size, node=node)
