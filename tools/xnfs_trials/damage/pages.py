"""The page docs/damage.md: what came of each structure and verb, from one run.

python -m xnfs_trials.damage.pages [--jobs N] [--singles N] [--pairs N] [--guided N] > page
"""

from __future__ import annotations

import argparse
import math
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Final

from xnfs_trials.damage.campaign import Report, run
from xnfs_trials.damage.judge import OUTCOMES, REFUSED, REPAIRED, REPORTED, VALID
from xnfs_trials.damage.verbs import VERBS

_LETTER: Final = {REPAIRED: "r", VALID: "v", REPORTED: "s", REFUSED: "e"}

_HEAD: Final = """\
# Damaged images, and what came of them

Made by `python -m xnfs_trials.damage.pages`. On small images with every structure of XN, FFS and
LFS every field is changed in eight ways, each time with the checksum left wrong (a bad disk) and
made right again (a faulty kernel, or somebody with the device), to hit what lies behind the
checksum. The fields come from the declarations of the formats, `xnfs/disk/layout.py`,
`libfs/ffs/format.py` and `libfs/lfs/format.py`. Each image is

- looked at with `fsck -n`, which may not write;
- mounted as it is, walked, read, written to, unmounted, then mended;
- mended with `fsck -y`, looked at again, mounted, walked, read, written to, unmounted.

| | outcome | what it means |
|---|---|---|
| r | repaired | fsck mends it, a second fsck finds nothing, all that is there can be read, a new \
file written |
| v | valid | fsck finds nothing, and the same holds |
| s | said | fsck says in one line what it can't mend, and frees nothing that was fine |
| e | error | one line: it can't be opened, or not for writing |

Whatever does not need a damaged block must be there afterwards, byte for byte; so must a file on a
second file system that nobody touches. With a wrong checksum left nothing but the old bytes may be
shown, or an errno. An image has 20 s of processor time and 256 MiB. Anything else, an exception
that is no answer above all, counts as wrong.

What nobody can tell: a free map, the record of a type, or the list of the inodes of an LFS that
went, that lies with a right checksum is believed until fsck looks. Of those only clean errors are
asked. A log that lies with a right checksum may write where it says. One flipped bit in a block of
metadata is set right. What lies below a directory of FFS that is destroyed beyond that has no other
way to it: it is lost with the directory, and with the root directory that is the whole file system.
In an LFS what has no name any more gets one in the root.
"""


def page(report: Report) -> str:
    """The page, in Markdown."""
    return "\n".join((_HEAD, *_figures(report), *_tables(report), *_pairs(report))) + "\n"


def _figures(report: Report) -> Iterator[str]:
    count = report.outcomes
    rate = report.images / max(report.seconds, 1)
    yield (
        f"{report.structures} structures, {report.fields} fields, {report.cases} cases of one field"
        f" and one verb. This run (seed {report.seed}): {report.images} images in"
        f" {report.seconds:.0f} s, {rate:.0f} a second; cases that change nothing are left out."
    )
    yield ""
    listed = [f"{count[outcome]} {outcome}" for outcome in OUTCOMES]
    yield f"In all: {', '.join(listed)}; {len(report.failures)} wrong."
    yield ""


def _tables(report: Report) -> Iterator[str]:
    for sealed, title in ((False, "Checksum left wrong"), (True, "Checksum made right again")):
        yield f"## {title}"
        yield ""
        yield f"| structure | {' | '.join(VERBS)} |"
        yield "|---" * (len(VERBS) + 1) + "|"
        for structure in sorted({key[0] for key in report.singles}):
            cells = [_cell(report.singles, structure, verb, sealed) for verb in VERBS]
            yield f"| {structure} | {' | '.join(cells)} |"
        yield ""


def _cell(
    singles: Counter[tuple[str, str, bool, str]], structure: str, verb: str, sealed: bool
) -> str:
    found = {o: n for (s, v, k, o), n in singles.items() if (s, v, k) == (structure, verb, sealed)}
    parts = [f"{_LETTER[o]} {found.pop(o)}" for o in _LETTER if o in found]
    parts += [f"**{n} {outcome}**" for outcome, n in found.items()]
    return ", ".join(parts) or "-"


def _pairs(report: Report) -> Iterator[str]:
    yield "## Pairs, and what coverage leads to"
    yield ""
    yield (
        f"Two mutations at once: {report.pairs.total()} of {report.possible_pairs} pairs, in an"
        f" order drawn by the seed: {_listed(report.pairs)}."
    )
    yield ""
    before, after = report.lines
    yield (
        f"Guided by coverage: {report.guided.total()} images of up to five mutations,"
        f" {report.kept} of them kept because they reached lines of `xnfs/disk`, `libfs/ffs` and"
        f" `libfs/lfs` that none had reached: {after} lines, of which {before} by single mutations:"
        f" {_listed(report.guided)}."
    )


def _listed(count: Counter[str]) -> str:
    return ", ".join(f"{n} {outcome}" for outcome, n in count.most_common()) or "none"


def main(argv: Sequence[str] | None = None) -> int:
    """Run, print the page, and the failures on standard error."""
    parser = argparse.ArgumentParser(description="Damage images and print docs/damage.md.")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--singles", type=int, help="so many of the single mutations")
    parser.add_argument("--pairs", type=int, default=2000)
    parser.add_argument("--guided", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=math.inf, help="at most, for each part")
    report = run(**vars(parser.parse_args(argv)))
    print(page(report), end="")
    for failure in report.failures:
        print(failure, file=sys.stderr)
    return 1 if report.failures else 0


if __name__ == "__main__":
    sys.exit(main())
