"""MQTT control packets equal tshark's, on every MQTT capture and on an exchange of each version; then re-cut.

Compared as sequences per direction of a flow, since tshark gives a packet that is cut to the frame in which it ends,
and we to the frame in which its fields are known.
"""

import shutil
import struct
import subprocess
from collections import defaultdict
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

from agent.capture.capture_file import open_capture
from agent.decode.decoder import PacketDecoder
from agent.decode.mqtt import MqttStreams
from agent.records import MqttType, MqttViolation
from tests.conftest import SHARED
from tests.support import mqtt_packets as mq
from tests.support.mqtt_reference import Reference
from tests.support.pcap_writer import pcap
from tests.support.table_rows import NoStreams

CAPTURES = SHARED / "data" / "captures"
COUNTS = {
    "mqtt/benign-5mb-train.pcap": {"CONNECT": 7, "PUBLISH": 19_498, "PINGREQ": 322},
    "mqtt/bruteforce-train.pcapng": {"CONNECT": 889, "CONNACK": 889},
    "mqtt/flood-train.pcap": {"CONNECT": 1, "PUBLISH": 39_452},
    "mqtt/malariados-train.pcap": {"CONNECT": 10, "PUBLISH": 3_120},
    "mqtt/malformed-train.pcap": {"CONNECT": 552},
    "mqtt/slowite-train.pcap": {"CONNECT": 716},
    "mqtt/mqtt.pcap": {"CONNECT": 2, "DISCONNECT": 1},
    "apps/coap_mqtt.pcap": {"CONNECT": 1},
}
"""Every capture with MQTT in it, and what must be counted there."""

OTHER_PORTS = (17501,)
"""Ports in these captures that tshark must be told of."""


@dataclass(frozen=True)
class Difference:
    """Where tshark and we mean different things by a field."""

    field: str
    ours: str
    tshark: str
    reason: str


DIFFERENCES = (
    Difference(
        "MQTT on a port other than 1883",
        "flows that open with a CONNECT, without being told",
        "only where told, all flows of the port",
        "A broker on another port is a broker (coap_mqtt.pcap: 17501); what is met in its middle may be anything.",
    ),
    Difference(
        "frame of a packet",
        "the frame in which its fields are known",
        "the frame in which it ends",
        "A flood must count while a large PUBLISH is still on its way; so sequences are compared, not frames.",
    ),
    Difference(
        "topic_len of UNSUBSCRIBE, of a SUBSCRIBE's second filter and on",
        "not told",
        "one a filter",
        "The features ask for the first filter only.",
    ),
    Difference(
        "reason code of PUBACK, PUBREC, PUBREL, PUBCOMP with a body of two bytes",
        "-1",
        "no field",
        "The code is left out on the wire and means success (5.0, 3.4.2.1): absent is not zero.",
    ),
    Difference(
        "packets counted together in a segment of very many",
        "length and topic length of the first of them",
        "each its own",
        "The cost of a frame is bounded; their number is exact (flood-train.pcap).",
    ),
)

FIELDS = {
    "hdrflags": "mqtt.hdrflags",
    "len": "mqtt.len",
    "ver": "mqtt.ver",
    "conflags": "mqtt.conflags",
    "kalive": "mqtt.kalive",
    "topic_len": "mqtt.topic_len",
    "connack": "mqtt.conack.val",
    "connack5": "mqtt.connack.reason_code",
    "suback": "mqtt.suback.qos",
    "suback5": "mqtt.suback.reason_code",
    "unsuback5": "mqtt.unsuback.reason_code",
    "puback5": "mqtt.puback.reason_code",
    "pubrec5": "mqtt.pubrec.reason_code",
    "disconnect5": "mqtt.disconnect.reason_code",
    "auth5": "mqtt.auth.reason_code",
}
WHERE = ("ip.src", "tcp.srcport", "ip.dst", "tcp.dstport")
CODES = {
    MqttType.CONNACK: ("connack", "connack5"),
    MqttType.SUBACK: ("suback", "suback5"),
    MqttType.UNSUBACK: ("unsuback5",),
    MqttType.PUBACK: ("puback5",),
    MqttType.PUBREC: ("pubrec5",),
    MqttType.DISCONNECT: ("disconnect5",),
    MqttType.AUTH: ("auth5",),
}


