"""docs/attacks.md and the man page say what the code does."""

from __future__ import annotations

import re
from pathlib import Path

from xnfs_tools import attack
from xnfs_trials.attack import table
from xnfs_trials.attack.case import CASES

from tests.attack.mutants import MUTANTS, TOO_STRICT

ROOT = Path(__file__).parents[2]


def test_docs_table_of_cases_is_the_codes() -> None:
    """Make it again with `xnfs attack --table`."""
    assert (ROOT / "docs/attacks.md").read_text().endswith("\n\n" + table.markdown())
    assert len(CASES) == table.markdown().count("\n") - 2


def test_docs_number_of_mutants() -> None:
    text = (ROOT / "docs/attacks.md").read_text()
    text = text.replace("\n", " ")
    assert f"any one of {len(MUTANTS) - len(TOO_STRICT)} checks" in text
    assert f"any one of {len(TOO_STRICT)} that forbid too much" in text
    assert f"{len(CASES)} of them" in text
    assert f"{len(CASES) ** 2:,} pairs" in text


def test_man_options_of_attack_are_those_of_the_command() -> None:
    page = (ROOT / "man/xnfs.1").read_text()
    part = page[page.index('.SS "xnfs attack"\n') + 1 :]
    part = re.split(r"^\.S[SH] ", part, flags=re.M)[0]
    documented = dict(re.findall(r'^\.BI? \\-\\-(\w+)(?: " (\w+)")?$', part, re.M))
    actions = [a for a in attack.arguments()._actions if a.dest not in ("help", "version")]
    real = {a.dest: str(a.metavar).lower() if a.nargs != 0 else "" for a in actions}
    assert documented == real
    assert all(action.help for action in actions)
