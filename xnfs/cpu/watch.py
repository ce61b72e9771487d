"""Programs that do not yield.

A program computes by yielding a number of cycles. Python that runs between two yields takes host
time and no time of the machine, and nothing in the language can take the processor from it. With a
watch, a program that runs more than so many lines without yielding ends as if it had raised. Each
line is counted by the interpreter's trace hook, which makes programs several times slower, so it is
off unless asked for.

Not stopped: one call into C that does not return, and a program that catches what the watch raises
and goes on, since the interpreter stops tracing then. Against those only a process of its own
helps.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any


class RunawayError(BaseException):
    """A program has run too many lines without yielding."""


class Watch:
    """Counts the lines that a program runs in one go."""

    def __init__(self, lines: int) -> None:
        self._lines = lines
        self._left = 0

    def over(self, go_on: Callable[..., Any]) -> Callable[..., Any]:
        """The same function, watched."""

        def watched(value: Any) -> Any:
            before = sys.gettrace()
            self._left = self._lines
            sys.settrace(self._trace)
            try:
                return go_on(value)
            finally:
                sys.settrace(before)

        return watched

    def _trace(self, frame: FrameType, event: str, what: Any) -> Any:
        if event == "line":
            self._left -= 1
            if self._left < 0:
                raise RunawayError(f"{self._lines} lines without a yield")
        return self._trace
