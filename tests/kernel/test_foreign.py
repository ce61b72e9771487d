"""`mount.xnfs -o fs=module:Class`: anybody's file system, mounted by its author."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from xnfs_tools import mount
from xnfs_tools.command import Failed
from xnfs_tools.mountopts import parse

from tests.kernel.several import Several
from tests.support import command, good

pytestmark = pytest.mark.fuse
NOTES = "examples.notefs:NoteFs"


@pytest.fixture
def notes(tmp_path: Path) -> Iterator[Several]:
    disk = Several(tmp_path, "notes", "notes")
    try:
        good("mkfs.xnfs", "-t", NOTES, disk.image, "16m")
        good("mkfs.xnfs", "-t", NOTES, "--add", "notes", disk.image)
        yield disk
    finally:
        disk.clean_up()


def test_foreign_is_mounted_and_coherent(notes: Several) -> None:
    """As any other: also twice, since it is the POSIX layer that tells."""
    notes.mount(f"fs={NOTES}")
    a, b = notes.places
    (a / "f").write_text("written down")
    assert (b / "f").read_text() == "written down"
    (b / "d").mkdir()
    (b / "f").rename(b / "d/g")
    subprocess.run(["cat", a / "d/g"], check=True, capture_output=True)
    notes.umount()
    notes.fsck()
    notes.mount(f"fs={NOTES}")
    assert (a / "d/g").read_text() == "written down"


def test_foreign_needs_to_be_named(notes: Several) -> None:
    place = notes.places[0]
    for options, says in (
        ("ro", "of type notefs.node, which is not known here"),
        ("fs=nosuch:Class", "no file system 'nosuch:Class'"),
        ("fs=json:JSONDecoder", "no file system 'json:JSONDecoder'"),
        ("fs=libfs.ffs:Ffs", "fsck.xnfs"),  # it looks, and sees damage
        (f"user,fs={NOTES}", "not for mounts that are made for somebody else"),
    ):
        done = command("mount.xnfs", f"{notes.image}:notes", place, "-o", options)
        assert done.returncode == 32, (options, done)
        assert says in done.stderr
        assert len(done.stderr.splitlines()) == 1
        assert not os.path.ismount(place)


@pytest.mark.parametrize("option", ["user", "users", "owner", "group", "user=alice"])
def test_foreign_never_for_somebody_else(option: str) -> None:
    assert mount._foreign(parse([option]), helper=True) is None
    with pytest.raises(Failed, match="somebody else"):
        mount._foreign(parse([option, f"fs={NOTES}"]), helper=True)


def test_foreign_never_with_more_rights_than_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a set-id program would have."""
    options = parse([f"fs={NOTES}"])
    known = mount._foreign(options, helper=False)
    assert known is not None
    assert known.name == NOTES
    for name in ("geteuid", "getegid"):
        with monkeypatch.context() as patch:
            patch.setattr(os, name, lambda: 12345)
            with pytest.raises(Failed, match="somebody else"):
                mount._foreign(options, helper=False)


def test_foreign_modules_where_mount_was_called_are_not_for_mount8(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "only_here.py").write_text("raise SystemError('run')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    options = parse(["fs=only_here:Class"])
    with pytest.raises(Failed, match="No module named"):
        mount._foreign(options, helper=True)
    with pytest.raises(SystemError, match="run"):
        mount._foreign(options, helper=False)
