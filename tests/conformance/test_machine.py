"""Random sequences of operations: a file system and the model give the same answers and errnos,
and end with the same tree.

Inode numbers differ between the two, so both are kept in pairs. Times, blocks and the sizes of
directories are a file system's own and are not compared.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from hypothesis.stateful import run_state_machine_as_test as run_machine

from libfs.posix import Attr, Fh, FsError, Ino, Posix, User
from libfs.posix.interface import ACL_ACCESS, ACL_DEFAULT
from libfs.posix.memory import MemoryFs
from tests.conformance.conftest import FACTORIES, Factory
from tests.conformance.support import ALICE, BOB, DAVE, ROOT
from tests.conformance.test_acl import build, wire

NAMES = st.sampled_from([b"a", b"b", b"c", b"d" * 255, b"\xff\xfe", b"e", b".", b".."])
USERS = st.sampled_from([ROOT, ROOT, ALICE, BOB, DAVE])
MODES = st.sampled_from([0o777, 0o755, 0o700, 0o666, 0o640, 0, 0o1777, 0o2775, 0o4755, 0o6777])
PICKS = st.integers(0, 1 << 16)
OPENS = st.sampled_from(
    [os.O_RDONLY, os.O_WRONLY, os.O_RDWR, os.O_RDWR | os.O_TRUNC, os.O_RDWR | os.O_APPEND]
)
OFFSETS = st.sampled_from([0, 1, 100, 4095, 4096, 10_000, 70_000, 1 << 33])
DATA = st.tuples(st.integers(1, 255), st.sampled_from([0, 1, 90, 4096, 9000])).map(
    lambda pair: bytes([pair[0]]) * pair[1]
)
ACLS = st.sampled_from(
    [
        wire(build(7, 5, 5)),
        wire(build(7, 5, 0, mask=7, users=((1001, 7),))),
        wire(build(6, 6, 6, mask=4, groups=((1000, 7), (44, 1)))),
        wire(build(7, 7, 7, mask=0, users=((1000, 7), (1001, 0)))),
        b"",
        b"\x02\0\0\0\x01",
    ]
)
ATTRIBUTES = st.sampled_from([b"user.a", b"user.b", b"trusted.t", b"security.s", b"other"])


T = TypeVar("T")


@dataclass(frozen=True)
class Pair:
    """The same thing in both: a directory or another inode, or a handle."""

    model: int
    real: int


def shown(attr: Attr) -> tuple[int, ...]:
    """What must agree."""
    size = 0 if stat.S_ISDIR(attr.mode) else attr.size
    return (attr.mode, attr.nlink, attr.uid, attr.gid, attr.rdev, size)


class Machine(RuleBasedStateMachine):
    """Both layers get each call; `both` compares."""

    def __init__(self, factory: Factory) -> None:
        super().__init__()
        self.model, self.real = Posix(MemoryFs()), Posix(factory())
        self.inodes = [Pair(self.model.root, self.real.root)]
        self.handles: list[Pair] = []
        self.both(lambda p, _: p.setattr(ROOT, p.root, mode=0o777))

    def both(self, call: Callable[[Posix, int], T]) -> tuple[T, T] | None:
        """Make a call on both; the results if they succeed. `call` is told which side it is."""
        results: list[T] = []
        errnos: list[int | None] = []
        for side, layer in enumerate((self.model, self.real)):
            try:
                results.append(call(layer, side))
                errnos.append(None)
            except FsError as error:
                errnos.append(error.errno)
        assert errnos[0] == errnos[1], f"errno {errnos[0]} in the model, {errnos[1]} here"
        return (results[0], results[1]) if errnos[0] is None else None

    def attrs(self, call: Callable[[Posix, int], Attr]) -> None:
        """A call that gives attributes: compare, and remember the inode."""
        done = self.both(call)
        if done is not None:
            one, two = done
            assert shown(one) == shown(two)
            self.know(one, two)

    def know(self, one: Attr, two: Attr) -> None:
        """Remember a pair. Numbers may be used again when their first owner is gone."""
        pair = Pair(one.ino, two.ino)
        if pair not in self.inodes:
            self.inodes = [each for each in self.inodes if each.real != pair.real]
            self.inodes.append(pair)

    def opened(self, call: Callable[[Posix, int], tuple[Attr, Fh]]) -> None:
        """A call that opens."""
        done = self.both(call)
        if done is not None:
            (one, fh), (two, other) = done
            assert shown(one) == shown(two)
            self.know(one, two)
            self.handles.append(Pair(fh, other))

    def same(self, call: Callable[[Posix, int], object]) -> None:
        """A call that gives plain data."""
        done = self.both(call)
        assert done is None or done[0] == done[1]

    def inode(self, pick: int) -> Callable[[int], Ino]:
        pair = self.inodes[pick % len(self.inodes)]
        return lambda side: Ino(pair.real if side else pair.model)

    def handle(self, pick: int) -> Callable[[int], Fh]:
        pair = self.handles[pick % len(self.handles)]
        return lambda side: Fh(pair.real if side else pair.model)

    # -- names

    @rule(user=USERS, parent=PICKS, name=NAMES, mode=MODES, umask=st.sampled_from([0, 0o022]))
    def mkdir(self, user: User, parent: int, name: bytes, mode: int, umask: int) -> None:
        at = self.inode(parent)
        self.attrs(lambda p, side: p.mkdir(user, at(side), name, mode, umask))

    @rule(user=USERS, parent=PICKS, name=NAMES, mode=MODES)
    def mkfifo(self, user: User, parent: int, name: bytes, mode: int) -> None:
        at = self.inode(parent)
        self.attrs(lambda p, side: p.mknod(user, at(side), name, stat.S_IFIFO | mode))

    @rule(user=USERS, parent=PICKS, name=NAMES, text=st.sampled_from([b"t", b"t" * 3000]))
    def symlink(self, user: User, parent: int, name: bytes, text: bytes) -> None:
        at = self.inode(parent)
        self.attrs(lambda p, side: p.symlink(user, at(side), name, text))

    @rule(user=USERS, pick=PICKS, parent=PICKS, name=NAMES)
    def link(self, user: User, pick: int, parent: int, name: bytes) -> None:
        ino, at = self.inode(pick), self.inode(parent)
        self.attrs(lambda p, side: p.link(user, ino(side), at(side), name))

    @rule(user=USERS, parent=PICKS, name=NAMES)
    def lookup(self, user: User, parent: int, name: bytes) -> None:
        at = self.inode(parent)
        self.attrs(lambda p, side: p.lookup(user, at(side), name))

    @rule(user=USERS, parent=PICKS, name=NAMES)
    def unlink(self, user: User, parent: int, name: bytes) -> None:
        at = self.inode(parent)
        self.both(lambda p, side: p.unlink(user, at(side), name))

    @rule(user=USERS, parent=PICKS, name=NAMES)
    def rmdir(self, user: User, parent: int, name: bytes) -> None:
        at = self.inode(parent)
        self.both(lambda p, side: p.rmdir(user, at(side), name))

    @rule(
        user=USERS,
        src=PICKS,
        name=NAMES,
        dst=PICKS,
        new_name=NAMES,
        flags=st.sampled_from([0, 0, 0, 1, 2]),
    )
    def rename(
        self, user: User, src: int, name: bytes, dst: int, new_name: bytes, flags: int
    ) -> None:
        one, two = self.inode(src), self.inode(dst)
        self.both(lambda p, side: p.rename(user, one(side), name, two(side), new_name, flags))

    # -- attributes

    @rule(user=USERS, pick=PICKS, mode=MODES)
    def chmod(self, user: User, pick: int, mode: int) -> None:
        ino = self.inode(pick)
        self.attrs(lambda p, side: p.setattr(user, ino(side), mode=mode))

    @rule(
        user=USERS,
        pick=PICKS,
        uid=st.sampled_from([None, 0, 1000, 1001]),
        gid=st.sampled_from([None, 44, 1000]),
    )
    def chown(self, user: User, pick: int, uid: int | None, gid: int | None) -> None:
        ino = self.inode(pick)
        self.attrs(lambda p, side: p.setattr(user, ino(side), uid=uid, gid=gid))

    @rule(user=USERS, pick=PICKS, mask=st.integers(0, 7))
    def access(self, user: User, pick: int, mask: int) -> None:
        ino = self.inode(pick)
        self.both(lambda p, side: p.access(user, ino(side), mask))

    @rule(user=USERS, pick=PICKS, size=OFFSETS)
    def truncate(self, user: User, pick: int, size: int) -> None:
        ino = self.inode(pick)
        self.attrs(lambda p, side: p.setattr(user, ino(side), size=size))

    @rule(user=USERS, pick=PICKS, name=ATTRIBUTES, value=DATA.map(lambda d: d[:90]))
    def setxattr(self, user: User, pick: int, name: bytes, value: bytes) -> None:
        ino = self.inode(pick)
        self.both(lambda p, side: p.setxattr(user, ino(side), name, value))

    @rule(user=USERS, pick=PICKS, name=ATTRIBUTES)
    def removexattr(self, user: User, pick: int, name: bytes) -> None:
        ino = self.inode(pick)
        self.both(lambda p, side: p.removexattr(user, ino(side), name))

    @rule(user=USERS, pick=PICKS, name=st.sampled_from([ACL_ACCESS, ACL_DEFAULT]), value=ACLS)
    def setacl(self, user: User, pick: int, name: bytes, value: bytes) -> None:
        ino = self.inode(pick)
        self.both(lambda p, side: p.setxattr(user, ino(side), name, value))

    # -- open files

    @rule(user=USERS, parent=PICKS, name=NAMES, mode=MODES, flags=OPENS, excl=st.booleans())
    def create(
        self, user: User, parent: int, name: bytes, mode: int, flags: int, excl: bool
    ) -> None:
        at = self.inode(parent)
        flags |= os.O_CREAT | (os.O_EXCL if excl else 0)
        self.opened(lambda p, side: p.create(user, at(side), name, mode, flags, 0o022))

    @rule(user=USERS, parent=PICKS, mode=MODES)
    def tmpfile(self, user: User, parent: int, mode: int) -> None:
        at = self.inode(parent)
        self.opened(lambda p, side: p.tmpfile(user, at(side), mode, os.O_RDWR))

    @rule(user=USERS, pick=PICKS, flags=OPENS)
    def open(self, user: User, pick: int, flags: int) -> None:
        ino = self.inode(pick)
        done = self.both(lambda p, side: p.open(user, ino(side), flags))
        if done is not None:
            self.handles.append(Pair(done[0], done[1]))

    @precondition(lambda self: self.handles)
    @rule(pick=PICKS, offset=OFFSETS, data=DATA)
    def write(self, pick: int, offset: int, data: bytes) -> None:
        fh = self.handle(pick)
        self.same(lambda p, side: p.write(fh(side), offset, data))

    @precondition(lambda self: self.handles)
    @rule(pick=PICKS, offset=OFFSETS, size=st.sampled_from([0, 10, 5000]))
    def read(self, pick: int, offset: int, size: int) -> None:
        fh = self.handle(pick)
        self.same(lambda p, side: p.read(fh(side), offset, size))

    @precondition(lambda self: self.handles)
    @rule(pick=PICKS, mode=st.sampled_from([0, 1, 3, 16, 17]), offset=OFFSETS, length=OFFSETS)
    def fallocate(self, pick: int, mode: int, offset: int, length: int) -> None:
        fh = self.handle(pick)
        length = min(length, 70_000)
        self.same(lambda p, side: p.fallocate(fh(side), mode, offset, length))

    @precondition(lambda self: self.handles)
    @rule(pick=PICKS)
    def release(self, pick: int) -> None:
        fh = self.handle(pick)
        del self.handles[pick % len(self.handles)]
        self.both(lambda p, side: p.release(fh(side)))

    @precondition(lambda self: self.handles)
    @rule(pick=PICKS, datasync=st.booleans())
    def fsync(self, pick: int, datasync: bool) -> None:
        fh = self.handle(pick)
        self.both(lambda p, side: p.fsync(fh(side), datasync=datasync))

    @rule()
    def idle(self) -> None:
        self.both(lambda p, _: p.idle())

    # -- comparison

    @invariant()
    def known_inodes_agree(self) -> None:
        for pair in list(self.inodes):
            done = self.both(partial(_attr_or_gone, pair))
            assert done is not None
            assert done[0] == done[1]
            if done[0] is None:
                self.inodes.remove(pair)

    def teardown(self) -> None:
        assert tree(self.model) == tree(self.real)
        for pair in self.handles:
            self.model.release(Fh(pair.model))
            self.real.release(Fh(pair.real))
        self.handles.clear()
        assert tree(self.model) == tree(self.real)
        self.real.close()


def _attr_or_gone(pair: Pair, layer: Posix, side: int) -> tuple[int, ...] | None:
    try:
        return shown(layer.getattr(ROOT, Ino(pair.real if side else pair.model)))
    except FsError:
        return None


def tree(layer: Posix) -> dict[bytes, object]:
    """Everything that is reachable by name: path -> what it is."""
    found: dict[bytes, object] = {}
    links: dict[Ino, int] = {}
    todo = [(b"", layer.root)]
    while todo:
        path, ino = todo.pop()
        attr = layer.getattr(ROOT, ino)
        xattrs = {name: layer.getxattr(ROOT, ino, name) for name in layer.listxattr(ROOT, ino)}
        found[path] = (shown(attr), _inside(layer, attr), xattrs)
        links[ino] = links.get(ino, 0) + 1
        if stat.S_ISDIR(attr.mode):
            children = _children(layer, ino)
            assert attr.nlink == 2 + sum(kind == stat.S_IFDIR >> 12 for _, _, kind in children)
            todo += [(path + b"/" + name, child) for name, child, _ in children]
    for ino, count in links.items():
        attr = layer.getattr(ROOT, ino)
        assert count == (1 if stat.S_ISDIR(attr.mode) else attr.nlink)
    return found


def _children(layer: Posix, ino: Ino) -> list[tuple[bytes, Ino, int]]:
    fh = layer.opendir(ROOT, ino)
    entries = layer.readdir(fh, 0, 10_000)
    layer.releasedir(fh)
    for entry in entries:
        assert layer.lookup(ROOT, ino, entry.name).ino == entry.ino
    return [(e.name, e.ino, e.d_type) for e in entries if e.name not in (b".", b"..")]


def _inside(layer: Posix, attr: Attr) -> object:
    """The target of a link; size and data of a file, hole by hole."""
    if stat.S_ISLNK(attr.mode):
        return layer.readlink(ROOT, attr.ino)
    if not stat.S_ISREG(attr.mode):
        return None
    fh = layer.open(ROOT, attr.ino, os.O_RDONLY)
    parts = {}
    for offset in (0, 70_000, 140_000, 1 << 33):
        data = layer.read(fh, offset, 70_000).rstrip(b"\0")
        parts[offset] = data
    layer.release(fh)
    return parts


# Without `explain`, which traces every line of a failing run and takes minutes.
PHASES = (Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink)


def _run(kind: str, steps: int, examples: int) -> None:
    run_machine(
        lambda: Machine(FACTORIES[kind]),  # type: ignore[arg-type]
        settings=settings(
            stateful_step_count=steps, max_examples=examples, phases=PHASES, deadline=None
        ),
    )


@pytest.mark.parametrize("kind", sorted(FACTORIES))
def test_machine_agrees_with_the_model(kind: str) -> None:
    _run(kind, 60, 40)


@pytest.mark.slow
@pytest.mark.parametrize("kind", sorted(FACTORIES))
def test_machine_agrees_with_the_model_at_length(kind: str) -> None:
    _run(kind, 200, 500)
