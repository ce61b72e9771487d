"""Arguments of system calls, made plain: copied and checked once, before anything looks at them.

A diff could be a generator, or a list that another thread changes: then the check and the effect
would see different things. What has passed here is tuples of integers and bytes, and nothing else.
What the numbers may be is not decided here.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, TypeAlias

from xnfs.disk.records import Diff, Extent
from xnfs.errors import Refused

#: Blocks of data that one change can fill from others.
MAX_COPIES: Final = 16384

#: (target, source, count)
Copy: TypeAlias = tuple[int, int, int]


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
        raise Refused("claims and copies are triples of integers") from None


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


def plain_copies(copies: Iterable[tuple[int, int, int]]) -> list[Copy]:
    """(target, source, count) triples, by target, none of which fills what another does. Raises
    Refused.
    """
    out: list[Copy] = []
    end = total = 0
    for target, source, count in sorted(plain_extents(copies)):
        if count < 1 or (out and target < end):
            raise Refused(f"blocks from {target} on are filled twice, or not at all")
        out.append((target, source, count))
        end, total = target + count, total + count
    if total > MAX_COPIES:
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
