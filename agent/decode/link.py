"""The link layer: where the network header starts, the Ethernet type, the VLAN, the MAC addresses.

It never reads 802.2, SNAP or PPPoE: what they carry is an unknown type to us.

In: a batch and the first bytes of its frames. Out: `Link`, one row a frame; `reason` is 0 where the
network layer may go on. Raises: nothing. Remembers: nothing.

Source: IEEE 802.1Q (tags), tcpdump.org/linktypes.html (NULL, LOOP, RAW, LINUX_SLL, LINUX_SLL2).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from agent.decode.gather import gather, u16, u32, u48
from agent.records import LinkType, Reason

if TYPE_CHECKING:
    from collections.abc import Callable

    from agent.records import I16, I32, I64, U8, U16, U64, BoolArray, FrameBatch

ETH_IPV4 = 0x0800
ETH_ARP = 0x0806
ETH_IPV6 = 0x86DD
ETH_VLAN = 0x8100
ETH_QINQ = 0x88A8
ETH_QINQ_OLD = 0x9100

MAX_VLAN_TAGS = 3
"""Service, customer and one more; deeper stacks are crafted. The kernel's own tag counts."""

AF_IPV4 = (2,)
AF_IPV6 = (10, 24, 28, 30)
"""IPv6's number on Linux, NetBSD/OpenBSD, FreeBSD and macOS."""

SLL_NOT_ETHERTYPE = (770, 801, 802, 803, 824)
"""ARPHRD types whose SLL protocol field is no Ethernet type: FRAD, 802.11 (three forms), netlink."""


@dataclass(slots=True, frozen=True, kw_only=True)
class Link:
    """What the link layer says; all (n,)."""

    eth_type: U16
    vlan_id: I16
    src_mac: U64
    dst_mac: U64
    start: I32
    """Where the network header starts, from the frame's first byte."""
    column: int
    """The value of `start` that most frames of this link type have."""
    reason: U8
    """`Reason`; later layers write into it where it is still 0."""


def decode_link(batch: FrameBatch, head: U8) -> Link:
    """Decode the link header; `head` is (n, 64), the first bytes of each frame."""
    link = READERS.get(batch.link_type, _foreign)(batch, head)
    depth = np.zeros(len(batch), np.uint8)
    if batch.vlan_tci is not None:
        tagged = batch.vlan_tci >= 0
        link.vlan_id[tagged] = (batch.vlan_tci[tagged] & 0xFFF).astype(np.int16)
        depth += tagged
    _follow_tags(batch, link, depth)
    kind = link.eth_type
    known = (kind == ETH_IPV4) | (kind == ETH_IPV6) | (kind == ETH_ARP)
    if not known.all():
        link.reason[~known & (link.reason == 0)] = Reason.UNKNOWN_ETHERTYPE
    return link


def _is_tag(eth_type: U16) -> BoolArray:
    tag: BoolArray = eth_type == ETH_VLAN
    tag |= eth_type == ETH_QINQ
    tag |= eth_type == ETH_QINQ_OLD
    return tag


def _follow_tags(batch: FrameBatch, link: Link, depth: U8) -> None:
    """Step over VLAN tags, in place; `depth` counts those that the kernel took out."""
    row: I64 = np.flatnonzero(_is_tag(link.eth_type))
    while len(row):
        row = row[link.reason[row] == 0]
        deep = depth[row] >= MAX_VLAN_TAGS
        link.reason[row[deep]] = Reason.TOO_MANY_HEADERS
        row = row[~deep]
        cut = batch.caplen[row] < link.start[row] + 4
        link.reason[row[cut]] = Reason.TRUNCATED_LINK
        row = row[~cut]
        tag = gather(batch.buffer, batch.offset[row] + link.start[row], 4)
        seen = link.vlan_id[row]
        link.vlan_id[row] = np.where(seen < 0, (u16(tag, 0) & 0xFFF).astype(np.int16), seen)
        link.eth_type[row] = u16(tag, 2)
        link.start[row] += 4
        depth[row] += 1
        row = row[_is_tag(link.eth_type[row])]


