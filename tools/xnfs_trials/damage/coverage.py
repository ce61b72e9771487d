"""Which lines of the code that reads images have run: `sys.settrace`, kept cheap.

Only `xnfs/disk`, `libfs/ffs` and `libfs/lfs` count. A function all of whose lines were seen is
traced no more, so that the cost falls as the set grows; nor is one that ran `MOST_CALLS` times
under one watch.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, Final

import libfs.ffs
import libfs.lfs
import xnfs.disk

_FOLDERS: Final = tuple(
    str(Path(str(module.__file__)).parent) + "/" for module in (xnfs.disk, libfs.ffs, libfs.lfs)
)

MOST_CALLS: Final = 100

#: (file, line)
Line = tuple[str, int]


class Lines:
    """The lines seen so far."""

    def __init__(self) -> None:
        self.seen: set[Line] = set()
        self._left: dict[CodeType, set[int]] = {}
        self._calls: Counter[CodeType] = Counter()

    @contextmanager
    def watch(self) -> Iterator[None]:
        """Note the lines that run inside."""
        before = sys.gettrace()
        self._calls.clear()
        sys.settrace(self._call)
        try:
            yield
        finally:
            sys.settrace(before)

    def _call(self, frame: FrameType, event: str, _arg: object) -> Callable[..., Any] | None:
        code = frame.f_code
        left = self._left.get(code)
        if left is None:
            left = self._left[code] = self._wanted(code)
        if not left or self._calls[code] >= MOST_CALLS:
            return None
        self._calls[code] += 1
        return self._line

    def _wanted(self, code: CodeType) -> set[int]:
        """The lines of a function that are still to be seen."""
        if not code.co_filename.startswith(_FOLDERS):
            return set()
        return {line for _a, _b, line in code.co_lines() if line} - {code.co_firstlineno}

    def _line(self, frame: FrameType, event: str, _arg: object) -> Callable[..., Any]:
        if event == "line":
            line = frame.f_lineno
            left = self._left[frame.f_code]
            if line in left:
                left.discard(line)
                self.seen.add((frame.f_code.co_filename, line))
        return self._line
