"""Hostile use of capabilities, and of what they do not give: other roots, the kernel's blocks."""

# ruff: noqa: B023 - what a lambda is given for is called at once
from __future__ import annotations

from collections.abc import Callable
from typing import Any

from xnfs import (
    ALLOC,
    BLOCK,
    GRANT,
    READ,
    WRITE,
    AclRefused,
    Caller,
    Capabilities,
    CapabilityError,
    NotCached,
    NotFree,
    Refused,
    TypeSpec,
)
from xnfs_trials.attack.case import CAPS, OWN, SOSP97, TRIO, XN, case
from xnfs_trials.attack.session import NUMBER, OWNER_AT, RAW, Session, claim, fill, slot
from xnfs_trials.attack.world import DATA, NODE


def _everything(s: Session, who: Caller, node: int, data: int) -> list[Callable[[], object]]:
    """All that one could do to somebody's node and its data with a capability."""
    xn, free, home = s.xn, s.find(), s.m.root
    return [
        lambda: xn.read(who, data, 0, 1),
        lambda: xn.map(who, data),
        lambda: xn.write_raw(who, data, 0, b"x"),
        lambda: xn.write_raw(who, node, RAW[0], b"x"),
        lambda: xn.readin(who, node, 0, data, 1),
        lambda: xn.bind(who, node, 0, data, 1),
        lambda: xn.update(who, node, [(RAW[0], b"x")]),
        lambda: xn.alloc(who, node, [slot(9, DATA, free)], [claim(DATA, free)]),
        lambda: xn.free(who, node, [slot(0)], [claim(DATA, data, 2)]),
        lambda: xn.move(who, node, [slot(0)], home, [slot(9, DATA, data, 2)]),
        lambda: xn.relocate(who, node, [slot(1, NODE, free)], node + 1, free),
        lambda: xn.hold(who, node),
        lambda: xn.drop(who, node),
        lambda: xn.alloc_held(who, node, claim(NODE, free), init=()),
        lambda: xn.depend(who, data, node),
        lambda: xn.pin(who, node),
        lambda: xn.unpin(who, node),
        lambda: xn.lock(who, node),
        lambda: xn.unlock(who, node),
        lambda: xn.access(who, node, 2),
    ]


@case(
    "cap-forged",
    "made-up capabilities: empty, zeros, a byte changed, a part, twice",
    CAPS,
    CapabilityError,
)
def _forged(s: Session) -> None:
    real = s.a.who.cap
    flipped = real[:-1] + bytes([real[-1] ^ 1])
    for cap in (b"", bytes(32), flipped, real[:16], real + real, real.hex().encode()):
        for call in _everything(s, Caller(cap), s.a.node, s.a.data):
            s.refused(call, f"with {cap[:8].hex()}")
        s.all_refused(
            lambda: s.xn.mount_root(Caller(cap), "alice"),
            lambda: s.xn.narrow(Caller(cap), "alice", READ),
            lambda: s.xn.grant(Caller(cap), "mallory"),
            lambda: s.xn.revoke(Caller(cap), real),
            lambda: s.xn.install_type(Caller(cap), TypeSpec("m.type")),
            lambda: s.xn.evict(Caller(cap), [s.a.data]),
        )


@case(
    "cap-of-another-kernel",
    "a capability that another kernel made for a root of that name",
    CAPS,
    CapabilityError,
)
def _another(s: Session) -> None:
    token = Capabilities().mint(("disk", "root", "alice"), READ | WRITE | ALLOC, "mallory")
    for call in _everything(s, Caller(token), s.a.node, s.a.data):
        s.refused(call, "another kernel's")


@case(
    "cap-stale",
    "a capability after it was revoked, and what was derived from it",
    CAPS,
    CapabilityError,
)
def _stale(s: Session) -> None:
    xn = s.xn
    lent = s.tokens(lambda: xn.narrow(s.a.who, "alice", READ | WRITE | ALLOC | GRANT))
    given = s.tokens(lambda: xn.grant(Caller(lent), "mallory"))
    below = s.tokens(lambda: xn.narrow(Caller(given), "alice", READ))
    xn.revoke(s.a.who, lent)
    for cap in (lent, given, below):
        for call in _everything(s, Caller(cap), s.a.node, s.a.data):
            s.refused(call, "a revoked capability")
        s.refused(lambda: xn.mount_root(Caller(cap), "alice"), "mount")


