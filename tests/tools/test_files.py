"""xnfs ls, cat, get, put, doctor; debugfs and dumpfs: an image without a mount."""

from __future__ import annotations

import os
import stat
import subprocess
from pathlib import Path

from tests.support import BIN, command, good


def test_ls(image: Path) -> None:
    lines = good("xnfs", "ls", image).splitlines()
    assert [line.split()[8] for line in lines] == ["d", "hard", "hello", "link"]
    assert lines[3].endswith("link -> hello")
    assert lines[1].split()[0] == lines[2].split()[0]
    assert good("xnfs", "ls", image, "/d").split()[-1] == "big"
    assert good("xnfs", "ls", image, "d/big").split()[-1] == "d/big"


def test_ls_shows_odd_names_safely(image: Path, tmp_path: Path) -> None:
    odd = os.fsencode(tmp_path) + b"/a\x1b[31m\xff\n"
    with open(odd, "w"):
        pass
    good("xnfs", "put", image, os.fsdecode(odd), "/")
    assert "a\\x1b[31m\\xff\\x0a" in good("xnfs", "ls", image)


def test_cat(image: Path) -> None:
    assert good("xnfs", "cat", image, "hello") == "hello\n"
    out = subprocess.run([BIN / "xnfs", "cat", image, "/d/big"], capture_output=True, check=True)
    assert out.stdout == bytes(range(256)) * 4096


def test_cat_into_a_closed_pipe(image: Path) -> None:
    done = subprocess.run(
        ["bash", "-c", f"{BIN}/xnfs cat {image} d/big | head -c 1"], capture_output=True, check=True
    )
    assert done.stderr == b""


def test_cat_what_is_no_file(image: Path) -> None:
    for path, words in (
        ("missing", "No such file or directory"),
        ("d", "not a regular file"),
        ("hello/x", "Not a directory"),
        ("n" * 256, "File name too long"),
    ):
        done = command("xnfs", "cat", image, path)
        assert done.returncode == 1
        assert words in done.stderr
        assert len(done.stderr.splitlines()) == 1


def test_put_and_get(image: Path, tmp_path: Path) -> None:
    source, back = tmp_path / "source", tmp_path / "back"
    source.write_bytes(os.urandom(3_000_000))
    source.chmod(0o750)
    os.utime(source, ns=(1_500_000_000, 2_500_000_001))
    for path in ("/new", "hello", "d", "d/"):
        good("xnfs", "put", image, source, path)
    for path in ("new", "hello", "d/source"):
        good("xnfs", "get", image, path, back)
        assert back.read_bytes() == source.read_bytes()
        assert stat.S_IMODE(back.stat().st_mode) == 0o750
        assert back.stat().st_mtime_ns == 2_500_000_001
        back.unlink()
    assert good("xnfs", "cat", image, "hard") == "hello\n"  # the other name of the old one
    good("xnfs", "get", image, "new", tmp_path)
    assert (tmp_path / "new").exists()
    assert command("fsck.xnfs", "-f", "-n", image).returncode == 0


def test_put_what_does_not_fit(image: Path, tmp_path: Path) -> None:
    (tmp_path / "big").write_bytes(os.urandom(20 << 20))
    done = command("xnfs", "put", image, tmp_path / "big", "/hello")
    assert done.returncode == 1
    assert "No space left on device" in done.stderr
    assert good("xnfs", "cat", image, "hello") == "hello\n"
    assert [line.split()[8] for line in good("xnfs", "ls", image).splitlines()] == [
        *("d", "hard", "hello", "link")
    ]
    assert command("fsck.xnfs", "-f", "-n", image).returncode == 0


def test_get_leaves_the_host_alone_when_it_fails(image: Path, tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("mine")
    assert command("xnfs", "get", image, "missing", tmp_path / "precious").returncode == 1
    assert (tmp_path / "precious").read_text() == "mine"


def test_reading_does_not_change_the_image(image: Path) -> None:
    before = image.read_bytes()
    good("xnfs", "ls", image)
    good("xnfs", "cat", image, "hello")
    good("dumpfs.xnfs", image)
    for text in ("ls /d", "stat hello", "cat hello", "blocks d/big", "types", "roots", "logdump"):
        assert good("debugfs.xnfs", "-R", text, image), text
    assert image.read_bytes() == before


def test_dumpfs(image: Path) -> None:
    out = good("dumpfs.xnfs", image)
    for words in ("pristine", "clean", "4096 blocks of 4096", "ffs.inode", "main", "free map"):
        assert words in out


def test_debugfs_blocks_and_owner_agree(image: Path) -> None:
    lines = good("debugfs.xnfs", "-R", "blocks /d/big", image).splitlines()
    inode = lines[0].split()[0]
    data = [line.split()[0] for line in lines[1:] if line.endswith("ffs.data")]
    assert data
    chain = [
        line.split()[0]
        for line in good("debugfs.xnfs", "-R", f"owner {data[0]}", image).splitlines()
    ]
    assert inode in chain
    assert chain[-1] == data[0]
    assert "superblock" in good("debugfs.xnfs", "-R", "owner 0", image)
    assert "nobody" in good("debugfs.xnfs", "-R", "owner 4000", image)
    assert "outside" in good("debugfs.xnfs", "-R", "owner 99999999", image)


def test_debugfs_reads_commands(image: Path) -> None:
    done = command("debugfs.xnfs", image, stdin="roots\nnonsense\ncat hello\nquit\ntypes\n")
    assert done.returncode == 0
    assert done.stdout.endswith("hello\n")
    assert "unknown command 'nonsense'" in done.stderr


def test_doctor() -> None:
    done = command("xnfs", "doctor")
    assert done.returncode == 0, done
    assert done.stdout.splitlines()[-1] == "This machine can mount."


def test_doctor_without_libfuse() -> None:
    """fusepy raises OSError at import when the library is missing."""
    done = subprocess.run(
        [BIN / "xnfs", "doctor"],
        env={"PATH": "/nonexistent", "FUSE_LIBRARY_PATH": "/nonexistent/libfuse.so.2"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "libfuse 2 is missing" in done.stdout
    assert "Traceback" not in done.stderr


def test_mount_without_libfuse(image: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [BIN / "mount.xnfs", "-o", "transport=fusepy", image, tmp_path],
        env={"FUSE_LIBRARY_PATH": "/nonexistent/libfuse.so.2"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "libfuse 2 is missing" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_subcommands_are_the_commands(image: Path, tmp_path: Path) -> None:
    assert good("xnfs", "dumpfs", image) == good("dumpfs.xnfs", image)
    assert command("xnfs", "fsck", "-z").returncode == 16
    good("xnfs", "mkfs", tmp_path / "new", "16m")
    assert command("xnfs", "umount", tmp_path).returncode == 32
