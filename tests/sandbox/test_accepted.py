"""Programs that authors will write: each must be accepted, and do what its text says."""

from __future__ import annotations

import hashlib
import random
import struct
import timeit
import zlib
from typing import Any

import pytest

from tests.sandbox.oracle import check
from xnfs.sandbox import Buffer, Int, Ints, Signature, interpret, verify

OWNS = Signature("owns", (Buffer("meta", 4096), Int("part", 0, 199)), emits=3, max_emits=8)
OWNS_SOURCE = """\
def owns(meta, part):
    off = 256 + part * 16
    lblk, count, start = u32(meta, off), u32(meta, off + 4), u64(meta, off + 8)
    kind = start >> 56
    if kind == 1:
        emit(0, start & 0xFFFFFFFFFFFFFF, count)
    elif kind == 2:
        emit(1, start & 0xFFFFFFFFFFFFFF, 1)
"""
ACL = Signature(
    "acl",
    (
        *(Buffer(b, 4096) for b in ("old", "new")),
        *(Int(i, 0, 2**32 - 1) for i in ("uid", "gid")),
        Ints("groups", 32),
        Int("now"),
    ),
    returns=(0, 133),
)
ACL_SOURCE = '''\
def acl(old, new, uid, gid, groups, now):
    """Owner or group may write; time goes forward; the size matches the extents."""
    mode, owner, group = u16(old, 16), u32(old, 20), u32(old, 24)
    if uid == 0: return 0
    if not same(old, 0, new, 0, 16):
        return 1
    need = 2
    if uid == owner:
        need = 128
    elif gid == group or group in groups:
        need = 16
    if mode & need == 0:
        return 13
    if u64(new, 32) < u64(old, 32) or u64(new, 32) > now:
        return 22
    total = 0
    for i in range(12):
        total += u32(new, 64 + i * 8)
    blocks = u64(new, 40)
    if blocks < total: return 22
    slack = blocks - total
    if slack > 100:
        return 27
    return 0
'''
PACKET = Buffer("pkt", 1514, 14)
FILTER = Signature("match_udp", (PACKET, Int("port", 0, 65535)), returns=(0, 1))
FILTER_SOURCE = """\
def match_udp(pkt, port):
    if len(pkt) < 42 or be16(pkt, 12) != 0x0800:
        return 0
    ihl = (u8(pkt, 14) & 15) * 4
    if ihl < 20 or u8(pkt, 23) != 17:
        return 0
    if 14 + ihl + 8 > len(pkt):
        return 0
    return be16(pkt, 14 + ihl + 2) == port
"""


def test_owns_emits_extents() -> None:
    program = verify(OWNS_SOURCE, OWNS, budget=100)
    meta = bytearray(4096)
    assert program.run(meta, 7) == []
    struct.pack_into("<IIQ", meta, 256 + 7 * 16, 5, 9, 1 << 56 | 1234)
    assert program.run(meta, 7) == [(0, 1234, 9)]
    assert program.run(memoryview(meta), 7) == interpret(program, OWNS, (meta, 7), max_steps=100)
    check(program, OWNS, (bytes(meta), 7))


def test_owns_reads_of_partitions_are_disjoint() -> None:
    whole = verify(OWNS_SOURCE, OWNS, budget=100)
    assert whole.reads == (("meta", 256, 256 + 200 * 16),)
    for part in range(200):
        one = verify(OWNS_SOURCE, OWNS, budget=100, fix={"part": part})
        assert one.reads == (("meta", 256 + part * 16, 272 + part * 16),)


def test_program_names_itself_by_hash() -> None:
    program = verify(OWNS_SOURCE, OWNS, budget=100)
    assert program.source == OWNS_SOURCE
    assert program.digest == hashlib.sha256(OWNS_SOURCE.encode()).hexdigest()
    assert (3, "a load touches bytes 256..3443 of 'meta' only") in program.proof
    assert program.proof == sorted(program.proof, key=lambda f: f[0])


def test_fixed_program_refuses_other_values() -> None:
    program = verify(OWNS_SOURCE, OWNS, budget=100, fix={"part": 3})
    assert program.run(bytes(4096), 3) == []
    with pytest.raises(ValueError, match="part = 3 only"):
        program.run(bytes(4096), 4)


