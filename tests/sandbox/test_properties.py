"""Programs at random: what the verifier accepts must keep every promise of the proof.

The property is only as good as the generator, so the last tests break the verifier in the ways of
`BREAKS`, and the compiler in one, and ask that the property notices each: an off-by-one in a load,
in `<`, in `!=`, a negation that loses a case, a join that keeps one side, a fact that survives an
assignment, and so on.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.sandbox import generator
from tests.sandbox.oracle import ViolatedError, check, check_many
from xnfs.sandbox import (
    Program,
    Signature,
    VerifyError,
    evaluator,
    refine,
    state,
    values,
    verifier,
    verify,
    wideload,
)
from xnfs.sandbox.compiler import compile_shape
from xnfs.sandbox.language import parse
from xnfs.sandbox.nodes import Shape

BUDGET = 20_000


def _verified(source: str, signature: Signature) -> Program | None:
    try:
        return verify(source, signature, budget=BUDGET)
    except VerifyError:
        return None


@settings(max_examples=250, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.randoms(use_true_random=False), st.sampled_from(generator.SIGNATURES))
def test_accepted_programs_keep_their_promises(rng: random.Random, signature: Signature) -> None:
    program = _verified(generator.program(rng, signature), signature)
    if program is not None:
        check_many(program, signature, rng, 8)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.randoms(use_true_random=False), st.integers(1, 20))
def test_fixed_parameter_reads_no_more_than_claimed(rng: random.Random, n: int) -> None:
    source = generator.program(rng, generator.RETURNING)
    try:
        program = verify(source, generator.RETURNING, budget=BUDGET, fix={"n": n})
    except VerifyError:
        return
    for _ in range(4):
        meta, pkt, k, _n, groups = generator.arguments(rng)
        check(program, generator.RETURNING, (meta, pkt, k, n, groups))


def test_fixing_a_parameter_never_widens_reads() -> None:
    rng = random.Random(3)
    compared = 0
    while compared < 40:
        source = generator.program(rng, generator.RETURNING)
        whole = _verified(source, generator.RETURNING)
        if whole is None:
            continue
        compared += 1
        for n in (1, 7, 20):
            part = verify(source, generator.RETURNING, budget=BUDGET, fix={"n": n})
            assert part.steps <= whole.steps
            for name, lo, hi in part.reads:
                assert any(b == name and i <= lo and hi <= j for b, i, j in whole.reads)


def test_generator_makes_programs_of_both_kinds() -> None:
    rng = random.Random(1)
    accepted = sum(
        _verified(generator.program(rng, generator.RETURNING), generator.RETURNING) is not None
        for _ in range(300)
    )
    assert 60 <= accepted <= 240


def test_verdict_and_proof_are_deterministic() -> None:
    for seed in range(30):
        source = generator.program(random.Random(seed), generator.EMITTING)
        one, two = (_verified(source, generator.EMITTING) for _ in range(2))
        assert (one is None) == (two is None)
        if one is not None and two is not None:
            assert (one.steps, one.reads, one.proof) == (two.steps, two.reads, two.proof)


# Breaking the verifier on purpose.

Patch = Callable[[pytest.MonkeyPatch], None]


def _wrong_operator(op: str, function: Callable[..., Any]) -> Patch:
    return lambda m: m.setitem(values.BINARY, op, function)


def _wrong_negation(op: str, negated: str) -> Patch:
    return lambda m: m.setitem(refine.NEGATED, op, negated)


def _load_one_too_far(m: pytest.MonkeyPatch) -> None:
    real = evaluator.Evaluator.buffer_length

    def longer(self: Any, slot: int, at: Any) -> Any:
        lo, hi = real(self, slot, at)
        return (lo + 1, hi + 1)

    m.setattr(evaluator.Evaluator, "buffer_length", longer)


def _join_keeps_one_side(m: pytest.MonkeyPatch) -> None:
    m.setattr(evaluator, "join", lambda a, b: a)


def _facts_survive_assignment(m: pytest.MonkeyPatch) -> None:
    def assign(self: state.State, slot: int, value: Any) -> None:
        self.slots[slot] = value

    m.setattr(state.State, "assign", assign)


def _less_is_less_or_two_less(m: pytest.MonkeyPatch) -> None:
    real = refine.narrow
    m.setattr(refine, "narrow", lambda node, lo, hi, at: real(node, lo, max(lo, hi - 1), at))


def _unequal_trims_two(m: pytest.MonkeyPatch) -> None:
    def differ(node: Any, a: Any, b: Any, at: Any) -> bool:
        return refine.narrow(node, a[0], a[1] - 1, at)

    m.setattr(refine, "_differ", differ)


def _comparison_too_sure(m: pytest.MonkeyPatch) -> None:
    real = values.compare

    def compare(op: str, a: Any, b: Any) -> bool | None:
        if op == "<" and a[1] <= b[0]:
            return True
        return real(op, a, b)

    m.setattr(evaluator, "compare", compare)


def _packet_fact_off_by_one(m: pytest.MonkeyPatch) -> None:
    real = state.State.gap

    def gap(self: state.State, left: Any, right: Any) -> int | None:
        known = real(self, left, right)
        return None if known is None else known + 1

    m.setattr(state.State, "gap", gap)


def _steps_forget_lengths(m: pytest.MonkeyPatch) -> None:
    m.setattr(evaluator.Evaluator, "extra", lambda self, steps, at: None)


def _reads_forget_a_byte(m: pytest.MonkeyPatch) -> None:
    class Forgetful(set[tuple[int, int, int]]):
        def add(self, read: tuple[int, int, int]) -> None:
            super().add((read[0], read[1], read[2] - 1))

    real = evaluator.Evaluator.__init__

    def init(self: Any, *args: Any) -> None:
        real(self, *args)
        self.found.reads = Forgetful()

    m.setattr(evaluator.Evaluator, "__init__", init)


def _summary_of_the_first_turn(m: pytest.MonkeyPatch) -> None:
    real = verifier._Verifier.summary

    def summary(self: Any, node: Any, item: Any, count: int, least: int, at: Any) -> Any:
        return real(self, node, (item[0], item[0]), 1, least, at)

    m.setattr(verifier._Verifier, "summary", summary)


BREAKS: dict[str, Patch] = {
    "load one byte too far": _load_one_too_far,
    "join keeps one side": _join_keeps_one_side,
    "facts survive assignment": _facts_survive_assignment,
    "narrowing by one too much": _less_is_less_or_two_less,
    "!= trims without looking": _unequal_trims_two,
    "< too sure": _comparison_too_sure,
    "packet fact off by one": _packet_fact_off_by_one,
    "summary of the first turn": _summary_of_the_first_turn,
    "reads forget a byte": _reads_forget_a_byte,
    "steps forget lengths": _steps_forget_lengths,
    "negation of < loses equality": _wrong_negation("<", ">"),
    "negation of > loses equality": _wrong_negation(">", "<"),
    "negation of == is ==": _wrong_negation("==", "=="),
    "sum without high end": _wrong_operator("+", lambda a, b: (a[0] + b[0], a[1])),
    "unchecked difference": _wrong_operator("-", lambda a, b: (0, a[1])),
    "product may wrap": _wrong_operator(
        "*", lambda a, b: (a[0] * b[0], min(a[1] * b[1], 2**64 - 1))
    ),
    "division by zero": _wrong_operator("//", lambda a, b: (0, a[1])),
    "remainder as small as its left": _wrong_operator("%", lambda a, b: (0, min(a[1], b[0]))),
    "or keeps the larger": _wrong_operator("|", lambda a, b: (a[0], max(a[1], b[1]))),
    "shift of more than 63": _wrong_operator(">>", lambda a, b: (0, a[1])),
}


def _prove(shape: Shape) -> evaluator.Findings | None:
    try:
        return verifier.prove(shape, BUDGET, None)
    except VerifyError:
        return None


@cache
def _pool() -> list[tuple[Shape, evaluator.Findings | None]]:
    """Programs, each with what the whole verifier finds."""
    rng, pool = random.Random(2), []
    for _ in range(4000):
        signature = rng.choice(generator.SIGNATURES)
        shape = parse(generator.program(rng, signature), signature)
        pool.append((shape, _prove(shape)))
    return pool


def _first_violation() -> str | None:
    rng = random.Random(2)
    for shape, whole in _pool():
        found = _prove(shape)
        if found is None or found == whole:  # refused, or nothing that the other tests don't see
            continue
        try:
            check_many(Program(shape, BUDGET, None, found), shape.signature, rng, 25)
        except ViolatedError as error:
            return str(error)
    return None


@pytest.mark.parametrize("name", BREAKS)
def test_broken_verifier_is_noticed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    _pool()
    BREAKS[name](monkeypatch)
    assert _first_violation() is not None


def test_whole_verifier_is_not_blamed() -> None:
    assert _first_violation() is None


def test_broken_compiler_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    real = wideload._pieces
    monkeypatch.setattr(
        wideload, "_pieces", lambda statement: [replace(p, terms=()) for p in real(statement)]
    )
    compile_shape.cache_clear()
    with pytest.raises(ViolatedError):
        _run_accepted()
    compile_shape.cache_clear()


def _run_accepted() -> None:
    rng = random.Random(2)
    for shape, found in _pool():
        if found is not None:
            check_many(Program(shape, BUDGET, None, found), shape.signature, rng, 2)
