"""fsck.xnfs: what it asks, what it repairs, and its exit status."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.support import BIN, Done, command, good


def _damage(image: Path) -> None:
    """Free-map sectors of zeros: their checksum is wrong, and all that is in use looks free."""
    dump = good("dumpfs.xnfs", image)
    start = next(int(line.split()[2]) for line in dump.splitlines() if line.startswith("free map"))
    with open(image, "r+b") as file:
        file.seek(start * 4096)
        file.write(bytes(512))


def _on_terminal(answer: str, *arguments: str | Path) -> Done:
    main, side = os.openpty()
    try:
        with subprocess.Popen(
            [BIN / "fsck.xnfs", *arguments],
            stdin=side,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as asked:
            os.write(main, f"{answer}\n".encode())
            out, err = asked.communicate(timeout=60)
        return Done(arguments, asked.returncode, out, err)
    finally:
        os.close(main)
        os.close(side)


def test_fsck_clean(image: Path) -> None:
    for options in (["-n"], ["-y"], ["-p"], ["-a"], ["-f", "-n"], ["-f", "-y"], ["-f", "-p"]):
        done = command("fsck.xnfs", *options, image)
        assert (done.returncode, done.stderr) == (0, ""), options
        assert "clean" in done.stdout


def test_fsck_finds_and_leaves(image: Path) -> None:
    _damage(image)
    before = image.read_bytes()
    done = command("fsck.xnfs", "-f", "-n", image)
    assert done.returncode == 4
    assert done.stdout
    assert image.read_bytes() == before


def test_fsck_repairs_then_finds_nothing(image: Path) -> None:
    _damage(image)
    assert command("fsck.xnfs", "-f", "-y", image).returncode == 1
    done = command("fsck.xnfs", "-f", "-n", image)
    assert (done.returncode, done.stderr) == (0, "")
    assert good("xnfs", "cat", image, "hello") == "hello\n"


def test_fsck_preen_leaves_real_damage(image: Path) -> None:
    _damage(image)
    before = image.read_bytes()
    done = command("fsck.xnfs", "-f", "-p", image)
    assert done.returncode == 4
    assert "by hand" in done.stdout
    assert image.read_bytes() == before


def test_fsck_does_not_ask_nobody(image: Path) -> None:
    done = command("fsck.xnfs", "-f", image)
    assert done.returncode == 8
    assert "no terminal" in done.stderr


@pytest.mark.parametrize(("answer", "status"), [("y", 1), ("n", 4)])
def test_fsck_asks_on_a_terminal(image: Path, answer: str, status: int) -> None:
    _damage(image)
    done = _on_terminal(answer, "-f", image)
    assert done.returncode == status, done
    assert command("fsck.xnfs", "-f", "-n", image).returncode == (0 if answer == "y" else 4)
