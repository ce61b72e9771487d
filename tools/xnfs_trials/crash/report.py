"""A failure for people: a story in text, a page, the image, and a script that shows it again.

The workload is run once more, which gives the same writes, to say which operation made which.
"""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from xnfs_trials.crash.base import Shape
from xnfs_trials.crash.campaign import Job
from xnfs_trials.crash.explore import Failure
from xnfs_trials.crash.ops import parse_name
from xnfs_trials.crash.page import page
from xnfs_trials.crash.shrink import Setting, failures, shrink
from xnfs_trials.crash.timeline import Timeline, lines, plain, short, timeline
from xnfs_trials.crash.trial import PosixTrial

_BLOCK = 4096


@dataclass
class Report:
    """One failure, ready to be told."""

    job: Job
    failure: Failure
    stories: list[tuple[str, Timeline]]

    @property
    def title(self) -> str:
        """One line."""
        return f"{self.job.fs} does not survive this power cut"

    @property
    def meta(self) -> str:
        """Where it was found."""
        f = self.failure
        how = self.stories[-1][1].summary if self.stories else f.label
        what = short(f.workload)
        return f"Workload: {what}. Seed {f.seed}. The power went after event {f.event}; {how}."

    @property
    def again(self) -> str:
        """The command."""
        words = ["xnfs", "crash", "--fs", self.job.fs, "--workload", self.failure.workload]
        words += ["--seed", str(self.failure.seed)]
        words += [] if self.job.states is None else ["--states", str(self.job.states)]
        return shlex.join([*words, *(["--full"] if self.job.full else [])])


def report(job: Job, failure: Failure) -> Report:
    """Tell a failure."""
    stories = []
    first = failure.before or failure
    if first.events:
        trial = PosixTrial(job.fs, parse_name(first.workload), seed=first.seed)
        words = [
            plain(op) + log.removeprefix(f"{log.split()[0]} {op}")
            for op, log in zip(trial.ops, trial.describe(), strict=True)
        ]
        setting = [plain(op) for op in trial.setting]
        stories.append(("What the disk was told", timeline(first, trial.marks, words, setting)))
        wrong = [w for w in dict.fromkeys(failure.wrong) if _news(w, failure.wrong)]
        failure = replace(failure, wrong=[_with_names(text, trial) for text in wrong])
    if failure.before is not None:
        again = timeline(failure, [0], ["recovery"])
        stories.append(("Then, while that was being recovered", again))
    return Report(job, failure, stories)


def _news(text: str, wrong: Sequence[str]) -> bool:
    """Of what is wrong with one cut, nobody wants to hear again that it is with two."""
    return text == (once := text.removeprefix("if recovery is cut: ")) or once not in wrong


def _with_names(text: str, trial: PosixTrial) -> str:
    """An inode of the workload is also called by the name that it had last."""

    def named(match: re.Match[str]) -> str:
        for node in reversed(trial.model.by_ino.get(int(match[1]), [])):
            names = next((r.names for r in reversed(node.records.value) if r.names), ())
            if node.number == 1:
                return f"{match[0]} (the root)"
            for _directory, name in sorted(names):
                return f"{match[0]} ({name.decode(errors='replace')})"
        return match[0]

    return re.sub(r"\binode (\d+)\b(?! \()", named, text)


def text(told: Report) -> Iterator[str]:
    """The report as lines of text."""
    yield told.title
    yield ""
    yield from (f"  wrong: {wrong}" for wrong in told.failure.wrong)
    for heading, story in told.stories:
        yield ""
        yield f"{heading} ({story.summary}):"
        yield ""
        yield from (f"  {line}".rstrip() for line in lines(story))
    yield ""
    yield "To see it again:"
    yield f"  {told.again}"


def save(told: Report, directory: Path) -> list[Path]:
    """Write all of it into a directory; the files."""
    directory.mkdir(parents=True, exist_ok=True)
    files = [directory / name for name in ("story.txt", "story.html", "again.py")]
    files[0].write_text("\n".join(text(told)) + "\n")
    files[1].write_text(page(told.title, told.meta, told.failure.wrong, told.stories, told.again))
    job = replace(told.job, seed=told.failure.seed)
    script = _SCRIPT.format(python=sys.executable, job=job, workload=told.failure.workload)
    files[2].write_text(script)
    files[2].chmod(0o755)
    if told.failure.image:
        files.append(directory / "image.xnfs")
        _write_image(files[-1], told.failure.image)
    return files


_SCRIPT = '''\
#!{python}
"""Cut the power of {job.fs} where it hurt, and say what is wrong."""

from xnfs_trials.crash.campaign import Job
from xnfs_trials.crash.report import show

raise SystemExit(show({job!r}, {workload!r}))
'''


def show(job: Job, workload: str) -> int:
    """Run one workload, and tell its simplest failure; 1 if there is one."""
    sys.path.insert(0, job.path)
    setting = Setting(job.fs, job.seed, job.plan())
    found = failures(setting, parse_name(workload))
    if not found:
        print(f"{job.fs}: nothing is wrong with {workload!r}")
        return 0
    print("\n".join(text(report(job, shrink(found[0], setting)))))
    return 1


def _write_image(path: Path, image: dict[int, bytes]) -> None:
    with path.open("wb") as file:
        file.truncate(Shape().blocks * _BLOCK)
        for block, data in image.items():
            file.seek(block * _BLOCK)
            file.write(data)
