"""Hostile use of pages: bytes of others in frames and on the disk, stale handles, write-back."""

# ruff: noqa: B023 - what a lambda is given for is called at once
from __future__ import annotations

from xnfs import (
    BLOCK,
    READ,
    WRITE,
    Caller,
    CapabilityError,
    FramePool,
    NotCached,
    NotFree,
    Refused,
    Xn,
    XnError,
)
from xnfs_trials.attack.case import OWN, SOSP97, TRIO, XN, case
from xnfs_trials.attack.ground import POISON
from xnfs_trials.attack.session import RAW, Session, claim, fill, slot
from xnfs_trials.attack.world import DATA, HIDDEN, NODE


def _on_disk(s: Session, block: int) -> bytes:
    raw = bytearray(BLOCK)
    s.device.read(block, [memoryview(raw)])
    return bytes(raw)


def _secrets(s: Session) -> None:
    """Frames that held Alice's bytes are free again."""
    s.xn.sync(s.admin)
    s.xn.evict(s.a.who, [s.a.data, s.a.data + 1])
    s.xn.readin(s.a.who, s.a.node, 0, s.a.data, 2)


@case(
    "fresh-metadata-not-zero",
    "a new node's frame with the bytes of its last owner: forged pointers",
    XN,
)
def _metadata(s: Session) -> None:
    _secrets(s)
    node = s.add(NODE)
    s.holds(s.xn.read(s.m.who, node, 0, BLOCK) == bytes(BLOCK), "a new node is not zero")
    held = s.find()
    s.xn.alloc_held(s.m.who, s.m.root, claim(NODE, held), init=[(RAW[0], b"x")])
    raw = s.xn.read(s.m.who, held, 0, BLOCK)
    s.holds(raw.replace(b"x", b"\0") == bytes(BLOCK), "a new held node is not zero")
    s.xn.sync(s.m.who)
    s.holds(not any(_on_disk(s, node)[16:]), "a new node is not zero on the disk")
    s.xn.drop(s.m.who, held)


@case(
    "fresh-data-not-zero",
    "new data blocks with what was on the disk or in the frame before",
    SOSP97,
)
def _data(s: Session) -> None:
    _secrets(s)
    run = s.add(DATA, count=3)
    s.xn.writeback(s.m.who, [run])
    s.holds(not any(_on_disk(s, run)), "written back, a new block is not zero")
    s.holds(bytes(s.xn.map(s.m.who, run)) == bytes(BLOCK), "mapped, a new block is not zero")
    s.xn.write_raw(s.m.who, run + 1, 100, b"x")
    raw = s.xn.read(s.m.who, run + 1, 0, BLOCK)
    s.holds(raw.replace(b"x", b"\0") == bytes(BLOCK), "written in part, a new block is not zero")
    s.xn.sync(s.m.who)
    s.holds(not any(_on_disk(s, run + 2)), "synced, a new block is not zero")


@case(
    "hidden-blocks-read",
    "blocks of a type that can't be read: read, bound, mapped, written",
    OWN,
    Refused,
    NotCached,
)
def _hidden(s: Session) -> None:
    xn, m, run = s.xn, s.m, s.add(HIDDEN, count=2)
    at = s.where(s.m.root, run)
    s.all_refused(
        lambda: xn.readin(m.who, m.root, at, run, 1),
        lambda: xn.bind(m.who, m.root, at, run, 1),
        lambda: xn.read(m.who, run, 0, 1),
        lambda: xn.map(m.who, run),
        lambda: xn.write_raw(m.who, run, 0, bytes(BLOCK)),
        lambda: xn.change(
            m.who, [(m.node, [slot(9, HIDDEN, run, 2)])], share=[claim(HIDDEN, run, 2)]
        ),
    )
    new = [claim(DATA, run, 2)]
    gone = [claim(HIDDEN, run, 2)]
    xn.change(m.who, [(m.root, [slot(at, DATA, run, 2)])], alloc=new, free=gone)
    s.holds(xn.read(m.who, run, 0, 2 * BLOCK) == bytes(2 * BLOCK), "retyped, not zero")


@case(
    "bound-frames-read",
    "pages that were bound without being read: their frames' old bytes",
    SOSP97,
    NotCached,
)
def _bound(s: Session) -> None:
    xn, m = s.xn, s.m
    xn.sync(s.admin)
    xn.evict(m.who, [m.data, m.data + 1])
    xn.bind(m.who, m.node, 0, m.data, 2)
    s.all_refused(
        lambda: xn.read(m.who, m.data, 0, 1),
        lambda: xn.read(m.who, m.data + 1, 4095, 1),
        lambda: xn.map(m.who, m.data),
        lambda: xn.write_raw(m.who, m.data, 1, b"x"),
        lambda: xn.write_raw(m.who, m.data, 0, bytes(BLOCK + 1)),
    )
    xn.writeback(m.who, [m.data])
    s.holds(_on_disk(s, m.data) != POISON, "a bound page was written out")
    xn.readin(m.who, m.node, 0, m.data, 2)


