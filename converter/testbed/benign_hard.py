"""Benign events of the wide ward that look bad, beside those of `benign.py`, which it takes over.

Three of them are things that only the recorder can do, because they end or begin devices: `RESTART_BROKER` (in
`benign.py`), `POWER_CUT`, `READDRESS`. The scan of `SCAN` is the site's own: the manifest names its host as role
`scanner`, with the window; without the site's word it *is* a vulnerability scan.
"""

from random import Random

from converter.testbed.attacks import Command
from converter.testbed.benign import EVENTS, Event, play
from converter.testbed.layout import Host, Ward

POWER_CUT = "power_cut"
"""`argv` = [this, seconds]: every device and station dies without a word; later all come back at once, by DHCP."""

READDRESS = "readdress"
"""`argv` = [this, address]: the device stops, takes the address, says so, and lives on."""

SCAN = "vulnerability-scan"


def _local(ward: Ward, *roles: str) -> list[Host]:
    return [h for h in ward.of(*roles) if not h.routed]


def _free_address(rng: Random, ward: Ward) -> str:
    taken = {h.ip for h in ward.hosts}
    return rng.choice([a for n in range(2, 254) if (a := f"{ward.subnet}.{n}") not in taken])


def _power_cut(rng: Random, ward: Ward) -> list[Command]:
    """Power fails for all devices; seconds later all of them ask for an address, a name and the broker."""
    del ward
    return [Command(host="gw", argv=[POWER_CUT, f"{rng.uniform(3, 12):.1f}"], limit_s=30)]


def _readdress(rng: Random, ward: Ward) -> list[Command]:
    host = rng.choice(_local(ward, "device"))
    return [Command(host=host.name, argv=[READDRESS, _free_address(rng, ward)], limit_s=10)]


