"""Hostile types: what Mallory hands to whoever may install types, in the hope that it is accepted.

Refused when installed (`owns` and `acl` are proved then), or, where a type is sound but lies, when
a change relies on it.
"""

# ruff: noqa: B023 - what a lambda is given for is called at once
from __future__ import annotations

from dataclasses import replace

from xnfs import T_UNREADABLE, NoSpace, Refused, TypeSpec, UnknownType
from xnfs_trials.attack.case import EBPF, OWN, SAFE, SOSP97, STARVE, TOCTOU, XN, case
from xnfs_trials.attack.session import Session
from xnfs_trials.attack.world import NODE

#: Zeros own nothing here, so that what is refused is refused for its own sake.
_HEAD = "def owns(meta, part):\n    if u32(meta, 64) == 0:\n        return\n    "
#: One pointer in bytes 64 to 80: kind, count, block.
_BASE = TypeSpec(
    "m.evil",
    owns=_HEAD + "emit(0, u64(meta, 72), u32(meta, 68))\n",
    parts=((64, 16, 16, 1),),
    stamp=0,
    refs=("s.node",),
)


def _install(s: Session, *specs: TypeSpec) -> None:
    for number, spec in enumerate(specs):
        s.refused(lambda: s.xn.install_type(s.admin, spec), f"type {number}")


def _bodies(s: Session, *bodies: str) -> None:
    _install(s, *(replace(_BASE, owns=_HEAD + body + "\n") for body in bodies))


def _twin(s: Session, body: str, **rest: object) -> None:
    """The same idea done right must be accepted."""
    spec = replace(_BASE, name="m.twin", owns=_HEAD + body + "\n", **rest)  # type: ignore[arg-type]
    s.honest(lambda: s.xn.install_type(s.admin, spec), "the safe twin")


def _acls(s: Session, *bodies: str) -> None:
    head = "def acl(op, mask, old, new, wit, self, witno, uid, gid, groups, now):\n    "
    _install(s, *(replace(_BASE, acl=head + body + "\n") for body in bodies))


@case("udf-reads-elsewhere", "owns reads outside its partition's bytes", SOSP97, Refused)
def _elsewhere(s: Session) -> None:
    _bodies(s, "emit(0, u64(meta, 80), 1)", "emit(0, u64(meta, 73), 1)", "emit(0, u8(meta, 63), 1)")
    two = replace(_BASE, parts=((64, 16, 16, 2),))
    _install(s, two, replace(two, owns="def owns(meta, part):\n    emit(0, 1, u8(meta, 64))\n"))
    _twin(s, "emit(0, u64(meta, 72), u8(meta, 71))")


@case("udf-range-inclusive", "owns reads one byte beyond the end of its range", XN, Refused)
def _inclusive(s: Session) -> None:
    _bodies(
        s, "emit(0, u8(meta, 80), 1)", "emit(0, u16(meta, 79), 1)", "emit(0, u8(meta, 4096), 1)"
    )
    _bodies(s, "x = 0\n    for i in range(17):\n        x = u8(meta, 64 + i)\n    emit(0, x, 1)")
    _twin(s, "x = 0\n    for i in range(16):\n        x = u8(meta, 64 + i)\n    emit(0, x, 1)")


@case("udf-bad-read", "owns loads from an address that nothing bounds", XN, Refused)
def _bad_read(s: Session) -> None:
    _bodies(
        s,
        "emit(0, u8(meta, u32(meta, 64)), 1)",
        "emit(0, u64(meta, 18446744073709551615), 1)",
        "k = u32(meta, 64)\n    if k != 4096:\n        emit(0, u8(meta, k), 1)",
    )
    _twin(s, "k = u32(meta, 64)\n    if k >= 64 and k < 80:\n        emit(0, u8(meta, k), 1)")


@case("udf-division-by-zero", "owns divides by a number from the block", XN, Refused)
def _division(s: Session) -> None:
    _bodies(
        s,
        "emit(0, 1 // u32(meta, 64), 1)",
        "emit(0, 1 % u32(meta, 64), 1)",
        "emit(0, 1 % (u32(meta, 64) & 8), 1)",
    )
    _twin(s, "emit(0, 1 // (u8(meta, 65) + 1), 1)")