def _inode(mode: int, uid: int, blocks: int, extents: int) -> bytes:
    head = struct.pack("<16xHxxII", mode, uid, 50).ljust(32, b"\0")
    head += struct.pack("<QQ", 1000, blocks)
    return (head.ljust(64, b"\0") + struct.pack("<I4x", extents)).ljust(4096, b"\0")


@pytest.mark.parametrize(
    ("uid", "groups", "new", "now", "result"),
    [
        (0, (), _inode(0, 9, 3, 900), 0, 0),
        (7, (), _inode(0o600, 7, 3, 3), 2000, 0),
        (8, (), _inode(0o600, 7, 3, 3), 2000, 13),
        (8, (4, 50), _inode(0o600, 7, 3, 3), 2000, 13),
        (7, (), _inode(0o600, 7, 3, 3), 999, 22),
        (7, (), _inode(0o600, 7, 3, 4), 2000, 22),
        (7, (), _inode(0o600, 7, 103, 3), 2000, 0),
        (7, (), _inode(0o600, 7, 104, 3), 2000, 27),
    ],
)
def test_acl_decides(uid: int, groups: tuple[int, ...], new: bytes, now: int, result: int) -> None:
    program = verify(ACL_SOURCE, ACL, budget=1000)
    args = (_inode(0o600, 7, 3, 3), new, uid, 1, groups, now)
    assert program.run(*args) == result
    check(program, ACL, args)


def test_filter_finds_port_behind_any_header() -> None:
    program = verify(FILTER_SOURCE, FILTER, budget=200)
    for words in (5, 6, 15):
        packet = bytearray(14 + 4 * words + 8)
        packet[12:14], packet[14], packet[23] = b"\x08\0", 0x40 | words, 17
        packet[14 + 4 * words + 2 :][:2] = b"\0\x35"
        packet[14 + 4 * words + 3] = 0x35
        for size in (len(packet), len(packet) - 1):
            args = (bytes(packet[:size]), 0x35)
            assert program.run(*args) == (size == len(packet))
            check(program, FILTER, args)


def test_filter_on_random_packets_agrees() -> None:
    program = verify(FILTER_SOURCE, FILTER, budget=200)
    rng = random.Random(5)
    for _ in range(300):
        packet = bytearray(rng.randbytes(rng.choice((14, 41, 42, 60, 82, 100))))
        packet[12:14] = b"\x08\0"
        if len(packet) > 23:
            packet[23] = 17
        check(program, FILTER, (bytes(packet), rng.getrandbits(16)))


