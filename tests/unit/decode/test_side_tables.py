"""ARP, neighbour discovery, DNS, DHCP and TLS: what becomes a row, and what a row says."""

import struct

import pytest

from agent.decode.decoder import PacketDecoder
from agent.records import Reason, TlsRecord
from tests.support.frames import (
    DNS_HEADER,
    IP6_B,
    IP_A,
    IP_B,
    MAC_A,
    MAC_B,
    arp,
    batch_of,
    client_hello,
    dhcp,
    eth,
    ip4,
    ip6,
    nd,
    tcp,
    udp,
)
from tests.support.table_rows import NoStreams

A, B = int.from_bytes(MAC_A, "big"), int.from_bytes(MAC_B, "big")


def decode(*frames, **options):
    return PacketDecoder(streams=NoStreams()).decode(batch_of(list(frames), **options))


def of_tcp(payload):
    return eth(ip4(tcp(payload, ports=(40000, 8883)), 6))


def of_udp(payload, ports):
    return eth(ip4(udp(payload, ports), 17))


def of_icmp6(payload):
    return eth(ip6(payload, 58), 0x86DD)


def test_arp():
    table = decode(of_udp(b"", (1, 2)), eth(arp(2) + bytes(18), 0x0806))
    row = table.arp
    assert (row.row.tolist(), row.op.tolist()) == ([1], [2])
    assert (row.sender_mac[0], row.target_mac[0]) == (A, B)
    assert row.sender_ip[0] == int.from_bytes(IP_A, "big")
    assert row.target_ip[0] == int.from_bytes(IP_B, "big")
    assert (table.reason[1], table.family[1], table.src_lo[1]) == (0, 0, 0)


def test_arp_of_other_hardware_and_cut_arp():
    frames = [eth(b"\x00\x06" + arp()[2:], 0x0806), eth(arp()[:27], 0x0806), eth(arp()[:4], 0x0806)]
    table = decode(*frames)
    assert table.reason.tolist() == [Reason.BAD_ARP, Reason.TRUNCATED_L3, Reason.TRUNCATED_L3]
    assert len(table.arp.row) == 0


def test_neighbour_discovery():
    solicits = nd(135, b"\x01\x01" + MAC_A)
    advertises = nd(136, b"\x0e\x01" + bytes(6) + b"\x02\x01" + MAC_B)
    bare = nd(136, b"")
    row = decode(
        of_icmp6(solicits), of_icmp6(advertises), of_icmp6(bare), of_icmp6(nd(134, b""))
    ).nd
    assert row.row.tolist() == [0, 1, 2]
    assert row.icmp_type.tolist() == [135, 136, 136]
    assert row.link_mac.tolist() == [A, B, 0]
    assert row.flags.tolist() == [0, 7, 7]
    assert row.target_lo.tolist() == [int.from_bytes(IP6_B[8:], "big")] * 3


def test_neighbour_discovery_is_ipv6s_own():
    assert len(decode(eth(ip4(nd(136, b"\x02\x01" + MAC_B), 58))).nd.row) == 0


def test_a_link_layer_option_is_the_messages_own_kind_and_ends_at_length_0():
    other = nd(135, b"\x02\x01" + MAC_B)
    endless = nd(135, bytes(8) + b"\x01\x01" + MAC_A)
    assert decode(of_icmp6(other), of_icmp6(endless)).nd.link_mac.tolist() == [0, 0]


@pytest.mark.parametrize("port", [53, 5353, 5355])
def test_dns_by_port_either_way(port):
    row = decode(
        of_udp(DNS_HEADER, (port, 9)), of_udp(DNS_HEADER, (9, port)), of_udp(DNS_HEADER, (9, 9))
    ).dns
    assert row.row.tolist() == [0, 1]
    assert row.response.tolist() == [True, True]
    assert (row.opcode[0], row.rcode[0], row.n_questions[0], row.n_answers[0]) == (0, 3, 1, 2)


def test_a_dns_query_and_half_a_header():
    query = b"\x00\x07\x29\x00" + struct.pack(">HHHH", 3, 0, 0, 0)
    row = decode(of_udp(query, (9, 53)), of_udp(query[:11], (9, 53))).dns
    assert (row.row.tolist(), row.response.tolist(), row.opcode.tolist()) == ([0], [False], [5])


