"""What a campaign has found so far, in one SQLite file, so that it can be stopped and gone on with.

A campaign is named by what its slices depend on: the file system, the seed and the limits. A file
of another campaign is refused. Each slice is stored whole, in one transaction, so a file is good
after any kill. Nothing here runs a workload, and one process writes at a time (SQLite's lock).
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Final

from xnfs_trials.crash.explore import Stats

_VERSION: Final = 1
_COUNTS: Final = tuple(f.name for f in fields(Stats) if f.name != "failures")
_SCHEMA: Final = f"""
create table campaign (version integer, name text);
create table slice (
    workload text, first integer, count integer, {", ".join(f"{name} real" for name in _COUNTS)},
    primary key (workload, first)
);
create table failure (
    workload text, name text, seed integer, event integer, state text, wrong text, ops text
);
"""


class ResultsError(Exception):
    """The file can't be used for this campaign; the text says why."""


@dataclass
class Done:
    """One slice that was run: workloads number `first` to `first + count` of a family."""

    workload: str
    first: int
    count: int
    stats: Stats


@contextmanager
def closing_on_error(db: sqlite3.Connection) -> Iterator[None]:
    """A file that can't be used is let go of."""
    try:
        yield
    except BaseException:
        db.close()
        raise


class Results:
    """An open file of results; in memory without a path."""

    def __init__(self, name: Mapping[str, object], path: str | Path | None = None) -> None:
        """`name`: what the campaign depends on. Raises ResultsError."""
        try:
            self._db = sqlite3.connect(":memory:" if path is None else path)
            with closing_on_error(self._db):
                self._open(json.dumps(name, sort_keys=True))
        except (sqlite3.Error, ResultsError) as error:
            raise ResultsError(f"{path}: {error}") from None

    def _open(self, name: str) -> None:
        version = self._db.execute("pragma user_version").fetchone()[0]
        tables = self._db.execute("select count(*) from sqlite_master").fetchone()[0]
        if not tables:
            with self._db:
                self._db.executescript(_SCHEMA)
                self._db.execute(f"pragma user_version = {_VERSION}")
                self._db.execute("insert into campaign values (?, ?)", (_VERSION, name))
            return
        if version != _VERSION:
            raise ResultsError("not a file of results, or one of another version")
        (there,) = self._db.execute("select name from campaign").fetchone()
        if there != name:
            raise ResultsError(f"the results are of another campaign: {there}")

    def add(self, done: Done) -> None:
        """Store a slice. Durable on return."""
        counts = [getattr(done.stats, name) for name in _COUNTS]
        marks = ", ".join("?" * (3 + len(counts)))
        with self._db:
            self._db.execute(
                f"insert or replace into slice values ({marks})",
                (done.workload, done.first, done.count, *counts),
            )
            for failure in done.stats.failures:
                self._db.execute(
                    "insert into failure values (?, ?, ?, ?, ?, ?, ?)",
                    (done.workload, failure.workload, failure.seed, failure.event, failure.label,
                     "\n".join(failure.wrong), "\n".join(failure.ops)),
                )  # fmt: skip

    def ranges(self, workload: str) -> list[tuple[int, int]]:
        """What is done of a family, as [first, end), in order."""
        found = self._db.execute(
            "select first, first + count from slice where workload = ? order by first", (workload,)
        )
        return [(int(first), int(end)) for first, end in found]

    def totals(self) -> dict[str, tuple[int, Stats]]:
        """family -> (workloads, what they add up to); failures are only counted in `failures`."""
        sums = ", ".join(f"sum({name})" for name in _COUNTS)
        out = {}
        for workload, count, *counts in self._db.execute(
            f"select workload, sum(count), {sums} from slice group by workload order by min(rowid)"
        ):
            stats = Stats()
            for name, value in zip(_COUNTS, counts, strict=True):
                setattr(stats, name, type(getattr(stats, name))(value))
            out[workload] = int(count), stats
        return out

    def failed(self) -> dict[str, int]:
        """family -> how many failures."""
        return dict(self._db.execute("select workload, count(*) from failure group by workload"))

    def close(self) -> None:
        """Let go of the file."""
        self._db.close()
