"""A stranger in somebody's file system: what do its types let another user do?

The file system is made and filled through its own code: a user's private file, directory and links,
and a directory of the stranger's. Then somebody who holds the same capability, but is the other
user, and speaks to the kernel directly, tries what he can reach:

    bytes      every run of eight bytes of every block of metadata, changed in three ways
    pointers   every pointer dropped, and every pointer moved or copied to another block

What the kernel accepts, the file system's `acl` has allowed. Whether that matters the file system
itself says: mounted again, does the victim's tree show other names, modes, owners, link counts,
other directories or links, or can it not be read any more? That is a `Theft`. What is accepted and
shows nowhere is counted, not judged.

The bytes, the size and the times of a regular file are counted apart (`Haul.written`): the kernel
gives data blocks to whoever has the capability, and a file system asks who may write them when the
file is opened.
"""

from __future__ import annotations

import stat
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from libfs.posix.interface import FileSystem, FsError, Ino, New, User
from xnfs import (
    BLOCK,
    Caller,
    Diff,
    Extent,
    FramePool,
    MemoryDevice,
    Xn,
    XnError,
    format_image,
)
from xnfs.disk.blocktype import BlockType
from xnfs_trials.attack.memento import Memento
from xnfs_trials.crash.subject import Subject

ROOT, VICTIM, STRANGER = User(0, 0), User(1000, 1000), User(4242, 4242)
NOW: Final = 1_700_000_000_000_000_000
NAME: Final = "main"
MINE: Final = b"/mine"
_STEP: Final = 8
_TWISTS: Final[tuple[Callable[[bytes], bytes], ...]] = (
    lambda raw: bytes(b ^ 255 for b in raw),
    lambda raw: bytes(len(raw)),
    lambda raw: bytes([raw[0] ^ 1]) + raw[1:],
)

#: (what it is called, one of several ways), the block, the call
_Act = tuple[tuple[str, int], "_Node", Callable[[], object]]
Progress = Callable[["Haul"], None]
#: path -> what a user sees of it
Tree = dict[bytes, object]


@dataclass(frozen=True)
class Theft:
    """Something that the stranger did to what is not his."""

    act: str
    type: str
    block: int
    effect: str

    def __str__(self) -> str:
        return f"{self.type} block {self.block}: {self.act}: {self.effect}"


@dataclass
class Haul:
    """What came of all that the stranger tried."""

    tried: int = 0
    refused: int = 0
    accepted: int = 0
    written: int = 0  # of these, how many show in the bytes of a regular file, and nowhere else
    thefts: list[Theft] = field(default_factory=list)
    seconds: float = 0.0
    complete: bool = True


@dataclass
class _Node:
    """A block of metadata that the stranger has found."""

    block: int
    kind: BlockType
    parent: int
    raw: bytes

    def pointers(self) -> Iterator[tuple[int, list[Extent]]]:
        """(partition, what it owns) of those that own something."""
        for part in range(self.kind.nparts):
            if owned := self.kind.owned(self.raw, part):
                yield part, owned


# -- the scene


def _fill(fs: FileSystem) -> None:
    """A home with private things, and a directory of the stranger's."""
    for name, user in ((b"home", VICTIM), (b"mine", STRANGER)):
        fs.create(ROOT, fs.root, name, New(stat.S_IFDIR | 0o755, user.uid, user.gid))
    home, mine = (_ino(fs, fs.root, name) for name in (b"home", b"mine"))
    for directory, user, name, mode, text in (
        (home, VICTIM, b"secret", 0o600, b"victim's secret. " * 600),
        (home, VICTIM, b"notes", 0o644, b"victim's notes"),
        (mine, STRANGER, b"tool", 0o755, b"stranger's tool. " * 600),
    ):
        ino = fs.create(user, directory, name, New(stat.S_IFREG | mode, user.uid, user.gid))
        fs.write(user, ino, 0, text, kill_suid=False)
    closed = fs.create(VICTIM, home, b"closed", New(stat.S_IFDIR | 0o700, 1000, 1000))
    fs.create(VICTIM, closed, b"within", New(stat.S_IFREG | 0o600, 1000, 1000))
    with suppress(FsError):  # not every file system has links
        fs.create(VICTIM, home, b"way", New(stat.S_IFLNK | 0o777, 1000, 1000, target=b"secret"))
        fs.link(VICTIM, _ino(fs, home, b"notes"), home, b"again")
    fs.sync(None)


