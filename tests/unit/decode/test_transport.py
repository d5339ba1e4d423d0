"""TCP, UDP and ICMP: fields, options, payloads, joined segments, and lengths that lie."""

import pytest

from agent.decode.decoder import PacketDecoder
from agent.records import Reason
from tests.support.frames import (
    ESTABLISHED,
    LINUX_SYN,
    MSS,
    SACK_OK,
    TIMESTAMPS,
    WSCALE,
    batch_of,
    eth,
    ip4,
    ip6,
    tcp,
    udp,
)
from tests.support.table_rows import NoStreams


def decode(*frames, **options):
    return PacketDecoder(streams=NoStreams()).decode(batch_of(list(frames), **options))


def segment(*args, **options):
    return eth(ip4(tcp(*args, **options), 6))


def test_tcp_columns():
    table = decode(segment(b"abc", flags=0x1C2))
    assert (table.src_port[0], table.dst_port[0]) == (40000, 1883)
    assert (table.tcp_seq[0], table.tcp_ack[0]) == (0x01020304, 0xA0B0C0D0)
    assert (table.tcp_flags[0], table.tcp_window[0]) == (0x1C2, 0x2000)
    assert (table.payload_off[0], table.payload_len[0], table.payload_caplen[0]) == (54, 3, 3)


def test_all_twelve_flag_bits():
    assert decode(segment(flags=0xFFF), segment(flags=0)).tcp_flags.tolist() == [0xFFF, 0]


@pytest.mark.parametrize(
    ("options", "mss", "wscale", "timestamp"),
    [
        (b"", -1, -1, False),
        (MSS, 1460, -1, False),
        (LINUX_SYN, 1460, 7, True),
        (ESTABLISHED, -1, -1, True),
        (ESTABLISHED + b"\x01\x01\x05\x0a" + bytes(8), -1, -1, True),
        (b"\x01" * 37 + WSCALE, -1, 7, False),
        (MSS + b"\x02\x04\x00\x10", 1460, -1, False),  # the first one counts
        (WSCALE + b"\x00" + MSS, -1, 7, False),  # nothing counts after the end of the list
        (SACK_OK + b"\xfd\x00" + MSS, -1, -1, False),  # a length of 0 would never end
        (SACK_OK + b"\xfd\x09" + MSS, -1, -1, False),  # a length past the header
        (b"\x02\x03\x05" + WSCALE, -1, 7, False),  # an MSS option of a wrong length
        (b"\x01\x01" + TIMESTAMPS[:2] + bytes(8), -1, -1, True),
    ],
)
def test_options(options, mss, wscale, timestamp):
    v4 = segment(b"payload", options=options)
    v6 = eth(ip6(tcp(b"payload", options=options), 6), 0x86DD)
    table = decode(v4, v6)
    assert table.tcp_mss.tolist() == [mss] * 2
    assert table.tcp_wscale.tolist() == [wscale] * 2
    assert table.tcp_timestamp.tolist() == [timestamp] * 2
    assert table.payload_len.tolist() == [7, 7]


def test_options_that_the_capture_cut_are_not_read():
    frame = segment(options=MSS + WSCALE + b"\x00")
    table = decode(frame[:58], frame[:57], frame[:61], wirelen=[len(frame)] * 3)
    assert table.tcp_mss.tolist() == [1460, -1, 1460]
    assert table.tcp_wscale.tolist() == [-1, -1, 7]
    assert table.reason.tolist() == [Reason.TRUNCATED_L4] * 3
    assert table.tcp_flags.tolist() == [0x18] * 3


def test_an_empty_payload_has_no_offset():
    table = decode(segment(), segment(b"x"))
    assert table.payload_off.tolist() == [0, 54 + 54]


def test_a_payload_that_was_not_captured_still_has_its_length():
    frame = segment(b"x" * 100)
    table = decode(frame[:54], frame[:60], wirelen=[len(frame)] * 2)
    assert table.payload_len.tolist() == [100, 100]
    assert table.payload_caplen.tolist() == [0, 6]
    assert table.payload_off.tolist() == [0, 54 + 54]
    assert table.reason.tolist() == [0, 0]


@pytest.mark.parametrize("words", [4, 9])
def test_a_wrong_data_offset_keeps_the_fixed_fields(words):
    table = decode(segment(b"abc", words=words))
    assert (table.reason[0], table.src_port[0]) == (Reason.BAD_L4_HEADER, 40000)
    assert (table.tcp_flags[0], table.payload_len[0], table.tcp_mss[0]) == (0x18, 0, -1)


def test_a_datagram_too_short_for_its_header_is_bad_and_a_cut_one_is_truncated():
    short = eth(ip4(tcp()[:12], 6))
    whole = segment()
    table = decode(short, whole[:50], wirelen=[len(short), len(whole)])
    assert table.reason.tolist() == [Reason.BAD_L4_HEADER, Reason.TRUNCATED_L4]
    assert table.src_port.tolist() == [0, 0]


def test_udp_length_bounds_the_payload():
    frames = [eth(ip4(udp(b"abcdef", length=n), 17)) for n in (14, 10, 8, 900, 7)]
    table = decode(*frames)
    assert table.payload_len.tolist() == [6, 2, 0, 6, 0]
    assert table.reason.tolist() == [0, 0, 0, 0, Reason.BAD_L4_HEADER]


def test_udp_length_0_is_a_jumbogram_over_ipv6_only():
    table = decode(eth(ip6(udp(b"abc", length=0), 17), 0x86DD), eth(ip4(udp(b"abc", length=0), 17)))
    assert table.payload_len.tolist() == [3, 0]
    assert table.reason.tolist() == [0, Reason.BAD_L4_HEADER]


def test_icmp_type_and_code_of_both_families():
    echo = b"\x08\x03" + bytes(6)
    table = decode(
        eth(ip4(echo + b"abcd", 1)), eth(ip6(b"\x80\x01" + bytes(6), 58), 0x86DD), segment()
    )
    assert table.icmp_type.tolist() == [8, 128, 255]
    assert table.icmp_code.tolist() == [3, 1, 255]
    assert table.payload_len.tolist() == [4, 0, 0]
    assert table.src_port.tolist() == [0, 0, 40000]


@pytest.mark.parametrize(
    ("payload_len", "segments"),
    [(1448, 1), (1460, 1), (1600, 2), (2896, 2), (2897, 3), (60000, 42)],
)
def test_joined_segments_are_estimated(payload_len, segments):
    assert decode(segment(bytes(payload_len), options=ESTABLISHED)).segments[0] == segments


def test_a_large_datagram_is_one_packet():
    assert decode(eth(ip4(udp(bytes(9000)), 17))).segments.tolist() == [1]
