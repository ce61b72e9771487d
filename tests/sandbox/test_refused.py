"""Programs that must be refused, each with its line and its reason."""

from __future__ import annotations

import pytest

from xnfs.sandbox import (
    Buffer,
    Int,
    InterpreterError,
    Ints,
    Signature,
    VerifyError,
    interpret,
    verify,
)

F = Signature(
    "f",
    (Buffer("meta", 4096), Buffer("pkt", 1514, 14), Int("k"), Int("n", 0, 9), Ints("groups", 4)),
    returns=(0, 2**64 - 1),
)
HEADER = "def f(meta, pkt, k, n, groups):\n"
E = Signature("g", (Buffer("meta", 64), Int("n", 0, 9)), emits=2, max_emits=3)


def refusal(source: str, signature: Signature = F, budget: int = 10_000) -> VerifyError:
    with pytest.raises(VerifyError) as caught:
        verify(source, signature, budget=budget)
    return caught.value


# name: (body, line, part of the reason). The body begins on line 2.
REFUSED: dict[str, tuple[str, int, str]] = {
    "load past the end": ("return u64(meta, n * 910)", 2, "load of 8 bytes at offset 0..8190 may"),
    "load of a packet": ("return u8(pkt, 14)", 2, "'pkt' (at least 14 bytes)"),
    "one byte past": ("return u32(meta, 4093)", 2, "load of 4 bytes at offset 4093 may pass"),
    "tuple past": ("a, b = u64s(meta, 4081, 2)\n    return a", 2, "load of 16 bytes"),
    "same past": ("return same(meta, 0, meta, 8, 4089)", 2, "load of 4089 bytes at offset 8"),
    "zero past": ("return zero(meta, 4090, n)", 2, "load of 0..9 bytes at offset 4090"),
    "empty load beyond": ("return zero(meta, 4097, 0)", 2, "offset 4097"),
    "sum": ("return k + 1", 2, "sum of 0..2**64-1 and 1 may pass 2**64-1"),
    "difference": ("return n - 1", 2, "difference of 0..9 and 1 may go below zero"),
    "product": ("return k * 2", 2, "product of 0..2**64-1 and 2 may pass 2**64-1"),
    "division": ("return 1 // n", 2, "division by 0..9, which may be zero"),
    "remainder": ("return 1 % n", 2, "remainder by 0..9, which may be zero"),
    "left shift": ("return n << 61", 2, "shift of 0..9 left by 61 may pass 2**64-1"),
    "shift count": ("return k >> 64", 2, "shift by 64 may pass 63"),
    "variable shift count": ("return k >> k", 2, "shift by 0..2**64-1 may pass 63"),
    "tuple index": (
        "t = (1, 2)\n    return t[n]",
        3,
        "index 0..9 may pass the end of a tuple of 2",
    ),
    "index of unsure tuple": ("return groups[0]", 2, "may pass the end of a tuple of 0..4 values"),
    "undefined": ("if k:\n        x = 1\n    return x", 4, "'x' may be undefined here"),
    "undefined after loop": ("for x in groups:\n        pass\n    return x", 4, "'x' may be undef"),
    "never assigned": ("return x", 2, "name 'x' is never assigned"),
    "mixed": (
        "x = 1\n    if k:\n        x = (1, 2)\n    return x",
        5,
        "an integer on one path and",
    ),
    "tuple as integer": ("t = (1, 2)\n    return t + 1", 3, "a tuple stands where an integer"),
    "tuple result": ("return (1, 2)", 2, "a tuple stands where an integer must be"),
    "nested tuple": ("t = (1, 2)\n    u = (t, 1)\n    return 1", 3, "a tuple stands where"),
    "integer as tuple": ("for x in n:\n        pass\n    return 1", 2, "an integer stands where"),
    "integer indexed": ("return n[0]", 2, "an integer stands where a tuple must be"),
    "buffer as value": ("return meta", 2, "buffer 'meta' is not a value"),
    "buffer indexed": ("return meta[0]", 2, "buffer 'meta' can't be indexed"),
    "buffer in tuple": ("t = (meta, 1)\n    return 1", 2, "buffer 'meta' is not a value"),
    "integer as buffer": ("return u8(n, 0)", 2, "the name of a buffer must stand here"),
    "buffer from an expression": ("return u8(meta if k else pkt, 0)", 2, "the name of a buffer"),
    "length of integer": ("return len(n)", 2, "an integer stands where a tuple must be"),
    "wrong count": ("a, b = (1, 2, 3)\n    return a", 2, "3 values can't be unpacked into 2"),
    "unsure count": ("a, b = groups\n    return a", 2, "0..4 values can't be unpacked into 2"),
    "no result": ("if k:\n        return 1", 3, "the function may end without a result"),
    "bare return": ("return", 2, "this function must return a value"),
    "emit": ("emit(1)\n    return 1", 2, "'f' may not emit"),
    "variable count": ("a = u8s(meta, 0, n)\n    return 1", 2, "only an expression of numbers"),
    "too many values": ("a = u8s(meta, 0, 4097)\n    return 1", 2, "1 to 4096 are allowed"),
    "no values": ("a = u8s(meta, 0, 0)\n    return 1", 2, "'u8s' of 0 values"),
    "variable range": (
        "for i in range(n):\n        pass\n    return 1",
        2,
        "only an expression of",
    ),
    "stepped range": (
        "for i in range(0, 9, 2):\n        pass\n    return 1",
        2,
        "'range' can't be",
    ),
    "constant too large": ("return 18446744073709551616", 2, "larger than 2**64-1"),
    "constant shift": ("for i in range(1 << 64):\n        pass\n    return 1", 2, "shift by 64"),
    "constant division": (
        "for i in range(1 // 0):\n        pass\n    return 1",
        2,
        "division by 0",
    ),
    "wrong arguments": ("return u8(meta)", 2, "'u8' takes 2 arguments, not 1"),
    "wrong arguments of hash64": ("return hash64(meta, 0, 1)", 2, "takes 4 arguments, not 3"),
    "unreachable": ("return 1\n    return 2", 3, "this statement can never be reached"),
    "break outside": ("break\n    return 1", 2, "(Break) is not in the language"),
    "loop else": (
        "for i in range(2):\n        pass\n    else:\n        pass\n    return 1",
        2,
        "(For) is not in the language",
    ),
    "endless": ("for i in range(1 << 63):\n        pass\n    return 1", 2, "budget of 10000 steps"),
    "unary minus": ("return -1", 2, "operator USub is not in the language"),
    "power": ("return 2 ** 2", 2, "operator Pow is not in the language"),
    "is": ("return k is n", 2, "'is' is not in the language"),
    "indexed target": ("t = (1, 2)\n    t[0] = 1\n    return 1", 3, "only names can be assigned"),
    "star target": ("a, *b = (1, 2)\n    return a", 2, "only names can be assigned"),
    "two targets": ("a = b = 1\n    return a", 2, "(Assign) is not in the language"),
    "parameter assigned": ("n = 1\n    return n", 2, "parameter 'n' may not be assigned"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_with_line_and_reason(name: str) -> None:
    body, line, reason = REFUSED[name]
    error = refusal(f"{HEADER}    {body}\n")
    assert (error.line, str(error)) == (line, f"line {line}: {error.reason}")
    assert reason in error.reason


def test_refused_header_tells_the_right_one() -> None:
    for source in (
        "def h(meta, pkt, k, n, groups): return 1",
        "def f(meta, pkt, k, n): return 1",
        "def f(meta, pkt, n, k, groups): return 1",
    ):
        assert "must begin 'def f(meta, pkt, k, n, groups):'" in refusal(source).reason


def test_refused_result_outside_its_interval() -> None:
    signature = Signature("f", (Int("k"),), returns=(0, 133))
    assert refusal("def f(k): return k", signature).reason.startswith("result 0..2**64-1 may lie")
    assert verify("def f(k): return k & 127", signature, budget=9).run(255) == 127


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("emit(1)", "emit takes 2 values here, not 1"),
        ("for i in range(4):\n        emit(i, i)", "more than 3 emits on one path"),
        ("for i in range(2):\n        emit(i, i)\n        if n: emit(i, n)", "more than 3 emits"),
        ("return 1", "this function returns nothing"),
        ("emit(meta, 1)", "is not a value"),
        ("emit(1, k=1)", "(Expr) is not in the language"),
        ("emit(*(1, 2))", "emit takes 2 values here, not 1"),
        ("x = emit(1, 2)", "'emit' can't be called here"),
    ],
)
def test_refused_emit(body: str, reason: str) -> None:
    assert reason in refusal(f"def g(meta, n):\n    {body}\n", E).reason


