"""The fast Internet checksum against the definition."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from libos.net import checksum


def defined(data: bytes, before: int = 0) -> int:
    """RFC 1071, section 1, word by word."""
    total = before
    for at in range(0, len(data), 2):
        total += int.from_bytes(data[at : at + 2].ljust(2, b"\0"), "big")
        total = (total & 0xFFFF) + (total >> 16)
    return total ^ 0xFFFF


words = st.lists(st.sampled_from([0, 1, 0x7FFF, 0xFFFE, 0xFFFF]), max_size=6)


@given(st.binary(max_size=2000) | words.map(lambda w: b"".join(x.to_bytes(2, "big") for x in w)))
@example(b"")
@example(bytes(20))
@example(b"\xff\xff")
@example(b"\xff\xff\x00\x00")
def test_checksum_is_as_defined(data: bytes) -> None:
    assert checksum.checksum(data) == defined(data)
    assert checksum.holds(data) == (defined(data) == 0)


@given(st.lists(st.binary(max_size=50).filter(lambda b: len(b) % 2 == 0), max_size=5))
def test_sums_of_parts_add_up(parts: list[bytes]) -> None:
    total = sum(checksum.partial_sum(part) for part in parts)
    assert checksum.finish(total) == defined(b"".join(parts))


@given(st.binary(min_size=4, max_size=60), st.integers(0, 1), st.integers(0, 0x1FFFF))
def test_stamped_bytes_hold(data: bytes, at: int, before: int) -> None:
    header = bytearray(data)
    header[2 * at : 2 * at + 2] = b"\0\0"
    checksum.stamp(header, 2 * at, before)
    assert checksum.holds(header, before)
