"""What tshark says of every frame of a capture, in the columns of `PacketTable`; and a plain pcap reader.

tshark is asked for single packets: no reassembly, no sequence analysis, only the protocols that we read.
"""

import ipaddress
import os
import shutil
import struct
import subprocess
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from agent.records import V4_MAPPED_LO, TlsRecord

PREFERENCES = (
    "ip.defragment:FALSE",
    "ipv6.defragment:FALSE",
    "tcp.desegment_tcp_streams:FALSE",
    "tcp.relative_sequence_numbers:FALSE",
    "tcp.analyze_sequence_numbers:FALSE",
    "tls.desegment_ssl_records:FALSE",
    "tls.desegment_ssl_application_data:FALSE",
)
PROTOCOLS = frozenset(
    "frame eth ethertype sll null raw vlan ieee8021ad arp ip ipv6 icmp icmpv6 tcp udp ipv6.hopopts "  # noqa: SIM905 - names read better as words
    "ipv6.routing ipv6.fraghdr ipv6.dstopts ah mipv6 dns mdns llmnr dhcp tls".split()
)
FIELDS = (  # noqa: SIM905 - names read better as words
    "frame.protocols frame.len eth.src eth.dst eth.type eth.len vlan.id vlan.etype ieee8021ad.id "
    "sll.src.eth sll.etype null.family arp.opcode arp.src.hw_mac arp.src.proto_ipv4 arp.dst.hw_mac "
    "arp.dst.proto_ipv4 ip.version ip.src ip.dst ip.proto ip.ttl ip.len ip.hdr_len ip.frag_offset "
    "ip.flags.mf ipv6.src ipv6.dst ipv6.hlim ipv6.plen ipv6.nxt ipv6.hopopts.nxt ipv6.routing.nxt "
    "ipv6.fraghdr.nxt ipv6.dstopts.nxt ah.next_header ipv6.fraghdr.offset ipv6.fraghdr.more "
    "tcp.srcport tcp.dstport tcp.seq_raw tcp.ack_raw tcp.flags tcp.window_size_value tcp.hdr_len "
    "tcp.len tcp.options.mss_val tcp.options.wscale.shift tcp.options.timestamp.tsval udp.srcport "
    "udp.dstport udp.length icmp.type icmp.code icmpv6.type icmpv6.code icmpv6.nd.ns.target_address "
    "icmpv6.nd.na.target_address icmpv6.opt.linkaddr icmpv6.nd.na.flag.r icmpv6.nd.na.flag.s "
    "icmpv6.nd.na.flag.o dns.flags.response dns.flags.opcode dns.flags.rcode dns.count.queries "
    "dns.count.zones dns.count.prerequisites dns.count.answers dhcp.type dhcp.option.dhcp "
    "tls.record.content_type tls.record.opaque_type tls.record.version "
    "tls.handshake.type tls.handshake.version tls.handshake.length "
    "tls.handshake.cipher_suites_length tls.handshake.extension.type _ws.malformed"
).split()

EXTENSIONS = frozenset({"ah", "mipv6"})
"""Extension headers whose layer is not named after IPv6."""

ABSENT: dict[str, object] = (
    dict.fromkeys(
        ("family", "src_hi", "src_lo", "dst_hi", "dst_lo", "ttl", "ip_len", "fragment"), 0
    )
    | dict.fromkeys(
        ("src_port", "dst_port", "tcp_flags", "tcp_seq", "tcp_ack", "tcp_window", "tls"), 0
    )
    | {"proto": 255, "icmp_type": 255, "icmp_code": 255, "tcp_mss": -1, "tcp_wscale": -1}
    | {"tcp_timestamp": False, "vlan_id": -1, "src_mac": 0, "dst_mac": 0}
    | dict.fromkeys(("arp", "nd", "dns", "dhcp", "tls_hello"))
)
"""What a frame says of a layer that it does not have."""

Said = dict[str, list[str]]
"""Every occurrence of each field in one frame."""


RAW_NUMBERS = frozenset({12, 14})
"""Raw IP as BSD systems numbered it; tshark reads 101."""