BLOCK = Signature("f", (Buffer("meta", 4096), Int("k"), Ints("groups", 8)), returns=(0, 2**64 - 1))
ACCEPTED: dict[str, tuple[str, Any]] = {
    "comparison is 0 or 1": ("return (k < 8) + (k < 9)", 2),
    "chained comparison": ("return 1 < k < 8 <= 8", 1),
    "membership": ("return (k in (1, 7)) * 10 + (k not in groups)", 10),
    "conditional expression": ("return 10 // k if k else 0", 1),
    "min and max": ("return min(k, 3, 5) + max(1, 2, 0)", 5),
    "tuple index": ("t = (4, 5, 6)\n    return t[k & 1] + t[2]", 11),
    "length of a tuple": ("return len(groups) + len(meta)", 4099),
    "index behind a test of the length": ("return groups[2] if len(groups) > 2 else 0", 7),
    "loop over a literal": ("s = 0\n    for x in (1, 2, 3):\n        s += x\n    return s", 6),
    "loop of known end": ("s = 0\n    for i in range(2, 5):\n        s += i\n    return s + i", 13),
    "loop that leaves": (
        "s = 0\n    for i in range(100):\n        if i == 3: continue\n"
        "        if i > k: break\n        s += i\n    return s",
        25,
    ),
    "constant bounds": (
        "s = 0\n    for i in range(8 // 2, 1 << 3):\n        s += 1\n    return s",
        4,
    ),
    "empty loop": ("for i in range(3, 1):\n        return 9\n    return 1", 1),
    "zero": ("return zero(meta, 8, 4088) + zero(meta, 0, 1)", 1),
    "same, of variable length": ("n = min(k, 16)\n    return same(meta, 16, meta, 40, n)", 1),
    "crc32": ("return crc32(meta, 0, 64)", zlib.crc32(b"\x01" + bytes(63))),
    "hash64": (
        "return hash64(meta, 0, 64, 0)",
        int.from_bytes(
            hashlib.blake2b(b"\x01" + bytes(63), digest_size=8, key=bytes(8)).digest(), "little"
        ),
    ),
    "byte orders": ("return u32(meta, 0) * 65536 + be16(meta, 0)", 65536 + 256),
    "tuple of loads": ("a, b = u32s(meta, 0, 2)\n    return a * 2 + b", 2),
    "difference behind a comparison": ("x = u8(meta, 0)\n    return x - k if x >= k else k - x", 6),
    "difference that stops at zero": ("return (k - min(k, 9)) | (max(k, 9) - k)", 2),
    "length cut to the room": (
        "o = min(u8(meta, 0) * 4, len(meta))\n    n = min(k, len(meta) - o)\n"
        "    return zero(meta, o, n)",
        1,
    ),
    "records of any length": (
        "o = 0\n    for i in range(9):\n        size = u8(meta, o) + 4\n"
        "        if o + size > 4095: break\n        if zero(meta, o, size): return o\n"
        "        o += size\n    return 0",
        5,
    ),
    "swap": ("a, b = 1, 2\n    a, b = b, a\n    return a * 10 + b", 21),
    "wide load out of order": (
        "a, b, c = u16(meta, 6), u8(meta, 0), u32(meta, 2)\n    return b",
        1,
    ),
    "wide load with a target in its offset": (
        "o = 0\n    o, b = u8(meta, o), u8(meta, o + 1)\n    return o * 10 + b",
        10,
    ),
    "statements that are not one wide load": (
        "o = 0\n    o = u8(meta, o)\n    b = u8(meta, o + 1)\n    return o * 10 + b",
        10,
    ),
    "repeated target": ("a, a = u8(meta, 0), u8(meta, 1)\n    return a", 0),
    "pass and docstring": ('"""Text with ; and { }."""\n    pass\n    return 1', 1),
}


@pytest.mark.parametrize("name", ACCEPTED)
def test_language_means_what_python_means(name: str) -> None:
    body, result = ACCEPTED[name]
    program = verify(f"def f(meta, k, groups):\n    {body}\n", BLOCK, budget=10_000)
    args = (b"\x01" + bytes(4095), 7, (5, 6, 7))
    assert program.run(*args) == result
    check(program, BLOCK, args)


def test_result_is_an_integer_not_a_bool() -> None:
    program = verify("def f(meta, k, groups): return k < 3", BLOCK, budget=9)
    assert type(program.run(b"", 1, ())) is int


def test_logic_gives_0_or_1_unlike_python() -> None:
    source = "def f(meta, k, groups): return (k and 9) * 100 + (0 or k) * 10 + (not k)"
    program = verify(source, BLOCK, budget=99)
    args = (bytes(4096), 7, ())
    assert program.run(*args) == interpret(program, BLOCK, args, max_steps=99) == 110


def test_steps_are_exact_without_branches() -> None:
    signature = Signature("f", (), returns=(0, 9))
    program = verify("def f():\n    x = 1 + 2\n    return x\n", signature, budget=7)
    assert check(program, signature, ()).steps == program.steps == 7


def test_neighbouring_loads_are_one_struct_call() -> None:
    body = "a = u32(meta, 8)\n    b = u64(meta, 16)\n    return a + (b >> 1)\n"
    program = verify(f"def f(meta, k, groups):\n    {body}", BLOCK, budget=100)
    names = program.run.__code__.co_names
    assert "_lI4xQ" in names
    assert not {"_lI", "_lQ"} & set(names)


def test_compiled_code_holds_nothing_of_the_author() -> None:
    program = verify(OWNS_SOURCE, OWNS, budget=100)
    code = program.run.__code__
    words = {*code.co_names, *code.co_varnames} - {"append"}
    assert all(w.startswith("_") or (w[0] == "v" and w[1:].isdigit()) for w in words)
    assert program.run.__globals__["__builtins__"] == {}


def test_verification_with_fix_is_quick() -> None:
    def again() -> None:
        _ = verify(OWNS_SOURCE, OWNS, budget=100, fix={"part": 9}).reads

    # About 40 µs; the margin is for a busy machine.
    assert min(timeit.repeat(again, number=100, repeat=5)) / 100 < 400e-6
