"""MQTT control packets as bytes, and TCP segments of them as the columns that `MqttStreams.decode` takes."""

import struct
from dataclasses import dataclass, field

import numpy as np

from agent.records import V4_MAPPED_LO, MqttTable

CLIENT, SERVER = (0x0A4D_000B, 40123), (0x0A4D_0001, 1883)
FIN, SYN, RST, PSH, ACK = 1, 2, 4, 8, 16


def varint(value: int) -> bytes:
    """A remaining length (or a property length) in one to four bytes."""
    out = bytearray()
    while True:
        value, low = value >> 7, value & 127
        out.append(low | (128 if value else 0))
        if not value:
            return bytes(out)


def packet(first: int, body: bytes = b"") -> bytes:
    """Any control packet."""
    return bytes([first]) + varint(len(body)) + body


def string(text: str | bytes) -> bytes:
    raw = text.encode() if isinstance(text, str) else text
    return struct.pack(">H", len(raw)) + raw


def connect(
    client_id="bed-7",
    *,
    level=4,
    flags=2,
    keep_alive_s=60,
    name=None,
    properties=b"",
    rest=b"",
    first=0x10,
) -> bytes:
    """A CONNECT; `rest` is what follows the client id (will, user name, password)."""
    name = (b"MQIsdp" if level == 3 else b"MQTT") if name is None else name
    body = string(name) + struct.pack(">BBH", level, flags, keep_alive_s)
    if level == 5:
        body += varint(len(properties)) + properties
    return packet(first, body + string(client_id) + rest)


def connack(code=0, *, level=4, session=0) -> bytes:
    return packet(0x20, bytes([session, code]) + (b"\0" if level == 5 else b""))


def publish(
    topic="ward/1/spo2",
    payload=b"98",
    *,
    qos=0,
    dup=0,
    retain=0,
    packet_id=7,
    level=4,
    properties=b"",
) -> bytes:
    body = string(topic) + (struct.pack(">H", packet_id) if qos else b"")
    if level == 5:
        body += varint(len(properties)) + properties
    return packet(0x30 | dup << 3 | qos << 1 | retain, body + payload)


def acknowledge(kind: int, packet_id=7, *, code=None) -> bytes:
    """PUBACK 4, PUBREC 5, PUBREL 6, PUBCOMP 7."""
    body = struct.pack(">H", packet_id) + (b"" if code is None else bytes([code]))
    return packet(kind << 4 | (2 if kind == 6 else 0), body)


def subscribe(*filters, qos=1, packet_id=9, level=4, properties=b"", options=None) -> bytes:
    body = struct.pack(">H", packet_id)
    if level == 5:
        body += varint(len(properties)) + properties
    option = bytes([qos if options is None else options])
    return packet(0x82, body + b"".join(string(f) + option for f in filters))


def suback(*codes, packet_id=9, level=4) -> bytes:
    body = struct.pack(">H", packet_id) + (b"\0" if level == 5 else b"")
    return packet(0x90, body + bytes(codes))


def unsubscribe(*filters, packet_id=10, level=4) -> bytes:
    body = struct.pack(">H", packet_id) + (b"\0" if level == 5 else b"")
    return packet(0xA2, body + b"".join(string(f) for f in filters))


def unsuback(*codes, packet_id=10, level=4) -> bytes:
    body = struct.pack(">H", packet_id) + (b"\0" if level == 5 else b"")
    return packet(0xB0, body + bytes(codes))


PINGREQ, PINGRESP, DISCONNECT = packet(0xC0), packet(0xD0), packet(0xE0)


def disconnect(code=0) -> bytes:
    """MQTT 5's, with a reason code."""
    return packet(0xE0, bytes([code]))


def auth(code=0x18) -> bytes:
    return packet(0xF0, bytes([code, 0]))


@dataclass
class Segment:
    """A TCP segment; `captured` bytes of its payload were captured (None: all)."""

    to_server: bool
    seq: int
    payload: bytes = b""
    flags: int = PSH | ACK
    captured: int | None = None
    client: tuple[int, int] = CLIENT
    server: tuple[int, int] = SERVER


