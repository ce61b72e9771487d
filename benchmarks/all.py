"""All figures that have a goal, as one table, and the plots.

    python benchmarks/all.py [--quick] [--only NAME,...] [--out FOLDER] [--from FOLDER]

Runs the other benchmarks one after the other, keeps what each prints in FOLDER (NAME.md) and reads
its tables there: what, the figure, its goal, whether it was reached. `--from` reads such a folder
without measuring. Plots are those that the benchmarks draw, and `xnfs run NAME --svg` of the
experiments. A benchmark that can't run here is one line that says so. Needs what they need
(README.md).
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

sys.path.insert(0, str(Path(__file__).parents[1]))

from libos.experiments import EXPERIMENTS

HERE: Final = Path(__file__).parent
#: Each script, its arguments in full, and for rough figures.
SCRIPTS: Final[dict[str, tuple[list[str], list[str]]]] = {
    "compare": ([], ["--quick", "--runs", "1"]),
    "xcp": ([], ["--rounds", "1"]),
    "cffs": ([], ["--files", "1000", "--directories", "10"]),
    "network": ([], []),
    "web": ([], ["--quick"]),
    "machine": ([], ["--runs", "1"]),
    "lfs": (["small"], ["small", "--toy", "--runs", "1"]),
}
#: Experiments with a plot of their own, from the papers.
PLOTS: Final = ("handlers", "revocation", "shares", "tlb")


@dataclass(frozen=True)
class Figure:
    """One line. `least`: the goal is a lower limit, not an upper one."""

    what: str
    figure: float
    goal: float
    least: bool = True

    @property
    def reached(self) -> bool:
        """Whether the goal is."""
        return self.figure >= self.goal if self.least else self.figure <= self.goal

    def __str__(self) -> str:
        sign, answer = ("≥" if self.least else "≤"), ("yes" if self.reached else "no")
        return f"| {self.what} | {self.figure:.4g} | {sign} {self.goal:g} | {answer} |"


#: A row of a Markdown table by its columns; under "" the last line of text before the table.
Row = dict[str, str]


def rows(text: str) -> Iterator[Row]:
    """All rows of all tables."""
    names: list[str] = []
    title = ""
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if not line.startswith("|"):
            names, title = [], line.strip() or title
        elif not names:
            names = cells
        elif set(line) - set("|:- "):
            yield {"": title} | {name or "-": cell for name, cell in zip(names, cells, strict=True)}


def number(cell: str) -> float:
    """The first number of a cell."""
    found = re.search(r"-?[\d,]*\.?\d+(e[+-]?\d+)?", cell)
    return float(found[0].replace(",", "")) if found else float("nan")


def of_compare(found: list[Row], text: str) -> Iterator[Figure]:
    """Its own list of goals, each a share of lines."""
    for what, reached, of in re.findall(r"^- (.*): (\d+) of (\d+);", text, re.M):
        yield Figure(f"{what}, lines", float(reached), float(of))


def of_xcp(found: list[Row], text: str) -> Iterator[Figure]:
    """Three times `cp`."""
    for row in found:
        if "cp / xnfs cp" in row:
            ratio = number(row["cp / xnfs cp"])
            yield Figure(f"`cp` / `xnfs cp`, {row['tree']}, {row['-']}", ratio, 3)


def of_cffs(found: list[Row], text: str) -> Iterator[Figure]:
    """A fourth of the requests."""
    for row in found:
        if row.get("phase") == "all":
            what = f"requests with C-FFS / without, {row['size']} bytes"
            yield Figure(what, number(row["ratio"]), 0.25, least=False)


def of_network(found: list[Row], text: str) -> Iterator[Figure]:
    """The cost of finding a packet's owner does not grow."""
    merged = [number(list(row.values())[3]) for row in found if "filters" in "".join(row)]
    if len(merged) > 1:
        what = "time to find the owner, most filters / one"
        yield Figure(what, merged[-1] / merged[0], 1.5, least=False)


