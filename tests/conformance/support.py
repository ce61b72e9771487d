"""What the conformance tests share: users, short ways to make things, and errno expectations."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from libfs.posix import Attr, FsError, Ino, Posix, User

ROOT = User(0, 0)
ALICE = User(1000, 1000, (1000,))
BOB = User(1001, 1001, (1001,))
CAROL = User(1002, 1000, ())  # in Alice's group, as her primary one
DAVE = User(1003, 1003, (44, 1000))  # in Alice's group, as a further one

CREATE = os.O_CREAT | os.O_RDWR

BAD_NAMES = [
    pytest.param(b"", errno.ENOENT, id="empty"),
    pytest.param(b"x" * 256, errno.ENAMETOOLONG, id="256-bytes"),
    pytest.param(b"a/b", errno.EINVAL, id="slash"),
    pytest.param(b"a\0b", errno.EINVAL, id="nul"),
]


@contextmanager
def refuses(code: int) -> Iterator[None]:
    """The block raises `FsError` with this errno."""
    with pytest.raises(FsError) as caught:
        yield
    got = caught.value.errno
    assert got == code, f"{errno.errorcode.get(got or 0, got)}, not {errno.errorcode[code]}"


def errno_of(call: Callable[[], object]) -> int:
    """The errno that `call` is refused with; 0 if it is not."""
    try:
        call()
    except FsError as error:
        return error.errno or -1
    return 0


def make_file(
    posix: Posix,
    parent: Ino,
    name: bytes,
    content: bytes = b"",
    *,
    user: User = ROOT,
    mode: int = 0o644,
) -> Ino:
    """A closed file with exactly this mode."""
    attr, fh = posix.create(user, parent, name, mode & 0o777, CREATE)
    if content:
        assert posix.write(fh, 0, content) == len(content)
    posix.release(fh)
    if mode & ~0o777:
        posix.setattr(ROOT, attr.ino, mode=mode)
    return attr.ino


def make_dir(
    posix: Posix, parent: Ino, name: bytes, *, user: User = ROOT, mode: int = 0o755
) -> Ino:
    """A directory with exactly this mode."""
    ino = posix.mkdir(user, parent, name, mode & 0o777).ino
    if posix.getattr(ROOT, ino).mode & 0o7777 != mode:
        posix.setattr(ROOT, ino, mode=mode)
    return ino


def content(posix: Posix, ino: Ino) -> bytes:
    """All bytes of a file."""
    fh = posix.open(ROOT, ino, os.O_RDONLY | os.O_NOATIME)
    try:
        return posix.read(fh, 0, posix.getattr(ROOT, ino).size)
    finally:
        posix.release(fh)


def names_in(posix: Posix, ino: Ino) -> list[bytes]:
    """The names in a directory, without `.` and `..`, in the order of `readdir`."""
    fh = posix.opendir(ROOT, ino, os.O_NOATIME)
    found: list[bytes] = []
    cookie = 0
    while some := posix.readdir(fh, cookie, 100):
        found += [entry.name for entry in some]
        cookie = some[-1].next
    posix.releasedir(fh)
    return [name for name in found if name not in (b".", b"..")]


def exists(posix: Posix, parent: Ino, name: bytes) -> bool:
    """Whether uid 0 finds `name`."""
    code = errno_of(lambda: posix.lookup(ROOT, parent, name))
    assert code in (0, errno.ENOENT)
    return code == 0


def perm(attr: Attr) -> int:
    """The mode without its type."""
    return stat.S_IMODE(attr.mode)
