"""Tables and plots of what `lfs.py` measured, from the files of its folder.

Does: medians, ratios, Markdown; the plots are `Result`s of the experiments. Does not: measure.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lfs_measures as measure

from libos.experiments.result import Result

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
    log: int = 16
    warm: float = 1.5
    utilisations: tuple[int, ...] = (20, 30, 40, 50, 60, 70, 80, 85, 90)
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
            if all(one and "written" in one for one in found):
                cells = [pick(one) for one in found if one]
                rows.append((int(percent), *cells, ideal[1](int(percent) / 100)))
        if rows:
            columns = ("disk utilisation, %", *names, ideal[0])
            yield f"cost{title}", Result(question, columns, tuple(rows), columns[1:])


def no_room(saved: Saved) -> list[str]:
    """Which points of the curves there are not."""
    full = [
        f"{policy}, {access} at {percent} %"
        for policy in measure.POLICIES
        for access in measure.ACCESSES
        for percent in saved.keys("cost", 3)
        if (one := saved.get(f"cost.{policy}.{access}.{percent}")) and "written" not in one
    ]
    words = "ENOSPC when files that are there were overwritten, so no figure: "
    return ["", words + "; ".join(full) + "."] if full else []


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
        f"{runs} runs in turns ({saved.runs('mount')} through a mount), images as sparse files, "
        "for the write costs in memory. Time is without waits for a CPU, but not through a mount. "
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
        rest = no_room(saved) if name == "cost" else []
        section(result.question, [*markdown(result), *rest], [(name, result)])
    for name, found in (
        ("recovery", recovery_result(saved)),
        ("snapshot", snapshot_result(saved)),
    ):
        if found is not None:
            section(found.question, markdown(found), [(name, found)])
    return "\n".join(parts) + "\n", plots
