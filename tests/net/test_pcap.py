"""pcap files: written, read by ourselves and by tcpdump, replayed; damaged ones are refused."""

from __future__ import annotations

import io
import struct
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xnfs.net import (
    Conditions,
    PcapError,
    PcapWriter,
    Record,
    Recorded,
    Replay,
    VirtualClock,
    Wire,
    read_pcap_untrusted,
)

records = st.lists(
    st.builds(Record, st.integers(0, 2**32 * 10**9 - 1), st.binary(max_size=100)), max_size=5
)


def written(frames: list[Record]) -> bytes:
    file = io.BytesIO()
    writer = PcapWriter(file)
    for record in frames:
        writer.write(record.time, record.frame)
    return file.getvalue()


@given(records)
def test_pcap_reads_what_it_wrote(frames: list[Record]) -> None:
    assert list(read_pcap_untrusted(io.BytesIO(written(frames)))) == frames


@given(st.binary(max_size=80), records, st.integers(0, 200))
def test_pcap_of_any_bytes_is_read_or_refused(noise: bytes, frames: list[Record], at: int) -> None:
    good = written(frames)
    for data in (noise, good[:at], good[:at] + noise, good[: at % 24] + noise + good[at % 24 :]):
        try:
            read = list(read_pcap_untrusted(io.BytesIO(data)))
        except PcapError:
            continue
        assert sum(len(r.frame) for r in read) <= len(data)


def test_pcap_in_microseconds_and_big_endian() -> None:
    data = struct.pack(">IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1)
    data += struct.pack(">IIII", 7, 5, 3, 3) + b"abc"
    assert list(read_pcap_untrusted(io.BytesIO(data))) == [Record(7_000_005_000, b"abc")]


def test_pcap_of_other_links_is_refused() -> None:
    data = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 101)
    with pytest.raises(PcapError, match="link type 101"):
        list(read_pcap_untrusted(io.BytesIO(data)))


def test_recorded_frames_are_replayed_and_tcpdump_reads_them(tmp_path: Path) -> None:
    clock = VirtualClock(5_000_000_000)
    wire = Wire(clock, Conditions(latency=1000))
    arp = bytes.fromhex(
        "ffffffffffff02000000000a0806000108000604000102000000000a0a0000010000000000000a000002"
    )
    path = tmp_path / "a.pcap"
    with path.open("wb") as file:
        recorded = Recorded(wire.a, PcapWriter(file), clock)
        recorded.send(arp)
        wire.b.send(arp[::-1])
        clock.advance_to(5_000_001_000)
        assert recorded.receive() == arp[::-1]
        assert recorded.receive() is None
        assert not recorded.send(bytes(2000))
    said = subprocess.run(
        ["tcpdump", "-n", "-r", str(path)], capture_output=True, text=True, check=True
    ).stdout
    assert "ARP, Request who-has 10.0.0.2 tell 10.0.0.1" in said
    with path.open("rb") as file:
        replay = Replay(read_pcap_untrusted(file), clock)
    assert replay.receive() == arp
    assert replay.receive() is None
    assert replay.next_arrival() == 5_000_002_000
    clock.advance_to(5_000_002_000)
    assert replay.receive() == arp[::-1]
    assert replay.next_arrival() is None
