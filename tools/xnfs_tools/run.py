"""xnfs run: an experiment on the simulated machine, as a table and a plot."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from libos.experiments import EXPERIMENTS
from xnfs_tools.command import Codes, Parser, Usage, parser, run, words

PROG: Final = "xnfs run"
CODES: Final = Codes(failed=1, usage=2)


def arguments() -> Parser:
    """The command line."""
    made = parser(PROG, "Run an experiment on the simulated machine; the same result every time.")
    made.add_argument("name", metavar="NAME", nargs="?", help="default: list the names")
    made.add_argument("--svg", metavar="FILE", help="draw the plot into this file")
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """The command."""
    return run(PROG, CODES, lambda: _main(words(argv)))


def _main(argv: Sequence[str]) -> int:
    args = arguments().parse_args(argv)
    if args.name is None:
        if args.svg is not None:
            raise Usage("there is nothing to draw without a NAME")
        print("\n".join(EXPERIMENTS))
        return 0
    if args.name not in EXPERIMENTS:
        raise Usage(f"there is no experiment '{args.name}' (they are {', '.join(EXPERIMENTS)})")
    result = EXPERIMENTS[args.name]()
    sys.stdout.write(result.text())
    if args.svg is not None:
        Path(args.svg).write_text(result.svg())
    return 0
