"""A stranger in FFS, and in file systems whose types let him do too much."""

from __future__ import annotations

from dataclasses import replace

import pytest
from xnfs_trials.attack.stranger import Stranger
from xnfs_trials.crash.subject import load

from libfs.ffs import types

#: What the acls of FFS let a stranger do: set the mtime of a symlink to now, as Linux does.
OPEN = {
    (kind, f"bytes {at} to {at + 8}") for kind, places in (("ffs.inode", (56,)),) for at in places
}


def test_stranger_in_ffs() -> None:
    haul = Stranger(load("ffs")).run(every=17)
    assert {(t.type, t.act) for t in haul.thefts} <= OPEN
    assert haul.refused > 500
    assert haul.tried > 1000


@pytest.mark.slow
def test_stranger_in_ffs_everything() -> None:
    haul = Stranger(load("ffs")).run()
    assert {(t.type, t.act) for t in haul.thefts} <= OPEN
    assert haul.complete


def test_stranger_where_no_acl_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """The search finds something: FFS without its acls."""
    monkeypatch.setattr(
        "libfs.ffs.types.TYPES", tuple(replace(spec, acl="") for spec in types.TYPES)
    )
    haul = Stranger(load("ffs")).run(every=17)
    acts = {(t.type, t.act.split()[0]) for t in haul.thefts}
    assert {("ffs.dir", "bytes"), ("ffs.inode", "bytes"), ("ffs.super", "bytes")} <= acts
    assert any(t.type == "ffs.inode" and t.act == "bytes 16 to 24" for t in haul.thefts)