@dataclass(frozen=True)
class Capture:
    """A whole capture file."""

    link_type: int
    frames: list[bytes]
    wirelen: list[int]


def read_pcap(path: Path) -> Capture:
    """Read a pcap file of either byte order, record by record."""
    data = path.read_bytes()
    order = "<" if data[:1] in b"\xd4\x4d" else ">"
    frames, wirelen, at = [], [], 24
    while at + 16 <= len(data):
        _, _, caplen, wire = struct.unpack(f"{order}4I", data[at : at + 16])
        frames.append(data[at + 16 : at + 16 + caplen])
        wirelen.append(min(max(wire, caplen), 2**31 - 1))
        at += 16 + caplen
    return Capture(struct.unpack(f"{order}I", data[20:24])[0] & 0xFFFF, frames, wirelen)


def as_pcap(path: Path, folder: Path) -> Path:
    """The capture as a classic pcap file, converted by Wireshark's editcap where it is not one."""
    if path.read_bytes()[:4] in (b"\xd4\xc3\xb2\xa1", b"\xa1\xb2\xc3\xd4"):
        return path
    out = folder / f"{path.stem}.pcap"
    subprocess.run([tool("editcap"), "-F", "pcap", path, out], check=True, capture_output=True)
    return out


def tool(name: str) -> str:
    """Where a program is; it must be there."""
    path = shutil.which(name)
    assert path, f"{name} is not installed (apt install tshark)"
    return path


def write_profile(folder: Path) -> None:
    """A configuration of tshark's in which only PROTOCOLS are read."""
    every = subprocess.run([tool("tshark"), "-G", "protocols"], check=True, capture_output=True)
    names = [line.split("\t")[2] for line in every.stdout.decode().splitlines()]
    off = [name for name in names if name not in PROTOCOLS]
    (folder / "disabled_protos").write_text("\n".join(off) + "\n")


def ask(path: Path, profile: Path) -> list[Said]:
    """All of FIELDS for every frame; `profile` is a folder that `write_profile` filled."""
    command = [tool("tshark"), "-n", "-r", str(path), "-T", "fields"]
    command += ["-E", "occurrence=a", "-E", "aggregator=|", "--enable-heuristic", "tls_tcp"]
    for preference in PREFERENCES:
        command += ["-o", preference]
    for name in FIELDS:
        command += ["-e", name]
    environment = os.environ | {"WIRESHARK_CONFIG_DIR": str(profile)}
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    rows = []
    for line in done.stdout.splitlines():
        values = line.split("\t")
        said = {f: v.split("|") for f, v in zip(FIELDS, values, strict=True) if v}
        rows.append(defaultdict(list, said))
    return rows


def columns(said: Said) -> dict[str, object]:
    """tshark's words as columns of `PacketTable` and rows of its side tables; the outermost header counts.

    What tshark does not show is absent, with our decoder's values of "absent"; a column for which it
    has no word at all is left out.
    """
    layers = said["frame.protocols"][0].split(":")
    out = ABSENT | _link(said)
    out["arp"] = _arp(said) if "arp" in layers else None
    network = next((name for name in layers if name in {"ip", "ipv6"}), None)
    later = False
    if network == "ip" and said["ip.src"]:
        later = int(said["ip.frag_offset"][0]) > 0
        out |= _ip4(said) | {"family": 4}
    elif network == "ipv6" and said["ipv6.src"]:
        later = bool(said["ipv6.fraghdr.offset"]) and int(said["ipv6.fraghdr.offset"][0]) > 0
        out |= _ip6(said) | {"family": 6}
    inside = layers[layers.index(network) + 1 :] if network and not later else []
    inside = [name for name in inside if not name.startswith("ipv6.") and name not in EXTENSIONS]
    return out | _transport(said, inside[0] if inside else "", inside[1] if inside[1:] else "")