@case(
    "metadata-bound-unread",
    "a node bound to be overwritten, so that its bytes are hers",
    XN,
    Refused,
)
def _unread(s: Session) -> None:
    xn, m = s.xn, s.m
    xn.sync(s.admin)
    xn.evict(m.who, [m.leaf])
    s.refused(lambda: xn.bind(m.who, m.node, 1, m.leaf, 1), "a node bound")
    s.refused(lambda: xn.bind(m.who, m.root, 0, m.node, 1), "a cached node bound")
    xn.readin(m.who, m.node, 1, m.leaf, 1)


@case(
    "readin-forged",
    "blocks read in that the parent does not own there: wrong part, run or parent",
    TRIO,
    Refused,
    NotCached,
    CapabilityError,
)
def _readin(s: Session) -> None:
    xn, m = s.xn, s.m
    for part, start, count in (
        (0, m.data, 1), (1, m.node, 1), (0, s.a.data, 1), (0, m.node, 2), (0, m.node - 1, 2),
        (-1, m.node, 1), (32, m.node, 1), (2**40, m.node, 1), (0, m.node, 0), (0, m.node, -1),
        (0, m.node, 2**40), (5, 0, 1),
    ):  # fmt: skip
        s.refused(lambda: xn.readin(m.who, m.root, part, start, count), f"part {part}")
        all_ = [(m.root, 0, m.node, 1), (m.root, part, start, count)]
        s.refused(lambda: xn.readin_all(m.who, all_), f"part {part}, with one that is hers")
    s.refused(lambda: xn.readin(m.who, m.data, 0, m.data, 1), "below data")
    s.refused(lambda: xn.readin(m.who, s.a.node, 0, s.a.data, 1), "below Alice's node")


@case(
    "copies-forged",
    "new blocks filled from what may not be read: another's data, nodes, hidden and unread blocks",
    OWN,
    Refused,
    NotCached,
    CapabilityError,
)
def _copies(s: Session) -> None:
    xn, m = s.xn, s.m
    hidden, new = s.add(HIDDEN), s.find()
    xn.sync(s.admin)
    xn.evict(m.who, [m.data, m.data + 1])
    xn.bind(m.who, m.node, 0, m.data, 1)

    def fill_from(source: int, target: int = new, count: int = 1) -> None:
        edit = (m.root, [slot(20, DATA, new)])
        xn.change(m.who, [edit], alloc=[claim(DATA, new)], copies=[(target, source, count)])

    for source in (s.a.data, s.a.node, m.node, m.root, hidden, m.data, new, 5, -1, 2**60):
        s.refused(lambda: fill_from(source), f"from {source}")
    xn.readin(m.who, m.node, 0, m.data, 2)
    for target, count in ((m.data, 1), (new, 2), (s.a.data, 1), (new, 2**60), (m.node, 1)):
        s.refused(lambda: fill_from(m.data, target, count), f"to {target}, {count}")
    fill_from(m.data)
    xn.write_raw(m.who, m.data, 0, b"mine")
    s.holds(xn.read(m.who, new, 0, 4) != b"mine", "a write shows in the copy")


@case(
    "prefetch-to-read",
    "blocks prefetched without being named by a parent, then read",
    SOSP97,
    NotCached,
    Refused,
    CapabilityError,
)
def _prefetch(s: Session) -> None:
    xn, free = s.xn, s.find()
    xn.prefetch(s.m.who, 0, xn.blocks)
    s.all_refused(
        lambda: xn.read(s.m.who, free, 0, 1),
        lambda: xn.map(s.m.who, free),
        lambda: xn.read(s.m.who, 5, 0, 1),
        lambda: xn.read(s.m.who, s.a.data, 0, 1),
        lambda: xn.prefetch(s.m.who, -1, 2),
        lambda: xn.prefetch(s.m.who, xn.blocks - 1, 2),
        lambda: xn.prefetch(s.m.who, 0, 2**40),
        lambda: xn.prefetch(s.m.who, 5, -1),
    )


@case("freed-handle", "a block used after it was freed", SOSP97, NotCached, Refused)
def _freed(s: Session) -> None:
    xn, m = s.xn, s.m
    node = s.add(NODE)
    data = s.add(DATA, node)
    root_at = s.where(m.root, node)
    xn.free(m.who, node, [slot(0)], [claim(DATA, data)])
    xn.free(m.who, m.root, [slot(root_at)], [claim(NODE, node)])
    for block in (node, data):
        s.all_refused(
            lambda: xn.read(m.who, block, 0, 1),
            lambda: xn.map(m.who, block),
            lambda: xn.write_raw(m.who, block, RAW[0], b"x"),
            lambda: xn.update(m.who, block, [(48, b"x")]),
            lambda: xn.readin(m.who, block, 0, data, 1),
            lambda: xn.hold(m.who, block),
            lambda: xn.pin(m.who, block),
            lambda: xn.lock(m.who, block),
        )
    s.refused(lambda: xn.readin(m.who, m.root, root_at, node, 1), "read in by its old parent")


