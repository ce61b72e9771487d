"""xnfs verify: what the verifier proves of downloaded code, line by line, or why it can't."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from typing import Final, NamedTuple

from xnfs.cpu.predicates import MAX_STEPS
from xnfs.cpu.predicates import signature as predicate_signature
from xnfs.disk.blocktype import (
    ACL_BUDGET,
    ACL_SIGNATURE,
    OWNS_BUDGET,
    SIZE_BUDGET,
    SIZE_SIGNATURE,
    owns_signature,
)
from xnfs.net.handler import BUDGET as HANDLER_BUDGET
from xnfs.net.handler import SIGNATURE as HANDLER_SIGNATURE
from xnfs.net.network import FILTER, FILTER_BUDGET
from xnfs.sandbox import Signature, VerifyError, verify
from xnfs_tools.command import Codes, Failed, Parser, parser, run, words

PROG: Final = "xnfs verify"
CODES: Final = Codes(failed=1, usage=2)
_MAX_CHARS: Final = 1 << 20


class Use(NamedTuple):
    """One place where the kernel runs code of others."""

    what: str
    signature: Signature
    budget: int


def uses(parts: int, words_exposed: int) -> dict[str, Use]:
    """By the name that the function has."""
    return {
        "owns": Use("UDF of a block type", owns_signature(parts), OWNS_BUDGET),
        "acl": Use("UDF of a block type", ACL_SIGNATURE, ACL_BUDGET),
        "size": Use("UDF of a block type", SIZE_SIGNATURE, SIZE_BUDGET),
        "ready": Use("wakeup predicate", predicate_signature(words_exposed), MAX_STEPS),
        "accept": Use("packet filter", FILTER, FILTER_BUDGET),
        "handle": Use("application handler (ASH)", HANDLER_SIGNATURE, HANDLER_BUDGET),
    }


def arguments() -> Parser:
    """The command line."""
    made = parser(PROG, "Say what the verifier proves of downloaded code, or why it refuses it.")
    made.add_argument(
        "--parts",
        metavar="N",
        type=int,
        default=1,
        help="partitions of the block type, for owns (default 1)",
    )
    made.add_argument(
        "--words",
        metavar="N",
        type=int,
        default=4096,
        help="exposed words of the machine, for ready (default 4096)",
    )
    made.add_argument("file", metavar="FILE", help="with one function; - for the standard input")
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """The command."""
    return run(PROG, CODES, lambda: _main(words(argv)))


def _main(argv: Sequence[str]) -> int:
    args = arguments().parse_args(argv)
    if not 1 <= args.parts <= 65_535 or not 64 <= args.words <= 1 << 24:
        raise Failed("a type has 1 to 65535 partitions, a machine 64 to 16777216 words", 2)
    text = _read(args.file)
    known = uses(args.parts, args.words)
    found = re.search(r"^def +(\w+)", text, re.MULTILINE)
    use = known.get(found[1]) if found else None
    if use is None:
        raise Failed(f"{args.file}: no function called {', '.join(known)}")
    try:
        program = verify(text, use.signature, budget=use.budget)
    except VerifyError as error:
        line = text.splitlines()[error.line - 1 : error.line] or [""]
        raise Failed(f"{args.file}: {error}\n    {line[0].strip()}") from None
    print(f"{use.what} {use.signature.header[4:]}, {program.digest[:16]}")
    lines = text.splitlines()
    last = 0
    for number, fact in program.proof:
        if number != last:
            print(f"{number:4}  {lines[number - 1]}")
            last = number
        print(f"      -- {fact}")
    for buffer, lo, hi in program.reads:
        print(f"reads bytes {lo}..{hi - 1} of {buffer}")
    return 0


def _read(name: str) -> str:
    try:
        if name == "-":
            return sys.stdin.read(_MAX_CHARS)
        with open(name, encoding="utf-8") as file:
            return file.read(_MAX_CHARS)
    except OSError as error:
        raise Failed(f"{name}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise Failed(f"{name}: not text") from None
