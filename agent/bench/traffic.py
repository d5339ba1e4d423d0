"""Synthetic captures for benchmarks: a SYN flood, a ward's mix, MQTT in step, and frames crafted to be dear.

They are for measuring speed and nothing else: no model is trained or judged on them. Frames come from a
pool of templates; what must differ per frame (spoofed sources, TCP sequence numbers) is patched in.

In: a case's name and a number of frames. Out: a classic pcap file (µs, Ethernet). The same seed gives
the same bytes.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

SEED = 7
CHUNK_FRAMES = 50_000
MTU_PAYLOAD = 1448
PCAP_HEADER = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 262144, 1)
EPOCH_S = 1_700_000_000
BROKER = 0xC0A8010A
MAC_A, MAC_B = bytes.fromhex("020000000001"), bytes.fromhex("020000000002")
SYN, ACK, PSH_ACK = 0x02, 0x10, 0x18


@dataclass(frozen=True)
class Case:
    """A pool of frames and how they are drawn."""

    pool: list[bytes]
    weights: NDArray[np.float64]
    rate_hz: float
    flow: NDArray[np.int64] | None = None
    """(pool,) TCP flow of each template, whose sequence numbers are then made to run on; -1: none."""
    spoof_sources: bool = False


def ethernet(kind: int, body: bytes, *, vlan: tuple[int, ...] = ()) -> bytes:
    """One Ethernet frame, padded to 60 bytes."""
    tags = b"".join(struct.pack("!HH", 0x8100, tag) for tag in vlan)
    return (MAC_A + MAC_B + tags + struct.pack("!H", kind) + body).ljust(60, b"\0")


def ipv4(proto: int, src: int, dst: int, body: bytes) -> bytes:
    """An IPv4 packet without options; the checksum is left 0, as offloads leave it."""
    return struct.pack("!BBHHHBBHII", 0x45, 0, 20 + len(body), 1, 0, 64, proto, 0, src, dst) + body


def ipv6(proto: int, src: int, dst: int, body: bytes) -> bytes:
    """An IPv6 packet in fd00::/8; `src` and `dst` are its last four bytes."""
    head = struct.pack("!IHBB", 0x6000_0000, len(body), proto, 64)
    return (
        head
        + (0xFD << 120 | src).to_bytes(16, "big")
        + (0xFD << 120 | dst).to_bytes(16, "big")
        + body
    )


def tcp(sport: int, dport: int, flags: int, body: bytes = b"") -> bytes:
    """A TCP segment with a timestamps option where it carries data or an ACK."""
    options = b"" if flags == SYN else b"\x01\x01\x08\x0a" + bytes(8)
    offset = (5 + len(options) // 4) << 4
    return struct.pack("!HHIIBBHHH", sport, dport, 1, 1, offset, flags, 501, 0, 0) + options + body


def udp(sport: int, dport: int, body: bytes) -> bytes:
    """A UDP datagram without a checksum."""
    return struct.pack("!HHHH", sport, dport, 8 + len(body), 0) + body


def mqtt_packets(rng: np.random.Generator, count: int) -> bytes:
    """`count` control packets as a monitor sends them, at most one segment."""
    out = b""
    for _ in range(count):
        draw = rng.random()
        if draw < 0.85:
            qos = int(rng.integers(0, 2))
            topic = b"ward/%d/bed/%d/vitals" % (rng.integers(1, 9), rng.integers(1, 40))
            body = len(topic).to_bytes(2, "big") + topic + b"\0\1" * qos
            body += rng.bytes(int(rng.integers(20, 300)))
            packet = bytes([0x30 | qos << 1]) + remaining_length(len(body)) + body
        else:
            packet = b"\x40\x02\x00\x01" if draw < 0.93 else b"\xc0\x00"
        if len(out) + len(packet) > MTU_PAYLOAD:
            break
        out += packet
    return out


def remaining_length(value: int) -> bytes:
    """MQTT's variable byte integer (MQTT 5.0, 1.5.5)."""
    out = bytearray()
    while True:
        value, low = divmod(value, 128)
        out.append(low | (0x80 if value else 0))
        if not value:
            return bytes(out)


def syn_flood(rng: np.random.Generator) -> Case:
    """One victim, a new random source each frame."""
    pool = [
        ethernet(0x0800, ipv4(6, 0x0B000000, BROKER, tcp(int(p), 1883, SYN)))
        for p in rng.integers(1024, 65535, 2000)
    ]
    return Case(pool, np.ones(len(pool)), 100_000, spoof_sources=True)


