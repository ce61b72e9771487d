"""Capabilities: what dominates what; nothing is gained by forging, narrowing or revoking."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule

from xnfs.capability import ADMIN, ALL, ALLOC, GRANT, READ, WRITE, Capabilities, Resource
from xnfs.errors import CapabilityError, NoSpace

DISK: Resource = ("disk",)
HOME: Resource = ("disk", "root", "home")


def caps() -> Capabilities:
    return Capabilities(b"secret")


def test_capability_dominates_what_lies_below() -> None:
    c = caps()
    token = c.mint(("disk", "root"), READ | WRITE, "libfs")
    for resource in (("disk", "root"), HOME, (*HOME, "deeper")):
        c.check(token, resource, READ | WRITE)
        assert c.rights_for(token, resource) == READ | WRITE
    for resource in ((), DISK, ("disk", "roots"), ("disk", "other"), ("root",), ("disk root",)):
        assert c.rights_for(token, resource) == 0
        for rights in (READ, 0):
            with pytest.raises(CapabilityError):
                c.check(token, resource, rights)
    with pytest.raises(CapabilityError, match="no right 0x5 over disk/root/home"):
        c.check(token, HOME, READ | ALLOC)
    assert c.holder_of(token) == "libfs"


def test_capability_root_dominates_everything() -> None:
    c = caps()
    token = c.root()
    for resource in ((), DISK, HOME, ("memory",)):
        assert c.rights_for(token, resource) == ALL


@given(at=st.integers(0, 31), bit=st.integers(0, 7))
def test_capability_one_bit_off_is_forged(at: int, bit: int) -> None:
    c = caps()
    token = bytearray(c.mint(DISK, ALL, "a"))
    c.check(bytes(token), HOME, READ)
    token[at] ^= 1 << bit
    for act in (
        *(lambda t: c.check(t, HOME, READ), lambda t: c.narrow(t, HOME, READ)),
        *(lambda t: c.grant(t, "b"), c.revoke, c.holder_of, lambda t: c.rights_for(t, HOME)),
    ):
        with pytest.raises(CapabilityError, match="forged or revoked"):
            act(bytes(token))


def test_capability_of_another_kernel_is_forged() -> None:
    token = Capabilities().mint(DISK, ALL, "a")
    for other in (Capabilities(), caps()):
        other.mint(DISK, ALL, "a")
        with pytest.raises(CapabilityError):
            other.check(token, DISK, READ)
    for wrong in (b"", b"x" * 64, token[:16]):
        with pytest.raises(CapabilityError):
            caps().check(wrong, DISK, READ)


def test_capability_tokens_differ_even_for_the_same_right() -> None:
    c = caps()
    tokens = [c.mint(DISK, READ, "a") for _ in range(100)]
    assert len(set(tokens)) == 100
    assert {len(token) for token in tokens} == {32}
    assert caps().mint(DISK, READ, "a") == tokens[0]


def test_capability_hash_keeps_the_parts_apart() -> None:
    made = [
        caps().mint(resource, READ, holder)
        for resource, holder in (
            *((("ab", "c"), "d"), (("a", "bc"), "d"), (("a", "b", "c"), "d"), (("ab",), "cd")),
            *((("abc",), "d"), (("ab", "c", "d"), "")),
        )
    ]
    assert len(set(made)) == len(made)


def test_capability_narrow_never_widens() -> None:
    c = caps()
    token = c.mint(("disk", "root"), READ | GRANT, "a")
    below = c.narrow(token, HOME, READ)
    assert (c.rights_for(below, HOME), c.holder_of(below)) == (READ, "a")
    assert c.rights_for(below, ("disk", "root")) == 0
    for resource, rights in (
        *((HOME, WRITE), (HOME, READ | WRITE), (DISK, READ), ((), READ), (HOME, ADMIN)),
        *((HOME, 0), (HOME, 32), (HOME, -1)),
    ):
        with pytest.raises(CapabilityError):
            c.narrow(token, resource, rights)
        with pytest.raises(CapabilityError):
            c.narrow(below, resource, rights or WRITE)


def test_capability_grant_needs_the_right_to() -> None:
    c = caps()
    plain = c.mint(HOME, READ, "a")
    with pytest.raises(CapabilityError):
        c.grant(plain, "b")
    lent = c.grant(c.mint(HOME, READ | GRANT, "a"), "b")
    assert (c.holder_of(lent), c.rights_for(lent, HOME)) == ("b", READ | GRANT)
    last = c.narrow(lent, HOME, READ)
    with pytest.raises(CapabilityError):
        c.grant(last, "c")


def test_capability_revoke_ends_all_that_derive_from_it() -> None:
    c = caps()
    top = c.mint(DISK, ALL, "a")
    side = c.narrow(top, HOME, READ)
    middle = c.grant(top, "b")
    chain = [middle]
    for _ in range(5000):  # deeper than Python may recurse
        chain.append(c.narrow(chain[-1], DISK, ALL))
    c.check(chain[-1], HOME, READ)
    c.revoke(middle)
    for token in (middle, chain[1], chain[-1]):
        with pytest.raises(CapabilityError):
            c.check(token, HOME, READ)
    c.check(top, HOME, READ)
    c.check(side, HOME, READ)
    c.revoke(top)
    with pytest.raises(CapabilityError):
        c.check(side, HOME, READ)


@pytest.mark.parametrize("resource", [("",), ("x" * 256,), ("a",) * 33])
def test_capability_resources_have_bounds(resource: Resource) -> None:
    with pytest.raises(CapabilityError):
        caps().mint(resource, READ, "a")


def test_capability_memory_is_bounded() -> None:
    c = Capabilities(b"secret", limit=5)
    top = c.mint(DISK, ALL, "a")
    made = [c.narrow(top, HOME, READ) for _ in range(4)]
    with pytest.raises(NoSpace):
        c.narrow(top, HOME, READ)
    c.revoke(made[0])
    c.narrow(top, HOME, READ)


class CapabilityMachine(RuleBasedStateMachine):
    """Random derivations and revocations against a plain tree of (resource, rights, parent)."""

    tokens: Bundle[bytes] = Bundle("tokens")
    names = st.lists(st.sampled_from("ab"), max_size=3).map(tuple)
    some_rights = st.integers(1, ALL)

    @initialize()
    def start(self) -> None:
        self.caps = caps()
        self.model: dict[bytes, tuple[Resource, int, bytes | None]] = {}
        self.dead: set[bytes] = set()

    @rule(target=tokens, resource=names, rights=some_rights)
    def mint(self, resource: Resource, rights: int) -> bytes:
        token = self.caps.mint(resource, rights, "h")
        self.model[token] = (resource, rights, None)
        return token

    @rule(target=tokens, token=tokens, below=names, rights=some_rights)
    def narrow(self, token: bytes, below: Resource, rights: int) -> bytes:
        own = self.model[token][0] if token in self.model else ()
        resource = own + below
        if token in self.model and not rights & ~self.model[token][1]:
            new = self.caps.narrow(token, resource, rights)
            self.model[new] = (resource, rights, token)
            return new
        with pytest.raises(CapabilityError):
            self.caps.narrow(token, resource, rights)
        return token

    @rule(target=tokens, token=tokens)
    def grant(self, token: bytes) -> bytes:
        if token in self.model and self.model[token][1] & GRANT:
            new = self.caps.grant(token, "other")
            self.model[new] = (*self.model[token][:2], token)
            return new
        with pytest.raises(CapabilityError):
            self.caps.grant(token, "other")
        return token

    @rule(token=tokens)
    def revoke(self, token: bytes) -> None:
        if token not in self.model:
            return
        self.caps.revoke(token)
        doomed = {token}
        for one, (_, _, parent) in self.model.items():  # parents come before their children
            if parent in doomed:
                doomed.add(one)
        for one in doomed:
            del self.model[one]
        self.dead |= doomed

    @rule(token=tokens, resource=names, rights=some_rights)
    def check(self, token: bytes, resource: Resource, rights: int) -> None:
        own, have, _ = self.model.get(token, ((), 0, None))
        if not rights & ~have and resource[: len(own)] == own:
            self.caps.check(token, resource, rights)
        else:
            with pytest.raises(CapabilityError):
                self.caps.check(token, resource, rights)

    @invariant()
    def revoked_stay_revoked(self) -> None:
        assert self.caps._entries.keys() == self.model.keys()
        assert not self.dead & self.model.keys()


TestCapabilityMachine = CapabilityMachine.TestCase
