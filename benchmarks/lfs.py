"""LFS beside FFS on the same kernel: small files and writes, the cleaner, recovery, snapshots.

    python benchmarks/lfs.py                        # all of it: some twenty minutes of CPU
    python benchmarks/lfs.py small recovery         # some sections: small, cost, recovery, snapshot
    python benchmarks/lfs.py cost --only 'greedy.*90' --out FOLDER
    python benchmarks/lfs.py --from FOLDER --publish    # tables and plots of what is there

Every measurement is a file in the folder, so that a run can be broken off and gone on with.
`--publish` writes `lfs.md` and `lfs-*.svg` beside this script. What is measured and how is in
`lfs_measures.py`; here is only which, and the tables. Counts are the same on every run; times are
not, so they are CPU seconds, and the head of the table says how much noise there was.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import statistics
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import lfs_measures as measure
from fsbench import spin

from libos.experiments.result import Result

HERE = Path(__file__).resolve().parent
SECTIONS = ("small", "mount", "cost", "recovery", "snapshot")
#: What is done, and the bytes of each file or write.
PHASES = {
    "create-1k": ("create and write a file of 1 KiB, one sync at the end", 1024),
    "create-4k": ("create and write a file of 4 KiB, one sync at the end", 4096),
    "overwrite": ("overwrite 4 KiB at random, fsync after each 32", 4096),
}
EVERY = 32


@dataclass(frozen=True, slots=True)
class Scale:
    """How much work. Sizes in MiB."""

    files: int = 10_000
    file: int = 64
    writes: int = 4096
    image: int = 1024
    log: int = 64
    warm: float = 1.5
    utilisations: tuple[int, ...] = (20, 30, 40, 50, 60, 70, 80, 90)
    since: tuple[int, ...] = (0, 1, 4, 16, 64)
    sizes: tuple[int, ...] = (10, 1000, 10_000)
    snapshots: int = 5


FULL = Scale()
#: For the test that this script still runs; the figures mean nothing.
TOY = Scale(
    files=20,
    file=1,
    writes=64,
    image=64,
    log=4,
    warm=0.2,
    utilisations=(30, 60),
    since=(0, 1),
    sizes=(10, 20),
    snapshots=2,
)


# --- measuring -------------------------------------------------------------------------------


def points(scale: Scale, where: Path, runs: int) -> dict[str, Callable[[], Any]]:
    """Everything that can be measured, by name, in the order in which it is."""
    found: dict[str, Callable[[], Any]] = {}
    for turn in range(runs):
        for kind in list(measure.KINDS)[:: -1 if turn % 2 else 1]:
            for phase in PHASES:
                for section, work in (("small", small), ("mount", mount)):
                    name = f"{section}.{phase}.{kind}.{turn}"
                    found[name] = partial(work, scale, where, phase, kind)
    for policy in measure.POLICIES:
        for access in measure.ACCESSES:
            for percent in scale.utilisations:
                found[f"cost.{policy}.{access}.{percent}"] = partial(
                    measure.write_cost,
                    policy,
                    access,
                    percent / 100,
                    mib=scale.log,
                    warm=scale.warm,
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


class Saved:
    """The measurements of a folder."""

    def __init__(self, folder: Path) -> None:
        self._all = {path.stem: json.loads(path.read_text()) for path in folder.glob("*.*.json")}

    def __bool__(self) -> bool:
        return bool(self._all)

    def get(self, name: str) -> dict[str, Any] | None:
        """Figures of one measurement; medians of all its runs, if there are many."""
        runs = [
            one["figures"] for key, one in self._all.items() if key == name or _run(key) == name
        ]
        return _medians(runs) if runs else None

    def keys(self, section: str, place: int) -> list[str]:
        """What stands at a place of the names of a section, each once, numbers ascending."""
        found = {key.split(".")[place] for key in self._all if key.startswith(f"{section}.")}
        return sorted(found, key=lambda word: (int(word) if word.isdigit() else 0, word))

    def runs(self, section: str) -> int:
        """How many runs a section had."""
        return len(self.keys(section, -1))

    def noise(self) -> tuple[float, float]:
        """A fixed piece of work, against its best time: at the median, and at worst."""
        spins = [one["spin"] for one in self._all.values()]
        return statistics.median(spins) / min(spins), max(spins) / min(spins)


def _run(key: str) -> str:
    return key.rpartition(".")[0]


def _medians(runs: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        name: _medians([one[name] for one in runs])
        if isinstance(value, dict)
        else statistics.median(one[name] for one in runs)
        for name, value in runs[0].items()
    }


# --- reporting -------------------------------------------------------------------------------


def small_table(saved: Saved, scale: Scale) -> list[str]:
    """FFS and LFS, for each operation."""
    lines = ["| for each operation | FFS | LFS | FFS / LFS |", "|---|---:|---:|---:|"]
    for phase, (words, _size) in PHASES.items():
        operations = scale.writes if phase == "overwrite" else scale.files
        lines.append(f"| **{words}** ({operations}) | | | |")
        for section, rows in (("small", MEASURED), ("mount", THROUGH)):
            pair = [saved.get(f"{section}.{phase}.{kind}") for kind in measure.KINDS]
            if None not in pair:
                for what, pick in rows.items():
                    ffs, lfs = (pick(one) / operations for one in pair if one)
                    ratio = f"{ffs / lfs:.2f}" if lfs else "-"
                    lines.append(f"| {what} | {ffs:.3g} | {lfs:.3g} | {ratio} |")
    return lines


#: Rows of that table.
MEASURED: dict[str, Callable[[dict[str, Any]], float]] = {
    "device writes": lambda one: one["counts"]["writes"],
    "blocks written": lambda one: one["counts"]["blocks_written"],
    "of them the kernel's log and tables": lambda one: one["own"],
    "blocks read": lambda one: one["counts"]["blocks_read"],
    "flushes": lambda one: one["counts"]["flushes"],
    "seeks": lambda one: one["counts"]["seeks"],
    "blocks sought over": lambda one: one["counts"]["seek_blocks"],
    "CPU, µs": lambda one: one["cpu"] * 1e6,
    "time, µs": lambda one: one["wall"] * 1e6,
}
THROUGH: dict[str, Callable[[dict[str, Any]], float]] = {
    "time through a mount, µs": lambda one: one["wall"] * 1e6
}


def small_result(saved: Saved) -> Result | None:
    """How many times what LFS takes FFS takes."""
    rows = []
    for what in ("device writes", "blocks written", "seeks", "CPU, µs", "time, µs"):
        row: list[float | str] = [what.partition(",")[0]]
        for phase in PHASES:
            ffs, lfs = (saved.get(f"small.{phase}.{kind}") for kind in measure.KINDS)
            if not ffs or not lfs:
                return None
            row.append(MEASURED[what](ffs) / MEASURED[what](lfs))
        rows.append(tuple(row))
    columns = ("", *PHASES)
    return Result(
        "What FFS takes, as a multiple of what LFS takes", columns, tuple(rows), columns[1:]
    )


def cost_results(saved: Saved) -> Iterable[tuple[str, Result]]:
    """The paper's curves: write cost, what of it is written, and how full the segments were."""
    curves = [(p, a) for p in measure.POLICIES for a in measure.ACCESSES]
    names = tuple(f"{p}, {a}" for p, a in curves)
    for title, question, pick, ideal in (
        (
            "",
            "Write cost (blocks read and written / blocks of new data) by disk utilisation, %",
            lambda one: one["read"] + one["written"],
            ("2 / (1 - u)", lambda u: 2 / (1 - u)),
        ),
        (
            "-written",
            "Blocks written / blocks of new data by disk utilisation, %",
            lambda one: one["written"],
            ("1 / (1 - u)", lambda u: 1 / (1 - u)),
        ),
        (
            "-segments",
            "Utilisation of the segments that were cleaned by disk utilisation, %",
            lambda one: one["cleaned"],
            ("u", lambda u: u),
        ),
    ):
        rows = []
        for percent in saved.keys("cost", 3):
            found = [saved.get(f"cost.{p}.{a}.{percent}") for p, a in curves]
            if None not in found:
                cells = [pick(one) for one in found if one]
                rows.append((int(percent), *cells, ideal[1](int(percent) / 100)))
        if rows:
            columns = ("disk utilisation, %", *names, ideal[0])
            yield f"cost{title}", Result(question, columns, tuple(rows), columns[1:])


