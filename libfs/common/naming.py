"""The place of a name in a directory: a keyed hash, so that nobody can choose colliding names."""

from __future__ import annotations

from hashlib import blake2b


def name_hash(key: bytes, name: bytes) -> int:
    """The place of `name` in a directory with this key (8 bytes); as `hash64` of the UDFs."""
    return int.from_bytes(blake2b(name, digest_size=8, key=key).digest(), "little")
