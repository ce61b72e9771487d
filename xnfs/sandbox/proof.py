"""The proof in words, for `xnfs verify`: one fact for each thing that could have gone wrong."""

from __future__ import annotations

from collections.abc import Mapping

from xnfs.sandbox import nodes as n
from xnfs.sandbox.evaluator import Findings
from xnfs.sandbox.values import show


def explain(
    shape: n.Shape, found: Findings, budget: int, fix: Mapping[str, int]
) -> list[tuple[int, str]]:
    """The facts as (line, sentence), in the order of the lines."""
    facts = [(shape.line, f"ends within {found.steps} steps, of at most {budget}")]
    facts += [(shape.line, f"only for {name} = {value}") for name, value in fix.items()]
    for (node, number), (lo, hi) in found.hulls.items():
        fact = _fact(shape, node, number, lo, hi)
        if fact is not None and fact not in facts:
            facts.append(fact)
    return sorted(facts, key=lambda f: f[0])


def _fact(shape: n.Shape, node: object, number: int, lo: int, hi: int) -> tuple[int, str] | None:
    match node:
        case n.Binary():
            return (node.line, f"the value of '{node.op}' is {show((lo, hi))}")
        case n.Index():
            return (node.line, f"the index is {show((lo, hi))}, inside its tuple")
        case n.Return():
            return (node.line, f"the result is {show((lo, hi))}")
        case n.LoadOne(buffer=buffer) | n.LoadTuple(buffer=buffer):
            return (node.line, _inside(shape, "a load", buffer, lo, hi))
        case n.BulkOp(name=name, spans=spans):
            return (node.line, _inside(shape, repr(name), spans[number][0], lo, hi))
    return None


def _inside(shape: n.Shape, what: str, buffer: int, lo: int, end: int) -> str:
    touched = f"bytes {show((lo, end - 1))}" if lo < end else "no byte"
    return f"{what} touches {touched} of {shape.names[buffer]!r} only"
