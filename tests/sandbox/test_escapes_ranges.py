"""Published ways out of verifiers: ranges that are believed and don't hold.

From eBPF: bounds of 32 bits believed for 64 (CVE-2020-8835, CVE-2021-31440), signed and unsigned
bounds confused (CVE-2017-16995), operations whose range was computed wrongly (CVE-2021-3490),
wrong refinement at `!=` and at the untaken branch, values that differ where paths join. Each is
written in this language, must be refused, and for a reason of ranges; its safe twin is accepted.
"""

from __future__ import annotations

import pytest

from tests.sandbox.oracle import check
from xnfs.sandbox import Buffer, Int, Ints, Signature, VerifyError, verify

F = Signature(
    "f", (Buffer("m", 64), Int("k"), Int("n", 0, 9), Ints("g", 3)), returns=(0, 2**64 - 1)
)
HEADER = "def f(m, k, n, g):\n    "

# Range confusion: each would load past the 64 bytes of m, or wrap.
RANGES: dict[str, str] = {
    "bounds of the low 32 bits don't bound 64": "if k & 0xFFFFFFFF < 64: return u8(m, k)",
    "equal low 32 bits don't bound 64": "if k & 0xFFFFFFFF == 1: return u8(m, k)",
    "masked high bits don't bound low ones": "if k >> 32 == 0: return u8(m, k)",
    "a difference isn't negative": "if n - 10 < 0: return u8(m, n)",
    "negative offset by wrapping": "return u8(m, n + 0xFFFFFFFFFFFFFFFF)",
    "sign bit doesn't hide": "if k > 0x7FFFFFFFFFFFFFFF: return u8(m, k)",
    "offset plus width wraps": "return u64(m, 0xFFFFFFFFFFFFFFFC)",
    "shift by 64 isn't 0": "return u8(m, k >> 64)",
    "shift by a variable above 63": "return u8(m, 1 << (n * 8))",
    "left shift loses no bits": "return u8(m, (k << 60) >> 60)",
    "inclusive end": "if k <= 64: return u8(m, k)",
    "inclusive end of a wide load": "if k <= 57: return u64(m, k)",
    "off by one after a loop": "for i in range(65): pass\n    return u8(m, i)",
    "count after a loop": "s = 0\n    for i in range(64): s += 1\n    return u8(m, s)",
    "!= is no bound": "if k != 64: return u8(m, k)",
    "!= trims one end only": "o = min(k, 65)\n    if o != 65: return u8(m, o)",
    "!= of two variables trims nothing": "o = min(k, 64)\n    if o != n + 55: return u8(m, o)",
    "the untaken branch isn't negated twice": "if k < 64: pass\n    else: return u8(m, k)",
    "the end of and": "if k < 64 and n < 3: pass\n    else: return u8(m, k)",
    "the end of or": "if k < 64 or n < 3: return u8(m, k)",
    "not and": "if not (k >= 64 and n == 3): return u8(m, k)",
    "the end of a chain": "if n < k < 64: pass\n    else: return u8(m, k)",
    "a chain bounds neighbours only": "if 64 > n < k: return u8(m, k)",
    "membership among variables": "if k in (1, n * 8): return u8(m, k)",
    "membership in the caller's tuple": "if k in g: return u8(m, k)",
    "not in excludes no range": "if k not in (64, 65, 66): return u8(m, k)",
    "a join keeps both": "o = 0\n    if n == 9: o = 64\n    return u8(m, o)",
    "a join after break": "o = 0\n    for x in g:\n        if x == 1:\n            o = 64\n"
    "            break\n    return u8(m, o)",
    "a join after continue": "o = 0\n    for x in g:\n        if x == 1:\n            o += 32\n"
    "            continue\n        o = 0\n    return u8(m, o)",
    "zero turns leave the old value": "o = 64\n    for x in g: o = 0\n    return u8(m, o)",
    "zero turns leave a name undefined": "for x in g: o = 0\n    return o",
    "the loop variable of zero turns": "for i in range(0): pass\n    return i",
    "a bound doesn't survive assignment": "o = min(k, 99)\n    if o < 64:\n        o = o * 2\n"
    "        return u8(m, o)",
    "product": "return u8(m, k * 2 // 2)",
    "product of two": "return u8(m, u32(m, 0) * u32(m, 4) * u32(m, 8) & 1)",
    "sum of many": "s = k\n    for x in g: s = s + x\n    return 0",
    "division by zero": "return k // (n % 9)",
    "remainder by zero": "return k % (n & 8)",
    "remainder reaches its divisor less one": "return u8(m, k % 65)",
    "remainder by a variable": "return u8(m, k % (n * 8 + 1))",
    "or adds bits": "return u64(m, n * 4 | 29)",
    "xor adds bits": "return u64(m, n * 4 ^ 29)",
    "and with a large constant": "return u8(m, k & 0xFFFFFFFFFFFFFFC0)",
    "tuple index": "t = (1, 2, 3)\n    return t[n % 4]",
    "index of an empty tuple": "return ()[0]",
    "index behind a wrong length": "if len(g) != 3: return g[2]",
    "index behind a length of another": "if len(g) > n: return g[n + 1]",
    "a fact about an old value": "o = min(k, 99)\n    if o < len(m):\n        o += 1\n"
    "        return u8(m, o)",
    "difference of equals": "if k == n: return n - k - 1",
    "difference the wrong way": "if k >= n: return n - k",
    "difference after a change": "o = n\n    if k >= o:\n        o += 1\n        return k - o",
    "difference behind or": "if k >= n or n == 3: return k - n",
    "minimum isn't maximum": "return u8(m, max(n, k))",
    "conditional expression joins": "return u8(m, k if k < 65 else 0)",
    "same checks the second buffer": "return same(m, 0, m, n * 8, 1)",
    "same checks the length": "return same(m, 0, m, 0, n * 8)",
    "hash of too much": "return hash64(m, 1, 64, 0)",
    "result of hash64 is 64 bits": "return u8(m, hash64(m, 0, 1, 0) >> 57)",
    "result of crc32 is 32 bits": "return u8(m, crc32(m, 0, 1) >> 25)",
    "unreachable isn't assumed": "if k == 5:\n        if k == 6: pass\n"
    "        return u8(m, k + 60)",
    "type by branch": "t = 5\n    if n: t = (1, 2)\n    return t[0] if n else t",
    "type in a loop": "t = 5\n    for i in range(2):\n        t = (t, 1)\n    return 0",
}


