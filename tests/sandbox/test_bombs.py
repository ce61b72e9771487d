"""Source that attacks the verifier's own stack, time and memory, and CPython's compiler."""

from __future__ import annotations

import sys
import time
from types import FrameType

import pytest

from tests.sandbox.oracle import check
from xnfs.sandbox import Buffer, Int, Ints, Limits, Signature, VerifyError, interpret, verify

F = Signature(
    "f", (Buffer("m", 64), Int("k"), Int("n", 0, 9), Ints("g", 3)), returns=(0, 2**64 - 1)
)
HEADER = "def f(m, k, n, g):\n    "
ARGS = (bytes(range(64)), 2**64 - 1, 9, (1, 2**64 - 1, 3))


def test_deepest_accepted_nesting_compiles() -> None:
    deep, forms = "k", ("(not {})", "min({}, 1)", "({} if 1 else 0)", "(1 < {})")
    for turn in range(Limits.DEPTH - 2):
        deep = forms[turn % 4].format(deep)
    blocks = "".join("    " * d + f"if {deep}:\n" for d in range(1, Limits.BLOCKS))
    blocks += "    " * Limits.BLOCKS + f"return {deep}\n    return 1\n"
    program = verify("def f(m, k, n, g):\n" + blocks, F, budget=10_000)
    check(program, F, ARGS)


def test_longest_accepted_elif_compiles() -> None:
    arms = "".join(f"    elif k == {i}: return {i}\n" for i in range(1, Limits.ARMS))
    program = verify(f"{HEADER}if k == 0: return 0\n{arms}    return 999\n", F, budget=10_000)
    check(program, F, (ARGS[0], Limits.ARMS - 1, 0, ()))


def test_full_stack_is_refused_not_overflown() -> None:
    source = f"{HEADER}return {'(not ' * 20}k{')' * 20}\n"

    def at_depth(depth: int) -> None:
        if depth:
            at_depth(depth - 1)
            return
        try:
            verify(source, F, budget=999)
        except VerifyError as error:
            refused.append(error)

    refused: list[VerifyError] = []
    frames = sys.getrecursionlimit() - len(_stack())
    for room in range(20, 120, 10):
        at_depth(frames - room)
    assert refused
    assert verify(source, F, budget=999).run(*ARGS) == 1


def _stack() -> list[FrameType]:
    frames: list[FrameType] = []
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        frames.append(frame)
        frame = frame.f_back
    return frames


# Work of the verifier itself.
BOMBS: dict[str, str] = {
    "paths": "x = 0\n" + "    if k & 1: x = x | 1\n    else: x = x | 2\n" * 180 + "    return x\n",
    "loop in loop": "for a in range(999):\n        for b in range(999): pass\n    return 1\n",
    "loop of nothing": "for a in range(0xFFFFFFFFFFFFFFFF):\n        pass\n    return 1\n",
    "joins of tuples": "a = u8s(m, 0, 64)\n    b = u16s(m, 0, 32)\n    t = a\n"
    "    for i in range(9999):\n"
    "        t = a if 0 else 1\n        if k: t = a\n        else: t = b\n    return 1\n",
    "joins of long tuples": "t = u8s(m, 0, 64)\n    for i in range(20000):\n"
    "        u = (k, k, k)\n        if k: u = (n, n, n)\n        else: u = (k, n, k)\n"
    "    return 1\n",
    "conditions": "for i in range(9999):\n        if "
    + " and ".join(["(k or n)"] * 60)
    + ": pass\n    return 1\n",
    "membership": "t = u8s(m, 0, 64)\n    for i in range(9999):\n        if k in t: pass\n"
    "    return 1\n",
}


@pytest.mark.parametrize("name", BOMBS)
def test_verification_ends_soon(name: str) -> None:
    start = time.perf_counter()
    try:
        verify(HEADER + BOMBS[name], F, budget=10**9)
    except VerifyError as error:
        assert "complex" in error.reason or "tuple" in error.reason  # noqa: PT017
    assert time.perf_counter() - start < 5


def test_too_complex_is_said() -> None:
    # A counter: no state but the exact one holds before every turn, so all turns are looked at.
    source = "a = 0\n    for i in range(999999):\n        a = a + 1 & 0xffffff\n    return 1\n"
    with pytest.raises(VerifyError, match="too complex to verify"):
        verify(HEADER + source, F, budget=10**9)


def test_unverified_text_can_be_interpreted_safely() -> None:
    assert interpret(f"{HEADER}return k\n", F, ARGS, max_steps=9) == 2**64 - 1
    with pytest.raises(VerifyError):
        interpret(f"{HEADER}return k.real\n", F, ARGS, max_steps=9)