def _ino(fs: FileSystem, parent: Ino, name: bytes) -> Ino:
    ino = fs.lookup(parent, name)
    if ino is None:
        raise FsError(2, f"{name!r} is not there")
    return ino


def show(fs: FileSystem) -> tuple[Tree, Tree]:
    """What the superuser sees of everything but the stranger's own: (names, attributes, directories
    and links; what data there is in regular files)."""
    out: Tree = {}
    data: Tree = {}
    todo = [(fs.root, b"")]
    while todo:
        ino, path = todo.pop()
        attr = fs.getattr(ino)
        seen: list[object] = [attr.mode, attr.nlink, attr.uid, attr.gid, attr.rdev]
        if stat.S_ISDIR(attr.mode):
            names = [e for e in fs.readdir(ino, 0) if e.name not in (b".", b"..")]
            seen += [attr.size, attr.mtime, sorted(e.name for e in names)]
            todo += [(e.ino, path + b"/" + e.name) for e in names if path + b"/" + e.name != MINE]
        elif stat.S_ISREG(attr.mode):
            data[path] = attr.size, attr.mtime, _content(fs, ino, attr.size)
        elif stat.S_ISLNK(attr.mode):
            seen += [attr.size, attr.mtime, fs.readlink(ino)]
        out[path or b"/"] = seen
        if len(out) > 1000:
            raise FsError(40, "the tree has no end")
    return out, data


def _content(fs: FileSystem, ino: Ino, size: int) -> object:
    try:
        return fs.read(ino, 0, min(size, 1 << 20))
    except (FsError, XnError) as error:
        return str(error)


# -- the attack