@case(
    "cap-narrowed",
    "more than the rights of a capability: write by a reader, take by a writer",
    CAPS,
    CapabilityError,
)
def _narrowed(s: Session) -> None:
    xn, m, free = s.xn, s.m, s.find()
    reader = Caller(s.tokens(lambda: xn.narrow(m.who, "mallory", READ)))
    writer = Caller(s.tokens(lambda: xn.narrow(m.who, "mallory", READ | WRITE)))
    calls = [
        lambda: xn.write_raw(reader, m.data, 0, b"x"),
        lambda: xn.update(reader, m.node, [(RAW[0], b"x")]),
        lambda: xn.bind(reader, m.node, 0, m.data, 2),
        lambda: xn.lock(reader, m.node),
        lambda: xn.hold(reader, m.node),
        lambda: xn.free(reader, m.node, [slot(0)], [claim(DATA, m.data, 2)]),
        lambda: xn.alloc(writer, m.node, [slot(9, DATA, free)], [claim(DATA, free)]),
        lambda: xn.alloc_held(writer, m.node, claim(NODE, free), init=()),
        lambda: xn.grant(reader, "x"),
        lambda: xn.grant(writer, "x"),
    ]
    s.all_refused(*calls)


@case(
    "cap-widened", "more rights by narrowing, granting or mounting once more", CAPS, CapabilityError
)
def _widened(s: Session) -> None:
    xn, m = s.xn, s.m
    reader = Caller(s.tokens(lambda: xn.narrow(m.who, "mallory", READ)))
    for rights in (READ | WRITE, ALLOC, GRANT, 31, 0, -1, 32, 2**40):
        s.refused(lambda: xn.narrow(reader, "mallory", rights), f"narrow to {rights}")
    again = Caller(s.tokens(lambda: xn.mount_root(reader, "mallory").cap))
    s.refused(lambda: xn.write_raw(again, m.data, 0, b"x"), "write after mounting again")
    s.refused(lambda: xn.update(again, m.node, [(RAW[0], b"x")]), "update after mounting again")


@case(
    "cap-other-root",
    "another root through one's own: by name, by a prefix of it, by the disk",
    CAPS,
    CapabilityError,
    Refused,
)
def _other(s: Session) -> None:
    xn, m = s.xn, s.m
    for name in ("alice", "", "malloryalice", "mallory/../alice", "alice\0", "a" * 999, "\0kernel"):
        s.refused(lambda: xn.narrow(m.who, name, READ), f"narrow to {name!r}")
        s.refused(lambda: xn.mount_root(m.who, name), f"mount of {name!r}")
        s.refused(lambda: xn.remove_root(m.who, name), f"removal of {name!r}")
    s.refused(lambda: xn.remove_root(m.who, "mallory"), "removal of her own")
    s.refused(lambda: xn.install_root(m.who, "more", NUMBER[NODE]), "a root of her own")
    s.refused(lambda: xn.install_type(m.who, TypeSpec("m.type")), "a type of her own")


@case(
    "cap-revoke-others",
    "somebody else's capability revoked, or the one that hers derives from",
    CAPS,
    CapabilityError,
)
def _revoke(s: Session) -> None:
    xn = s.xn
    lent = s.tokens(lambda: xn.narrow(s.m.who, "mallory", READ | GRANT))
    s.all_refused(
        lambda: xn.revoke(s.m.who, s.a.who.cap),
        lambda: xn.revoke(s.m.who, s.admin.cap),
        lambda: xn.revoke(Caller(lent), s.m.who.cap),
        lambda: xn.revoke(s.a.who, lent),
        lambda: xn.revoke(s.m.who, b""),
    )


