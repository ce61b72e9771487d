"""The TAP device against the kernel of the host."""

from __future__ import annotations

import subprocess

import pytest

from tests.libos_net.namespace import Namespace, eventually
from xnfs import DeviceError
from xnfs.net import TapDevice

WHO_HAS_THEM = bytes.fromhex(
    "ffffffffffff 020000000002 0806"  # to all, from 10.9.0.2, ARP
    "0001 0800 06 04 0001 020000000002 0a090002 000000000000 0a090001"
)


def test_tap_frames_go_both_ways() -> None:
    with Namespace() as space:
        assert space.tap.send(WHO_HAS_THEM)
        answers: list[bytes] = []

        def answered() -> bool:
            while (frame := space.tap.receive()) is not None:
                answers.append(frame)
            return any(f[12:14] == b"\x08\x06" and f[20:22] == b"\x00\x02" for f in answers)

        eventually(answered, "Linux answers who has 10.9.0.1")
        # And the other way: what Linux sends of its own arrives here.
        space.run("bash", "-c", "echo > /dev/udp/10.9.0.3/9")
        eventually(lambda: _asked_for(space.tap), "Linux asks who has 10.9.0.3")


def _asked_for(tap: TapDevice) -> bool:
    frame = tap.receive()
    return frame is not None and frame[12:14] == b"\x08\x06" and frame[38:42] == b"\x0a\x09\x00\x03"


def test_tap_drops_what_does_not_fit() -> None:
    with Namespace(mtu=600) as space:
        assert not space.tap.send(bytes(13))
        assert not space.tap.send(bytes(615))
        assert space.tap.dropped == 2
        assert space.tap.send(WHO_HAS_THEM)


def test_tap_with_the_plug_out_drops() -> None:
    with Namespace() as space:
        space.sh("ip link set tap0 down")
        assert not space.tap.send(WHO_HAS_THEM)
        assert space.tap.dropped == 1


def test_tap_errors_say_what_is_wrong() -> None:
    with pytest.raises(DeviceError, match="1 to 15 bytes"):
        TapDevice.open("a-name-that-is-too-long")
    with pytest.raises(DeviceError, match="1 to 15 bytes"):
        TapDevice.open("")


def test_tap_leaves_nothing_behind() -> None:
    with Namespace():
        pass
    names = subprocess.run(["ip", "-o", "link"], capture_output=True, text=True, check=True).stdout
    assert "tap0" not in names
