"""More attacks on the broker: over TLS and IPv6, QoS 2, many topics, dripped CONNECTs, mutated packets.

Run by `converter.testbed.hostile`, which refuses outside a ward. Every one is bounded by a count.
In: options as JSON gave them; `tls` true wraps the connection. Nothing sent is of any person.
"""

import socket
import ssl
import time
from collections.abc import Callable
from contextlib import suppress
from random import Random
from typing import Any

from converter.testbed import wire
from converter.testbed.pacing import pace

Options = dict[str, Any]


def _context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def _open(o: Options) -> socket.socket:
    s = socket.create_connection((o["dst"], o["port"]), 3)
    s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return _context().wrap_socket(s) if o.get("tls") else s


def _client(rng: Random) -> str:
    return f"c{rng.randrange(10**8)}"


def _greeted(o: Options, rng: Random) -> socket.socket:
    s = _open(o)
    s.sendall(wire.connect(_client(rng)))
    s.settimeout(0.3)
    with suppress(OSError):
        s.recv(16)
    return s


def mqtt_messages(o: Options) -> None:
    """PUBLISHes on a few connections: QoS 0 to 2, sizes, topics and the retain flag as told."""
    rng = Random(o["seed"])
    sockets = [_greeted(o, rng) for _ in range(o["connections"])]
    body = rng.randbytes(o["size"])
    for i in pace(o["rate"], o["messages"]):
        s, topic = sockets[i % len(sockets)], f"ward/x/{i % o['topics']}"
        number = 1 + i % 65535
        data = bytearray(wire.publish(topic, body, qos=o["qos"], packet_id=number))
        data[0] |= int(o["retain"])
        with suppress(OSError):
            s.sendall(data)
            if o["qos"] == 2 and o["release"]:
                s.sendall(wire.packet(0x62, number.to_bytes(2, "big")))
            if o["qos"] and i % 8 == 0:
                s.settimeout(0.001)
                s.recv(4096)
    time.sleep(0.3)
    for s in sockets:
        s.close()


def mqtt_drip(o: Options) -> None:
    """SlowITe of the slow sort: a CONNECT of which a byte comes now and then, on ever more connections, all held."""
    rng, held = Random(o["seed"]), []
    per = max(1, int(o["rate"] * o["drip_s"]))
    for i in pace(o["rate"], o["count"]):
        with suppress(OSError):
            s = _open(o)
            data = wire.connect(_client(rng), keep_alive=65535)
            s.sendall(data[:4])
            held.append((s, data[4:]))
        if i % per == per - 1:
            for old, rest in held:
                with suppress(OSError):
                    old.sendall(rest[:1])
            held = [(old, rest[1:]) for old, rest in held]
    time.sleep(o["hold_s"])
    for s, _ in held:
        s.close()


def tls_hellos(o: Options) -> None:
    """Handshakes with the TLS listener, each ended before a CONNECT."""
    for _ in pace(o["rate"], o["count"]):
        with suppress(OSError):
            _open(o).close()


def paho_connects(o: Options) -> None:
    """A library's client that connects and leaves, again and again; with `user`, refused each time."""
    from paho.mqtt import client as mqtt  # noqa: PLC0415 - half the start-up time of the others
    from paho.mqtt.enums import CallbackAPIVersion  # noqa: PLC0415

    for _ in pace(o["rate"], o["count"]):
        c = mqtt.Client(CallbackAPIVersion.VERSION2)
        if o["user"]:
            c.username_pw_set(o["user"], "guess")
        with suppress(OSError):
            c.connect(o["dst"], o["port"])
            for _ in range(2):
                c.loop(0.05)
            c.disconnect()


def _broken(o: Options, rng: Random) -> tuple[bool, bytes]:  # noqa: PLR0911 - a broken rule each
    """Whether a proper CONNECT goes first, and a packet broken as `how` says."""
    good = (
        wire.connect(_client(rng)),
        wire.publish("ward/x", b"123", qos=1, packet_id=7),
        wire.packet(0x82, b"\x00\x05" + wire.text("ward/#") + b"\x01"),
    )
    how = rng.choice(o["how"])
    if how == "mutated":
        data = bytearray(rng.choice(good))
        for _ in range(rng.randint(1, 4)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        return rng.random() < 0.6, bytes(data)
    if how == "cut":
        data5 = rng.choice(good)
        return rng.random() < 0.6, data5[: rng.randrange(1, len(data5))]
    if how == "properties":  # MQTT 5: unknown property, property twice, length past the end
        wrong = rng.choice(
            (b"\x02\x7f\x01", b"\x0a\x11\x00\x00\x00\x01\x11\x00\x00\x00\x01", b"\xff\x7f")
        )
        return False, wire.packet(
            0x10, wire.text("MQTT") + b"\x05\x02\x00\x3c" + wrong + wire.text("c")
        )
    if how == "filters":
        topic = rng.choice((b"ward/#/x", b"a+/b", b"", b"a/\x00/b", b"+a"))
        return True, wire.packet(0x82, b"\x00\x05" + wire.text(topic) + b"\x00")
    if how == "filter_options":
        return True, wire.packet(0x82, b"\x00\x05" + wire.text("a/b") + b"\x07")
    if how == "acks":
        return True, wire.packet(
            rng.choice((0x40, 0x50, 0x62, 0x70)), b"\x00" * rng.choice((0, 1, 2))
        )
    return True, wire.packet(rng.choice((0x20, 0x90, 0xB0, 0xD0)), b"\x00\x01\x00")  # a server's


def mqtt_broken(o: Options) -> None:
    """Broken packets, `train` of them a connection, after a proper CONNECT where it needs one."""
    rng = Random(o["seed"])
    for _ in pace(o["rate"], o["count"]):
        with suppress(OSError):
            greet, data = _broken(o, rng)
            s = _greeted(o, rng) if greet else _open(o)
            s.settimeout(0.05)
            for _ in range(o["train"]):
                s.sendall(data)
                data = _broken(o, rng)[1]
            with suppress(OSError):
                s.recv(64)
            s.close()


TOOLS: tuple[Callable[[Options], None], ...] = (
    mqtt_messages, mqtt_drip, tls_hellos, paho_connects, mqtt_broken,
)  # fmt: skip
