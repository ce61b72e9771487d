"""`xnfs serve`: the files of an image, fetched by curl over a TAP device and over sockets."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
from xnfs_tools import cli

#: In a namespace of its own: the server, the host's end of its device, then the client.
SCRIPT = """
"$1" -c 'import sys; from xnfs_tools import cli; sys.exit(cli.main(sys.argv[1:]))' \\
    serve "$2" $3 & server=$!
trap 'kill $server 2>/dev/null; wait $server' EXIT
ip link set lo up
case $3 in
--tap*)
    until ip link show tap0 >/dev/null 2>&1; do kill -0 $server; sleep 0.02; done
    ip link set tap0 up
    ip address add 10.9.0.1/24 dev tap0
    ;;
*) until curl -sS http://127.0.0.1:8080/ >/dev/null 2>&1; do kill -0 $server; sleep 0.02; done ;;
esac
eval "$4"
"""


def image(work: Path, kind: str) -> tuple[Path, bytes]:
    """An image with a page, a large file, a secret, a directory and a symbolic link."""
    tree = work / "tree"
    (tree / "sub").mkdir(parents=True)
    (tree / "index.html").write_text("<p>from the image</p>\n")
    large = hashlib.shake_128(b"large").digest(700_000)
    (tree / "large.bin").write_bytes(large)
    (tree / "secret").write_text("for the owner only\n")
    (tree / "secret").chmod(0o600)
    (tree / "sub" / "a.txt").write_text("a\n")
    os.symlink("secret", tree / "link")
    for path in (tree, tree / "sub"):
        path.chmod(0o755)
    for path in (tree / "index.html", tree / "large.bin", tree / "sub" / "a.txt"):
        path.chmod(0o644)
    made = work / "disk.xnfs"
    assert cli.main(["mkfs", "-t", kind, "-d", str(tree), str(made), "16m"]) == 0
    return made, large


def in_namespace(made: Path, options: str, script: str) -> subprocess.CompletedProcess[str]:
    words = ["unshare", "-rn", "bash", "-euc", SCRIPT, "serve", sys.executable]
    words += [str(made), options, script]
    path = os.pathsep.join(filter(None, sys.path))
    return subprocess.run(
        words,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={**os.environ, "PYTHONPATH": path},
    )


@pytest.mark.parametrize(
    ("kind", "options", "url"),
    [
        ("ffs", "--tap tap0 --port 8000", "http://10.9.0.2:8000"),
        ("lfs", "--tap tap0", "http://10.9.0.2"),
        ("ffs", "", "http://127.0.0.1:8080"),
    ],
    ids=["ffs on tap", "lfs on tap", "ffs on sockets"],
)
def test_files_of_an_image_are_served(kind: str, options: str, url: str, tmp_path: Path) -> None:
    made, large = image(tmp_path, kind)
    code = "curl -sS -o /dev/null -w '%{http_code} '"
    done = in_namespace(
        made,
        options,
        f"""
        curl -sS {url}/
        curl -sS {url}/large.bin | sha256sum
        curl -sS -r 500000-500099 {url}/large.bin | sha256sum
        curl -sS {url}/sub/
        {code} {url}/secret; {code} {url}/link; {code} {url}/none; {code} {url}/sub
        """,
    )
    assert done.returncode == 0, done
    page, whole, part, *listing, codes = done.stdout.splitlines()
    assert page == "<p>from the image</p>"
    assert whole.split()[0] == hashlib.sha256(large).hexdigest()
    assert part.split()[0] == hashlib.sha256(large[500_000:500_100]).hexdigest()
    assert '<li><a href="a.txt">a.txt</a></li>' in listing
    assert codes.split() == ["404", "404", "404", "301"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--port", "0"], "no port: 0"),
        (["--port", "x"], "invalid literal"),
        (["--address", "10.9.0.300"], "10.9.0.300"),
        (["--tap", "a-name-that-is-too-long"], "1 to 15 bytes"),
    ],
)
def test_serve_says_what_is_wrong(
    words: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = tmp_path / "disk.xnfs"
    assert cli.main(["mkfs", str(made), "8m"]) == 0
    assert cli.main(["serve", str(made), *words]) == 1
    error = capsys.readouterr().err
    assert error.startswith("xnfs serve: ")
    assert said in error
    assert error.count("\n") == 1
