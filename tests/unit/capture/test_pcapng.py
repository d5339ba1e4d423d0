"""pcapng: interfaces with their own link type, resolution and offset; several sections; cut and malformed."""

import gzip
from collections import Counter

import numpy as np
import pytest

from agent.capture.capture_file import open_capture
from agent.capture.pcapng import ticks_to_ns
from agent.errors import CaptureError, CaptureReason
from tests.support.pcap_writer import (
    block,
    enhanced,
    frames_of,
    interface,
    obsolete,
    section,
    simple,
)

SECOND = 1_000_000_000
FRAME = bytes(range(61))


def read(path):
    with open_capture(path) as capture:
        return frames_of(capture), capture.truncated, dict(capture.skipped), capture.link_types


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_the_three_packet_blocks(write, order, pack):
    data = (
        section(order)
        + interface(order=order, snaplen=50)
        + enhanced(FRAME, 1_700_000_000_000_001, order=order, comment=b"why")
        + obsolete(FRAME[:3], 1_700_000_000_000_002, order=order)
        + block(0x0000_0BAD, b"custom", order=order)
        + simple(FRAME[:50], wirelen=1000, order=order)
        + enhanced(b"", 1_700_000_000_000_003, order=order, wirelen=77)
    )
    frames, cut, skipped, _ = read(write(pack(data)))
    base = 1_700_000_000 * SECOND
    assert frames == [
        (base + 1000, FRAME, 61),
        (base + 2000, FRAME[:3], 3),
        (base + 2000, FRAME[:50], 1000),
        (base + 3000, b"", 77),
    ]
    assert cut is None
    assert skipped == {}