def ask_tshark(path: Path) -> dict[tuple, dict[str, list[int]]]:
    """Per direction of a flow, every field's values in stream order."""
    if shutil.which("tshark") is None:
        pytest.skip("tshark is not installed")
    command = ["tshark", "-r", str(path), "-Y", "mqtt", "-T", "fields", "-E", "separator=/t"]
    command += ["-o", "tcp.reassemble_out_of_order:TRUE"]
    for port in OTHER_PORTS:
        command += ["-d", f"tcp.port=={port},mqtt"]
    for name in (*WHERE, *FIELDS.values()):
        command += ["-e", name]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    said: dict[tuple, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for line in done.stdout.splitlines():
        cells = line.split("\t")
        flow = said[tuple(cells[:4])]
        for name, cell in zip(FIELDS, cells[4:], strict=True):
            flow[name] += [int(value, 0) for value in cell.split(",") if value]
    return {key: dict(fields) for key, fields in said.items()}


def ask_us(path: Path, ports=frozenset({1883})):
    """Per direction of a flow, packets as dicts; and the decoder's counters."""
    streams = MqttStreams(ports=ports)
    decoder = PacketDecoder(streams=streams)
    rows = defaultdict(list)
    with open_capture(path) as capture:
        for batch in capture:
            table = decoder.decode(batch)
            where = list(
                zip(
                    map(dotted, table.src_lo.tolist()),
                    map(str, table.src_port.tolist()),
                    map(dotted, table.dst_lo.tolist()),
                    map(str, table.dst_port.tolist()),
                    strict=True,
                )
            )
            for row in mq.as_rows(table.mqtt):
                rows[where[row["row"]]].append(row)
    return dict(rows), streams.counters()


def dotted(lo: int) -> str:
    return ".".join(str(byte) for byte in struct.pack(">I", lo & 0xFFFF_FFFF))


def compare(ours, said, *, lengths=True):
    """Everything that both tell of a direction."""
    assert ours.keys() == said.keys()
    for key, packets in ours.items():
        fields = said[key]
        firsts = [p["packet_type"] << 4 | p["flags"] for p in packets]
        assert firsts == fields["hdrflags"], key
        if lengths:
            assert [p["remaining_len"] for p in packets] == fields["len"], key
        connects = [p for p in packets if p["packet_type"] == MqttType.CONNECT]
        for mine, theirs in (
            ("level", "ver"),
            ("connect_flags", "conflags"),
            ("keep_alive_s", "kalive"),
        ):
            assert [p[mine] for p in connects] == fields.get(theirs, []), (key, theirs)
        for kind, names in CODES.items():
            codes = [p["code"] for p in packets if p["packet_type"] == kind and p["code"] >= 0]
            assert codes == [c for name in names for c in fields.get(name, [])], (key, kind)
        if lengths and not any(p["packet_type"] == MqttType.UNSUBSCRIBE for p in packets):
            topics = [p["topic_len"] for p in packets if p["topic_len"] >= 0]
            assert topics == fields.get("topic_len", []), key


@pytest.mark.parametrize("name", COUNTS)
def test_packets_equal_tsharks(name):
    path = CAPTURES / name
    if not path.is_file():
        pytest.skip("the public captures are not beside the checkout")
    ours, counters = ask_us(path, frozenset({1883, *OTHER_PORTS}))
    compare(ours, ask_tshark(path), lengths="flood" not in name)
    packets = [p for rows in ours.values() for p in rows]
    for kind, count in COUNTS[name].items():
        assert sum(p["packet_type"] == MqttType[kind] for p in packets) == count
    assert counters["extrapolated"] == 0
    # No capture here holds a violation, attacks included (tshark finds none either).
    assert {MqttViolation(p["violation"]).name for p in packets} == {"NONE"}


def test_another_port_is_found_by_its_connect():
    path = CAPTURES / "apps" / "coap_mqtt.pcap"
    if not path.is_file():
        pytest.skip("the public captures are not beside the checkout")
    everything, _ = ask_us(path, frozenset({17501}))
    found, _ = ask_us(path)
    opened_here = {
        k for k, rows in everything.items() if rows[0]["packet_type"] == MqttType.CONNECT
    }
    assert opened_here
    assert found.keys() == opened_here | {key[2:] + key[:2] for key in opened_here}
    assert all(rows == everything[key] for key, rows in found.items())


def test_the_floods_lengths_add_up():
    """Packets counted together keep their number exact, and the bytes of the stream within a percent."""
    path = CAPTURES / "mqtt" / "flood-train.pcap"
    if not path.is_file():
        pytest.skip("the public captures are not beside the checkout")
    ours, _ = ask_us(path)
    said = ask_tshark(path)
    for key, packets in ours.items():
        total = sum(p["remaining_len"] for p in packets)
        assert abs(total - sum(said[key]["len"])) <= total // 100


def exchange(level: int) -> mq.Talk:
    """A bit of everything, as a client and a broker of this level would say it."""
    talk = mq.Talk(client_isn=1000).open()
    talk.up(mq.connect("pump-3", level=level, keep_alive_s=45, flags=0xC2,
                       rest=mq.string("user") + mq.string("pw")))  # fmt: skip
    talk.down(mq.connack(level=level))
    talk.up(mq.subscribe("ward/+/cmd", qos=1, level=level)).down(mq.suback(1, level=level))
    talk.up(mq.publish("ward/1/spo2", b"97", qos=1, level=level))
    talk.down(mq.acknowledge(4, 7, code=0x10 if level == 5 else None))
    talk.up(mq.publish("ward/1/ecg", b"e" * 200, qos=2, level=level)).down(mq.acknowledge(5, 7))
    talk.up(mq.acknowledge(6, 7), mq.PINGREQ).down(mq.acknowledge(7, 7), mq.PINGRESP)
    talk.down(mq.publish("ward/1/cmd", b"go", retain=1, level=level))
    if level == 5:
        talk.up(mq.auth()).down(mq.auth())
        return talk.down(mq.disconnect(0x8B))
    return talk.up(mq.unsubscribe("ward/+/cmd")).down(mq.unsuback()).up(mq.DISCONNECT)


def frames(segments: list[mq.Segment]) -> bytes:
    """A capture file of these segments on Ethernet."""
    records = []
    for i, s in enumerate(segments):
        source, target = (s.client, s.server) if s.to_server else (s.server, s.client)
        tcp = struct.pack(
            ">HHIIHHHH", source[1], target[1], s.seq, 1, 5 << 12 | s.flags, 8192, 0, 0
        )
        ip = struct.pack(
            ">BBHHHBBHII", 0x45, 0, 40 + len(s.payload), i, 0, 64, 6, 0, source[0], target[0]
        )
        records.append((i * 1_000_000, bytes(12) + b"\x08\x00" + ip + tcp + s.payload))
    return pcap(records)


@pytest.mark.parametrize("level", [3, 4, 5])
def test_an_exchange_of_each_version_equals_tsharks(level, tmp_path):
    path = tmp_path / "exchange.pcap"
    path.write_bytes(frames(exchange(level).segments))
    ours, _ = ask_us(path)
    compare(ours, ask_tshark(path))
    assert all(p["violation"] == 0 and p["synchronised"] for rows in ours.values() for p in rows)


@pytest.mark.parametrize("level", [3, 4, 5])
def test_a_recut_exchange_equals_tsharks(level, tmp_path):
    """tshark puts the pieces together as we do."""
    whole = exchange(level)
    talk = mq.Talk(client_isn=1000).open()
    for segment in whole.segments[2:]:
        half = max(len(segment.payload) // 2, 1)
        talk.add(segment.to_server, segment.payload[:half])
        if segment.payload[half:]:
            talk.add(segment.to_server, segment.payload[half:])
    path = tmp_path / "recut.pcap"
    path.write_bytes(frames(talk.segments))
    ours, _ = ask_us(path)
    compare(ours, ask_tshark(path))


LEVELS = {f"level {level}": level for level in (3, 4, 5)}
HEADS = (*LEVELS, *COUNTS)
"""Conversations to be cut: our own, and the first flow that opens with a CONNECT of each capture."""


@cache
def head(name: str) -> list[tuple[bool, bytes]]:
    """The payloads of a conversation, each with whether it goes to the server."""
    if name in LEVELS:
        segments = exchange(LEVELS[name]).segments
        return [(s.to_server, s.payload) for s in segments if s.payload]
    path = CAPTURES / name
    if not path.is_file():
        pytest.skip("the public captures are not beside the checkout")
    return only_whole(list(first_flow(path)))


def only_whole(pieces: list[tuple[bool, bytes]]) -> list[tuple[bool, bytes]]:
    """The pieces without what follows the last whole packet of each direction."""
    room = {}
    for way in (True, False):
        data = b"".join(piece for up, piece in pieces if up is way)
        rows = Reference(to_server=way).parse(data)
        room[way] = sum(1 + len(mq.varint(r["remaining_len"])) + r["remaining_len"] for r in rows)
    kept = []
    for way, piece in pieces:
        kept.append((way, piece[: room[way]]))
        room[way] -= len(kept[-1][1])
    return [(way, piece) for way, piece in kept if piece]


def first_flow(path: Path, *, most=260, pieces=14):
    """Payloads of the first flow that opens with a CONNECT: so many, up to about `most` bytes."""
    decoder = PacketDecoder(streams=NoStreams())
    flow, total = None, 0
    seen = set()
    with open_capture(path) as capture:
        for batch in capture:
            t = decoder.decode(batch)
            for i in range(len(t)):
                off, n = int(t.payload_off[i]), int(t.payload_caplen[i])
                data = batch.buffer[off : off + n].tobytes()
                ends = (
                    (int(t.src_lo[i]), int(t.src_port[i])),
                    (int(t.dst_lo[i]), int(t.dst_port[i])),
                )
                if flow is None and data[:1] == b"\x10" and ends[1][1] in {1883, *OTHER_PORTS}:
                    flow = ends
                if flow is None or not data or set(ends) != set(flow):
                    continue
                where = (ends, int(t.tcp_seq[i]))
                if where in seen or total > most:
                    continue
                seen.add(where)
                data = data[: most - total + 40]
                total += len(data)
                yield ends == flow, data
            if total > most or len(seen) == pieces:
                return


def parts(rows):
    return [
        {k: v for k, v in r.items() if k != "row"}
        for r in sorted(rows, key=lambda r: r["to_server"])
    ]


def told(segments, batch=None):
    return parts(mq.decode(MqttStreams(max_flows=4), segments, batch=batch))


def joined(pieces):
    """Both directions as whole byte strings, the client's first."""
    return b"".join(p for up, p in pieces if up), b"".join(p for up, p in pieces if not up)


def opened(pieces):
    """What the client says before the broker answers, the answer, and what is left of both directions."""
    ways = [way for way, _ in pieces]
    turn = ways.index(False)
    first = b"".join(piece for _, piece in pieces[:turn])
    rest = pieces[turn + 1 :]
    return (first, pieces[turn][1]), joined(rest)


@pytest.mark.parametrize("name", HEADS)
def test_cut_at_every_byte_it_tells_the_same(name):
    (first, answer), (up, down) = opened(head(name))

    def talk():
        return mq.Talk().open().up(first).down(answer)

    want = told(talk().up(*[up] * bool(up)).down(*[down] * bool(down)).segments)
    assert want
    assert {r["violation"] for r in want} == {0}
    assert all(r["synchronised"] for r in want)
    for at in range(1, len(up)):
        cut = talk().up(up[:at], up[at:]).down(*[down] * bool(down))
        assert told(cut.segments) == want, at
    for at in range(1, len(down)):
        cut = talk().up(*[up] * bool(up)).down(down[:at], down[at:])
        assert told(cut.segments) == want, at


@pytest.mark.parametrize("name", HEADS)
def test_resent_and_reordered_it_tells_the_same(name):
    pieces = head(name)
    talk = mq.Talk().open()
    for way, piece in pieces:
        talk.add(way, piece)
    want = told(talk.segments)
    for i in range(2, len(talk.segments)):
        again = [*talk.segments[: i + 1], talk.segments[i], *talk.segments[i + 1 :]]
        assert told(again) == want
        assert told(again, batch=1) == want
        late = [*talk.segments, talk.segments[i]]
        assert told(late) == want
    for i in range(3, len(talk.segments) - 1):
        swapped = talk.segments.copy()
        swapped[i], swapped[i + 1] = swapped[i + 1], swapped[i]
        assert told(swapped) == want


@pytest.mark.parametrize("name", HEADS)
def test_with_holes_nothing_is_wrongly_judged_and_it_comes_back(name):
    pieces = head(name)
    for hole in range(len(pieces)):
        talk = mq.Talk().open()
        for way, piece in pieces:
            talk.add(way, piece)
        missing = 2 + hole
        lost = talk.segments.pop(missing)
        talk.add(lost.to_server, mq.publish("a", b"1") * 5)
        talk.add(lost.to_server, mq.publish("a", b"2"))
        for batch in (None, 1):
            rows = told(talk.segments, batch)
            assert {r["violation"] for r in rows} <= {0}
            last = [r for r in rows if r["to_server"] is lost.to_server]
            assert last[-1]["packet_type"] == MqttType.PUBLISH
            assert last[-1]["synchronised"]
