"""xnfs crash: what it prints, what it leaves behind, its exit statuses, and where it runs."""

from __future__ import annotations

import html.parser
import itertools
import os
import pty
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from xnfs_tools import crash

from xnfs import FileDevice
from xnfs.disk.fsck import check_image

ROOT = Path(__file__).parents[2]
FINE, LOSES = "examples.notefs:NoteFs", "examples.notefs_buggy:Hasty"
WORKLOAD = "create foo; write foo 0 4096; fsync foo"
LOSING = "create bar; mkdir A; overwrite foo 0 4096; fdatasync foo"


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In an empty directory; processes that are started find the examples."""
    monkeypatch.chdir(tmp_path)
    path = os.pathsep.join([str(ROOT), str(ROOT / "tools"), os.environ.get("PYTHONPATH", "")])
    monkeypatch.setenv("PYTHONPATH", path)


def test_crash_nothing_found(capsys: pytest.CaptureFixture[str]) -> None:
    assert crash.main(["--fs", FINE, "--workload", WORKLOAD, "--jobs", "1"]) == 0
    said = capsys.readouterr()
    assert said.out.split("\n")[0].split() == (
        "workload run generated pruned checked mounted failures time".split()
    )
    assert said.out.endswith("Nothing was found.\n")
    assert said.err == ""
    assert not Path("xnfs-crash").exists()


def test_crash_a_failure_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert crash.main(["--fs", LOSES, "--workload", LOSING, "--jobs", "1", "--out", "there"]) == 1
    said = capsys.readouterr().out
    assert "wrong: O3" in said
    # It was made smaller, and simple: a write that no flush had followed is lost.
    assert "--workload 'overwrite foo 0 4096; fdatasync foo'" in said
    lines = [line.strip() for line in said.splitlines()]
    lost = next(line for line in lines if line.endswith("LOST"))
    assert lost.startswith("write block")
    assert " data " in lost
    assert lines.index("fdatasync foo") < lines.index(lost)
    assert " power cut " in lines[lines.index(lost) + 1]

    where = Path("there/failure-1")
    assert {path.name for path in where.iterdir()} == {
        "story.txt",
        "story.html",
        "again.py",
        "image.xnfs",
    }
    assert "LOST" in (where / "story.txt").read_text()
    device = FileDevice(str(where / "image.xnfs"), readonly=True)
    assert check_image(device, repair=False, report=print).clean  # XN's part is whole
    device.close()


def test_crash_the_script_shows_it_again() -> None:
    assert crash.main(["--fs", LOSES, "--workload", LOSING, "--jobs", "1"]) == 1
    script = [sys.executable, "xnfs-crash/failure-1/again.py"]
    again = subprocess.run(script, capture_output=True, text=True, check=False)
    assert again.returncode == 1, again.stderr
    assert again.stdout == Path("xnfs-crash/failure-1/story.txt").read_text()


class _Page(html.parser.HTMLParser):
    """Checks that elements are closed, and collects what a page would load."""

    EMPTY = frozenset(("meta", "br"))

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.loads: list[str] = []
        self.classes: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in self.EMPTY:
            self.open.append(tag)
        self.loads += [str(value) for name, value in attrs if name in ("src", "href")]
        self.classes += [str(value) for name, value in attrs if name == "class"]

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.open.remove(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_crash_the_page_stands_alone() -> None:
    assert crash.main(["--fs", LOSES, "--workload", LOSING, "--jobs", "1"]) == 1
    text = Path("xnfs-crash/failure-1/story.html").read_text()
    page = _Page()
    page.feed(text)
    assert not page.open
    assert not page.loads
    assert not any(word in text for word in ("<script", "url(", "@import"))
    assert "prefers-color-scheme: dark" in text
    assert {"lost", "durable", "flush", "power"} <= set(page.classes)
    assert "fdatasync foo" in text


def test_crash_processes_find_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    assert crash.main(["--fs", LOSES, "--workload", LOSING, "--jobs", "1"]) == 1
    one = Path("xnfs-crash/failure-1/story.txt").read_text()
    assert crash.main(["--fs", LOSES, "--workload", LOSING, "--jobs", "2", "--out", "two"]) == 1
    assert Path("two/failure-1/story.txt").read_text() == one
    assert "each of 2 workers" in capsys.readouterr().out


def test_crash_goes_on_where_it_was(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # A second passes whenever the campaign looks: what a budget holds is no matter of the machine.
    clock = SimpleNamespace(monotonic=itertools.count().__next__, perf_counter=time.perf_counter)
    monkeypatch.setattr("xnfs_trials.crash.campaign.time", clock)
    command = ["--fs", FINE, "--workload", "one", "--states", "10", "--jobs", "1"]
    command += ["--resume", "results"]
    runs = []
    for budget in ("2s", "2s", "0s"):
        assert crash.main([*command, "--budget", budget]) == 0
        row = capsys.readouterr().out.split("\n")[1].split()
        assert row[0] == "one"
        runs.append(int(row[1].split("/")[0].replace(",", "")))
    assert 0 < runs[0] < runs[1] == runs[2]
    assert crash.main([*command, "--seed", "1"]) == 2
    assert "results: the results are of another campaign" in capsys.readouterr().err


def test_crash_what_was_found_before_counts(capsys: pytest.CaptureFixture[str]) -> None:
    command = ["--fs", LOSES, "--workload", LOSING, "--jobs", "1", "--resume", "results"]
    assert crash.main(command) == 1
    capsys.readouterr()
    assert crash.main(command) == 1
    assert "Found and told before: 1 failures." in capsys.readouterr().out


def test_crash_on_a_dask_cluster(capsys: pytest.CaptureFixture[str]) -> None:
    command = ["--fs", LOSES, "--workload", LOSING]
    assert crash.main([*command, "--jobs", "2", "--dask", "local", "--out", "dask"]) == 1
    assert "each of 2 workers" in capsys.readouterr().out
    assert crash.main([*command, "--jobs", "1"]) == 1
    told = [Path(name, "failure-1", "story.txt").read_text() for name in ("dask", "xnfs-crash")]
    assert told[0] == told[1]


def test_crash_progress_is_for_terminals() -> None:
    program = "from xnfs_tools.crash import main; raise SystemExit(main())"
    command = [sys.executable, "-c", program, "--fs", FINE, "--workload", WORKLOAD, "--jobs", "1"]
    here, there = pty.openpty()
    subprocess.run(command, stdout=subprocess.DEVNULL, stderr=there, check=True)
    os.close(there)
    said = b""
    while piece := _read(here):
        said += piece
    os.close(here)
    assert b"states (" in said
    assert said.endswith(b"\r\x1b[K")


def _read(fd: int) -> bytes:
    try:
        return os.read(fd, 4096)
    except OSError:  # Linux says so when nobody has the other end
        return b""


BAD = [
    (["--fs", "no.such:Thing"], "no.such:Thing"),
    (["--fs", "examples.notefs:Thing"], "Thing"),
    (["--fs", "broken:Fs"], "broken:Fs"),
    (["--fs", "broken2:Fs"], "mkfs"),
    (["--fs", "broken3:Fs"], "ZeroDivisionError"),
    (["--fs", "xnfs:BLOCK"], "mkfs"),
    (["--workload", "jump foo"], "jump"),
    (["--workload", ""], "workload"),
    (["--budget", "soon"], "soon"),
    (["--jobs", "0"], "--jobs"),
    (["--seed", "-1"], "--seed"),
    (["--states", "many"], "--states"),
    (["--failures", "0"], "--failures"),
    (["--resume", "/no/such/directory/file"], "unable to open"),
    (["--resume", "broken.py"], "not a database"),
    (["--dask", "nonsense://x"], "Dask"),
    (["extra"], "extra"),
]


@pytest.mark.parametrize(("options", "word"), BAD, ids=[" ".join(o) for o, _ in BAD])
def test_crash_errors_are_one_line(
    options: list[str], word: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("broken.py").write_text("class Fs:\n")
    Path("broken2.py").write_text("class Fs:\n    pass\n")
    Path("broken3.py").write_text(
        "class Fs:\n"
        "    mkfs = staticmethod(lambda xn, cap, name: 1 // 0)\n"
        "    mount = staticmethod(lambda xn, cap, name, readonly: None)\n"
    )
    assert crash.main(["--workload", WORKLOAD, "--jobs", "1", *options]) == 2
    said = capsys.readouterr()
    lines = said.err.splitlines()
    assert lines[0].startswith("xnfs crash: ")
    assert word in lines[0]
    assert lines[1:] in ([], ["Try 'xnfs crash --help'."])
    assert said.out == ""


def test_crash_out_that_cant_be_written(capsys: pytest.CaptureFixture[str]) -> None:
    Path("file").touch()
    command = ["--fs", LOSES, "--workload", LOSING, "--jobs", "1", "--out", "file"]
    assert crash.main(command) == 2
    assert capsys.readouterr().err.startswith("xnfs crash: file")
