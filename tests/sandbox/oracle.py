"""What a program must do: three ways to run it, and the claims of its proof, held together."""

from __future__ import annotations

import binascii
import random
from collections.abc import Callable
from hashlib import blake2b
from typing import Any, Final

from tests.sandbox import generator
from xnfs.sandbox import InterpreterError, Program, Signature
from xnfs.sandbox.interpreter import Trace, trace


class ViolatedError(AssertionError):
    """A verified program did what the verifier had excluded."""


def _loader(width: int, order: Any) -> Callable[[bytes, int], int]:
    return lambda b, o: int.from_bytes(b[o : o + width], order)


def _many(width: int) -> Callable[[bytes, int, int], tuple[int, ...]]:
    one = _loader(width, "little")
    return lambda b, o, n: tuple(one(b, o + i * width) for i in range(n))


def _hash64(b: bytes, o: int, n: int, key: int) -> int:
    digest = blake2b(b[o : o + n], digest_size=8, key=key.to_bytes(8, "little")).digest()
    return int.from_bytes(digest, "little")


_INTRINSICS: Final[dict[str, Any]] = {
    "u8": _loader(1, "little"),
    "u16": _loader(2, "little"),
    "u32": _loader(4, "little"),
    "u64": _loader(8, "little"),
    "be16": _loader(2, "big"),
    "be32": _loader(4, "big"),
    "u8s": _many(1),
    "u16s": _many(2),
    "u32s": _many(4),
    "u64s": _many(8),
    "same": lambda a, i, b, j, n: int(a[i : i + n] == b[j : j + n]),
    "zero": lambda b, o, n: int(not any(b[o : o + n])),
    "hash64": _hash64,
    "crc32": lambda b, o, n: binascii.crc32(b[o : o + n]),
    "__builtins__": {"len": len, "min": min, "max": max, "range": range},
}


def as_python(source: str, signature: Signature) -> Callable[..., Any]:
    """The text run as the Python that it looks like. For generated text only."""
    emitted: list[tuple[int, ...]] = []
    scope = {**_INTRINSICS, "emit": lambda *values: emitted.append(values)}
    exec(source, scope)

    def run(*args: Any) -> Any:
        emitted.clear()
        result = scope[signature.name](*args)
        return [tuple(map(int, e)) for e in emitted] if signature.emits else result

    return run


def check(program: Program, signature: Signature, args: tuple[Any, ...]) -> Trace:
    """Run a verified program all ways on one set of arguments.

    Raises: ViolatedError when anything differs from another way or from the proof.
    """
    try:
        seen = trace(program, signature, args, max_steps=program.steps)
    except InterpreterError as error:
        raise ViolatedError(f"{error}\n{_brief(args)}\n{program.source}") from error
    wanted = as_python(program.source, signature)(*args)
    views = [memoryview(bytearray(a)) if isinstance(a, bytes) else a for a in args]
    try:
        results = (seen.result, program.run(*args), program.run(*views))
    except Exception as error:
        raise ViolatedError(f"{error!r}\n{_brief(args)}\n{program.source}") from error
    for got in results:
        if got != wanted or repr(got) != repr(_plain(wanted)):
            raise ViolatedError(f"{got} instead of {wanted}\n{_brief(args)}\n{program.source}")
    for name, lo, end in seen.loads:
        if not any(b == name and i <= lo and end <= j for b, i, j in program.reads):
            raise ViolatedError(f"reads {name} {lo}..{end}, not in {program.reads}")
    return seen


def _brief(args: tuple[Any, ...]) -> str:
    return ", ".join(repr(a)[:200] for a in args)


def _plain(value: Any) -> Any:
    """Python's True is our 1."""
    return int(value) if isinstance(value, bool) else value


def check_many(program: Program, signature: Signature, rng: random.Random, runs: int) -> None:
    """`check` with arguments at random."""
    for _ in range(runs):
        check(program, signature, generator.arguments(rng))
