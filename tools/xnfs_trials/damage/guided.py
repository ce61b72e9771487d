"""Damage that coverage leads to: combinations of mutations that reach lines none reached before.

The corpus begins with what the single mutations of a sample reach. Then one of its members is
taken, a mutation is added, replaced or dropped, and the image is judged under watch; if it reaches
new lines it joins the corpus. Deterministic: the same seed gives the same images.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from xnfs_trials.damage.coverage import Lines
from xnfs_trials.damage.damage import Mutation
from xnfs_trials.damage.fields import Field, fields
from xnfs_trials.damage.judge import Verdict
from xnfs_trials.damage.subject import Subject
from xnfs_trials.damage.verbs import VERBS

MOST: Final = 5  # mutations of one image
#: Part of the images for the single mutations that the corpus begins with.
FIRST: Final = 0.3

Mutations = tuple[Mutation, ...]
Judge = Callable[[Subject, Mutations, int], Verdict | None]


@dataclass
class Found:
    """What following coverage has seen."""

    before: int = 0  # lines reached by single mutations
    after: int = 0
    kept: int = 0
    judged: list[tuple[Mutations, Verdict]] = field(default_factory=list)


def explore(
    subject: Subject, seed: int, images: int, judge: Judge, *, until: float = math.inf
) -> Found:
    """Follow coverage for so many images, or until the time is up."""
    rng = random.Random(f"guided {seed} {subject.name}")
    by_structure: dict[str, list[Field]] = {}
    for found in fields(subject):
        by_structure.setdefault(found.structure, []).append(found)
    structures = list(by_structure)

    def draw() -> Mutation:
        chosen = rng.choice(by_structure[rng.choice(structures)])
        return Mutation(chosen, rng.choice(list(VERBS)), rng.random() < 0.75)

    lines, out = Lines(), Found()
    corpus: list[Mutations] = [()]
    while (done := len(out.judged)) < images and time.monotonic() < until:
        base: Mutations = () if done < FIRST * images else rng.choice(corpus)
        mutations = _vary(rng, base, draw)
        known = len(lines.seen)
        with lines.watch():
            verdict = judge(subject, mutations, seed)
        if verdict is None:
            continue
        out.judged.append((mutations, verdict))
        if len(lines.seen) > known:
            corpus.append(mutations)
            out.kept += bool(base)
        if not base:
            out.before = len(lines.seen)
    out.after = len(lines.seen)
    return out


def _vary(rng: random.Random, base: Mutations, draw: Callable[[], Mutation]) -> Mutations:
    """Add one, replace one, or drop one."""
    if base and (len(base) == MOST or rng.random() < 0.3):
        at = rng.randrange(len(base))
        rest = (*base[:at], *base[at + 1 :])
        return rest if len(rest) > 1 and rng.random() < 0.3 else (*rest, draw())
    return (*base, draw())
