"""Which lines of the code that reads images have run: `sys.settrace`, kept cheap.

Only `xnfs/disk` and `libfs/ffs` count. A function all of whose lines were seen is traced no more,
so that the cost falls as the set grows.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, Final

import libfs.ffs
import xnfs.disk

_FOLDERS: Final = tuple(
    str(Path(str(module.__file__)).parent) + "/" for module in (xnfs.disk, libfs.ffs)
)

#: (file, line)
Line = tuple[str, int]


class Lines:
    """The lines seen so far."""

    def __init__(self) -> None:
        self.seen: set[Line] = set()
        self._left: dict[CodeType, set[int]] = {}

    @contextmanager
    def watch(self) -> Iterator[None]:
        """Note the lines that run inside."""
        before = sys.gettrace()
        sys.settrace(self._call)
        try:
            yield
        finally:
            sys.settrace(before)

    def _call(self, frame: FrameType, event: str, _arg: object) -> Callable[..., Any] | None:
        return self._line if self._wanted(frame.f_code) else None

    def _wanted(self, code: CodeType) -> set[int]:
        left = self._left.get(code)
        if left is None:
            inside = code.co_filename.startswith(_FOLDERS)
            left = {line for _a, _b, line in code.co_lines() if line} if inside else set()
            left.discard(code.co_firstlineno)
            self._left[code] = left
        return left

    def _line(self, frame: FrameType, event: str, _arg: object) -> Callable[..., Any]:
        if event == "line":
            line = frame.f_lineno
            left = self._left[frame.f_code]
            if line in left:
                left.discard(line)
                self.seen.add((frame.f_code.co_filename, line))
        return self._line