@pytest.mark.parametrize(
    ("options", "kind"),
    [
        (b"\x35\x01\x03\xff", 3),
        (b"\x00\x00\x3d\x02ab\x35\x01\x05", 5),
        (b"\xff\x35\x01\x05", 0),
        (b"", 0),
        (b"\x00" * 9 + b"\x35\x01\x05", 0),  # not among the first eight
        (b"\x35\x02\x05\x05", 0),
        (b"\x35\x01", 0),
    ],
)
def test_dhcp_message_type(options, kind):
    row = decode(of_udp(dhcp(options), (68, 67))).dhcp
    assert (row.op.tolist(), row.message_type.tolist()) == ([1], [kind])


def test_bootp_without_a_cookie_and_a_cut_one():
    plain = dhcp(b"")[:236]
    row = decode(of_udp(plain, (67, 68)), of_udp(plain[:235], (67, 68))).dhcp
    assert (row.row.tolist(), row.message_type.tolist()) == ([0], [0])


@pytest.mark.parametrize(
    ("payload", "kind"),
    [
        (b"\x17\x03\x03\x00\x20abc", TlsRecord.APPLICATION_DATA),
        (b"\x15\x03\x01\x00\x02\x02\x28", TlsRecord.ALERT),
        (b"\x14\x03\x03\x00\x01\x01", TlsRecord.CHANGE_CIPHER_SPEC),
        (b"\x16\x03\x03\x00\x7a\x02\x00\x00\x76\x03\x03", TlsRecord.SERVER_HELLO),
        (b"\x16\x03\x03\x00\x7a\x0b\x00\x00\x76\x03\x03", TlsRecord.HANDSHAKE_OTHER),
        (b"\x16\x03\x03\x00\x28\x01\x99\x00\x76\x03\x03", TlsRecord.HANDSHAKE_OTHER),  # ciphertext
        (b"\x16\x03\x03\x00\x7a\x01", TlsRecord.HANDSHAKE_OTHER),
        (b"\x14\x03\x03\x00\x02\x01", TlsRecord.NONE),
        (b"\x17\x03\x03\x00\x00", TlsRecord.NONE),
        (b"\x17\x03\x03\xff\xff", TlsRecord.NONE),
        (b"\x17\x03\x05\x00\x20", TlsRecord.NONE),
        (b"\x17\x02\x03\x00\x20", TlsRecord.NONE),
        (b"\x18\x03\x03\x00\x20", TlsRecord.NONE),
        (b"\x13\x03\x03\x00\x20", TlsRecord.NONE),
        (b"\x17\x03\x03\x00", TlsRecord.NONE),
        (b"\x10\x0c\x00\x04MQTT", TlsRecord.NONE),
    ],
)
def test_what_a_payload_opens_with(payload, kind):
    assert decode(of_tcp(payload)).tls.tolist() == [kind]


@pytest.mark.parametrize("sid", [0, 32])
@pytest.mark.parametrize(("n_ciphers", "n_extensions"), [(1, 0), (3, 4), (60, 25)])
def test_a_client_hello_by_shape(sid, n_ciphers, n_extensions):
    hello = client_hello(n_ciphers, n_extensions, sid=sid)
    row = decode(of_tcp(hello)).tls_hello
    assert (row.record_version[0], row.hello_version[0]) == (0x0301, 0x0303)
    assert (row.n_ciphers[0], row.n_extensions[0]) == (n_ciphers, n_extensions)
    assert row.hello_len[0] == len(hello) - 9


def test_a_client_hello_cut_by_its_segment():
    hello = client_hello(3, 4)
    sizes = (11, 43, 76, 78, 84, 88, len(hello) - 1, len(hello))
    row = decode(*(of_tcp(hello[:size]) for size in sizes)).tls_hello
    assert row.n_ciphers.tolist() == [0, 0, 0, 3, 3, 3, 3, 3]
    assert row.n_extensions.tolist() == [0, 0, 0, 0, 0, 0, 0, 4]


def test_a_crafted_hello_with_a_thousand_extensions_costs_no_more_than_64():
    row = decode(of_tcp(client_hello(1, 0)[:-2] + b"\x0f\xa0" + bytes(4000))).tls_hello
    assert row.n_extensions.tolist() == [64]
