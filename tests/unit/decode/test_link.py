"""Link headers: types, VLAN tags in line and from the kernel, addresses, and what ends the walk."""

import pytest

from agent.decode.decoder import PacketDecoder
from agent.records import LinkType, Reason
from tests.support.frames import (
    ETHERNET_FRAMES,
    IP_A,
    MAC_A,
    MAC_B,
    SLL,
    SLL2_TAIL,
    arp,
    batch_of,
    eth,
    ip4,
    tcp,
    udp,
)
from tests.support.table_rows import NoStreams, rows_of

A, B = int.from_bytes(MAC_A, "big"), int.from_bytes(MAC_B, "big")
PACKET = ip4(udp(b"x"), 17)


def decode(*frames, link_type=LinkType.ETHERNET, **options):
    batch = batch_of(list(frames), link_type, **options)
    return PacketDecoder(streams=NoStreams()).decode(batch)


def test_ethernet_addresses_and_type():
    table = decode(eth(PACKET))
    assert (table.src_mac[0], table.dst_mac[0]) == (A, B)
    assert (table.eth_type[0], table.vlan_id[0]) == (0x0800, -1)


@pytest.mark.parametrize("kind", [0x8100, 0x88A8, 0x9100])
def test_the_outer_vlan_counts_without_its_priority(kind):
    table = decode(eth(PACKET, tags=((kind, 0xE005), (0x8100, 9))))
    assert (table.vlan_id[0], table.eth_type[0], table.family[0]) == (5, 0x0800, 4)


def test_a_priority_tag_is_vlan_0():
    assert decode(eth(PACKET, tags=((0x8100, 0xE000),))).vlan_id[0] == 0


def test_three_tags_are_followed_and_four_are_not():
    tags = ((0x88A8, 1), (0x8100, 2), (0x8100, 3))
    table = decode(eth(arp(), 0x0806, tags=tags), eth(arp(), 0x0806, tags=(*tags, (0x8100, 4))))
    assert table.reason.tolist() == [Reason.OK, Reason.TOO_MANY_HEADERS]
    assert table.vlan_id.tolist() == [1, 1]
    assert table.arp.row.tolist() == [0]


def test_a_tag_that_the_kernel_took_out_equals_one_in_the_frame():
    """Live against file: every column, sizes included."""
    live = decode(eth(PACKET), eth(PACKET, tags=((0x8100, 7),)), vlan_tci=[0x2005, 0x2005])
    outer = (0x8100, 0x2005)
    file = decode(eth(PACKET, tags=(outer,)), eth(PACKET, tags=(outer, (0x8100, 7))))
    got, want = (rows_of(t, [10**6, 10**6]) for t in (live, file))
    for row in (*got, *want):
        row.pop("payload_off")
    assert got == want
    assert live.wirelen.tolist() == file.wirelen.tolist()
    assert live.caplen.tolist() == file.caplen.tolist()


def test_the_kernels_tag_is_one_of_the_three():
    frame = eth(arp(), 0x0806, tags=((0x8100, 1), (0x8100, 2), (0x8100, 3)))
    assert decode(frame, frame, vlan_tci=[5, -1]).reason.tolist() == [Reason.TOO_MANY_HEADERS, 0]


@pytest.mark.parametrize("kind", [0x88CC, 0x8863, 0x8864, 38, 0x8035], ids=hex)
def test_what_we_do_not_read_is_an_unknown_type(kind):
    table = decode(eth(bytes(46), kind))
    assert (table.reason[0], table.eth_type[0]) == (Reason.UNKNOWN_ETHERTYPE, kind)
    assert (table.family[0], table.proto[0]) == (0, 255)


def test_linux_cooked_headers_have_a_sender():
    one = decode(SLL + b"\x08\x00" + PACKET, link_type=LinkType.LINUX_SLL)
    two = decode(b"\x08\x00" + SLL2_TAIL + PACKET, link_type=LinkType.LINUX_SLL2)
    for table in (one, two):
        assert (table.src_mac[0], table.dst_mac[0], table.family[0]) == (A, 0, 4)
        assert table.src_port[0] == 5000


def test_netlink_in_a_cooked_capture_is_not_ip():
    header = b"\0\0" + (824).to_bytes(2, "big") + bytes(10) + b"\x08\x00"
    table = decode(header + PACKET, link_type=LinkType.LINUX_SLL)
    assert (table.reason[0], table.family[0]) == (Reason.UNKNOWN_ETHERTYPE, 0)


@pytest.mark.parametrize("link_type", [LinkType.NULL, LinkType.LOOP])
@pytest.mark.parametrize("order", ["big", "little"])
def test_loopback_families_in_either_byte_order(link_type, order):
    v6 = bytes.fromhex("6000000000083b40") + bytes(40)
    frames = [family.to_bytes(4, order) + v6 for family in (10, 24, 28, 30)]
    table = decode((2).to_bytes(4, order) + PACKET, *frames, link_type=link_type)
    assert table.family.tolist() == [4, 6, 6, 6, 6]


@pytest.mark.parametrize("link_type", [LinkType.RAW, LinkType.RAW_BSD_12, LinkType.RAW_BSD_14])
def test_raw_ip_is_told_by_its_version(link_type):
    table = decode(PACKET, b"\x60" + bytes(39), b"\x00" * 40, b"", link_type=link_type)
    assert table.eth_type.tolist() == [0x0800, 0x86DD, 0, 0]
    assert table.reason.tolist()[2:] == [Reason.BAD_IP_VERSION, Reason.TRUNCATED_L3]
    assert table.src_lo[0] & 0xFFFFFFFF == int.from_bytes(IP_A, "big")


def test_a_link_type_that_we_do_not_read_is_a_reason_and_not_an_error():
    assert decode(eth(PACKET), link_type=147).reason.tolist() == [Reason.BAD_LINK_TYPE]


def test_a_cut_link_header_leaves_nothing():
    table = decode(eth(PACKET)[:13], eth(PACKET, tags=((0x8100, 5),))[:17])
    assert table.reason.tolist() == [Reason.TRUNCATED_LINK] * 2
    assert table.src_mac.tolist() == [0, A]  # the tag was cut, the addresses were not
    assert table.vlan_id.tolist() == [-1, -1]


def test_odd_frames_only():
    frames = [ETHERNET_FRAMES[name] for name in ("stp", "four tags", "bad version", "lldp")]
    assert 0 not in decode(*frames).reason
    assert decode(eth(ip4(tcp(), 6))).reason.tolist() == [0]
