"""docs/papers.md: what it says of this repository stands where it says."""

from __future__ import annotations

import re
from pathlib import Path

from libos.experiments import EXPERIMENTS

_DOCS = Path(__file__).parents[1] / "docs"
_NUMBER = re.compile(r"(?<![\w.,])\d+(?:[.,]\d+)*")


def rows() -> list[list[str]]:
    """What, then, here, shown by."""
    lines = (_DOCS / "papers.md").read_text().splitlines()
    cells = [[c.strip() for c in line.strip("|").split("|")] for line in lines if line[:1] == "|"]
    return [row for row in cells if row[0] != "what" and set(row[0]) != {"-"}]


def unfounded(row: list[str]) -> set[str]:
    """Figures of ours that the documents named do not have."""
    _, _, here, shown = row
    named = re.findall(r"\]\(([^)]+)\)", shown)
    known = {n for name in named for n in _NUMBER.findall((_DOCS / name).read_text())}
    return set(_NUMBER.findall(here)) - known


def test_papers_figures_stand_in_the_documents_named() -> None:
    assert len(rows()) > 12
    for row in rows():
        assert len(row) == 4, row
        assert not unfounded(row), (row[0], unfounded(row))
        if not row[3]:
            assert "not measured" in row[2], row


def test_papers_a_figure_of_no_document_is_found() -> None:
    assert unfounded(["", "", "97531 of 384 slices", "[machine.md](machine.md)"]) == {"97531"}


def test_papers_commands_are_there() -> None:
    for *_, shown in rows():
        for name in re.findall(r"`xnfs run ([\w-]+)`", shown):
            assert name in EXPERIMENTS
        for name in re.findall(r"`(benchmarks/\w+\.py)`", shown):
            assert (_DOCS.parent / name).is_file()
