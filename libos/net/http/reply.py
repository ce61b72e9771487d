"""HTTP/1.1 replies: which bytes answer a request. Source: RFC 9110, sections 13 to 15."""

from __future__ import annotations

import html
from collections.abc import Iterable
from dataclasses import dataclass
from email.utils import formatdate, mktime_tz, parsedate_tz
from functools import lru_cache
from typing import Final
from urllib.parse import quote_from_bytes

from libos.net.http.documents import Document, Documents, Listing, content_type
from libos.net.http.request import BadRequest, Path, Request, wanted_range

_REASONS: Final = {
    200: b"OK",
    206: b"Partial Content",
    301: b"Moved Permanently",
    304: b"Not Modified",
    400: b"Bad Request",
    404: b"Not Found",
    405: b"Method Not Allowed",
    408: b"Request Timeout",
    413: b"Content Too Large",
    414: b"URI Too Long",
    416: b"Range Not Satisfiable",
    431: b"Request Header Fields Too Large",
    503: b"Service Unavailable",
    505: b"HTTP Version Not Supported",
}
_INDEX: Final = b"index.html"

Fields = list[tuple[bytes, bytes]]


@dataclass(frozen=True, slots=True)
class Reply:
    """A head, and the body that follows it."""

    head: bytes
    body: Iterable[memoryview]
    keep_alive: bool


def answer(request: Request, documents: Documents, now: int) -> Reply:
    """The reply to a request; `now` is the time of day in seconds since 1970."""
    if request.method not in (b"GET", b"HEAD"):
        raise BadRequest(405)
    found = documents.find(request.path)
    name = request.path[-1] if request.path else b""
    if isinstance(found, Listing):
        if not request.directory and request.path:
            place = b"/" + _quoted(request.path) + b"/"
            return _short(request, 301, now, [(b"Location", place)])
        index = documents.find((*request.path, _INDEX))
        if index is None or isinstance(index, Listing):
            return _listing(request, found, now)
        found, name = index, _INDEX
    elif request.directory:
        found = None  # a file is not a directory
    if found is None:
        raise BadRequest(404)
    return _document(request, found, content_type(name), now)


def refusal(status: int, now: int, keep_alive: bool = False) -> Reply:
    """The reply to a request that was not understood, or not granted."""
    body = b"%d %s\n" % (status, _REASONS[status])
    fields = [(b"Allow", b"GET, HEAD")] if status == 405 else []
    fields.append((b"Content-Type", b"text/plain; charset=utf-8"))
    head = _head(status, len(body), keep_alive, now, fields)
    return Reply(head, (memoryview(body),), keep_alive)


def _document(request: Request, document: Document, kind: bytes, now: int) -> Reply:
    tag = b'"' + document.tag + b'"'
    fields = [(b"ETag", tag), (b"Last-Modified", _date(document.modified))]
    if _is_known(request, document, tag):
        return Reply(_head(304, None, request.keep_alive, now, fields), (), request.keep_alive)
    fields += [(b"Accept-Ranges", b"bytes"), (b"Content-Type", kind)]
    size, status = document.size, 200
    lo, hi = 0, size
    if request.fields.get(b"if-range", tag) == tag and request.method == b"GET":
        try:
            part = wanted_range(request, size)
        except BadRequest as error:
            return _short(request, error.status, now, [(b"Content-Range", b"bytes */%d" % size)])
        if part is not None:
            (lo, hi), status = part, 206
            fields.append((b"Content-Range", b"bytes %d-%d/%d" % (lo, hi - 1, size)))
    head = _head(status, hi - lo, request.keep_alive, now, fields)
    body: Iterable[memoryview] = () if request.method == b"HEAD" else document.pieces(lo, hi)
    return Reply(head, body, request.keep_alive)


def _is_known(request: Request, document: Document, tag: bytes) -> bool:
    """Whether the client has this version already (RFC 9110, section 13.2.2)."""
    tags = request.fields.get(b"if-none-match")
    if tags is not None:
        known = [t.strip().removeprefix(b"W/") for t in tags.split(b",")]
        return tag in known or b"*" in known
    since = request.fields.get(b"if-modified-since")
    parsed = parsedate_tz(since.decode("latin-1")) if since else None
    try:
        return parsed is not None and document.modified <= mktime_tz(parsed)
    except (OverflowError, ValueError):
        return False  # a date that can't be is no condition


def _listing(request: Request, listing: Listing, now: int) -> Reply:
    rows = [
        b'<li><a href="%s">%s</a></li>'
        % (quote_from_bytes(name).encode(), html.escape(name.decode("utf-8", "replace")).encode())
        for name in listing.names
    ]
    body = b"<!doctype html>\n<title>Index</title>\n<ul>\n" + b"\n".join(rows) + b"\n</ul>\n"
    fields = [(b"Content-Type", b"text/html; charset=utf-8")]
    head = _head(200, len(body), request.keep_alive, now, fields)
    return Reply(head, () if request.method == b"HEAD" else (memoryview(body),), request.keep_alive)


def _short(request: Request, status: int, now: int, fields: Fields) -> Reply:
    return Reply(_head(status, 0, request.keep_alive, now, fields), (), request.keep_alive)


def _head(status: int, length: int | None, keep_alive: bool, now: int, fields: Fields) -> bytes:
    lines = [b"HTTP/1.1 %d %s" % (status, _REASONS[status]), b"Date: " + _date(now)]
    lines += [name + b": " + value for name, value in fields]
    if length is not None:
        lines.append(b"Content-Length: %d" % length)
    if not keep_alive:
        lines.append(b"Connection: close")
    return b"\r\n".join(lines) + b"\r\n\r\n"


def _quoted(path: Path) -> bytes:
    return b"/".join(quote_from_bytes(part).encode() for part in path)


@lru_cache(maxsize=1024)
def _date(seconds: int) -> bytes:
    return formatdate(seconds, usegmt=True).encode()
