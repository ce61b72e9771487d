"""Requests as bytes: every opcode, whole and cut short, sensible and not."""

from __future__ import annotations

import errno
import os
import stat
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libfs.kernel import abi
from libfs.kernel.abi import Op
from libfs.kernel.nodes import SUPERUSER
from libfs.posix.memory import MemoryFs
from tests.kernel.wire import FIXED, UNANSWERED, Wire


@pytest.fixture
def wire() -> Wire:
    return Wire(MemoryFs())


# -- bad input


@pytest.mark.parametrize("op", list(Op))
def test_dispatch_request_cut_short_anywhere(wire: Wire, op: Op) -> None:
    body = bytes(struct.calcsize("=" + FIXED.get(op, "")))
    whole = wire.request(op, body=body + b"name\0other\0")
    for length in range(len(whole) + 1):
        answers = wire.raw(whole[:length])
        expected = length >= abi.IN_HEADER_SIZE and op not in UNANSWERED
        assert len(answers) == expected, length


@given(
    op=st.one_of(st.sampled_from(list(Op)), st.integers(0, 1 << 32).map(lambda n: n & 0xFFFFFFFF)),
    node=st.one_of(st.sampled_from([0, 1, 2, 3]), st.integers(0, (1 << 64) - 1)),
    body=st.binary(max_size=200),
    uid=st.sampled_from([0, 1000]),
)
def test_dispatch_random_bytes_get_one_answer(op: int, node: int, body: bytes, uid: int) -> None:
    wire = Wire(MemoryFs())
    wire.make(b"a")
    wire.good(Op.MKDIR, 0o755, 0, tail=b"d\0")
    answers = wire.raw(wire.request(op, node, body, uid=uid))
    assert len(answers) == (op not in UNANSWERED)
    assert abi.ATTR.unpack(wire.good(Op.GETATTR, 0, 0))  # it still answers


@given(st.binary(max_size=300))
def test_dispatch_random_bytes_without_a_header(request_bytes: bytes) -> None:
    assert len(Wire(MemoryFs()).raw(request_bytes)) <= 1