def test_interfaces_have_their_own_link_type_time_and_offset(write):
    data = (
        section()
        + interface(1, resolution=9)
        + interface(101, resolution=0x80 | 10, offset_s=1000)
        + enhanced(b"a", 1_700_000_000_123_456_789, number=0)
        + enhanced(b"b", 5 * 1024 + 1, number=1)
        + interface(113, resolution=3)
        + enhanced(b"c", 1_700_000_000_125, number=2)
        + enhanced(b"d", 1_700_000_000_123_456_788, number=0)
        + enhanced(b"e", 1_700_000_000_123_456_790, number=0)
    )
    with open_capture(write(data)) as capture:
        batches = list(capture)
        assert [b.link_type for b in batches] == [1, 101, 113, 1]
        assert capture.link_types == (1, 101, 113)
    assert [frame[:2] for frame in frames_of(batches)] == [
        (1_700_000_000_123_456_789, b"a"),
        (1005 * SECOND + SECOND // 1024, b"b"),
        (1_700_000_000_125_000_000, b"c"),
        (1_700_000_000_123_456_788, b"d"),
        (1_700_000_000_123_456_790, b"e"),
    ]


def test_sections_forget_interfaces_and_may_change_the_byte_order(write):
    data = b"".join(
        section(order) + interface(kind, order=order) + enhanced(name, 7, order=order)
        for order, kind, name in (("<", 1, b"one"), (">", 101, b"two"), (">", 1, b"three"))
    )
    data += section("<") + enhanced(b"no interface", 7)
    frames, cut, skipped, links = read(write(data))
    assert [f[1] for f in frames] == [b"one", b"two", b"three"]
    assert links == (1, 101)
    assert skipped == {"unknown_interface": 1}
    assert cut is None


def test_an_interface_described_later_is_unknown_before(write):
    data = (
        section()
        + interface()
        + enhanced(b"early", number=1)
        + interface()
        + enhanced(b"late", number=1)
    )
    frames, _, skipped, _ = read(write(data))
    assert [f[1] for f in frames] == [b"late"]
    assert skipped == {"unknown_interface": 1}


def test_frames_of_a_radio_interface_are_counted_and_the_others_read(write):
    data = section() + interface(127) + interface(1)
    data += enhanced(b"radio") * 3 + enhanced(b"wired", number=1)
    frames, _, skipped, links = read(write(data))
    assert [f[1] for f in frames] == [b"wired"]
    assert skipped == {"link_type_127": 3}
    assert links == (127, 1)


def test_a_file_of_radio_frames_alone_is_refused(write):
    path = write(section() + interface(127) + enhanced(b"radio"))
    with pytest.raises(CaptureError, match="radio capture") as caught:
        read(path)
    assert caught.value.reason is CaptureReason.LINK_TYPE


def test_cut_at_every_byte_the_whole_blocks_come_out(write):
    blocks = [
        section(),
        interface(),
        enhanced(b"abc", 1),
        simple(b"defgh"),
        enhanced(b"", 2, comment=b"end"),
    ]
    data = b"".join(blocks)
    ends = np.cumsum([len(b) for b in blocks]).tolist()
    for cut in range(12, len(data) + 1):
        frames, said, _, _ = read(write(data[:cut]))
        whole = sum(end <= cut for end in ends)
        assert len(frames) == max(whole - 2, 0)
        left = cut - (ends[whole - 1] if whole else 0)
        at = cut - left
        assert said == (f"cut in mid-block at byte {at}: {left} bytes left over" if left else None)


MALFORMED = {
    "length below 12": block(6, b"")[:4] + (8).to_bytes(4, "little") + bytes(40),
    "length not a multiple of 4": block(6, b"")[:4] + (33).to_bytes(4, "little") + bytes(40),
    "lengths differ": enhanced(FRAME)[:-4] + bytes(4),
    "caplen beyond the block": block(6, bytes(12) + (200).to_bytes(4, "little") * 2 + bytes(16)),
    "packet block too short": block(6, bytes(8)),
    "packet block too long": (6).to_bytes(4, "little")
    + (1 << 20).to_bytes(4, "little")
    + bytes(60),
    "section of unknown byte order": block(0x0A0D0D0A, bytes(16)),
    "zeros": bytes(64),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_block_ends_it_and_is_reported(write, name):
    before = section() + interface() + enhanced(FRAME, 5)
    frames, said, _, _ = read(write(before + MALFORMED[name] + enhanced(FRAME)))
    assert len(frames) == 1
    assert said.startswith("malformed ")
    assert said.endswith(f" at byte {len(before)}: nothing behind it is read")


def test_a_block_larger_than_a_window_is_stepped_over(write):
    large = block(0x0BAD, bytes(17 << 20))
    head = section() + interface()
    for pack in (bytes, gzip.compress):
        frames, said, _, _ = read(write(pack(head + enhanced(b"a") + large + enhanced(b"b"))))
        assert [f[1] for f in frames] == [b"a", b"b"]
        assert said is None
    frames, said, _, _ = read(write(head + enhanced(b"a") + large[:-1000]))
    assert [f[1] for f in frames] == [b"a"]
    assert "cut in mid-block" in said


def test_many_sections_and_interfaces(write):
    data = b"".join(
        section("<>"[i % 2])
        + interface(order="<>"[i % 2]) * 3
        + enhanced(b"f", order="<>"[i % 2], number=2)
        for i in range(300)
    )
    frames, said, skipped, _ = read(write(data))
    assert (len(frames), said, Counter(skipped)) == (300, None, Counter())


@pytest.mark.parametrize(
    "resolution",
    [*range(25), *(0x80 | e for e in (0, 1, 9, 10, 20, 30, 31, 32, 33, 40, 50, 63, 64, 90, 127))],
)
def test_ticks_are_exact(resolution):
    ticks = [
        0,
        1,
        999,
        2**31 + 5,
        1_700_000_000,
        2**40 + 12345,
        1_700_000_000_123_456_789,
        2**63,
        2**64 - 1,
    ]
    exponent = resolution & 0x7F
    per_second = 2**exponent if resolution & 0x80 else 10**exponent
    want = [min(t * SECOND // per_second, 2**62) for t in ticks]
    assert ticks_to_ns(np.array(ticks, np.uint64), resolution).tolist() == want
