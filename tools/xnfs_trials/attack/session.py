"""The scene of a hostile case: one kernel, and two principals who do not trust each other.

Alice has a small file system that is durable; Mallory attacks. `Session.refused` makes a hostile
call and notes what came of it. Afterwards `aftermath` looks at what must hold whatever Mallory did:
Alice's blocks are the same byte for byte, in memory and on the disk; every pointer on the disk
names a block that is in use, initialised, of that type and of one file system (read by `walk`,
which shares no code with the kernel); and Alice can work.

The kernel's own bounds (capabilities, declared orders, owners of a block) are made small while a
session lives (`small_bounds`), so that they can be reached. Frames and free blocks are full of
`POISON`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import Final

import xnfs.capability
import xnfs.disk.change
import xnfs.disk.order
from xnfs import (
    BLOCK,
    T_UNREADABLE,
    Caller,
    CorruptionError,
    Diff,
    Extent,
    MemoryDevice,
    NoSpace,
    TypeSpec,
    Xn,
    XnError,
    format_image,
)
from xnfs_trials.attack.ground import KINDS, POISON, poisoned, slot_bytes
from xnfs_trials.attack.memento import Memento
from xnfs_trials.attack.walk import Tree, walk
from xnfs_trials.attack.world import DATA, HIDDEN, NODE

SLOTS, SLOTS_AT, OWNER_AT = 32, 64, 32
RAW: Final = (2048, 4096)
FRAMES: Final = 48
_OWNS = """\
def owns(meta, part):
    kind = u32(meta, 64 + part * 16)
    if kind >= 1 and kind <= 3:
        emit(kind - 1, u64(meta, 72 + part * 16), u32(meta, 68 + part * 16))
"""
#: The user whose number lies in the node may change it, and root.
_ACL = """\
def acl(op, mask, old, new, wit, self, witno, uid, gid, groups, now):
    if op == 2 or uid == 0 or uid == u32(old, 32):
        return 0
    return 13
