"""Published ways out of Python sandboxes: forms and texts that mean more than they show.

Attributes, names that normalise to others, comprehensions, format strings, shadowing, text that
breaks or misleads the parser. Each attack must end in VerifyError, in dead code as well.
"""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.sandbox.oracle import check
from xnfs.sandbox import Buffer, Int, Ints, Signature, VerifyError, verify

F = Signature(
    "f", (Buffer("m", 64), Int("k"), Int("n", 0, 9), Ints("g", 3)), returns=(0, 2**64 - 1)
)
HEADER = "def f(m, k, n, g):\n    "
ARGS = (bytes(range(64)), 2**64 - 1, 9, (1, 2**64 - 1, 3))
WORDS = [
    *("def f(m, k, n, g): return", "if", "else", "elif", "for", "in", "range", "emit", "u8"),
    *("not", "and", "pass", "break", "lambda", "    ", "\n", "k", "n", "x", "1", "0x"),
    *'()[]:,=+<*#"',
]

# Python's own doors.
SHAPES: dict[str, str] = {
    "attribute": "return k.real",
    "attribute of an intrinsic": "return u8.real",
    "dunder name": "return __class__",
    "dunder builtins": "return __builtins__",
    "single underscore": "_x = 1\n    return _x",
    "helper of the compiler": "return _u32(m, 0)",
    "import": "import os\n    return 1",
    "import from": "from os import path\n    return 1",
    "builtin": "return open(1)",
    "exec": "exec(1)\n    return 1",
    "eval": "return eval(1)",
    "unknown builtin as a value": "x = print\n    return 1",
    "intrinsic as a value": "x = u8\n    return 1",
    "range as a value": "x = range(3)\n    return 1",
    "recursion": "return f(m, k, n, g)",
    "walrus": "return (x := 1)",
    "walrus in a condition": "if (n := 1): return n\n    return 0",
    "lambda": "x = lambda: 1\n    return 1",
    "list comprehension": "x = [1 for i in g]\n    return 1",
    "generator expression": "return min(i for i in g)",
    "comprehension in in": "return k in (i for i in g)",
    "list": "x = [1, 2]\n    return x[0]",
    "dictionary": "x = {1: 2}\n    return 1",
    "set": "x = {1, 2}\n    return 1",
    "slice": "x = g[0:1]\n    return 1",
    "slice of a buffer": "x = m[0:1]\n    return 1",
    "string": "x = 'a'\n    return 1",
    "string with other quotes": 'x = "a"\n    return 1',
    "bytes": 'x = b"a"\n    return 1',
    "format string": 'x = f"{k}"\n    return 1',
    "format string as docstring": 'f"{k}"\n    return 1',
    "bytes as docstring": 'b"abc"\n    return 1',
    "string after a block head": 'if k: "text"\n    return 1',
    "second docstring": '"one"\n    "two"\n    return 1',
    "added docstring": '"a" + 1\n    return 1',
    "called docstring": '"a"(1)\n    return 1',
    "docstring with an attribute": '"a".x\n    return 1',
    "float": "return 1.5",
    "float by exponent": "return 1e3",
    "complex": "return 1j",
    "number with a word behind": "return 1if k else 0",
    "true": "return True",
    "none": "x = None\n    return 1",
    "ellipsis": "...\n    return 1",
    "true division": "return k / 2",
    "invert": "return ~k",
    "matrix product": "return k @ n",
    "star argument": "return min(*g)",
    "double star argument": "return min(**g)",
    "keyword argument": "return u8(m, off=0)",
    "keyword argument of len": "return len(obj=g)",
    "keyword argument of range": "for i in range(stop=3): pass\n    return 1",
    "star in a tuple": "x = (*g, 1)\n    return 1",
    "shadowed intrinsic": "u8 = 1\n    return u8",
    "shadowed len": "len = 1\n    return len",
    "shadowed range by a loop": "for range in g: pass\n    return 1",
    "shadowed emit by unpacking": "emit, x = (1, 2)\n    return x",
    "parameter by a loop": "for n in g: pass\n    return n",
    "parameter by unpacking": "n, x = (1, 2)\n    return n",
    "parameter by augmentation": "n += 1\n    return n",
    "buffer assigned": "m = 1\n    return m",
    "buffer by a loop": "for m in g: pass\n    return 1",
    "buffer alias": "x = m\n    return u8(x, 0)",
    "buffer in a condition": "if m: return 1\n    return 0",
    "buffer compared": "return m == m",
    "buffer in membership": "return k in m",
    "buffer iterated": "for x in m: pass\n    return 1",
    "buffer chosen": "x = m if k else g\n    return 1",
    "nested function": "def h(): pass\n    return 1",
    "nested async function": "async def h(): pass\n    return 1",
    "class": "class C: pass\n    return 1",
    "global": "global x\n    x = 1\n    return x",
    "nonlocal": "nonlocal x\n    return 1",
    "delete": "x = 1\n    del x\n    return 1",
    "assert": "assert k\n    return 1",
    "raise": "raise k",
    "try": "try:\n        pass\n    except:\n        pass\n    return 1",
    "with": "with k: pass\n    return 1",
    "while": "while k: pass\n    return 1",
    "while true": "while 1: pass\n    return 1",
    "yield": "yield 1",
    "yield from": "yield from g",
    "await": "await k\n    return 1",
    "async for": "async for x in g: pass\n    return 1",
    "match": "match k:\n        case 1:\n            return 1\n    return 0",
    "match on a sequence": "match g:\n        case (a, b):\n            return a\n    return 0",
    "annotation": "x: 1 = 2\n    return x",
    "bare annotation": "x: k\n    return 1",
    "type alias": "type X = k\n    return 1",
    "attribute target": "k.x = 1\n    return 1",
    "subscript target": "g[0] = 1\n    return 1",
    "loop into a tuple": "for a, b in g: pass\n    return 1",
    "loop into a subscript": "for g[0] in g: pass\n    return 1",
    "nested unpacking": "a, (b, c) = (1, 2)\n    return 1",
    "chain with in": "return 1 < k in g",
    "is": "return k is k",
    "call of a call": "return u8(m, 0)(1)",
    "call of a tuple": "return (1, 2)(0)",
    "index of a number": "return 1[0]",
    "index by a tuple": "x = g[1, 2]\n    return 1",
    "dead index of a number": "if 0: x = 1[0]\n    return 1",
    "dead index by a tuple": "if 0: x = (1, 2)[(1, 2)]\n    return 1",
    "semicolon": "x = 1; return x",
    "backslash": "x = 1 + \\\n 2\n    return x",
    "expression statement": "k + 1\n    return 1",
    "call statement": "u8(m, 0)\n    return 1",
    "fullwidth name": "\uff4b\uff12 = 1\n    return k2",
    "long s": "u\u017f = 1\n    return us",
    "mathematical k": "return \U0001d424",
    "invisible space": "return\u00a0k",
    "right-to-left override": "return k # \u202e",
    "null byte": "return k\0",
    "form feed": "return k\f",
    "tab": "return\tk",
    "carriage return": "return k\r",
    "surrogate": "return k # \ud800",
    "octal of old": "return 010",
    "huge number": f"return {'9' * 5000}",
    "huge hexadecimal number": f"return 0x{'f' * 5000}",
    "huge constant shift": "for i in range(1 << (1 << 40)): pass\n    return 1",
    "huge constant product": "for i in range(0xFFFFFFFFFFFFFFFF * 0xFFFFFFFFFFFFFFFF): pass",
    "number larger than 64 bits": "return 0x1FFFFFFFFFFFFFFFF",
    "huge name": f"{'x' * 5000} = 1\n    return 1",
}


