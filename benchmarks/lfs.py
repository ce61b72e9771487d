"""LFS beside FFS on the same kernel: small files and writes, the cleaner, recovery, snapshots.

    python benchmarks/lfs.py                        # all of it: some ten minutes of CPU
    python benchmarks/lfs.py small recovery         # some sections: small, mount, cost, ...
    python benchmarks/lfs.py cost --only 'greedy.*90' --out FOLDER
    python benchmarks/lfs.py --from FOLDER --publish    # tables and plots of what is there

Every measurement is a file in the folder, so that a run can be broken off and gone on with.
`--publish` writes `lfs.md` and `lfs-*.svg` beside this script. How it is measured is in
`lfs_measures.py`, how it is shown in `lfs_report.py`; here is only what. Counts are the same on
every run; times are not, so the head of the table says how much noise there was.
"""

from __future__ import annotations

import argparse
import errno
import json
import re
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import lfs_measures as measure
from fsbench import spin
from lfs_report import EVERY, FULL, PHASES, TOY, Saved, Scale, report

from libfs.posix.interface import FsError

HERE = Path(__file__).resolve().parent
SECTIONS = ("small", "mount", "cost", "recovery", "snapshot")


def points(scale: Scale, where: Path, runs: int) -> dict[str, Callable[[], Any]]:
    """Everything that can be measured, by name, in the order in which it is."""
    found: dict[str, Callable[[], Any]] = {}
    for turn in range(runs):
        for phase in PHASES:
            for section, work in (("small", small), ("mount", mount)):
                for kind in list(measure.KINDS)[:: -1 if turn % 2 else 1]:
                    name = f"{section}.{phase}.{kind}.{turn}"
                    found[name] = partial(work, scale, where, phase, kind)
    for policy in measure.POLICIES:
        for access in measure.ACCESSES:
            for percent in scale.utilisations:
                found[f"cost.{policy}.{access}.{percent}"] = partial(
                    cost, scale, policy, access, percent
                )
    for turn in range(runs):
        for mib in scale.since:
            found[f"recovery.{mib}.{turn}"] = partial(
                measure.recovery, where, mib, size=4096, disk_mib=scale.image
            )
    for files in scale.sizes:
        found[f"snapshot.{files}"] = partial(
            measure.snapshot, where, files, turns=scale.snapshots, disk_mib=scale.image
        )
    return found


def cost(
    scale: Scale, policy: str, access: str, percent: int
) -> measure.WriteCost | measure.NoRoom:
    """One point of a curve, or that it can't be reached."""
    try:
        return measure.write_cost(policy, access, percent / 100, mib=scale.log, warm=scale.warm)
    except FsError as error:
        if error.errno != errno.ENOSPC:
            raise
        return measure.NoRoom()


def small(scale: Scale, where: Path, phase: str, kind: str) -> measure.Cost:
    """One phase on a fresh image."""
    with measure.image(where, scale.image) as device:
        disk = measure.Disk(kind, device)
        if phase != "overwrite":
            return measure.create_files(disk, scale.files, PHASES[phase][1])
        return measure.overwrite(disk, scale.file, scale.writes, EVERY)


def mount(scale: Scale, where: Path, phase: str, kind: str) -> measure.Seconds:
    """The same through a mount."""

    def work(folder: Path) -> None:
        if phase != "overwrite":
            measure.create_in(folder, scale.files, PHASES[phase][1])
        else:
            measure.overwrite_in(folder, scale.file, scale.writes, EVERY)

    return measure.mounted(where, kind, work, scale.image)


def run(chosen: dict[str, Callable[[], Any]], out: Path) -> None:
    """Measure, and save each figure at once."""
    for name, work in chosen.items():
        gauge, start = spin(), time.process_time()
        figures = asdict(work())
        took = time.process_time() - start
        saved = {"spin": gauge, "cpu": took, "figures": figures}
        (out / f"{name}.json").write_text(json.dumps(saved, indent=1) + "\n")
        print(f"# {name}: {took:.1f} s of CPU", file=sys.stderr)


def main() -> int:
    """The command of the head."""
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("section", nargs="*", help=f"of {', '.join(SECTIONS)}; all")
    options.add_argument("--only", default="", help="measurements whose name matches")
    options.add_argument("--runs", type=int, default=3, help="of what is timed")
    options.add_argument("--where", type=Path, default=Path("/var/tmp"), help="for images")
    options.add_argument("--out", type=Path, help="folder for the figures")
    options.add_argument("--from", dest="saved", type=Path, help="only report what is there")
    options.add_argument("--publish", action="store_true", help="write lfs.md and lfs-*.svg")
    options.add_argument("--toy", action="store_true", help="next to no work: does it run?")
    args = options.parse_args()
    unknown = set(args.section) - set(SECTIONS)
    if unknown:
        options.error(f"unknown section: {', '.join(sorted(unknown))}")
    scale = TOY if args.toy else FULL
    out = args.saved or args.out or Path("/var/tmp") / time.strftime("xnfs-lfs-%Y%m%d-%H%M%S")
    if not args.saved:
        out.mkdir(parents=True, exist_ok=True)
        wanted = args.section or SECTIONS
        every = points(scale, args.where, args.runs)
        run(
            {
                name: work
                for name, work in every.items()
                if name.split(".")[0] in wanted and re.search(args.only, name)
            },
            out,
        )
    saved = Saved(out)
    if not saved:
        raise SystemExit(f"{out}: no figures")
    table, plots = report(saved, scale)
    print(table)
    for where in [out, *([HERE] if args.publish else [])]:
        (where / "lfs.md").write_text(table)
        for name, picture in plots.items():
            (where / name).write_text(picture)
    return 0


if __name__ == "__main__":
    sys.exit(main())
