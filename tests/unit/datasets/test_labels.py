"""Which frames of a capture are hostile: by MAC, time and the kind's shape; and the label file."""

import struct
from dataclasses import replace

import numpy as np
import pytest

from agent.decode.decoder import PacketDecoder
from converter.datasets.labels import (
    DatasetError,
    Episode,
    hostile_any,
    hostile_frames,
    read_labels,
    write_labels,
)
from converter.testbed import wire_ip
from tests.support.frames import batch_of, tcp, udp

ATTACKER, VICTIM, OTHER = (bytes.fromhex(f"0200000000{n}") for n in ("aa", "bb", "cc"))
IPS = {ATTACKER: b"\x0a\x00\x00\x0a", VICTIM: b"\x0a\x00\x00\x0b", OTHER: b"\x0a\x00\x00\x0c"}


def frame(
    src: bytes, dst: bytes, payload: bytes, proto: int, *, source_ip: bytes | None = None
) -> bytes:
    head = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(payload), 1, 0, 64, proto, 0)
    return dst + src + b"\x08\x00" + head + (source_ip or IPS[src]) + IPS[dst] + payload


def arp(src: bytes, op: int, claimed: bytes, *, mac: bytes | None = None) -> bytes:
    body = b"\x00\x01\x08\x00\x06\x04" + struct.pack(">H", op) + (mac or src) + claimed
    return OTHER + src + b"\x08\x06" + body + OTHER + IPS[OTHER]


SYN = tcp(flags=2)
FRAMES = {
    "syn": frame(ATTACKER, VICTIM, SYN, 6),
    "spoofed syn": frame(ATTACKER, VICTIM, SYN, 6, source_ip=b"\x17\x01\x02\x03"),
    "rst": frame(ATTACKER, VICTIM, tcp(flags=4, ports=(40000, 99)), 6),
    "udp": frame(ATTACKER, VICTIM, udp(b"x"), 17),
    "echo": frame(ATTACKER, VICTIM, b"\x08\x00\x00\x00\x00\x01\x00\x01", 1),
    "to other": frame(ATTACKER, OTHER, SYN, 6),
    "answer": frame(VICTIM, ATTACKER, tcp(flags=0x12), 6),
    "benign": frame(OTHER, VICTIM, SYN, 6),
    "asks": arp(ATTACKER, 1, IPS[ATTACKER]),
    "own claim": arp(ATTACKER, 2, IPS[ATTACKER]),
    "forged claim": arp(ATTACKER, 2, IPS[VICTIM]),
    "restored": arp(ATTACKER, 2, IPS[VICTIM], mac=VICTIM),
    "relayed": frame(ATTACKER, OTHER, tcp(), 6, source_ip=IPS[VICTIM]),
}
HOSTILE = {
    "tcp_syn_flood": {"syn", "spoofed syn"},
    "tcp_flood": {"syn", "spoofed syn", "rst"},
    "udp_flood": {"udp"},
    "icmp_flood": {"echo"},
    "port_scan": {"syn", "spoofed syn", "rst", "udp", "echo"},
    "os_scan": {"syn", "spoofed syn", "rst", "udp", "echo"},
    "vulnerability_scan": {"syn", "spoofed syn", "rst", "udp", "echo"},
    "ping_sweep": {"syn", "spoofed syn", "rst", "udp", "echo", "to other", "asks", "relayed"},
    "arp_spoofing": {"spoofed syn", "forged claim", "relayed"},
    "mqtt_connect_flood": {"syn", "spoofed syn"},
    "mqtt_publish_flood": {"syn", "spoofed syn"},
    "mqtt_malformed": {"syn", "spoofed syn"},
}
SECOND = 1_000_000_000


def episode(kind: str, **changes) -> Episode:
    fields = {
        "run": "r", "kind": kind, "variant": "v", "tool": "t", "start_ns": SECOND, "end_ns": 2 * SECOND,
        "attackers": ["10.0.0.10"], "victims": ["10.0.0.11"], "ports": [1883],
        "attacker_macs": ["02:00:00:00:00:aa"],
    }  # fmt: skip
    return Episode(**{**fields, **changes})


def decoded(ts_ns: int = SECOND):
    batch = batch_of(list(FRAMES.values()))
    return PacketDecoder().decode(replace(batch, ts_ns=np.full(len(FRAMES), ts_ns, np.int64)))


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_are_the_attackers_frames_of_the_kinds_shape(kind):
    mask = hostile_frames(decoded(), episode(kind))
    assert {n for n, m in zip(FRAMES, mask.tolist(), strict=True) if m} == HOSTILE[kind]


