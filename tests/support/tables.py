"""Frames written byte by byte, read by the agent's own decoder: tables for tests of labels."""

from __future__ import annotations

import ipaddress
import struct
from typing import Any

import numpy as np

from agent.decode.decoder import PacketDecoder
from agent.records import FrameBatch, LinkType, PacketTable


def mac(number: int) -> bytes:
    return b"\x02\x00\x00\x00" + number.to_bytes(2, "big")


def ip(text: str) -> bytes:
    return ipaddress.IPv4Address(text).packed


def tcp_syn(src: str, dst: str, src_mac: int, dst_mac: int, port: int = 80) -> bytes:
    tcp = struct.pack("!HHIIBBHHH", 40000, port, 1, 0, 5 << 4, 2, 1024, 0, 0)
    header = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(tcp), 0, 0, 64, 6, 0) + ip(src) + ip(dst)
    return mac(dst_mac) + mac(src_mac) + b"\x08\x00" + header + tcp


def arp_reply(claimed: str, told: str, src_mac: int, dst_mac: int) -> bytes:
    body = struct.pack("!HHBBH", 1, 0x0800, 6, 4, 2)
    body += mac(src_mac) + ip(claimed) + mac(dst_mac) + ip(told)
    return mac(dst_mac) + mac(src_mac) + b"\x08\x06" + body


def table_of(frames: list[tuple[float, bytes]]) -> PacketTable:
    """A decoded table of (seconds, frame)."""
    lengths = np.array([len(data) for _, data in frames], np.int32)
    ends: Any = np.cumsum(lengths, dtype=np.int64)
    batch = FrameBatch(
        ts_ns=np.array([round(t * 1e9) for t, _ in frames], np.int64),
        offset=ends - lengths,
        caplen=lengths,
        wirelen=lengths,
        buffer=np.frombuffer(b"".join(data for _, data in frames), np.uint8),
        link_type=LinkType.ETHERNET,
    )
    return PacketDecoder().decode(batch)
