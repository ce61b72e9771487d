"""The eight things that happen to a field. Each takes bytes and gives as many back."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Final

#: (old bytes, what a random verb may draw on) -> new bytes
Verb = Callable[[bytes, str], bytes]


def _flip(raw: bytes, bit: int) -> bytes:
    return _number(raw, int.from_bytes(raw, "little") ^ 1 << bit)


def _number(raw: bytes, value: int) -> bytes:
    size = 8 * len(raw)
    return (value % (1 << size)).to_bytes(len(raw), "little")


def _plus(raw: bytes, more: int) -> bytes:
    return _number(raw, int.from_bytes(raw, "little") + more)


VERBS: Final[dict[str, Verb]] = {
    "zero": lambda raw, _seed: bytes(len(raw)),
    "ones": lambda raw, _seed: b"\xff" * len(raw),
    "first bit": lambda raw, _seed: _flip(raw, 0),
    "middle bit": lambda raw, _seed: _flip(raw, 4 * len(raw)),
    "last bit": lambda raw, _seed: _flip(raw, 8 * len(raw) - 1),
    "plus one": lambda raw, _seed: _plus(raw, 1),
    "minus one": lambda raw, _seed: _plus(raw, -1),
    "random": lambda raw, seed: random.Random(seed).randbytes(len(raw)),
}
