"""Filters: their meaning as cubes against their code, and overlap against brute force."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from libos.net.base import ip, mac
from libos.net.filters import for_host, from_host, nothing, to_port
from xnfs.net.cube import Cube, head_bits
from xnfs.net.meaning import meaning
from xnfs.net.network import FILTER, FILTER_BUDGET
from xnfs.sandbox import Program, VerifyError, verify

HOST = ip("10.0.0.1")


def understood(source: str) -> tuple[Program, list[Cube]]:
    program = verify(source, FILTER, budget=FILTER_BUDGET)
    return program, meaning(program)


def accepted(cubes: Iterable[Cube], packet: bytes) -> bool:
    inside = [cube for cube in cubes if cube.holds(head_bits(packet), len(packet))]
    assert len(inside) <= 1, "cubes of one filter are disjoint"
    return bool(inside)


# Programs over a packet of few bytes of few values, so that chance hits both answers. Lengths are
# tested first, as the verifier demands.
atoms = st.one_of(
    st.builds("u8(pkt, {})".format, st.integers(14, 17)),
    st.builds("be16(pkt, {})".format, st.integers(14, 16)),
    st.builds("u16(pkt, {})".format, st.integers(14, 16)),
    st.builds("be32(pkt, 14) >> {}".format, st.integers(0, 31)),
    st.builds("(u8(pkt, 14) & {})".format, st.integers(0, 7)),
    st.builds("(u8(pkt, 15) << {} | u8(pkt, 16) & 3)".format, st.integers(2, 9)),
    st.builds("u8s(pkt, 14, 4)[{}]".format, st.integers(0, 3)),
    st.builds("u8(pkt, 14 + (u8(pkt, 15) & {}))".format, st.integers(0, 3)),
    st.builds("(u8(pkt, 14) & 3) * {}".format, st.integers(0, 5)),
    st.just("(3 - (u8(pkt, 17) & 3))"),
    st.just("min(u8(pkt, 16) & 3, 2)"),
    st.just("len(pkt)"),
)
compares = st.builds(
    "{} {} {}".format,
    atoms,
    st.sampled_from(["<", "<=", "==", "!=", ">=", ">"]),
    st.integers(0, 20),
)
among = st.builds("{} in ({}, {})".format, atoms, st.integers(0, 9), st.integers(0, 9))
conditions = st.recursive(
    compares | among,
    lambda inner: st.one_of(
        st.builds("({} and {})".format, inner, inner),
        st.builds("({} or {})".format, inner, inner),
        st.builds("not {}".format, inner),
    ),
    max_leaves=4,
)
bodies = st.one_of(
    st.builds("    return {}\n".format, conditions),
    st.builds("    return {} & 3\n".format, atoms.filter(lambda a: a != "len(pkt)")),
    st.builds(
        "    if {}:\n        return {}\n    elif {}:\n        x = 1\n    else:\n        x = 0\n"
        "    return x and {}\n".format,
        conditions, conditions, conditions, conditions,
    ),
    st.builds(
        "    n = 0\n    for i in range(4):\n        if u8(pkt, 14 + i) {} {}:\n            {}\n"
        "        n = i\n    return n == {}\n".format,
        st.sampled_from(["<", "==", ">"]), st.integers(0, 3),
        st.sampled_from(["break", "continue", "return 0"]), st.integers(0, 3),
    ),
    st.builds("    x = {} if {} else {}\n    return x > {}\n".format,
              atoms, conditions, atoms, st.integers(0, 9)),
)  # fmt: skip
programs = bodies.map(
    lambda body: "def accept(pkt):\n    if len(pkt) < 18:\n        return 0\n" + body
)
packets = st.lists(st.sampled_from([0, 1, 2, 3, 5, 255]), min_size=0, max_size=7).map(
    lambda tail: bytes(14) + bytes(tail)
)


@given(source=programs, given_packets=st.lists(packets, min_size=20, max_size=40))
def test_meaning_is_what_the_code_accepts(source: str, given_packets: list[bytes]) -> None:
    refused = ""
    try:
        program, cubes = understood(source)
    except VerifyError as error:
        refused = error.reason
    if refused:
        assert "could not be decided" in refused
        return
    for packet in given_packets:
        assert accepted(cubes, packet) == bool(program.run(packet)), packet


@settings(max_examples=15)
@given(one=programs, other=programs)
def test_overlap_is_exact(one: str, other: str) -> None:
    try:
        (first, ours), (second, theirs) = understood(one), understood(other)
    except VerifyError:
        return
    said = any(a.overlaps(b) for a in ours for b in theirs)
    if said:  # the kernel can show the packet that both want
        a, b = next((a, b) for a in ours for b in theirs if a.overlaps(b))
        length = max(a.lo, b.lo)
        packet = ((a.value | b.value).to_bytes(128, "big") + bytes(length))[:length]
        assert first.run(packet)
        assert second.run(packet)
    else:
        for tail in itertools.product([0, 1, 3, 255], repeat=4):
            for more in (b"", b"\0\0"):
                packet = bytes(14) + bytes(tail) + more
                assert not (first.run(packet) and second.run(packet))


def test_lengths_alone_can_keep_filters_apart() -> None:
    short, long, all_of_them = (
        understood(f"def accept(pkt):\n    return {condition}\n")[1]
        for condition in ("len(pkt) < 60", "60 <= len(pkt)", "1")
    )
    assert not any(a.overlaps(b) for a in short for b in long)
    assert any(a.overlaps(b) for a in short for b in all_of_them)


def test_meaning_of_the_filters_that_hosts_use() -> None:
    assert understood(nothing())[1] == []
    program, cubes = understood(to_port(HOST, 17, 53))
    for words in range(5, 16):  # a header with options is followed
        packet = bytearray(14 + words * 4 + 8)
        packet[12:15] = b"\x08\x00" + bytes([0x40 | words])
        packet[23] = 17
        packet[30:34] = HOST.to_bytes(4, "big")
        packet[14 + words * 4 + 2 : 14 + words * 4 + 4] = b"\x00\x35"
        assert accepted(cubes, bytes(packet))
        assert program.run(bytes(packet))
        packet[14 + words * 4 + 3] = 54
        assert not accepted(cubes, bytes(packet))
    assert len(cubes) <= 22
    understood(for_host(HOST))
    understood(from_host(mac("02:00:00:00:00:01"), HOST))


BODY = "def accept(pkt):\n    if len(pkt) < 200:\n        return 0\n    return {}\n"


@pytest.mark.parametrize(
    ("expression", "reason"),
    [
        ("be16(pkt, 0) == be16(pkt, 2)", "a number that depends on 16 bits"),
        ("be16(pkt, 0) + be16(pkt, 2) == 7", "a number that depends on 16 bits"),
        ("crc32(pkt, 0, 20) == 5", "'crc32' in a filter"),
        ("same(pkt, 0, pkt, 6, 6)", "'same' in a filter"),
        ("u8(pkt, 128) == 1", "beyond 127"),
        ("len(pkt) - 14 == 40", "arithmetic on the length"),
        ("u8(pkt, 300) == 1", "may pass the end of 'pkt'"),
    ],
)
def test_filter_refused_with_its_line(expression: str, reason: str) -> None:
    with pytest.raises(VerifyError) as caught:
        understood(BODY.format(expression))
    assert reason in caught.value.reason
    assert caught.value.line == 4


@pytest.mark.parametrize(
    "body",
    [
        "    n = 0\n    for i in range(14):\n        if u8(pkt, i) > 5:\n            n += 1\n"
        "    return n == 7\n",
        "    for i in range(60):\n        if u32(pkt, i) < 0x55555555:\n            return 1\n"
        "    return 0\n",
    ],
    ids=["counting", "many ranges"],
)
def test_filter_of_too_many_parts_is_refused(body: str) -> None:
    with pytest.raises(VerifyError) as caught:
        understood("def accept(pkt):\n    if len(pkt) < 64:\n        return 0\n" + body)
    assert "could not be decided" in caught.value.reason
