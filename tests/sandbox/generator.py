"""Programs at random, well formed and often just inside or just outside what can be proved.

The generator keeps a rough idea of how large each value gets, to make most programs acceptable.
It is no oracle: it may be wrong, and on purpose it sometimes ignores what it knows.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Final

from xnfs.sandbox import Buffer, Int, Ints, Signature

META: Final = 64
PKT_LEAST, PKT_MOST = 8, 96
GROUPS: Final = 6  # more turns than the verifier unrolls at once
PARAMS: Final = (
    Buffer("meta", META),
    Buffer("pkt", PKT_MOST, PKT_LEAST),
    Int("k"),
    Int("n", 1, 20),
    Ints("groups", GROUPS),
)
RETURNING: Final = Signature("f", PARAMS, returns=(0, 2**64 - 1))
NARROW: Final = Signature("f", PARAMS, returns=(0, 300))
EMITTING: Final = Signature("f", PARAMS, emits=2, max_emits=12)
SIGNATURES: Final = (RETURNING, NARROW, EMITTING)

_TOP: Final = 2**64 - 1
_CONSTANTS: Final = (0, 1, 2, 3, 4, 7, 8, 15, 16, 31, 32, 60, 63, 64, 65, 255, 256, 2**32, _TOP)
_COMPARISONS: Final = ("<", "<=", "==", "!=", ">=", ">")
_WIDTHS: Final = {"u8": 1, "u16": 2, "u32": 4, "u64": 8, "be16": 2, "be32": 4}

Sized = tuple[str, int]  # text, and a rough upper bound of its value


def arguments(rng: random.Random) -> tuple[bytes, bytes, int, int, tuple[int, ...]]:
    """Arguments that fit the signatures, with a liking for the edges."""
    length = rng.choice((PKT_LEAST, PKT_MOST, rng.randint(PKT_LEAST, PKT_MOST)))
    count = rng.randint(0, GROUPS)
    groups = [rng.choice((0, 1, 255, _TOP, rng.getrandbits(64))) for _ in range(count)]
    k = rng.choice((0, 1, 63, 64, 255, _TOP, rng.getrandbits(64), rng.randint(0, 100)))
    n = rng.choice((1, 20, rng.randint(1, 20)))
    return _bytes(rng, META), _bytes(rng, length), k, n, tuple(groups)


def _bytes(rng: random.Random, size: int) -> bytes:
    style = rng.randrange(4)
    if style == 0:
        return bytes([rng.choice((0, 255))]) * size
    if style == 1:
        return bytes(rng.choice((0, 0, 1, 2, 60, 63, 64, 255)) for _ in range(size))
    return bytes(rng.getrandbits(8) for _ in range(size))


def program(rng: random.Random, signature: Signature) -> str:
    """The text of one function of this signature."""
    return _Generator(rng, signature).function()


class _Generator:
    def __init__(self, rng: random.Random, signature: Signature) -> None:
        self.rng, self.signature = rng, signature
        self.ints: dict[str, int] = {"k": _TOP, "n": 20}
        self.tuples: dict[str, int] = {}  # name -> length
        self.fresh = 0
        self.lines: list[str] = []
        self.loops = 0

    def careless(self) -> bool:
        return self.rng.random() < 0.04

    def function(self) -> str:
        self.lines = ["def f(meta, pkt, k, n, groups):"]
        for _ in range(self.rng.randint(2, 7)):
            self.statement(1)
        if self.signature.emits:
            self.put(1, f"emit({self.bounded(255)}, {self.expr(2)[0]})")
        else:
            self.put(1, f"return {self.result()}")
        return "\n".join(self.lines) + "\n"

    def result(self) -> str:
        high = self.signature.returns[1] if self.signature.returns else _TOP
        return self.expr(2)[0] if high == _TOP else self.bounded(high)

    def put(self, depth: int, text: str) -> None:
        self.lines.append("    " * depth + text)

    def name(self) -> str:
        assignable = [v for v in self.ints if v not in ("k", "n")]
        if assignable and self.rng.random() < 0.4:
            return self.rng.choice(assignable)
        self.fresh += 1
        return f"v{self.fresh}"

    # Expressions

    def expr(self, depth: int) -> Sized:
        kinds: list[Callable[[int], Sized]] = [self.leaf] * 2
        if depth > 0:
            kinds += [self.arithmetic] * 3
            kinds += [self.load, self.load, self.condition_value, self.choice, self.pick, self.bulk]
            if self.tuples:
                kinds.append(self.index)
        return self.rng.choice(kinds)(depth - 1)

    def leaf(self, _depth: int) -> Sized:
        if self.rng.random() < 0.6:
            name = self.rng.choice(list(self.ints))
            return name, self.ints[name]
        if self.rng.random() < 0.15:
            return self.rng.choice(
                (("len(pkt)", PKT_MOST), ("len(groups)", GROUPS), ("len(meta)", META))
            )
        value = self.rng.choice(_CONSTANTS)
        return str(value), value

    def bounded(self, high: int, depth: int = 1) -> str:
        """An expression of at most `high`, unless careless."""
        text, bound = self.expr(depth)
        if bound <= high or self.careless():
            return text
        mask = (1 << (high + 1).bit_length() - 1) - 1
        style = self.rng.randrange(3)
        if style == 0:
            return f"({text}) & {mask}"
        return f"({text}) % {high + 1}" if style == 1 else f"min({text}, {high})"

    def arithmetic(self, depth: int) -> Sized:
        (a, high_a), (b, high_b) = self.expr(depth), self.expr(depth)
        op = self.rng.choice(("+", "-", "*", "//", "%", "&", "|", "^", "<<", ">>"))
        careless = self.careless()
        if op in ("+", "*") and not careless:
            total = high_a + high_b if op == "+" else high_a * high_b
            if total > _TOP:
                a, b, high_a, high_b = f"({a}) % 65536", f"({b}) & 255", 65535, 255
                total = high_a + high_b if op == "+" else high_a * high_b
            return f"(({a}) {op} ({b}))", total
        if op == "-" and not careless:
            least = self.rng.choice((1, 64, 256))
            return f"(({a} | {least}) - ({b}) % {least + self.rng.randint(0, 1)})", high_a | least
        if op in ("//", "%") and not careless:
            b = self.rng.choice(("n", "3", "64", f"(({b}) | 1)"))
        if op == "<<" and not careless:
            return f"((({a}) & 1023) << ({b}) % {self.rng.choice((8, 54))})", 1023 << 53
        if op == ">>" and not careless:
            b = self.rng.choice((f"({b}) & 63", f"({b}) % 64", "56"))
        high = max(high_a, high_b)
        if op in ("|", "^"):
            high = (1 << high.bit_length()) - 1
        return f"(({a}) {op} ({b}))", high if op in ("|", "^") else high_a

    def place(self, width: int) -> tuple[str, str]:
        """A buffer, and an offset at which `width` bytes should fit."""
        buffer, least = self.rng.choice((("meta", META), ("pkt", PKT_LEAST)))
        room = max(0, least - width) + (1 if self.careless() else 0)
        return buffer, self.bounded(room)

    def load(self, _depth: int) -> Sized:
        intrinsic = self.rng.choice(list(_WIDTHS))
        width = _WIDTHS[intrinsic]
        buffer, offset = self.place(width)
        return f"{intrinsic}({buffer}, {offset})", (1 << 8 * width) - 1

    def bulk(self, _depth: int) -> Sized:
        size = self.rng.choice((0, 1, 4, 8))
        (a, i), (b, j) = self.place(size), self.place(size)
        length = self.bounded(size) if self.rng.random() < 0.5 else str(size)
        return self.rng.choice(
            (
                (f"same({a}, {i}, {b}, {j}, {length})", 1),
                (f"zero({a}, {i}, {length})", 1),
                (f"hash64({a}, {i}, {length}, k)", _TOP),
                (f"crc32({a}, {i}, {length})", 2**32 - 1),
            )
        )

    def condition_value(self, depth: int) -> Sized:
        return f"({self.condition(depth)})", 1

    def choice(self, depth: int) -> Sized:
        (a, high_a), (b, high_b) = self.expr(depth), self.expr(depth)
        return f"(({a}) if {self.condition(depth)} else ({b}))", max(high_a, high_b)

    def pick(self, depth: int) -> Sized:
        (a, high_a), (b, high_b) = self.expr(depth), self.expr(depth)
        if self.rng.random() < 0.5:
            return f"min({a}, {b})", min(high_a, high_b)
        return f"max({a}, {b})", max(high_a, high_b)

    def index(self, _depth: int) -> Sized:
        name = self.rng.choice(list(self.tuples))
        last = self.tuples[name] - 1 + (1 if self.careless() else 0)
        return f"{name}[{self.bounded(last, 0)}]", _TOP

    def condition(self, depth: int) -> str:
        style = self.rng.randrange(8)
        a, b = self.expr(min(depth, 1))[0], self.expr(min(depth, 1))[0]
        op, other = self.rng.choice(_COMPARISONS), self.rng.choice(_COMPARISONS)
        if style <= 2 or depth <= 0:
            return f"{a} {op} {b}"
        if style == 3:
            return f"{a} {op} {b} {other} {self.rng.choice(_CONSTANTS)}"
        if style == 4:
            return f"({self.condition(depth - 1)}) and ({self.condition(depth - 1)})"
        if style == 5:
            return f"({self.condition(depth - 1)}) or ({self.condition(depth - 1)})"
        if style == 6:
            return f"not ({self.condition(depth - 1)})"
        words = self.rng.choice(("in", "not in"))
        values = ", ".join(str(self.rng.choice(_CONSTANTS)) for _ in range(3))
        return f"{a} {words} {self.rng.choice(('groups', f'({values})'))}"

    # Statements

    def statement(self, depth: int) -> None:
        kinds = [self.assign, self.assign, self.augment, self.unpack, self.tuple_of]
        kinds += [self.guarded, self.guarded, self.guarded_length, self.guarded_difference]
        kinds += [self.saturated]
        if depth < 4:
            kinds += [self.conditional, self.conditional, self.loop, self.loop, self.search]
        if self.signature.emits and self.loops < 1:
            kinds.append(self.emit)
        self.rng.choice(kinds)(depth)

    def assign(self, depth: int) -> None:
        text, high = self.expr(2)
        self.define(depth, self.name(), text, high)

    def define(self, depth: int, name: str, text: str, high: int) -> None:
        self.put(depth, f"{name} = {text}")
        self.tuples.pop(name, None)
        self.ints[name] = max(high, self.ints.get(name, 0)) if depth > 1 else high

    def augment(self, depth: int) -> None:
        names = [v for v in self.ints if v not in ("k", "n")]
        if not names:
            self.assign(depth)
            return
        name = self.rng.choice(names)
        op, text, high = self.rng.choice(
            (("+", "1", self.ints[name] + 20), ("&", "255", 255), (">>", "1", self.ints[name]))
        )
        if high <= _TOP or self.careless():
            self.put(depth, f"{name} {op}= {text}")
            self.ints[name] = min(_TOP, max(high, self.ints[name]) if depth > 1 else high)

    def unpack(self, depth: int) -> None:
        count = self.rng.randint(1, 3)
        names = [f"w{self.fresh}_{i}" for i in range(count)]
        self.fresh += 1
        if self.rng.random() < 0.5:
            buffer, offset = self.place(2 * count)
            self.put(depth, f"{', '.join(names)}, = u16s({buffer}, {offset}, {count})")
        else:
            start = self.rng.randint(0, 40)
            steps = [start + 8 * i for i in range(count)]
            self.rng.shuffle(steps)
            loads = [f"u{self.rng.choice((16, 32))}(meta, {s})" for s in steps]
            self.put(depth, f"{', '.join(names)}, = {', '.join(loads)},")
        for name in names:
            self.ints[name] = 2**32 - 1
        self.forget_if_inner(depth, names)

    def tuple_of(self, depth: int) -> None:
        self.fresh += 1
        name = f"t{self.fresh}"
        if self.rng.random() < 0.5:
            count = self.rng.randint(1, 4)
            buffer, offset = self.place(count)
            self.put(depth, f"{name} = u8s({buffer}, {offset}, {count})")
        else:
            items = [self.expr(1)[0] for _ in range(self.rng.randint(1, 4))]
            count = len(items)
            self.put(depth, f"{name} = ({', '.join(items)},)")
        self.tuples[name] = count
        self.forget_if_inner(depth, [name])

    def forget_if_inner(self, depth: int, names: list[str]) -> None:
        """Names born inside a block are not surely defined after it."""
        if depth > 1 and not self.careless():
            for name in names:
                self.ints.pop(name, None)
                self.tuples.pop(name, None)

    def inner(self, depth: int, count: int) -> None:
        ints, tuples = dict(self.ints), dict(self.tuples)
        before = len(self.lines)
        for _ in range(count):
            self.statement(depth)
        if len(self.lines) == before:
            self.put(depth, "pass")
        if not self.careless():
            grown = {k: max(v, self.ints.get(k, 0)) for k, v in ints.items() if k in self.ints}
            self.ints = grown
            self.tuples = {k: v for k, v in tuples.items() if k in self.tuples}

    def conditional(self, depth: int) -> None:
        self.put(depth, f"if {self.condition(2)}:")
        self.inner(depth + 1, self.rng.randint(1, 2))
        if self.rng.random() < 0.3:
            self.put(depth, f"elif {self.condition(1)}:")
            self.inner(depth + 1, 1)
        if self.rng.random() < 0.5:
            self.put(depth, "else:")
            self.inner(depth + 1, 1)
        elif self.rng.random() < 0.2:
            ending = "return" if self.signature.emits else f"return {self.result()}"
            self.put(depth + 1, ending)

    def loop(self, depth: int) -> None:
        variable = f"i{self.rng.randint(0, 3)}"
        start = self.rng.choice((0, 0, 1, 3))
        source, high = self.rng.choice(
            (
                (f"range({self.rng.choice((0, 1, 3, 4, 5, 6, 9))})", 9),
                (f"range({start}, {start + self.rng.randint(0, 3)})", 6),
                ("groups", _TOP),
                (f"u8s(meta, 5, {self.rng.choice((3, 7))})", 255),
                (self.rng.choice([*self.tuples, "groups"]), _TOP),
            )
        )
        self.put(depth, f"for {variable} in {source}:")
        saved = self.ints.get(variable)
        self.ints[variable] = high
        self.loops += 1
        self.inner(depth + 1, self.rng.randint(1, 2))
        if self.rng.random() < 0.4:
            self.put(depth + 1, f"if {self.condition(1)}:")
            self.put(depth + 2, self.rng.choice(("break", "continue")))
            self.inner(depth + 1, 1)
        self.loops -= 1
        self.ints.pop(variable, None)
        if saved is not None or self.careless():
            self.ints[variable] = max(high, saved or 0)

    def search(self, depth: int) -> None:
        """A loop that leaves with a flag: what is true after it holds on some paths only."""
        name = self.name()
        small, large = self.rng.randint(0, 8), self.rng.choice((60, 63, 64))
        self.define(depth, name, str(small), small)
        self.put(
            depth,
            f"for i9 in {self.rng.choice(('groups', 'range(3)', 'range(7)', 'u8s(meta, 1, 9)'))}:",
        )
        self.put(depth + 1, f"if {self.rng.choice(('i9', 'u8(meta, 3)'))} == 1:")
        self.put(depth + 2, f"{name} = {large}")
        self.put(depth + 2, self.rng.choice(("break", "continue", "pass")))
        self.define(depth, f"{name}x", f"u8(meta, {name})", 255)
        self.ints[name] = max(small, large)
        self.forget_if_inner(depth, [f"{name}x"])

    def guarded(self, depth: int) -> None:
        """A load that is safe, or just not, because of a condition on its offset."""
        rng = self.rng
        name = self.name()
        buffer, least = rng.choice((("meta", META), ("pkt", PKT_LEAST)))
        intrinsic = rng.choice(("u8", "u16", "u32"))
        last = least - _WIDTHS[intrinsic]
        edge = last + rng.choice((0, 0, 0, 1, 1, -1))
        self.define(depth, name, f"u8({rng.choice(('meta, 7', 'pkt, 3'))})", 255)
        if rng.random() < 0.3:  # a range that ends where `!=` can trim it
            self.put(depth, f"{name} = min({name}, {last + 1})")
        more = rng.randint(0, 3)
        conditions = [
            (f"{name} <= {edge}", name),
            (f"{name} < {edge + 1}", name),
            (f"{edge} >= {name}", name),
            (f"not {name} > {edge}", name),
            (f"not ({name} != {edge})", name),
            (f"{name} != {last + 1}", name),
            (f"{name} + {more} <= {edge}", name),
            (f"{name} + n <= {edge}", name),
            (f"{name} + n <= {edge}", f"{name} + n"),
            (f"{name} - n % 2 < {edge}" if rng.random() < 0.5 else f"90 - {name} > 25", name),
            (f"{name} > n and {name} - n <= {edge}", f"{name} - n"),
            (f"{name} << 1 <= {2 * edge}", name),
            (f"{name} * 3 < {3 * edge + 1}", name),
            (f"{name} >> 3 == {last >> 3}", name),
            (f"1 <= {name} <= {edge}", f"{name} - 1"),
            (f"{name} >= 2 and {name} <= {edge}", f"{name} - {rng.randint(1, 3)}"),
            (f"not ({name} > {edge} or {name} == 0)", f"{name} - 1"),
            (f"{name} in ({edge}, 1, 2)", f"{name} + 0"),
            (f"{name} == {edge} and k < 9", name),
        ]
        condition, offset = rng.choice(conditions)
        if rng.random() < 0.5:
            self.put(depth, f"if {condition}:")
            self.put(depth + 1, f"{name} = {intrinsic}({buffer}, {offset})")
        else:
            self.put(depth, f"{name} = {intrinsic}({buffer}, {offset}) if {condition} else 5")
        self.ints[name] = 2**32 - 1

    def guarded_length(self, depth: int) -> None:
        """The same with the length of the packet, or of the groups."""
        rng = self.rng
        name = self.name()
        size, more = rng.choice((1, 2, 4)), rng.randint(0, 2)
        wrong = rng.choice((0, 0, 0, 1))
        self.define(depth, name, f"u8(meta, 9) + {more}", 258)
        load = f"u{8 * size}(pkt, {name})"
        conditions = [
            (f"{name} + {size - wrong} <= len(pkt)", load),
            (f"len(pkt) >= {name} + {size - wrong}", load),
            (f"not len(pkt) < {name} + {size - wrong}", load),
            (f"{name} + {size} < len(pkt) + {1 + wrong}", load),
            (f"len(pkt) >= {40 - wrong}", f"u{8 * size}(pkt, {40 - size})"),
            (f"len(pkt) > {40 - size + 1}", f"u{8 * size}(pkt, {40 - size})"),
            (f"{name} + n <= len(pkt)", f"crc32(pkt, {name}, n)"),
            (f"{name} + n <= len(pkt) + {wrong}", f"zero(pkt, {name}, n)"),
            (f"len(groups) > {2 - wrong}", "groups[2]"),
            (f"len(groups) == {3 - wrong}", "groups[2]"),
            ("len(groups)", "groups[0]"),
            (f"{name} + n <= {PKT_LEAST + wrong}", f"zero(pkt, {name}, n)"),
            (f"{name} < len(pkt) + {wrong}", f"zero(pkt, {name}, min(n, len(pkt) - {name}))"),
        ]
        condition, value = rng.choice(conditions)
        self.put(depth, f"if {condition}:")
        if rng.random() < 0.2:
            self.put(depth + 1, f"{name} = {name} + {rng.randint(0, 1)}")
        self.put(depth + 1, f"{name} = {value}")
        self.ints[name] = _TOP

    def guarded_difference(self, depth: int) -> None:
        """A difference of two variables that a condition has put in order, or not quite."""
        names = [v for v in self.ints if self.ints[v] < 2**63] or ["n"]
        a, b = self.rng.choice(names), self.rng.choice(names)
        self.fresh += 1
        result = f"d{self.fresh}"
        self.put(depth, f"{result} = 0")
        op = self.rng.choice((">=", ">", "==", ">=", ">"))
        more = self.rng.randint(0, 1)
        self.put(depth, f"if {a} {op} {b} + {more}:")
        if self.rng.random() < 0.15 and b not in ("k", "n"):
            self.put(depth + 1, f"{b} = {b} + 1")
        self.put(depth + 1, f"{result} = {a} - {b}")
        if self.rng.random() < 0.3:
            self.put(depth + 1, f"{result} = {result} - {self.rng.randint(0, 1)}")
        self.ints[result] = self.ints.get(a, _TOP)
        self.forget_if_inner(depth, [result])

    def saturated(self, depth: int) -> None:
        """A length cut to what is left of the packet, or a difference that stops at zero."""
        a, b = (self.rng.choice(list(self.ints)) for _ in range(2))
        self.fresh += 1
        rest, result = f"r{self.fresh}", f"s{self.fresh}"
        if self.rng.random() < 0.5:
            text = self.rng.choice((f"{a} - min({a}, {b})", f"max({a}, {b}) - {a}"))
            if self.careless():
                text = f"{a} - max({a}, {b})"
            self.put(depth, f"{rest} = 0")
            self.put(depth, f"{result} = {text}")
        else:
            room = f"len(pkt) - {self.rng.choice((3, 8, 8))}"
            start = self.rng.choice((3, 8, 8))
            self.put(
                depth, f"{rest} = {self.rng.choice(('min', 'min', 'min', 'max'))}({a}, {room})"
            )
            if self.rng.random() < 0.2:
                self.put(depth, f"{rest} = min({rest} % 256 + 1, {rest} % 256 + 2)")
            self.put(depth, f"{result} = crc32(pkt, {start}, {rest})")
        self.ints[result] = self.ints[a]
        self.forget_if_inner(depth, [result])

    def emit(self, depth: int) -> None:
        self.put(depth, f"emit({self.expr(1)[0]}, {self.expr(2)[0]})")
