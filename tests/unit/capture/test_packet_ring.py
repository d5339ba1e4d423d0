"""Event time of live frames, and the one line for what cannot be listened to. No root needed."""

import sys
from pathlib import Path

import numpy as np
import pytest

from agent.capture.link_types import of_interface
from agent.capture.packet_ring import open_live, rebase
from agent.capture.packet_socket import bridge_of, is_up, reading_failed
from agent.errors import CaptureError, CaptureReason
from agent.records import LinkType, Placement

SECOND = 1_000_000_000
WALL_NS = 1_700_000_000 * SECOND
NOW_NS = 5000 * SECOND


def at(*seconds):
    return np.array([WALL_NS + round(s * SECOND) for s in seconds], np.int64)


def test_times_are_re_based_with_the_offset_of_now():
    offset = WALL_NS - NOW_NS
    ts = rebase(
        at(-0.5, -0.1, 0), offsets_ns=(offset, offset), between_ns=(NOW_NS - SECOND, NOW_NS)
    )
    assert ts.tolist() == [NOW_NS - SECOND // 2, NOW_NS - SECOND // 10, NOW_NS]


def test_a_backlog_keeps_its_age():
    offset = WALL_NS - NOW_NS
    ts = rebase(at(-30), offsets_ns=(offset, offset), between_ns=(NOW_NS - SECOND, NOW_NS))
    assert ts.tolist() == [NOW_NS - 30 * SECOND]


@pytest.mark.parametrize("step_s", [-3600, -1, 1, 3600, 56 * 365 * 86400])
def test_a_step_of_the_wall_clock_moves_no_frame_in_time(step_s):
    """Two frames before the step, two after it, all within the last second."""
    offset = WALL_NS - NOW_NS
    wall = at(-0.9, -0.6, -0.3 + step_s, -0.1 + step_s)
    ts = rebase(
        wall,
        offsets_ns=(offset, offset + step_s * SECOND),
        between_ns=(NOW_NS - SECOND, NOW_NS),
    )
    assert ts.tolist() == [NOW_NS - round(s * SECOND) for s in (0.9, 0.6, 0.3, 0.1)]


def test_no_time_lies_in_the_future():
    offset = WALL_NS - NOW_NS
    ts = rebase(at(0.02), offsets_ns=(offset, offset), between_ns=(NOW_NS - SECOND, NOW_NS))
    assert ts.tolist() == [NOW_NS]


def test_an_interface_that_is_not_there_is_told_with_those_that_are():
    with pytest.raises(CaptureError) as caught:
        open_live("ward9", placement=Placement.TAP)
    assert caught.value.reason is CaptureReason.NO_INTERFACE
    assert caught.value.retriable
    assert str(caught.value).startswith("ward9: no such interface; there are: lo")
    assert not is_up("ward9")
    assert bridge_of("ward9") is None


def test_hardware_types():
    assert of_interface(1, "eth0") is LinkType.ETHERNET
    assert of_interface(772, "lo") is LinkType.ETHERNET
    assert of_interface(0xFFFE, "tun0") is LinkType.RAW
    for arphrd, words in (
        (803, "a radio in monitor mode (IEEE 802.11, radiotap)"),
        (776, "type 776"),
    ):
        with pytest.raises(CaptureError) as caught:
            of_interface(arphrd, "wlan1")
        assert caught.value.reason is CaptureReason.LINK_TYPE
        assert words in str(caught.value)


def test_no_source_file_of_capture_can_send():
    """Passive only: no call that transmits, on any socket, in any file of the package."""
    package = Path(sys.modules["agent.capture"].__file__).parent
    for path in package.glob("*.py"):
        text = path.read_text()
        for word in (".send(", ".sendto(", ".sendmsg(", ".sendall(", "TX_RING"):
            assert word not in text, f"{path.name}: {word}"


def test_an_error_that_nobody_knows_is_still_one_line():
    error = reading_failed(OSError(5, "Input/output error"), "lo")
    assert str(error) == "lo: cannot be read: Input/output error"
    assert error.retriable