def _transport(said: Said, name: str, above: str) -> dict[str, object]:
    """The columns of the transport header `name`, and of the protocol `above` it."""
    if name == "tcp" and said["tcp.flags"]:
        return _tcp(said) | (
            {"tls": _tls(said), "tls_hello": _hello(said)} if above == "tls" else {}
        )
    if name == "udp":
        out = _udp(said)
        if above in {"dns", "mdns", "llmnr"}:
            out["dns"] = _dns(said)
        if above == "dhcp":
            out["dhcp"] = _dhcp(said)
        return out
    if name in {"icmp", "icmpv6"} and said[f"{name}.type"]:
        kind, code = int(said[f"{name}.type"][0]), int(said[f"{name}.code"][0])
        out = {"icmp_type": kind, "icmp_code": code}
        if name == "icmpv6" and kind in {135, 136}:
            out["nd"] = _nd(said)
        return out
    return {}


def _mac(text: str) -> int:
    return int(text.replace(":", ""), 16)


def _yes(text: str) -> int:
    return int(text in {"1", "True"})


def _v4(text: str) -> int:
    return int(ipaddress.IPv4Address(text))


def _link(said: Said) -> dict[str, object]:
    types = said["vlan.etype"] or said["eth.type"] or said["sll.etype"] or said["eth.len"]
    tags = said["ieee8021ad.id"] or said["vlan.id"]
    out: dict[str, object] = {"vlan_id": int(tags[0]) if tags else -1}
    if types:
        out["eth_type"] = int(types[len(said["vlan.etype"]) - 1 if said["vlan.etype"] else 0], 0)
    if said["eth.src"]:
        out["src_mac"], out["dst_mac"] = _mac(said["eth.src"][0]), _mac(said["eth.dst"][0])
    if said["sll.src.eth"]:
        out["src_mac"] = _mac(said["sll.src.eth"][0])
    return out


def _arp(said: Said) -> dict[str, int] | None:
    if not said["arp.dst.proto_ipv4"] or not said["arp.src.hw_mac"]:
        return None  # cut, or not Ethernet's and IPv4's
    return {
        "op": int(said["arp.opcode"][0]),
        "sender_mac": _mac(said["arp.src.hw_mac"][0]),
        "sender_ip": _v4(said["arp.src.proto_ipv4"][0]),
        "target_mac": _mac(said["arp.dst.hw_mac"][0]),
        "target_ip": _v4(said["arp.dst.proto_ipv4"][0]),
    }


def _ip4(said: Said) -> dict[str, object]:
    later, more = int(said["ip.frag_offset"][0]) > 0, _yes(said["ip.flags.mf"][0])
    return {
        "src_hi": 0,
        "src_lo": V4_MAPPED_LO | _v4(said["ip.src"][0]),
        "dst_hi": 0,
        "dst_lo": V4_MAPPED_LO | _v4(said["ip.dst"][0]),
        "proto": int(said["ip.proto"][0]),
        "ttl": int(said["ip.ttl"][0]),
        "ip_len": int(said["ip.len"][0]),
        "fragment": 2 if later else more,
    }


def _ip6(said: Said) -> dict[str, object]:
    src = int(ipaddress.IPv6Address(said["ipv6.src"][0]))
    dst = int(ipaddress.IPv6Address(said["ipv6.dst"][0]))
    low = (1 << 64) - 1
    extension = {0: "hopopts", 43: "routing", 44: "fraghdr", 60: "dstopts"}
    proto, seen = int(said["ipv6.nxt"][0]), dict.fromkeys(extension, 0)
    while proto in extension and len(said[f"ipv6.{extension[proto]}.nxt"]) > seen[proto]:
        seen[proto], proto = (
            seen[proto] + 1,
            int(said[f"ipv6.{extension[proto]}.nxt"][seen[proto]]),
        )
    out: dict[str, object] = {"src_hi": src >> 64, "src_lo": src & low}
    out |= {"dst_hi": dst >> 64, "dst_lo": dst & low, "proto": proto}
    out |= {"ttl": int(said["ipv6.hlim"][0]), "ip_len": int(said["ipv6.plen"][0]) + 40}
    later = bool(said["ipv6.fraghdr.offset"]) and int(said["ipv6.fraghdr.offset"][0]) > 0
    more = bool(said["ipv6.fraghdr.more"]) and _yes(said["ipv6.fraghdr.more"][0])
    return out | {"fragment": 2 if later else int(more)}