def _made(
    batch: FrameBatch,
    column: int,
    eth_type: U16,
    *,
    src_mac: U64 | None = None,
    dst_mac: U64 | None = None,
    reason: U8 | None = None,
) -> Link:
    """A `Link` whose frames all start their network header at `column`; shorter ones are cut."""
    n = len(batch)
    none = np.zeros(n, np.uint64)
    link = Link(
        eth_type=eth_type,
        vlan_id=np.full(n, -1, np.int16),
        src_mac=none if src_mac is None else src_mac,
        dst_mac=none if dst_mac is None else dst_mac,
        start=np.full(n, column, np.int32),
        column=column,
        reason=np.zeros(n, np.uint8) if reason is None else reason,
    )
    cut = batch.caplen < column
    if cut.any():
        link.eth_type[cut] = 0
        link.src_mac[cut] = 0
        link.dst_mac[cut] = 0
        link.reason[cut] = Reason.TRUNCATED_LINK
    return link


def _ethernet(batch: FrameBatch, head: U8) -> Link:
    return _made(batch, 14, u16(head, 12), src_mac=u48(head, 6), dst_mac=u48(head, 0))


def _sll(batch: FrameBatch, head: U8) -> Link:
    return _cooked(batch, 16, u16(head, 14), u16(head, 2), u16(head, 4), u48(head, 6))


def _sll2(batch: FrameBatch, head: U8) -> Link:
    length = head[:, 11].astype(np.uint16)
    return _cooked(batch, 20, u16(head, 0), u16(head, 8), length, u48(head, 12))


def _cooked(
    batch: FrameBatch, column: int, protocol: U16, arphrd: U16, address_len: U16, address: U64
) -> Link:
    """Either Linux cooked header: a sender's address only, and a protocol for most devices."""
    address[address_len != 6] = 0
    reason = np.zeros(len(batch), np.uint8)
    foreign = np.isin(arphrd, SLL_NOT_ETHERTYPE)
    if foreign.any():
        protocol[foreign] = 0
        reason[foreign] = Reason.UNKNOWN_ETHERTYPE
    return _made(batch, column, protocol, src_mac=address, reason=reason)


def _null(batch: FrameBatch, head: U8) -> Link:
    """BSD loopback: an address family in the byte order of the machine that captured, or the network's."""
    big = u32(head, 0)
    family = np.where(big > 0xFFFF, big.byteswap(), big)
    eth_type = np.zeros(len(batch), np.uint16)
    eth_type[np.isin(family, AF_IPV4)] = ETH_IPV4
    eth_type[np.isin(family, AF_IPV6)] = ETH_IPV6
    return _made(batch, 4, eth_type)


def _raw(batch: FrameBatch, head: U8) -> Link:
    """No link header: the version of the first byte says which IP it is."""
    version = head[:, 0] >> 4
    eth_type = np.zeros(len(batch), np.uint16)
    eth_type[version == 4] = ETH_IPV4
    eth_type[version == 6] = ETH_IPV6
    reason = np.zeros(len(batch), np.uint8)
    reason[eth_type == 0] = Reason.BAD_IP_VERSION
    link = _made(batch, 0, eth_type, reason=reason)
    empty = batch.caplen < 1
    link.eth_type[empty] = 0
    link.reason[empty] = Reason.TRUNCATED_L3
    return link


def _ipv4(batch: FrameBatch, _head: U8) -> Link:
    return _made(batch, 0, np.full(len(batch), ETH_IPV4, np.uint16))


def _ipv6(batch: FrameBatch, _head: U8) -> Link:
    return _made(batch, 0, np.full(len(batch), ETH_IPV6, np.uint16))


def _foreign(batch: FrameBatch, _head: U8) -> Link:
    n = len(batch)
    reason = np.full(n, Reason.BAD_LINK_TYPE, np.uint8)
    return _made(batch, 0, np.zeros(n, np.uint16), reason=reason)


READERS: dict[int, Callable[[FrameBatch, U8], Link]] = {
    LinkType.NULL: _null,
    LinkType.ETHERNET: _ethernet,
    LinkType.RAW_BSD_12: _raw,
    LinkType.RAW_BSD_14: _raw,
    LinkType.RAW: _raw,
    LinkType.LOOP: _null,
    LinkType.LINUX_SLL: _sll,
    LinkType.IPV4: _ipv4,
    LinkType.IPV6: _ipv6,
    LinkType.LINUX_SLL2: _sll2,
}
"""Every link type that this version reads, and what reads it."""