"""
TYPES: Final = (
    TypeSpec("s.data"),
    TypeSpec("s.node", owns=_OWNS, acl=_ACL, parts=((SLOTS_AT, 16, 16, SLOTS),), raw=RAW,
             stamp=0, refs=("s.data", "s.node", "s.hidden")),
    TypeSpec("s.hidden", flags=T_UNREADABLE),
)  # fmt: skip
NUMBER: Final = {DATA: 16, NODE: 17, HIDDEN: 18}
BOUNDS: Final = (
    (xnfs.capability, "MAX_TOKENS", 40),
    (xnfs.disk.order, "MAX_EDGES", 12),
    (xnfs.disk.change, "MAX_TOTAL", 6),
)


def slot(index: int, kind: str = "", start: int = 0, count: int = 1) -> tuple[int, bytes]:
    """The edit that makes a slot of a node point at a run; without a kind it is emptied."""
    return SLOTS_AT + 16 * index, slot_bytes(kind, start, count)


def claim(kind: str, start: int, count: int = 1) -> Extent:
    """Blocks under a type."""
    return NUMBER[kind], start, count


def fill(text: bytes, blocks: int = 1) -> bytes:
    """Blocks full of a text."""
    return (text * (BLOCK // len(text) + 1))[:BLOCK] * blocks


@contextmanager
def small_bounds() -> Iterator[None]:
    """The kernel with tables that can be filled in no time."""
    before = [(module, name, getattr(module, name)) for module, name, _ in BOUNDS]
    for module, name, value in BOUNDS:
        setattr(module, name, value)
    try:
        yield
    finally:
        for module, name, value in before:
            setattr(module, name, value)


@dataclass
class Person:
    """A principal: root -> node -> data of two blocks; a leaf that root and node own; hidden
    blocks below the root."""

    name: str
    who: Caller
    root: int
    node: int = 0
    data: int = 0
    leaf: int = 0
    hidden: int = 0


@dataclass
class Outcome:
    """What came of one case, or of one pair."""

    tried: int = 0
    refused: int = 0
    accepted: list[str] = field(default_factory=list)  # wrongly
    denied: list[str] = field(default_factory=list)  # honest work, wrongly refused
    broken: list[str] = field(default_factory=list)  # what must hold and does not

    @property
    def good(self) -> bool:
        """Nothing is wrong."""
        return not (self.accepted or self.denied or self.broken)


@cache
def _image() -> MemoryDevice:
    device = MemoryDevice(112)
    format_image(device, uuid=bytes(16), label="s", log_blocks=24, types_blocks=8, roots_blocks=1)
    xn = Xn(device, frames=poisoned(FRAMES), clock=lambda: 1)
    for spec in TYPES:
        xn.install_type(Caller(xn.admin), spec)
    for name in ("mallory", "alice"):  # Alice's first block comes right after Mallory's data
        _settle(xn, name)
    lo, hi = xn.data_area
    free = [b for b in range(lo, hi) if not xn.refs(b)]
    xn.close()
    for block in free:
        device.write(block, [POISON])
    return device


def _settle(xn: Xn, name: str) -> None:
    """What a principal has at first."""
    info = xn.install_root(Caller(xn.admin), name, NUMBER[NODE])
    who, root = Caller(info.cap), info.block
    node, leaf, hidden, data = (xn.find_free(root, 8)[0] + n for n in (0, 1, 2, 4))
    below = [slot(0, DATA, data, 2), slot(1, NODE, leaf)]
    xn.change(
        who,
        [(root, [slot(0, NODE, node), slot(1, NODE, leaf), slot(2, HIDDEN, hidden, 2)])],
        alloc=[claim(NODE, node), claim(NODE, leaf), claim(HIDDEN, hidden, 2)],
    )
    xn.change(who, [(node, below)], alloc=[claim(DATA, data, 2)], share=[claim(NODE, leaf)])
    xn.write_raw(who, data, 0, fill(name.encode() + b"'s secret. ", 2))
    xn.write_raw(who, leaf, RAW[0], name.encode() * 20)
    xn.sync(who)


class Session:
    """One kernel under attack."""

    def __init__(self) -> None:
        self.device = _image().fork()
        self.xn = xn = Xn(self.device, frames=poisoned(FRAMES), clock=lambda: 1)
        self.admin = Caller(xn.admin)
        self.m, self.a = self._enter("mallory"), self._enter("alice")
        xn.sync(self.admin)
        self.outcome = Outcome()
        self.alice_acts = False  # then the kernel's stamps of her blocks change
        self.strict = True  # the refusal must be of the expected kind
        self.expect: tuple[type[XnError], ...] = (XnError,)
        self.starved = False  # what Mallory took leaves Alice no room for more
        self._alices = self._in_memory()
        self._on_disk = self._tree("alice")
        self._memento = Memento(self)

    def _enter(self, name: str) -> Person:
        xn = self.xn
        info = xn.mount_root(self.admin, name)
        person = Person(name, Caller(info.cap), info.block)
        person.node, person.leaf = info.block + 1, info.block + 2
        person.hidden, person.data = info.block + 3, info.block + 5
        for parent, part, start, count in (
            (person.root, 0, person.node, 1),
            (person.root, 1, person.leaf, 1),
            (person.node, 0, person.data, 2),
        ):
            xn.readin(person.who, parent, part, start, count)
        return person

    def reset(self) -> None:
        """Back to the beginning."""
        self._memento.restore()
        self.outcome = Outcome()

    # -- words for cases

    def refused(self, call: Callable[[], object], what: str = "") -> None:
        """A hostile call: it must be refused, with one of the errors that the case expects."""
        self.outcome.tried += 1
        try:
            call()
        except CorruptionError as error:
            self.outcome.broken.append(f"{what} made the kernel call the disk corrupt: {error}")
        except XnError as error:
            self.outcome.refused += 1
            if self.strict and not isinstance(error, self.expect):
                self.outcome.broken.append(f"{what} refused with {error!r}")
        else:
            self.outcome.accepted.append(what or "a hostile call")

    def all_refused(self, *calls: Callable[[], object]) -> None:
        """Several."""
        for number, call in enumerate(calls):
            self.refused(call, f"call {number}")

    def holds(self, true: object, what: str) -> None:
        """Something that must be so whatever was answered."""
        self.outcome.tried += 1
        if true:
            self.outcome.refused += 1
        else:
            self.outcome.accepted.append(what)

    def honest(self, call: Callable[[], object], what: str) -> None:
        """A call of Mallory's that breaks no rule. After another case it may lack room."""
        try:
            call()
        except XnError as error:
            if self.strict:
                self.outcome.denied.append(f"{what}: {error!r}")
            raise NoRoom from error

    def tokens(self, make: Callable[[], bytes]) -> bytes:
        """A capability, unless the case before took the last ones."""
        try:
            return make()
        except NoSpace as error:
            raise NoRoom from error

    def find(self, count: int = 1) -> int:
        """A free run."""
        start, n = self.xn.find_free(0, count)
        if n < count:
            raise NoRoom
        return start

    def is_free(self, block: int) -> bool:
        """Could anybody have it now?"""
        return self.xn.find_free(block, 1) == (block, 1)

    def add(self, kind: str, parent: int = 0, *, count: int = 1, init: Diff = ()) -> int:
        """Mallory takes blocks, in the first empty slot of a node of hers."""
        start, parent = self.find(count), parent or self.m.root
        at = self.empty(parent)
        diff = [slot(at, kind, start, count)]
        self.xn.alloc(self.m.who, parent, diff, [claim(kind, start, count)], init=init)
        return start

    def empty(self, node: int) -> int:
        """The first empty slot of a node."""
        raw = self.xn.read(self.admin, node, 0, BLOCK)
        for at in range(SLOTS):
            if not any(raw[SLOTS_AT + 16 * at : SLOTS_AT + 16 * at + 16]):
                return at
        raise NoRoom

    def where(self, node: int, block: int) -> int:
        """The slot of a node that names a block."""
        for at in range(SLOTS):
            if self.pointer(node, at)[1] == block:
                return at
        raise NoRoom

    def pointer(self, node: int, index: int) -> tuple[str, int, int]:
        """(kind, start, count) in a slot; ("", 0, 0) if it is empty."""
        at = SLOTS_AT + 16 * index
        raw = self.xn.read(self.admin, node, at, 16)
        kind = int.from_bytes(raw[:4], "little")
        numbers = int.from_bytes(raw[8:], "little"), int.from_bytes(raw[4:8], "little")
        return (KINDS[kind - 1] if kind else "", *numbers)

    # -- what must hold afterwards

    def aftermath(self) -> None:
        """Everything that must hold, and what an honest user must still be able to do."""
        broken = self.outcome.broken
        if self.xn.damaged:
            broken.append("writes have stopped: the image counts as damaged")
            return
        if self._seen(self._in_memory()) != self._seen(self._alices):
            broken.append("what Alice sees of her file system has changed")
        self.xn.sync(self.admin)
        if self._seen(self._tree("alice")) != self._seen(self._on_disk):
            broken.append("Alice's blocks on the disk have changed")
        if self.starved:
            self._work(self._overwrite)
            self.xn.remove_root(self.admin, "mallory")
            while not self.xn.collect(self.admin, 1000).done:
                pass
        self._work(self._live)

    def _seen(self, tree: Tree) -> Tree:
        """Byte for byte; but for the stamps of nodes that Alice changed herself."""
        if not self.alice_acts:
            return tree
        a = self.a
        return {b: raw[16:] if b in (a.root, a.node, a.leaf) else raw for b, raw in tree.items()}

    def _in_memory(self) -> Tree:
        """The bytes of Alice's blocks; how often each is named, and the state of its page."""
        a, xn = self.a, self.xn
        seen = {}
        for block in (a.root, a.node, a.leaf, a.data, a.data + 1):
            page = xn.registered(block)
            state = page and (page.type, page.pinned, page.locked, xn.refs(block))
            seen[block] = xn.read(a.who, block, 0, BLOCK) + repr(state).encode()
        return seen | {b: repr(xn.refs(b)).encode() for b in (a.hidden, a.hidden + 1)}

    def _tree(self, name: str) -> Tree:
        trees, findings = walk(self.device._contents, self.device.blocks, POISON)
        if hasattr(self, "outcome"):
            self.outcome.broken += findings
        return trees.get(name, {})

    def _work(self, work: Callable[[], None]) -> None:
        try:
            work()
        except XnError as error:
            self.outcome.denied.append(f"{work.__name__.strip('_')}: {error!r}")

    def _overwrite(self) -> None:
        """What Alice can do without a new block or frame."""
        xn, a = self.xn, self.a
        before = xn.read(a.who, a.data, 0, BLOCK)
        for text in (fill(b"again"), before):
            xn.write_raw(a.who, a.data, 0, text)
            xn.update(a.who, a.node, [(48, b"x")])
            xn.update(a.who, a.node, [(48, b"\\0")])
            xn.sync(a.who, [a.data, a.node])
        if xn.read(a.who, a.data, 0, BLOCK) != before:
            self.outcome.broken.append("Alice does not read what she wrote")

    def _live(self) -> None:
        """Alice makes a file, reads it from the disk, and deletes it."""
        xn, who, a = self.xn, self.a.who, self.a
        free, at, data = xn.free_blocks(), self.empty(a.node), self.find(2)
        node = xn.find_free(data + 2, 1)[0]
        xn.change(
            who,
            [(a.node, [slot(at, NODE, node)])],
            alloc=[claim(NODE, node), claim(DATA, data, 2)],
            inits={node: [slot(0, DATA, data, 2)]},
        )
        if xn.read(who, data, 0, 2 * BLOCK) != bytes(2 * BLOCK):
            self.outcome.broken.append("Alice's new blocks are not zero")
        xn.write_raw(who, data, 0, fill(b"new", 2))
        xn.sync(who)
        xn.evict(who, [data, data + 1])
        xn.readin(who, node, 0, data, 2)
        if xn.read(who, data, 0, 2 * BLOCK) != fill(b"new", 2):
            self.outcome.broken.append("Alice does not read what she wrote")
        xn.free(who, node, [slot(0)], [claim(DATA, data, 2)])
        xn.free(who, a.node, [slot(at)], [claim(NODE, node)])
        xn.sync(who)
        if xn.free_blocks() != free:
            self.outcome.broken.append("Alice's deleted blocks are not free")


class NoRoom(Exception):
    """The case before this one took what it needs."""
