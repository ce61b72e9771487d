"""What a condition teaches about the variables in it.

`assume` narrows a state to the inputs for which a comparison holds. Each narrowing must follow
from the comparison for every input, or the verifier would believe in bounds that don't exist:
that is where published escapes from eBPF's verifier live, so each rule states its reason.

It relies on the operands having been evaluated in the same state: their arithmetic doesn't wrap.
"""

from __future__ import annotations

from typing import Final

from xnfs.sandbox import nodes as n
from xnfs.sandbox.signature import MAX_U64
from xnfs.sandbox.state import State, linear
from xnfs.sandbox.values import U64, Interval, Vector

NEGATED: Final = {"==": "!=", "!=": "==", "<": ">=", ">=": "<", ">": "<=", "<=": ">"}


def assume(
    op: str, left: n.Expr, a: Interval, right: n.Expr, b: Interval, st: State
) -> State | None:
    """Narrow `st` to where `left op right`; a and b are their intervals. None: nowhere."""
    if op in (">", ">="):
        op, left, a, right, b = ("<" if op == ">" else "<="), right, b, left, a
    if op in ("<", "<="):
        gap = 1 if op == "<" else 0
        # left + gap <= right <= b.hi, and right >= left + gap >= a.lo + gap
        possible = narrow(left, 0, b[1] - gap, st) and narrow(right, a[0] + gap, MAX_U64, st)
        st.learn(linear(left), linear(right), gap)
    elif op == "==":
        lo, hi = max(a[0], b[0]), min(a[1], b[1])
        possible = narrow(left, lo, hi, st) and narrow(right, lo, hi, st)
        st.learn(linear(left), linear(right), 0)
        st.learn(linear(right), linear(left), 0)
    else:
        possible = _differ(left, a, b, st) and _differ(right, b, a, st)
    return st if possible else None


def _differ(node: n.Expr, a: Interval, b: Interval, st: State) -> bool:
    """`node`, in a, is not equal to a value in b: says something only if b is a single value
    that lies at an end of a."""
    if b[0] != b[1]:
        return True
    lo, hi = a
    if lo == b[0]:
        lo += 1
    if hi == b[0]:
        hi -= 1
    return narrow(node, lo, hi, st)


def assume_among(item: n.Expr, a: Interval, vector: Vector, found: bool, st: State) -> State | None:
    """Narrow `st` to where `item in vector` is `found`."""
    if found:
        lows = [v[0] for v in vector.items]
        highs = [v[1] for v in vector.items]
        return st if lows and narrow(item, min(lows), max(highs), st) else None
    # Only values that surely exist and are known exactly exclude anything.
    absent = {v[0] for v in vector.items[: vector.least] if v[0] == v[1]}
    lo, hi = a
    while lo in absent and lo <= hi:
        lo += 1
    while hi in absent and lo <= hi:
        hi -= 1
    return st if narrow(item, lo, hi, st) else None


def known_gap(large: n.Expr, small: n.Expr, st: State) -> int:
    """The greatest known g for which small + g <= large, or -1."""
    smalls, larges = [small], [large]
    if isinstance(small, n.Pick) and small.least:
        smalls += small.items  # min(x, y) <= x
    if isinstance(large, n.Pick) and not large.least:
        larges += large.items  # max(x, y) >= x
    gaps = [st.gap(linear(s), linear(g)) for s in smalls for g in larges]
    return max((g for g in gaps if g is not None), default=-1)


def assume_picked(slot: int, value: n.Pick, st: State) -> None:
    """Note, after `slot = min(x, y)`, that slot <= x and slot <= y; after max the other way."""
    here = n.Local(value.line, slot)
    for item in value.items:
        form = linear(item)
        # An item that names the variable itself means its value before the assignment.
        if form is not None and all(variable >> 1 != slot for variable, _ in form[0]):
            small, large = (linear(here), form) if value.least else (form, linear(here))
            st.learn(small, large, 0)


def narrow(node: n.Expr, lo: int, hi: int, st: State) -> bool:
    """Note that `node` lies in lo..hi. False: that can't be."""
    if lo > hi:
        return False
    match node:
        case n.Local(slot=slot):
            return _narrow_slot(slot, lo, hi, st)
        case n.Length(slot=slot):
            return _narrow_length(slot, lo, hi, st)
        case n.Binary(op="+", left=x, right=y):  # lo - y <= x <= hi - y, and so for y
            a, b = _known(x, st), _known(y, st)
            return narrow(x, lo - b[1], hi - b[0], st) and narrow(y, lo - a[1], hi - a[0], st)
        case n.Binary(op="-", left=x, right=y):  # lo + y <= x <= hi + y, x - hi <= y <= x - lo
            a, b = _known(x, st), _known(y, st)
            return narrow(x, lo + b[0], hi + b[1], st) and narrow(y, a[0] - hi, a[1] - lo, st)
        case n.Binary(op=op, left=left, right=n.Const(value=k)):
            return _narrow_left(op, left, k, lo, hi, st)
        case n.Binary(op="*", left=n.Const(value=k), right=right):
            return _narrow_left("*", right, k, lo, hi, st)
    return True


def _known(node: n.Expr, st: State) -> Interval:
    """Bounds of a value without evaluating it again; what isn't simple may be anything."""
    if isinstance(node, n.Const):
        return (node.value, node.value)
    value = st.slots[node.slot] if isinstance(node, n.Local | n.Length) else U64
    return value if isinstance(value, tuple) else U64


def _narrow_left(op: str, x: n.Expr, k: int, lo: int, hi: int, st: State) -> bool:
    """From lo <= x op k <= hi follows something about x."""
    if op == "*" and k:
        return narrow(x, -(-lo // k), hi // k, st)
    if op == "//" and k:
        return narrow(x, lo * k, hi * k + k - 1, st)
    if op == ">>":
        return narrow(x, lo << k, ((hi + 1) << k) - 1, st)
    if op == "<<":
        return narrow(x, -(-lo // (1 << k)), hi >> k, st)
    if op in ("&", "%"):
        return narrow(x, lo, MAX_U64, st)  # x & k <= x, and x % k <= x
    return True


def _narrow_slot(slot: int, lo: int, hi: int, st: State) -> bool:
    now = st.slots[slot]
    if not isinstance(now, tuple):
        return True
    if lo <= now[0] and now[1] <= hi:
        return True
    lo, hi = max(lo, now[0]), min(hi, now[1])
    st.slots[slot] = (lo, hi)
    return lo <= hi


def _narrow_length(slot: int, lo: int, hi: int, st: State) -> bool:
    now = st.slots[slot]
    if isinstance(now, tuple):  # the slot of a buffer holds its length
        return _narrow_slot(slot, lo, hi, st)
    if isinstance(now, Vector):
        lo, hi = max(lo, now.least), min(hi, len(now.items))
        if lo > hi:
            return False
        st.slots[slot] = Vector(now.items[:hi], lo)
    return True
