"""xnfs attack: what a hostile file system can do to the kernel and to others.

Here are the command line and the summary. The cases, the sequences and their specification, and the
stranger in somebody's file system are `xnfs_trials.attack`.
"""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Sequence
from typing import Final

from xnfs_trials.attack import cases, exhaust, table
from xnfs_trials.attack.case import Case
from xnfs_trials.attack.stranger import Haul, Stranger
from xnfs_trials.crash.subject import load

from libfs.posix.interface import FsError
from xnfs import XnError
from xnfs_tools.command import Codes, Failed, Parser, Progress, Usage, explain, parser, run, words

PROG: Final = "xnfs attack"
CODES: Final = Codes(failed=2, usage=2)
FOUND: Final = 1
#: of each kind of finding, so many are printed
SHOWN: Final = 10
DEEPEST: Final = 8
#: random sequences, and how many calls each has
WALKS: Final = 20
LENGTH: Final = 40


def arguments() -> Parser:
    """The command line."""
    made = parser(
        PROG,
        "Attack the kernel in memory: hostile cases one by one and in pairs, and all sequences of"
        " system calls up to a length and random ones beyond, against a specification.",
    )
    made.add_argument(
        "--depth", metavar="N", default="3", help="length of the sequences; 0: none (default: 3)"
    )
    made.add_argument(
        "--first",
        metavar="N",
        default="0",
        help="begin the last length where a run before was stopped, as it has said",
    )
    made.add_argument(
        "--cases", metavar="REGEX", default="", help="only cases whose id this finds (default: all)"
    )
    made.add_argument("--seed", metavar="N", default="0", help="of all that is random (default: 0)")
    made.add_argument(
        "--budget", metavar="TIME", default="60s", help="stop after 90s, 5m, 2h (default: 60s)"
    )
    made.add_argument(
        "--fs",
        metavar="FS",
        help="attack a file system instead, as another of its users: ffs, lfs, or module:Class",
    )
    made.add_argument(
        "--table", action="store_true", help="print the cases as a table, try nothing"
    )
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """The command: 0 all was refused that had to be, 1 not so, 2 it could not be tried."""
    return run(PROG, CODES, lambda: _main(words(argv)))


def _main(argv: Sequence[str]) -> int:
    args = arguments().parse_args(argv)
    depth, seed = _number("depth", args.depth, DEEPEST), _number("seed", args.seed, 2**64)
    first = _number("first", args.first, 2**64)
    budget = _seconds(args.budget)
    if args.table:
        print(table.markdown(), end="")
        return 0
    if args.fs:
        return _stranger(args.fs, budget)
    return _kernel(_chosen(args.cases), depth, first, seed, budget)


def _chosen(pattern: str) -> list[Case]:
    try:
        found = cases.chosen(pattern)
    except re.error as error:
        raise Usage(f"--cases: {error}") from None
    if not found:
        raise Usage(f"--cases: no case has an id like '{pattern}' (see --table)")
    return found


def _number(name: str, text: str, most: int) -> int:
    if not re.fullmatch(r"\d{1,20}", text) or int(text) > most:
        raise Usage(f"--{name}: '{text}' is not a number from 0 to {most}")
    return int(text)


def _seconds(text: str) -> float:
    found = re.fullmatch(r"(\d{1,6})([smh]?)", text)
    if not found:
        raise Usage(f"--budget: '{text}' is not a time, such as 90s, 5m or 2h")
    return int(found[1]) * {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0}[found[2]]


# -- the kernel


