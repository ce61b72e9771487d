"""From checked shape to a CPython function that runs at native speed.

The text that CPython compiles is made here from nodes: it holds numbers, slots (`v3`) and private
helper names (`_u32`), not one character of the author's. It runs with empty builtins. Arithmetic
isn't masked and offsets aren't checked: `verifier` has proved both. Loads next to each other in
one assignment become one `struct` call.

It proves nothing. Compile only what `verifier` has accepted.
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Final

from xnfs.sandbox import nodes as n
from xnfs.sandbox.wideload import CODE, widest

Run = Callable[..., Any]
_Bytes = bytes | bytearray | memoryview


def _zero(a: _Bytes, i: int, size: int) -> int:
    return 1 if bytes(a[i : i + size]) == bytes(size) else 0


def _hash64(a: _Bytes, i: int, size: int, key: int) -> int:
    digest = hashlib.blake2b(a[i : i + size], digest_size=8, key=key.to_bytes(8, "little"))
    return int.from_bytes(digest.digest(), "little")


def _crc32(a: _Bytes, i: int, size: int) -> int:
    return zlib.crc32(a[i : i + size])


_HELPERS: Final[dict[str, object]] = {
    "_len": len,
    "_min": min,
    "_max": max,
    "_range": range,
    "_zero": _zero,
    "_hash64": _hash64,
    "_crc32": _crc32,
}


@lru_cache(maxsize=128)
def compile_shape(shape: n.Shape) -> Run:
    """Make the function. It takes the parameters by position; buffers are bytes-like.

    It returns the list of emitted tuples, or the result.
    """
    writer = _Writer(shape)
    text = writer.function()
    scope: dict[str, Any] = {"__builtins__": {}, **_HELPERS, **writer.structs}
    # The one exec of the project: `text` was written above, from numbers and slots.
    exec(compile(text, f"<sandbox {shape.digest[:16]}>", "exec"), scope)
    run: Run = scope["_run"]
    return run


class _Writer:
    def __init__(self, shape: n.Shape) -> None:
        self.shape = shape
        self.lines: list[str] = []
        self.structs: dict[str, object] = {}

    def function(self) -> str:
        params = self.shape.signature.params
        self.lines.append(f"def _run({', '.join(f'v{i}' for i in range(len(params)))}):")
        if self.shape.signature.emits:
            self.lines += [" _out = []", " _emit = _out.append"]
        self.block(self.shape.body, 1)
        if self.shape.signature.emits:
            self.lines.append(" return _out")
        return "\n".join(self.lines) + "\n"

    def unpacker(self, code: str) -> str:
        """The name of a bound `Struct.unpack_from` for a format such as '<IIQ'."""
        name = "_b" if code[0] == ">" else "_l"
        name += code[1:]
        self.structs[name] = struct.Struct(code).unpack_from
        return name

    # Statements

    def block(self, body: n.Block, depth: int) -> None:
        before = len(self.lines)
        at = 0
        while at < len(body):
            wide = widest(body[at:])
            if wide is not None:
                code = "<>"[wide.big_endian] + wide.code
                names = ", ".join(f"v{t}" for t in wide.targets)
                offset = self.value(wide.offset)
                self.put(depth, f"{names} = {self.unpacker(code)}(v{wide.buffer}, {offset})")
                at += wide.statements
            else:
                self.statement(body[at], depth)
                at += 1
        if len(self.lines) == before:
            self.put(depth, "pass")

    def put(self, depth: int, text: str) -> None:
        self.lines.append(" " * depth + text)

    def statement(self, node: n.Stmt, depth: int) -> None:
        match node:
            case n.Assign(targets=targets, unpack=unpack, value=value):
                self.assign(targets, unpack, value, depth)
            case n.If():
                for number, arm in enumerate(node.arms):
                    word = "elif" if number else "if"
                    self.put(depth, f"{word} {self.condition(arm.condition)}:")
                    self.block(arm.body, depth + 1)
                if node.orelse:
                    self.put(depth, "else:")
                    self.block(node.orelse, depth + 1)
            case n.ForRange(target=target, start=start, stop=stop, body=body):
                self.put(depth, f"for v{target} in _range({start}, {stop}):")
                self.block(body, depth + 1)
            case n.ForEach(target=target, sequence=sequence, body=body):
                self.put(depth, f"for v{target} in {self.value(sequence)}:")
                self.block(body, depth + 1)
            case n.Emit(items=items):
                self.put(depth, f"_emit({self.tuple_text(items)})")
            case n.Return(value=value):
                nothing = "_out" if self.shape.signature.emits else ""
                self.put(depth, f"return {nothing if value is None else self.value(value)}")
            case n.Break():
                self.put(depth, "break")
            case n.Continue():
                self.put(depth, "continue")

    def assign(self, targets: tuple[int, ...], unpack: bool, value: n.Expr, depth: int) -> None:
        if not unpack:
            self.put(depth, f"v{targets[0]} = {self.value(value)}")
            return
        names = "".join(f"v{t}, " for t in targets)
        self.put(depth, f"{names.strip()} = {self.value(value)}")

    # Expressions

    def condition(self, node: n.Expr) -> str:
        """Text that is true where the node isn't 0."""
        match node:
            case n.Compare(ops=ops, items=items):
                rest = "".join(
                    f" {op} {self.value(i)}" for op, i in zip(ops, items[1:], strict=True)
                )
                return f"({self.value(items[0])}{rest})"
            case n.Contains(item=item, sequence=sequence):
                return f"({self.value(item)} in {self.value(sequence)})"
            case n.Logic(every=every, items=items):
                word = " and " if every else " or "
                return f"({word.join(self.condition(i) for i in items)})"
            case n.Not(item=item):
                return f"(not {self.condition(item)})"
            case n.BulkOp(name="same", spans=spans, length=length):
                # In place, not by a helper: most of what an acl does is to see what has changed.
                one, other = (self.span(b, offset, length) for b, offset in spans)
                return f"({one} == {other})"
        return self.value(node)

    def span(self, buffer: int, offset: n.Expr, length: n.Expr) -> str:
        """Text of a slice."""
        if isinstance(offset, n.Const) and isinstance(length, n.Const):
            return f"v{buffer}[{offset.value}:{offset.value + length.value}]"
        at = self.value(offset)
        return f"v{buffer}[{at}:{at} + {self.value(length)}]"

    def value(self, node: n.Expr) -> str:
        """Text of the node's value."""
        match node:
            case n.Const(value=value):
                return str(value)
            case n.Local(slot=slot):
                return f"v{slot}"
            case n.Length(slot=slot):
                return f"_len(v{slot})"
            case n.Binary(op=op, left=left, right=right):
                return f"({self.value(left)} {op} {self.value(right)})"
            case n.Compare() | n.Contains() | n.Logic() | n.Not() | n.BulkOp(name="same"):
                return f"(1 if {self.condition(node)} else 0)"
            case n.Choose(condition=condition, yes=yes, no=no):
                return f"({self.value(yes)} if {self.condition(condition)} else {self.value(no)})"
            case n.Pick(least=least, items=items):
                word = "_min" if least else "_max"
                return f"{word}({', '.join(self.value(i) for i in items)})"
            case n.TupleOf(items=items):
                return self.tuple_text(items)
            case n.Index(sequence=sequence, index=index):
                return f"{self.value(sequence)}[{self.value(index)}]"
            case n.LoadOne(buffer=buffer, offset=offset, width=1):
                return f"v{buffer}[{self.value(offset)}]"
            case n.LoadOne(buffer=buffer, offset=offset, width=width, big_endian=big):
                unpack = self.unpacker((">" if big else "<") + CODE[width])
                return f"{unpack}(v{buffer}, {self.value(offset)})[0]"
            case n.LoadTuple(buffer=buffer, offset=offset, width=width, count=count):
                unpack = self.unpacker(f"<{count}{CODE[width]}")
                return f"{unpack}(v{buffer}, {self.value(offset)})"
        spans = ", ".join(f"v{b}, {self.value(o)}" for b, o in node.spans)
        rest = "".join(f", {self.value(e)}" for e in (node.length, *node.extra))
        return f"_{node.name}({spans}{rest})"

    def tuple_text(self, items: tuple[n.Expr, ...]) -> str:
        return f"({''.join(f'{self.value(i)}, ' for i in items).strip()})"
