"""Secure bindings of frames: who holds which frame, with which rights, under which capability.

The check is made when an environment binds a frame, not when it uses it (Engler et al. 1995,
section 3.2). What is remembered here is what is needed to take a binding back: when the frame goes
to somebody else, or the capability is revoked, everything built on it goes: translations, the
place in a bootstrapping segment, the save area of exceptions.

The owner of a frame may limit how many environments hold it for reading and for writing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from xnfs.capability import READ, WRITE, Capabilities, Resource
from xnfs.errors import NoSpace, Refused
from xnfs.memory.translations import Translations

#: Environments that may hold one frame; what a limit is before it is set.
MAX_HOLDERS: Final = 64


class Bindings:
    """All bindings of all frames."""

    def __init__(
        self,
        frames: int,
        capabilities: Capabilities,
        translations: Translations,
        lost: Callable[[int, int], None],
    ) -> None:
        """`lost(environment, frame)` is called when an environment no longer holds a frame."""
        self._capabilities = capabilities
        self._translations = translations
        self._lost = lost
        #: what a capability for the frame must dominate; None: it is no environment's
        self.resources: list[Resource | None] = [None] * frames
        self._holders: list[dict[int, tuple[int, bytes]] | None] = [None] * frames
        self._limits: dict[int, tuple[int, int]] = {}  # frame -> (readers, writers)
        self._held: dict[int, set[int]] = {}  # environment -> frames
        self._under: dict[bytes, set[tuple[int, int]]] = {}  # token -> (frame, environment)

    def resource(self, frame: int) -> Resource:
        """What the frame is called. Raises Refused: it is no environment's."""
        resource = self.resources[frame] if 0 <= frame < len(self.resources) else None
        if resource is None:
            raise Refused(f"frame {frame} is no environment's")
        return resource

    def hold(self, id: int, frame: int, rights: int, token: bytes) -> None:
        """Let an environment hold a frame, if the token says so. What it held under another token
        is broken. Raises Refused, CapabilityError, NoSpace (limit).
        """
        holders = self._holders[frame] if 0 <= frame < len(self._holders) else None
        held = None if holders is None else holders.get(id)
        if held is not None and held[1] == token and not rights & ~held[0]:
            return
        self._capabilities.check(token, self.resource(frame), rights)
        if held is not None and held[1] == token:
            rights |= held[0]
        self._room(frame, id, rights)
        if held is not None and held[1] != token:
            self.release(id, frame)
        holders = self._holders[frame]
        if holders is None:
            holders = self._holders[frame] = {}
        holders[id] = (rights, token)
        self._held.setdefault(id, set()).add(frame)
        self._under.setdefault(token, set()).add((frame, id))

    def limit(self, frame: int, readers: int, writers: int) -> None:
        """Limit holders. Raises Refused: more hold it already."""
        if not (0 <= readers <= MAX_HOLDERS and 0 <= writers <= MAX_HOLDERS):
            raise Refused(f"limits of {readers} and {writers}")
        have = self._count(frame, -1)
        if have[0] > readers or have[1] > writers:
            raise Refused(f"{have[0]} read and {have[1]} write the frame already")
        self._limits[frame] = (readers, writers)

    def _count(self, frame: int, but: int) -> tuple[int, int]:
        """How many others read and write."""
        holders = self._holders[frame] or {}
        writers = sum(1 for id, (rights, _) in holders.items() if id != but and rights & WRITE)
        return len(holders) - (but in holders) - writers, writers

    def _room(self, frame: int, id: int, rights: int) -> None:
        if self._holders[frame] is None and frame not in self._limits:
            return
        readers, writers = self._count(frame, id)
        most = self._limits.get(frame, (MAX_HOLDERS, MAX_HOLDERS))
        if rights & WRITE and writers >= most[1]:
            raise NoSpace(f"{writers} write the frame")
        if not rights & WRITE and rights & READ and readers >= most[0]:
            raise NoSpace(f"{readers} read the frame")

    def holds(self, id: int, frame: int) -> int:
        """The rights with which an environment holds a frame; 0: it does not."""
        holders = self._holders[frame] if 0 <= frame < len(self._holders) else None
        return 0 if holders is None or id not in holders else holders[id][0]

    # --- breaking ---------------------------------------------------------------------------

    def release(self, id: int, frame: int) -> None:
        """Break all that one environment has of a frame; no effect if it has nothing."""
        holders = self._holders[frame]
        if holders is None or id not in holders:
            return
        _, token = holders.pop(id)
        if not holders:
            self._holders[frame] = None
        held = self._held[id]
        held.discard(frame)
        if not held:
            del self._held[id]
        under = self._under[token]
        under.discard((frame, id))
        if not under:
            del self._under[token]
        self._translations.forget_frame(frame, id)
        self._lost(id, frame)

    def break_frame(self, frame: int) -> None:
        """Break every binding of a frame, and forget its limits."""
        for id in list(self._holders[frame] or ()):
            self.release(id, frame)
        self._limits.pop(frame, None)

    def break_tokens(self, tokens: Iterable[bytes]) -> None:
        """Break every binding that was made under one of these."""
        for token in tokens:
            for frame, id in sorted(self._under.get(token, ())):
                self.release(id, frame)

    def drop(self, id: int) -> None:
        """Break everything that an environment holds."""
        for frame in sorted(self._held.get(id, ())):
            self.release(id, frame)