@pytest.mark.parametrize("name", SHAPES)
def test_escape_by_shape(name: str) -> None:
    with pytest.raises(VerifyError) as caught:
        verify(f"{HEADER}{SHAPES[name]}\n", F, budget=10_000)
    assert "without a result" not in caught.value.reason


@pytest.mark.parametrize("name", SHAPES)
def test_escape_by_shape_in_dead_code(name: str) -> None:
    """The compiler compiles what the verifier never walks, so form is checked everywhere."""
    body = SHAPES[name].replace("\n", "\n    ")
    with pytest.raises(VerifyError) as caught:
        verify(f"{HEADER}if n == 20:\n        {body}\n    return 1\n", F, budget=10_000)
    assert "without a result" not in caught.value.reason


TEXTS: dict[str, str] = {
    "nothing": "",
    "comment": "# def f(m, k, n, g): return 1",
    "expression": "1",
    "two functions": "def f(m, k, n, g): return 1\ndef h(): return 1\n",
    "function and call": "def f(m, k, n, g): return 1\nf(1, 2, 3, 4)\n",
    "statement before": "x = 1\ndef f(m, k, n, g): return 1\n",
    "docstring before": '"text"\ndef f(m, k, n, g): return 1\n',
    "async": "async def f(m, k, n, g): return 1",
    "decorator": "@k\ndef f(m, k, n, g): return 1",
    "class": "class f: pass",
    "default": "def f(m, k, n, g=1): return 1",
    "keyword only": "def f(m, k, n, *, g): return 1",
    "positional only": "def f(m, k, n, g, /): return 1",
    "star": "def f(m, k, n, *g): return 1",
    "double star": "def f(m, k, n, **g): return 1",
    "annotated parameter": "def f(m, k, n, g: k): return 1",
    "annotated result": "def f(m, k, n, g) -> k: return 1",
    "type parameter": "def f[T](m, k, n, g): return 1",
    "repeated parameter": "def f(m, k, n, n): return 1",
    "fullwidth function": "def \uff46(m, k, n, g): return 1",
    "fullwidth parameter": "def f(\uff4d, k, n, g): return 1",
    "coding cookie": "# -*- coding: utf-7 -*-\ndef f(m, k, n, g): return +AGs-",
    "byte order mark": "\ufeffdef f(m, k, n, g): return 1",
    "brackets": HEADER + "return " + "(" * 5000 + "1" + ")" * 5000,
    "open brackets": HEADER + "return " + "(" * 16000,
    "square brackets": HEADER + "return " + "g[" * 90 + "0" + "]" * 90,
    "nots": HEADER + "return " + "not " * 3900 + "k",
    "minuses": HEADER + "return " + "-" * 4000 + "1",
    "pluses": HEADER + "return " + "+" * 4000 + "1",
    "sums": HEADER + "return k" + "%7" * 2000,
    "comparisons": HEADER + "return " + "(k<" * 33 + "k" + ")" * 33,
    "conditional expressions": HEADER + "return " + "1 if k else " * 1300 + "1",
    "calls": HEADER + "return " + "min(1," * 33 + "1" + ")" * 33,
    "nested ifs": "def f(m, k, n, g):\n"
    + "".join(" " * d + "if k:\n" for d in range(1, 90))
    + " " * 90
    + "return 1\n",
    "elifs": HEADER + "if k: return 0\n" + "    elif k: return 0\n" * 650 + "    return 1\n",
    "names": HEADER + "".join(f"x{i} = 1\n    " for i in range(1000)) + "return 1\n",
    "long": HEADER + "return 1 # " + "x" * 20_000,
    "tokens": HEADER + "k\n" * 8000,
    "unfinished text": HEADER + '"""',
    "bad indentation": "def f(m, k, n, g):\n  x = 1\n   return x\n",
}


