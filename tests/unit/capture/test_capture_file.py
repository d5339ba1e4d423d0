"""What `open_capture` gives and says, on files written byte by byte: right, cut, malformed and foreign."""

import gzip
import os
from pathlib import Path

import pytest

from agent.capture.capture_file import open_capture
from agent.capture.windows import WINDOW_BYTES
from agent.errors import CaptureError, CaptureReason
from tests.support.pcap_writer import frames_of, pcap, pcap_header, section

RECORDS = [
    (1_700_000_000_123_456_789, bytes(range(60))),
    (1_700_000_001_000_000_001, b"x" * 1514),
    (1_700_000_000_999_999_999, b"", 40),
    (1_700_000_002_000_000_000, b"y" * 64, 9000),
]


def expected(records, *, ns):
    return [
        (ts if ns else ts // 1000 * 1000, frame, max(w[0] if w else 0, len(frame)))
        for ts, frame, *w in records
    ]


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("ns", [False, True])
@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_both_orders_both_resolutions_plain_and_gzip(write, order, ns, pack):
    path = write(pack(pcap(RECORDS, order=order, ns=ns)))
    with open_capture(path) as capture:
        assert capture.format == ("gzip pcap" if pack is gzip.compress else "pcap")
        assert capture.link_types == (1,)
        assert frames_of(capture) == expected(RECORDS, ns=ns)
        assert capture.truncated is None
        assert capture.progress == 1.0
        assert capture.n_frames == len(RECORDS)
        assert capture.n_bytes == path.stat().st_size


def test_it_can_be_read_again(write):
    with open_capture(write(pcap(RECORDS))) as capture:
        first = frames_of(capture)
        assert frames_of(capture) == first
        assert capture.n_frames == len(RECORDS)


def test_batches_are_cut_and_outlive_the_file(write):
    records = [(i, bytes([i]) * i) for i in range(20)]
    with open_capture(write(pcap(records, ns=True)), batch_frames=6) as capture:
        batches = list(capture)
    assert [len(b) for b in batches] == [6, 6, 6, 2]
    assert frames_of(batches) == expected(records, ns=True)
    assert not any(b.buffer.flags.writeable for b in batches)


def test_a_file_without_frames(write):
    with open_capture(write(pcap([]))) as capture:
        assert list(capture) == []
        assert capture.truncated is None


def test_the_upper_bits_of_the_link_type_are_not_part_of_it(write):
    with open_capture(write(pcap(RECORDS, link_type=0x5400_0000 | 101))) as capture:
        assert capture.link_types == (101,)


def test_wirelen_below_caplen_is_raised_to_it(write):
    with open_capture(write(pcap([(0, b"abcd", 2)]))) as capture:
        assert frames_of(capture) == [(0, b"abcd", 4)]


def test_a_wirelen_beyond_31_bits_is_held_within_them(write):
    with open_capture(write(pcap([(0, b"abcd", 0xFFFF_FFFF)]))) as capture:
        assert frames_of(capture) == [(0, b"abcd", 0x7FFF_FFFF)]


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_cut_at_every_byte_the_whole_records_come_out(write, pack):
    """The file ends anywhere: every whole record is given, and what is left over is reported."""
    data = pcap(RECORDS)
    ends = [24]
    for _, frame, *_ in RECORDS:
        ends.append(ends[-1] + 16 + len(frame))
    for cut in range(24, len(data), 1 if pack is bytes else 37):
        with open_capture(write(pack(data[:cut]))) as capture:
            whole = sum(end <= cut for end in ends) - 1
            assert frames_of(capture) == expected(RECORDS[:whole], ns=False)
            left = cut - ends[whole]
            if left:
                said = f"cut in mid-record at byte {ends[whole]}: {left} bytes left over"
                assert capture.truncated == said
            else:
                assert capture.truncated is None


def test_a_malformed_record_ends_it_and_is_reported(write):
    bad = bytes(8) + (262_145).to_bytes(4, "little") + bytes(4) + bytes(300_000)
    with open_capture(write(pcap(RECORDS) + bad)) as capture:
        assert frames_of(capture) == expected(RECORDS, ns=False)
        assert capture.truncated is not None
        assert f"malformed record at byte {len(pcap(RECORDS))}" in capture.truncated
        assert "262145" in capture.truncated


def test_the_largest_record_is_read(write):
    records = [(0, b"z" * 262_144), (1000, b"after")]
    with open_capture(write(pcap(records))) as capture:
        assert frames_of(capture) == expected(records, ns=False)


def test_a_cut_gzip_gives_what_could_be_inflated(write):
    noise = [(i * 1000, os.urandom(1000)) for i in range(600)]
    packed = gzip.compress(pcap(noise))
    with open_capture(write(packed[: len(packed) // 2])) as capture:
        seen = frames_of(capture)
        assert 250 < len(seen) < 320
        assert seen == expected(noise[: len(seen)], ns=False)
        assert "the gzip stream is cut at compressed byte" in capture.truncated


def test_a_damaged_gzip_gives_what_stood_before(write):
    packed = bytearray(gzip.compress(pcap(RECORDS)))
    packed[-6] ^= 0xFF  # its checksum
    with open_capture(write(packed)) as capture:
        frames_of(capture)
        assert "the gzip stream is damaged" in capture.truncated


def test_several_gzip_members_are_one_stream(write):
    data = pcap(RECORDS)
    packed = gzip.compress(data[:100]) + gzip.compress(data[100:]) + bytes(512)
    with open_capture(write(packed)) as capture:
        assert frames_of(capture) == expected(RECORDS, ns=False)
        assert capture.truncated is None


def test_bytes_behind_the_gzip_stream_are_reported(write):
    with open_capture(write(gzip.compress(pcap(RECORDS)) + b"something else")) as capture:
        assert len(frames_of(capture)) == len(RECORDS)
        assert "not gzip" in capture.truncated


REFUSED = {
    "empty": (b"", CaptureReason.EMPTY, "the file is empty"),
    "text": (b"No. Time Source", CaptureReason.FOREIGN, "not a capture file"),
    "zip": (b"PK\x03\x04" + bytes(60), CaptureReason.FOREIGN, "it starts with 50 4b 03 04"),
    "one byte": (b"\xd4", CaptureReason.TRUNCATED, "ends inside its header, after 1 bytes"),
    "cut header": (pcap_header()[:23], CaptureReason.TRUNCATED, "inside its header, after 23"),
    "cut pcapng": (section()[:3], CaptureReason.TRUNCATED, "inside its header, after 3"),
    "radiotap": (pcap([], link_type=127), CaptureReason.LINK_TYPE, "radio capture (link type 127"),
    "802.11": (pcap([], link_type=105), CaptureReason.LINK_TYPE, "not read by this version"),
    "BLE": (pcap([], link_type=251), CaptureReason.LINK_TYPE, "radio capture (link type 251"),
    "btsnoop": (b"btsnoop\0" + bytes(40), CaptureReason.LINK_TYPE, "radio capture (btsnoop"),
    "ppp": (pcap([], link_type=9), CaptureReason.LINK_TYPE, "link type 9, PPP: not read"),
    "unknown link": (pcap([], link_type=4711), CaptureReason.LINK_TYPE, "link type 4711: not"),
    "modified pcap": (
        bytes.fromhex("34cdb2a1") + bytes(40),
        CaptureReason.FOREIGN,
        "editcap -F pcap",
    ),
    "empty gzip": (gzip.compress(b""), CaptureReason.EMPTY, "nothing in the gzip file"),
    "foreign gzip": (gzip.compress(b"hello, ward"), CaptureReason.FOREIGN, "not a capture file"),
    "cut gzip": (gzip.compress(pcap(RECORDS))[:9], CaptureReason.TRUNCATED, "gzip stream is cut"),
    "not gzip": (b"\x1f\x8bxx" + bytes(60), CaptureReason.TRUNCATED, "gzip stream is damaged"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_with_one_line_that_names_the_file(write, name):
    data, reason, words = REFUSED[name]
    path = write(data, name="ward 7.pcap")
    with pytest.raises(CaptureError) as caught:
        open_capture(path)
    assert caught.value.reason is reason
    assert words in str(caught.value)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_missing_directory_and_pipe(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path, reason, words in (
        (tmp_path / "nothing.pcap", CaptureReason.NOT_FOUND, "no such file"),
        (tmp_path, CaptureReason.UNREADABLE, "a directory"),
        (tmp_path / "pipe", CaptureReason.UNREADABLE, "not a regular file"),
    ):
        with pytest.raises(CaptureError) as caught:
            open_capture(path)
        assert caught.value.reason is reason
        assert words in str(caught.value)


def as_nobody(path: Path) -> str:
    """What `open_capture` says to a user without rights (in a child process)."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgid(65534)
            os.setuid(65534)
            open_capture(path)
            said = "opened"
        except CaptureError as error:
            said = f"{error.reason} {error}"
        os.write(writer, said.encode())
        os._exit(0)
    os.waitpid(child, 0)
    said = os.read(reader, 4096).decode()
    os.close(reader)
    os.close(writer)
    return said


@pytest.mark.root
def test_no_permission(write):
    path = write(pcap(RECORDS))
    for folder in path.parents[:3]:
        folder.chmod(0o755)
    path.chmod(0o600)
    assert as_nobody(path) == f"permission {path}: no permission to read it"


@pytest.mark.parametrize(
    "pack", [bytes, lambda data: gzip.compress(data, 1)], ids=["plain", "gzip"]
)
def test_a_file_larger_than_a_window(write, pack):
    """Records that a window's end cuts are read whole with the next one."""
    frame = bytes(range(256)) * 5
    records = [(i * 1000, frame[: 700 + i % 580]) for i in range(40_000)]
    data = pcap(records)
    assert len(data) > 2 * WINDOW_BYTES
    with open_capture(write(pack(data[:-1]))) as capture:
        at = 0
        for batch in capture:
            buffer = batch.buffer.tobytes()
            for i in range(0, len(batch), 97):
                offset, caplen = int(batch.offset[i]), int(batch.caplen[i])
                assert (int(batch.ts_ns[i]), buffer[offset : offset + caplen]) == records[at + i]
            at += len(batch)
        assert at == len(records) - 1
        assert "cut in mid-record" in capture.truncated
        assert capture.progress > 0.99
