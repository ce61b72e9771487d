"""Replies that were given before: the same request within the same second gets the same bytes.

A request is known by its bytes, so one look-up stands for reading it, finding the document and
writing a head. A head says what second it is, so nothing is kept for longer, and a document that
has changed is seen within a second. Head and body of a small document are one piece, and so one
part of one packet. Source: Kaashoek et al. 1997, section 7.3 (heads precomputed with the file).

Bounded: so many replies, requests of 1 KiB and bodies of 16 KiB.
"""

from __future__ import annotations

from typing import Final

from libos.net.http.reply import Reply

_MAX_REQUEST: Final = 1024
_MAX_BODY: Final = 16 * 1024


class KeptReplies:
    """At most `most` replies; when there are more, the one kept first goes."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._replies: dict[bytes, Reply] = {}
        self._second = 0

    def find(self, head: bytes, now: int) -> Reply | None:
        """The reply that these bytes got in the second `now`."""
        if now != self._second:
            self._replies.clear()
            self._second = now
        return self._replies.get(head)

    def keep(self, head: bytes, reply: Reply) -> Reply:
        """Keep what `find` did not find, if it is small; a reply that may be sent now."""
        body = reply.body
        if not self._most or not isinstance(body, tuple) or len(head) > _MAX_REQUEST:
            return reply
        if sum(map(len, body)) > _MAX_BODY:
            return reply
        whole = Reply(b"".join((reply.head, *body)), (), reply.keep_alive)
        if len(self._replies) >= self._most:
            del self._replies[next(iter(self._replies))]
        self._replies[head] = whole
        return whole
