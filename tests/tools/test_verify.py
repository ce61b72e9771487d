"""xnfs verify: what it says of the examples in the docs, and of what it refuses."""

from __future__ import annotations

import io
import re
from pathlib import Path

import pytest
from xnfs_tools import verify

PAGE = (Path(__file__).parents[2] / "docs" / "downloaded-code.md").read_text()
EXAMPLES = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
REFUSED = re.search(r"```\n(def .*?)```\n\n(.*)", PAGE, re.DOTALL)


def test_verify_page_has_the_four_uses() -> None:
    names = [re.match(r"def (\w+)", text) for text in EXAMPLES]
    assert [name[1] for name in names if name] == ["owns", "ready", "accept", "handle"]


@pytest.mark.parametrize("text", EXAMPLES)
def test_verify_says_what_is_proved(
    text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "code.py"
    file.write_text(text)
    assert verify.main(["--parts", "16", str(file)]) == 0
    out = capsys.readouterr().out
    assert "ends within" in out
    if "def owns" in text:
        shown = "".join(f"    {line}\n" for line in out.splitlines())
        assert f"owns.py\n{shown}\n" in PAGE  # all of it: a blank line ends the block
    for line in text.splitlines():
        if "u64(meta" in line or "be16(pkt, 12)" in line:
            assert line in out  # with the facts below it


def test_verify_says_why_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert REFUSED is not None
    (tmp_path / "ready.py").write_text(REFUSED[1])
    monkeypatch.chdir(tmp_path)
    assert verify.main(["ready.py"]) == 1
    shown = "".join(f"    {line}\n" for line in capsys.readouterr().err.splitlines())
    assert shown == REFUSED[2]


@pytest.mark.parametrize("text", ["", "x = 1\n", "def other():\n    return 1\n", "\0"])
def test_verify_bad_input_is_one_line(
    text: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(text))
    assert verify.main(["-"]) == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_verify_bad_arguments(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    binary = tmp_path / "binary"
    binary.write_bytes(b"\xff\xfe")
    assert verify.main([str(binary)]) == 1
    assert verify.main([str(tmp_path / "nothing")]) == 1
    assert verify.main(["--parts", "0", str(binary)]) == 2
    assert verify.main([]) == 2
    assert "Traceback" not in capsys.readouterr().err


def test_verify_numbers_of_the_page_are_the_kernels() -> None:
    rows = {use.budget for use in verify.uses(1, 64).values()}
    table = PAGE[PAGE.index("| function") : PAGE.index("The verifier proves")]
    assert {int(n.replace(",", "")) for n in re.findall(r"\d[\d,]*\d", table)} == rows