def _function(body: str) -> str:
    """The function of this body, which ends with a result even where its last `if` fails."""
    ends = body.split("\n")[-1].removeprefix("    ").startswith("return")
    return f"{HEADER}{body}\n" + ("" if ends else "    return 0\n")


@pytest.mark.parametrize("name", RANGES)
def test_escape_by_range(name: str) -> None:
    with pytest.raises(VerifyError, match=r" may | where an? \w+ must be| on one path "):
        verify(_function(RANGES[name]), F, budget=10_000)


# The same ideas with the right bound: the refusals above are for their reason, not for their form.
SAFE: dict[str, str] = {
    "low bits are bounded themselves": "return u8(m, k & 63)",
    "inclusive end": "if k <= 63: return u8(m, k)",
    "inclusive end of a wide load": "if k <= 56: return u64(m, k)",
    "after a loop": "for i in range(64): pass\n    return u8(m, i)",
    "!= trims the end": "o = min(k, 64)\n    if o != 64: return u8(m, o)",
    "and": "if k < 64 and n < 3: return u8(m, k)",
    "not or": "if not (k >= 64 or n == 3): return u8(m, k)",
    "chain": "if n < k < 64: return u8(m, k)",
    "membership": "if k in (1, 63): return u8(m, k)",
    "not in": "o = min(k, 66)\n    if o not in (64, 65, 66): return u8(m, o)",
    "join": "o = 0\n    if n == 9: o = 63\n    return u8(m, o)",
    "remainder": "return u8(m, k % 64)",
    "or": "return u8(m, n * 4 | 3)",
    "length": "if len(g) == 3: return g[2]",
    "difference": "if k >= n: return k - n",
    "difference of variables behind a gap": "if k > n: return k - n - 1",
    "shifted": "if k >> 6 == 0: return u8(m, k)",
    "crc32": "return u8(m, crc32(m, 0, 1) >> 26)",
}


@pytest.mark.parametrize("name", SAFE)
def test_safe_twin_is_accepted(name: str) -> None:
    program = verify(_function(SAFE[name]), F, budget=10_000)
    for k in (0, 1, 56, 57, 63, 64, 65, 2**32 + 1, 2**64 - 1):
        for n, g in ((0, ()), (9, (5, 6, 7))):
            check(program, F, (bytes(range(64)), k, n, g))