@case(
    "freed-handle-of-the-next",
    "a block used after it was freed and given to Alice",
    SOSP97,
    CapabilityError,
)
def _next(s: Session) -> None:
    xn, m, a = s.xn, s.m, s.a
    s.alice_acts = True
    data = s.add(DATA)
    at = s.where(m.root, data)
    view = xn.map(m.who, data)
    xn.free(m.who, m.root, [slot(at)], [claim(DATA, data)])
    slot_of = s.empty(a.node)
    xn.alloc(a.who, a.node, [slot(slot_of, DATA, data)], [claim(DATA, data)])
    xn.write_raw(a.who, data, 0, fill(b"alice's newest secret"))
    s.holds(b"newest" not in bytes(view), "an old view shows Alice's bytes")
    s.all_refused(
        lambda: xn.read(m.who, data, 0, 1),
        lambda: xn.map(m.who, data),
        lambda: xn.write_raw(m.who, data, 0, b"x"),
        lambda: xn.pin(m.who, data),
        lambda: xn.lock(m.who, data),
    )
    xn.free(a.who, a.node, [slot(slot_of)], [claim(DATA, data)])


@case(
    "reuse-before-durable",
    "a block taken while a durable pointer of Alice's still names it",
    TRIO,
    NotFree,
)
def _reuse(s: Session) -> None:
    xn, m, a = s.xn, s.m, s.a
    s.alice_acts = True
    at, mine = s.empty(a.node), s.empty(m.root)
    data = s.find()
    xn.alloc(a.who, a.node, [slot(at, DATA, data)], [claim(DATA, data)])
    xn.sync(a.who)
    xn.free(a.who, a.node, [slot(at)], [claim(DATA, data)])
    s.refused(
        lambda: xn.alloc(m.who, m.root, [slot(mine, DATA, data)], [claim(DATA, data)]), "too early"
    )
    s.refused(lambda: xn.alloc_held(m.who, m.root, claim(NODE, data), init=()), "held, too early")
    xn.sync(a.who)


@case(
    "writeback-of-tainted",
    "metadata written back while it names blocks that are not on the disk",
    XN,
)
def _tainted(s: Session) -> None:
    """What is on the disk stays what it was, and after a cut nobody sees old bytes."""
    xn, m = s.xn, s.m
    xn.sync(s.admin)
    before = {block: _on_disk(s, block) for block in (m.root, m.node)}
    node = s.add(NODE)
    data = s.add(DATA, node)
    s.add(DATA)
    xn.writeback(m.who, [m.root, m.node, node])
    for block, raw in before.items():
        s.holds(_on_disk(s, block) == raw, f"block {block} was written in place without its log")
    xn.writeback(m.who, [data])
    _after_a_cut(s)


def _after_a_cut(s: Session) -> None:
    disk = s.device.fork()
    xn = Xn(disk, frames=FramePool(32), clock=lambda: 1)
    info = xn.mount_root(Caller(xn.admin), "mallory")
    who, todo = Caller(info.cap), [info.block]
    while todo:
        parent = todo.pop()
        raw = xn.read(who, parent, 0, BLOCK)
        for part in range(32):
            piece = raw[64 + 16 * part : 80 + 16 * part]
            kind, count = piece[0], int.from_bytes(piece[4:8], "little")
            start = int.from_bytes(piece[8:], "little")
            if kind not in (1, 2):
                continue
            xn.readin(who, parent, part, start, count)
            bytes_ = xn.read(who, start, 0, count * BLOCK)
            s.holds(POISON[:64] not in bytes_, f"after a cut, block {start} shows old bytes")
            todo += [start] if kind == 2 else []


@case(
    "writeback-in-hostile-order", "blocks written back parents first, again and again, then cut", XN
)
def _order(s: Session) -> None:
    xn, m = s.xn, s.m
    parent = m.root
    chain = []
    for _depth in range(4):
        child = s.add(NODE, parent)
        s.add(DATA, child)
        chain.append(child)
        for block in (parent, child):
            xn.writeback(m.who, [block])
            _after_a_cut(s)
        parent = child
    xn.sync(m.who, [chain[-1]])
    _after_a_cut(s)