def _rollout(rng: Random, ward: Ward) -> list[Command]:
    """New firmware for every device, in waves."""
    web, port = ward.named("web").ip, ward.web_port
    path, wave_s = rng.choice(("/firmware-small.bin", "/firmware.bin")), rng.uniform(0.5, 4)
    return [
        play(h, "fetch_later", 60, web=web, web_port=port, path=path, wait=(i // 3) * wave_s)
        for i, h in enumerate(rng.sample(ward.of("device"), len(ward.of("device"))))
    ]


def _backup(rng: Random, ward: Ward) -> list[Command]:
    """Stations and the web server write to the archive at the same time."""
    archive, commands = ward.named("archive"), []
    for source in (*ward.of("station"), ward.named("web")):
        port = rng.randrange(6000, 9000)
        commands += [
            play(archive, "sink", 40, kind="tcp", port=port),
            play(
                source,
                "bulk",
                40,
                dst=archive.ip,
                port=port,
                size=rng.choice((1_000_000, 3_000_000)),
                rate=rng.choice((0.0, 400.0)),
            ),
        ]
    return commands


def _towards_broker(rng: Random, ward: Ward) -> dict[str, object]:
    return {
        "dst": ward.named("broker").ip,
        "port": ward.mqtt_port,
        "seed": rng.randrange(10**6),
    }


def _waveform(rng: Random, ward: Ward) -> list[Command]:
    host = rng.choice([h for h in ward.of("device") if h.profile == "monitor"] or ward.of("device"))
    return [
        play(
            host,
            "waveform",
            20,
            **_towards_broker(rng, ward),
            rate=rng.choice((30.0, 60.0, 120.0)),
            seconds=rng.uniform(4, 10),
            size=rng.choice((120, 500, 900)),
        )
    ]


def _qos2(rng: Random, ward: Ward) -> list[Command]:
    return [
        play(
            rng.choice(ward.of("device")),
            "qos2",
            60,
            **_towards_broker(rng, ward),
            messages=rng.choice((30, 100)),
            gap_s=rng.choice((0.02, 0.1, 0.3)),
            broken=rng.choice((0.05, 0.2)),
        )
    ]


def _images(rng: Random, ward: Ward) -> list[Command]:
    return [
        play(
            rng.choice(ward.of("device", "remote")),
            "images",
            40,
            **_towards_broker(rng, ward),
            messages=rng.choice((5, 15)),
            gap_s=rng.choice((0.05, 0.5, 2.0)),
            size=rng.choice((60_000, 100_000, 140_000)),
        )
    ]


def _survey(rng: Random, ward: Ward) -> list[Command]:
    """Management's full round: ping of every known host, SNMP polls, TCP checks."""
    known = [h.ip for h in ward.hosts if h.role not in {"nms", "attacker", "gateway"}]
    broker, web = ward.named("broker").ip, ward.named("web").ip
    archive = ward.named("archive").ip
    return [
        play(
            ward.named("nms"),
            "survey",
            90,
            seed=rng.randrange(2**30),
            targets=rng.sample(known, len(known)),
            snmp=[h.ip for h in ward.hosts if h.snmp],
            rate=rng.choice((1.0, 4.0, 10.0)),
            servers=[[broker, ward.mqtt_port], [web, ward.web_port], [archive, ward.dicom_port]],
        )
    ]


_SCANS = (
    ["-sS", "-sV", "--version-light", "-T3", "--top-ports", "200"],
    ["-sT", "-sV", "-T4", "--top-ports", "100"],
    ["-sS", "-O", "--osscan-limit", "-T4", "--top-ports", "300"],
    ["-sS", "-sC", "-T4", "--top-ports", "60"],
)


def _scan(rng: Random, ward: Ward) -> list[Command]:
    """The site's scanner looks for weaknesses of some hosts, slowly enough not to be a flood."""
    hosts = rng.sample(_local(ward, "broker", "web", "archive", "device", "station"), 3)
    argv = ["nmap", "-n", "--max-rate", str(rng.choice((30, 100, 200))), "--host-timeout", "50s"]
    return [
        Command(
            host="scanner",
            argv=[*argv, *rng.choice(_SCANS), *(h.ip for h in hosts)],
            limit_s=75,
        )
    ]


def _renewals(rng: Random, ward: Ward) -> list[Command]:
    """Leases that began together are renewed together."""
    gateway = ward.named("gw").ip
    return [
        play(h, "renew", 15, server=gateway, mac=h.mac, wait=rng.uniform(0, 3))
        for h in _local(ward, "device", "station")
    ]


def _multicast(rng: Random, ward: Ward, what: str, *, share: float) -> list[Command]:
    hosts = _local(ward, "device", "station", "archive", "nms")
    chosen = rng.sample(hosts, max(2, round(len(hosts) * share)))
    count, rate = rng.choice((10, 40)), rng.choice((5.0, 20.0))
    return [
        play(h, what, 20, address=h.ip, seed=rng.randrange(10**6), count=count, rate=rate)
        for h in chosen
    ]


def _mdns(rng: Random, ward: Ward) -> list[Command]:
    return _multicast(rng, ward, "mdns", share=rng.choice((0.3, 1.0)))


def _ssdp(rng: Random, ward: Ward) -> list[Command]:
    """Some search and announce; some others answer each search."""
    asking = _multicast(rng, ward, "ssdp", share=rng.choice((0.2, 0.5)))
    others = [h for h in _local(ward, "device") if h.name not in {c.host for c in asking}]
    return asking + [
        play(h, "ssdp_answers", 20, address=h.ip, seconds=12.0)
        for h in rng.sample(others, min(3, len(others)))
    ]


def _takeover(rng: Random, ward: Ward) -> list[Command]:
    """A service address that others use: its holder dies, the other announces itself and serves on."""
    address, port = _free_address(rng, ward), rng.randrange(7000, 8000)
    pair = [ward.named("web"), ward.named("archive")]
    rng.shuffle(pair)
    dies_s, back_s = rng.uniform(8, 14), rng.uniform(2, 6)
    held = [
        {"wait": 0.0, "seconds": dies_s, "times": 1},
        {"wait": dies_s + 0.5 + back_s, "seconds": 12.0, "times": rng.choice((1, 2, 5))},
    ]
    servers = [
        play(h, "serve_address", 45, address=address, mac=h.mac, **when)
        for h, when in zip(pair, held, strict=True)
    ]
    users = rng.sample(ward.of("device", "station"), 3)
    return (
        servers
        + [play(h, "sink", 45, kind="tcp", port=port) for h in pair]
        + [
            play(
                h,
                "use_address",
                45,
                address=address,
                port=port,
                gap_s=rng.uniform(0.3, 2),
                seconds=dies_s + back_s + 12,
            )
            for h in users
        ]
    )


def _roaming(rng: Random, ward: Ward) -> list[Command]:
    """A device leaves its port, appears on another switch with the same MAC, and comes back."""
    host = rng.choice(_local(ward, "device"))
    port, gone_s, there_s = ward.port_of(host.name), rng.uniform(0.2, 2), rng.uniform(10, 30)
    script = (
        f"ip link set {port} nomaster; sleep {gone_s:.2f}; ip link set {port} master br2; "
        f"sleep {there_s:.2f}; ip link set {port} nomaster; sleep {gone_s:.2f}; "
        f"ip link set {port} master br0"
    )
    told = {"address": host.ip, "mac": host.mac, "times": rng.choice((1, 2))}
    return [
        Command(host="gw", argv=["sh", "-c", f"trap '' INT; {script}"], limit_s=60),
        play(host, "hello", 60, wait=gone_s + 0.3, **told),
        play(host, "hello", 60, wait=2 * gone_s + there_s + 0.6, **told),
    ]


HARD_EVENTS: tuple[Event, ...] = (
    Event("power-cut", _power_cut, disturbs=True),
    Event("firmware-rollout", _rollout),
    Event("backup", _backup),
    Event("waveform-burst", _waveform),
    Event("qos2-retries", _qos2),
    Event("large-publish", _images),
    Event("nms-survey", _survey),
    Event(SCAN, _scan, disturbs=True),
    Event("dhcp-renewals", _renewals),
    Event("mdns-storm", _mdns),
    Event("ssdp-storm", _ssdp),
    Event("readdress", _readdress, disturbs=True),
    Event("takeover", _takeover),
    Event("roaming", _roaming, disturbs=True),
)
"""What the wide ward adds."""

WARD2_EVENTS: tuple[Event, ...] = (*EVENTS, *HARD_EVENTS)
"""All that a group with `ward = 2` may deal."""
