"""The gate before Python's own parser: which characters and words may reach it at all.

`ast.parse` is a large C program that was not made for hostile text: it warns, it normalises
identifiers (a fullwidth letter becomes an ASCII one), it recurses. So this pass lets through only
ASCII, only the words and signs of the language, and only shallow nesting. It decides nothing
about meaning: that is in `language`.
"""

from __future__ import annotations

import re
from typing import Final

from xnfs.sandbox.errors import VerifyError
from xnfs.sandbox.signature import Limits

_TOKEN: Final = re.compile(
    r"""(?P<blank>[ ]+)
      | (?P<line>\n)
      | (?P<comment>\#[ -~]*)
      | (?P<text>\"\"\"[ -!\#-\[\]-~\n]*\"\"\"|"[ -!\#-\[\]-~]*")
      | (?P<word>[A-Za-z0-9_]+)
      | (?P<open>[(\[])
      | (?P<close>[)\]])
      | (?P<sign>[-+*/%&|^<>=!,:])
    """,
    re.VERBOSE,
)
_NUMBER: Final = re.compile(r"0[xX][0-9a-fA-F_]+|0[bB][01_]+|0[oO][0-7_]+|[0-9][0-9_]*")

# Python's keywords that the language doesn't have. Refused here, before they mean anything.
_REFUSED: Final = frozenset(
    {"False", "None", "True", "as", "assert", "async", "await", "class", "del", "except"}
    | {"finally", "from", "global", "import", "is", "lambda", "nonlocal", "raise", "try"}
    | {"while", "with", "yield"}
)


def check_text(source: str) -> None:
    """Refuse text that shall not reach `ast.parse`. Linear time, no recursion.

    Raises: VerifyError.
    """
    if len(source) > Limits.SOURCE_CHARS:
        raise VerifyError(1, f"the source is longer than {Limits.SOURCE_CHARS} characters")
    position, line, depth, before = 0, 1, 0, ""
    count = begun = 0  # tokens, and how many of them before this statement
    while position < len(source):
        match = _TOKEN.match(source, position)
        if match is None:
            raise VerifyError(line, f"{source[position]!r} is not in the language")
        kind, text = match.lastgroup, match.group()
        position = match.end()
        count += kind not in ("blank", "comment")
        if kind == "word":
            _check_word(text, line)
        elif kind == "open":
            depth += 1
        elif kind == "close":
            depth -= 1
        elif kind == "text" and before != ":":
            raise VerifyError(line, "strings are not in the language, but for a docstring")
        if depth > Limits.BRACKETS or count > Limits.TOKENS:
            raise VerifyError(line, "the source is too large or too deeply nested")
        if kind == "line" and depth == 0:
            begun = count
        if count - begun > Limits.STATEMENT_TOKENS:  # as many `not` would nest as deep
            raise VerifyError(line, "the statement is too long")
        line += text.count("\n")
        if kind not in ("blank", "comment", "line"):
            before = text


def _check_word(text: str, line: int) -> None:
    if text[0].isdigit():
        if len(text) > Limits.NUMBER_CHARS or not _NUMBER.fullmatch(text):
            raise VerifyError(line, f"{text[:20]!r} is not a number of the language")
    elif text[0] == "_":
        raise VerifyError(line, f"{text[:20]!r}: names may not start with '_'")
    elif text in _REFUSED:
        raise VerifyError(line, f"{text!r} is not in the language")
    elif len(text) > Limits.NAME_CHARS:
        raise VerifyError(line, f"a name is longer than {Limits.NAME_CHARS} characters")
