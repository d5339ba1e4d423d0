"""One-off benign actions on a host of the ward: downloads, streams, polls, DHCP, a moving address.

Each takes its options and the stop event, is bounded, and ends by itself. Sends nothing that an ordinary
host would not. Source: RFC 2131 (DHCP), RFC 5227 (announcing an address), RFC 3550 (the shape of RTP).
"""

import os
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from converter.testbed import wire

Options = dict[str, Any]


def echo(address: str, count: int) -> None:
    """Ping a host, quietly."""
    subprocess.run(
        ["ping", "-q", "-n", "-c", str(count), "-i", "0.3", "-W", "1", address],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        check=False,
    )


def fetch(o: Options, stop: threading.Event) -> None:
    """Download one file."""
    import http.client  # noqa: PLC0415  slow to load; one action wants it

    del stop
    connection = http.client.HTTPConnection(o["web"], o["web_port"], timeout=10)
    with suppress(OSError, http.client.HTTPException):
        connection.request("GET", o["path"])
        reply = connection.getresponse()
        while reply.read(65536):
            pass
    connection.close()


def pages(o: Options, stop: threading.Event) -> None:
    """Many short requests one after the other."""
    for i in range(o["count"]):
        if stop.wait(0.01):
            return
        fetch({**o, "path": ("/", "/app.js", "/trend.json", "/missing.png")[i % 4]}, stop)


def sink(o: Options, stop: threading.Event) -> None:
    """Take what comes on a port."""
    kind = socket.SOCK_STREAM if o["kind"] == "tcp" else socket.SOCK_DGRAM
    with socket.socket(socket.AF_INET, kind) as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        s.bind(("", o["port"]))
        s.settimeout(0.5)
        if o["kind"] == "udp":
            while not stop.is_set():
                with suppress(TimeoutError):
                    s.recv(65536)
            return
        s.listen()
        while not stop.is_set():
            with suppress(TimeoutError, ConnectionError):
                peer = s.accept()[0]
                with peer:
                    while peer.recv(1 << 18) and not stop.is_set():
                        pass


def bulk(o: Options, stop: threading.Event) -> None:
    """Send `size` bytes over TCP, at `rate` writes a second or as fast as it goes."""
    time.sleep(0.7)
    block = os.urandom(1400 if o["rate"] else 16384)
    with suppress(OSError), socket.create_connection((o["dst"], o["port"]), 3) as s:
        for _ in range(o["size"] // len(block)):
            s.sendall(block)
            if o["rate"] and stop.wait(1 / o["rate"]):
                return


def stream(o: Options, stop: threading.Event) -> None:
    """RTP-like datagrams at a steady rate."""
    time.sleep(0.7)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        body = os.urandom(o["size"])
        start, n = time.monotonic(), int(o["rate"] * o["seconds"])
        for i in range(n):
            with suppress(OSError):
                s.sendto(
                    struct.pack("!BBHII", 0x80, 96, i & 0xFFFF, i * 160, 7) + body,
                    (o["dst"], o["port"]),
                )
            if stop.wait(max(0.0, start + i / o["rate"] - time.monotonic())):
                return


def poll(o: Options, stop: threading.Event) -> None:
    """Echo each known host once, then open and close a connection to each server."""
    for target in o["targets"]:
        echo(target, 1)
        if stop.wait(1 / o["rate"]):
            return
    for host, port in o["servers"]:
        with suppress(OSError), socket.create_connection((host, port), 2):
            pass


def wake(o: Options, stop: threading.Event) -> None:
    """Forget all neighbours, then say something to each."""
    subprocess.run(["ip", "neigh", "flush", "all"], check=False, stderr=subprocess.DEVNULL)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        for target in o["targets"]:
            with suppress(OSError):
                s.sendto(b"hello", (target, 5353))
            if stop.wait(0.02):
                return


def dhcp(o: Options, stop: threading.Event) -> None:
    """DISCOVER and REQUEST for a second address that is then not used."""
    mac = bytes.fromhex(o["mac"].replace(":", ""))
    xid = os.urandom(4)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        s.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        s.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"eth0")
        s.bind(("", 68))
        s.settimeout(1)
        asked = b""
        for kind in (b"\x01", b"\x03"):
            head = (
                b"\x01\x01\x06\x00" + xid + b"\x00\x00\x80\x00" + bytes(16) + mac + bytes(10 + 192)
            )
            options = b"\x63\x82\x53\x63\x35\x01" + kind + asked + b"\x37\x03\x01\x03\x06\xff"
            for _ in range(3):
                s.sendto(head + options, ("255.255.255.255", 67))
                with suppress(TimeoutError):
                    reply = _my_reply(s, xid)
                    asked = b"\x32\x04" + reply[16:20]
                    break
                if stop.is_set():
                    return


def _my_reply(s: socket.socket, xid: bytes) -> bytes:
    """The first answer to our transaction; others' are broadcast too."""
    while True:
        reply = s.recv(2048)
        if reply[4:8] == xid:
            return reply


def hold(o: Options, stop: threading.Event) -> None:
    """Take an address over, announce it once or twice, give it back after a while."""
    if stop.wait(o["wait"]):
        return
    address = f"{o['address']}/24"
    subprocess.run(["ip", "addr", "add", address, "dev", "eth0"], check=False)
    mac = bytes.fromhex(o["mac"].replace(":", ""))
    ip = socket.inet_aton(o["address"])
    frame = (
        b"\xff" * 6 + mac + b"\x08\x06\x00\x01\x08\x00\x06\x04\x00\x01" + mac + ip + bytes(6) + ip
    )
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as s:
        s.bind(("eth0", 0))
        for _ in range(2):
            s.send(frame)
            stop.wait(0.5)
    stop.wait(o["seconds"])
    subprocess.run(["ip", "addr", "del", address, "dev", "eth0"], check=False)


def backlog(o: Options, stop: threading.Event) -> None:
    """A device that was out of reach sends what it had stored, at once, and leaves."""
    with suppress(OSError), socket.create_connection((o["dst"], o["port"]), 3) as s:
        s.settimeout(1)
        s.sendall(wire.connect(f"stored-{o['seed']}"))
        s.recv(16)
        for i in range(o["messages"]):
            s.sendall(
                wire.publish(
                    "ward/stored",
                    os.urandom(o["size"]).hex().encode(),
                    qos=o["qos"],
                    packet_id=1 + i,
                )
            )
            if stop.wait(0.002 * (i % 5 == 0)):
                return
        with suppress(TimeoutError):
            while s.recv(4096):
                pass
        s.sendall(b"\xe0\x00")


def burn(o: Options, stop: threading.Event) -> None:
    """Keep a core busy for about a `share` of the time, in bursts."""
    end = time.monotonic() + o["seconds"]
    while time.monotonic() < end and not stop.is_set():
        edge = time.monotonic() + 0.05 * o["share"]
        while time.monotonic() < edge:
            wire.checksum(bytes(512))
        stop.wait(0.05 * (1 - o["share"]))


ACTIONS: dict[str, Callable[[Options, threading.Event], None]] = {
    f.__name__: f for f in (fetch, pages, sink, bulk, stream, poll, wake, dhcp, hold, backlog, burn)
}
"""What `benign.py` may ask for."""
