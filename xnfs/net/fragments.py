"""Following IPv4 fragments: only the first one has the ports that a filter looks at.

A later fragment belongs to whom the first one belonged. One that overtakes the first is held until
that comes, for a bounded time, in bounded memory. The same, the other way, holds for sending: a
later fragment may be sent by who sent the first.

This is the one place where the kernel knows a protocol: without it, the bytes of a later fragment
would be taken for ports, and anybody could say that they are his.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Final

from xnfs.net.interface import SECOND

MAX_FOLLOWED: Final = 256
MAX_HELD: Final = 64  # fragments that overtook their first, all together
_LIFETIME: Final = 30 * SECOND  # RFC 791 and RFC 1122 let a datagram wait as long

#: What is the same in all fragments of a datagram: addresses, protocol, identification; and the
#: Ethernet header, so that a later one can't be sent to or from somebody else.
Key = tuple[bytes, bytes, bytes, int]


def fragment_of(frame: bytes) -> tuple[Key, int, bool] | None:
    """(key, offset, whether more follow) of an IPv4 fragment; None: it is none."""
    if frame[12:14] != b"\x08\x00" or len(frame) < 34 or frame[14] >> 4 != 4:
        return None
    field = int.from_bytes(frame[20:22], "big")
    if not field & 0x3FFF:
        return None
    key = (frame[:14], frame[26:34], frame[18:20], frame[23])
    return key, (field & 0x1FFF) * 8, bool(field & 0x2000)


@dataclass(slots=True)
class _Followed:
    ends: int
    owner: int | None = None
    held: list[bytes] = field(default_factory=list)


class Follower:
    """Which datagrams are on the way, and whose they are."""

    def __init__(self, most: int = MAX_FOLLOWED) -> None:
        self._most = most
        self._followed: OrderedDict[Key, _Followed] = OrderedDict()
        self._held = 0
        self.dropped = 0  # fragments whose first never came, or too late

    def first(self, key: Key, owner: int, now: int) -> list[bytes]:
        """The first fragment has an owner: the fragments that waited for it are the owner's."""
        followed = self._entry(key, now)
        followed.owner = owner
        held, followed.held = followed.held, []
        self._held -= len(held)
        return held

    def owner(self, key: Key, now: int) -> int | None:
        """Whose a later fragment is, as far as is known."""
        self._expire(now)
        followed = self._followed.get(key)
        return None if followed is None else followed.owner

    def hold(self, key: Key, frame: bytes, now: int) -> None:
        """Keep a fragment until the first one comes."""
        if self._held >= MAX_HELD:
            self.dropped += 1
            return
        self._entry(key, now).held.append(frame)
        self._held += 1

    def _entry(self, key: Key, now: int) -> _Followed:
        self._expire(now)
        followed = self._followed.get(key)
        if followed is None:
            followed = self._followed[key] = _Followed(now + _LIFETIME)
            if len(self._followed) > self._most:
                self._forget()
        return followed

    def _expire(self, now: int) -> None:
        while self._followed and next(iter(self._followed.values())).ends <= now:
            self._forget()

    def _forget(self) -> None:
        _, followed = self._followed.popitem(last=False)
        self._held -= len(followed.held)
        self.dropped += len(followed.held)
