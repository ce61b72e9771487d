"""All hostile cases, run one by one and in pairs.

A case alone must be refused with the error that it expects. In a pair, the second case finds what
the first one left behind: some of its own preparations may then be refused (`NoRoom`), but nothing
hostile may be accepted, and what must hold afterwards holds (`Session.aftermath`).

The cases stand in `cases_types`, `cases_rights`, `cases_ownership`, `cases_pages` and
`cases_exhaustion`.
"""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from xnfs import XnError
from xnfs_trials.attack import (  # noqa: F401 - they put themselves on the list
    cases_exhaustion,
    cases_ownership,
    cases_pages,
    cases_rights,
    cases_types,
)
from xnfs_trials.attack.case import CASES, Case
from xnfs_trials.attack.session import NoRoom, Outcome, Session, small_bounds

Progress = Callable[["Tally"], None]


@dataclass
class Tally:
    """What came of many cases. `trials`: runs of a case or of a pair."""

    trials: int = 0
    tried: int = 0
    refused: int = 0
    total: int = 0
    seconds: float = 0.0
    accepted: list[str] = field(default_factory=list)
    denied: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)

    def add(self, name: str, outcome: Outcome) -> None:
        """Count one."""
        self.trials += 1
        self.tried += outcome.tried
        self.refused += outcome.refused
        self.accepted += [f"{name}: {text}" for text in outcome.accepted]
        self.denied += [f"{name}: {text}" for text in outcome.denied]
        self.broken += [f"{name}: {text}" for text in outcome.broken]

    @property
    def wrong(self) -> list[str]:
        """All that should not be."""
        return self.accepted + self.denied + self.broken


def chosen(pattern: str = "") -> list[Case]:
    """The cases whose ids a regular expression finds."""
    return [case for name, case in CASES.items() if re.search(pattern, name)]


def run(session: Session, cases: Iterable[Case]) -> Outcome:
    """Some cases one after the other in one session, and what must hold at the end."""
    session.reset()
    cases = list(cases)
    session.strict = len(cases) == 1
    for case in cases:
        session.expect = case.refusal or (XnError,)
        try:
            case.run(session)
        except NoRoom:
            if session.strict:
                session.outcome.broken.append("could not be tried")
        except Exception as error:
            if session.strict or not isinstance(error, XnError):
                session.outcome.broken.append(f"ended in {error!r}")
    try:
        session.aftermath()
    except Exception as error:
        session.outcome.broken.append(f"afterwards: {error!r}")
    return session.outcome


def singles(cases: Iterable[Case]) -> dict[str, Outcome]:
    """Each case alone."""
    with small_bounds():
        session = Session()
        return {case.id: run(session, [case]) for case in cases}


def pairs(
    cases: Iterable[Case],
    *,
    seed: int = 0,
    limit: int = 0,
    budget: float = float("inf"),
    progress: Progress | None = None,
) -> Tally:
    """Every case after every other, in an order that `seed` gives; `limit` of them (0: all), or as
    many as `budget` seconds allow.
    """
    cases = list(cases)
    both = [(a, b) for a in cases for b in cases]
    random.Random(seed).shuffle(both)
    tally = Tally(total=len(both))
    begin = time.monotonic()
    with small_bounds():
        session = Session()
        for first, second in both[: limit or None]:
            tally.add(f"{first.id}, then {second.id}", run(session, [first, second]))
            tally.seconds = time.monotonic() - begin
            if progress is not None:
                progress(tally)
            if tally.seconds > budget:
                break
    return tally
