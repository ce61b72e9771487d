"""What the verifier knows at one point of one program: variables, facts, and what was spent.

Besides an interval for each variable a state holds linear facts, such as `off + 4 <= len(pkt)` or
`old <= new`, learned from conditions: for a load at a variable offset of a packet, or for a
difference of two variables, intervals alone can't do (eBPF knows the first as packet ranges).
A fact is a lower bound for a sum of variables with coefficients. No arithmetic wraps, since each
operation was proved not to, so a fact may be read as one about plain integers.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

from xnfs.sandbox import nodes as n
from xnfs.sandbox.signature import Limits
from xnfs.sandbox.values import Value

# Variable and coefficient, sorted. Variable 2*s is the value of slot s, 2*s+1 its length.
Terms = tuple[tuple[int, int], ...]
Linear = tuple[Terms, int]  # sum of coefficient * variable, plus a constant


class State:
    """One path, or several that met. `steps` and `emits` are the worst of all of them."""

    __slots__ = ("emits", "facts", "slots", "steps")

    def __init__(self, slots: list[Value], facts: dict[Terms, int], steps: int, emits: int) -> None:
        self.slots = slots
        self.facts = facts  # replaced, never changed: copies share it
        self.steps = steps
        self.emits = emits

    def copy(self) -> State:
        """A state that can be changed without changing this one."""
        return State(self.slots.copy(), self.facts, self.steps, self.emits)

    def assign(self, slot: int, value: Value) -> None:
        """Give a variable a new value, and forget what was known about the old one."""
        self.slots[slot] = value
        if self.facts:
            self.facts = {
                terms: bound
                for terms, bound in self.facts.items()
                if all(variable >> 1 != slot for variable, _ in terms)
            }

    def learn(self, left: Linear | None, right: Linear | None, gap: int) -> None:
        """Note that left + gap <= right, which a condition has just shown."""
        difference = subtract(right, left)
        if difference is None or len(difference[0]) < 2:
            return  # about one variable an interval knows as much
        terms, constant = difference
        bound = gap - constant
        known = self.facts.get(terms)
        if (known is None and len(self.facts) < Limits.FACTS) or (
            known is not None and bound > known
        ):
            self.facts = {**self.facts, terms: bound}

    def gap(self, left: Linear | None, right: Linear | None) -> int | None:
        """The greatest g for which left + g <= right is known, or None."""
        difference = subtract(right, left)
        if difference is None:
            return None
        terms, constant = difference
        if not terms:
            return constant
        bound = self.facts.get(terms)
        return None if bound is None else bound + constant

    def ordered(self, left: Linear | None, right: Linear | None) -> bool:
        """Whether left <= right is known."""
        gap = self.gap(left, right)
        return gap is not None and gap >= 0


def meet(a: State, b: State, join: Callable[[Value, Value], Value]) -> State:
    """Where two paths meet: only what holds on both, and the worst of what was spent."""
    slots = [x if x is y else join(x, y) for x, y in zip(a.slots, b.slots, strict=True)]
    facts = a.facts
    if facts is not b.facts:
        facts = {t: min(v, b.facts[t]) for t, v in facts.items() if t in b.facts}
    return State(slots, facts, max(a.steps, b.steps), max(a.emits, b.emits))


def subtract(a: Linear | None, b: Linear | None) -> Linear | None:
    """a - b, with variables that cancel out left away."""
    return None if a is None or b is None else _combine(a, b, -1)


def plus(a: Linear | None, b: Linear | None) -> Linear | None:
    """a + b."""
    return None if a is None or b is None else _combine(a, b, 1)


def _combine(a: Linear, b: Linear, sign: int) -> Linear:
    if not b[0]:
        return (a[0], a[1] + sign * b[1])
    total = dict(a[0])
    for variable, coefficient in b[0]:
        total[variable] = total.get(variable, 0) + sign * coefficient
    return (tuple(sorted(t for t in total.items() if t[1])), a[1] + sign * b[1])


@lru_cache(maxsize=4096)
def linear(node: n.Expr) -> Linear | None:
    """The expression as a sum of variables, when it is one. Only its form counts, no state."""
    match node:
        case n.Const(value=value):
            return ((), value)
        case n.Local(slot=slot):
            return (((2 * slot, 1),), 0)
        case n.Length(slot=slot):
            return (((2 * slot + 1, 1),), 0)
        case n.Binary(op="+", left=left, right=right):
            return plus(linear(left), linear(right))
        case n.Binary(op="-", left=left, right=right):
            return subtract(linear(left), linear(right))
        case n.Binary(op="*", left=left, right=n.Const(value=factor)):
            return _scale(linear(left), factor)
        case n.Binary(op="*", left=n.Const(value=factor), right=right):
            return _scale(linear(right), factor)
        case n.Binary(op="<<", left=left, right=n.Const(value=count)) if count < 64:
            return _scale(linear(left), 1 << count)
    return None


def _scale(a: Linear | None, factor: int) -> Linear | None:
    if a is None or factor == 0:
        return None
    return (tuple((v, c * factor) for v, c in a[0]), a[1] * factor)
