"""One-off benign actions that look bad: multicast storms, QoS 2 with retries, large images, polls, moving addresses.

As in `actions.py`: each takes its options and the stop event, is bounded, and ends by itself.
Source: RFC 6762 (mDNS), UPnP device architecture 2.0 (SSDP), RFC 2131 section 4.4.5 (renewal), MQTT 3.1.1
section 4.4 (QoS 2, sending again).
"""

import os
import random
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from converter.testbed import actions, wire
from converter.testbed.devices_clinical import snmp_poll

Options = dict[str, Any]


def _multicast(address: str) -> socket.socket:
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(address))
    s.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, 2)
    return s


def mdns(o: Options, stop: threading.Event) -> None:
    """Questions for services and unasked answers to 224.0.0.251, many in a few seconds."""
    rng = random.Random(o["seed"])
    service = b"\x05_http\x04_tcp\x05local\x00"
    name = f"device-{rng.randrange(1000)}".encode()
    answer = bytes((len(name),)) + name + b"\xc0\x0c"
    with _multicast(o["address"]) as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        s.bind(("", 5353))
        for _ in range(o["count"]):
            if rng.random() < 0.5:
                body = struct.pack("!6H", 0, 0, 1, 0, 0, 0) + service + b"\x00\x0c\x00\x01"
            else:
                body = struct.pack("!6H", 0, 0x8400, 0, 1, 0, 0) + service
                body += struct.pack("!HHIH", 12, 1, 4500, len(answer)) + answer
            with suppress(OSError):
                s.sendto(body, ("224.0.0.251", 5353))
            if stop.wait(rng.expovariate(o["rate"])):
                return


def ssdp(o: Options, stop: threading.Event) -> None:
    """M-SEARCH and NOTIFY to 239.255.255.250, in bursts."""
    rng = random.Random(o["seed"])
    heads = (
        'M-SEARCH * HTTP/1.1\r\nMAN: "ssdp:discover"\r\nMX: 2\r\nST: ssdp:all\r\n',
        "NOTIFY * HTTP/1.1\r\nNTS: ssdp:alive\r\nNT: upnp:rootdevice\r\nCACHE-CONTROL: max-age=1800\r\n",
    )
    with _multicast(o["address"]) as s:
        for _ in range(o["count"]):
            text = rng.choice(heads) + "HOST: 239.255.255.250:1900\r\n\r\n"
            with suppress(OSError):
                s.sendto(text.encode(), ("239.255.255.250", 1900))
            if stop.wait(rng.expovariate(o["rate"])):
                return


def ssdp_answers(o: Options, stop: threading.Event) -> None:
    """Answer each M-SEARCH to its asker, as a device does."""
    end = time.monotonic() + o["seconds"]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        s.bind(("", 1900))
        group = socket.inet_aton("239.255.255.250") + socket.inet_aton(o["address"])
        s.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, group)
        s.settimeout(0.5)
        while time.monotonic() < end and not stop.is_set():
            with suppress(TimeoutError):
                data, peer = s.recvfrom(2048)
                if data.startswith(b"M-SEARCH"):
                    s.sendto(b"HTTP/1.1 200 OK\r\nST: upnp:rootdevice\r\nEXT:\r\n\r\n", peer)


def _session(o: Options, client: str, flags: int) -> socket.socket:
    """A connection on which the broker has answered CONNECT."""
    s = socket.create_connection((o["dst"], o["port"]), 3)
    s.settimeout(3)
    s.sendall(wire.connect(client, flags=flags))
    s.recv(16)
    return s


def qos2(o: Options, stop: threading.Event) -> None:
    """QoS 2 in a lasting session; now and then the connection breaks and the message is sent again, as DUP."""
    rng = random.Random(o["seed"])
    client, s = f"exact-{o['seed']}", None
    again = False
    with suppress(OSError):
        s = _session(o, client, 0)
        i = 0
        while i < o["messages"] and not stop.wait(o["gap_s"]):
            body = wire.publish("ward/dose", b"%06d" % i * 8, qos=2, packet_id=1 + i, dup=again)
            s.sendall(body)
            if not again and rng.random() < o["broken"]:
                again = True
                s.close()
                if stop.wait(rng.uniform(0.05, 1.0)):
                    break
                s = _session(o, client, 0)
                continue
            again = False
            s.recv(64)  # PUBREC, after a break perhaps a second one
            s.sendall(wire.packet(0x62, struct.pack("!H", 1 + i)))
            s.recv(64)  # PUBCOMP
            i += 1
        s.sendall(b"\xe0\x00")
    if s is not None:
        s.close()


