"""Kernels that are too careful: what they refuse or keep, they may not. See `mutants.py`.

A rule that forbids too much is a defect, too: a crash run sees it by a call that fails, a disk that
can't be opened, or blocks that never come back. More of them, which refuse single calls, are in
`tests/attack/mutants.py`.
"""

from __future__ import annotations

from typing import Any

import pytest

from tests.crash.mutants import Mutant
from xnfs import CollectStatus, CorruptionError, NoSpace, Refused
from xnfs.disk import xn
from xnfs.disk.change import Changer
from xnfs.disk.collect import Collector
from xnfs.disk.ledger import Ledger
from xnfs.disk.registry import MetaPage


def collector_keeps_all(p: pytest.MonkeyPatch) -> None:
    """The collector takes nothing for a leak."""
    p.setattr(Collector, "step", lambda self, blocks: CollectStatus(done=True, visited=0, freed=0))


def recovery_wants_both_halves(p: pytest.MonkeyPatch) -> None:
    """A log of which one half is not whole is taken for damage."""
    real: Any = vars(xn)["recover"]

    def recover(device: Any, seed: Any, log: Any, *rest: Any) -> Any:
        found = log.newest_untrusted(rest[-1])
        if len(found) == 1 and found[0].seq > 3:
            raise CorruptionError(1, "log", "one half", "two")
        return real(device, seed, log, *rest)

    p.setattr(xn, "recover", recover)


def freed_only_when_durable(p: pytest.MonkeyPatch) -> None:
    """What was never on the disk may not be freed."""
    remove: Any = Ledger.remove_one

    def strict(self: Ledger, page: MetaPage, block: int) -> None:
        if block in page.added:
            raise Refused(f"block {block} is not on the disk yet")
        remove(self, page, block)

    p.setattr(Ledger, "remove_one", strict)


def nothing_lent_after_a_cut(p: pytest.MonkeyPatch) -> None:
    """After a cut nothing is lent before leaks are collected."""
    check: Any = Changer._check_alloc

    def strict(self: Changer, alloc: Any, flow: Any) -> None:
        if self._ledger.held or not self._tables.free_blocks:
            check(self, alloc, flow)
        else:
            raise NoSpace("leaks may be there")

    p.setattr(Changer, "_check_alloc", strict)


STRICT = (
    Mutant("collector_keeps_all", "too strict: collector", mount=collector_keeps_all),
    Mutant("recovery_wants_both_halves", "too strict: recovery", mount=recovery_wants_both_halves),
    Mutant(
        "freed_only_when_durable",
        "too strict: free",
        run=freed_only_when_durable,
        trial="create foo; unlink foo; sync",
    ),
    Mutant(
        "nothing_lent_after_a_cut",
        "too strict: lending",
        mount=nothing_lent_after_a_cut,
        trial="create foo; sync",
    ),
)