def test_dispatch_unknown_opcode_is_logged_once(
    wire: Wire, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO", "xnfs"):
        for _ in range(3):
            header = abi.OUT_HEADER.unpack(wire.raw(wire.request(999))[0])
            assert header[1] == -errno.ENOSYS
    assert len(caplog.records) == 1


@pytest.mark.parametrize(
    "op", [Op.OPEN, Op.CREATE, Op.OPENDIR, Op.FLUSH, Op.SETLK, Op.INTERRUPT, Op.POLL, Op.BMAP]
)
def test_dispatch_left_to_the_host_kernel(wire: Wire, op: Op) -> None:
    header = abi.OUT_HEADER.unpack(wire.raw(wire.request(op, body=bytes(64)))[0])
    assert header[1] == -errno.ENOSYS


def test_dispatch_names_need_their_end(wire: Wire) -> None:
    assert wire.ask(Op.LOOKUP, tail=b"abc")[0] == errno.EINVAL
    assert wire.ask(Op.RENAME, 1, tail=b"only one\0")[0] == errno.EINVAL
    assert wire.ask(Op.SETXATTR, 9, 0, tail=b"user.a\0short")[0] == errno.EINVAL
    assert wire.ask(Op.WRITE, 0, 0, 100, 0, node=wire.make(b"f"), tail=b"short")[0] == errno.EINVAL


@pytest.mark.parametrize("name", [b"x" * 256, b"x" * 1024, b"a/b", b""])
def test_dispatch_bad_names(wire: Wire, name: bytes) -> None:
    error, payload = wire.ask(Op.LOOKUP, tail=name + b"\0")
    assert error or abi.ENTRY.unpack(payload)[0] == 0
    assert wire.ask(Op.MKDIR, 0o755, 0, tail=name + b"\0")[0]


# -- lookups


def test_lookup_of_nothing_is_remembered_by_the_kernel(wire: Wire) -> None:
    fields = abi.ENTRY.unpack(wire.good(Op.LOOKUP, tail=b"none\0"))
    assert fields[0] == 0
    assert fields[2] > 3600


def test_lookup_count_keeps_an_unlinked_inode(wire: Wire) -> None:
    node = wire.make(b"f")
    wire.good(Op.LOOKUP, tail=b"f\0")  # known twice now
    assert wire.write(node, b"bytes") == 0
    wire.good(Op.UNLINK, tail=b"f\0")
    wire.ask(Op.FORGET, 1, node=node)
    assert wire.read(node) == b"bytes"
    assert wire.ask(Op.GETATTR, 0, 0, node=node)[0] == 0
    wire.ask(Op.FORGET, 1, node=node)
    assert wire.ask(Op.GETATTR, 0, 0, node=node)[0] == errno.ESTALE
    assert wire.ask(Op.READ, 0, 0, 10, node=node)[0] == errno.ESTALE


def test_forget_of_many(wire: Wire) -> None:
    nodes = [wire.make(b"%d" % n) for n in range(10)]
    for n in range(10):
        wire.good(Op.UNLINK, tail=b"%d\0" % n)
    tail = b"".join(abi.FORGET_ONE.pack(node, 1) for node in nodes)
    # It says more than there are: what is there counts.
    wire.ask(Op.BATCH_FORGET, 1000, tail=tail + b"odd")
    for node in nodes:
        assert wire.ask(Op.GETATTR, 0, 0, node=node)[0] == errno.ESTALE


def test_forget_more_than_was_told(wire: Wire) -> None:
    node = wire.make(b"f")
    wire.ask(Op.FORGET, 99, node=node)
    wire.ask(Op.FORGET, 1, node=12345)
    assert abi.ENTRY.unpack(wire.good(Op.LOOKUP, tail=b"f\0"))[0] == node


# -- what the host kernel keeps itself


def test_setattr_times_of_the_kernel_are_kept_exactly(wire: Wire) -> None:
    """Written back by whoever closes the file, who need not be its owner."""
    node = wire.make(b"f")
    fields = [0] * 12
    fields[0] = abi.Fattr.MTIME | abi.Fattr.CTIME
    fields[4], fields[5], fields[7], fields[8] = 111, 222, 333, 444
    attr = abi.ATTR.unpack(wire.good(Op.SETATTR, *fields, node=node, uid=1000, gid=1000))
    assert (attr[5], attr[8]) == (111, 333)
    assert (attr[6], attr[9]) == (222, 444)


def test_setattr_of_a_stranger_is_refused(wire: Wire) -> None:
    node = wire.make(b"f")
    for valid in (abi.Fattr.MODE, abi.Fattr.UID, abi.Fattr.SIZE, abi.Fattr.ATIME):
        error, _ = wire.ask(Op.SETATTR, valid, *[0] * 11, node=node, uid=1000, gid=1000)
        assert error in (errno.EPERM, errno.EACCES)


def test_write_kills_set_id(wire: Wire) -> None:
    node = wire.make(b"f", stat.S_IFREG | 0o6755)
    wire.good(Op.WRITE, 0, 0, 1, abi.WRITE_KILL_SUIDGID, node=node, tail=b"x")
    assert stat.S_IMODE(abi.ATTR.unpack(wire.good(Op.GETATTR, 0, 0, node=node))[10]) == 0o755


def test_changes_of_names_are_decided_here(wire: Wire) -> None:
    """Whatever the host kernel thought of it."""
    wire.make(b"f")
    wire.good(Op.MKDIR, 0o755, 0, tail=b"d\0")
    who = {"uid": 1000, "gid": 1000}
    assert wire.ask(Op.MKDIR, 0o755, 0, tail=b"x\0", **who)[0] == errno.EACCES
    assert wire.ask(Op.MKNOD, stat.S_IFREG, 0, 0, tail=b"x\0", **who)[0] == errno.EACCES
    assert wire.ask(Op.SYMLINK, tail=b"x\0y\0", **who)[0] == errno.EACCES
    assert wire.ask(Op.UNLINK, tail=b"f\0", **who)[0] == errno.EACCES
    assert wire.ask(Op.RMDIR, tail=b"d\0", **who)[0] == errno.EACCES
    assert wire.ask(Op.RENAME2, 1, 0, tail=b"f\0g\0", **who)[0] == errno.EACCES
    assert wire.ask(Op.SETXATTR, 1, 0, tail=b"user.a\0x", **who)[0] in (errno.EACCES, errno.EPERM)


# -- directories


def _names(payload: bytes, plus: bool) -> list[tuple[bytes, int, int]]:
    """Name, cookie and node (0 without) of each entry."""
    found, at = [], 0
    while at < len(payload):
        node = 0
        if plus:
            node = abi.ENTRY.unpack_from(payload, at)[0]
            at += abi.ENTRY.size
        _ino, cookie, length, _kind = abi.DIRENT.unpack_from(payload, at)
        at += abi.DIRENT.size
        found.append((payload[at : at + length], cookie, node))
        at += (length + 7) & ~7
    return found


@pytest.mark.parametrize("op", [Op.READDIR, Op.READDIRPLUS])
def test_readdir_in_small_steps(wire: Wire, op: Op) -> None:
    made = {b"n" * n for n in range(1, 60)}
    for name in made:
        wire.make(name)
    seen: list[bytes] = []
    cookie = 0
    while True:
        payload = wire.good(op, 0, cookie, 400)
        assert len(payload) <= 400
        entries = _names(payload, op == Op.READDIRPLUS)
        if not entries:
            break
        seen += [name for name, _, _ in entries]
        cookie = entries[-1][1]
    assert sorted(seen) == sorted([*made, b".", b".."])


def test_readdirplus_counts_as_lookup(wire: Wire) -> None:
    node = wire.make(b"f")
    listed = {n: at for n, _, at in _names(wire.good(Op.READDIRPLUS, 0, 0, 4096), True)}
    assert listed[b"f"] == node
    assert listed[b"."] == listed[b".."] == 0
    wire.good(Op.UNLINK, tail=b"f\0")
    wire.ask(Op.FORGET, 1, node=node)
    assert wire.ask(Op.GETATTR, 0, 0, node=node)[0] == 0
    wire.ask(Op.FORGET, 1, node=node)
    assert wire.ask(Op.GETATTR, 0, 0, node=node)[0] == errno.ESTALE


# -- files


def test_tmpfile_can_be_linked(wire: Wire) -> None:
    flags = os.O_RDWR | os.O_TMPFILE
    payload = wire.good(Op.TMPFILE, flags, 0o600, 0, tail=b"ignored\0")
    node = abi.ENTRY.unpack_from(payload)[0]
    assert wire.write(node, b"hidden") == 0
    wire.good(Op.LINK, node, tail=b"name\0")
    wire.ask(Op.FORGET, 2, node=node)
    found = abi.ENTRY.unpack(wire.good(Op.LOOKUP, tail=b"name\0"))[0]
    assert wire.read(found) == b"hidden"


def test_statx_has_the_time_of_birth(wire: Wire) -> None:
    node = wire.make(b"f")
    fields = abi.STATX.unpack(wire.good(Op.STATX, 0, 0, 0, 0xFFF, node=node))
    born = wire.posix.getattr(SUPERUSER, wire.dispatcher.nodes.ino(node))
    assert divmod(born.crtime, 10**9) == fields[14:16]
    assert stat.S_ISREG(fields[7])


def test_lseek_and_copy(wire: Wire) -> None:
    a, b = wire.make(b"a"), wire.make(b"b")
    assert wire.write(a, b"data", 1 << 20) == 0
    assert abi.LSEEK.unpack(wire.good(Op.LSEEK, 0, 0, os.SEEK_DATA, node=a)) == (1 << 20,)
    copied = wire.good(Op.COPY_FILE_RANGE, 0, 1 << 20, b, 0, 0, 100, 0, node=a)
    assert abi.WRITE.unpack(copied) == (4,)
    copied = wire.good(Op.COPY_FILE_RANGE_64, 0, 1 << 20, b, 0, 4, 100, 0, node=a)
    assert abi.LSEEK.unpack(copied) == (4,)
    assert wire.read(b) == b"datadata"


def test_xattrs_and_their_buffers(wire: Wire) -> None:
    wire.good(Op.SETXATTR, 5, 0, tail=b"user.a\0value")
    assert abi.WRITE.unpack(wire.good(Op.GETXATTR, 0, tail=b"user.a\0")) == (5,)
    assert wire.good(Op.GETXATTR, 5, tail=b"user.a\0") == b"value"
    assert wire.ask(Op.GETXATTR, 4, tail=b"user.a\0")[0] == errno.ERANGE
    assert wire.good(Op.LISTXATTR, 100) == b"user.a\0"
    wire.good(Op.REMOVEXATTR, tail=b"user.a\0")
    assert wire.ask(Op.GETXATTR, 5, tail=b"user.a\0")[0] == errno.ENODATA