def recovery_result(saved: Saved) -> Result | None:
    """Mount time by what there was to roll forward."""
    rows = []
    for mib in saved.keys("recovery", 1):
        one = saved.get(f"recovery.{mib}")
        assert one is not None
        ms = [1000 * one[name] for name in ("kernel", "lfs", "wall")]
        rows.append((int(mib), *ms, one["blocks"], one["reads"], one["inodes"]))
    columns = (
        "MiB since the checkpoint",
        *("kernel, ms of CPU", "LFS, ms of CPU", "both, ms", "blocks read", "reads", "inodes"),
    )
    question = "Mount after a crash, ms, by MiB written since the checkpoint"
    return Result(question, columns, tuple(rows), columns[1:4]) if rows else None


def snapshot_result(saved: Saved) -> Result | None:
    """Its cost by the size of the file system."""
    rows = []
    for files in saved.keys("snapshot", 1):
        one = saved.get(f"snapshot.{files}")
        assert one is not None
        cells = one["blocks"], one["own"], one["flushes"], 1000 * one["cpu"], 1000 * one["wall"]
        rows.append((int(files), *cells))
    columns = ("files", "blocks in the log", "blocks of the kernel", "flushes", "CPU, ms", "ms")
    question = "A snapshot, by files in the file system"
    plot = columns[1], columns[4]
    return Result(question, columns, tuple(rows), plot, log=True) if rows else None


