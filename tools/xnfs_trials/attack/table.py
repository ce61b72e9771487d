"""The table of all hostile cases, for docs/attacks.md: `xnfs attack --table` prints it."""

from __future__ import annotations

from xnfs_trials.attack.cases import chosen

_HEAD = ("case", "what it tries", "from", "refused with")


def markdown() -> str:
    """One row for each case, by id; nothing in the last column: accepted, but in vain."""
    rows = [_HEAD, ("---",) * len(_HEAD)]
    for case in sorted(chosen(), key=lambda c: c.id):
        rows.append((f"`{case.id}`", case.tries, case.source, case.refused_with or "no effect"))
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)
