"""The ratios as a picture: one column a peer, one bar a phase, on a logarithmic scale around 1.

Does: write SVG text, with nothing but the standard library. Does not: know how the figures came
about (`figures.py`).

How to read it: a bar to the right of the line is xnfs ahead, one to the left xnfs behind; the
colour says whether the line has a goal and whether that is reached. Colours are told apart by
readers who see no red and green, and every bar has its figure beside it.
"""

from __future__ import annotations

import math
from html import escape
from typing import NamedTuple

from figures import GOALS, Figures

REACHED, MISSED, PLAIN = "#0072b2", "#d55e00", "#a9b1ba"
INK, FAINT, GRID = "#1f2328", "#57606a", "#d8dee4"
LEFT, COLUMN, GAP, RIGHT = 116, 196, 10, 8
ROW, BAR, HEADING, TOP, BOTTOM = 17, 11, 30, 96, 34
#: Beside the ends of the scale, for the figures.
ROOM = 36
FONT = "font-family=\"system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', sans-serif\""


class Scale(NamedTuple):
    """Where a ratio lies in a column."""

    low: float
    high: float

    def x(self, ratio: float) -> float:
        """Pixels from the left edge of the column."""
        part = math.log(min(max(ratio, self.low), self.high) / self.low)
        return ROOM + (COLUMN - 2 * ROOM) * part / math.log(self.high / self.low)

    def ticks(self) -> list[float]:
        """Powers of ten."""
        first, last = math.ceil(math.log10(self.low)), math.floor(math.log10(self.high))
        return [10.0**k for k in range(first, last + 1)]


def draw(figures: Figures) -> str:
    """The SVG, or "" if there is nothing to compare with."""
    aimed = {goal.peer for goal in GOALS}
    peers = [peer for peer in figures.peers() if peer in aimed]
    ratios = [r for p in peers for phase in figures.units if (r := figures.ratio(p, phase))]
    if not ratios:
        return ""
    scale = Scale(min(0.3, *ratios) / 1.05, max(3.0, *ratios) * 1.05)
    body: list[str] = []
    y = TOP
    for group, phases in figures.phases().items():
        y += HEADING
        body.append(_text(LEFT - 8, y - 9, group, size=13, anchor="end", weight="600"))
        for phase in phases:
            body.append(_text(LEFT - 8, y + ROW - 5, phase, anchor="end"))
            for k, peer in enumerate(peers):
                body.append(_bar(figures, peer, phase, _column(k), y, scale))
            y += ROW
    width = _column(len(peers)) - GAP + RIGHT
    frame = [line for k in range(len(peers)) for line in _axis(_column(k), y, scale)]
    titles = [
        _text(
            _column(k) + scale.x(1),
            TOP - 4,
            f"against {figures.titles[peer]}",
            anchor="middle",
            size=13,
        )
        for k, peer in enumerate(peers)
    ]
    return _page(
        width, y + BOTTOM, [*_legend(figures.titles[figures.subject]), *titles, *frame, *body]
    )


def _column(k: int) -> float:
    return LEFT + k * (COLUMN + GAP)


def _page(width: float, height: float, parts: list[str]) -> str:
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" '
            f'width="{width:g}" height="{height:g}" role="img" aria-labelledby="t d" {FONT}>',
            '<title id="t">Speed of xnfs relative to its peers</title>',
            '<desc id="d">Bars on a logarithmic scale, one column for each peer, one row for each'
            " phase of fsbench. The same figures stand in fsbench.md.</desc>",
            f'<rect width="{width:g}" height="{height:g}" fill="#ffffff"/>',
            *parts,
            "</svg>\n",
        ]
    )


def _text(
    x: float,
    y: float,
    words: str,
    *,
    anchor: str = "start",
    size: int = 11,
    weight: str = "400",
    fill: str = INK,
) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" font-weight="{weight}" '
        f'text-anchor="{anchor}" fill="{fill}">{escape(words)}</text>'
    )


def _legend(subject: str) -> list[str]:
    parts = [
        _text(LEFT, 24, f"Speed of {subject} / speed of the peer", size=16, weight="600"),
        _text(LEFT, 41, "1: the same speed, 10: ten times as fast; logarithmic", fill=FAINT),
    ]
    x = float(LEFT)
    for colour, words in (
        (REACHED, "goal reached"),
        (MISSED, "goal missed"),
        (PLAIN, "no goal on this line"),
    ):
        parts.append(f'<rect x="{x:g}" y="52" width="11" height="11" rx="2" fill="{colour}"/>')
        parts.append(_text(x + 16, 62, words))
        x += 34 + 6.4 * len(words)
    parts.append(f'<path d="M{x:g} 51v13" stroke="{INK}" stroke-width="1.5"/>')
    parts.append(_text(x + 6, 62, "goal, where it is not 1"))
    return parts


def _axis(x: float, bottom: float, scale: Scale) -> list[str]:
    parts = []
    for tick in scale.ticks():
        at = x + scale.x(tick)
        colour, wide = (INK, 1.2) if tick == 1 else (GRID, 1)
        parts.append(
            f'<path d="M{at:.1f} {TOP + 4}V{bottom + 6}" stroke="{colour}" stroke-width="{wide}"/>'
        )
        parts.append(_text(at, bottom + 20, f"{tick:g}", anchor="middle", fill=FAINT))
    return parts


def _bar(figures: Figures, peer: str, phase: str, x: float, y: float, scale: Scale) -> str:
    ratio, goal = figures.ratio(peer, phase), figures.goal(peer, phase)
    if ratio is None:
        return _text(x + scale.x(1) + 4, y + ROW - 5, "-", fill=FAINT)
    colour = PLAIN if goal is None else REACHED if ratio >= goal else MISSED
    one, end = x + scale.x(1), x + scale.x(ratio)
    left, wide = min(one, end), max(abs(end - one), 1.5)
    figure = f"{ratio:.0f}" if ratio >= 10 else f"{ratio:.1f}" if ratio >= 1 else f"{ratio:.2f}"
    words = escape(f"{phase}: {figure} times the speed of {figures.titles[peer]}")
    parts = [
        f'<g><title>{words}</title><rect x="{left:.1f}" y="{y + (ROW - BAR) / 2:g}" '
        f'width="{wide:.1f}" height="{BAR}" fill="{colour}"/>'
    ]
    if goal is not None and goal != 1:
        at = x + scale.x(goal)
        parts.append(f'<path d="M{at:.1f} {y + 1:g}v{ROW - 2}" stroke="{INK}" stroke-width="1.5"/>')
        left = min(left, at)
    beside = (left - 4, "end") if ratio < 1 else (end + 4, "start")
    parts.append(_text(beside[0], y + ROW - 5, figure, anchor=beside[1], size=10))
    return "".join(parts) + "</g>"
