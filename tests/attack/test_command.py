"""xnfs attack: what it prints, and its exit status."""

from __future__ import annotations

import pytest
from xnfs_tools import cli
from xnfs_trials.attack import table

from tests.attack import mutants


def test_command_nothing_found(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["attack", "--depth", "1", "--cases", "^cap-", "--budget", "4"]) == 0
    out = capsys.readouterr().out
    assert "cases" in out
    assert "pairs" in out
    assert "sequences  all of up to 1 calls" in out
    assert "1 canonical states" in out


def test_command_something_found(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    mutants.MUTANTS["anybody_revokes"](monkeypatch)
    assert cli.main(["attack", "--depth", "0", "--cases", "cap-revoke-others"]) == 1
    assert "cap-revoke-others: call" in capsys.readouterr().out


def test_command_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["attack", "--table"]) == 0
    assert capsys.readouterr().out == table.markdown()


@pytest.mark.parametrize(
    "words",
    [
        ["--depth", "x"],
        ["--depth", "9"],
        ["--budget", "soon"],
        ["--cases", "("],
        ["--cases", "no-such-case"],
        ["--fs", "no_such_module:Class"],
        ["--seed", "-1"],
        ["more"],
    ],
)
def test_command_line_makes_no_sense(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["attack", *words]) == 2
    assert capsys.readouterr().err.startswith("xnfs attack: ")


def test_command_stranger(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["attack", "--fs", "ffs", "--budget", "1s"]) in (0, 1)
    out = capsys.readouterr().out
    assert "a stranger in ffs" in out
    assert "(stopped by the budget)" in out
