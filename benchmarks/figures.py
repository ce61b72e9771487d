"""What the figures of the benchmark mean: groups of phases, medians, ratios, and the goals.

Does: read the JSON that `fsbench.py` writes, and turn it into Markdown. Does not: run anything
(`compare.py`) or draw (`chart.py`).

A ratio is always ours / peer's in speed: more than 1 is ahead, also where the figure is in seconds.
Two of the peers are ours, FFS and LFS: whoever keeps files has the choice, so each is compared with
all others.
"""

from __future__ import annotations

import json
import statistics
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

#: What is compared with the others, by name; the first is what `mkfs.xnfs` makes unless told.
SUBJECTS = ("xnfs", "xnfs-lfs")
#: Phases of fsbench, by what they exercise; the order is that of the tables.
GROUPS: dict[str, tuple[str, ...]] = {
    "Metadata": tuple(
        """create_empty stat_warm stat_cold readdir_cold readdir_warm lsl_cold open_close chmod
        rename unlink create_4k read_4k_cold read_4k_warm unlink_4k mkdir rmdir symlink link
        par4_files""".split()
    ),
    "Data": tuple(
        """seq_write seq_read_cold seq_read_warm write_4k rand_read_cold rand_write_32
        append_fsync""".split()
    ),
    "Applications": tuple(
        """untar cp_r find_cold du_cold grep_cold grep_warm git_add git_commit git_status sqlite
        rm_rf""".split()
    ),
}
#: Where the host kernel's page cache (and its cache of names and attributes) can serve.
CACHED = tuple(
    """stat_warm readdir_warm open_close read_4k_warm seq_write seq_read_warm write_4k
    grep_warm""".split()
)


class Goal(NamedTuple):
    """The ratio to a peer that is to be reached."""

    peer: str
    floor: float
    phases: tuple[str, ...] | None  # None: all there are
    words: str

    def of(self, phase: str) -> bool:
        """Whether it is for this phase."""
        return self.phases is None or phase in self.phases


GOALS: tuple[Goal, ...] = (
    Goal("fuse2fs", 1.0, None, "ahead of fuse2fs on every line"),
    Goal(
        "passthrough-fusepy",
        1.0,
        GROUPS["Metadata"],
        "ahead of fusepy's passthrough on all metadata lines",
    ),
    Goal(
        "passthrough-pyfuse3",
        1.0,
        GROUPS["Metadata"],
        "ahead of pyfuse3's passthrough on all metadata lines",
    ),
    Goal("ext4", 0.5, CACHED, "within a factor of 2 of kernel ext4 wherever the page cache serves"),
)


@dataclass
class Figures:
    """Medians of all runs. `titles`: peers by name, in the order of the columns. `subject`: whose
    ratios these are."""

    titles: dict[str, str]
    subject: str = SUBJECTS[0]
    units: dict[str, str] = field(default_factory=dict)
    medians: dict[tuple[str, str], float] = field(default_factory=dict)  # by peer and phase
    partial: set[tuple[str, str]] = field(default_factory=set)
    errors: dict[tuple[str, str], str] = field(default_factory=dict)
    metas: list[dict[str, Any]] = field(default_factory=list)

    def phases(self) -> dict[str, list[str]]:
        """Those that were measured, by group."""
        known = {phase for group in GROUPS.values() for phase in group}
        groups = {name: [p for p in group if p in self.units] for name, group in GROUPS.items()}
        groups["Other"] = [phase for phase in self.units if phase not in known]
        return {name: group for name, group in groups.items() if group}

    def ratio(self, peer: str, phase: str) -> float | None:
        """Subject / peer in speed."""
        ours, theirs = self.medians.get((self.subject, phase)), self.medians.get((peer, phase))
        if not ours or not theirs:
            return None
        return theirs / ours if self.units[phase] == "s" else ours / theirs

    def goal(self, peer: str, phase: str) -> float | None:
        """The ratio to be reached, if there is one."""
        return next((g.floor for g in GOALS if g.peer == peer and g.of(phase)), None)

    def peers(self) -> list[str]:
        """All but the subject and what stands for itself elsewhere, in order."""
        return [name for name in self.titles if name not in SUBJECTS]

    def views(self) -> list[Figures]:
        """The same figures once for each subject that was measured."""
        return [replace(self, subject=name) for name in SUBJECTS if name in self.titles]