@pytest.mark.parametrize("name", TEXTS)
def test_escape_by_text(name: str) -> None:
    with pytest.raises(VerifyError) as caught:
        verify(TEXTS[name], F, budget=10_000)
    assert caught.value.line >= 1
    assert caught.value.reason


@pytest.mark.parametrize("source", [None, 1, b"def f(m, k, n, g): return 1", ["x"], {}])
def test_source_that_is_no_string(source: object) -> None:
    with pytest.raises(VerifyError, match="not a string"):
        verify(source, F, budget=99)  # type: ignore[arg-type]


def test_string_of_another_class_is_refused() -> None:
    class Sly(str):
        __slots__ = ()

        def encode(self, *_: object) -> bytes:
            return b""

    with pytest.raises(VerifyError, match="not a string"):
        verify(Sly("def f(m, k, n, g): return 1"), F, budget=99)


@settings(max_examples=300, deadline=None)
@given(
    st.one_of(
        st.text(max_size=60),
        st.text(alphabet='defmkng():\n =+-*/%&|^<>,0123456789u8x[]"#ifor', max_size=80),
        st.lists(st.sampled_from(WORDS), max_size=30).map(" ".join),
    )
)
def test_any_text_is_refused_or_verified(text: str) -> None:
    for source in (text, HEADER + text):
        try:
            program = verify(source, F, budget=1000)
        except VerifyError:
            continue
        check(program, F, ARGS)