@case(
    "cap-of-a-root-that-was",
    "a capability for a root that was removed, on the next of that name",
    CAPS,
    CapabilityError,
    Refused,
)
def _was(s: Session) -> None:
    xn = s.xn
    kind = NUMBER[NODE]
    old = s.tokens(lambda: xn.install_root(s.admin, "shop", kind).cap)
    low = s.tokens(lambda: xn.narrow(Caller(old), "shop", READ))
    xn.remove_root(s.admin, "shop")
    new = xn.install_root(s.admin, "shop", kind)
    for cap in (old, low):
        s.refused(lambda: xn.read(Caller(cap), new.block, 0, 1), "read")
        s.refused(lambda: xn.mount_root(Caller(cap), "shop"), "mount")


@case("others-blocks-named", "every call on somebody else's blocks", SOSP97, CapabilityError)
def _named(s: Session) -> None:
    for call in _everything(s, s.m.who, s.a.node, s.a.data):
        s.refused(call, "Alice's node")
    s.refused(lambda: s.xn.update(s.m.who, s.m.node, [(RAW[0], b"x")], witness=s.a.node), "witness")
    s.refused(lambda: s.xn.access(s.m.who, s.m.node, 4, witness=s.a.node), "witness")
    edits = [(s.m.node, [(RAW[0], b"x")]), (s.a.node, [(RAW[0], b"x")])]
    s.refused(lambda: s.xn.change(s.m.who, edits), "hers and Alice's in one change")


@case(
    "others-blocks-claimed",
    "somebody else's blocks as new, as shared, as freed by a pointer of hers",
    TRIO,
    NotFree,
    Refused,
    NotCached,
)
def _claimed(s: Session) -> None:
    xn, m, at = s.xn, s.m, s.empty(s.m.root)
    for kind, block in (
        (NODE, s.a.root), (NODE, s.a.node), (DATA, s.a.data), (DATA, s.a.node), (DATA, s.a.hidden),
        (NODE, s.a.hidden), (NODE, s.a.data),
    ):  # fmt: skip
        edits, claims = [(m.root, [slot(at, kind, block)])], [claim(kind, block)]
        for name in ("alloc", "share", "free"):
            given: dict[str, Any] = {name: claims}
            s.refused(lambda: xn.change(m.who, edits, **given), f"{name} {kind}")
        s.refused(lambda: xn.change(m.who, edits), f"{kind} out of nothing")
        if kind == NODE:
            s.refused(lambda: xn.alloc_held(m.who, m.root, claim(NODE, block), init=()), "held")


@case(
    "others-hidden-blocks-retyped",
    "somebody else's reserved blocks turned into data of hers",
    OWN,
    NotFree,
    Refused,
)
def _retyped(s: Session) -> None:
    m, at = s.m, s.empty(s.m.root)
    edits = [(m.root, [slot(at, DATA, s.a.hidden)])]
    new = [claim(DATA, s.a.hidden)]
    s.refused(lambda: s.xn.change(m.who, edits, alloc=new), "as new")
    gone = [(NUMBER["hidden"], s.a.hidden, 1)]
    s.refused(lambda: s.xn.change(m.who, edits, alloc=new, free=gone), "as retyped")


@case("others-pages-evicted", "somebody else's pages dropped, so that her changes are lost", OWN)
def _evicted(s: Session) -> None:
    a = s.a
    s.xn.write_raw(a.who, a.data, 0, fill(b"unwritten"))
    dropped = s.xn.evict(s.m.who, [a.root, a.node, a.leaf, a.data, a.data + 1])
    s.holds(not dropped and s.xn.cached(a.data), "Alice's pages were dropped")
    s.xn.write_raw(a.who, a.data, 0, fill(b"alice's secret. "))


