"""A timeline of who had which processor when, as a drawing (SVG), from the machine's trace.

    machine = Machine(trace=100_000)
    ...
    Path("run.svg").write_text(timeline(machine.trace.records, machine.costs.hz))

One lane for each processor, one colour for each environment; upcalls are ticks above the lane,
exceptions below, ends are crosses.
"""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from typing import Final

from xnfs import TraceRecord

_LANE: Final = 60
_TOP: Final = 40
_LEFT: Final = 60
_WIDTH: Final = 1000
#: Hues are spread by the golden angle, so neighbours differ.
_ANGLE: Final = 137.508


def timeline(records: Iterable[TraceRecord], hz: int, title: str = "") -> str:
    """The drawing. No records: an empty one."""
    all = list(records)
    start = min((r.detail if r.what == "run" else r.time for r in all), default=0)
    end = max((r.time for r in all), default=start + 1)
    scale = _WIDTH / max(1, end - start)
    lanes = 1 + max((r.processor for r in all), default=0)
    ids = sorted({r.environment for r in all})
    height = _TOP + lanes * _LANE + 30 + 18 * len(ids)
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_LEFT + _WIDTH + 20}" height="{height}"'
        ' font-family="sans-serif" font-size="12">',
        f"<title>{escape(title)}</title>",
        f'<text x="{_LEFT}" y="16">{escape(title)} ({(end - start) / hz * 1000:.3f} ms)</text>',
    ]
    for lane in range(lanes):
        y = _TOP + lane * _LANE
        out.append(f'<text x="4" y="{y + 20}">CPU {lane}</text>')
        out.append(f'<path d="M{_LEFT} {y + 30.5}h{_WIDTH}" stroke="#888"/>')
    for r in all:
        y = _TOP + r.processor * _LANE
        x = _LEFT + (r.time - start) * scale
        if r.what == "run":
            began = _LEFT + (r.detail - start) * scale
            out.append(
                f'<rect x="{began:.2f}" y="{y}" width="{max(0.2, x - began):.2f}" height="30"'
                f' fill="{_colour(ids, r.environment)}"><title>{r.environment}: {r.detail} to'
                f" {r.time}</title></rect>"
            )
        elif r.what in ("upcall", "fault"):
            at = y - 6 if r.what == "upcall" else y + 32
            out.append(
                f'<path d="M{x:.2f} {at}v5" stroke="#000"><title>{r.what} {r.environment}:'
                f" {escape(str(r.detail))}</title></path>"
            )
        elif r.what == "end":
            out.append(f'<path d="M{x - 4:.2f} {y + 36}l8 8m0 -8l-8 8" stroke="#c00"/>')
    for i, id in enumerate(ids):
        y = _TOP + lanes * _LANE + 18 * i
        out.append(f'<rect x="{_LEFT}" y="{y}" width="12" height="12" fill="{_colour(ids, id)}"/>')
        out.append(f'<text x="{_LEFT + 18}" y="{y + 11}">environment {id}</text>')
    return "\n".join([*out, "</svg>", ""])


def _colour(ids: list[int], id: int) -> str:
    return f"hsl({ids.index(id) * _ANGLE % 360:.0f},60%,60%)"