@pytest.mark.parametrize(
    ("ts_ns", "hostile"), [(SECOND - 1, 0), (SECOND, 2), (2 * SECOND, 2), (2 * SECOND + 1, 0)]
)
def test_both_ends_of_an_episode_belong_to_it(ts_ns, hostile):
    assert hostile_frames(decoded(ts_ns), episode("tcp_syn_flood")).sum() == hostile


def test_without_the_attackers_mac_nothing_is_hostile():
    assert not hostile_frames(decoded(), episode("tcp_flood", attacker_macs=[])).any()


def test_episodes_add_up():
    both = hostile_any(decoded(), [episode("udp_flood"), episode("icmp_flood")])
    assert {n for n, m in zip(FRAMES, both.tolist(), strict=True) if m} == {"udp", "echo"}


def test_labels_come_back_as_written_in_order_of_time(tmp_path):
    path = tmp_path / "x.labels.jsonl"
    late, early = episode("udp_flood", start_ns=5, frames=3), episode("port_scan", start_ns=4)
    write_labels(path, [late, early])
    assert read_labels(path) == [early, late]


@pytest.mark.parametrize("text", ['{"run": 1}\n', "no json\n"])
def test_a_wrong_label_names_file_and_line(tmp_path, text):
    path = tmp_path / "x.labels.jsonl"
    write_labels(path, [episode("udp_flood")])
    path.write_bytes(path.read_bytes() + text.encode())
    with pytest.raises(DatasetError, match=r"x\.labels\.jsonl:2: "):
        read_labels(path)


def test_a_missing_label_file_is_one_line(tmp_path):
    with pytest.raises(DatasetError, match="cannot be read"):
        read_labels(tmp_path / "absent.labels.jsonl")


SIX = {ATTACKER: "fd00::a", VICTIM: "fd00::b", OTHER: "fd00::c"}


def frame6(
    src: bytes, dst: bytes, proto: int, body: bytes, *, source: str = "", to: str = ""
) -> bytes:
    ends = (source or SIX[src], to or SIX[dst])
    return dst + src + b"\x86\xdd" + wire_ip.datagram(*ends, proto, body)


def icmp6(kind: int) -> bytes:
    return wire_ip.icmp((SIX[ATTACKER], SIX[VICTIM]), kind, 0, bytes(4 + 16 * (kind > 132)))


SYN6 = wire_ip.tcp((SIX[ATTACKER], SIX[VICTIM]), (40000, 1883), 2)
FORGED = wire_ip.neighbour((SIX[VICTIM], SIX[OTHER]), SIX[VICTIM], ATTACKER, advertise=True)
GROUP = b"\x33\x33\x00\x00\x00\x01"
FRAMES6 = {
    "syn": frame6(ATTACKER, VICTIM, 6, SYN6),
    "udp": frame6(ATTACKER, VICTIM, 17, wire_ip.udp((SIX[ATTACKER], SIX[VICTIM]), (1, 2), b"x")),
    "echo": frame6(ATTACKER, VICTIM, 58, icmp6(128)),
    "echo to all": frame6(ATTACKER, GROUP, 58, icmp6(128), to="ff02::1"),
    "to other": frame6(ATTACKER, OTHER, 6, SYN6),
    "own claim": frame6(ATTACKER, VICTIM, 58, icmp6(136)),
    "asks": frame6(ATTACKER, VICTIM, 58, icmp6(135)),
    "link local": frame6(ATTACKER, VICTIM, 58, icmp6(136), source="fe80::1"),
    "forged claim": OTHER + ATTACKER + b"\x86\xdd" + FORGED,
    "relayed": frame6(ATTACKER, OTHER, 6, SYN6, source=SIX[VICTIM]),
    "answer": frame6(VICTIM, ATTACKER, 6, SYN6),
    "IPv4": FRAMES["syn"],
}
HOSTILE6 = {
    "tcp_syn_flood": {"syn"},
    "udp_flood": {"udp"},
    "icmp_flood": {"echo"},
    "port_scan": {"syn", "udp", "echo"},
    "ping_sweep": {"syn", "udp", "echo", "echo to all", "to other", "asks", "relayed"},
    "arp_spoofing": {"forged claim", "relayed"},
    "mqtt_malformed": {"syn"},
}


@pytest.mark.parametrize("kind", HOSTILE6)
def test_over_ipv6_the_shapes_hold_and_a_kernels_own_words_are_not_hostile(kind):
    table = PacketDecoder().decode(
        replace(batch_of(list(FRAMES6.values())), ts_ns=np.full(len(FRAMES6), SECOND, np.int64))
    )
    mask = hostile_frames(table, episode(kind, attackers=[SIX[ATTACKER]], victims=[SIX[VICTIM]]))
    assert {n for n, m in zip(FRAMES6, mask.tolist(), strict=True) if m} == HOSTILE6[kind]
