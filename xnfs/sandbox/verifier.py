"""The proof: abstract interpretation of a checked shape.

The verifier runs the function once on intervals instead of numbers (`values`), both ways at each
condition (`evaluator`, `refine`), and joins the ways where they meet, so its work grows with the
length of the function and the turns of its loops, never with the number of paths. A loop is
first summed up: a state that holds before every turn is found and one turn is proved from it. Where
that proves too little, all is proved again with loops unrolled, which keeps every turn exact;
`Limits.ABSTRACT_STEPS` bounds the work. What it can't prove it refuses.

It guarantees, for all arguments that fit the signature: every load lies inside its buffer and
inside `reads`, no operation leaves 0..2**64-1, no name is used before it has a value, the function
ends after at most `steps` steps with a result in the range asked for.

Sources: McCanne and Jacobson 1993 (packet filters); Kaashoek et al. 1997, section 4.2
(deterministic UDFs); Cousot and Cousot 1977 (intervals); the verifier of Linux's eBPF.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from xnfs.sandbox import nodes as n
from xnfs.sandbox.errors import VerifyError
from xnfs.sandbox.evaluator import Evaluator, Findings, count_of
from xnfs.sandbox.refine import assume_picked
from xnfs.sandbox.signature import MAX_U64, Buffer, Int, Ints
from xnfs.sandbox.state import State
from xnfs.sandbox.values import U64, UNDEFINED, Interval, Value, Vector, hull, show

#: Loops of so many turns are unrolled at once; a summary must be found in so many attempts.
_FEW: Final = 4
_ATTEMPTS: Final = 6


class _Loop:
    """The paths that left a turn of the innermost loop early."""

    __slots__ = ("broken", "continued")

    def __init__(self) -> None:
        self.broken: State | None = None
        self.continued: State | None = None


def prove(shape: n.Shape, budget: int, fix: Mapping[str, int] | None) -> Findings:
    """Prove `shape` safe within `budget` steps, with some Int parameters fixed to one value.

    Raises: VerifyError.
    """
    try:
        return _Verifier(shape, budget, unroll=False).function(fix or {})
    except VerifyError:
        return _Verifier(shape, budget, unroll=True).function(fix or {})


class _Verifier:
    def __init__(self, shape: n.Shape, budget: int, *, unroll: bool) -> None:
        self.shape = shape
        self.unroll = unroll
        self.on = Evaluator(shape, budget)
        self.loops: list[_Loop] = []

    def function(self, fix: Mapping[str, int]) -> Findings:
        shape = self.shape
        slots: list[Value] = [_parameter(p, fix, shape.line) for p in shape.signature.params]
        for name in fix:
            if not any(isinstance(p, Int) and p.name == name for p in shape.signature.params):
                raise VerifyError(shape.line, f"there is no integer parameter {name!r} to fix")
        slots += [UNDEFINED] * (len(shape.names) - len(slots))
        end = self.block(shape.body, State(slots, {}, 1, 0))
        if end is not None:
            if shape.signature.returns is not None:
                raise VerifyError(shape.last_line, "the function may end without a result")
            self.finish(shape.last_line, end)
        return self.on.found

    def finish(self, line: int, st: State) -> None:
        self.on.charge(line, 0, st)
        self.on.found.steps = max(self.on.found.steps, st.steps)

    # Statements: each takes the state before and gives the state after, None if none.

    def block(self, body: n.Block, st: State | None) -> State | None:
        for statement in body:
            if st is None:
                return None
            st = _STATEMENTS[type(statement)](self, statement, st)
        return st

    def assign(self, node: n.Assign, st: State) -> State:
        self.on.charge(node.line, node.cost, st)
        value = self.on.value(node.value, st)
        if not node.unpack:
            st.assign(node.targets[0], value)
            if isinstance(node.value, n.Pick):
                assume_picked(node.targets[0], node.value, st)
            return st
        vector = self.on.as_vector(value, node.line)
        count = len(node.targets)
        if len(vector.items) != count or vector.least != count:
            raise VerifyError(node.line, f"{count_of(vector)} can't be unpacked into {count} names")
        for slot, item in zip(node.targets, vector.items, strict=True):
            st.assign(slot, item)
        return st

    def conditional(self, node: n.If, st: State) -> State | None:
        after: State | None = None
        otherwise: State | None = st
        for arm in node.arms:
            if otherwise is None:
                return after
            self.on.charge(arm.line, arm.cost, otherwise)
            chosen, otherwise = self.on.branch(arm.condition, otherwise)
            after = self.on.merge(after, self.block(arm.body, chosen))
        return self.on.merge(after, self.block(node.orelse, otherwise))

    def for_range(self, node: n.ForRange, st: State) -> State | None:
        count = node.stop - node.start
        if not self.unroll and count > _FEW:
            return self.summary(node, (node.start, node.stop - 1), count, count, st)
        # An interval per turn: the loop variable is exact in each.
        turns = ((i, i) for i in range(node.start, node.stop))
        return self.turns(node, turns, MAX_U64, st)

    def for_each(self, node: n.ForEach, st: State) -> State | None:
        self.on.charge(node.line, node.cost, st)
        vector = self.on.vector(node.sequence, st)
        if not self.unroll and len(vector.items) > _FEW:
            item = vector.items[0]
            for other in vector.items[1:]:
                item = hull(item, other)
            return self.summary(node, item, len(vector.items), vector.least, st)
        return self.turns(node, iter(vector.items), vector.least, st)

    def summary(
        self, node: n.ForRange | n.ForEach, item: Interval, count: int, least: int, st: State
    ) -> State | None:
        """Prove a loop of at most `count` turns from a state that holds before each of them."""
        self.on.charge(node.line, 1, st)
        steps, emits = st.steps, st.emits
        before = st
        for _attempt in range(_ATTEMPTS):
            now, _broken = self.turn(node, item, before.copy())
            if now is None:
                break
            after = self.on.merge(before.copy(), now)
            assert after is not None  # two states were given
            if after.slots == before.slots and after.facts == before.facts:
                break
            # What one turn adds is not yet known to hold: take it in and look again.
            after.steps, after.emits = steps, emits
            before = after
        else:
            raise VerifyError(node.line, "no state is known that holds before every turn")
        # Once more as the last turn: the worst that can have been spent before it is known now.
        last = before.copy()
        if now is not None:
            last.steps = steps + (count - 1) * (now.steps - before.steps)
            last.emits = emits + (count - 1) * (now.emits - before.emits)
        end, broken = self.turn(node, item, last)
        if least == 0:
            end = self.on.merge(before, end)
        return self.on.merge(end, broken)

    def turn(
        self, node: n.ForRange | n.ForEach, item: Interval, st: State
    ) -> tuple[State | None, State | None]:
        """One turn from `st`: the state after it, and the one where it was broken off."""
        loop = _Loop()
        self.loops.append(loop)
        self.on.charge(node.line, 1, st)
        st.assign(node.target, item)
        end = self.on.merge(self.block(node.body, st), loop.continued)
        self.loops.pop()
        return end, loop.broken

    def turns(
        self, node: n.ForRange | n.ForEach, items: Iterable[Interval], least: int, st: State
    ) -> State | None:
        """Unroll a loop, of which the first `least` turns surely happen."""
        loop = _Loop()
        self.loops.append(loop)
        self.on.charge(node.line, 1, st)
        done: State | None = None
        now: State | None = st
        for turn, item in enumerate(items):
            if now is None:
                break
            if turn >= least:
                done = self.on.merge(done, now.copy())
            self.on.charge(node.line, 1, now)
            now.assign(node.target, item)
            now = self.on.merge(self.block(node.body, now), loop.continued)
            loop.continued = None
        self.loops.pop()
        return self.on.merge(self.on.merge(done, now), loop.broken)

    def leave(self, node: n.Break, st: State) -> None:
        self.on.charge(node.line, 1, st)
        self.loops[-1].broken = self.on.merge(self.loops[-1].broken, st)

    def again(self, node: n.Continue, st: State) -> None:
        self.on.charge(node.line, 1, st)
        self.loops[-1].continued = self.on.merge(self.loops[-1].continued, st)

    def emit(self, node: n.Emit, st: State) -> State:
        self.on.charge(node.line, node.cost, st)
        for item in node.items:
            self.on.integer(item, st)
        st.emits += 1
        most = self.shape.signature.max_emits
        if st.emits > most:
            raise VerifyError(node.line, f"more than {most} emits on one path")
        return st

    def result(self, node: n.Return, st: State) -> None:
        self.on.charge(node.line, node.cost, st)
        allowed = self.shape.signature.returns
        if allowed is None:
            if node.value is not None:
                raise VerifyError(node.line, "this function returns nothing")
        elif node.value is None:
            raise VerifyError(node.line, "this function must return a value")
        else:
            a = self.on.integer(node.value, st)
            if a[0] < allowed[0] or a[1] > allowed[1]:
                reason = f"result {show(a)} may lie outside {show(allowed)}"
                raise VerifyError(node.line, reason)
            self.on.note(node, 0, *a)
        self.finish(node.line, st)


def _parameter(param: Buffer | Int | Ints, fix: Mapping[str, int], line: int) -> Value:
    match param:
        case Buffer():
            return (param.least, param.size)
        case Ints():
            return Vector((U64,) * param.max_len, 0)
    if param.name not in fix:
        return (param.lo, param.hi)
    value = fix[param.name]
    if not param.lo <= value <= param.hi:
        reason = f"{param.name!r} can't be fixed at {value}, outside {show((param.lo, param.hi))}"
        raise VerifyError(line, reason)
    return (value, value)


_STATEMENTS: Final[dict[type, Callable[[_Verifier, Any, State], State | None]]] = {
    n.Assign: _Verifier.assign,
    n.If: _Verifier.conditional,
    n.ForRange: _Verifier.for_range,
    n.ForEach: _Verifier.for_each,
    n.Break: _Verifier.leave,
    n.Continue: _Verifier.again,
    n.Emit: _Verifier.emit,
    n.Return: _Verifier.result,
}
