"""What a packet filter accepts, exactly: from a verified program to cubes.

The program is run once on an unknown packet. A value is a row of bits, each 0, 1, or a bit of the
packet; a comparison with a constant splits the packets into those where it holds and those where
it doesn't, and each part goes its own way. Where a value of few unknown bits must be a number (a
header length in an offset), each number is a part of its own. So a filter may follow a header of
variable length, as any program of the language may, and still ends as a list of cubes.

Refused, with the line: comparisons of one part of a packet with another, arithmetic on many unknown
bits, hashes, what looks beyond the first 128 bytes, and whatever splits into too many parts.

Guarantees: the cubes are disjoint, and a packet lies in one of them if and only if the program
returns something else than 0 for it. (Tests hold both against each other.)
Source: King, *Symbolic execution and program testing* (CACM 1976); Engler and Kaashoek, *DPF*
(SIGCOMM 1996), whose filters are conjunctions of such comparisons to begin with.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from xnfs.net.bits import Bits, compare, known, moved
from xnfs.net.cube import MAX_FRAME, WINDOW, Cube, bit_at
from xnfs.sandbox import VerifyError
from xnfs.sandbox import nodes as n
from xnfs.sandbox.program import Program

MAX_PARTS: Final = 512  # cubes of one filter
_MAX_WORK: Final = 20_000  # nodes looked at, in all parts together
_FEW: Final = 6  # unknown bits that may be tried one by one
_TOO_MANY: Final = "the filter falls into too many parts"
_UNDECIDED: Final = "whether filters overlap could not be decided"
_LENGTH: Final = "length"  # the one value that is not made of bits: len(pkt)
Scalar = int | Bits | str
Value = Scalar | list[Scalar]

Env = dict[int, Value]
_Live = tuple[Cube, Env]
_Left = tuple[Cube, Env, Scalar | type[n.Break] | type[n.Continue]]


def meaning(program: Program) -> list[Cube]:
    """The packets for which the program returns something else than 0. Raises VerifyError."""
    runner = _Runner(program.shape)
    accepted: list[Cube] = []
    for cube, result in runner.function():
        accepted += [part for part, order in runner.against(cube, result, 0) if order != 0]
        if len(accepted) > MAX_PARTS:
            raise VerifyError(1, f"{_TOO_MANY}: {_UNDECIDED}")
    return accepted


class _Runner:
    """One run on an unknown packet. Every method gives disjoint parts of the cube it is given."""

    def __init__(self, shape: n.Shape) -> None:
        self.shape = shape
        self.work = 0

    def function(self) -> Iterator[tuple[Cube, Scalar]]:
        """Parts of all packets, and what the program returns for them."""
        _, left = self.block(self.shape.body, [(Cube(), {})])
        for cube, _env, result in left:
            assert not isinstance(result, type)  # the verifier saw to it: every path returns
            yield cube, result

    def refuse(self, node: n.Expr | n.Stmt, reason: str) -> VerifyError:
        return VerifyError(node.line, f"{reason}: {_UNDECIDED}")

    def spend(self, node: n.Expr | n.Stmt) -> None:
        self.work += 1
        if self.work > _MAX_WORK:
            raise self.refuse(node, _TOO_MANY)

    # Statements. Several parts go through them side by side, so that nothing here is as deep as a
    # function is long.

    def block(self, body: n.Block, live: list[_Live]) -> tuple[list[_Live], list[_Left]]:
        """The parts that reach the end of a block, and those that left it, with how."""
        left: list[_Left] = []
        for statement in body:
            after: list[_Live] = []
            for cube, env in live:
                on, off = self.statement(statement, cube, env)
                after += on
                left += off
            live = after
        return live, left

    def statement(self, node: n.Stmt, cube: Cube, env: Env) -> tuple[list[_Live], list[_Left]]:
        self.spend(node)
        match node:
            case n.Assign():
                return self.assign(node, cube, env), []
            case n.If(arms=arms, orelse=orelse):
                return self.conditional(arms, orelse, cube, env)
            case n.ForRange(target=target, start=start, stop=stop, body=body):
                return self.loop(target, range(start, stop), body, (cube, env))
            case n.ForEach(target=target, sequence=sequence, body=body):
                live: list[_Live] = []
                left: list[_Left] = []
                for part, items in self.sequence(sequence, cube, env):
                    on, off = self.loop(target, items, body, (part, env))
                    live += on
                    left += off
                return live, left
            case n.Return(value=value):
                assert value is not None  # the verifier saw to it
                return [], [(part, env, v) for part, v in self.scalar(value, cube, env)]
            case n.Break() | n.Continue():
                return [], [(cube, env, type(node))]
        raise self.refuse(node, "a filter emits nothing")

    def assign(self, node: n.Assign, cube: Cube, env: Env) -> list[_Live]:
        live: list[_Live] = []
        for part, value in self.value(node.value, cube, env):
            items = value if node.unpack and isinstance(value, list) else [value]
            live.append((part, {**env, **dict(zip(node.targets, items, strict=True))}))
        return live

    def conditional(
        self, arms: tuple[n.Arm, ...], orelse: n.Block, cube: Cube, env: Env
    ) -> tuple[list[_Live], list[_Left]]:
        live: list[_Live] = []
        left: list[_Left] = []
        otherwise = [cube]
        for arm in arms:
            split = [part for c in otherwise for part in self.truth(arm.condition, c, env)]
            on, off = self.block(arm.body, [(part, env) for part, holds in split if holds])
            live += on
            left += off
            otherwise = [part for part, holds in split if not holds]
        on, off = self.block(orelse, [(part, env) for part in otherwise])
        return live + on, left + off

    def loop(
        self, target: int, items: Sequence[Scalar], body: n.Block, start: _Live
    ) -> tuple[list[_Live], list[_Left]]:
        live, over, left = [start], list[_Live](), list[_Left]()
        for item in items:
            self.work += len(live)
            live, off = self.block(body, [(cube, {**env, target: item}) for cube, env in live])
            for cube, env, outcome in off:
                if outcome is n.Continue:
                    live.append((cube, env))
                elif outcome is n.Break:
                    over.append((cube, env))
                else:
                    left.append((cube, env, outcome))
        return live + over, left

    # Expressions

    def value(self, node: n.Expr, cube: Cube, env: Env) -> Iterator[tuple[Cube, Value]]:
        match node:
            case n.TupleOf(items=items):
                yield from self.several(items, cube, env)
            case n.LoadTuple(offset=offset, width=width, count=count):
                for part, at in self.number(offset, cube, env):
                    starts = range(at, at + width * count, width)
                    yield part, [self.load(node, a, width, False) for a in starts]
            case n.Local(slot=slot):
                yield cube, env[slot]
            case _:
                yield from self.scalar(node, cube, env)

    def several(
        self, items: tuple[n.Expr, ...], cube: Cube, env: Env
    ) -> Iterator[tuple[Cube, list[Scalar]]]:
        if not items:
            yield cube, []
            return
        for part, first in self.scalar(items[0], cube, env):
            for smaller, rest in self.several(items[1:], part, env):
                yield smaller, [first, *rest]

    def sequence(self, node: n.Expr, cube: Cube, env: Env) -> Iterator[tuple[Cube, list[Scalar]]]:
        for part, value in self.value(node, cube, env):
            assert isinstance(value, list)  # the verifier saw to it
            yield part, value

    def scalar(self, node: n.Expr, cube: Cube, env: Env) -> Iterator[tuple[Cube, Scalar]]:
        self.spend(node)
        match node:
            case n.Const(value=value):
                yield cube, value
            case n.Local(slot=slot):
                held = env[slot]
                assert not isinstance(held, list)
                yield cube, held
            case n.Length(slot=slot):
                held = env.get(slot, _LENGTH)
                yield cube, len(held) if isinstance(held, list) else _LENGTH
            case n.LoadOne(offset=offset, width=width, big_endian=big):
                for part, at in self.number(offset, cube, env):
                    yield part, self.load(node, at, width, big)
            case n.Binary(left=left, right=right):
                for part, (a, b) in self.several((left, right), cube, env):
                    yield from self.binary(node, a, b, part)
            case n.Choose(condition=condition, yes=yes, no=no):
                for part, holds in self.truth(condition, cube, env):
                    yield from self.scalar(yes if holds else no, part, env)
            case n.Pick(least=least, items=items):
                for part, numbers in self.numbers(items, cube, env):
                    yield part, min(numbers) if least else max(numbers)
            case n.Index(sequence=sequence, index=index):
                for part, values in self.sequence(sequence, cube, env):
                    for smaller, at in self.number(index, part, env):
                        yield smaller, values[at]
            case n.BulkOp():
                raise self.refuse(node, f"{node.name!r} in a filter")
            case _:
                for part, holds in self.truth(node, cube, env):
                    yield part, int(holds)

    def number(self, node: n.Expr, cube: Cube, env: Env) -> Iterator[tuple[Cube, int]]:
        """A value that must be a number: where a few bits are unknown, each in its own part."""
        for part, value in self.scalar(node, cube, env):
            yield from self.settle(node, value, part)

    def numbers(
        self, items: tuple[n.Expr, ...], cube: Cube, env: Env
    ) -> Iterator[tuple[Cube, list[int]]]:
        if not items:
            yield cube, []
            return
        for part, first in self.number(items[0], cube, env):
            for smaller, rest in self.numbers(items[1:], part, env):
                yield smaller, [first, *rest]

    def settle(self, node: n.Expr, value: Scalar, cube: Cube) -> Iterator[tuple[Cube, int]]:
        if isinstance(value, str):
            raise self.refuse(node, "arithmetic on the length of a packet")
        value = known(value, cube)
        if isinstance(value, int):
            yield cube, value
            return
        unknown = sorted({bit for bit in value if bit >= 0})
        if len(unknown) > _FEW:
            raise self.refuse(node, f"a number that depends on {len(unknown)} bits of the packet")
        mask = sum(1 << bit for bit in unknown)
        for case in range(1 << len(unknown)):
            self.spend(node)
            bits = sum(1 << bit for i, bit in enumerate(unknown) if case >> i & 1)
            part = cube.meet(mask, bits)
            assert part is not None  # these bits were unknown
            number = known(value, part)
            assert isinstance(number, int)
            yield part, number

    def load(self, node: n.LoadOne | n.LoadTuple, at: int, width: int, big: bool) -> Bits:
        if at + width > WINDOW:
            raise self.refuse(node, f"a filter looks at byte {at + width - 1}, beyond {WINDOW - 1}")
        offsets = range(at + width - 1, at - 1, -1) if big else range(at, at + width)
        return tuple(bit_at(offset, number) for offset in offsets for number in range(8))

    def binary(
        self, node: n.Binary, left: Scalar, right: Scalar, cube: Cube
    ) -> Iterator[tuple[Cube, Scalar]]:
        """Bits can be masked, moved and put together; all other arithmetic is done on numbers."""
        if not isinstance(left, str) and not isinstance(right, str):
            a, b = known(left, cube), known(right, cube)
            row = moved(node.op, a, b)
            if row is not None:
                yield cube, row
                return
            left, right = a, b
        for part, x in self.settle(node, left, cube):
            for smaller, y in self.settle(node, right, part):
                yield smaller, _COMPUTE[node.op](x, y)

    # Conditions

    def truth(self, node: n.Expr, cube: Cube, env: Env) -> Iterator[tuple[Cube, bool]]:
        """Where a condition holds and where not; one part if it is the same everywhere."""
        parts = list(self.split(node, cube, env))
        if len({holds for _, holds in parts}) == 1:
            yield cube, parts[0][1]
        else:
            yield from parts

    def split(self, node: n.Expr, cube: Cube, env: Env) -> Iterator[tuple[Cube, bool]]:
        self.spend(node)
        match node:
            case n.Compare(ops=ops, items=items):
                yield from self.chain(node, ops, items, cube, env)
            case n.Logic(every=every, items=items):
                yield from self.logic(every, items, cube, env)
            case n.Not(item=item):
                for part, holds in self.truth(item, cube, env):
                    yield part, not holds
            case n.Contains(item=item, sequence=sequence):
                for part, value in self.scalar(item, cube, env):
                    for smaller, values in self.sequence(sequence, part, env):
                        yield from self.among(node, value, values, smaller)
            case _:
                for part, value in self.scalar(node, cube, env):
                    for smaller, order in self.against(part, value, 0):
                        yield smaller, order != 0

    def chain(
        self,
        node: n.Compare,
        ops: tuple[str, ...],
        items: tuple[n.Expr, ...],
        cube: Cube,
        env: Env,
    ) -> Iterator[tuple[Cube, bool]]:
        for part, (a, b) in self.several(items[:2], cube, env):
            for smaller, order in self.compare(node, a, b, part):
                if not _HOLDS[ops[0]](order, 0):
                    yield smaller, False
                elif len(ops) == 1:
                    yield smaller, True
                else:
                    yield from self.chain(node, ops[1:], items[1:], smaller, env)

    def logic(
        self, every: bool, items: tuple[n.Expr, ...], cube: Cube, env: Env
    ) -> Iterator[tuple[Cube, bool]]:
        for part, holds in self.truth(items[0], cube, env):
            if holds != every or len(items) == 1:
                yield part, holds
            else:
                yield from self.logic(every, items[1:], part, env)

    def among(
        self, node: n.Expr, value: Scalar, values: list[Scalar], cube: Cube
    ) -> Iterator[tuple[Cube, bool]]:
        if not values:
            yield cube, False
            return
        for part, order in self.compare(node, value, values[0], cube):
            if order == 0:
                yield part, True
            else:
                yield from self.among(node, value, values[1:], part)

    def compare(
        self, node: n.Expr, left: Scalar, right: Scalar, cube: Cube
    ) -> Iterator[tuple[Cube, int]]:
        """-1, 0 or 1 for less, equal, greater; in which parts."""
        if isinstance(left, int) and isinstance(right, int):
            yield cube, (left > right) - (left < right)
            return
        if isinstance(left, int) or (isinstance(right, str) and not isinstance(left, str)):
            for part, order in self.compare(node, right, left, cube):
                yield part, -order
            return
        for part, number in self.settle(node, right, cube):
            yield from self.against(part, left, number)

    def against(self, cube: Cube, value: Scalar, number: int) -> Iterator[tuple[Cube, int]]:
        """Compare a value with a number: the first bit that differs decides."""
        if isinstance(value, str):
            for lo, hi, order in (
                (0, number - 1, -1),
                (number, number, 0),
                (number + 1, MAX_FRAME, 1),
            ):
                sized = cube.sized(lo, hi)
                if sized is not None:
                    yield sized, order
            return
        value = known(value, cube)
        if isinstance(value, int):
            yield cube, (value > number) - (value < number)
        else:
            self.work += len(value)
            yield from compare(cube, value, number)


_COMPUTE: Final[dict[str, Callable[[int, int], int]]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "//": operator.floordiv,
    "%": operator.mod,
    "&": operator.and_,
    "|": operator.or_,
    "^": operator.xor,
    "<<": operator.lshift,
    ">>": operator.rshift,
}
_HOLDS: Final[dict[str, Callable[[int, int], bool]]] = {
    "<": operator.lt,
    "<=": operator.le,
    "==": operator.eq,
    "!=": operator.ne,
    ">=": operator.ge,
    ">": operator.gt,
}
