"""Writes capture files byte by byte, right ones and wrong ones: pcap, and the blocks of pcapng; lists frames.

In: records `(ts_ns, frame)` or `(ts_ns, frame, wirelen)`. Out: bytes. Written from the specifications, apart
from the reader that it tests.
"""

import struct
from collections.abc import Iterable

Record = tuple[int, bytes] | tuple[int, bytes, int]

ENHANCED, SIMPLE, OBSOLETE, INTERFACE = 6, 3, 2, 1


def pcap_header(*, order: str = "<", ns: bool = False, link_type: int = 1) -> bytes:
    """The 24 bytes that a pcap file starts with."""
    magic = 0xA1B23C4D if ns else 0xA1B2C3D4
    return struct.pack(order + "IHHiIII", magic, 2, 4, 0, 0, 262_144, link_type)


def pcap(
    records: Iterable[Record], *, order: str = "<", ns: bool = False, link_type: int = 1
) -> bytes:
    """A whole pcap file; without `ns` times are cut to microseconds."""
    parts = [pcap_header(order=order, ns=ns, link_type=link_type)]
    for ts_ns, frame, *wirelen in records:
        seconds, rest = divmod(ts_ns, 1_000_000_000)
        fraction = rest if ns else rest // 1000
        length = wirelen[0] if wirelen else len(frame)
        parts += [struct.pack(order + "IIII", seconds, fraction, len(frame), length), frame]
    return b"".join(parts)


def block(kind: int, body: bytes, *, order: str = "<") -> bytes:
    """A pcapng block around `body`, padded to 32 bits."""
    body += bytes(-len(body) % 4)
    length = struct.pack(order + "I", len(body) + 12)
    return struct.pack(order + "I", kind) + length + body + length


def options(items: dict[int, bytes], order: str) -> bytes:
    """pcapng options by code, with their end; nothing for none."""
    if not items:
        return b""
    out = b""
    for code, value in items.items():
        out += struct.pack(order + "HH", code, len(value)) + value + bytes(-len(value) % 4)
    return out + bytes(4)


def section(order: str = "<") -> bytes:
    """A Section Header Block of unknown section length."""
    return block(0x0A0D0D0A, struct.pack(order + "IHHq", 0x1A2B3C4D, 1, 0, -1), order=order)


def interface(
    link_type: int = 1,
    *,
    order: str = "<",
    snaplen: int = 0,
    resolution: int | None = None,
    offset_s: int | None = None,
) -> bytes:
    """An Interface Description Block; `resolution` is if_tsresol as it stands in the file."""
    items = {}
    if resolution is not None:
        items[9] = bytes([resolution])
    if offset_s is not None:
        items[14] = struct.pack(order + "q", offset_s)
    body = struct.pack(order + "HHI", link_type, 0, snaplen)
    return block(INTERFACE, body + options(items, order), order=order)


def enhanced(
    frame: bytes,
    ticks: int = 0,
    *,
    number: int = 0,
    order: str = "<",
    wirelen: int | None = None,
    comment: bytes = b"",
) -> bytes:
    """An Enhanced Packet Block of interface `number`."""
    length = len(frame) if wirelen is None else wirelen
    body = struct.pack(order + "IIIII", number, ticks >> 32, ticks & 0xFFFFFFFF, len(frame), length)
    tail = options({1: comment} if comment else {}, order)
    return block(ENHANCED, body + frame + bytes(-len(frame) % 4) + tail, order=order)


def simple(frame: bytes, *, order: str = "<", wirelen: int | None = None) -> bytes:
    """A Simple Packet Block: no time, interface 0."""
    length = len(frame) if wirelen is None else wirelen
    return block(SIMPLE, struct.pack(order + "I", length) + frame, order=order)


def obsolete(frame: bytes, ticks: int = 0, *, number: int = 0, order: str = "<") -> bytes:
    """An obsolete Packet Block, with a drop count of 7."""
    body = struct.pack(
        order + "HHIIII", number, 7, ticks >> 32, ticks & 0xFFFFFFFF, len(frame), len(frame)
    )
    return block(OBSOLETE, body + frame, order=order)


def frames_of(capture):
    """[(ts_ns, bytes, wirelen)] of all batches."""
    seen = []
    for batch in capture:
        assert batch.offset.min() >= 0
        assert (batch.offset + batch.caplen).max() <= len(batch.buffer)
        data = batch.buffer.tobytes()
        seen += [
            (int(t), data[o : o + c], int(w))
            for t, o, c, w in zip(
                batch.ts_ns, batch.offset, batch.caplen, batch.wirelen, strict=True
            )
        ]
    return seen
