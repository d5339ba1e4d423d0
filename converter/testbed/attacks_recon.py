"""More scans and sweeps: fping, arp-scan, netdiscover, arping, masscan, nping, hping3, IPv6, our own.

Builders like those of `attacks`, with the same bounds. What a command line needs is filled into its words:
`{net} {base} {rate} {gap_ms} {count} {dst} {port} {open} {shut}`; scanners stay inside the ward's two subnets.
"""

from random import Random

from converter.testbed.attacks import Attack, Builder, Command, own, swept
from converter.testbed.layout import Host, Ward

_POOL = ("broker", "web", "device", "station", "gateway")
WEB_PORTS = (80, 443, 22, 8080, 1883, 2575, 5353, 161, 53)


def sweep(
    words: str, *, rates: tuple[int, ...], size: int = 24, routed: bool = False, margin_s: float = 2
) -> Builder:
    """A sweeping tool over one of the ward's subnets, or its first addresses; `{port}` is drawn."""

    def build(rng: Random, ward: Ward, attackers: list[Host]) -> Attack:
        base, rate = ward.clinic if routed else ward.subnet, rng.choice(rates)
        n = 2 ** (32 - size)
        figures = {
            "net": f"{base}.0/{size}",
            "base": base,
            "last": n - 1,
            "rate": rate,
            "gap_ms": max(1, 1000 // rate),
            "gap_s": f"{1 / rate:.2f}",
            "port": rng.choice(WEB_PORTS),
        }
        seconds = n / rate + margin_s
        argv = words.split(maxsplit=2) if words.startswith("sh -c") else words.split()
        command = Command(
            host=attackers[0].name,
            argv=[w.format(**figures) for w in argv],
            limit_s=seconds * 2 + 8,
        )
        victims = swept(ward, attackers[0], routed=routed, limit=n)
        return Attack(commands=[command], victims=victims, expect_s=seconds)

    return build


def own_sweep(
    probe: str, *, rates: tuple[float, ...], routed: bool | None = None, v6: bool = False
) -> Builder:
    """Our own probes (`connect`, `udp`, `echo`), a target each; in order or not; `routed` None: either subnet."""

    def build(rng: Random, ward: Ward, attackers: list[Host]) -> Attack:
        far, rate = (rng.random() < 0.5 if routed is None else routed), rng.choice(rates)
        n = int(min(250, rate * 13))
        base = ward.clinic if far else ward.subnet
        start = ward.prefix6 if v6 else f"{base}."
        targets = [f"{start}{i:x}" if v6 else f"{start}{i}" for i in range(1, n + 1)]
        if rng.random() < 0.4:
            rng.shuffle(targets)
        command = own(
            attackers[0],
            "probe_hosts",
            n / rate * 2 + 8,
            probe=probe,
            targets=targets,
            ports=rng.choice(((80,), (443, 80), (53, 161, 5353), (22, 1883))),
            rate=rate,
        )
        if v6:
            victims = [h.ip6 for h in ward.hosts if h.ip6 in targets and h not in attackers]
        else:
            victims = swept(ward, attackers[0], routed=far, limit=n + 1)
        return Attack(commands=[command], victims=victims, expect_s=n / rate + 1.5)

    return build


def multicast_echo(rng: Random, ward: Ward, attackers: list[Host]) -> Attack:
    """Echo to all nodes of the link (ff02::1): who answers is there; then each neighbour once."""
    victims = [h.ip6 for h in ward.hosts if h.ip6 and h not in attackers]
    rate = rng.choice((2.0, 5.0, 20.0))
    targets = ["ff02::1"] * rng.choice((5, 10, 20)) + victims
    command = own(
        attackers[0], "probe_hosts", 40, probe="echo", targets=targets, ports=[0], rate=rate
    )
    return Attack(commands=[command], victims=victims, expect_s=len(targets) / rate + 1.5)


def scan(
    words: str,
    *,
    counts: tuple[int, ...],
    rates: tuple[float, ...],
    v6: bool = False,
    seconds: float = 3,
) -> Builder:
    """A port scanner's words against one host; `{first}-{last}` are the ports, `{rate}` a second."""

    def build(rng: Random, ward: Ward, attackers: list[Host]) -> Attack:
        victim = rng.choice([h for h in ward.of(*_POOL) if h.ip6 or not v6])
        dst = victim.ip6 if v6 else victim.ip
        count, rate = rng.choice(counts), rng.choice(rates)
        first = rng.choice((1, 1, 20, 1000, 1880))
        figures = {
            "dst": dst,
            "rate": int(rate),
            "gap_ms": int(1000 / rate),
            "gap_s": f"{1 / rate:.2f}",
            "first": first,
            "last": first + count - 1,
        }
        argv = words.split(maxsplit=2) if words.startswith("sh -c") else words.split()
        expect_s = seconds + count / rate
        command = Command(
            host=attackers[0].name,
            argv=[w.format(**figures) for w in argv],
            limit_s=expect_s * 2 + 8,
        )
        return Attack(commands=[command], victims=[dst], expect_s=expect_s)

    return build


def own_scan(
    flags: int, *, counts: tuple[int, ...], rates: tuple[float, ...], v6: bool = False
) -> Builder:
    """Our own raw probes of ports in random order; `flags` 0: UDP."""

    def build(rng: Random, ward: Ward, attackers: list[Host]) -> Attack:
        victim = rng.choice([h for h in ward.of(*_POOL) if h.ip6 or not v6])
        dst, count, rate = victim.ip6 if v6 else victim.ip, rng.choice(counts), rng.choice(rates)
        command = own(
            attackers[0],
            "probe_ports",
            count / rate * 2 + 8,
            dst=dst,
            ports=rng.sample(range(1, 9_000), count),
            flags=flags,
            rate=rate,
            seed=rng.randrange(2**31),
        )
        return Attack(commands=[command], victims=[dst], expect_s=count / rate + 1)

    return build


def _servers(rng: Random, ward: Ward) -> tuple[Host, int]:
    """A host to fingerprint, and a port of it that is open."""
    pick = rng.choice(("broker", "web", "broker", "gw"))
    port = {"broker": ward.mqtt_port, "web": ward.web_port, "gw": 53}[pick]
    return ward.named(pick), port


def os_tool(words: str, *, seconds: float, v6: bool = False, hosts: int = 1) -> Builder:
    """A fingerprinting command line; `{open}` and `{shut}` are ports, `{dst}` one host or more."""

    def build(rng: Random, ward: Ward, attackers: list[Host]) -> Attack:
        victim, port = _servers(rng, ward)
        others = [h for h in ward.of("broker", "web", "device", "station") if h != victim]
        victims = [victim, *rng.sample(others, hosts - 1)]
        names = [h.ip6 if v6 else h.ip for h in victims]
        figures = {"open": port, "shut": rng.randrange(30000, 40000), "dst": " ".join(names)}
        if words.startswith("sh -c"):
            argv = [w.format(**figures) for w in words.split(maxsplit=2)]
        else:
            argv = words.format(**figures).split()
        command = Command(host=attackers[0].name, argv=argv, limit_s=seconds * 2 + 8)
        return Attack(commands=[command], victims=names, expect_s=seconds)

    return build


def own_os(*, icmp: bool, rates: tuple[float, ...]) -> Builder:
    """Our own fingerprint probes, one to three rounds."""

    def build(rng: Random, ward: Ward, attackers: list[Host]) -> Attack:
        victim, port = _servers(rng, ward)
        rate, rounds = rng.choice(rates), rng.choice((1, 2, 3))
        rounds = min(rounds, max(1, int(rate * 36 / 21)))
        command = own(
            attackers[0],
            "os_probes",
            40,
            dst=victim.ip,
            open=port,
            shut=rng.randrange(30000, 40000),
            icmp=icmp,
            rounds=rounds,
            rate=rate,
            seed=rng.randrange(2**31),
        )
        probes = (8 if icmp else 17) * rounds
        return Attack(commands=[command], victims=[victim.ip], expect_s=probes / rate + 1)

    return build