@case(
    "udf-branch-targets",
    "control goes where no check looked: loops, calls, nested code",
    XN,
    Refused,
)
def _branches(s: Session) -> None:
    _bodies(
        s,
        "while 1:\n        pass",
        "break",
        "owns(meta, part)",
        "def f():\n        pass\n    f()",
        "(lambda: emit(0, 1, 1))()",
        "try:\n        pass\n    except E:\n        pass",
        "yield 1",
        "raise meta",
    )


@case(
    "udf-operands",
    "operands that the verifier did not think of: strings, floats, big numbers",
    XN,
    Refused,
)
def _operands(s: Session) -> None:
    _bodies(
        s,
        'emit(0, u64("meta", 72), 1)',
        "emit(0, 1.5, 1)",
        "emit(0, -1, 1)",
        "emit(0, 1 << 64, 1)",
        "emit(0, 1 << u32(meta, 64), 1)",
        "emit(0, u64(part, 72), 1)",
        "emit(0, u64(meta), 1)",
        "emit(0, 1)",
        "emit(0, None, 1)",
        "emit(0, meta, 1)",
    )


@case("udf-escapes", "names that lead out of the language into Python", SAFE, Refused)
def _escapes(s: Session) -> None:
    _bodies(
        s,
        "meta.__class__",
        "__import__(0)",
        "emit(0, meta[72], 1)",
        "import os",
        "eval(meta)",
        "emit.__globals__",
        "emit(0, *meta)",
        "global meta",
    )


@case("udf-not-deterministic", "owns answers differently each time", SOSP97, Refused)
def _nondeterministic(s: Session) -> None:
    _bodies(s, "emit(0, now, 1)", "emit(0, id(meta), 1)", "emit(0, hash(part), 1)", "emit(0, x, 1)")
    _install(s, replace(_BASE, owns="def owns(meta, part, seen=[]):\n    seen.append(1)\n"))
    _install(s, replace(_BASE, owns="def owns(meta, part):\n    meta = 5\n    emit(0, meta, 1)\n"))


@case("udf-huge", "code, tables and loops that cost more than they may", STARVE, Refused)
def _huge(s: Session) -> None:
    _bodies(
        s,
        "for i in range(100000):\n        pass",
        "x = 1\n" + "    x = x & 7\n" * 3000,
        "emit(0, " + "(" * 300 + "1" + ")" * 300 + ", 1)",
        "if 1:\n" + "".join("    " * d + "if 1:\n" for d in range(2, 90)) + "    " * 90 + "pass",
    )
    _install(
        s,
        replace(_BASE, parts=((64, 2, 2, 2000),)),
        replace(_BASE, parts=((64, 16, 16, 1),) * 70),
        replace(_BASE, parts=((64, 16, 16, 2**40),)),
        replace(_BASE, refs=("s.node",) * 70),
    )


@case("udf-overflow", "arithmetic that wraps around 2 to the power of 64", EBPF, Refused)
def _overflow(s: Session) -> None:
    _bodies(
        s,
        "emit(0, u64(meta, 64) + u64(meta, 72), 1)",
        "emit(0, u64(meta, 64) * u64(meta, 72), 1)",
        "emit(0, u64(meta, 64) << 8, 1)",
        "emit(0, u32(meta, 64) - u32(meta, 68), 1)",
    )
    _twin(s, "emit(0, u32(meta, 64) * u32(meta, 68), 1)")


@case("udf-emits-too-much", "owns names more extents than the kernel has room for", OWN, Refused)
def _emits(s: Session) -> None:
    _bodies(s, "for i in range(5):\n        emit(0, u64(meta, 72), 1)")
    _twin(s, "for i in range(4):\n        emit(0, u64(meta, 72), 1)")


