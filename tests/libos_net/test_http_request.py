"""Requests: what is understood, what is refused, and that nothing else happens."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libos.net.http.request import BadRequest, Request, parse_head_untrusted, wanted_range

HOST = b"\r\nHost: x"


def parsed(target: bytes, more: bytes = b"") -> Request:
    return parse_head_untrusted(b"GET " + target + b" HTTP/1.1" + HOST + more)


@pytest.mark.parametrize(
    ("target", "path", "directory"),
    [
        (b"/", (), True),
        (b"/a", (b"a",), False),
        (b"/a/b.html?x=/../y", (b"a", b"b.html"), False),
        (b"/a/", (b"a",), True),
        (b"/a//./b/../c", (b"a", b"c"), False),
        (b"/%61%20b", (b"a b",), False),
        (b"/a/%2e%2E/b", (b"b",), False),
        (b"http://host/a", (b"a",), False),
        (b"http://host", (), True),
        (b"/a/..", (), True),
    ],
)
def test_target_names_a_path(target: bytes, path: tuple[bytes, ...], directory: bool) -> None:
    request = parsed(target)
    assert (request.path, request.directory) == (path, directory)


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"", 400),
        (b"GET", 400),
        (b"GET /  HTTP/1.1" + HOST, 400),
        (b"GET / HTTP/1.1", 400),
        (b"GET / HTTP/2.0" + HOST, 505),
        (b"GET a HTTP/1.1" + HOST, 400),
        (b"GET /.. HTTP/1.1" + HOST, 400),
        (b"GET /../etc/passwd HTTP/1.1" + HOST, 400),
        (b"GET /a/../../etc/passwd HTTP/1.1" + HOST, 400),
        (b"GET /%2e%2e/%2e%2e/etc/passwd HTTP/1.1" + HOST, 400),
        (b"GET /..%2fetc HTTP/1.1" + HOST, 400),
        (b"GET /a%00b HTTP/1.1" + HOST, 400),
        (b"GET /a%zz HTTP/1.1" + HOST, 400),
        (b"GET /" + b"a" * 5000 + b" HTTP/1.1" + HOST, 414),
        (b"GET / HTTP/1.1" + HOST + HOST, 400),
        (b"GET / HTTP/1.1" + HOST + b"\r\nA : b", 400),
        (b"GET / HTTP/1.1" + HOST + b"\r\n folded", 400),
        (b"GET / HTTP/1.1" + HOST + b"\r\nA: b\nC: d", 400),
        (b"GET / HTTP/1.1" + HOST + b"\r\nA: b\rC: d", 400),
        (b"GET / HTTP/1.1" + HOST + b"\r\nA: \x01", 400),
        (b"GET / HTTP/1.1" + HOST + b"\r\nContent-Length: 5", 413),
        (b"GET / HTTP/1.1" + HOST + b"\r\nTransfer-Encoding: chunked", 413),
        (b"GET / HTTP/1.1" + HOST + b"\r\nContent-Length: 0\r\nContent-Length: 5", 400),
        (b"GET / HTTP/1.1" + HOST + b"\r\nA: b" * 101, 431),
    ],
)
def test_head_is_refused(head: bytes, status: int) -> None:
    with pytest.raises(BadRequest) as caught:
        parse_head_untrusted(head)
    assert caught.value.status == status


def test_connection_is_kept_as_asked() -> None:
    assert parsed(b"/").keep_alive
    assert not parsed(b"/", b"\r\nConnection: Close").keep_alive
    assert not parse_head_untrusted(b"GET / HTTP/1.0").keep_alive
    assert parse_head_untrusted(b"GET / HTTP/1.0\r\nConnection: Keep-Alive").keep_alive


@pytest.mark.parametrize(
    ("asked", "size", "got"),
    [
        (b"bytes=0-0", 10, (0, 1)),
        (b"bytes=3-", 10, (3, 10)),
        (b"bytes=-3", 10, (7, 10)),
        (b"bytes=-30", 10, (0, 10)),
        (b"bytes=5-99999999999999999", 10, (5, 10)),
        (b"bytes=0-1,3-4", 10, None),
        (b"bytes=-", 10, None),
        (b"bytes=5-4", 10, None),
        (b"lines=1-2", 10, None),
        (b"", 10, None),
        (b"bytes=10-", 10, 416),
        (b"bytes=-0", 10, 416),
        (b"bytes=0-", 0, 416),
    ],
)
def test_range(asked: bytes, size: int, got: tuple[int, int] | int | None) -> None:
    request = parsed(b"/", b"\r\nRange: " + asked)
    if isinstance(got, int):
        with pytest.raises(BadRequest):
            wanted_range(request, size)
    else:
        assert wanted_range(request, size) == got


pieces = st.sampled_from(
    [b"GET ", b"/", b"..", b"%2e", b"%2f", b" HTTP/1.1", b"\r\n", b"Host: x", b":", b"\0", b"%"]
)


@given(st.lists(pieces | st.binary(max_size=8), max_size=12).map(b"".join))
def test_any_head_is_a_request_or_refused(head: bytes) -> None:
    try:
        request = parse_head_untrusted(head)
    except BadRequest:
        return
    for part in request.path:
        assert part not in (b"", b".", b"..")
        assert b"/" not in part
        assert b"\0" not in part
