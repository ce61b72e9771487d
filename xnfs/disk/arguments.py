"""Arguments of system calls, made plain: copied and checked once, before anything looks at them.

A diff could be a generator, or a list that another thread changes: then the check and the effect
would see different things. What has passed here is tuples of integers and bytes, and nothing else.
What the numbers may be is not decided here.
"""

from __future__ import annotations

from collections.abc import Iterable

from xnfs.disk.records import Diff, Extent
from xnfs.errors import Refused


def plain_diff(diff: Diff) -> Diff:
    """(offset, bytes) pairs. Raises Refused."""
    out = []
    items: Iterable[tuple[object, object]] = diff
    try:
        for offset, data in items:
            if type(data) is not bytes:
                if not isinstance(data, bytearray | memoryview):
                    raise Refused("a diff is pairs of an offset and bytes")
                data = bytes(data)
            out.append((offset if type(offset) is int else _integer(offset), data))
    except (TypeError, ValueError):
        raise Refused("a diff is pairs of an offset and bytes") from None
    return tuple(out)


def plain_extents(extents: Iterable[Extent]) -> list[Extent]:
    """(type, start, count) triples. Raises Refused."""
    try:
        return [(_integer(t), _integer(start), _integer(count)) for t, start, count in extents]
    except (TypeError, ValueError):
        raise Refused("a claim is triples of type, start and count") from None


def plain_pairs(pairs: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """(partition, block) pairs. Raises Refused."""
    try:
        return [(_integer(part), _integer(block)) for part, block in pairs]
    except (TypeError, ValueError):
        raise Refused("children are pairs of partition and block") from None


def plain_bytes(data: bytes | bytearray | memoryview) -> bytes | memoryview:
    """Bytes to copy from, one long for each byte. Raises Refused."""
    if type(data) is bytes:
        return data
    try:
        return memoryview(data).cast("B")
    except TypeError:
        raise Refused("data must be contiguous bytes") from None


def _integer(value: object) -> int:
    if not isinstance(value, int):
        raise Refused(f"{value!r} is not an integer")
    return int(value)