def test_early_bare_return_of_an_emitting_function() -> None:
    source = "def g(meta, n):\n    emit(n, 1)\n    if n == 3: return\n    emit(n, 2)\n"
    program = verify(source, E, budget=99)
    assert program.run(bytes(64), 3) == [(3, 1)]
    assert program.run(bytes(64), 4) == [(4, 1), (4, 2)]


def test_budget_is_exact() -> None:
    source = f"{HEADER}    s = 0\n    for i in range(50):\n        s += i\n    return s\n"
    steps = verify(source, F, budget=10_000).steps
    assert verify(source, F, budget=steps).steps == steps
    assert "budget" in refusal(source, F, budget=steps - 1).reason


def test_bytes_count_against_the_budget() -> None:
    source = f"{HEADER}    return zero(meta, 0, 4096)\n"
    assert verify(source, F, budget=10_000).steps >= 64
    assert "budget of 50 steps" in refusal(source, F, budget=50).reason


@pytest.mark.parametrize("fix", [{"k": 2**64}, {"n": 10}, {"meta": 1}, {"q": 1}])
def test_refused_fix(fix: dict[str, int]) -> None:
    with pytest.raises(VerifyError, match="fix"):
        verify(f"{HEADER}    return 1\n", F, budget=99, fix=fix)


