"""IPv4 and IPv6 headers: addresses, lengths that lie, fragments, extension headers, tunnels."""

import pytest

from agent.decode.decoder import PacketDecoder
from agent.records import V4_MAPPED_LO, Reason
from tests.support.frames import IP6_A, IP6_B, IP_A, IP_B, batch_of, eth, ip4, ip6, tcp, udp
from tests.support.table_rows import NoStreams

DEST_OPTIONS = b"\x3c\x00" + bytes(6)


def decode(*frames, **options):
    return PacketDecoder(streams=NoStreams()).decode(batch_of(list(frames), **options))


def v6(payload, following, **options):
    return eth(ip6(payload, following, **options), 0x86DD)


def test_ipv4_columns():
    table = decode(eth(ip4(udp(b"hello"), 17)))
    assert (table.family[0], table.proto[0], table.ttl[0], table.ip_len[0]) == (4, 17, 64, 33)
    assert table.src_lo[0] == V4_MAPPED_LO | int.from_bytes(IP_A, "big")
    assert table.dst_lo[0] == V4_MAPPED_LO | int.from_bytes(IP_B, "big")
    assert (table.src_hi[0], table.dst_hi[0]) == (0, 0)


def test_ipv6_keeps_all_128_bits():
    table = decode(v6(udp(b"hello"), 17))
    assert [int(c[0]) for c in (table.src_hi, table.src_lo)] == [
        int.from_bytes(IP6_A[:8], "big"),
        int.from_bytes(IP6_A[8:], "big"),
    ]
    assert int(table.dst_hi[0]) == int.from_bytes(IP6_B[:8], "big")
    assert (table.family[0], table.proto[0], table.ttl[0], table.ip_len[0]) == (6, 17, 64, 53)


def test_ethernet_padding_is_no_payload():
    table = decode(eth(ip4(udp(b"x"), 17)) + bytes(17))
    assert (table.payload_len[0], table.payload_caplen[0]) == (1, 1)


def test_options_move_the_transport_header():
    table = decode(eth(ip4(tcp(b"abc"), 6, options=b"\x01" * 40)))
    assert (table.src_port[0], table.payload_len[0], table.reason[0]) == (40000, 3, 0)


def test_total_length_0_is_what_was_on_the_wire():
    table = decode(eth(ip4(tcp(b"z" * 30), 6, total=0)))
    assert (table.ip_len[0], table.payload_len[0]) == (70, 30)


def test_a_total_length_beyond_the_wire_is_kept_and_not_believed():
    table = decode(eth(ip4(tcp(b"z" * 30), 6, total=1500)))
    assert (table.ip_len[0], table.payload_len[0]) == (1500, 30)


@pytest.mark.parametrize(
    ("packet", "reason"),
    [
        (b"\x55" + ip4(tcp(), 6)[1:], Reason.BAD_IP_VERSION),
        (b"\x44" + ip4(tcp(), 6)[1:], Reason.BAD_IP_HEADER),
        (ip4(tcp(), 6, total=19), Reason.BAD_IP_HEADER),
        (ip4(tcp(), 6)[:19], Reason.TRUNCATED_L3),
    ],
)
def test_a_broken_ipv4_header_leaves_no_ip_columns(packet, reason):
    table = decode(eth(packet))
    assert table.reason[0] == reason
    assert (table.family[0], table.proto[0], table.src_lo[0], table.src_port[0]) == (0, 255, 0, 0)
    assert (table.eth_type[0], table.src_mac[0] != 0) == (0x0800, True)


def test_fragments():
    first = eth(ip4(udp(b"x" * 24, length=2000), 17, pieces=0x2000))
    later = eth(ip4(b"y" * 24, 17, pieces=0x2003))
    last = eth(ip4(b"y" * 24, 17, pieces=0x0003))
    whole = eth(ip4(udp(b""), 17, pieces=0x4000))
    table = decode(first, later, last, whole)
    assert table.fragment.tolist() == [1, 2, 2, 0]
    assert table.reason.tolist() == [0, Reason.FRAGMENT, Reason.FRAGMENT, 0]
    assert table.src_port.tolist() == [5000, 0, 0, 5000]
    assert table.payload_len.tolist() == [24, 0, 0, 0]
    assert table.proto.tolist() == [17] * 4


def test_fragments_over_ipv6():
    first = v6(b"\x11\x00\x00\x01" + bytes(4) + udp(b"x" * 24, length=2000), 44)
    later = v6(b"\x11\x00\x00\x08" + bytes(28), 44)
    atomic = v6(b"\x11\x00\x00\x00" + bytes(4) + udp(b"abc"), 44)
    table = decode(first, later, atomic)
    assert table.fragment.tolist() == [1, 2, 0]
    assert table.reason.tolist() == [0, Reason.FRAGMENT, 0]
    assert table.src_port.tolist() == [5000, 0, 5000]
    assert table.proto.tolist() == [17] * 3


def test_eight_extension_headers_are_followed_and_nine_are_not():
    def chain(n):
        return v6(DEST_OPTIONS * (n - 1) + b"\x06\x00" + bytes(6) + tcp(b"abc"), 60)

    table = decode(chain(8), chain(9))
    assert table.reason.tolist() == [0, Reason.TOO_MANY_HEADERS]
    assert table.proto.tolist() == [6, 60]  # where we stop is an extension header still
    assert table.dst_port.tolist() == [1883, 0]


def test_an_extension_header_past_the_packet_is_bad_and_one_past_the_capture_is_cut():
    long = v6(b"\x06\x09" + bytes(6) + tcp(), 0)
    cut = v6(DEST_OPTIONS * 2 + tcp(), 60)[:60]
    table = decode(long, cut, wirelen=[len(long), 200])
    assert table.reason.tolist() == [Reason.BAD_IP_HEADER, Reason.TRUNCATED_L3]
    assert table.family.tolist() == [6, 6]
    assert table.src_hi.all()


def test_an_ipv6_payload_length_of_0_is_a_jumbogram_unless_nothing_follows():
    table = decode(v6(udp(b"abcd"), 17, length=0), v6(b"", 59) + bytes(6))
    assert table.ip_len.tolist() == [52, 40]
    assert table.payload_len.tolist() == [4, 0]
    assert table.reason.tolist() == [0, 0]


@pytest.mark.parametrize("proto", [2, 4, 41, 47, 50, 51, 132], ids=str)
def test_a_tunnel_is_not_opened(proto):
    table = decode(eth(ip4(ip4(tcp(b"inner"), 6), proto)))
    assert (table.reason[0], table.proto[0]) == (Reason.UNKNOWN_PROTOCOL, proto)
    assert (table.src_port[0], table.payload_len[0]) == (0, 0)