@case("udf-zeros-own", "a block of zeros owns something from its birth", OWN, Refused)
def _zeros(s: Session) -> None:
    root = s.a.root
    for body in (f"emit(0, {root}, 1)", f"emit(0, {root} + u32(meta, 64), 1)"):
        _install(s, replace(_BASE, owns=f"def owns(meta, part):\n    {body}\n"))


@case(
    "partitions-overlap",
    "a pointer that two partitions own, so that one of them can keep it",
    SOSP97,
    Refused,
)
def _overlap(s: Session) -> None:
    code = "def owns(meta, part):\n    p = u64(meta, 72)\n    if p > 0:\n        emit(0, p, 1)\n"
    both = replace(_BASE, owns=code)
    _install(
        s,
        replace(both, parts=((64, 8, 16, 2),)),
        replace(both, parts=((64, 16, 16, 1), (72, 16, 16, 1))),
        replace(both, parts=((64, 16, 16, 1), (64, 16, 16, 1))),
        replace(_BASE, raw=(79, 100)),
        replace(_BASE, raw=(64, 80)),
    )
    _twin(s, "emit(0, u64(meta, 72), 1)", raw=(80, 4096))


@case(
    "partitions-outside",
    "partitions and raw bytes beyond the block, or over the kernel's stamp",
    XN,
    Refused,
)
def _outside(s: Session) -> None:
    _install(
        s,
        replace(_BASE, parts=((4088, 16, 16, 1),)),
        replace(_BASE, parts=((4081, 16, 16, 1),)),
        replace(_BASE, parts=((-16, 16, 16, 1),)),
        replace(_BASE, parts=((0, 16, 16, 1),)),
        replace(_BASE, stamp=64),
        replace(_BASE, stamp=4088),
        replace(_BASE, stamp=-8),
        replace(_BASE, raw=(0, 8)),
        replace(_BASE, raw=(4000, 4097)),
        replace(_BASE, raw=(-1, 5)),
    )


@case(
    "type-shape",
    "types that are two things at once: data that owns, unreadable with a stamp",
    OWN,
    Refused,
)
def _shape(s: Session) -> None:
    _install(
        s,
        replace(_BASE, stamp=None),
        replace(_BASE, flags=T_UNREADABLE),
        replace(_BASE, flags=6),
        replace(_BASE, owns=""),
        replace(_BASE, parts=()),
        replace(_BASE, name="../../x"),
        replace(_BASE, name="m\0evil"),
    )


@case(
    "type-redefined",
    "other code under the name of a type that blocks have already",
    TOCTOU,
    Refused,
)
def _redefined(s: Session) -> None:
    node = next(spec for _n, spec in s.xn.types() if spec.name == "s.node")
    _install(
        s,
        replace(node, owns="", parts=()),
        replace(node, acl=""),
        replace(node, raw=(576, 4096)),
        TypeSpec("s.hidden"),
    )


@case(
    "type-of-the-kernel",
    "a type by the name of the kernel's own, and roots of odd types",
    OWN,
    Refused,
    UnknownType,
)
def _kernels(s: Session) -> None:
    number = s.xn.install_type(s.admin, TypeSpec("xn.roots"))
    s.holds(number >= 16, "the kernel's type was replaced")
    data = s.xn.type_number("s.data") or 0
    for kind in (1, number, data, 0, -1, 2**40):
        s.refused(lambda: s.xn.install_root(s.admin, "evil", kind), f"root of type {kind}")


def _liar(s: Session, spec: TypeSpec) -> int:
    """A block of a sound type that lies, below a root of its own; its number."""
    kind = s.xn.install_type(s.admin, spec)
    return s.xn.install_root(s.admin, f"liar{len(s.xn.roots())}", kind).block


