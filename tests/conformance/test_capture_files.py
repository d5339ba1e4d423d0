"""Every public capture, frame by frame as Wireshark's own reader (editcap) gives it: time, lengths, bytes."""

import shutil
import struct
import subprocess
from decimal import Decimal

import pytest

from agent.capture.capture_file import open_capture
from agent.errors import CaptureError, CaptureReason
from tests.support.pcap_writer import enhanced, frames_of, interface, obsolete, section

REFUSED = {
    "BGP_Cisco_hdlc_slarp.pcap": "link type 9, PPP",
    "dlt_ppp.pcap": "link type 9, PPP",
}
"""Files of apps, mqtt and scans that get a clear error."""

SECONDS_SIGNED = {"fuzz-2021-06-07-c6c72a0a56.pcap"}
"""Wireshark reads a pcap's seconds as signed 32 bits and cannot write them; the format (and we) as unsigned."""


def wireshark_frames(path, copy):
    """[(ts_ns, bytes, wirelen)] of a capture, through a nanosecond pcap made by editcap."""
    subprocess.run(
        ["editcap", "-F", "nsecpcap", path, copy], check=True, capture_output=True, timeout=60
    )
    data = copy.read_bytes()
    frames, at = [], 24
    while at < len(data):
        seconds, ns, caplen, wirelen = struct.unpack_from("<IIII", data, at)
        frame = data[at + 16 : at + 16 + caplen]
        frames.append((seconds * 10**9 + ns, frame, max(wirelen, caplen)))
        at += 16 + caplen
    return frames


def our_frames(path):
    with open_capture(path) as capture:
        return frames_of(capture), capture.truncated, dict(capture.skipped)


@pytest.mark.parametrize("folder", ["apps", "mqtt", "scans"])
def test_frames_equal_wireshark(captures, tmp_path, folder):
    assert shutil.which("editcap"), "editcap is missing: apt-get install tshark"
    differ = {}
    for path in sorted((captures / folder).iterdir()):
        if path.name in REFUSED:
            with pytest.raises(CaptureError, match=REFUSED[path.name]):
                our_frames(path)
            continue
        frames, cut, skipped = our_frames(path)
        assert (cut, skipped) == (None, {}), path
        if path.name in SECONDS_SIGNED:
            continue
        want = wireshark_frames(path, tmp_path / "copy.pcap")
        if frames != want:
            differ[path.name] = (len(frames), len(want))
    assert differ == {}


@pytest.mark.parametrize("folder", ["ble", "wifi"])
def test_radio_captures_are_refused_as_such(captures, folder):
    for path in sorted((captures / folder).iterdir()):
        with pytest.raises(
            CaptureError, match=r"radio capture .*not read by this version"
        ) as caught:
            our_frames(path)
        assert caught.value.reason is CaptureReason.LINK_TYPE


@pytest.mark.parametrize("order", ["<", ">"])
def test_times_of_every_kind_of_pcapng_block_equal_tshark(tmp_path, order):
    """Resolutions in powers of ten and two, an offset, three packet blocks, a section in the other byte order."""
    frame, now_s = bytes(range(64)), 1_700_000_000
    other = ">" if order == "<" else "<"
    path = tmp_path / "mixed.pcapng"
    path.write_bytes(
        section(order)
        + interface(order=order, resolution=9)
        + interface(order=order, resolution=0x80 | 20, offset_s=1000)
        + interface(order=order, resolution=3)
        + enhanced(frame, now_s * 10**9 + 123_456_789, order=order)
        + enhanced(frame, (now_s << 20) + 77_777, number=1, order=order)
        + obsolete(frame, now_s * 1000 + 5, number=2, order=order)
        + enhanced(frame[:20], now_s * 10**9, order=order, wirelen=99, comment=b"short")
        + section(other)
        + interface(order=other, resolution=10)
        + enhanced(frame[:33], now_s * 10**10 + 999, order=other)
    )
    fields = ("-e", "frame.time_epoch", "-e", "frame.len", "-e", "frame.cap_len")
    argv = ["tshark", "-n", "-r", path, "-T", "fields", *fields]
    out = subprocess.run(argv, check=True, capture_output=True, text=True, timeout=60).stdout
    rows = [line.split("\t") for line in out.splitlines()]
    frames, cut, _ = our_frames(path)
    assert cut is None
    assert len(frames) == 5
    assert [(ts_ns, wirelen, len(frame)) for ts_ns, frame, wirelen in frames] == [
        (int(Decimal(ts) * 10**9), int(wirelen), int(caplen)) for ts, wirelen, caplen in rows
    ]