def test_wrong_signatures_are_the_kernels_fault() -> None:
    for params in ((Buffer("a", 1), Int("a")), (Int("_x"),), (Int("u8"),), (Int("x", 5, 4),)):
        with pytest.raises(ValueError, match="signature 'f'"):
            Signature("f", params)
    with pytest.raises(ValueError, match="either emits or returns"):
        Signature("f", (), emits=1, max_emits=1, returns=(0, 1))


# The interpreter checks by itself what the verifier proves.
UNCHECKED: dict[str, str] = {
    "load": "return u8(meta, 4090 + n)",
    "sum": "return k + k",
    "difference": "return n - k",
    "product": "return k * k",
    "division": "return k // (n - n)",
    "shift": "return n << k",
    "index": "t = (1, 2)\n    return t[n]",
    "undefined": "if n == 0:\n        x = 1\n    return x",
    "type": "t = (1, 2)\n    return t + 1",
    "unpack": "a, b = groups\n    return a",
    "no result": "if n == 0:\n        return 1",
    "steps": "for i in range(1 << 60):\n        pass\n    return 1",
    "length": "return len(n)",
}


@pytest.mark.parametrize("name", UNCHECKED)
def test_interpreter_checks_by_itself(name: str) -> None:
    source = f"{HEADER}    {UNCHECKED[name]}\n"
    with pytest.raises(InterpreterError):
        interpret(source, F, (bytes(4096), bytes(20), 2**63, 9, (1,)), max_steps=1000)


@pytest.mark.parametrize(
    "args",
    [
        (bytes(4095), bytes(20), 0, 0, ()),
        (bytes(4096), bytes(13), 0, 0, ()),
        (bytes(4096), bytes(20), 2**64, 0, ()),
        (bytes(4096), bytes(20), 0, 10, ()),
        (bytes(4096), bytes(20), 0, 0, (1, 2, 3, 4, 5)),
        (bytes(4096), bytes(20), 0, 0, (-1,)),
        (bytes(4096), bytes(20), True, 0, ()),
        (bytes(4096), bytes(20), 0, 0),
    ],
)
def test_interpreter_checks_arguments(args: tuple[object, ...]) -> None:
    with pytest.raises(InterpreterError):
        interpret(f"{HEADER}    return 1\n", F, args, max_steps=1000)
