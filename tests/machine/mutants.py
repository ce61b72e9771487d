"""Checks of the machine, switched off one by one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from xnfs.capability import Capabilities
from xnfs.cpu import dispatch
from xnfs.cpu.environments import Environments
from xnfs.cpu.slices import Slices
from xnfs.machine import Machine
from xnfs.memory.bindings import Bindings
from xnfs.memory.ownership import Memory
from xnfs.memory.revocation import Revocation
from xnfs.memory.tlb import Tlb
from xnfs.memory.translations import Translations

Patch = pytest.MonkeyPatch


def _nothing(*args: Any, **kwargs: Any) -> None:
    return None


def capabilities_are_not_checked(patch: Patch) -> None:
    patch.setattr(Capabilities, "check", _nothing)


def rights_are_not_looked_at(patch: Patch) -> None:
    check = Capabilities.check
    patch.setattr(Capabilities, "check", lambda self, token, what, _: check(self, token, what, 1))


def accounts_are_not_checked(patch: Patch) -> None:
    patch.setattr(Machine, "checked", lambda self, id, token, rights: self.environment(id))


def bindings_outlive_the_frame(patch: Patch) -> None:
    patch.setattr(Bindings, "break_frame", _nothing)


def bindings_outlive_the_capability(patch: Patch) -> None:
    patch.setattr(Bindings, "break_tokens", _nothing)


def the_hardware_keeps_translations(patch: Patch) -> None:
    patch.setattr(Tlb, "drop", _nothing)


def translations_outlive_the_binding(patch: Patch) -> None:
    patch.setattr(Translations, "forget_frame", _nothing)


def the_save_area_outlives_the_binding(patch: Patch) -> None:
    patch.setattr(Memory, "_lost", _nothing)
    init = Memory.__init__

    def without(self: Memory, machine: Machine) -> None:
        init(self, machine)
        self.bindings._lost = _nothing

    patch.setattr(Memory, "__init__", without)


def limits_are_not_kept(patch: Patch) -> None:
    patch.setattr(Bindings, "_room", _nothing)


def freed_frames_do_not_count(patch: Patch) -> None:
    patch.setattr(Revocation, "paid", _nothing)


def frames_of_the_dead_stay(patch: Patch) -> None:
    patch.setattr(Memory, "drop", _nothing)


def positions_of_the_dead_stay(patch: Patch) -> None:
    patch.setattr(Slices, "drop", _nothing)


def capabilities_of_the_dead_stay(patch: Patch) -> None:
    patch.setattr(Environments, "drop", _nothing)


def operands_are_not_checked(patch: Patch) -> None:
    patch.setattr(dispatch, "refusal", _nothing)


def sleepers_stay_ready(patch: Patch) -> None:
    block = Slices.block

    def awake(self: Slices, env: Any, time: int) -> None:
        ready = self.ready
        block(self, env, time)
        self.ready = ready

    patch.setattr(Slices, "block", awake)


def stale_capabilities_live(patch: Patch) -> None:
    revoke = Capabilities.revoke

    def keep(self: Capabilities, token: bytes) -> list[bytes]:
        entry = self._entry(token)
        gone = revoke(self, token)
        self._entries[token] = entry
        return gone

    patch.setattr(Capabilities, "revoke", keep)


def quotas_are_given_twice(patch: Patch) -> None:
    def paid(self: Revocation, owner: Any, freed: int) -> None:
        owner.frames += 2 * freed

    patch.setattr(Revocation, "paid", paid)


MUTANTS: dict[str, Callable[[Patch], None]] = {
    mutant.__name__: mutant
    for mutant in (
        capabilities_are_not_checked,
        rights_are_not_looked_at,
        accounts_are_not_checked,
        bindings_outlive_the_frame,
        bindings_outlive_the_capability,
        the_hardware_keeps_translations,
        translations_outlive_the_binding,
        the_save_area_outlives_the_binding,
        limits_are_not_kept,
        freed_frames_do_not_count,
        frames_of_the_dead_stay,
        positions_of_the_dead_stay,
        capabilities_of_the_dead_stay,
        operands_are_not_checked,
        sleepers_stay_ready,
        stale_capabilities_live,
        quotas_are_given_twice,
    )
}