def load(folder: Path, titles: dict[str, str]) -> Figures:
    """From the files `PEER.RUN.json` of a folder."""
    runs: dict[str, list[dict[str, Any]]] = {}
    for name in titles:
        for path in sorted(folder.glob(f"{name}.*.json")):
            runs.setdefault(name, []).append(json.loads(path.read_text()))
    figures = Figures({name: title for name, title in titles.items() if name in runs})
    values: dict[tuple[str, str], list[float]] = {}
    for name, results in runs.items():
        for result in results:
            figures.metas.append(result["meta"])
            for phase, one in result["results"].items():
                figures.units.setdefault(phase, one["unit"])
                values.setdefault((name, phase), []).append(one["value"])
                if one.get("partial"):
                    figures.partial.add((name, phase))
            for phase, text in result["errors"].items():
                figures.errors[name, phase] = text
    figures.medians = {key: statistics.median(some) for key, some in values.items()}
    return figures


def short(value: float) -> str:
    """Three significant digits."""
    for limit, unit in ((1e6, "M"), (1e4, "k")):
        if value >= limit:
            return f"{value * 10 / limit / 10 if unit == 'M' else value / 1e3:.3g}{unit}"
    return f"{value:.0f}" if value >= 1000 else f"{value:.3g}"


def markdown(figures: Figures, head: str) -> str:
    """The whole report."""
    parts = [head, "", *_medians(figures)]
    for view in figures.views():
        parts += ["", f"## {view.titles[view.subject]}", "", *_ratios(view), "", *_summary(view)]
    if figures.errors:
        parts.append("")
    for (peer, phase), text in figures.errors.items():
        parts.append(f"- {figures.titles[peer]}, {phase}: failed: {text}")
    return "\n".join(parts) + "\n"


def _medians(figures: Figures) -> list[str]:
    lines = ["Medians. \\*: stopped at the time limit, the rate is that reached.", ""]
    lines.append("| phase | unit | " + " | ".join(figures.titles.values()) + " |")
    lines.append("|---|---|" + "---:|" * len(figures.titles))
    for group, phases in figures.phases().items():
        lines.append(f"| **{group}** | |" + " |" * len(figures.titles))
        for phase in phases:
            cells = []
            for name in figures.titles:
                value = figures.medians.get((name, phase))
                mark = "\\*" if (name, phase) in figures.partial else ""
                cells.append("-" if value is None else short(value) + mark)
            lines.append(f"| {phase} | {figures.units[phase]} | " + " | ".join(cells) + " |")
    return lines


def _ratios(figures: Figures) -> list[str]:
    peers = figures.peers()
    lines = [
        f"Ratios of the medians, {figures.titles[figures.subject]} / peer in speed (more than 1: it"
        " is ahead). ✓ and ✗: the line is one of a goal below, reached or not.",
        "",
        "| phase | " + " | ".join(figures.titles[p] for p in peers) + " |",
        "|---|" + "---:|" * len(peers),
    ]
    for group, phases in figures.phases().items():
        lines.append(f"| **{group}** |" + " |" * len(peers))
        for phase in phases:
            cells = [_cell(figures, peer, phase) for peer in peers]
            lines.append(f"| {phase} | " + " | ".join(cells) + " |")
    return lines


def _cell(figures: Figures, peer: str, phase: str) -> str:
    ratio, floor = figures.ratio(peer, phase), figures.goal(peer, phase)
    if ratio is None:
        return "-"
    text = f"{ratio:.2f}" if ratio < 100 else f"{ratio:.0f}"
    return text if floor is None else f"{text} {'✓' if ratio >= floor else '✗'}"


def _summary(figures: Figures) -> list[str]:
    lines = ["Goals:", ""]
    for goal in GOALS:
        if goal.peer not in figures.titles:
            lines.append(f"- {goal.words}: not measured")
            continue
        of = {p: figures.ratio(goal.peer, p) for p in figures.units if goal.of(p)}
        known = {phase: ratio for phase, ratio in of.items() if ratio is not None}
        missed = [f"{p} ({r:.2f})" for p, r in known.items() if r < goal.floor]
        # What failed here and not there is not ahead of anything.
        failed = [p for peer, p in figures.errors if peer == figures.subject and goal.of(p)]
        missed += [f"{p} (failed)" for p in failed if p not in known]
        if not known and not missed:
            lines.append(f"- {goal.words}: not measured")
            continue
        total = len(known.keys() | set(failed))
        verdict = "reached" if not missed else "missed on " + ", ".join(missed)
        lines.append(f"- {goal.words}: {total - len(missed)} of {total}; {verdict}")
    return lines
