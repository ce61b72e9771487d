"""A slow interpreter that believes nothing.

It walks the checked shape and checks at run time all that the verifier claims to have proved:
types, ranges, bounds, steps, emits, results. It shares with verifier and compiler the shape and
nothing else, so that a test which finds all three in agreement says something.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any
from zlib import crc32

from xnfs.sandbox import nodes as n
from xnfs.sandbox.errors import InterpreterError
from xnfs.sandbox.language import parse
from xnfs.sandbox.program import Program
from xnfs.sandbox.signature import Buffer, Int, Ints, Signature

_Value = int | tuple[int, ...] | bytes | None


@dataclass(slots=True)
class Trace:
    """One run: its result, the steps that it took, and each load as (buffer, lo, end)."""

    result: Any = None
    steps: int = 0
    loads: list[tuple[str, int, int]] = field(default_factory=list)


class _Break(Exception):
    pass


class _Continue(Exception):
    pass


class _Return(Exception):
    def __init__(self, value: int | None) -> None:
        super().__init__()
        self.value = value


def interpret(
    program: Program | str, sig: Signature, args: Sequence[Any], *, max_steps: int
) -> Any:
    """Run a program, or an unverified source text, with every check made at run time.

    Returns what `Program.run` returns.
    Raises: InterpreterError; VerifyError when `program` is a text that isn't well formed.
    """
    return trace(program, sig, args, max_steps=max_steps).result


def trace(program: Program | str, sig: Signature, args: Sequence[Any], *, max_steps: int) -> Trace:
    """Like `interpret`, with an account of the run."""
    shape = parse(program if isinstance(program, str) else program.source, sig)
    return _Machine(shape, max_steps).run(args)


class _Machine:
    def __init__(self, shape: n.Shape, max_steps: int) -> None:
        self.shape, self.sig, self.max_steps = shape, shape.signature, max_steps
        self.slots: list[_Value] = [None] * len(shape.names)
        self.emitted: list[tuple[int, ...]] = []
        self.trace = Trace()

    def run(self, args: Sequence[Any]) -> Trace:
        if len(args) != len(self.sig.params):
            raise InterpreterError(self.shape.line, "wrong number of arguments")
        for slot, (param, arg) in enumerate(zip(self.sig.params, args, strict=True)):
            self.slots[slot] = self.argument(param, arg)
        self.step(self.shape, 1)
        result: int | None = None
        try:
            self.block(self.shape.body)
        except _Return as done:
            result = done.value
        allowed = self.sig.returns
        if (result is None) != (allowed is None):
            self.fail(self.shape, "no result, or one too many")
        if result is not None and allowed is not None and not allowed[0] <= result <= allowed[1]:
            self.fail(self.shape, f"result {result} outside {allowed}")
        self.trace.result = self.emitted if self.sig.emits else result
        return self.trace

    def argument(self, param: Buffer | Int | Ints, arg: Any) -> _Value:
        match param:
            case Buffer(size=size, min_size=least):
                data = bytes(arg)
                if (len(data) == size) if least is None else (least <= len(data) <= size):
                    return data
            case Int(lo=lo, hi=hi):
                if type(arg) is int and lo <= arg <= hi:
                    return arg
            case Ints(max_len=most):
                if len(arg) <= most and all(type(v) is int and 0 <= v < 2**64 for v in arg):
                    return tuple(arg)
        raise InterpreterError(self.shape.line, f"argument {param.name!r} doesn't fit")

    def fail(self, node: n.Shape | n.Stmt | n.Expr, reason: str) -> None:
        raise InterpreterError(node.line, reason)

    def step(self, node: n.Shape | n.Stmt | n.Expr, count: int) -> None:
        self.trace.steps += count
        if self.trace.steps > self.max_steps:
            self.fail(node, f"more than {self.max_steps} steps")

    def store(self, node: n.Stmt, slot: int, value: _Value) -> None:
        if slot < len(self.sig.params):
            self.fail(node, "assignment to a parameter")
        self.slots[slot] = value

    # Statements

    def block(self, body: n.Block) -> None:
        for statement in body:
            self.statement(statement)

    def statement(self, node: n.Stmt) -> None:
        match node:
            case n.If():
                self.conditional(node)
                return
            case n.ForRange() | n.ForEach():
                self.loop(node)
                return
        self.step(node, 1)
        match node:
            case n.Assign(targets=targets, unpack=False, value=value):
                self.store(node, targets[0], self.eval(value))
            case n.Assign(targets=targets, value=value):
                values = self.sequence(value)
                self.step(node, len(targets))
                if len(values) != len(targets):
                    self.fail(node, "wrong number of values to unpack")
                for target, item in zip(targets, values, strict=True):
                    self.store(node, target, item)
            case n.Emit(items=items):
                self.emitted.append(tuple([self.number(i) for i in items]))
                arity = len(self.emitted[-1])
                if arity != self.sig.emits or len(self.emitted) > self.sig.max_emits:
                    self.fail(node, "emit that the signature doesn't allow")
            case n.Return(value=value):
                raise _Return(None if value is None else self.number(value))
            case n.Break():
                raise _Break
            case n.Continue():
                raise _Continue

    def conditional(self, node: n.If) -> None:
        for arm in node.arms:
            self.step(node, 1)
            if self.number(arm.condition) != 0:
                self.block(arm.body)
                return
        self.block(node.orelse)

    def loop(self, node: n.ForRange | n.ForEach) -> None:
        self.step(node, 1)
        values: Sequence[int]
        if isinstance(node, n.ForRange):
            values = range(node.start, node.stop)
        else:
            values = self.sequence(node.sequence)
        for value in values:
            self.step(node, 1)
            self.store(node, node.target, value)
            try:
                self.block(node.body)
            except _Continue:
                continue
            except _Break:
                break

    # Expressions

    def number(self, node: n.Expr) -> int:
        value = self.eval(node)
        if type(value) is not int:
            raise InterpreterError(node.line, "not an integer")
        return value

    def sequence(self, node: n.Expr) -> tuple[int, ...]:
        value = self.eval(node)
        if not isinstance(value, tuple):
            raise InterpreterError(node.line, "not a tuple")
        return value

    def eval(self, node: n.Expr) -> int | tuple[int, ...]:
        self.step(node, 1)
        value = self.compute(node)
        for item in value if isinstance(value, tuple) else (value,):
            if type(item) is not int or not 0 <= item < 2**64:
                self.fail(node, f"{item!r} is not an unsigned 64-bit integer")
        return value

    def compute(self, node: n.Expr) -> int | tuple[int, ...]:
        match node:
            case n.Const(value=value):
                return value
            case n.Local(slot=slot):
                return self.variable(node, slot)
            case n.Length(slot=slot):
                counted = self.slots[slot]
                if not isinstance(counted, bytes | tuple):
                    raise InterpreterError(node.line, "len of what has no length")
                return len(counted)
            case n.Binary():
                return self.binary(node)
            case n.Compare(ops=ops, items=items):
                return self.compare(ops, items)
            case n.Contains(item=item, sequence=sequence):
                wanted, values = self.number(item), self.sequence(sequence)
                self.step(node, len(values))
                return int(any(v == wanted for v in values))
            case n.Logic(every=every, items=items):
                for item in items:
                    if (self.number(item) != 0) != every:
                        return int(not every)
                return int(every)
            case n.Not(item=item):
                return int(self.number(item) == 0)
            case n.Choose(condition=condition, yes=yes, no=no):
                return self.number(yes if self.number(condition) != 0 else no)
            case n.Pick(least=least, items=items):
                ordered = sorted([self.number(i) for i in items])
                return ordered[0] if least else ordered[-1]
            case n.TupleOf(items=items):
                return tuple([self.number(i) for i in items])
            case n.Index(sequence=sequence, index=index):
                values, at = self.sequence(sequence), self.number(index)
                if not 0 <= at < len(values):
                    self.fail(node, f"index {at} outside a tuple of {len(values)}")
                return values[at]
            case n.LoadOne(buffer=buffer, offset=offset, width=width, big_endian=big):
                data = self.bytes_at(node, buffer, self.number(offset), width)
                return int.from_bytes(data, "big" if big else "little")
            case n.LoadTuple(buffer=buffer, offset=offset, width=width, count=count):
                self.step(node, count)
                data = self.bytes_at(node, buffer, self.number(offset), width * count)
                pieces = [data[i * width : i * width + width] for i in range(count)]
                return tuple([int.from_bytes(p, "little") for p in pieces])
            case n.BulkOp():
                return self.bulk(node)

    def variable(self, node: n.Expr, slot: int) -> int | tuple[int, ...]:
        value = self.slots[slot]
        if value is None or isinstance(value, bytes):
            raise InterpreterError(node.line, "undefined name, or a buffer as a value")
        return value

    def binary(self, node: n.Binary) -> int:
        a, b = self.number(node.left), self.number(node.right)
        if node.op in ("//", "%") and b == 0:
            self.fail(node, "division by zero")
        if node.op in ("<<", ">>") and b > 63:
            self.fail(node, "shift by more than 63")
        match node.op:
            case "+":
                return a + b
            case "-":
                return a - b
            case "*":
                return a * b
            case "//":
                return a // b
            case "%":
                return a % b
            case "&":
                return a & b
            case "|":
                return a | b
            case "^":
                return a ^ b
            case "<<":
                return a << b
            case ">>":
                return a >> b
        raise InterpreterError(node.line, f"operator {node.op!r}")

    def compare(self, ops: tuple[str, ...], items: tuple[n.Expr, ...]) -> int:
        left = self.number(items[0])
        for op, item in zip(ops, items[1:], strict=True):
            right = self.number(item)
            order = (left > right) - (left < right)
            wanted = {"<": (-1,), "<=": (-1, 0), "==": (0,), "!=": (-1, 1), ">=": (0, 1)}
            if order not in wanted.get(op, (1,)):
                return 0
            left = right
        return 1

    def bytes_at(self, node: n.Expr, slot: int, offset: int, size: int) -> bytes:
        data = self.slots[slot]
        if not isinstance(data, bytes):
            raise InterpreterError(node.line, "load from what isn't a buffer")
        if offset < 0 or offset + size > len(data):
            self.fail(node, f"load of {size} bytes at offset {offset} of {len(data)} bytes")
        if size:
            self.trace.loads.append((self.shape.names[slot], offset, offset + size))
        return data[offset : offset + size]

    def bulk(self, node: n.BulkOp) -> int:
        places = [(buffer, self.number(offset)) for buffer, offset in node.spans]
        size = self.number(node.length)
        extra = [self.number(e) for e in node.extra]
        self.step(node, (size + 63) // 64 * len(places))
        runs = [self.bytes_at(node, buffer, offset, size) for buffer, offset in places]
        match node.name:
            case "same":
                return int(runs[0] == runs[1])
            case "zero":
                return int(not any(runs[0]))
            case "hash64":
                key = bytes([extra[0] >> 8 * i & 255 for i in range(8)])
                hashed = blake2b(runs[0], digest_size=8, key=key).digest()
                return int.from_bytes(hashed, "little")
            case "crc32":
                return crc32(runs[0])
        raise InterpreterError(node.line, f"intrinsic {node.name!r}")