def images(o: Options, stop: threading.Event) -> None:
    """PUBLISH after PUBLISH of an image's size at QoS 1."""
    with suppress(OSError), _session(o, f"image-{o['seed']}", 2) as s:
        for i in range(o["messages"]):
            body = os.urandom(o["size"])
            s.sendall(wire.publish("ward/image", body, qos=1, packet_id=1 + i))
            s.recv(16)
            if stop.wait(o["gap_s"]):
                break
        s.sendall(b"\xe0\x00")


def waveform(o: Options, stop: threading.Event) -> None:
    """A monitor in its trouble mode: all leads, many messages a second at QoS 0, for a few seconds."""
    with suppress(OSError), _session(o, f"wave-{o['seed']}", 2) as s:
        start = time.monotonic()
        for i in range(int(o["rate"] * o["seconds"])):
            s.sendall(wire.publish(f"ward/wave/{i % 12}", os.urandom(o["size"])))
            if stop.wait(max(0.0, start + i / o["rate"] - time.monotonic())):
                break
        s.sendall(b"\xe0\x00")


def survey(o: Options, stop: threading.Event) -> None:
    """Management looks at everything: echo to every known host, SNMP to each, TCP checks of the servers."""
    for target in o["targets"]:
        actions.echo(target, 1)
        if stop.wait(1 / o["rate"]):
            return
    for i, target in enumerate(o["snmp"]):
        snmp_poll(target, o["seed"] + i)
        if stop.wait(0.5 / o["rate"]):
            return
    for host, port in o["servers"] * 2:
        with suppress(OSError), socket.create_connection((host, port), 2):
            pass
        if stop.wait(1 / o["rate"]):
            return


def fetch_later(o: Options, stop: threading.Event) -> None:
    """Download one file when this host's turn in the roll-out comes."""
    if not stop.wait(o["wait"]):
        actions.fetch(o, stop)


def renew(o: Options, stop: threading.Event) -> None:
    """Half of the lease is over: REQUEST for the address in use, from that address to the server, ACK."""
    address = _own_address(o["server"])
    mac = bytes.fromhex(o["mac"].replace(":", ""))
    if stop.wait(o["wait"]):
        return
    head = b"\x01\x01\x06\x00" + os.urandom(4) + bytes(4) + socket.inet_aton(address)
    head += bytes(12) + mac + bytes(10 + 192)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        s.bind((address, 68))
        s.settimeout(1)
        for _ in range(3):
            s.sendto(
                head + b"\x63\x82\x53\x63\x35\x01\x03\x37\x03\x01\x03\x06\xff", (o["server"], 67)
            )
            with suppress(TimeoutError):
                s.recv(2048)
                return


def _own_address(towards: str) -> str:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.connect((towards, 9))
        return str(s.getsockname()[0])


def announce(address: str, mac: str, times: int, stop: threading.Event) -> None:
    """Gratuitous ARP: this address is at this MAC."""
    ip, own = socket.inet_aton(address), bytes.fromhex(mac.replace(":", ""))
    frame = b"\xff" * 6 + own + b"\x08\x06\x00\x01\x08\x00\x06\x04\x00\x01"
    frame += own + ip + bytes(6) + ip
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as s:
        s.bind(("eth0", 0))
        for _ in range(times):
            s.send(frame)
            stop.wait(0.5)


def serve_address(o: Options, stop: threading.Event) -> None:
    """Hold a service address that others use, from `wait` on for `seconds`; then silent, as if it had died."""
    if stop.wait(o["wait"]):
        return
    address = f"{o['address']}/32"
    subprocess.run(["ip", "addr", "add", address, "dev", "eth0"], check=False)
    try:
        announce(o["address"], o["mac"], o["times"], stop)
        stop.wait(o["seconds"])
    finally:
        subprocess.run(["ip", "addr", "del", address, "dev", "eth0"], check=False)


def use_address(o: Options, stop: threading.Event) -> None:
    """Bring something to a service address, again and again; nobody may be there for a while."""
    end = time.monotonic() + o["seconds"]
    while time.monotonic() < end and not stop.wait(o["gap_s"]):
        with suppress(OSError), socket.create_connection((o["address"], o["port"]), 1) as s:
            s.sendall(os.urandom(200))


def hello(o: Options, stop: threading.Event) -> None:
    """A device that has come to another place on the network announces itself, once or twice."""
    if not stop.wait(o["wait"]):
        announce(o["address"], o["mac"], o["times"], stop)


ACTIONS: dict[str, Callable[[Options, threading.Event], None]] = {
    f.__name__: f
    for f in (
        mdns,
        ssdp,
        ssdp_answers,
        qos2,
        images,
        waveform,
        survey,
        fetch_later,
        renew,
        serve_address,
        use_address,
        hello,
    )
}
"""What `benign_hard.py` may ask for besides `actions.ACTIONS`."""