def _tcp(said: Said) -> dict[str, object]:
    out: dict[str, object] = {
        "src_port": int(said["tcp.srcport"][0]),
        "dst_port": int(said["tcp.dstport"][0]),
        "tcp_seq": int(said["tcp.seq_raw"][0]),
        "tcp_ack": int(said["tcp.ack_raw"][0]),
        "tcp_flags": int(said["tcp.flags"][0], 16),
        "tcp_window": int(said["tcp.window_size_value"][0]),
        "tcp_mss": int((said["tcp.options.mss_val"] or ["-1"])[0]),
        "tcp_wscale": int((said["tcp.options.wscale.shift"] or ["-1"])[0]),
        "tcp_timestamp": bool(said["tcp.options.timestamp.tsval"]),
    }
    if said["tcp.len"]:
        out["payload_len"] = int(said["tcp.len"][0])
    return out


def _udp(said: Said) -> dict[str, object]:
    out: dict[str, object] = {
        "src_port": int(said["udp.srcport"][0]),
        "dst_port": int(said["udp.dstport"][0]),
    }
    if said["udp.length"]:
        out["payload_len"] = int(said["udp.length"][0]) - 8
    return out


def _nd(said: Said) -> dict[str, int] | None:
    kind = int(said["icmpv6.type"][0])
    target = said["icmpv6.nd.ns.target_address"] or said["icmpv6.nd.na.target_address"]
    if not target:
        return None
    address, bits = int(ipaddress.IPv6Address(target[0])), 0
    if kind == 136:
        flags = [said[f"icmpv6.nd.na.flag.{name}"][0] for name in "rso"]
        bits = int("".join(str(_yes(flag)) for flag in flags), 2)
    mac = said["icmpv6.opt.linkaddr"]
    return {
        "icmp_type": kind,
        "target_hi": address >> 64,
        "target_lo": address & ((1 << 64) - 1),
        "link_mac": _mac(mac[0]) if mac else 0,
        "flags": bits,
    }


def _dns(said: Said) -> dict[str, int] | None:
    questions = (
        said["dns.count.queries"] or said["dns.count.zones"]
    )  # an update names them otherwise
    answers = said["dns.count.answers"] or said["dns.count.prerequisites"]
    if not answers or not said["dns.flags.response"]:
        return None
    return {
        "response": _yes(said["dns.flags.response"][0]),
        "opcode": int(said["dns.flags.opcode"][0]),
        "rcode": int((said["dns.flags.rcode"] or ["0"])[0]),
        "n_questions": int(questions[0]),
        "n_answers": int(answers[0]),
    }


def _dhcp(said: Said) -> dict[str, int] | None:
    if not said["dhcp.type"]:
        return None
    kind = said["dhcp.option.dhcp"]
    return {"op": int(said["dhcp.type"][0]), "message_type": int(kind[0]) if kind else 0}


def _tls(said: Said) -> int:
    """The `TlsRecord` that the first record is; its handshake type counts only where it is in the clear."""
    kind = int((said["tls.record.content_type"] or said["tls.record.opaque_type"] or ["0"])[0])
    handshake = (said["tls.handshake.type"] or ["0"])[0] if kind == 22 else ""
    names = {20: TlsRecord.CHANGE_CIPHER_SPEC, 21: TlsRecord.ALERT, 22: TlsRecord.HANDSHAKE_OTHER}
    names |= {23: TlsRecord.APPLICATION_DATA}
    hellos = {"1": TlsRecord.CLIENT_HELLO, "2": TlsRecord.SERVER_HELLO}
    return int(hellos.get(handshake, names.get(kind, TlsRecord.NONE)))


def _hello(said: Said) -> dict[str, int] | None:
    if said["tls.record.content_type"][:1] != ["22"] or said["tls.handshake.type"][:1] != ["1"]:
        return None
    return {
        "record_version": int(said["tls.record.version"][0], 16),
        "hello_version": int((said["tls.handshake.version"] or ["0"])[0], 16),
        "n_ciphers": int((said["tls.handshake.cipher_suites_length"] or ["0"])[0]) // 2,
        "n_extensions": len(said["tls.handshake.extension.type"]),
        "hello_len": int((said["tls.handshake.length"] or ["-1"])[0]),
    }
