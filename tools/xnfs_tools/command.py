"""What the commands share: exit codes, one-line errors, sizes, questions, progress.

Guarantees: whatever goes wrong, the user sees one line that begins with the command's name, never a
traceback (set XNFS_DEBUG=1 to see it), and the exit status is the one of the command's family.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, NoReturn

from xnfs import XnError

_UNITS: Final = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}


@dataclass(frozen=True)
class Codes:
    """Exit statuses of a family of commands."""

    failed: int = 1
    usage: int = 1
    interrupted: int = 130


class Failed(Exception):
    """The command can't go on; the text is for the user. `status` other than the family's own."""

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class Usage(Exception):
    """The command line makes no sense."""


class Parser(argparse.ArgumentParser):
    """Raises Usage instead of exiting with Python's idea of a status."""

    def error(self, message: str) -> NoReturn:
        """See argparse."""
        raise Usage(message)


def parser(prog: str, description: str, usage: str | None = None) -> Parser:
    """A parser with the habits of the family: no abbreviations, `--version`."""
    made = Parser(prog=prog, description=description, usage=usage, allow_abbrev=False)
    made.add_argument(
        "-V", "--version", action="version", version=f"{prog} {version()}", help="print the version"
    )
    return made


def version() -> str:
    """Of the package."""
    from xnfs import __version__

    return __version__


def run(prog: str, codes: Codes, body: Callable[[], int]) -> int:
    """Carry out a command; the exit status. Prints the one line when it fails."""
    try:
        status = body()
        sys.stdout.flush()
        return status
    except Usage as error:
        print(f"{prog}: {error}\nTry '{prog} --help'.", file=sys.stderr)
        return codes.usage
    except Failed as error:
        return _complain(prog, str(error), codes.failed if error.status is None else error.status)
    except BrokenPipeError:
        # The reader is gone: nothing to say, and the interpreter must not try to flush again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return codes.failed
    except (XnError, OSError) as error:
        return _complain(prog, explain(error), codes.failed)
    except KeyboardInterrupt:
        return _complain(prog, "interrupted", codes.interrupted)
    except Exception as error:
        text = f"internal error: {type(error).__name__}: {error}".splitlines()[0]
        return _complain(prog, f"{text} (XNFS_DEBUG=1 shows where)", codes.failed)


def _complain(prog: str, text: str, status: int) -> int:
    if os.environ.get("XNFS_DEBUG"):
        traceback.print_exc()
    print(f"{prog}: {text}", file=sys.stderr)
    return status


def explain(error: BaseException) -> str:
    """One line about an error."""
    if isinstance(error, OSError) and error.strerror:
        name = error.filename
        if name is None:
            return error.strerror
        return f"{os.fsdecode(name)}: {error.strerror}"
    return " ".join(str(error).split()) or type(error).__name__


def about(path: str, error: BaseException) -> Failed:
    """The error as a failure that names the file, unless its text does already."""
    text = explain(error)
    return Failed(text if path in text else f"{path}: {text}")


def parse_size(text: str) -> int:
    """Bytes in "512", "64m", "1g". Raises: Usage."""
    match = re.fullmatch(r"(\d{1,20})([kmgt]?)(?:i?b)?", text.strip().lower())
    if match is None:
        raise Usage(f"'{text}' is not a size (a number with k, m, g or t)")
    return int(match[1]) * _UNITS[match[2]]


def split_image(text: str) -> tuple[str, str | None]:
    """IMAGE or IMAGE:ROOT. A file that has the whole text as its name is meant before another."""
    path, colon, root = text.rpartition(":")
    if not colon or not path or "/" in root or os.path.exists(text):
        return text, None
    return path, root


def split_place(text: str) -> tuple[str, str, str]:
    """IMAGE:ROOT/PATH: image, root, path. Raises: Usage."""
    at = -1
    while (at := text.find(":", at + 1)) > 0:
        if os.path.exists(text[:at]) and not os.path.isdir(text[:at]):
            break
    else:
        at = text.find(":")
    root, slash, path = text[at + 1 :].partition("/")
    if at <= 0 or not root or not slash:
        raise Usage(f"{text}: IMAGE:ROOT/PATH is needed")
    return text[:at], root, "/" + path


def human(size: int) -> str:
    """A size for people: "1.5 GiB"."""
    value = float(size)
    for unit in ("bytes", "KiB", "MiB", "GiB", "TiB"):
        if value < 1024 or unit == "TiB":
            break
        value /= 1024
    return f"{size} bytes" if unit == "bytes" else f"{value:.1f} {unit}"


def ask(question: str, otherwise: str) -> bool:
    """A yes from the terminal. Raises: Failed(`otherwise`) where nobody can be asked."""
    if not sys.stdin.isatty():
        raise Failed(otherwise)
    return input(f"{question} (y/N) ").strip().lower() in ("y", "yes")


class Progress:
    """A line on the terminal that says how far long work is; silent elsewhere and at first."""

    DELAY: Final = 1.0
    PERIOD: Final = 0.2

    def __init__(self) -> None:
        self._shown = False
        self._next = time.monotonic() + self.DELAY
        self._visible = sys.stderr.isatty()

    def __call__(self, what: str, done: int, total: int = 0) -> None:
        """`total` = 0: not known."""
        if not self._visible or time.monotonic() < self._next:
            return
        self._next = time.monotonic() + self.PERIOD
        self._shown = True
        rest = f" of {total} ({100 * done // total} %)" if total else ""
        print(f"\r\x1b[K{done}{rest} {what}", end="", file=sys.stderr, flush=True)

    def end(self) -> None:
        """Wipe the line."""
        if self._shown:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
            self._shown = False


def words(argv: Sequence[str] | None) -> list[str]:
    """The arguments of this process, unless a test gives others."""
    return list(sys.argv[1:] if argv is None else argv)