@case(
    "others-bytes-by-a-long-run",
    "a run that begins in a block of hers and ends in Alice's",
    XN,
    CapabilityError,
    NotCached,
    Refused,
)
def _long(s: Session) -> None:
    xn, m = s.xn, s.m
    last = m.data + 1  # Alice's root is the next block
    s.holds(last + 1 == s.a.root, "Alice's root is where the case expects it")
    s.all_refused(
        lambda: xn.read(m.who, last, 0, BLOCK + 1),
        lambda: xn.read(m.who, last, BLOCK, 1),
        lambda: xn.read(m.who, last, 0, 2**62),
        lambda: xn.write_raw(m.who, last, 0, bytes(BLOCK + 1)),
        lambda: xn.write_raw(m.who, last, BLOCK, b"x"),
        lambda: xn.write_raw(m.who, m.data, 8 * BLOCK, b"x"),
        lambda: xn.readin(m.who, m.node, 0, m.data, 3),
        lambda: xn.bind(m.who, m.node, 0, m.data, 3),
    )


@case(
    "kernels-blocks-named",
    "the kernel's catalogue, log and tables, by their numbers",
    XN,
    CapabilityError,
    NotCached,
    Refused,
)
def _kernel(s: Session) -> None:
    catalogue = s.xn.data_area[0] - 1
    for block in (0, 1, catalogue, s.xn.blocks - 1, s.xn.blocks, 2**40):
        for who in (s.m.who, s.admin):
            for call in _everything(s, who, block, block):
                s.refused(call, f"block {block}")
    s.holds(s.xn.evict(s.admin, [catalogue]) == 0, "the catalogue was evicted")


@case(
    "kernels-blocks-claimed",
    "pointers to the kernel's blocks and to blocks beyond the disk",
    XN,
    Refused,
)
def _beyond(s: Session) -> None:
    lo, hi = s.xn.data_area
    at = s.empty(s.m.root)
    for start, count in (
        (0, 1), (lo - 1, 1), (lo - 1, 2), (hi, 1), (hi - 1, 2), (2**63, 1), (2**64 - 1, 1),
        (5, 2**31),
    ):  # fmt: skip
        edits = [(s.m.root, [slot(at, DATA, start, count)])]
        for claims in ([claim(DATA, start, count)], []):
            s.refused(lambda: s.xn.change(s.m.who, edits, alloc=claims), f"[{start}, +{count})")


@case(
    "acl-another-user",
    "changes by a user whom the file system's own acl does not allow",
    TRIO,
    AclRefused,
)
def _acl(s: Session) -> None:
    xn = s.xn
    xn.update(s.m.who, s.m.node, [(OWNER_AT, (7).to_bytes(4, "little"))])
    for user in (8, 1, 2**32 - 1, 2**32 + 8):
        stranger = Caller(s.m.who.cap, user, user, (7, 0))
        s.all_refused(
            lambda: xn.update(
                stranger, s.m.node, [(OWNER_AT, stranger.uid.to_bytes(8, "little")[:4])]
            ),
            lambda: xn.update(stranger, s.m.node, [(48, b"x")]),
            lambda: xn.free(stranger, s.m.node, [slot(0)], [claim(DATA, s.m.data, 2)]),
            lambda: xn.access(stranger, s.m.node, 2),
        )
    xn.update(s.m.who, s.m.node, [(OWNER_AT, bytes(4))])


@case(
    "acl-by-a-second-block",
    "a change that the acl of one of its two blocks forbids",
    TRIO,
    AclRefused,
)
def _second(s: Session) -> None:
    xn, m = s.xn, s.m
    xn.update(m.who, m.leaf, [(OWNER_AT, (7).to_bytes(4, "little"))])
    low = Caller(m.who.cap, 9)
    xn.update(m.who, m.node, [(OWNER_AT, (9).to_bytes(4, "little"))])
    for edits in ([m.node, m.leaf], [m.leaf, m.node]):
        s.refused(lambda: xn.change(low, [(b, [(48, b"x")]) for b in edits]), "two blocks")
    move = lambda: xn.move(low, m.node, [slot(0)], m.leaf, [slot(0, DATA, m.data, 2)])  # noqa: E731
    s.refused(move, "a pointer into a block of somebody else")
    for block in (m.leaf, m.node):
        xn.update(m.who, block, [(OWNER_AT, bytes(4))])