def mqtt_flood(rng: np.random.Generator, n_templates: int = 2000) -> Case:
    """Twenty clients, a hundred flows, one to four control packets a segment, sequence numbers in step."""
    flows = rng.integers(0, 100, n_templates)
    pool = [
        ethernet(
            0x0800,
            ipv4(
                6,
                0xC0A80164 + int(f) % 20,
                BROKER,
                tcp(40000 + int(f), 1883, PSH_ACK, mqtt_packets(rng, int(rng.integers(1, 5)))),
            ),
        )
        for f in flows
    ]
    return Case(pool, np.ones(n_templates), 100_000, flow=flows)


def mixed(rng: np.random.Generator, n_templates: int = 20_000) -> Case:
    """What a ward's gateway sees: MQTT, web downloads and their ACKs, DNS, CoAP, ARP, ICMP, IPv6, VLANs, STP."""
    device = 0xC0A80114 + np.minimum(rng.zipf(1.3, n_templates), 200).astype(np.int64) % 200
    remote = 0x17000000 + rng.integers(0, 500, n_templates)
    port = rng.integers(32768, 61000, n_templates)
    size = np.where(
        rng.random(n_templates) < 0.5, MTU_PAYLOAD, rng.integers(1, MTU_PAYLOAD, n_templates)
    )
    kinds = (
        # share, frame of (device, remote, port, payload)
        (
            0.25,
            lambda d, _r, _p, _b: ipv4(
                6, d, BROKER, tcp(40000 + d % 256, 1883, PSH_ACK, mqtt_packets(rng, 3))
            ),
        ),
        (0.30, lambda d, r, p, b: ipv4(6, r, d, tcp(443, p, PSH_ACK, b))),
        (0.15, lambda d, r, p, _b: ipv4(6, d, r, tcp(p, 443, ACK))),
        (0.08, lambda d, _r, p, b: ipv4(17, d, 0xC0A80101, udp(p, 53, b[:200]))),
        (0.05, lambda d, _r, _p, b: ipv4(17, d, 0xC0A8010B, udp(5683, 5683, b[:120]))),
        (0.03, None),  # ARP
        (0.02, lambda d, r, _p, b: ipv4(1, d, r, b"\x08\0\0\0\0\0\0\0" + b[:56])),
        (0.06, None),  # IPv6
        (0.05, None),  # VLAN
        (0.01, None),  # spanning tree
    )
    shares = np.array([share for share, _ in kinds])
    which = rng.choice(len(kinds), n_templates, p=shares / shares.sum())
    payload = rng.bytes(MTU_PAYLOAD)
    flow = np.where(which == 0, device % 256, -1)
    pool = []
    for i, kind in enumerate(which):
        d, r, p, b = int(device[i]), int(remote[i]), int(port[i]), payload[: int(size[i])]
        build = kinds[kind][1]
        if build is not None:
            pool.append(ethernet(0x0800, build(d, r, p, b)))
        elif kind == 5:
            arp = struct.pack(
                "!HHBBH6sI6sI", 1, 0x0800, 6, 4, 1 + i % 2, MAC_B, d, bytes(6), BROKER
            )
            pool.append(ethernet(0x0806, arp))
        elif kind == 7:
            pool.append(ethernet(0x86DD, ipv6(6, d, r, tcp(p, 443, PSH_ACK, b))))
        elif kind == 8:
            tags = (100, 7) if i % 10 == 0 else (12,)
            pool.append(ethernet(0x0800, ipv4(17, d, r, udp(p, 5004, b[:400])), vlan=tags))
        else:
            pool.append(ethernet(38, b"\x42\x42\x03" + bytes(35)))
    return Case(pool, np.ones(n_templates), 5_000, flow=flow)


