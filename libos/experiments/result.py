"""What an experiment returns, and how it is shown: a table in text, a plot as SVG."""

from __future__ import annotations

import math
from dataclasses import dataclass
from html import escape
from typing import Final

Cell = int | float | str

_WIDTH: Final = 720
_HEIGHT: Final = 400
_LEFT: Final = 80
_BOTTOM: Final = 60
_COLOURS: Final = ("#1b6ca8", "#c0392b", "#27853b", "#8e44ad", "#b9770e", "#16807a", "#555")


@dataclass(frozen=True, slots=True)
class Result:
    """A table. The first column is what was varied; `plot` names the columns that are drawn, as
    lines if the first column is numbers (`log`: on a logarithmic axis), else as bars.
    """

    question: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    plot: tuple[str, ...]
    log: bool = False

    def column(self, name: str) -> list[Cell]:
        """All values of a column."""
        at = self.columns.index(name)
        return [row[at] for row in self.rows]

    def cell(self, first: Cell, name: str) -> Cell:
        """The value of a column where the first one has that value."""
        return self.column(name)[[row[0] for row in self.rows].index(first)]

    def text(self) -> str:
        """The table."""
        cells = [self.columns, *(tuple(map(_shown, row)) for row in self.rows)]
        widths = [max(len(row[i]) for row in cells) for i in range(len(self.columns))]
        lines = [
            "  ".join(
                cell.ljust(width) if i == 0 else cell.rjust(width)
                for i, (cell, width) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
            for row in cells
        ]
        return "\n".join([self.question, "", *lines, ""])

    def svg(self) -> str:
        """The plot."""
        series = [[float(v) for v in self.column(name)] for name in self.plot]
        top = max((v for values in series for v in values), default=0) or 1
        out = [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH + 200}"'
            f' height="{_HEIGHT + 40}" font-family="sans-serif" font-size="12">',
            f"<title>{escape(self.question)}</title>",
            f'<text x="{_LEFT}" y="16">{escape(self.question)}</text>',
            f'<path d="M{_LEFT} 30V{_HEIGHT - _BOTTOM}H{_WIDTH}" fill="none" stroke="#000"/>',
        ]
        for tick in range(5):
            y = _y(top * tick / 4, top)
            out.append(
                f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">'
                f"{_shown(top * tick / 4)}</text>"
            )
        numbers = all(type(row[0]) is not str for row in self.rows)
        out += self._lines(series, top) if numbers else self._bars(series, top)
        for i, name in enumerate(self.plot):
            y = 40 + 18 * i
            out.append(
                f'<rect x="{_WIDTH + 10}" y="{y}" width="12" height="12" fill="{_colour(i)}"/>'
                f'<text x="{_WIDTH + 28}" y="{y + 11}">{escape(name)}</text>'
            )
        return "\n".join([*out, "</svg>", ""])

    def _lines(self, series: list[list[float]], top: float) -> list[str]:
        along = [float(row[0]) for row in self.rows]
        if self.log:
            along = [math.log2(x) for x in along]
        low, high = min(along), max(along)
        xs = [_LEFT + (x - low) / ((high - low) or 1) * (_WIDTH - _LEFT - 10) for x in along]
        out = [
            f'<polyline fill="none" stroke="{_colour(i)}" stroke-width="2" points="'
            + " ".join(f"{x:.1f},{_y(v, top):.1f}" for x, v in zip(xs, values, strict=True))
            + '"/>'
            for i, values in enumerate(series)
        ]
        for x, row in zip(xs, self.rows, strict=True):
            out.append(_below(x, _shown(row[0])))
        return [*out, _below((_LEFT + _WIDTH) / 2, self.columns[0], 20)]

    def _bars(self, series: list[list[float]], top: float) -> list[str]:
        out: list[str] = []
        room = (_WIDTH - _LEFT) / len(self.rows)
        width = room * 0.8 / len(series)
        for i, row in enumerate(self.rows):
            left = _LEFT + i * room + room * 0.1
            for j, values in enumerate(series):
                y = _y(values[i], top)
                out.append(
                    f'<rect x="{left + j * width:.1f}" y="{y:.1f}" width="{width:.1f}"'
                    f' height="{_HEIGHT - _BOTTOM - y:.1f}" fill="{_colour(j)}"/>'
                )
            out.append(_below(left + room * 0.4, str(row[0])))
        return out


def _colour(i: int) -> str:
    return _COLOURS[i % len(_COLOURS)]


def _y(value: float, top: float) -> float:
    return _HEIGHT - _BOTTOM - value / top * (_HEIGHT - _BOTTOM - 30)


def _below(x: float, text: str, down: int = 0) -> str:
    y = _HEIGHT - _BOTTOM + 16 + down
    return f'<text x="{x:.1f}" y="{y}" text-anchor="middle">{escape(text)}</text>'


def _shown(cell: Cell) -> str:
    if isinstance(cell, float):
        return f"{cell:.3g}" if abs(cell) < 1000 else f"{cell:.0f}"
    return str(cell)