@case(
    "order-against-ownership",
    "a declared order that contradicts ownership stops everybody's syncs",
    OWN,
)
def _contradiction(s: Session) -> None:
    xn, m = s.xn, s.m
    child = s.add(NODE)
    try:
        xn.depend(m.who, m.root, child)
        xn.depend(m.who, m.node, m.root)
    except XnError:
        pass
    xn.update(m.who, m.node, [(48, b"x")])
    xn.sync(s.a.who)
    s.holds(not xn.registered(child).dirty, "a hostile order kept a block from the disk")  # type: ignore[union-attr]


@case(
    "locks-of-others",
    "locks taken on, and taken from, what others have locked",
    OWN,
    Refused,
    CapabilityError,
)
def _locks(s: Session) -> None:
    xn, m, a = s.xn, s.m, s.a
    low = Caller(s.tokens(lambda: xn.narrow(m.who, "mallory", READ | WRITE)))
    xn.lock(m.who, m.node)
    xn.lock(a.who, a.node)
    s.all_refused(
        lambda: xn.lock(low, m.node),
        lambda: xn.unlock(low, m.node),
        lambda: xn.update(low, m.node, [(48, b"x")]),
        lambda: xn.write_raw(low, m.node, RAW[0], b"x"),
        lambda: xn.lock(m.who, a.node),
        lambda: xn.unlock(m.who, a.node),
        lambda: xn.lock(m.who, a.leaf),
        lambda: xn.unlock(m.who, m.leaf),
    )
    s.holds(xn.evict(m.who, [m.node]) == 0, "a locked page was dropped")
    xn.unlock(m.who, m.node)
    xn.unlock(a.who, a.node)


@case(
    "lock-of-a-revoked-capability",
    "a lock that nobody can take off once its capability is revoked",
    OWN,
    CapabilityError,
)
def _revoked(s: Session) -> None:
    xn, a = s.xn, s.a
    lent = Caller(s.tokens(lambda: xn.narrow(a.who, "alice", READ | WRITE)))
    xn.lock(lent, a.node)
    xn.revoke(a.who, lent.cap)
    s.refused(lambda: xn.unlock(lent, a.node), "unlock by the revoked one")
    s.honest(lambda: xn.lock(a.who, a.node), "a lock after it was revoked")
    xn.unlock(a.who, a.node)


@case("pins-not-taken", "pins taken off that were never put on", OWN, Refused, CapabilityError)
def _pins(s: Session) -> None:
    xn, m, a = s.xn, s.m, s.a
    xn.pin(a.who, a.leaf)
    xn.pin(m.who, m.leaf)
    xn.unpin(m.who, m.leaf)
    s.refused(lambda: xn.unpin(m.who, m.leaf), "once too often")
    s.refused(lambda: xn.unpin(m.who, a.leaf), "Alice's pin")
    xn.unpin(a.who, a.leaf)


@case(
    "batch-of-others-calls",
    "calls smuggled in by a batch: private names, other calls, others' blocks",
    OWN,
    Refused,
    CapabilityError,
)
def _batch(s: Session) -> None:
    xn, m = s.xn, s.m
    for name in (
        "close",
        "_page",
        "install_root",
        "batch",
        "sync",
        "__init__",
        "revoke",
        "grant",
        "",
    ):
        s.refused(lambda: xn.batch(m.who, [("find", ()), (name, ())]), name)
    s.refused(lambda: xn.batch(m.who, [("read", (s.a.data, 0, 1))]), "Alice's data")
    before = xn.read(m.who, m.leaf, RAW[0], 4)
    calls = [("write_raw", (m.leaf, RAW[0], b"evil")), ("close", ())]
    s.refused(lambda: xn.batch(m.who, calls), "one good, one bad")
    s.holds(xn.read(m.who, m.leaf, RAW[0], 4) == before, "a part of a refused batch was done")


@case(
    "collector-fooled",
    "pointers moved behind the collector while it walks, so that live blocks go",
    OWN,
)
def _collector(s: Session) -> None:
    """What the collector has passed already, a pointer is moved to."""
    xn, m = s.xn, s.m
    nodes = [s.add(NODE) for _ in range(3)]
    data = s.add(DATA, nodes[0])
    xn.write_raw(m.who, data, 0, fill(b"live"))
    xn.sync(m.who)
    where = 0
    for turn in range(12):
        if xn.collect(m.who, 1).done:
            break
        to = (where + 1 + turn % 2) % 3
        at = s.empty(nodes[to])
        was = s.where(nodes[where], data)
        xn.move(m.who, nodes[where], [slot(was)], nodes[to], [slot(at, DATA, data)])
        where = to
    while not xn.collect(m.who, 1000).done:
        pass
    s.holds(xn.refs(data) == 1, "a live block lost its count")
    s.holds(xn.read(m.who, data, 0, 4) == b"live", "a live block was collected")
    s.holds(not s.is_free(data), "a live block is free")
