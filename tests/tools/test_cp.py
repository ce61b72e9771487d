"""xnfs cp on an image that is not mounted."""

from __future__ import annotations

from pathlib import Path

import pytest
from xnfs_tools import cp

from tests.support import command, good


def copy(image: Path, source: str, target: str, *options: str) -> int:
    """The command, without the time that it takes to start."""
    return cp.main([*options, f"{image}:{source}", f"{image}:{target}"])


def test_cp_of_files_and_directories(image: Path) -> None:
    done = command("xnfs", "cp", "-a", f"{image}:/d", f"{image}:/e")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert copy(image, "hello", "e") == 0
    assert copy(image, "link", "other") == 0
    assert copy(image, "/d/", "e/", "-r") == 0
    lines = good("xnfs", "ls", image, "/e").splitlines()
    assert [line.split()[8] for line in lines] == ["big", "d", "hello"]
    assert good("xnfs", "cat", image, "e/hello") == "hello\n"
    assert good("xnfs", "ls", image, "other").endswith("-> hello\n")
    assert good("fsck.xnfs", "-f", "-n", image)


def test_cp_in_a_root_that_is_not_main(image: Path) -> None:
    good("mkfs.xnfs", "--add", "home", image)
    assert copy(image, "hello", "e", "-R", "main") == 0
    assert copy(image, "hello", "e", "-R", "home") == 1
    assert "e" not in good("xnfs", "ls", f"{image}:home", "/")
    source = image.with_name("text")
    source.write_text("text")
    good("xnfs", "put", f"{image}:home", source, "/f")
    assert copy(image, "f", "g", "-R", "home") == 0
    assert good("xnfs", "cat", f"{image}:home", "/g") == "text"


def test_cp_that_can_not_be(
    image: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other:1"
    other.write_bytes(b"not an image")
    for words, status, text in (
        ([f"{image}:d", f"{image}:e"], 1, "d to e: Is a directory"),
        ([f"{image}:none", f"{image}:e"], 1, "none to e: No such file or directory"),
        (
            [f"{image}:hello", f"{image}:no/where"],
            1,
            "hello to no/where: No such file or directory",
        ),
        ([f"{image}:hello", f"{image}:hello"], 1, "hello to hello: File exists"),
        (["-r", f"{image}:/", f"{image}:d"], 1, "/ to d: Invalid argument"),
        ([f"{image}:hello", f"{other}:hello"], 1, "source and target must be in one image"),
        ([f"{other}:hello", f"{other}:x"], 1, f"{other}: not an xnfs image"),
        ([f"{image}", f"{image}:e"], 2, "is not IMAGE:PATH"),
        (["missing:a", "missing:b"], 2, "is not IMAGE:PATH"),
        ([f"{image}:hello"], 2, "arguments are required"),
    ):
        assert cp.main(words) == status, words
        said = capsys.readouterr().err
        assert said.startswith("xnfs cp: ")
        assert text.split(": not an")[0] in said
        assert status == 2 or len(said.splitlines()) == 1