def _kernel(chosen: list[Case], depth: int, first: int, seed: int, budget: float) -> int:
    """Cases and pairs first, then sequences with what time is left."""
    end = time.monotonic() + budget
    line = Progress()
    singles = cases.Tally(total=len(chosen))
    for name, outcome in cases.singles(chosen).items():
        singles.add(name, outcome)
    share = budget / 2 if depth else budget
    pairs = cases.pairs(
        chosen, seed=seed, budget=share, progress=lambda t: line("pairs", t.trials, t.total)
    )
    census, walks = exhaust.Census(), exhaust.Census()
    if depth:
        census = exhaust.Search().run(
            depth,
            first=first,
            budget=max(1.0, end - time.monotonic()),
            progress=lambda c: line(f"calls, {c.states} states", c.calls),
        )
        walks = exhaust.Search(free=4).wander(
            seed,
            WALKS,
            LENGTH,
            budget=budget / 4,
            progress=lambda c: line("walks", c.states, WALKS),
        )
    line.end()
    _print_cases(singles, pairs)
    if depth:
        _print_census(census, depth)
        print(f"walks      {walks.states} of {LENGTH} calls, {len(walks.wrong)} wrong")
    wrong = singles.wrong + pairs.wrong + [str(w) for w in census.wrong + walks.wrong]
    for text in wrong[:SHOWN]:
        print(f"  {text}")
    if len(wrong) > SHOWN:
        print(f"  and {len(wrong) - SHOWN} more")
    return FOUND if wrong else 0


def _print_cases(singles: cases.Tally, pairs: cases.Tally) -> None:
    head = f"{'':10} {'trials':>9} {'of':>6} {'calls':>9} {'refused':>9}"
    print(f"{head} {'wrongly accepted':>17} {'wrongly refused':>16} {'broken':>7}")
    for name, t in (("cases", singles), ("pairs", pairs)):
        print(
            f"{name:10} {t.trials:9} {t.total:6} {t.tried:9} {t.refused:9}"
            f" {len(t.accepted):17} {len(t.denied):16} {len(t.broken):7}"
        )


def _print_census(census: exhaust.Census, depth: int) -> None:
    kinds = [w.what for w in census.wrong]
    rate = census.calls / census.seconds if census.seconds else 0
    print(f"sequences  all of up to {census.depth} calls")
    if not census.complete:
        print(
            f"           stopped at length {census.depth + 1}, after"
            f" {census.tried} of {census.before} states"
            + (f"; to go on: --first {census.tried}" if census.depth + 1 == depth else "")
        )
    if census.sequences:
        print(f"           {census.sequences} sequences of {depth} calls")
    print(
        f"           {census.states} canonical states, {census.calls} calls:"
        f" {census.accepted} accepted, {census.refused} refused,"
        f" {kinds.count('wrongly accepted')} wrongly accepted,"
        f" {kinds.count('wrongly refused')} wrongly refused,"
        f" {len(kinds) - kinds.count('wrongly accepted') - kinds.count('wrongly refused')} other;"
        f" {census.seconds:.1f} s, {rate:.0f} calls/s"
    )


# -- somebody's file system


def _stranger(spec: str, budget: float) -> int:
    line = Progress()
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())  # a file system may be in the current directory
    try:
        stranger = Stranger(load(spec))
    except ValueError as error:
        raise Usage(f"--fs: {error}") from None
    except (FsError, XnError, AttributeError, NotImplementedError) as error:
        raise Failed(f"{spec}: it can't be made and filled: {explain(error)}") from None
    haul = stranger.run(budget, progress=lambda h: line("calls", h.tried))
    line.end()
    _print_haul(spec, haul)
    return FOUND if haul.thefts else 0


def _print_haul(spec: str, haul: Haul) -> None:
    print(f"a stranger in {spec}: {haul.tried} calls in {haul.seconds:.1f} s", end="")
    print("" if haul.complete else " (stopped by the budget)")
    print(f"  {haul.refused} refused, {haul.accepted} accepted; of these")
    silent = haul.accepted - haul.written - len(haul.thefts)
    print(f"  {silent} show nowhere, {haul.written} in the data of regular files,")
    print(f"  {len(haul.thefts)} change what is not the stranger's")
    for theft in haul.thefts[:SHOWN]:
        print(f"    {theft}")
    if len(haul.thefts) > SHOWN:
        print(f"    and {len(haul.thefts) - SHOWN} more")
