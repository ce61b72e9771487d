"""Not to look twice at what must look the same.

Three ways, each exact: an image whose key was seen; an image that agrees with one that was
inspected on every block that the inspection read (`ReadTree`); and both across workloads, for
trials that say that they inspect alike (`Memo`). What is remembered is bounded: the oldest goes.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")
D = TypeVar("D")
K = TypeVar("K", bound=Hashable)

#: digest of a block that is zero, and of what no block is
NOTHING = 0


class Impure(Exception):
    """Two runs of an inspection that had read the same went different ways: it depends on more than
    the image."""


class _Source:
    """What the copies of a view share: the image below, and the notes."""

    __slots__ = ("image", "reads", "whole")

    def __init__(self, image: Mapping[int, bytes]) -> None:
        self.image = image
        self.reads: dict[int, None] = {}
        self.whole = False


class View(MutableMapping[int, bytes]):
    """An image that notes which of its blocks are read, in order, and keeps writes to itself.

    Going through all blocks counts as reading all. Copies share the notes, not the writes.
    """

    def __init__(self, image: Mapping[int, bytes]) -> None:
        self._source = _Source(image)
        self.written: dict[int, bytes] = {}

    @property
    def reads(self) -> tuple[int, ...] | None:
        """The blocks read so far, in order; None: all of them."""
        return None if self._source.whole else tuple(self._source.reads)

    def detach(self) -> None:
        """The image is about to change: keep what was read, and fail on reading anything else."""
        image, reads = self._source.image, self._source.reads
        kept = _Kept({block: image[block] for block in reads if block in image})
        kept.known = frozenset(reads)
        self._source.image = kept

    def __getitem__(self, block: int) -> bytes:
        if block in self.written:
            return self.written[block]
        self._source.reads[block] = None
        return self._source.image[block]

    def get(self, block: int, default: D = None) -> bytes | D:  # type: ignore[assignment]
        """As of a dict."""
        if block in self.written:
            return self.written[block]
        self._source.reads[block] = None
        return self._source.image.get(block, default)

    def __setitem__(self, block: int, data: bytes) -> None:
        self.written[block] = data

    def __delitem__(self, block: int) -> None:
        raise TypeError("a block can't be taken out of an image")

    def __iter__(self) -> Iterator[int]:
        self._source.whole = True
        return iter(self._source.image.keys() | self.written.keys())

    def __len__(self) -> int:
        self._source.whole = True
        return len(self._source.image.keys() | self.written.keys())

    def __contains__(self, block: object) -> bool:
        if isinstance(block, int) and block not in self.written:
            self._source.reads[block] = None
        return block in self.written or block in self._source.image

    def __copy__(self) -> View:
        twin = View.__new__(View)
        twin._source = self._source
        twin.written = dict(self.written)
        return twin

    copy = __copy__


class _Kept(dict[int, bytes]):
    """What was read of an image that is gone."""

    known: Collection[int] = ()

    def get(self, block: int, default: D = None) -> bytes | D:  # type: ignore[assignment]
        if block not in self.known:
            raise Impure(f"block {block} is read after the inspection has ended")
        return super().get(block, default)

    def __missing__(self, block: int) -> bytes:
        if block not in self.known:
            raise Impure(f"block {block} is read after the inspection has ended")
        raise KeyError(block)


class ReadTree(Generic[T]):
    """Verdicts by what was read to reach them.

    An inspection that is a function of the image reads its next block because of the blocks that it
    has read. So inspections form a tree: at each fork a block, on each edge its digest. Following
    an image's digests from the root leads to a verdict, or to where the image is new.
    """

    def __init__(self) -> None:
        self._root: _Fork[T] | _Leaf[T] | None = None
        self._paths: dict[tuple[int, ...], tuple[int, ...]] = {}  # most inspections read alike
        self.size = 0

    def find(self, digest: Mapping[int, int]) -> T | None:
        """The verdict of an inspection that would read what one before it has read."""
        node, get = self._root, digest.get
        while isinstance(node, _Fork):
            node = node.edges.get(get(node.blocks[node.at], NOTHING))
        if node is None:
            return None
        for block, value in zip(node.blocks, node.values, strict=True):
            if get(block, NOTHING) != value:
                return None
        return node.verdict

    def add(self, reads: Sequence[int], digest: Mapping[int, int], verdict: T) -> None:
        """Remember a verdict, reached by reading these blocks in this order. Raises Impure."""
        blocks = self._paths.setdefault(tuple(reads), tuple(reads))
        leaf = _Leaf(blocks, tuple(digest.get(block, NOTHING) for block in blocks), verdict)
        self.size += 1
        node, above, seen = self._root, None, 0
        while isinstance(node, _Fork) and _apart(node, leaf, seen, node.at) is None:
            if blocks[node.at : node.at + 1] != node.blocks[node.at : node.at + 1]:
                raise Impure(f"block {node.blocks[node.at]} is not read where it was, before")
            above, seen = node, node.at
            node = node.edges.get(leaf.values[node.at])
        joined = leaf if node is None else _fork(node, leaf, seen)
        if above is None:
            self._root = joined
        else:
            above.edges[leaf.values[above.at]] = joined


@dataclass(slots=True)
class _Leaf(Generic[T]):
    """One inspection: the blocks that it read, in order, their digests, and its verdict."""

    blocks: tuple[int, ...]
    values: tuple[int, ...]
    verdict: T


@dataclass(slots=True)
class _Fork(Generic[T]):
    """Where inspections went apart: at read number `at`, after they had all read the same.
    `blocks`, `values`: of any one of them."""

    at: int
    blocks: tuple[int, ...]
    values: tuple[int, ...]
    edges: dict[int, _Fork[T] | _Leaf[T]]


def _fork(old: _Fork[T] | _Leaf[T], new: _Leaf[T], seen: int) -> _Fork[T]:
    """The fork at the first block that gave another digest."""
    at = _apart(old, new, seen, max(len(old.blocks), len(new.blocks)))
    if at is None:
        raise Impure("the same was read, and the verdict is asked for again")
    return _Fork(at, new.blocks, new.values, {old.values[at]: old, new.values[at]: new})


def _apart(old: _Fork[T] | _Leaf[T], new: _Leaf[T], first: int, end: int) -> int | None:
    """The number of the first read, in a range, that gave another digest. Raises Impure."""
    for at in range(first, min(end, len(old.blocks), len(new.blocks))):
        if old.blocks[at] != new.blocks[at]:
            raise Impure(f"block {new.blocks[at]} is read where {old.blocks[at]} was, before")
        if old.values[at] != new.values[at]:
            return at
    return None


class Bounded(Generic[K, T]):
    """A dict of at most `most` entries; what was not asked for longest goes, by halves."""

    def __init__(self, most: int) -> None:
        self._half = max(1, most // 2)
        self._young: dict[K, T] = {}
        self._old: dict[K, T] = {}

    def get(self, key: K) -> T | None:
        """The value, or None."""
        value = self._young.get(key)
        if value is None and (value := self._old.get(key)) is not None:
            self.put(key, value)
        return value

    def put(self, key: K, value: T) -> None:
        """Remember."""
        if len(self._young) >= self._half:
            self._old, self._young = self._young, {}
        self._young[key] = value
