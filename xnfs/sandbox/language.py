"""From source text to checked shape: the grammar of the language.

    def NAME(PARAMETER, ...):       exactly the names of the signature, and nothing else
        "docstring"                 optional; ASCII without backslashes or double quotes
        name = EXPR                 also +=, -=, ...; parameters can't be assigned
        a, b = TUPLE                as many names as the tuple has values
        if, elif, else              a condition holds when it isn't 0
        for name in range(8):       also range(2, 8); bounds are constant expressions
        for name in TUPLE:          the turns are as many as the tuple has values
        break, continue, pass
        emit(EXPR, ...)             where the signature says so
        return EXPR                 a bare `return` where the signature asks for no result

    EXPR    numbers, names, + - * // % & | ^ << >>, < <= == != >= >, and or not,
            x if c else y, x in TUPLE, x not in TUPLE, min, max, len,
            TUPLE[i], and the functions of `intrinsics`
    TUPLE   (x, y), u32s(buffer, offset, 4) and its kin, or a name that holds one

`parse` accepts one function of this and returns a `Shape`; everything else is refused with its
line. It checks form only: names, arguments, nesting, constants. Whether a value stays in
range, a load in its buffer or the steps in their budget is the business of `verifier`.

Every program is also Python, and means what Python means, but for one thing: comparisons, `and`,
`or` and `not` give the integers 0 and 1, so `2 and 3` is 1 here and 3 there.

It relies on `lexer` having let through nothing but ASCII words and signs of the language.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Callable
from functools import lru_cache
from typing import Final, NoReturn

from xnfs.sandbox import nodes as n
from xnfs.sandbox.errors import UnprovedError, VerifyError
from xnfs.sandbox.intrinsics import INTRINSICS, RESERVED, Bulk, Load
from xnfs.sandbox.lexer import check_text
from xnfs.sandbox.signature import MAX_U64, Buffer, Limits, Signature
from xnfs.sandbox.values import BINARY

_BINARY: Final[dict[type[ast.operator], str]] = {
    ast.Add: "+",
    ast.Sub: "-",
    ast.Mult: "*",
    ast.FloorDiv: "//",
    ast.Mod: "%",
    ast.BitAnd: "&",
    ast.BitOr: "|",
    ast.BitXor: "^",
    ast.LShift: "<<",
    ast.RShift: ">>",
}
_COMPARE: Final[dict[type[ast.cmpop], str]] = {
    ast.Eq: "==",
    ast.NotEq: "!=",
    ast.Lt: "<",
    ast.LtE: "<=",
    ast.Gt: ">",
    ast.GtE: ">=",
}


def parse(source: str, signature: Signature) -> n.Shape:
    """Check the form of `source` against `signature`.

    Raises: VerifyError, whatever the source is, and nothing else.
    """
    if type(source) is not str:  # exactly: a subclass could answer differently each time
        raise VerifyError(1, "the source is not a string")
    return _parse(source, signature)


# Types are verified once for each partition; only the proof differs, never the shape.
@lru_cache(maxsize=128)
def _parse(source: str, signature: Signature) -> n.Shape:
    check_text(source)
    function = _only_function(source)
    _check_header(function, signature)
    return _Shaper(source, signature, function).shape()


def _only_function(source: str) -> ast.FunctionDef:
    try:
        tree = ast.parse(source)
    except SyntaxError as error:
        raise VerifyError(error.lineno or 1, f"not Python: {error.msg}") from None
    # RecursionError, MemoryError, SystemError, ...: whatever the parser can't take is refused.
    except Exception as error:
        raise VerifyError(1, f"the parser gave up: {type(error).__name__}") from None
    if len(tree.body) != 1 or not isinstance(tree.body[0], ast.FunctionDef):
        raise VerifyError(1, "the source must be one function, 'def name(...):'")
    return tree.body[0]


def _check_header(function: ast.FunctionDef, signature: Signature) -> None:
    args = function.args
    plain = (
        not (args.posonlyargs or args.kwonlyargs or args.vararg or args.kwarg)
        and not (args.defaults or args.kw_defaults)
        and not (function.decorator_list or function.returns or function.type_comment)
        and not getattr(function, "type_params", None)
        and not any(a.annotation or a.type_comment for a in args.args)
    )
    names = [p.name for p in signature.params]
    if not plain or function.name != signature.name or [a.arg for a in args.args] != names:
        raise VerifyError(function.lineno, f"the function must begin '{signature.header}:'")


def _refuse(node: ast.AST, reason: str) -> NoReturn:
    raise VerifyError(getattr(node, "lineno", 1), reason)


class _Shaper:
    """One walk over the tree of one function. `depth` counts nested expressions."""

    def __init__(self, source: str, signature: Signature, function: ast.FunctionDef) -> None:
        self.source, self.signature, self.function = source, signature, function
        self.slots = {p.name: slot for slot, p in enumerate(signature.params)}
        self.buffers = {slot for slot, p in enumerate(signature.params) if isinstance(p, Buffer)}
        self.depth = self.blocks = self.loops = self.cost = 0

    def shape(self) -> n.Shape:
        body = self.function.body
        match body[0]:
            case ast.Expr(value=ast.Constant(value=str())):
                body = body[1:]
        self._collect_names()
        block = self.block(body)
        return n.Shape(
            source=self.source,
            digest=hashlib.sha256(self.source.encode("ascii")).hexdigest(),
            signature=self.signature,
            names=tuple(self.slots),
            body=block,
            line=self.function.lineno,
            last_line=self.function.end_lineno or self.function.lineno,
        )

    def _collect_names(self) -> None:
        """Give a slot to each assigned name, so that no name means two things."""
        stores = [
            node
            for node in ast.walk(self.function)
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
        ]
        fixed = set(self.slots)
        for node in sorted(stores, key=lambda s: (s.lineno, s.col_offset)):
            if node.id in fixed:
                _refuse(node, f"parameter {node.id!r} may not be assigned")
            if node.id in RESERVED:
                _refuse(node, f"{node.id!r} is an intrinsic and may not be assigned")
            self.slots.setdefault(node.id, len(self.slots))
            if len(self.slots) > Limits.SLOTS:
                _refuse(node, f"more than {Limits.SLOTS} names")

    # Statements

    def block(self, body: list[ast.stmt]) -> n.Block:
        self.blocks += 1
        if self.blocks > Limits.BLOCKS + 1:
            _refuse(body[0] if body else self.function, "blocks are nested too deeply")
        out: list[n.Stmt] = []
        for statement in body:
            if out and isinstance(out[-1], n.Return | n.Break | n.Continue):
                _refuse(statement, "this statement can never be reached")
            out += self.statement(statement)
        self.blocks -= 1
        return tuple(out)

    def statement(self, node: ast.stmt) -> list[n.Stmt]:
        line = node.lineno
        match node:
            case ast.Assign(targets=[target], value=value):
                return [self.assign(target, value, line)]
            case ast.AugAssign(target=ast.Name() as name, op=op, value=value):
                now = n.Local(line, self.slots[name.id])
                self.cost = 2
                result = self.binary(line, op, now, self.scalar(value), node)
                return [n.Assign(line, self.cost + 1, (now.slot,), False, result)]
            case ast.If():
                return [self.conditional(node)]
            case ast.For(target=ast.Name() as name, orelse=[]):
                return [self.loop(node, self.slots[name.id])]
            case ast.Return(value=value):
                if value is None:
                    return [n.Return(line, 1, None)]
                return [n.Return(line, *self.costed(value, self.scalar))]
            case ast.Expr(value=ast.Call(func=ast.Name(id="emit"), args=args, keywords=[])):
                return [self.emit(node, args)]
            case ast.Break() | ast.Continue() if self.loops:
                return [n.Break(line) if isinstance(node, ast.Break) else n.Continue(line)]
            case ast.Pass():
                return []
        _refuse(node, f"this kind of statement ({type(node).__name__}) is not in the language")

    def assign(self, target: ast.expr, value: ast.expr, line: int) -> n.Assign:
        cost, result = self.costed(value, self.expr)
        match target:
            case ast.Name(id=name):
                return n.Assign(line, cost, (self.slots[name],), False, result)
            case ast.Tuple(elts=elts) if all(isinstance(e, ast.Name) for e in elts):
                slots = tuple(self.slots[e.id] for e in elts if isinstance(e, ast.Name))
                return n.Assign(line, cost + len(slots), slots, True, result)
        _refuse(target, "only names can be assigned")

    def conditional(self, node: ast.If) -> n.If:
        """Flatten `elif`, so that a long chain is neither deep here nor deep in the output."""
        arms: list[n.Arm] = []
        tail: ast.If | None = node
        orelse: list[ast.stmt] = []
        while tail is not None:
            if len(arms) == Limits.ARMS:
                _refuse(tail, f"more than {Limits.ARMS} arms of one if")
            cost, condition = self.costed(tail.test, self.scalar)
            arms.append(n.Arm(tail.lineno, cost, condition, self.block(tail.body)))
            orelse = tail.orelse
            one = orelse[0] if len(orelse) == 1 else None
            tail = one if isinstance(one, ast.If) else None
        return n.If(node.lineno, tuple(arms), self.block(orelse))

    def loop(self, node: ast.For, target: int) -> n.Stmt:
        line = node.lineno
        if getattr(node, "type_comment", None):
            _refuse(node, "annotations are not in the language")
        match node.iter:
            case ast.Call(func=ast.Name(id="range"), args=[_] | [_, _] as args, keywords=[]):
                bounds = [self.constant(a) for a in args]
                start, stop = (0, bounds[0]) if len(bounds) == 1 else bounds
                return n.ForRange(line, target, start, stop, self.loop_body(node))
        cost, sequence = self.costed(node.iter, self.sequence)
        return n.ForEach(line, cost, target, sequence, self.loop_body(node))

    def loop_body(self, node: ast.For) -> n.Block:
        self.loops += 1
        body = self.block(node.body)
        self.loops -= 1
        return body

    def emit(self, node: ast.stmt, args: list[ast.expr]) -> n.Emit:
        arity = self.signature.emits
        if arity == 0:
            _refuse(node, f"'{self.signature.name}' may not emit")
        if len(args) != arity:
            _refuse(node, f"emit takes {arity} values here, not {len(args)}")
        self.cost = 1
        items = tuple(self.scalar(a) for a in args)
        return n.Emit(node.lineno, self.cost, items)

    # Expressions

    def costed(self, node: ast.expr, make: Callable[[ast.expr], n.Expr]) -> tuple[int, n.Expr]:
        """The expression of a statement, and 1 + the number of its nodes."""
        self.cost = 1
        result = make(node)
        return self.cost, result

    def scalar(self, node: ast.expr) -> n.Expr:
        """An expression that isn't plainly a tuple, even in code that is never reached."""
        result = self.expr(node)
        if isinstance(result, n.TupleOf | n.LoadTuple):
            _refuse(node, "a tuple stands where an integer must be")
        return result

    def sequence(self, node: ast.expr) -> n.Expr:
        """An expression that may be a tuple."""
        result = self.expr(node)
        if not isinstance(result, n.TupleOf | n.LoadTuple | n.Local):
            _refuse(node, "an integer stands where a tuple must be")
        return result

    def expr(self, node: ast.expr) -> n.Expr:
        make = _EXPRESSIONS.get(type(node))
        if make is None:
            _refuse(node, f"this kind of expression ({type(node).__name__}) is not in the language")
        self.depth += 1
        if self.depth > Limits.DEPTH:
            _refuse(node, "the expression is nested too deeply")
        self.cost += 1
        result = make(self, node)
        self.depth -= 1
        return result

    def number(self, node: ast.Constant) -> n.Expr:
        # bool is a subclass of int; a string could come from a stray docstring.
        if type(node.value) is not int:
            _refuse(node, "only integers are in the language")
        if node.value > MAX_U64:
            _refuse(node, "a number is larger than 2**64-1")
        return n.Const(node.lineno, node.value)

    def name(self, node: ast.Name) -> n.Expr:
        slot = self.slots.get(node.id)
        if slot is None:
            _refuse(node, f"name {node.id!r} is never assigned")
        if slot in self.buffers:
            _refuse(node, f"buffer {node.id!r} is not a value: use u8, u16, ... or len")
        return n.Local(node.lineno, slot)

    def binop(self, node: ast.BinOp) -> n.Expr:
        left, right = self.scalar(node.left), self.scalar(node.right)
        return self.binary(node.lineno, node.op, left, right, node)

    def binary(
        self, line: int, op: ast.operator, left: n.Expr, right: n.Expr, node: ast.AST
    ) -> n.Binary:
        sign = _BINARY.get(type(op))
        if sign is None:
            _refuse(node, f"operator {type(op).__name__} is not in the language")
        return n.Binary(line, sign, left, right)

    def compare(self, node: ast.Compare) -> n.Expr:
        line, items = node.lineno, [node.left, *node.comparators]
        if len(node.ops) == 1 and isinstance(node.ops[0], ast.In | ast.NotIn):
            found = n.Contains(line, self.scalar(items[0]), self.sequence(items[1]))
            if isinstance(node.ops[0], ast.In):
                return found
            self.cost += 1
            return n.Not(line, found)
        ops = tuple(_COMPARE.get(type(op), "") for op in node.ops)
        if "" in ops:
            _refuse(node, "'is' and chains with 'in' are not in the language")
        return n.Compare(line, ops, tuple(self.scalar(i) for i in items))

    def logic(self, node: ast.BoolOp) -> n.Expr:
        items = tuple(self.scalar(v) for v in node.values)
        return n.Logic(node.lineno, isinstance(node.op, ast.And), items)

    def unary(self, node: ast.UnaryOp) -> n.Expr:
        if not isinstance(node.op, ast.Not):
            _refuse(node, f"operator {type(node.op).__name__} is not in the language")
        return n.Not(node.lineno, self.scalar(node.operand))

    def choose(self, node: ast.IfExp) -> n.Expr:
        parts = [self.scalar(part) for part in (node.test, node.body, node.orelse)]
        return n.Choose(node.lineno, parts[0], parts[1], parts[2])

    def tuple_of(self, node: ast.Tuple) -> n.Expr:
        return n.TupleOf(node.lineno, tuple(self.scalar(e) for e in node.elts))

    def subscript(self, node: ast.Subscript) -> n.Expr:
        if isinstance(node.value, ast.Name) and self.slots.get(node.value.id) in self.buffers:
            _refuse(node, f"buffer {node.value.id!r} can't be indexed: use u8")
        return n.Index(node.lineno, self.sequence(node.value), self.scalar(node.slice))

    def call(self, node: ast.Call) -> n.Expr:
        if not isinstance(node.func, ast.Name) or node.keywords:
            _refuse(node, "only 'intrinsic(value, ...)' can be called")
        name, args, line = node.func.id, node.args, node.lineno
        if name == "len" and len(args) == 1:
            return self.length(line, args[0])
        if name in ("min", "max") and len(args) >= 2:
            return n.Pick(line, name == "min", tuple(self.scalar(a) for a in args))
        intrinsic = INTRINSICS.get(name)
        if intrinsic is None:
            _refuse(node, f"{name!r} can't be called here, or not so")
        if isinstance(intrinsic, Bulk):
            return self.bulk(node, name, intrinsic)
        wanted = 2 if isinstance(intrinsic, Load) else 3
        if len(args) != wanted:
            _refuse(node, f"{name!r} takes {wanted} arguments, not {len(args)}")
        buffer, offset = self.buffer(args[0]), self.scalar(args[1])
        if isinstance(intrinsic, Load):
            return n.LoadOne(line, buffer, offset, intrinsic.width, intrinsic.big_endian)
        count = self.constant(args[2])
        if not 1 <= count <= Limits.TUPLE:
            _refuse(node, f"{name!r} of {count} values: 1 to {Limits.TUPLE} are allowed")
        self.cost += count
        return n.LoadTuple(line, buffer, offset, intrinsic.width, count)

    def length(self, line: int, node: ast.expr) -> n.Expr:
        slot = self.slots.get(node.id) if isinstance(node, ast.Name) else None
        if slot is None:
            _refuse(node, "len takes the name of a buffer or of a tuple")
        return n.Length(line, slot)

    def bulk(self, node: ast.Call, name: str, intrinsic: Bulk) -> n.Expr:
        args = node.args
        wanted = 2 * intrinsic.spans + 1 + intrinsic.extra
        if len(args) != wanted:
            _refuse(node, f"{name!r} takes {wanted} arguments, not {len(args)}")
        spans = tuple(
            (self.buffer(args[2 * i]), self.scalar(args[2 * i + 1])) for i in range(intrinsic.spans)
        )
        rest = tuple(self.scalar(a) for a in args[2 * intrinsic.spans :])
        return n.BulkOp(node.lineno, name, spans, rest[0], rest[1:], intrinsic.hi)

    def buffer(self, node: ast.expr) -> int:
        slot = self.slots.get(node.id) if isinstance(node, ast.Name) else None
        if slot is None or slot not in self.buffers:
            _refuse(node, "the name of a buffer must stand here")
        return slot

    def constant(self, node: ast.expr) -> int:
        """Fold an expression of numbers. Each result must lie in 0..2**64-1."""
        cost = self.cost
        result = _fold(self.scalar(node))
        self.cost = cost
        return result


def _fold(node: n.Expr) -> int:
    if isinstance(node, n.Const):
        return node.value
    if not isinstance(node, n.Binary):
        raise VerifyError(node.line, "only an expression of numbers can stand here")
    left, right = _fold(node.left), _fold(node.right)
    try:
        # On intervals of one number each the arithmetic is exact.
        return BINARY[node.op]((left, left), (right, right))[0]
    except UnprovedError as error:
        raise VerifyError(node.line, str(error)) from None


# The table pairs each node type with its own method, which takes exactly that type.
_EXPRESSIONS: Final[dict[type[ast.expr], Callable[..., n.Expr]]] = {
    ast.Constant: _Shaper.number,
    ast.Name: _Shaper.name,
    ast.BinOp: _Shaper.binop,
    ast.Compare: _Shaper.compare,
    ast.BoolOp: _Shaper.logic,
    ast.UnaryOp: _Shaper.unary,
    ast.IfExp: _Shaper.choose,
    ast.Tuple: _Shaper.tuple_of,
    ast.Subscript: _Shaper.subscript,
    ast.Call: _Shaper.call,
}
