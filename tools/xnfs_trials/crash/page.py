"""A failure as one HTML page that stands alone: what was done, what the disk was told, what was
lost, what is wrong. No script, nothing fetched; readable in light and dark, and on paper.

Time goes down. Each block has a lane; a write is a mark in it, a flush a line across all.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from typing import Final

from xnfs_trials.crash.timeline import DURABLE, KEPT, LATER, LOST, TORN, Mark, Step, Timeline

_LANE, _ROW = 16, 26
_SAYS: Final = {
    DURABLE: "durable",
    KEPT: "there, though not flushed",
    TORN: "torn",
    LOST: "lost",
    LATER: "never happened",
}

_STYLE: Final = """
:root { color-scheme: light dark; --back: #fbfaf7; --text: #23221f; --faint: #8a867c;
  --line: #dedad0; --card: #ffffff; --durable: #3d7d5a; --kept: #b7862b; --torn: #c2611f;
  --lost: #c0392b; --cut: #c0392b; }
@media (prefers-color-scheme: dark) { :root { --back: #191a1c; --text: #e6e3dc; --faint: #8f8c85;
  --line: #37383b; --card: #222326; --durable: #6cc093; --kept: #dcb25a; --torn: #ee9456;
  --lost: #f0776a; --cut: #f0776a; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--back); color: var(--text);
  font: 15px/1.5 system-ui, sans-serif; }
main { max-width: 60rem; margin: 0 auto; padding: 2.5rem 1.5rem 4rem; }
h1 { font-size: 1.5rem; line-height: 1.25; margin: 0 0 .25rem; }
h2 { font-size: 1rem; margin: 2.25rem 0 .75rem; }
.meta, .note { color: var(--faint); margin: 0; }
code, pre, .block { font: 13px/1.5 ui-monospace, monospace; }
.wrong { background: var(--card); border: 1px solid var(--line);
  border-left: 4px solid var(--lost); border-radius: 4px; padding: .75rem 1rem; margin: 1rem 0 0;
  list-style: none; overflow-wrap: anywhere; }
.wrong li + li { margin-top: .5rem; }
pre { background: var(--card); border: 1px solid var(--line); border-radius: 4px;
  padding: .75rem 1rem; overflow-x: auto; margin: 0; }
.legend { display: flex; flex-wrap: wrap; gap: .25rem 1.25rem; margin: 0 0 1rem; padding: 0;
  list-style: none; color: var(--faint); }
.legend svg { vertical-align: -4px; margin-right: .35rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; }
td { padding: 0; height: 26px; white-space: nowrap; }
td.lanes { width: 1px; padding: 0 1rem 0 0; }
td.lanes svg { display: block; }
tr.step td { font-weight: 600; padding-top: 10px; height: 36px; }
tr.step.later td { color: var(--faint); font-weight: 400; }
tr.step .note { font-weight: 400; margin-left: .5rem; }
td.block { width: 4rem; text-align: right; padding-right: 1rem; color: var(--faint); }
td.what { width: 11rem; padding-right: 1rem; }
tr.later td { color: var(--faint); }
tr.lost td.fate { color: var(--lost); font-weight: 600; }
tr.torn td.fate { color: var(--torn); font-weight: 600; }
tr.kept td.fate { color: var(--kept); }
tr.durable td.fate { color: var(--faint); }
tr.flush td { color: var(--faint); }
tr.step.cut td { color: var(--cut); }
tr.power td { color: var(--cut); font-weight: 700; letter-spacing: .04em; }
tr.power td div { display: flex; align-items: center; gap: .75rem; }
tr.power td div::before, tr.power td div::after { content: ""; height: 2px; background: var(--cut);
  flex: 1; }
tr.power td div::before { flex: 0 0 1.5rem; }
.rail { stroke: var(--line); } .flushline { stroke: var(--faint); stroke-width: 2; }
.durable-mark { fill: var(--durable); } .kept-mark { fill: var(--kept); }
.torn-mark { fill: var(--torn); } .torn-gap { fill: var(--torn); opacity: .22; }
.lost-mark { fill: none; stroke: var(--lost); stroke-width: 2; }
.later-mark { fill: none; stroke: var(--faint); stroke-dasharray: 2 2; }
"""


def page(
    title: str, meta: str, wrong: Sequence[str], stories: Sequence[tuple[str, Timeline]], again: str
) -> str:
    """The page. `stories`: a heading and a timeline each (two when the power went twice); `again`:
    the command that shows it again."""
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head><body><main>",
        f"<h1>{escape(title)}</h1>",
        f'<p class="meta">{escape(meta)}</p>',
        '<ul class="wrong">',
        *(f"<li>{escape(text)}</li>" for text in wrong),
        "</ul>",
    ]
    for heading, story in stories:
        parts += [f"<h2>{escape(heading)}</h2>", *_setting(story), *_legend(story)]
        parts += ['<div class="scroll"><table>', *_rows(story), "</table></div>"]
        if story.omitted:
            parts.append(f'<p class="note">{story.omitted} more events never happened.</p>')
    parts += ["<h2>See it again</h2>", f"<pre>{escape(again)}</pre>", "</main></body></html>"]
    return "\n".join(parts) + "\n"


def _setting(story: Timeline) -> Iterator[str]:
    if story.setting:
        text = "; ".join(story.setting)
        yield f'<p class="note">Before, and durable: {escape(text)}.</p><br>'


def _legend(story: Timeline) -> Iterator[str]:
    used = {mark.fate for step in story.steps for mark in step.marks}
    yield '<ul class="legend">'
    for fate, text in _SAYS.items():
        if fate in used:
            shape = _shape(Mark(0, 0, "", fate, 0b0111), 8, 9)
            yield f'<li><svg width="16" height="18">{shape}</svg>{text}</li>'
    yield "<li>one lane a block, time goes down, a line is a flush</li></ul>"


def _rows(story: Timeline) -> Iterator[str]:
    lanes = {block: i for i, block in enumerate(story.lanes)}
    cut = False
    for step in story.steps:
        if step.state == "later" and not cut:
            cut = True
            yield _CUT
        yield _step(step, lanes)
        for mark in step.marks:
            if mark.number >= story.event and not cut:
                cut = True
                yield _CUT
            yield _row(mark, lanes)
    if not cut:
        yield _CUT


_CUT: Final = '<tr class="power"><td colspan="4"><div>the power goes</div></td></tr>'


def _step(step: Step, lanes: dict[int, int]) -> str:
    notes = {"done": "returned", "cut": "under way when the power went", "later": "never happened"}
    return (
        f'<tr class="step {step.state}"><td class="lanes">{_lanes(lanes, 36, "")}</td>'
        f'<td colspan="3">{escape(step.text)}'
        f'<span class="note">{notes[step.state]}</span></td></tr>'
    )


def _row(mark: Mark, lanes: dict[int, int]) -> str:
    if mark.block is None:
        width = _LANE * len(lanes)
        line = f'<line class="flushline" x1="0" x2="{width}" y1="{_ROW / 2}" y2="{_ROW / 2}"/>'
        kind = "flush later" if mark.fate == LATER else "flush"
        says = _SAYS[LATER] if mark.fate == LATER else ""
        return (
            f'<tr class="{kind}"><td class="lanes">{_lanes(lanes, _ROW, line)}</td>'
            f'<td class="block"></td><td class="what">flush</td><td class="fate">{says}</td></tr>'
        )
    shape = _shape(mark, _LANE * lanes[mark.block] + _LANE / 2, _ROW / 2)
    says = _SAYS[mark.fate]
    if mark.fate == TORN:
        says += f": {mark.sectors.bit_count()} of 8 sectors are new"
    return (
        f'<tr class="{mark.fate}"><td class="lanes">{_lanes(lanes, _ROW, shape)}</td>'
        f'<td class="block">{mark.block}</td><td class="what">{escape(mark.what)}</td>'
        f'<td class="fate">{says}</td></tr>'
    )


def _lanes(lanes: dict[int, int], height: int, inside: str) -> str:
    width = _LANE * len(lanes)
    rails = "".join(
        f'<line class="rail" x1="{_LANE * i + _LANE / 2}" x2="{_LANE * i + _LANE / 2}" y1="0"'
        f' y2="{height}"/>'
        for i in lanes.values()
    )
    return f'<svg width="{width}" height="{height}" aria-hidden="true">{rails}{inside}</svg>'


def _shape(mark: Mark, x: float, y: float) -> str:
    """A write, centred at (x, y): full, torn in eight sectors, or hollow."""
    if mark.fate == TORN:
        kinds = ("torn-mark" if mark.sectors >> i & 1 else "torn-gap" for i in range(8))
        return "".join(
            f'<rect class="{kind}" x="{x - 6}" y="{y - 8 + 2 * i}" width="12" height="2"/>'
            for i, kind in enumerate(kinds)
        )
    box = f'<rect class="{mark.fate}-mark" x="{x - 5}" y="{y - 5}" width="10" height="10" rx="2"/>'
    if mark.fate == LOST:
        box += (
            f'<path class="lost-mark" d="M{x - 3} {y - 3}L{x + 3} {y + 3}M{x + 3} {y - 3}'
            f'L{x - 3} {y + 3}"/>'
        )
    return box