def markdown(result: Result) -> list[str]:
    """Its table."""
    lines = ["| " + " | ".join(result.columns) + " |", "|---:" * len(result.columns) + "|"]
    for row in result.rows:
        lines.append("| " + " | ".join(map(_cell, row)) + " |")
    return lines


def _cell(value: float | str) -> str:
    if isinstance(value, str):
        return value
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"


def head(saved: Saved, runs: int) -> str:
    """What it ran on."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    median, worst = saved.noise()
    return (
        f"{time.strftime('%Y-%m-%d')}: {os.cpu_count()} CPUs, {memory:.0f} GiB, "
        f"{platform.system()} {platform.release()}, Python {platform.python_version()}; medians of "
        f"{runs} runs in turns, images as sparse files, for the write costs in memory. "
        f"Noise: a fixed piece of work took {median:.2f} times its best at the median, "
        f"{worst:.2f} at worst; times vary at least as much, counts do not."
    )


def report(saved: Saved, scale: Scale) -> tuple[str, dict[str, str]]:
    """The tables, and plots by the name of their file."""
    parts = ["# LFS and FFS on one kernel", "", head(saved, saved.runs("small"))]
    plots: dict[str, str] = {}

    def section(title: str, lines: list[str], drawn: Iterable[tuple[str, Result | None]]) -> None:
        parts.extend(["", f"## {title}", "", *lines])
        for name, result in drawn:
            if result is not None:
                plots[f"lfs-{name}.svg"] = result.svg()
                parts.extend(["", f"![{result.question}](lfs-{name}.svg)"])

    if saved.keys("small", 0):
        section(
            "Small files, small writes", small_table(saved, scale), [("small", small_result(saved))]
        )
    for name, result in cost_results(saved):
        section(result.question, markdown(result), [(name, result)])
    for name, found in (
        ("recovery", recovery_result(saved)),
        ("snapshot", snapshot_result(saved)),
    ):
        if found is not None:
            section(found.question, markdown(found), [(name, found)])
    return "\n".join(parts) + "\n", plots


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
