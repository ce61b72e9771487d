"""Arguments of system calls, made plain: copied and checked once, before anything looks at them.

A diff could be a generator, or a list that another thread changes: then the check and the effect
would see different things. What has passed here is tuples of integers and bytes, and nothing else.
What the numbers may be is not decided here.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from xnfs.disk.records import Diff, Extent
from xnfs.errors import Refused

#: Blocks of data that one change can fill from others.
MAX_COPIES: Final = 16384


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


def plain_children(
    wanted: Iterable[tuple[int, int, int, int]],
) -> list[tuple[int, int, int, int]]:
    """(parent, partition, start, count), all of them integers. Raises Refused."""
    try:
        return [
            (_integer(parent), _integer(part), _integer(start), _integer(count))
            for parent, part, start, count in wanted
        ]
    except (TypeError, ValueError):
        raise Refused("children are named by parent, partition, start and count") from None


def plain_runs(copies: Iterable[tuple[int, int, int]]) -> dict[int, int]:
    """(target, source, count) triples as target -> source, block by block. Raises Refused."""
    out: dict[int, int] = {}
    try:
        for target, source, count in copies:
            count = min(_integer(count), MAX_COPIES + 1 - len(out))
            run = range(_integer(target), target + count)
            if not out.keys().isdisjoint(run):
                raise Refused(f"blocks from {target} on are filled twice")
            out.update(zip(run, range(_integer(source), source + count), strict=True))
    except (TypeError, ValueError):
        raise Refused("copies are triples of target, source and count") from None
    if len(out) > MAX_COPIES:
        raise Refused(f"more than {MAX_COPIES} blocks are filled in one change")
    return out


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
