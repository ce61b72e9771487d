"""xnfs crash: cut the power of a file system everywhere, and look at what is left.

Here are the command line, the progress line and the summary. Workloads, states and oracles are
`xnfs_trials.crash`; a failure is told by its `report.py`.
"""

from __future__ import annotations

import os
import re
import shlex
import sys
import time
from collections.abc import Sequence
from concurrent.futures import Executor
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Final

from xnfs_trials.crash import executors
from xnfs_trials.crash.campaign import STATES, Job, campaign, check_subject
from xnfs_trials.crash.explore import Failure, Stats
from xnfs_trials.crash.families import FAMILIES, family
from xnfs_trials.crash.report import report, save, text
from xnfs_trials.crash.results import Done, Results, ResultsError
from xnfs_trials.crash.shrink import Setting, shrink

from xnfs_tools.command import Codes, Failed, Parser, Usage, explain, parser, run, words

PROG: Final = "xnfs crash"
CODES: Final = Codes(failed=2, usage=2)
FOUND: Final = 1


def arguments() -> Parser:
    """The command line."""
    made = parser(
        PROG,
        "Run workloads on a file system in memory, cut the power at every write, in every way that"
        " the flushes allow, and check what recovery makes of it.",
    )
    known = ", ".join(FAMILIES)
    made.add_argument(
        "--fs", metavar="FS", default="ffs", help="ffs, lfs, or module:Class (default: ffs)"
    )
    made.add_argument(
        "--workload",
        metavar="WORKLOAD",
        default="one,random",
        help=f"some of {known} with commas between, or operations:"
        " 'create foo; fsync foo' (default: one,random)",
    )
    made.add_argument(
        "--budget", metavar="TIME", default="60s", help="stop after 90s, 5m, 2h (default: 60s)"
    )
    made.add_argument("--jobs", metavar="N", help="processes (default: one for each CPU)")
    made.add_argument("--seed", metavar="N", default="0", help="of all that is random (default: 0)")
    made.add_argument(
        "--states",
        metavar="N",
        help=f"make at most N states of each workload (default: {STATES}, of long ones fewer)",
    )
    made.add_argument(
        "--full",
        action="store_true",
        help="make every state that the rules name, without limit; slow",
    )
    made.add_argument(
        "--failures", metavar="N", default="1", help="stop after so many failures (default: 1)"
    )
    made.add_argument(
        "--out", metavar="DIR", default="xnfs-crash", help="where failures go (default: xnfs-crash)"
    )
    made.add_argument("--resume", metavar="FILE", help="keep results there, and go on with them")
    made.add_argument("--dask", metavar="ADDRESS", help="run on this Dask cluster, or 'local'")
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """The command: 0 nothing found, 1 something found, 2 it could not be tried."""
    return run(PROG, CODES, lambda: _main(words(argv)))


def _main(argv: Sequence[str]) -> int:
    args = arguments().parse_args(argv)
    jobs = executors.processors() if args.jobs is None else _number("--jobs", args.jobs, 1)
    budget, stop_at = _seconds(args.budget), _number("--failures", args.failures, 1)
    states = None if args.states is None else _number("--states", args.states, 1)
    seed = _number("--seed", args.seed, 0)
    job = Job(args.fs, seed, states, os.getcwd(), full=args.full)
    workloads = _workloads(args.workload)
    try:
        check_subject(job)
        results = Results(job.name(), args.resume)
    except (ValueError, ResultsError) as error:
        raise Failed(explain(error)) from None
    found: list[Failure] = []
    try:
        with _executor(args.dask, jobs) as (executor, slots):
            line = Line(job, workloads, results, budget)
            try:
                complete = campaign(
                    job, workloads, executor, slots, results,
                    budget=budget, stop_at=stop_at, watch=lambda done: line.show(done, found),
                )  # fmt: skip
            finally:
                line.wipe()
    except executors.ClusterError as error:
        raise Failed(str(error)) from None
    for row in table(workloads, results, line.seconds, slots):
        print(row)
    results.close()
    if not found and not line.failed:
        print("Nothing was found." + ("" if complete else " The time was over before the end."))
        return 0
    if not found:
        print(f"Found and told before: {line.failed} failures.")
    _tell(job, found, stop_at, Path(args.out))
    return FOUND


def _executor(address: str | None, jobs: int) -> AbstractContextManager[tuple[Executor, int]]:
    return executors.processes(jobs) if address is None else executors.dask(address, jobs)


def _number(option: str, text: str, least: int) -> int:
    if not text.isascii() or not text.isdigit() or int(text) < least:
        raise Usage(f"{option} takes a number from {least} on, not '{text}'")
    return int(text)


