"""Man pages, README and the commands say the same."""

from __future__ import annotations

import argparse
import re
import tomllib
from pathlib import Path
from types import ModuleType

import pytest
from xnfs_tools import (
    cli,
    cp,
    crash,
    debugfs,
    dumpfs,
    fsck,
    mkfs,
    mount,
    mountopts,
    serve,
    umount,
    verify,
)

import xnfs

ROOT = Path(__file__).parents[2]
PARSERS = {
    "mkfs.xnfs.8": mkfs.arguments(),
    "mount.xnfs.8": mount.arguments(),
    "umount.xnfs.8": umount.arguments(),
    "fsck.xnfs.8": fsck.arguments(),
    "dumpfs.xnfs.8": dumpfs.arguments(),
    "debugfs.xnfs.8": debugfs.arguments(),
    "xnfs.1": cli.arguments(),
}
SECTIONS = "NAME SYNOPSIS DESCRIPTION OPTIONS EXIT_STATUS FILES SEE_ALSO".split()


def section(page: str, name: str) -> str:
    """The text of one section of a man page."""
    text = (ROOT / "man" / page).read_text()
    found = re.search(rf'^\.SH "?{name}"?\n(.*?)(?=^\.SH |\Z)', text, re.M | re.S)
    assert found, (page, name)
    return found[1]


def test_man_every_command_has_a_page() -> None:
    assert {path.name for path in (ROOT / "man").iterdir()} == set(PARSERS)
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    helpers = {"mount.fuse.xnfs", "umount.fuse.xnfs"}
    assert {page.rpartition(".")[0] for page in PARSERS} == set(scripts) - helpers


@pytest.mark.parametrize("page", PARSERS)
def test_man_sections(page: str) -> None:
    text = (ROOT / "man" / page).read_text()
    found = [line[4:].replace(" ", "_") for line in text.splitlines() if line.startswith(".SH ")]
    assert [name for name in found if name in SECTIONS] == SECTIONS


@pytest.mark.parametrize("page", PARSERS)
def test_man_options_are_those_of_the_command(page: str) -> None:
    text = section(page, "OPTIONS")
    if page == "xnfs.1":  # without what has parsers of its own
        text = re.sub(
            r'^\.SS "xnfs (attack|crash|serve|snapshot|verify)"\n.*?(?=^\.SS |\Z)',
            "",
            text,
            flags=re.M | re.S,
        )
    documented = {
        name.replace("\\-", "-"): value
        for name, value in re.findall(r'^\.BI? ((?:\\-){1,2}\w+)(?: "? ?(\w+)"?)?', text, re.M)
    }
    real = {}
    for action in _options(PARSERS[page]):
        # The short form, where there is one.
        name = min(action.option_strings, key=len)
        real[name] = str(action.metavar).lower() if action.nargs != 0 else ""
    del real["-h"]
    assert documented == real
    synopsis = section(page, "SYNOPSIS")
    for name in set(real) - {"-V", "-a"}:
        assert name.replace("-", "\\-") in synopsis, name


def _options(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    """With those of its subcommands."""
    found = []
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for each in action.choices.values():
                found += _options(each)
        elif action.option_strings:
            found.append(action)
    return found


@pytest.mark.parametrize("module", [crash, serve, verify])
def test_man_long_options_are_those_of_the_command(module: ModuleType) -> None:
    """Those of the commands that have no page of their own."""
    text = section("xnfs.1", "OPTIONS")
    name = module.PROG
    found = re.search(rf'^\.SS "{name}"\n(.*?)(?=^\.SS |\Z)', text, re.M | re.S)
    assert found
    documented = re.findall(r'^\.BI? \\-\\-(\w+)(?: " (\w+)")?$', found[1], re.M)
    real = [
        (action.dest, str(action.metavar or "").lower())
        for action in module.arguments()._actions
        if action.option_strings and action.dest not in ("help", "version")
    ]
    assert documented == real


def test_man_options_of_cp() -> None:
    page = (ROOT / "man/xnfs.1").read_text()
    found = re.search(r"^\.TP\n\.B cp\n(.*?)^\.TP", page, re.M | re.S)
    assert found
    real = {a.option_strings[0] for a in cp.arguments()._actions if a.option_strings}
    documented = set(re.findall(r"^\.B \\(-\w)$", found[1], re.M))
    assert documented == real - {"-h", "-V"}


VALUES = {
    "cache=": "1m",
    "cleaner=": "greedy",
    "fs=": "m:C",
    "root=": "x",
    "snapshot=": "x",
    "transport=": "auto",
}


def test_man_mount_options() -> None:
    text = section("mount.xnfs.8", "MOUNT OPTIONS")
    words = set(re.findall(r"\w+=?", re.sub(r"^(?!\.B).*$", "", text, flags=re.M)))
    for word in words - {
        "B",
        "BI",
        "BR",
        "PP",
        "mount",
        "8",
        "name",
        "policy",
        "cost",
        "benefit",
        "greedy",
        "size",
        "main",
        "kind",
        "module",
        "class",
        "and",
        "kernel",
        "fusepy",
        "auto",
    }:
        given = word + VALUES.get(word, "")
        mountopts.parse([given])
    assert {"ro", "remount", "noatime", "cache=", "root=", "allow_other", "dirsync"} <= words


def test_man_exit_status_of_fsck() -> None:
    codes = re.findall(r"^\.B (\d+)$", section("fsck.xnfs.8", "EXIT STATUS"), re.M)
    assert [int(code) for code in codes] == [0, 1, 4, 8, 16, 32]


def test_docs_version_is_one() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["version"] == xnfs.__version__
    assert f"## {xnfs.__version__}\n" in (ROOT / "CHANGELOG.md").read_text()
    for page in PARSERS:
        assert f'"xnfs {xnfs.__version__}"' in (ROOT / "man" / page).read_text()


def test_docs_readme_links() -> None:
    for name in re.findall(r"\]\(([\w.]+)\)", (ROOT / "README.md").read_text()):
        assert (ROOT / name).exists(), name
    for name in re.findall(r"`(libfs/[\w./]+|xnfs/[\w./]+)`", (ROOT / "README.md").read_text()):
        assert (ROOT / name).exists(), name


def test_docs_help_has_every_option_explained() -> None:
    for parser in (
        *PARSERS.values(),
        crash.arguments(),
        cp.arguments(),
        serve.arguments(),
        verify.arguments(),
    ):
        for action in parser._actions:
            if not isinstance(action, argparse._SubParsersAction):
                assert action.help, (parser.prog, action)
