"""Benign events that look bad: a table of things that happen on a ward and must not raise an alarm.

Same shape as the attacks: a builder draws from the seed and returns `Command`s. The broker's restart is
the one event that is no command (`restart_broker`); the recorder knows it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

import msgspec

from converter.testbed.attacks import Command
from converter.testbed.layout import Host, Ward

RESTART_BROKER = "restart_broker"
"""An `argv` of this one word: the recorder restarts mosquitto, and every device reconnects at once."""


@dataclass(frozen=True)
class Event:
    """One benign event."""

    name: str
    build: Callable[[Random, Ward], list[Command]]
    disturbs: bool = False
    """It would end an attack that is under way: never during attacks."""


def play(host: Host, what: str, limit_s: float, /, **options: object) -> Command:
    """A one-off action of `devices.py` on a host."""
    text = msgspec.json.encode({"profile": what, **options}).decode()
    return Command(
        host=host.name, argv=["{python}", "-m", "converter.testbed.devices", text], limit_s=limit_s
    )


def _reconnect_all(rng: Random, ward: Ward) -> list[Command]:
    del rng, ward
    return [Command(host="broker", argv=[RESTART_BROKER], limit_s=5)]


def _firmware(rng: Random, ward: Ward) -> list[Command]:
    """One device, or several together, fetch a firmware image by HTTP."""
    hosts = rng.sample(ward.of("device"), rng.choice((1, 1, 3)))
    path = rng.choice(("/firmware-small.bin", "/firmware.bin"))
    return [
        play(h, "fetch", 30, web=ward.named("web").ip, web_port=ward.web_port, path=path)
        for h in hosts
    ]


def _bulk_tcp(rng: Random, ward: Ward) -> list[Command]:
    """A backup from a station to the archive, as fast as TCP goes within a bound, or paced."""
    archive, station = ward.named("archive"), ward.named("station0")
    port, size = rng.randrange(5000, 6000), rng.choice((1_000_000, 4_000_000))
    return [
        play(archive, "sink", 25, kind="tcp", port=port),
        play(
            station, "bulk", 25, dst=archive.ip, port=port, size=size, rate=rng.choice((0.0, 600.0))
        ),
    ]


def _stream_udp(rng: Random, ward: Ward) -> list[Command]:
    """A video or waveform stream, RTP-like, between two hosts: hundreds of datagrams a second."""
    archive = ward.named("archive")
    source = rng.choice(ward.of("station", "device"))
    port, rate = rng.randrange(5004, 6000), rng.choice((100.0, 300.0, 600.0))
    seconds = rng.uniform(5, 12)
    return [
        play(archive, "sink", seconds + 8, kind="udp", port=port),
        play(
            source,
            "stream",
            seconds + 8,
            dst=archive.ip,
            port=port,
            rate=rate,
            seconds=seconds,
            size=rng.choice((172, 700, 1200)),
        ),
    ]


def _monitoring(rng: Random, ward: Ward) -> list[Command]:
    """Network management asks every host that it knows: echo, then one TCP connection to a server's port."""
    hosts = [h.ip for h in ward.hosts if not h.routed and h.role not in {"nms", "attacker"}]
    return [
        play(
            ward.named("nms"),
            "poll",
            40,
            targets=hosts,
            rate=rng.choice((1.0, 4.0)),
            servers=[
                [ward.named("broker").ip, ward.mqtt_port],
                [ward.named("web").ip, ward.web_port],
            ],
        )
    ]


def _dhcp_burst(rng: Random, ward: Ward) -> list[Command]:
    """After a power cut several hosts ask for an address in the same second."""
    hosts = rng.sample(ward.of("device", "station", "archive"), min(5, len(ward.of("device"))))
    return [play(h, "dhcp", 12, mac=h.mac) for h in hosts]


def _arp_burst(rng: Random, ward: Ward) -> list[Command]:
    """A host comes back from sleep and speaks to a dozen hosts that it knows."""
    host = rng.choice(ward.of("station"))
    known = [
        h.ip for h in ward.hosts if not h.routed and h.name != host.name and h.role != "attacker"
    ]
    return [play(host, "wake", 10, targets=rng.sample(known, min(10, len(known))))]


def _failover(rng: Random, ward: Ward) -> list[Command]:
    """A service address moves to the other host: gratuitous ARP from a MAC that did not have it before."""
    taken = {h.ip for h in ward.hosts}
    address = next(a for n in range(253, 2, -1) if (a := f"{ward.subnet}.{n}") not in taken)
    first, second = ward.named("web"), ward.named("archive")
    return [
        play(first, "hold", 12, address=address, mac=first.mac, wait=0.0, seconds=5.0),
        play(
            second, "hold", 16, address=address, mac=second.mac, wait=rng.uniform(5, 6), seconds=5.0
        ),
    ]


def _page_storm(rng: Random, ward: Ward) -> list[Command]:
    """A station opens a dashboard with many parts: a burst of short HTTP connections."""
    return [
        play(
            h,
            "pages",
            15,
            web=ward.named("web").ip,
            web_port=ward.web_port,
            count=rng.choice((40, 120)),
        )
        for h in ward.of("station")
    ]


def _backlog(rng: Random, ward: Ward) -> list[Command]:
    """A device that was out of reach delivers its stored readings in one burst."""
    return [
        play(
            rng.choice(ward.of("device")),
            "backlog",
            15,
            dst=ward.named("broker").ip,
            port=ward.mqtt_port,
            messages=rng.choice((60, 200, 400)),
            size=rng.choice((20, 100)),
            qos=rng.choice((0, 1)),
            seed=rng.randrange(10**6),
        )
    ]


EVENTS: tuple[Event, ...] = (
    Event("reconnect-all", _reconnect_all, disturbs=True),
    Event("firmware", _firmware),
    Event("bulk-tcp", _bulk_tcp),
    Event("stream-udp", _stream_udp),
    Event("monitoring", _monitoring),
    Event("dhcp-burst", _dhcp_burst),
    Event("arp-burst", _arp_burst),
    Event("failover", _failover),
    Event("page-storm", _page_storm),
    Event("backlog", _backlog),
)
