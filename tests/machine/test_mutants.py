"""Rules whose breach only their own test sees: with the rule switched off, that test fails."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.machine import test_calls, test_exceptions, test_memory, test_revocation
from xnfs.cpu import dispatch, environments, exceptions
from xnfs.cpu.exceptions import Exceptions
from xnfs.machine import Machine
from xnfs.memory import ownership
from xnfs.memory.access import Access
from xnfs.memory.ownership import Memory
from xnfs.memory.revocation import Revocation
from xnfs.memory.tlb import Tlb
from xnfs.memory.translations import Translations

Patch = pytest.MonkeyPatch
Test = Callable[..., Any]


def _nothing(*args: Any, **kwargs: Any) -> None:
    return None


def frames_are_not_cleared(patch: Patch) -> Test:
    patch.setattr(ownership, "_ZEROS", b"\x5e" * 4096)
    return test_memory.test_memory_a_new_frame_shows_nothing_of_its_last_owner


def accounts_are_open_for_allocation(patch: Patch) -> Test:
    checked = Machine.checked

    def lax(self: Machine, id: int, token: bytes, rights: int) -> Any:
        return self.environment(id) if rights == 4 else checked(self, id, token, rights)

    patch.setattr(Machine, "checked", lax)
    return test_memory.test_memory_foreign_frames_are_refused


def many_capabilities(patch: Patch) -> Test:
    patch.setattr(environments, "MAX_MADE", 1000)
    return test_calls.test_calls_capabilities_of_one_are_bounded


def many_gifts(patch: Patch) -> Test:
    patch.setattr(environments, "MAX_INBOX", 20)
    return test_calls.test_calls_gifts_to_one_are_bounded


def nesting_without_end(patch: Patch) -> Test:
    patch.setattr(exceptions, "MAX_NESTED", 10**6)
    return test_exceptions.test_upcalls_wait_when_too_many_are_inside_of_each_other


def levels_without_end(patch: Patch) -> Test:
    patch.setattr(exceptions, "LEVELS", 40)
    return test_exceptions.test_exception_nested_too_deep_ends_it


def registers_are_not_saved(patch: Patch) -> Test:
    patch.setattr(Exceptions, "_restore", _nothing)
    return test_exceptions.test_exception_saves_what_the_hardware_knows


def vital_frames_are_taken(patch: Patch) -> Test:
    patch.setattr(Memory, "vital", lambda self, env: set())
    return test_revocation.test_revocation_takes_by_force_the_oldest_and_nothing_vital


def deadlines_pass(patch: Patch) -> Test:
    patch.setattr(Revocation, "_expired", _nothing)
    return test_revocation.test_revocation_waits_for_an_answer_no_longer_than_it_said


def anybody_revokes_frames(patch: Patch) -> Test:
    patch.setattr(Machine, "checked", lambda self, id, token, rights: self.environment(id))
    return test_revocation.test_revocation_is_for_who_stands_above


def stores_are_not_checked(patch: Patch) -> Test:
    patch.setattr(Access, "_first_store", lambda self, cpu, env, address, entry: entry)
    return test_exceptions.test_exception_of_a_store_to_what_is_only_read


def bits_stay(patch: Patch) -> Test:
    patch.setattr(Translations, "clean", _nothing)
    return test_memory.test_memory_bits_say_what_was_used


def tags_never_run_out(patch: Patch) -> Test:
    patch.setattr(Tlb, "enter", _nothing)
    return test_memory.test_memory_tags_run_out


def computing_is_never_cut(patch: Patch) -> Test:
    def whole(cpu: Any, env: Any, cycles: int) -> bool:
        cpu.now += cycles
        return True

    patch.setattr(dispatch, "spend", whole)
    return lambda: test_calls.test_calls_programs_that_misbehave_harm_nobody(test_calls.spends)


MUTANTS = [
    frames_are_not_cleared,
    accounts_are_open_for_allocation,
    many_capabilities,
    many_gifts,
    nesting_without_end,
    levels_without_end,
    registers_are_not_saved,
    vital_frames_are_taken,
    deadlines_pass,
    anybody_revokes_frames,
    stores_are_not_checked,
    bits_stay,
    tags_never_run_out,
    computing_is_never_cut,
]


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.__name__)
def test_mutant_fails_its_test(mutant: Callable[[Patch], Test], monkeypatch: Patch) -> None:
    test = mutant(monkeypatch)
    with pytest.raises(AssertionError):
        test()
