"""The place of a name in a directory: a keyed hash, so that nobody can choose colliding names."""

from __future__ import annotations

from functools import lru_cache
from hashlib import blake2b


def name_hash(key: bytes, name: bytes) -> int:
    """The place of `name` in a directory with this key (8 bytes); as `hash64` of the UDFs."""
    state = _keyed(key).copy()  # the key is a block of its own: a third of the work
    state.update(name)
    return int.from_bytes(state.digest(), "little")


@lru_cache(maxsize=256)
def _keyed(key: bytes) -> blake2b:
    return blake2b(digest_size=8, key=key)
