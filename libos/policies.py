"""Which page to give up: the policies of pagers. An application may bring its own.

A policy sees pages come and go and, before it must choose, which of them were referenced since the
last time (`touched`): the kernel exposes a bit for each frame. It never sees single accesses, so
LRU and MRU order pages as well as one can from bits. An application that knows more says so itself
(`Chosen`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol


class Policy(Protocol):
    """What a pager asks."""

    #: whether the pager is to read and clear the referenced bits before `victim`
    wants_bits: bool

    def added(self, page: int) -> None:
        """The page has a frame now."""

    def removed(self, page: int) -> None:
        """The page has none any more."""

    def touched(self, pages: Sequence[int]) -> None:
        """These were referenced since the last call."""

    def victim(self) -> int:
        """The page to give up; one that was added and not removed."""


class Fifo:
    """The page that has been in memory longest."""

    wants_bits = False

    def __init__(self) -> None:
        self._pages: dict[int, None] = {}

    def added(self, page: int) -> None:
        """Last in the queue."""
        self._pages[page] = None

    def removed(self, page: int) -> None:
        """Out of the queue."""
        self._pages.pop(page, None)

    def touched(self, pages: Sequence[int]) -> None:
        """Nothing that matters here."""

    def victim(self) -> int:
        """The first in the queue."""
        return next(iter(self._pages))


class Lru(Fifo):
    """The page that has not been referenced for longest."""

    wants_bits = True

    def touched(self, pages: Sequence[int]) -> None:
        """They are the most recent."""
        for page in pages:
            if page in self._pages:
                del self._pages[page]
                self._pages[page] = None


class Mru(Lru):
    """The page that was referenced last: best where a scan comes round again."""

    def victim(self) -> int:
        """The last in the queue."""
        return next(reversed(self._pages))


class Clock(Fifo):
    """Second chance: the first in the queue that was not referenced since the hand passed."""

    wants_bits = True

    def __init__(self) -> None:
        super().__init__()
        self._referenced: set[int] = set()

    def removed(self, page: int) -> None:
        """Out of the queue."""
        super().removed(page)
        self._referenced.discard(page)

    def touched(self, pages: Sequence[int]) -> None:
        """Each has a second chance."""
        self._referenced.update(pages)

    def victim(self) -> int:
        """Turn until a page has no chance left."""
        while True:
            page = super().victim()
            if page not in self._referenced:
                return page
            self._referenced.discard(page)
            del self._pages[page]
            self._pages[page] = None


class Chosen(Fifo):
    """The application's own choice, from the pages in memory."""

    def __init__(self, choose: Callable[[Sequence[int]], int]) -> None:
        super().__init__()
        self._choose = choose

    def victim(self) -> int:
        """Ask the application."""
        return self._choose(list(self._pages))
