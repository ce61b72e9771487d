"""The table of all hostile cases, for docs/attacks.md: `xnfs attack --table` prints it."""

from __future__ import annotations

from xnfs_trials.attack.cases import CASES

_HEAD = ("case", "what it tries", "from", "refused with")


def markdown() -> str:
    """One row for each case, by id; nothing in the last column: accepted, but in vain."""
    rows = [_HEAD, ("---",) * len(_HEAD)]
    for name in sorted(CASES):
        case = CASES[name]
        rows.append((f"`{name}`", case.tries, case.source, case.refused_with or "no effect"))
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)