def _seconds(text: str) -> float:
    match = re.fullmatch(r"(\d{1,9}(?:\.\d{1,3})?)([smh]?)", text)
    if match is None:
        raise Usage(f"--budget takes a time such as 90s, 5m or 2h, not '{text}'")
    return float(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[match[2]]


def _workloads(text: str) -> list[str]:
    """Names of families, or one workload in full."""
    names = (
        list(dict.fromkeys(text.split(","))) if set(text.split(",")) <= set(FAMILIES) else [text]
    )
    for name in names:
        try:
            family(name, 0)
        except ValueError as error:
            known = ", ".join(FAMILIES)
            raise Usage(f"--workload: none of {known}; as operations: {explain(error)}") from None
    return names


# -- while it runs, and after


class Line:
    """The progress line: on a terminal only."""

    WIDTH: Final = 20
    PERIOD: Final = 0.25

    def __init__(self, job: Job, workloads: Sequence[str], results: Results, budget: float) -> None:
        self._results = results
        self._counts = {name: family(name, job.seed).count for name in workloads}
        self._begin, self._next, self._budget = time.monotonic(), 0.0, budget
        self._checked = 0
        self._visible = sys.stderr.isatty()
        self.failed = sum(results.failed().values())

    @property
    def seconds(self) -> float:
        """Since the beginning."""
        return time.monotonic() - self._begin

    def show(self, done: Done | None, found: list[Failure]) -> None:
        """A slice has ended (or none, for a while)."""
        if done is not None:
            found += done.stats.failures
            self._checked += done.stats.checked
        now = time.monotonic()
        if not self._visible or now < self._next:
            return
        self._next = now + self.PERIOD
        seconds = max(now - self._begin, 1e-3)
        share = min(1.0, seconds / self._budget) if self._budget else 1.0
        totals = self._results.totals()
        at = [
            f"{name} {totals[name][0]:,}" + ("" if count is None else f"/{count:,}")
            for name, count in self._counts.items()
            if name in totals and count != 1
        ]
        full = int(self.WIDTH * share)
        parts = [
            "█" * full + "░" * (self.WIDTH - full),
            f"{seconds:.0f}/{self._budget:.0f} s",
            *at[-2:],
            f"{self._checked:,} states ({self._checked / seconds:,.0f}/s)",
            f"{len(found)} found",
        ]
        columns = os.get_terminal_size(sys.stderr.fileno()).columns if self._visible else 80
        print("\r\x1b[K" + "  ".join(parts)[: columns - 1], end="", file=sys.stderr, flush=True)

    def wipe(self) -> None:
        """Take the line away."""
        if self._visible:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def table(workloads: Sequence[str], results: Results, seconds: float, slots: int) -> list[str]:
    """The summary. What is checked has been recovered by the real code and seen by every oracle;
    what is mounted has also been used, emptied, collected and seen by fsck, twice."""
    rows: list[tuple[str, ...]] = [
        ("workload", "run", "generated", "pruned", "checked", "mounted", "failures", "time")
    ]
    total, number, failed = Stats(), 0, results.failed()
    for name, (count, stats) in results.totals().items():
        shown, most = (name, family(name, 0).count) if name in FAMILIES else ("given", None)
        run = f"{count:,}" if most is None else f"{count:,}/{most:,}"
        rows.append(_row(shown, run, stats, failed.get(name, 0)))
        total.add(stats)
        number += count
    if len(rows) > 2:
        rows.append(_row("all", f"{number:,}", total, sum(failed.values())))
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    out = [
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    rate = total.checked / total.seconds if total.seconds else 0
    out.append(
        f"{rate:,.0f} states checked a second on each of {slots} workers;"
        f" {number / total.seconds if total.seconds else 0:.1f} workloads a second."
        f" {seconds:.1f} s in all. {total.audited:,} of the pruned were checked all the same;"
        f" {total.left_out:,} more that the rules name were not made."
    )
    return out


def _row(name: str, run: str, stats: Stats, failed: int) -> tuple[str, ...]:
    numbers = (stats.generated, stats.pruned, stats.checked, stats.mounted, failed)
    return name, run, *(f"{number:,}" for number in numbers), f"{stats.seconds:.1f} s"


def _tell(job: Job, found: Sequence[Failure], most: int, out: Path) -> None:
    """Make each failure small, print it, and write down how to see it again."""
    if len(found) > 1:
        print(f"{len(found)} failures, of which {min(most, len(found))} told here.")
    for number, failure in enumerate(found[:most], 1):
        told = report(job, shrink(failure, Setting(job.fs, failure.seed, job.plan())))
        print()
        print("\n".join(text(told)))
        where = out / f"failure-{number}"
        try:
            files = save(told, where)
        except OSError as error:
            raise Failed(explain(error)) from None
        print(f"\nIn {shlex.quote(str(where))}: {', '.join(file.name for file in files)}")