class Stranger:
    """One file system, and somebody else's hands on it."""

    def __init__(self, subject: Subject) -> None:
        """Raises FsError, XnError: the file system could not be made or filled."""
        self._subject = subject
        device = MemoryDevice(1024)
        format_image(device, uuid=bytes(16), label="stranger")
        xn = Xn(device, frames=FramePool(512), clock=lambda: NOW)
        subject.mkfs(xn, xn.admin, NAME)
        fs = subject.mount(xn, xn.admin, NAME)
        _fill(fs)
        fs.close()
        xn.close()
        self.xn = Xn(device, frames=FramePool(512), clock=lambda: NOW + 1)
        info = self.xn.mount_root(Caller(self.xn.admin), NAME)
        self._who = Caller(info.cap, STRANGER.uid, STRANGER.gid, STRANGER.groups)
        kinds = {n: BlockType(n, spec, self.xn.type_number) for n, spec in self.xn.types()}
        self._nodes = self._explore(info.block, kinds[info.type], kinds)
        self._honest = self._tree()
        self._start = Memento(self.xn)
        self.haul = Haul()

    def _explore(self, root: int, kind: BlockType, kinds: dict[int, BlockType]) -> list[_Node]:
        """Everything below the root, as far as the kernel lets him read."""
        found: dict[int, _Node] = {}
        todo = [(root, kind, 0)]
        while todo:
            block, kind, parent = todo.pop()
            if block in found:
                continue
            raw = self.xn.read(self._who, block, 0, BLOCK)
            node = found[block] = _Node(block, kind, parent, raw)
            for part, extents in node.pointers():
                for number, start, count in extents:
                    if kinds[number].unreadable:
                        continue
                    self.xn.readin(self._who, block, part, start, count)
                    if kinds[number].stamp is not None:
                        run = range(start, start + count)
                        todo += [(child, kinds[number], block) for child in run]
        return list(found.values())

    def _tree(self) -> tuple[Tree, Tree]:
        return show(self._subject.mount(self.xn, self.xn.admin, NAME, readonly=True))

    def run(
        self, budget: float = float("inf"), *, every: int = 1, progress: Progress | None = None
    ) -> Haul:
        """Everything, or as much as `budget` seconds allow; of that, one in `every`."""
        haul, begin = self.haul, time.monotonic()
        done: set[tuple[int, str, int]] = set()
        for number, (act, node, call) in enumerate(self._acts()):
            key = node.block, act[0], act[1]
            if number % every or key in done:
                continue
            if self._try(act[0], node, call):
                done.add(key)  # another witness would change nothing
            haul.seconds = time.monotonic() - begin
            if progress is not None:
                progress(haul)
            if haul.seconds > budget:
                haul.complete = False
                break
        return haul

    def _try(self, act: str, node: _Node, call: Callable[[], object]) -> bool:
        haul = self.haul
        haul.tried += 1
        try:
            call()
        except XnError:
            haul.refused += 1
            return False
        haul.accepted += 1
        effect = self._effect()
        if effect:
            haul.thefts.append(Theft(act, node.kind.spec.name, node.block, effect))
        self._start.restore()
        return True

    def _effect(self) -> str:
        """What became of the victim's tree; empty if nothing did."""
        try:
            tree, data = self._tree()
        except (FsError, XnError) as error:
            return f"the file system can't be read any more: {error}"
        except Exception as error:
            return f"the file system breaks down: {error!r}"
        honest, before = self._honest
        changed = [p for p in honest.keys() | tree.keys() if tree.get(p) != honest.get(p)]
        self.haul.written += not changed and data != before
        names = ", ".join(sorted(p.decode(errors="replace") for p in changed))
        return f"changed: {names}" if names else ""

    def _acts(self) -> Iterator[_Act]:
        for witness in (0, 1, 2):
            for node in self._nodes:
                shown = (0, node.parent, node.block)[witness]
                yield from self._bytes(node, shown)
                yield from self._pointers(node, shown)

    def _bytes(self, node: _Node, witness: int) -> Iterator[_Act]:
        for at in range(0, BLOCK, _STEP):
            old = node.raw[at : at + _STEP]
            for turn, new in enumerate(dict.fromkeys(twist(old) for twist in _TWISTS)):
                if new != old:
                    act = f"bytes {at} to {at + _STEP}", turn
                    yield act, node, self._update(node, at, new, witness)

    def _update(self, node: _Node, at: int, new: bytes, witness: int) -> Callable[[], object]:
        return lambda: self.xn.update(self._who, node.block, [(at, new)], witness=witness)

    def _pointers(self, node: _Node, witness: int) -> Iterator[_Act]:
        for part, extents in node.pointers():
            lo, hi = node.kind.ranges[part]
            gone, piece = [(lo, bytes(hi - lo))], node.raw[lo:hi]
            edits = [(node.block, gone)]
            yield (f"pointer {part} dropped", 0), node, self._change(edits, witness, free=extents)
            for other in self._nodes:
                into = self._empty(other) if other.kind is node.kind else None
                if into is not None:
                    new = (other.block, [(into, piece)])
                    to = f"to block {other.block}"
                    if other is not node:
                        move = self._change([*edits, new], witness)
                        yield (f"pointer {part} moved {to}", 0), node, move
                    copy = self._change([new], witness, share=extents)
                    yield (f"pointer {part} copied {to}", 0), node, copy

    def _empty(self, node: _Node) -> int | None:
        """Where the first partition that owns nothing begins."""
        full = dict(node.pointers())
        return next(
            (node.kind.ranges[p][0] for p in range(node.kind.nparts) if p not in full), None
        )

    def _change(
        self, edits: Sequence[tuple[int, Diff]], witness: int,
        free: list[Extent] | None = None, share: list[Extent] | None = None,
    ) -> Callable[[], object]:  # fmt: skip
        return lambda: self.xn.change(
            self._who, edits, free=free or (), share=share or (), witness=witness
        )
