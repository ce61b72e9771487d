"""HTTP/1.1 requests: bytes that a stranger sent, to a request or an error.

Everything is bounded: a head has at most 16 KiB and 100 fields. What two readers could understand
differently is refused, not guessed (RFC 9112, section 11): spaces before colons, folded lines, bare
carriage returns, two lengths. Requests with a body are not for this server and end the connection.
Sources: RFC 9112, sections 2 to 5; RFC 9110, sections 5, 7.2, 13, 14; RFC 3986, section 3.3.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final

MAX_HEAD: Final = 16 * 1024
MAX_FIELDS: Final = 100
MAX_TARGET: Final = 4096

_TOKEN: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_LINE: Final = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+) (\S+) HTTP/(\d)\.(\d)")
_VALUE: Final = re.compile(rb"[\t\x20-\x7e\x80-\xff]*")  # no control characters
_RANGE: Final = re.compile(rb"bytes=[ \t]*(\d{0,19})-(\d{0,19})[ \t]*")
_BAD_ESCAPE: Final = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_ESCAPE: Final = re.compile(rb"%([0-9A-Fa-f]{2})")

Path = tuple[bytes, ...]


class BadRequest(Exception):
    """The request can't be answered with a document; `status` is what it gets."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


@dataclass(frozen=True, slots=True)
class Request:
    """One request without a body."""

    method: bytes
    path: Path  # the parts between slashes, decoded; none of them empty, ".", ".." or with a NUL
    directory: bool  # the target ended with a slash
    keep_alive: bool
    fields: dict[bytes, bytes] = field(default_factory=dict)  # names in lower case


def parse_head_untrusted(head: bytes) -> Request:
    """The request of a head, without the empty line at its end. Raises BadRequest."""
    first, *lines = head.split(b"\r\n")
    match = _LINE.fullmatch(first)
    if match is None or b"\n" in head.replace(b"\r\n", b"") or b"\r" in head.replace(b"\r\n", b""):
        raise BadRequest(400)
    method, target, major, minor = match.groups()
    if major != b"1":
        raise BadRequest(505)
    if len(lines) > MAX_FIELDS:
        raise BadRequest(431)
    fields = _fields_untrusted(lines)
    if minor != b"0" and b"host" not in fields:
        raise BadRequest(400)
    if b"transfer-encoding" in fields or fields.get(b"content-length", b"0").strip(b"0"):
        raise BadRequest(413)
    path, directory = _path_untrusted(target)
    tokens = [t.strip().lower() for t in fields.get(b"connection", b"").split(b",")]
    keep = b"close" not in tokens and (minor != b"0" or b"keep-alive" in tokens)
    return Request(method, path, directory, keep, fields)


def _fields_untrusted(lines: list[bytes]) -> dict[bytes, bytes]:
    fields: dict[bytes, bytes] = {}
    for line in lines:
        name, colon, value = line.partition(b":")
        value = value.strip(b" \t")
        if not colon or _TOKEN.fullmatch(name) is None or _VALUE.fullmatch(value) is None:
            raise BadRequest(400)
        name = name.lower()
        if name in fields:
            if name in (b"host", b"content-length", b"transfer-encoding"):
                raise BadRequest(400)
            value = fields[name] + b", " + value
        fields[name] = value
    return fields


def _path_untrusted(target: bytes) -> tuple[Path, bool]:
    """What a target names, below the root and nowhere else."""
    if len(target) > MAX_TARGET:
        raise BadRequest(414)
    if target[:7].lower() == b"http://":  # the form for proxies must be understood
        target = b"/" + target[7:].partition(b"/")[2]
    raw = target.partition(b"#")[0].partition(b"?")[0]
    if raw[:1] != b"/" or _BAD_ESCAPE.search(raw):
        raise BadRequest(400)
    path: list[bytes] = []
    parts = raw[1:].split(b"/")
    for part in parts:
        name = _ESCAPE.sub(lambda m: bytes([int(m[1], 16)]), part)
        if name == b"..":
            if not path:
                raise BadRequest(400)
            path.pop()
        elif name not in (b"", b"."):
            if b"/" in name or b"\0" in name:
                raise BadRequest(400)
            path.append(name)
    return tuple(path), parts[-1] in (b"", b".", b"..")


def wanted_range(request: Request, size: int) -> tuple[int, int] | None:
    """The bytes lo..hi (hi excluded) that a request wants; None: all of them.

    Several ranges, and what is no range, are ignored, as a server may. Raises BadRequest(416).
    """
    match = _RANGE.fullmatch(request.fields.get(b"range", b""))
    if match is None or match.groups() == (b"", b""):
        return None
    first, last = match.groups()
    if not first:
        lo, hi = max(0, size - int(last)), size
    else:
        lo, hi = int(first), min(size, int(last) + 1) if last else size
        if last and int(last) < int(first):
            return None
    if lo >= size or lo >= hi:
        raise BadRequest(416)
    return lo, hi
