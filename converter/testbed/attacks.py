"""Floods, scans, sweeps and ARP spoofing: builders that turn a seed into the command lines of real tools.

A variant draws its figures (rate, count, size, victim) from the run's seed and returns an `Attack`:
command lines and what the label will say. It runs nothing. All are bounded in count and in time, and
meant for the testbed's own namespaces. `own` tools are `converter.testbed.hostile`, with raw sockets.

Out: builders `(rng, ward, attackers) -> Attack`; `variants.VARIANTS` is the table of them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

import msgspec

from converter.testbed.layout import Host, Ward

MAX_FRAMES = 6_000
"""Hostile frames in one episode, about: keeps captures small, and is a flood at any of the rates."""


class Command(msgspec.Struct, frozen=True, kw_only=True):
    """One process in one namespace."""

    host: str
    argv: list[str]
    """`{python}` stands for this interpreter."""
    limit_s: float
    """After this it gets `stop`, then SIGKILL."""
    stop: str = "INT"
    forward: bool | None = None
    """`ip_forward` in that namespace while it runs; None: as it is."""
    aliases: list[str] = []
    """Addresses that the host has besides its own while it runs."""


class Attack(msgspec.Struct, frozen=True, kw_only=True):
    """What one episode does, before it is given a time."""

    commands: list[Command]
    victims: list[str]
    """IP addresses."""
    expect_s: float
    """About how long it takes."""
    spoofed: bool = False
    distributed: bool = False
    ports: list[int] = []


Builder = Callable[[Random, Ward, list[Host]], Attack]
"""Draws an attack by these hosts, all of them at once."""


@dataclass(frozen=True)
class Variant:
    """A kind, made by one tool in one way."""

    kind: str
    name: str
    tool: str
    build: Builder
    attackers: int = 1
    """How many hosts it takes."""
    needs: str = ""
    """What a ward must have: `ipv6` or `tls`; other wards are not dealt it."""


def own(host: Host, what: str, limit_s: float, /, **options: object) -> Command:
    """A command of `converter.testbed.hostile`; options go over as JSON."""
    text = msgspec.json.encode(options).decode()
    sources = options.get("sources")
    return Command(
        host=host.name,
        argv=["{python}", "-m", "converter.testbed.hostile", what, text],
        limit_s=limit_s,
        aliases=sources[1:] if isinstance(sources, list) else [],
    )


def server(rng: Random, ward: Ward) -> tuple[Host, int]:
    """Whom a flood meets: mostly the broker, sometimes the web server, a device or a closed port."""
    pick = rng.random()
    if pick < 0.5:
        return ward.named("broker"), ward.mqtt_port
    if pick < 0.7:
        return ward.named("web"), ward.web_port
    host = rng.choice(ward.of("device", "station", "gateway"))
    return host, rng.choice((22, 53, 80, 443, 1883, 2575, 5000))


def flood_pace(rng: Random, *, slowest: int = 3_000) -> tuple[int, int, float]:
    """Microseconds between frames, frames, seconds that they take."""
    gap_us = rng.choice(
        [g for g in (3_000, 2_000, 1_500, 1_000, 700, 400, 200, 100) if g <= slowest]
    )
    count = min(MAX_FRAMES, int(rng.uniform(4, 11) * 1e6 / gap_us))
    return gap_us, count, count * gap_us * 1.4e-6 + 0.5


def hping(
    flags: str, *, spoofed: bool = False, port: bool = True, sizes: tuple[int, ...] = (0,)
) -> Builder:
    """A flood by hping3 from every attacker at once."""

    def build(rng: Random, ward: Ward, attackers: list[Host]) -> Attack:
        victim, to_port = server(rng, ward)
        gap_us, count, seconds = flood_pace(rng)
        size = rng.choice(sizes)
        if size > 200:
            count = min(count, 3_000)
        argv = [
            "hping3",
            "-q",
            "-n",
            *flags.split(),
            "-i",
            f"u{gap_us}",
            "-c",
            str(count // len(attackers)),
        ]
        argv += ["-d", str(size)] if size else []
        argv += ["-p", str(to_port)] if port else []
        argv += ["--rand-source"] if spoofed else []
        if port and not spoofed and rng.random() < 0.3:
            argv += ["-k", "-s", str(rng.randrange(1024, 65000))]  # one source port throughout
        return Attack(
            commands=[
                Command(host=a.name, argv=[*argv, victim.ip], limit_s=seconds * 2 + 4)
                for a in attackers
            ],
            victims=[victim.ip],
            expect_s=seconds,
            spoofed=spoofed,
            distributed=len(attackers) > 1,
            ports=[to_port] if port else [],
        )

    return build


def own_flood(what: str, *, spoofed: bool = False) -> Builder:
    """A flood by our own sockets."""

    def build(rng: Random, ward: Ward, attackers: list[Host]) -> Attack:
        victim, port = server(rng, ward)
        gap_us, count, seconds = flood_pace(rng)
        commands = [
            own(
                a,
                what,
                seconds * 2 + 4,
                dst=victim.ip,
                port=port,
                rate=1e6 / gap_us,
                count=count // len(attackers),
                spoof=spoofed,
                size=rng.choice((0, 32, 200, 700)),
                seed=rng.randrange(2**31),
            )
            for a in attackers
        ]
        return Attack(
            commands=commands,
            victims=[victim.ip],
            expect_s=seconds,
            spoofed=spoofed,
            distributed=len(attackers) > 1,
            ports=[port],
        )

    return build


def ping_flood(rng: Random, ward: Ward, attackers: list[Host]) -> Attack:
    """Echo requests by iputils' ping: what any machine has at hand."""
    victim, _ = server(rng, ward)
    count = rng.randrange(1_500, 4_000)
    rate_gap = rng.choice(("0.002", "0.003"))
    argv = [
        "ping",
        "-q",
        "-n",
        "-i",
        rate_gap,
        "-c",
        str(count),
        "-s",
        str(rng.choice((56, 120, 800))),
        victim.ip,
    ]
    seconds = count * float(rate_gap) * 1.3
    return Attack(
        commands=[Command(host=a.name, argv=argv, limit_s=seconds * 2 + 4) for a in attackers],
        victims=[victim.ip],
        expect_s=seconds,
    )


