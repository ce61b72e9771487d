"""Hostile programs: any sequence of calls gives defined errors, conserves everything, and is not
noticed by anybody else. With a check switched off, it is."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.machine.conserve import Violation
from tests.machine.hostile import Hostile, Script, attack, random_script
from tests.machine.mutants import MUTANTS
from xnfs import Machine

NUMBERS = Hostile(Machine(frames=1, slots=1, environments=4)).numbers
choices = st.tuples(*[st.integers(0, 300)] * 9)
scripts = st.lists(st.tuples(st.sampled_from(NUMBERS), choices), max_size=40)


@settings(max_examples=max(10, settings().max_examples // 3))
@given(st.lists(scripts, min_size=3, max_size=3), st.integers(1, 3))
def test_hostile_programs_conserve_everything(all: list[Script], processors: int) -> None:
    attack(all, processors, steps=200)


def campaign(runs: int, length: int = 60) -> str:
    """What goes wrong first in so many random attacks; empty if nothing does."""
    for run in range(runs):
        all = [random_script(3 * run + i, NUMBERS, length) for i in range(3)]
        try:
            attack(all, 1 + run % 2, steps=8 * length)
        except Violation as wrong:
            return f"{run}: {wrong}"
        except Exception as wrong:
            return f"{run}: {type(wrong).__name__}: {wrong}"
    return ""


def test_hostile_campaign_finds_nothing() -> None:
    assert campaign(12) == ""


@pytest.mark.slow
def test_hostile_long_campaign_finds_nothing() -> None:
    assert campaign(1000, 120) == ""


@pytest.mark.parametrize("name", MUTANTS)
def test_hostile_mutants_are_found(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    MUTANTS[name](monkeypatch)
    assert campaign(80), f"nobody noticed: {name}"


def test_hostile_numbers_are_all() -> None:
    assert len(NUMBERS) >= 30
    assert all(a < b for a, b in itertools.pairwise(NUMBERS))