@case(
    "owns-hides-pointers",
    "owns shows a pointer only while a switch beside it is on",
    SOSP97,
    Refused,
)
def _hides(s: Session) -> None:
    code = _HEAD + "emit(0, u64(meta, 72), u32(meta, 68))\n"
    block = _liar(s, replace(_BASE, name="m.switch", owns=code))
    victim = s.a.node.to_bytes(8, "little")
    s.xn.update(s.admin, block, [(68, b"\1\0\0\0" + victim)])  # owns nothing, so far
    s.refused(lambda: s.xn.update(s.admin, block, [(64, b"\1")]), "the switch")
    node = [(s.xn.type_number("s.node") or 0, s.a.node, 1)]
    edits = [(block, [(64, b"\1")])]
    s.refused(lambda: s.xn.change(s.admin, edits, share=node), "the switch, as a share")
    s.refused(lambda: s.xn.readin(s.admin, block, 0, s.a.node, 1), "a hidden pointer")


@case(
    "owns-overflowing-run",
    "a pointer whose run reaches around the end of all numbers",
    EBPF,
    Refused,
)
def _run(s: Session) -> None:
    block = _liar(s, replace(_BASE, name="m.run"))
    kind = s.xn.type_number("s.node") or 0
    for start, count in (
        (2**64 - 1, 2),
        (2**64 - 1, 2**32 - 1),
        (s.a.root, 2**32 - 1),
        (0, 1),
        (1, 0),
    ):
        raw = b"\1\0\0\0" + count.to_bytes(4, "little") + start.to_bytes(8, "little")
        for claims in ([], [(kind, start, count)]):
            if not count and not claims:
                continue  # a run of none is none
            edits = [(block, [(64, raw)])]
            s.refused(lambda: s.xn.change(s.admin, edits, alloc=claims), f"{start}+{count}")


@case(
    "owns-unknown-reference",
    "a pointer of a type that is not there, or of none at all",
    SOSP97,
    Refused,
    UnknownType,
)
def _reference(s: Session) -> None:
    code = _HEAD + "emit(u8(meta, 65), u64(meta, 72), u32(meta, 68))\n"
    block = _liar(s, replace(_BASE, name="m.ref", owns=code, refs=("s.node", "m.none")))
    start = s.find()
    for ref in (1, 2, 7):
        raw = b"".join((bytes([1, ref, 0, 0]), b"\1\0\0\0", start.to_bytes(8, "little")))
        for kind in (16, 17, 99):
            edits = [(block, [(64, raw)])]
            claims = [(kind, start, 1)]
            s.refused(lambda: s.xn.change(s.admin, edits, alloc=claims), f"reference {ref}")


@case("owns-wrong-count", "owns says fewer blocks than are claimed, or more", SOSP97, Refused)
def _count(s: Session) -> None:
    code = _HEAD + "emit(0, u64(meta, 72), 1)\n"
    block = _liar(s, replace(_BASE, name="m.count", owns=code))
    kind, start = s.xn.type_number(f"s.{NODE}") or 0, s.find(2)
    for said, claimed in ((2, 2), (1, 2), (3, 0)):
        raw = b"\1\0\0\0" + said.to_bytes(4, "little") + start.to_bytes(8, "little")
        claims = [(kind, start, claimed)] if claimed else []
        edits = [(block, [(64, raw)])]
        s.refused(lambda: s.xn.change(s.admin, edits, alloc=claims), f"{said}, {claimed}")


@case(
    "acl-out-of-bounds", "an acl that reads outside, answers nonsense or never ends", EBPF, Refused
)
def _acl(s: Session) -> None:
    _acls(
        s,
        "return u8(old, 4096)",
        "return u8(wit, u32(old, 64))",
        "return 134",
        "return 0 - 1",
        "return now",
        "if op == 0: return 0",
        "return groups[0]",
        "for i in range(300):\n        for j in range(300):\n            pass\n    return 0",
        "while 1: pass",
    )


@case("types-exhausted", "types until the catalogue is full", STARVE, NoSpace)
def _types(s: Session) -> None:
    for number in range(20):
        try:
            s.xn.install_type(s.admin, TypeSpec(f"m.fill{number}"))
        except NoSpace:
            break
    s.refused(lambda: s.xn.install_type(s.admin, TypeSpec("m.onemore")), "one more")
    s.holds(s.xn.install_type(s.admin, TypeSpec("s.data")) == 16, "an installed type is unknown")