def nmap_scan(
    flags: str, ports: tuple[int, ...], *, seconds: float, hosts: int = 1, paced: bool = True
) -> Builder:
    """A port scan by nmap of N ports (one of `ports`) of `hosts` hosts; `paced`: often below full speed."""

    def build(rng: Random, ward: Ward, attackers: list[Host]) -> Attack:
        pool = ward.of("broker", "web", "device", "station", "gateway")
        victims = [h.ip for h in rng.sample(pool, hosts)]
        first, count = rng.choice((1, 1, 1, 20, 1000, 1500)), rng.choice(ports)
        rate = rng.choice((0, 40, 100, 300)) if paced else 0
        count = min(count, rate * 10 // hosts) if rate else count
        argv = ["nmap", "-n", "-Pn", *flags.split(), *(["--max-rate", str(rate)] if rate else [])]
        argv += ["-p", f"{first}-{first + count - 1}", *victims]
        expect_s = seconds + (count * hosts / rate if rate else 0)
        commands = [Command(host=a.name, argv=argv, limit_s=expect_s * 2.5 + 6) for a in attackers]
        return Attack(commands=commands, victims=victims, expect_s=expect_s)

    return build


def own_scan(rng: Random, ward: Ward, attackers: list[Host]) -> Attack:
    """A connect scan by our own sockets: nmap's marks are absent."""
    victim = rng.choice(ward.of("broker", "web", "device", "station"))
    count, rate = rng.choice(((400, 100.0), (800, 400.0), (150, 20.0)))
    ports = rng.sample(range(1, 10_000), count)
    return Attack(
        commands=[own(attackers[0], "connect_scan", 30, dst=victim.ip, ports=ports, rate=rate)],
        victims=[victim.ip],
        expect_s=count / rate + 1,
    )


def nmap_sweep(flags: str, *, seconds: float, routed: bool = False, size: int = 24) -> Builder:
    """A host sweep by nmap of the own subnet, or of the routed one."""

    def build(rng: Random, ward: Ward, attackers: list[Host]) -> Attack:
        del rng
        net = f"{ward.clinic if routed else ward.subnet}.0/{size}"
        return Attack(
            commands=[
                Command(
                    host=attackers[0].name,
                    argv=["nmap", *flags.split(), net],
                    limit_s=seconds * 2.5 + 6,
                )
            ],
            victims=swept(ward, attackers[0], routed=routed, limit=2 ** (32 - size)),
            expect_s=seconds,
        )

    return build


def own_sweep(rng: Random, ward: Ward, attackers: list[Host]) -> Attack:
    """ICMP echo to every address of a subnet by our own raw socket, as fping does."""
    routed = rng.random() < 0.5
    rate = rng.choice((20.0, 60.0, 300.0))
    limit = min(254, int(rate * 12))
    net = ward.clinic if routed else ward.subnet
    return Attack(
        commands=[own(attackers[0], "icmp_sweep", 40, net=net, last=limit, rate=rate)],
        victims=swept(ward, attackers[0], routed=routed, limit=limit + 1),
        expect_s=limit / rate + 1,
    )


def swept(ward: Ward, attacker: Host, *, routed: bool, limit: int) -> list[str]:
    """The hosts that exist in the first `limit` addresses of the subnet."""
    hosts = [h for h in ward.hosts if h.routed == routed and h.name != attacker.name]
    return [h.ip for h in hosts if int(h.ip.rsplit(".", 1)[1]) < limit]


def os_scan(flags: str) -> Builder:
    """OS fingerprinting by nmap; it scans some ports first, as it must know an open and a closed one."""

    def build(rng: Random, ward: Ward, attackers: list[Host]) -> Attack:
        names = rng.choices(("broker", "web", "gw", "station0"), (3, 3, 2, 1))
        victim = ward.named(names[0])
        ports = f"1-{rng.choice((30, 80, 150))},443,{ward.mqtt_port},{ward.web_port}"
        argv = ["nmap", "-n", "-Pn", "-O", *flags.split(), "-p", ports, victim.ip]
        return Attack(
            commands=[Command(host=attackers[0].name, argv=argv, limit_s=30)],
            victims=[victim.ip],
            expect_s=6,
        )

    return build


def vulnerability_scan(scripts: str, *, web: bool = False) -> Builder:
    """Version detection and scripts by nmap, mostly against the web server, else the broker.

    `web`: the web server's port alone, so that all the time goes into scripts; else most of it goes
    into waiting for services that do not answer, and few frames are sent.
    """

    def build(rng: Random, ward: Ward, attackers: list[Host]) -> Attack:
        victim = ward.named("web" if web or rng.random() < 0.8 else "broker")
        port = ward.web_port if victim.role == "web" else ward.mqtt_port
        argv = ["nmap", "-n", "-Pn", "-T4", "-sV", "--version-light"]
        argv += ["-p", f"22,443,{port}" if web else f"22,443,{port},{ward.auth_port},2575"]
        argv += ["--script", scripts, "--script-timeout", "8s"]
        argv += [victim.ip] if web else ["--host-timeout", "20s", victim.ip]
        return Attack(
            commands=[Command(host=attackers[0].name, argv=argv, limit_s=30)],
            victims=[victim.ip],
            expect_s=14,
        )

    return build


def own_probe(rng: Random, ward: Ward, attackers: list[Host]) -> Attack:
    """Known paths and banners, asked one after the other by our own client."""
    victim = ward.named("web")
    rate, seed = rng.choice((10.0, 40.0)), rng.randrange(2**31)
    return Attack(
        commands=[
            own(
                attackers[0],
                "web_probe",
                30,
                dst=victim.ip,
                port=ward.web_port,
                rate=rate,
                count=int(rate * 8),
                seed=seed,
            )
        ],
        victims=[victim.ip],
        expect_s=9,
        ports=[ward.web_port],
    )


def pair(rng: Random, ward: Ward) -> tuple[Host, Host]:
    """Two hosts to stand between: mostly a device and the broker, else a device and the gateway."""
    devices = [
        h for h in ward.of("device", "station") if not (h.v6 or h.routed) and h.profile != "glucose"
    ]
    return rng.choice(devices), ward.named("broker" if rng.random() < 0.75 else "gw")


def arpspoof(*, both: bool, forward: bool, hard_stop: bool = False) -> Builder:
    """Arpspoof of dsniff: one claim every two seconds to each side; puts the truth back when told to end."""

    def build(rng: Random, ward: Ward, attackers: list[Host]) -> Attack:
        a, b = pair(rng, ward)
        seconds = rng.uniform(9, 16)
        argv = ["arpspoof", "-i", "eth0", "-t", a.ip, *(["-r"] if both else []), b.ip]
        stop = "KILL" if hard_stop else "INT"
        return Attack(
            commands=[
                Command(
                    host=attackers[0].name, argv=argv, limit_s=seconds, stop=stop, forward=forward
                )
            ],
            victims=[a.ip, b.ip] if both else [a.ip],
            expect_s=seconds + (0 if hard_stop else 10),
        )

    return build


def ettercap(rng: Random, ward: Ward, attackers: list[Host]) -> Attack:
    """Ettercap between two hosts; it forwards by itself."""
    a, b = pair(rng, ward)
    seconds = rng.uniform(10, 15)
    argv = ["ettercap", "-T", "-q", "-i", "eth0", "-M", "arp:remote", f"/{a.ip}//", f"/{b.ip}//"]
    command = Command(host=attackers[0].name, argv=argv, limit_s=seconds, forward=False)
    return Attack(commands=[command], victims=[a.ip, b.ip], expect_s=seconds + 4)


def own_poison(rng: Random, ward: Ward, attackers: list[Host]) -> Attack:
    """Unasked ARP replies several times a second by our own packet socket, with or without forwarding."""
    a, b = pair(rng, ward)
    seconds, rate = rng.uniform(8, 14), rng.choice((0.5, 1.0, 5.0))
    command = own(
        attackers[0], "arp_poison", seconds * 2, a=a.ip, b=b.ip, rate=rate, seconds=seconds
    )
    command = msgspec.structs.replace(command, forward=rng.random() < 0.5)
    return Attack(commands=[command], victims=[a.ip, b.ip], expect_s=seconds + 1)
