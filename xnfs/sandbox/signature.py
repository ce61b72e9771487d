"""What the kernel promises to a downloaded function, and what it asks of it.

A signature is written by the kernel, never by the author of the function, so mistakes in one are
plain `ValueError`s. The verifier believes a signature; whoever calls `Program.run` keeps it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from xnfs.sandbox.intrinsics import RESERVED

MAX_U64: Final = 2**64 - 1


class Limits:
    """Sizes that bound the work of the verifier itself, whatever the source says."""

    SOURCE_CHARS: Final = 16 * 1024
    TOKENS: Final = 4096
    STATEMENT_TOKENS: Final = 400
    NAME_CHARS: Final = 48
    NUMBER_CHARS: Final = 80  # 64 binary digits, the prefix, and some underscores
    BRACKETS: Final = 32  # how deep ( and [ may nest
    DEPTH: Final = 32  # how deep an expression may nest
    BLOCKS: Final = 12  # how deep if and for may nest; CPython itself stops at 20
    ARMS: Final = 128  # if and elif of one statement; CPython's compiler recurses on them
    SLOTS: Final = 96  # parameters and local names together
    TUPLE: Final = 4096  # values in one tuple
    ABSTRACT_STEPS: Final = 200_000  # work of one verification
    FACTS: Final = 24  # linear facts kept on one path


@dataclass(frozen=True, slots=True)
class Buffer:
    """A read-only run of bytes.

    `size` is its exact length in bytes, or, when `min_size` is given, its greatest length; then
    `min_size` is the length that is always there, and a test of `len(name)` may prove more.
    """

    name: str
    size: int
    min_size: int | None = None

    @property
    def least(self) -> int:
        """The length in bytes that the buffer has at least."""
        return self.size if self.min_size is None else self.min_size


@dataclass(frozen=True, slots=True)
class Int:
    """An unsigned integer in lo..hi, both included."""

    name: str
    lo: int = 0
    hi: int = MAX_U64


@dataclass(frozen=True, slots=True)
class Ints:
    """A tuple of 0 to `max_len` unsigned 64-bit integers, such as supplementary groups."""

    name: str
    max_len: int


Param = Buffer | Int | Ints


@dataclass(frozen=True, slots=True)
class Signature:
    """The shape of one use of the language: a UDF, a predicate, a filter or a handler.

    `emits` is the number of values of each `emit(...)` (0: emit is not allowed), `max_emits` the
    number of emits on one path. `returns` is the interval that the result must lie in, both ends
    included; None: the function returns nothing.
    """

    name: str
    params: tuple[Param, ...]
    emits: int = 0
    max_emits: int = 0
    returns: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        for complaint in _complaints(self):
            raise ValueError(f"signature {self.name!r}: {complaint}")

    @property
    def header(self) -> str:
        """The first line that a function of this signature must have."""
        return f"def {self.name}({', '.join(p.name for p in self.params)})"


def _complaints(sig: Signature) -> Iterator[str]:
    names = [p.name for p in sig.params]
    for name in [sig.name, *names]:
        if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", name) or name in RESERVED:
            yield f"{name!r} can't be a name"
    if len(set(names)) != len(names):
        yield "two parameters have the same name"
    for param in sig.params:
        match param:
            case Buffer():
                if not 0 <= param.least <= param.size <= MAX_U64 >> 16:
                    yield f"buffer {param.name!r} has an impossible size"
            case Int():
                if not 0 <= param.lo <= param.hi <= MAX_U64:
                    yield f"integer {param.name!r} has an impossible range"
            case Ints():
                if not 0 <= param.max_len <= Limits.TUPLE:
                    yield f"tuple {param.name!r} has an impossible length"
    if sig.returns is not None:
        if not 0 <= sig.returns[0] <= sig.returns[1] <= MAX_U64:
            yield "impossible range of results"
        if sig.emits:
            yield "a function either emits or returns"
    if sig.emits < 0 or sig.max_emits < 0 or (sig.emits == 0 and sig.max_emits):
        yield "impossible number of emits"