def of_web(found: list[Row], text: str) -> Iterator[Figure]:
    """Eight times the general server for small documents; ahead of `http.server` at every size."""
    kinds: dict[tuple[str, str], dict[str, Row]] = {}
    for row in found:
        if "server" in row:
            name = "this" if "this server" in row["server"] else row["server"]
            kinds.setdefault((row[""].rstrip(":"), row["bytes"]), {})[name] = row
    cpu, rate = "µs of CPU a request", "requests/s"
    for (how, size), by in kinds.items():
        if int(size) <= 1000:
            ratio = number(by["general"][cpu]) / number(by["this"][cpu])
            yield Figure(f"general server's CPU / ours, {size} bytes, {how.lower()}", ratio, 8)
        ratio = number(by["this"][rate]) / number(by["http.server"][rate])
        yield Figure(
            f"our requests a second / `http.server`'s, {size} bytes, {how.lower()}", ratio, 1
        )


def of_machine(found: list[Row], text: str) -> Iterator[Figure]:
    """Those that have a goal."""
    for row in found:
        if row.get("goal"):
            least = row["unit"] == "operations/s"
            what = f"{row['what']}, {row['unit']}"
            yield Figure(what, number(row["figure"]), number(row["goal"]), least)


def of_lfs(found: list[Row], text: str) -> Iterator[Figure]:
    """Fewer device writes for small files."""
    about = ""
    for row in found:
        first = row.get("for each operation", "")
        about = first.strip("*").partition(" (")[0].strip("*") if first.startswith("**") else about
        if first == "device writes":
            yield Figure(f"device writes, FFS / LFS: {about}", number(row["FFS / LFS"]), 1)


READERS: Final[dict[str, Callable[[list[Row], str], Iterator[Figure]]]] = {
    "compare": of_compare, "xcp": of_xcp, "cffs": of_cffs, "network": of_network, "web": of_web,
    "machine": of_machine, "lfs": of_lfs,
}  # fmt: skip


def measure(name: str, out: Path, quick: bool) -> str:
    """Run one; why there is nothing of it, or an empty text."""
    words = [sys.executable, str(HERE / f"{name}.py"), *SCRIPTS[name][quick]]
    with (out / f"{name}.md").open("w") as report:
        done = subprocess.run(words, stdout=report, stderr=subprocess.PIPE, text=True, check=False)
    last = done.stderr.strip().splitlines()[-1:] or ["no message"]
    return f"status {done.returncode}: {last[0]}" if done.returncode else ""


def main() -> None:
    """The table."""
    options = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    options.add_argument("--quick", action="store_true", help="rough figures, some minutes")
    options.add_argument("--only", default=",".join(SCRIPTS), help="some of " + ", ".join(SCRIPTS))
    options.add_argument("--out", type=Path, help="folder for what each prints (new in /var/tmp)")
    options.add_argument("--from", dest="saved", type=Path, help="such a folder: no measuring")
    args = options.parse_args()
    out = args.saved or args.out or Path("/var/tmp") / time.strftime("xnfs-all-%Y%m%d-%H%M%S")
    out.mkdir(parents=True, exist_ok=True)
    print("| what | figure | goal | reached |\n|---|---:|---:|---|")
    for name in args.only.split(","):
        failed = "" if args.saved else measure(name, out, args.quick)
        report = out / f"{name}.md"
        if failed or not report.exists():
            print(f"| {name}.py | {failed or 'not measured'} | | |", flush=True)
            continue
        text = report.read_text()
        for figure in READERS[name](list(rows(text)), text):
            print(figure, flush=True)
    for name in () if args.saved else PLOTS:
        (out / f"{name}.svg").write_text(EXPERIMENTS[name]().svg())
    print(f"\nAll tables and plots: {out}")


if __name__ == "__main__":
    main()
