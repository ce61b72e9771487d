"""A verified program: what was proved, and the function to run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any

from xnfs.sandbox import nodes as n
from xnfs.sandbox.compiler import compile_shape
from xnfs.sandbox.errors import VerifyError
from xnfs.sandbox.evaluator import Findings
from xnfs.sandbox.language import parse
from xnfs.sandbox.proof import explain
from xnfs.sandbox.signature import Int, Signature
from xnfs.sandbox.verifier import prove

Reads = tuple[tuple[str, int, int], ...]


def verify(
    source: str, sig: Signature, *, budget: int, fix: Mapping[str, int] | None = None
) -> Program:
    """Prove that `source` is a safe function of signature `sig` within `budget` steps.

    `fix` gives some Int parameters one value each: then the proof, and `reads`, hold for those
    values only (it shows what one partition reads), and `run` refuses any other value.

    Raises: VerifyError, whatever the source is.
    """
    try:
        shape = parse(source, sig)
        program = Program(shape, budget, fix, prove(shape, budget, fix))
        if not fix:
            _ = program.run  # compile now, so that nothing is left that may fail later
        return program
    except RecursionError:  # the caller's stack is nearly full; the source bounds ours
        raise VerifyError(1, "not enough stack left to verify") from None


class Program:
    """What `verify` gives; nothing else makes one.

    A program is deterministic: its result depends on nothing but its arguments (Kaashoek et al.
    1997, section 4.2: deterministic UDFs), and it can neither fail nor loop, as long as the
    arguments fit the signature.
    """

    def __init__(
        self, shape: n.Shape, budget: int, fix: Mapping[str, int] | None, found: Findings
    ) -> None:
        self.shape = shape
        self.budget = budget
        self.fix = dict(fix or {})
        self._found = found

    @property
    def source(self) -> str:
        """The text that was verified."""
        return self.shape.source

    @property
    def digest(self) -> str:
        """SHA-256 of the source, 64 hexadecimal digits: the program's name."""
        return self.shape.digest

    @property
    def steps(self) -> int:
        """The worst-case number of steps of one run."""
        return self._found.steps

    @cached_property
    def reads(self) -> Reads:
        """All byte ranges (buffer, lo, hi) that a run may load, hi not included; sorted, merged.

        Every byte that any run loads lies in one of them.
        """
        merged: list[tuple[int, int, int]] = []
        for slot, lo, hi in sorted(self._found.reads):
            if merged and merged[-1][0] == slot and lo <= merged[-1][2]:
                merged[-1] = (slot, merged[-1][1], max(hi, merged[-1][2]))
            else:
                merged.append((slot, lo, hi))
        return tuple((self.shape.names[slot], lo, hi) for slot, lo, hi in merged)

    @cached_property
    def proof(self) -> list[tuple[int, str]]:
        """What was proved, as (line, fact), in the order of the lines."""
        return explain(self.shape, self._found, self.budget, self.fix)

    @cached_property
    def run(self) -> Callable[..., Any]:
        """The compiled function. Give it the parameters by position, buffers as bytes-like.

        It returns the list of emitted tuples when the signature emits, else the result. It trusts
        its caller to keep the signature: sizes of buffers and ranges of integers.
        """
        compiled = compile_shape(self.shape)
        return _fixed(compiled, self.shape, self.fix) if self.fix else compiled


def _fixed(
    compiled: Callable[..., Any], shape: n.Shape, fix: Mapping[str, int]
) -> Callable[..., Any]:
    """A function that was proved for some values only runs for those only."""
    params = enumerate(shape.signature.params)
    wanted = [(i, p.name, fix[p.name]) for i, p in params if isinstance(p, Int) and p.name in fix]

    def run(*args: Any) -> Any:
        for position, name, value in wanted:
            if args[position] != value:
                raise ValueError(f"verified for {name} = {value} only")
        return compiled(*args)

    return run
