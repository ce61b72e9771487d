"""The errors of the sandbox: what a caller of `verify` or `interpret` may see."""

from __future__ import annotations


class VerifyError(Exception):
    """The source can't be proved safe. You get it from `verify`, for every kind of bad source.

    `line` counts from 1 in the source text; `reason` is one sentence for the author.
    """

    def __init__(self, line: int, reason: str) -> None:
        super().__init__(line, reason)
        self.line = line
        self.reason = reason

    def __str__(self) -> str:
        return f"line {self.line}: {self.reason}"


class InterpreterError(Exception):
    """A run broke a rule. You get it from `interpret`, for unverified source or wrong arguments.

    For a verified program and arguments that fit its signature this is a bug in the verifier.
    """

    def __init__(self, line: int, reason: str) -> None:
        super().__init__(line, reason)
        self.line = line
        self.reason = reason

    def __str__(self) -> str:
        return f"line {self.line}: {self.reason}"


class UnprovedError(Exception):
    """An operation on intervals may leave 0..2**64-1. Internal: the verifier adds the line."""
