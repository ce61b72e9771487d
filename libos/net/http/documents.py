"""What a web server serves: a seam between it and a file system.

A `Document` gives its bytes as pieces that stay as they are while anybody holds them: the pages of
a cache. They go into packets from there, and stay there until the peer has acknowledged them, so
that a page is its own retransmission buffer.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Protocol

from libos.net.http.request import Path


class Document(Protocol):
    """One file, as it was when it was found."""

    @property
    def size(self) -> int:
        """Bytes."""

    @property
    def tag(self) -> bytes:
        """Changes whenever the bytes do: printable, without quotes."""

    @property
    def modified(self) -> int:
        """Seconds since 1970."""

    def pieces(self, lo: int, hi: int) -> Iterable[memoryview]:
        """The bytes lo..hi, in order, fetched as they are asked for. Raises OSError on the way."""


@dataclass(frozen=True, slots=True)
class Listing:
    """A directory: names, those of directories with a slash at the end."""

    names: tuple[bytes, ...]


class Documents(Protocol):
    """All that is served."""

    def find(self, path: Path) -> Document | Listing | None:
        """What a path names; None: nothing."""


_TYPES: Final[Mapping[bytes, bytes]] = {
    b"html": b"text/html; charset=utf-8",
    b"txt": b"text/plain; charset=utf-8",
    b"md": b"text/plain; charset=utf-8",
    b"css": b"text/css",
    b"js": b"text/javascript",
    b"json": b"application/json",
    b"png": b"image/png",
    b"jpg": b"image/jpeg",
    b"gif": b"image/gif",
    b"svg": b"image/svg+xml",
    b"pdf": b"application/pdf",
}


def content_type(name: bytes) -> bytes:
    """By the ending of a name."""
    return _TYPES.get(name.rpartition(b".")[2].lower(), b"application/octet-stream")


@dataclass(frozen=True, slots=True)
class MemoryDocument:
    """Bytes in memory."""

    data: bytes
    tag: bytes
    modified: int = 0

    @property
    def size(self) -> int:
        """See Document."""
        return len(self.data)

    def pieces(self, lo: int, hi: int) -> Iterable[memoryview]:
        """See Document."""
        return (memoryview(self.data)[lo:hi],) if hi > lo else ()


class MemoryDocuments:
    """Files in memory, by path."""

    def __init__(self, files: Mapping[bytes, bytes], modified: int = 0) -> None:
        """Keys are paths such as `dir/name`."""
        self._nodes: dict[Path, MemoryDocument | dict[bytes, None]] = {(): {}}
        for number, (key, data) in enumerate(files.items()):
            path = tuple(key.split(b"/"))
            for depth in range(len(path)):
                directory = self._nodes.setdefault(path[:depth], {})
                assert isinstance(directory, dict)
                directory[path[depth] + (b"/" if depth + 1 < len(path) else b"")] = None
            self._nodes[path] = MemoryDocument(data, b"%x-%x" % (number, len(data)), modified)

    def find(self, path: Path) -> Document | Listing | None:
        """See Documents."""
        node = self._nodes.get(path)
        return Listing(tuple(sorted(node))) if isinstance(node, dict) else node
