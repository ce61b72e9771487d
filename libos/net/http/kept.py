"""Replies that were given before: the same request within the same second gets the same bytes.

A request is known by its bytes, so one look-up stands for reading it, finding the document and
writing a head. A head says what second it is, so nothing is kept for longer, and a document that
has changed is seen within a second. Head and body of a small document are one piece, and so one
part of one packet; of a larger one the pieces are kept, which are the document's own. Source:
Kaashoek et al. 1997, section 7.3 (heads precomputed with the file).

Bounded: so many replies, requests of 1 KiB, and in each second the bytes of the larger ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from libos.net.http.reply import Reply
from libos.net.tcp.ready import Ready
from libos.net.tcp.sendqueue import Piece

_MAX_REQUEST: Final = 1024
_SMALL_BODY: Final = 16 * 1024
_MAX_HELD: Final = 8 << 20


class KeptReplies:
    """At most `most` replies of each kind; when there are more, the one kept first goes."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._replies: dict[bytes, Reply] = {}
        self._ready: dict[bytes, tuple[Ready, int]] = {}
        self._second = 0
        self._held = 0

    def find(self, head: bytes, now: int) -> Reply | None:
        """The reply that these bytes got in the second `now`."""
        if now != self._second:
            self._turn(now)
        return self._replies.get(head)

    def keep(self, head: bytes, reply: Reply) -> Reply:
        """Keep what `find` did not find, if all of it is at hand; a reply that may be sent now."""
        if not self._most or len(head) > _MAX_REQUEST or not isinstance(reply.body, tuple):
            return reply
        size = sum(map(len, reply.body))
        whole = reply
        if size <= _SMALL_BODY:
            whole = Reply(b"".join((reply.head, *reply.body)), (), reply.keep_alive)
        if not self._has_room(size):
            return whole
        if len(self._replies) >= self._most:
            del self._replies[next(iter(self._replies))]
        self._replies[head] = whole
        return whole

    def find_ready(self, data: bytes, now: int) -> tuple[Ready, int] | None:
        """What the bytes of a segment were answered with in the second `now`, and how many
        requests they are."""
        if now != self._second:
            self._turn(now)
        return self._ready.get(data)

    def keep_ready(self, data: bytes, replies: Sequence[Reply]) -> tuple[Ready, int] | None:
        """Keep what `find_ready` did not find; the bodies are at hand (`tuple`). None: there is no
        room to keep it, and it is too long for each peer to have its own.
        """
        pieces: list[Piece] = []
        for reply in replies:
            pieces += [reply.head, *reply.body]
        found = Ready(pieces, last=not replies[-1].keep_alive), len(replies)
        if self._most and len(data) <= _MAX_REQUEST and self._has_room(found[0].size):
            if len(self._ready) >= self._most:
                del self._ready[next(iter(self._ready))]
            self._ready[data] = found
        elif found[0].size > _SMALL_BODY:
            return None
        return found

    def _has_room(self, size: int) -> bool:
        """Whether so many bytes may be kept till the end of the second. The small ones are bounded
        by their number.
        """
        if size <= _SMALL_BODY:
            return True
        if self._held + size > _MAX_HELD:
            return False
        self._held += size
        return True

    def _turn(self, now: int) -> None:
        """Another second: heads say so."""
        self._replies.clear()
        self._ready.clear()
        self._second = now
        self._held = 0
