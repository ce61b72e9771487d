"""Expressions and conditions on intervals: the half of the proof that doesn't move.

An `Evaluator` computes what an expression may be in a state, proves each operation and each load
on the way, and splits a state at a condition. Statements, loops and the end of the function are
in `verifier`, which owns one evaluator for each verification.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from xnfs.sandbox import nodes as n
from xnfs.sandbox.errors import UnprovedError, VerifyError
from xnfs.sandbox.intrinsics import BULK_BYTES_PER_STEP
from xnfs.sandbox.refine import NEGATED, assume, assume_among, known_gap, narrow
from xnfs.sandbox.signature import MAX_U64, Buffer, Limits
from xnfs.sandbox.state import Linear, State, linear, meet, plus
from xnfs.sandbox.values import (
    BINARY,
    BIT,
    ONE,
    ZERO,
    Interval,
    Missing,
    Value,
    Vector,
    compare,
    hull,
    join,
    show,
)

_RANGE_OF_WIDTH: Final = {width: (0, (1 << 8 * width) - 1) for width in (1, 2, 4, 8)}


@dataclass(slots=True)
class Findings:
    """What one verification proved. `hulls`: all values that a node was seen to have, and for a
    load the bytes that it may touch."""

    steps: int = 0
    reads: set[tuple[int, int, int]] = field(default_factory=set)  # slot, lo, end
    hulls: dict[tuple[object, int], Interval] = field(default_factory=dict)


class Evaluator:
    """Knows the shape, the budget, what was found so far, and how much work that took."""

    def __init__(self, shape: n.Shape, budget: int) -> None:
        self.shape = shape
        self.budget = budget
        self.found = Findings()
        self.work = 0
        params = shape.signature.params
        self.buffers = {slot for slot, p in enumerate(params) if isinstance(p, Buffer)}

    def value(self, node: n.Expr, st: State) -> Value:
        """The value of an expression. It may add steps to the state."""
        return _EXPRESSIONS[type(node)](self, node, st)

    def charge(self, line: int, cost: int, st: State) -> None:
        """Pay for a statement, in steps of the run and in work of the verifier."""
        st.steps += cost
        self.work += cost
        if st.steps > self.budget:
            raise VerifyError(line, f"more than the budget of {self.budget} steps")
        if self.work > Limits.ABSTRACT_STEPS:
            raise VerifyError(line, "too complex to verify")

    def merge(self, a: State | None, b: State | None) -> State | None:
        """Where two paths meet. None is a path that can't be taken."""
        return b if a is None else a if b is None else meet(a, b, self.join)

    def join(self, a: Value, b: Value) -> Value:
        self.work += 1 + (len(a.items) if isinstance(a, Vector) else 0)
        return join(a, b)

    def extra(self, steps: int, st: State) -> None:
        """Pay for what a length known only here adds; the next statement checks the budget."""
        st.steps += steps

    def note(self, node: object, slot: int, lo: int, hi: int) -> None:
        """Remember for the proof which values a node had, on any path and in any turn."""
        known = self.found.hulls.get((node, slot))
        if known is None or lo < known[0] or hi > known[1]:
            self.found.hulls[node, slot] = (lo, hi) if known is None else hull(known, (lo, hi))

    # Conditions

    def branch(self, node: n.Expr, st: State) -> tuple[State | None, State | None]:
        """Evaluate a condition: the state where it holds, and the one where it doesn't."""
        match node:
            case n.Compare():
                return self.branch_compare(node, st)
            case n.Logic():
                return self.branch_logic(node, st)
            case n.Not(item=item):
                yes, no = self.branch(item, st)
                return no, yes
            case n.Contains():
                return self.branch_contains(node, st)
        a = self.integer(node, st)
        if a[0] > 0 or a[1] == 0:
            return (st, None) if a[0] > 0 else (None, st)
        yes = st.copy()
        return (
            yes if narrow(node, 1, MAX_U64, yes) else None,
            st if narrow(node, 0, 0, st) else None,
        )

    def branch_compare(self, node: n.Compare, st: State) -> tuple[State | None, State | None]:
        holds: State | None = st
        fails: State | None = None
        for op, left, right in zip(node.ops, node.items, node.items[1:], strict=False):
            if holds is None:
                break
            holds, wrong = self.branch_pair(op, left, right, holds)
            fails = self.merge(fails, wrong)
        return holds, fails

    def branch_pair(
        self, op: str, left: n.Expr, right: n.Expr, st: State
    ) -> tuple[State | None, State | None]:
        a, b = self.integer(left, st), self.integer(right, st)
        outcome = compare(op, a, b)
        if outcome is not None:
            return (st, None) if outcome else (None, st)
        yes = assume(op, left, a, right, b, st.copy())
        return yes, assume(NEGATED[op], left, a, right, b, st)

    def branch_logic(self, node: n.Logic, st: State) -> tuple[State | None, State | None]:
        """`and` goes on while items hold, `or` while they fail; what stops early is joined."""
        on: State | None = st
        stopped: State | None = None
        for item in node.items:
            if on is None:
                break
            yes, no = self.branch(item, on)
            on, stop = (yes, no) if node.every else (no, yes)
            stopped = self.merge(stopped, stop)
        return (on, stopped) if node.every else (stopped, on)

    def branch_contains(self, node: n.Contains, st: State) -> tuple[State | None, State | None]:
        a, vector = self.contains(node, st)
        sure = vector.items[: vector.least]
        if a[0] == a[1] and a in sure:
            return st, None
        if not any(v[0] <= a[1] and a[0] <= v[1] for v in vector.items):
            return None, st
        yes = assume_among(node.item, a, vector, True, st.copy())
        return yes, assume_among(node.item, a, vector, False, st)

    def contains(self, node: n.Contains, st: State) -> tuple[Interval, Vector]:
        a, vector = self.integer(node.item, st), self.vector(node.sequence, st)
        self.work += len(vector.items)
        self.extra(len(vector.items), st)
        return a, vector

    # Expressions: each gives the value, and may add steps to the state.

    def integer(self, node: n.Expr, st: State) -> Interval:
        value = _EXPRESSIONS[type(node)](self, node, st)
        if not isinstance(value, tuple):
            raise VerifyError(node.line, "a tuple stands where an integer must be")
        return value

    def vector(self, node: n.Expr, st: State) -> Vector:
        return self.as_vector(_EXPRESSIONS[type(node)](self, node, st), node.line)

    def as_vector(self, value: Value, line: int) -> Vector:
        if not isinstance(value, Vector):
            raise VerifyError(line, "an integer stands where a tuple must be")
        return value

    def const(self, node: n.Const, st: State) -> Interval:
        return (node.value, node.value)

    def local(self, node: n.Local, st: State) -> Value:
        value = st.slots[node.slot]
        if isinstance(value, Missing):
            raise VerifyError(node.line, f"{self.shape.names[node.slot]!r} {value.why}")
        return value

    def length(self, node: n.Length, st: State) -> Interval:
        if node.slot in self.buffers:
            return self.buffer_length(node.slot, st)
        vector = self.as_vector(self.local(n.Local(node.line, node.slot), st), node.line)
        return (vector.least, len(vector.items))

    def buffer_length(self, slot: int, st: State) -> Interval:
        length = st.slots[slot]
        assert isinstance(length, tuple)  # set from the signature, and only narrowed since
        return length

    def binary(self, node: n.Binary, st: State) -> Interval:
        a, b = self.integer(node.left, st), self.integer(node.right, st)
        try:
            result = BINARY[node.op](a, b)
        except UnprovedError as error:
            gap = known_gap(node.left, node.right, st) if node.op == "-" else -1
            if not 0 <= gap <= a[1] - b[0]:
                raise VerifyError(node.line, str(error)) from None
            result = (gap, a[1] - b[0])
        self.note(node, 0, *result)
        return result

    def truth(self, node: n.Expr, st: State) -> Interval:
        """The value 0 or 1 of a condition that isn't used to branch."""
        yes, no = self.branch(node, st.copy())
        st.steps = max(s.steps for s in (yes, no, st) if s is not None)
        return ZERO if yes is None else ONE if no is None else BIT

    def choose(self, node: n.Choose, st: State) -> Interval:
        yes, no = self.branch(node.condition, st.copy())
        values = []
        for path, item in ((yes, node.yes), (no, node.no)):
            if path is not None:
                values.append(self.integer(item, path))
                st.steps = max(st.steps, path.steps)
        if not values:
            raise VerifyError(node.line, "no value is possible here")
        return hull(values[0], values[-1])

    def pick(self, node: n.Pick, st: State) -> Interval:
        values = [self.integer(item, st) for item in node.items]
        lows, highs = [v[0] for v in values], [v[1] for v in values]
        return (min(lows), min(highs)) if node.least else (max(lows), max(highs))

    def tuple_of(self, node: n.TupleOf, st: State) -> Vector:
        items = tuple([self.integer(item, st) for item in node.items])
        return Vector(items, len(items))

    def index(self, node: n.Index, st: State) -> Interval:
        vector, i = self.vector(node.sequence, st), self.integer(node.index, st)
        if i[1] >= vector.least:
            reason = f"index {show(i)} may pass the end of a tuple of {count_of(vector)}"
            raise VerifyError(node.line, reason)
        self.note(node, 0, *i)
        self.work += i[1] - i[0]
        result = vector.items[i[0]]
        for item in vector.items[i[0] + 1 : i[1] + 1]:
            result = hull(result, item)
        return result

    def load(self, node: n.LoadOne, st: State) -> Interval:
        offset = self.integer(node.offset, st)
        width = node.width
        self.inside(node, 0, node.buffer, offset, node.offset, (width, width), st)
        return _RANGE_OF_WIDTH[width]

    def load_tuple(self, node: n.LoadTuple, st: State) -> Vector:
        offset = self.integer(node.offset, st)
        size = node.width * node.count
        self.inside(node, 0, node.buffer, offset, node.offset, (size, size), st)
        return Vector((_RANGE_OF_WIDTH[node.width],) * node.count, node.count)

    def bulk(self, node: n.BulkOp, st: State) -> Interval:
        offsets = [self.integer(offset, st) for _, offset in node.spans]
        size = self.integer(node.length, st)
        for item in node.extra:
            self.integer(item, st)
        for number, ((buffer, expr), offset) in enumerate(zip(node.spans, offsets, strict=True)):
            self.inside(node, number, buffer, offset, expr, size, st, linear(node.length))
        # It was just proved that the length is no more than that of any of the buffers.
        most = min(size[1], *(self.buffer_length(buffer, st)[1] for buffer, _ in node.spans))
        self.extra(-(-most // BULK_BYTES_PER_STEP) * len(node.spans), st)
        return (0, node.hi)

    def inside(
        self,
        node: n.LoadOne | n.LoadTuple | n.BulkOp,
        number: int,
        buffer: int,
        offset: Interval,
        expr: n.Expr,
        size: Interval,
        st: State,
        count: Linear | None = None,
    ) -> None:
        """Prove that `size` bytes at `offset` lie inside the buffer, and note what they are."""
        length = self.buffer_length(buffer, st)
        end = offset[1] + size[1]
        if end > length[0]:
            limits: list[Linear] = [(((2 * buffer + 1, 1),), 0), ((), length[0])]
            stops = [plus(linear(expr), c) for c in (count, ((), size[1]))]
            if not any(st.ordered(stop, limit) for stop in stops for limit in limits):
                raise VerifyError(node.line, self.passes(buffer, offset, size, length))
            end = min(end, length[1])  # the fact says: inside the buffer, however long it is
        if size[1]:
            self.found.reads.add((buffer, offset[0], end))
        self.note(node, number, offset[0], end)

    def passes(self, buffer: int, offset: Interval, size: Interval, length: Interval) -> str:
        has = show(length) if length[0] == length[1] else f"at least {length[0]}"
        return (
            f"load of {show(size)} bytes at offset {show(offset)} may pass the end of "
            f"{self.shape.names[buffer]!r} ({has} bytes)"
        )


def count_of(vector: Vector) -> str:
    """How many values a tuple has, in words."""
    return f"{show((vector.least, len(vector.items)))} values"


_EXPRESSIONS: Final[dict[type, Callable[[Evaluator, Any, State], Value]]] = {
    n.Const: Evaluator.const,
    n.Local: Evaluator.local,
    n.Length: Evaluator.length,
    n.Binary: Evaluator.binary,
    n.Compare: Evaluator.truth,
    n.Contains: Evaluator.truth,
    n.Logic: Evaluator.truth,
    n.Not: Evaluator.truth,
    n.Choose: Evaluator.choose,
    n.Pick: Evaluator.pick,
    n.TupleOf: Evaluator.tuple_of,
    n.Index: Evaluator.index,
    n.LoadOne: Evaluator.load,
    n.LoadTuple: Evaluator.load_tuple,
    n.BulkOp: Evaluator.bulk,
}
