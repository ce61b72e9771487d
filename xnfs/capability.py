"""Capabilities: who may use which resource, and how (Engler et al. 1995, section 3.2).

A capability is a token: 32 bytes, the keyed hash of a resource, rights, a holder and a number used
once. A resource is a path of names such as ("disk", "root", "home"); a capability dominates every
resource whose path begins with its own. It can be narrowed, granted to another holder, and revoked
together with everything derived from it.

What is behind a name, and what a permitted call may then do to the bytes (`acl`), is not decided
here. Nor does a token prove who shows it: it is a bearer's, and must travel only over channels
that its holder trusts.

Guarantees: a token that was not made here, or was revoked, gives no right; derived rights never
exceed those they derive from; a check costs the same however many tokens there are.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from typing import Final

from xnfs.errors import CapabilityError, NoSpace

READ, WRITE, ALLOC, GRANT, ADMIN = 1, 2, 4, 8, 16
ALL: Final = READ | WRITE | ALLOC | GRANT | ADMIN

#: Live tokens, all holders together: bounds the memory that `narrow` in a loop can take.
MAX_TOKENS: Final = 65536
_MAX_DEPTH: Final = 32  # names in a path
_MAX_NAME: Final = 255

Resource = tuple[str, ...]


@dataclass(slots=True)
class _Entry:
    """A live capability. `children` is None until there is one: most tokens never have any. They
    are kept in order, so that a simulation does the same whatever the hash of bytes is this time.
    """

    resource: Resource
    rights: int
    holder: str
    parent: bytes | None
    children: dict[bytes, None] | None = None


class Capabilities:
    """All live capabilities of one kernel."""

    def __init__(self, secret: bytes | None = None, limit: int = MAX_TOKENS) -> None:
        """With a given secret the tokens are the same in each run: for tests and simulations.
        `limit`: live tokens, all holders together.
        """
        self._limit = limit
        self._secret = os.urandom(32) if secret is None else secret
        # Looked up by hash table. That leaks no byte of a token by its timing: Python compares
        # keys only where their 64-bit SipHash, under a key of this process, agrees already.
        self._entries: dict[bytes, _Entry] = {}
        self._made = 0

    def root(self) -> bytes:
        """A new capability for everything. For the kernel itself."""
        return self.mint((), ALL, "kernel")

    def mint(self, resource: Resource, rights: int, holder: str) -> bytes:
        """A capability derived from none. The kernel's alone: no system call leads here."""
        return self._make(resource, rights, holder, None)

    def narrow(self, token: bytes, resource: Resource, rights: int) -> bytes:
        """The same holder's capability for less: a resource below, a part of the rights."""
        entry = self._entry(token)
        self.check(token, resource, rights)
        return self._make(resource, rights, entry.holder, token)

    def grant(self, token: bytes, holder: str) -> bytes:
        """The same capability for another holder; needs GRANT. Narrow it first to give less."""
        entry = self._entry(token)
        self.check(token, entry.resource, GRANT)
        return self._make(entry.resource, entry.rights, holder, token)

    def revoke(self, token: bytes) -> list[bytes]:
        """End this capability and all that derive from it, in any depth; these are returned."""
        parent = self._entry(token).parent
        siblings = None if parent is None else self._entries[parent].children
        if siblings is not None:
            siblings.pop(token, None)
        doomed = [token]
        for each in doomed:
            doomed += self._entries.pop(each).children or ()
        return doomed

    def revoke_below(self, resource: Resource) -> None:
        """End all capabilities for a resource that is no more, and for what lies below it."""
        depth = len(resource)
        for token in [t for t, e in self._entries.items() if e.resource[:depth] == resource]:
            if token in self._entries:
                self.revoke(token)

    def alive(self, token: bytes) -> bool:
        """True if the token was made here and not revoked since."""
        return token in self._entries

    def derives(self, token: bytes, ancestor: bytes) -> bool:
        """True if `token` was derived from `ancestor`, in any depth."""
        entry = self._entries.get(token)
        while entry is not None and entry.parent is not None:
            if entry.parent == ancestor:
                return True
            entry = self._entries.get(entry.parent)
        return False

    def check(self, token: bytes, resource: Resource, rights: int) -> None:
        """Raise CapabilityError unless the token gives all these rights over the resource."""
        have = self.rights_for(token, resource)
        if not have or rights & ~have:
            raise CapabilityError(f"no right {rights:#x} over {'/'.join(resource) or 'everything'}")

    def rights_for(self, token: bytes, resource: Resource) -> int:
        """The rights over the resource; 0: not dominated. Unknown token: CapabilityError."""
        entry = self._entries.get(token)
        if entry is None:
            raise CapabilityError("the capability is forged or revoked")
        above = entry.resource
        return entry.rights if resource[: len(above)] == above else 0

    def holder_of(self, token: bytes) -> str:
        """For whom the capability was made."""
        return self._entry(token).holder

    def resource_of(self, token: bytes) -> Resource:
        """What the capability is for."""
        return self._entry(token).resource

    def minted(self, token: bytes) -> bool:
        """True if it derives from none: the kernel made it."""
        return self._entry(token).parent is None

    def _entry(self, token: bytes) -> _Entry:
        entry = self._entries.get(token)
        if entry is None:
            raise CapabilityError("the capability is forged or revoked")
        return entry

    def _make(self, resource: Resource, rights: int, holder: str, parent: bytes | None) -> bytes:
        _check_shape(resource, rights)
        if len(self._entries) >= self._limit:
            raise NoSpace(f"{self._limit} capabilities are in use")
        self._made += 1
        token = self._token(resource, rights, holder)
        self._entries[token] = _Entry(resource, rights, holder, parent)
        if parent is not None:
            above = self._entries[parent]
            if above.children is None:
                above.children = {}
            above.children[token] = None
        return token

    def _token(self, resource: Resource, rights: int, holder: str) -> bytes:
        """Keyed hash, each part with its length before it, so that no two inputs look alike."""
        mac = hashlib.blake2b(key=self._secret, digest_size=32)
        for part in (*resource, holder):
            raw = part.encode(errors="surrogatepass")
            mac.update(len(raw).to_bytes(4, "little") + raw)
        mac.update(rights.to_bytes(4, "little") + self._made.to_bytes(8, "little"))
        return mac.digest()


def _check_shape(resource: Resource, rights: int) -> None:
    if rights <= 0 or rights & ~ALL:
        raise CapabilityError(f"there are no rights {rights:#x}")
    if len(resource) > _MAX_DEPTH or not all(1 <= len(name) <= _MAX_NAME for name in resource):
        raise CapabilityError("a resource has at most 32 names of 1 to 255 characters")