@dataclass
class Talk:
    """A connection as a list of segments; sequence numbers go on by themselves."""

    client: tuple[int, int] = CLIENT
    server: tuple[int, int] = SERVER
    client_isn: int = 0xFFFF_FF00  # wraps within the first few hundred bytes
    server_isn: int = 5000
    segments: list[Segment] = field(default_factory=list)

    def __post_init__(self):
        self.next = {True: self.client_isn, False: self.server_isn}

    def add(self, to_server, payload=b"", flags=PSH | ACK, captured=None) -> Segment:
        segment = Segment(
            to_server,
            self.next[to_server],
            payload,
            flags,
            captured,
            self.client,
            self.server,
        )
        self.segments.append(segment)
        step = len(payload) + bool(flags & SYN) + bool(flags & FIN)
        self.next[to_server] = (self.next[to_server] + step) & 0xFFFF_FFFF
        return segment

    def open(self) -> "Talk":
        self.add(True, flags=SYN)
        self.add(False, flags=SYN | ACK)
        return self

    def up(self, *payloads: bytes) -> "Talk":
        """One segment each, to the server."""
        for payload in payloads:
            self.add(True, payload)
        return self

    def down(self, *payloads: bytes) -> "Talk":
        for payload in payloads:
            self.add(False, payload)
        return self


def columns(segments: list[Segment]) -> dict:
    """What `MqttStreams.decode` takes, with foreign bytes before, between and after the payloads."""
    blob = bytearray(b"\xc0\x00\x30")
    rows = []
    for s in segments:
        captured = len(s.payload) if s.captured is None else min(s.captured, len(s.payload))
        source, target = (s.client, s.server) if s.to_server else (s.server, s.client)
        rows.append((source, target, s.flags, s.seq, len(blob), len(s.payload), captured))
        blob += s.payload[:captured] + b"\x10\x0e\0\4MQTT"
    n = len(rows)
    v4 = np.uint64(V4_MAPPED_LO)
    return {
        "ts_ns": np.arange(n, dtype=np.int64) * 1_000_000,
        "src_hi": np.zeros(n, np.uint64),
        "src_lo": np.array([r[0][0] for r in rows], np.uint64) | v4,
        "dst_hi": np.zeros(n, np.uint64),
        "dst_lo": np.array([r[1][0] for r in rows], np.uint64) | v4,
        "src_port": np.array([r[0][1] for r in rows], np.uint16),
        "dst_port": np.array([r[1][1] for r in rows], np.uint16),
        "tcp_flags": np.array([r[2] for r in rows], np.uint16),
        "tcp_seq": np.array([r[3] for r in rows], np.uint32),
        "payload_off": np.array([r[4] for r in rows], np.int64),
        "payload_len": np.array([r[5] for r in rows], np.int32),
        "payload_caplen": np.array([r[6] for r in rows], np.int32),
        "is_tcp": np.ones(n, bool),
        "buffer": np.frombuffer(bytes(blob), np.uint8),
    }


def decode(streams, segments: list[Segment], *, batch: int | None = None) -> list[dict]:
    """Rows of all batches as dicts, `row` counted through; `batch` segments at a time."""
    size = max(len(segments) if batch is None else batch, 1)
    out = []
    for start in range(0, len(segments), size):
        table = streams.decode(**columns(segments[start : start + size]))
        out += [{**line, "row": line["row"] + start} for line in as_rows(table)]
    return out


def as_rows(table: MqttTable) -> list[dict]:
    """Each packet as a dict, rows that stand for several repeated."""
    names = [n for n in MqttTable.__slots__ if n != "count"]
    values = zip(*(getattr(table, n).tolist() for n in names), strict=True)
    return [
        dict(zip(names, line, strict=True))
        for line, count in zip(values, table.count.tolist(), strict=True)
        for _ in range(count)
    ]