def pingreq_segments(rng: np.random.Generator) -> Case:
    """MTU segments full of two-byte control packets: what an attacker would send to a parser."""
    flows = np.arange(64)
    body = b"\xc0\x00" * (MTU_PAYLOAD // 2)
    del rng
    pool = [
        ethernet(
            0x0800, ipv4(6, 0xC0A80164 + int(f), BROKER, tcp(40000 + int(f), 1883, PSH_ACK, body))
        )
        for f in flows
    ]
    return Case(pool, np.ones(len(pool)), 20_000, flow=flows)


def mixed_small_packets(rng: np.random.Generator) -> Case:
    """As `pingreq_segments`, but no two neighbours are alike, so that no run can be counted by its period."""
    small = (
        b"\xc0\x00",
        b"\x40\x02\x00\x01",
        b"\xd0\x00",
        b"\x62\x02\x00\x07",
        b"\x30\x04\x00\x01a!",
    )
    pool = []
    for f in range(64):
        draws = rng.integers(0, len(small), MTU_PAYLOAD // 2)
        body = b"".join(small[int(k)] for k in draws)[:MTU_PAYLOAD]
        pool.append(
            ethernet(0x0800, ipv4(6, 0xC0A80164 + f, BROKER, tcp(40000 + f, 1883, PSH_ACK, body)))
        )
    return Case(pool, np.ones(len(pool)), 20_000, flow=np.full(64, -1))


CASES: dict[str, Callable[[np.random.Generator], Case]] = {
    "syn": syn_flood,
    "mixed": mixed,
    "mqtt": mqtt_flood,
    "mqtt_pingreq": pingreq_segments,
    "mqtt_small": mixed_small_packets,
}
"""Case by name; each is a function of a random generator."""


def write_capture(path: Path, case: str, n_frames: int) -> None:
    """Write `n_frames` of a case as a pcap file."""
    rng = np.random.default_rng(SEED)
    made = CASES[case](rng)
    lengths = np.array([len(f) for f in made.pool])
    next_seq = np.ones(1 + (0 if made.flow is None else int(made.flow.max()) + 1), np.int64)
    clock_s = float(EPOCH_S)
    with path.open("wb") as out:
        out.write(PCAP_HEADER)
        for start in range(0, n_frames, CHUNK_FRAMES):
            n = min(CHUNK_FRAMES, n_frames - start)
            drawn = rng.choice(len(made.pool), n, p=made.weights / made.weights.sum())
            times = clock_s + np.cumsum(rng.exponential(1 / made.rate_hz, n))
            clock_s = float(times[-1])
            sec = times.astype(np.int64)
            usec = ((times - sec) * 1e6).astype(np.int64)
            size = lengths[drawn]
            heads = np.stack([sec, usec, size, size], 1).astype("<u4").tobytes()
            parts: list[bytes] = []
            for i, k in enumerate(drawn):
                parts += (heads[16 * i : 16 * i + 16], made.pool[k])
            chunk = np.frombuffer(b"".join(parts), np.uint8).copy()
            frame_at = np.cumsum(16 + size) - size
            patch(chunk, frame_at, made, drawn, rng, next_seq)
            out.write(chunk.tobytes())


def patch(
    chunk: NDArray[np.uint8],
    frame_at: NDArray[np.int64],
    made: Case,
    drawn: NDArray[np.int64],
    rng: np.random.Generator,
    next_seq: NDArray[np.int64],
) -> None:
    """Give spoofed frames their sources, and in-step flows their sequence numbers (untagged IPv4 only)."""
    if made.spoof_sources:
        put_u32(chunk, frame_at + 26, rng.integers(0x0B000000, 0xDF000000, len(frame_at)))
    if made.flow is None:
        return
    flow = made.flow[drawn]
    rows = np.nonzero(flow >= 0)[0]
    if not len(rows):
        return
    at = frame_at[rows]
    total = (chunk[at + 16].astype(np.int64) << 8) | chunk[at + 17]
    payload = total - 20 - ((chunk[at + 46].astype(np.int64) >> 4) << 2)
    order = np.argsort(flow[rows], kind="stable")
    grouped = flow[rows][order]
    before = np.cumsum(payload[order]) - payload[order]
    first = (
        np.concatenate([[0], np.nonzero(np.diff(grouped))[0] + 1])
        if len(grouped)
        else np.zeros(0, np.int64)
    )
    run = np.diff(np.append(first, len(grouped)))
    seq = before - np.repeat(before[first], run) + next_seq[grouped]
    put_u32(chunk, at[order] + 38, seq & 0xFFFF_FFFF)
    last = np.append(first[1:], len(grouped)) - 1
    next_seq[grouped[last]] = seq[last] + payload[order][last]


def put_u32(chunk: NDArray[np.uint8], at: NDArray[np.int64], value: NDArray[np.int64]) -> None:
    """Write big-endian 32-bit values at byte positions."""
    for k, shift in enumerate((24, 16, 8, 0)):
        chunk[at + k] = (value >> shift) & 0xFF
