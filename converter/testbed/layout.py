"""Who stands in a ward and under which addresses: drawn from a seed, nothing built here.

In: a `random.Random`, the group's shares. Out: a `Ward` of `Host`s. Remembers nothing.
Every address, MAC and port is drawn per run, so that none of them can tell an attack from a benign frame.
"""

from random import Random

import msgspec

DEVICE_KINDS = ("monitor", "ventilator", "pump", "oximeter", "glucose", "bed")
"""The kinds of simulated devices that every ward has at least one of."""

EXTRA_KINDS = (*DEVICE_KINDS, "hl7", "camera", "laptop", "monitor", "pump", "bed")
"""What fills a ward up beyond those; the commoner ones twice."""

LATER_FIELDS: dict[str, object] = {"snmp": False, "version": 1, "dicom_port": 0}
"""Fields that came after the first recordings, with their defaults: a run's digest leaves those out."""

_OUIS = ("00a037", "0009fb", "b827eb", "dca632", "001b21", "3c5ab4", "acde48", "08d1f9", "48b02d")
"""Vendor prefixes as a ward has them, plus the locally administered ones that are drawn."""


class Host(msgspec.Struct, frozen=True, kw_only=True):
    """One network namespace."""

    name: str
    """Short, unique in the ward; also the DNS name under `ward.test`."""
    role: str
    """`gateway broker web station device nms archive attacker clinic`; wide wards: `remote scanner` too."""
    profile: str = ""
    """What `devices.py` plays here; empty: nothing."""
    mac: str
    ip: str
    ip6: str = ""
    """A unique local address, where the run has IPv6."""
    routed: bool = False
    """Behind the gateway, on the second subnet."""
    tls: bool = False
    v6: bool = False
    """Reaches the broker over TLS; over IPv6."""
    snmp: bool = False
    """Answers network management on UDP port 161."""


class Ward(msgspec.Struct, frozen=True, kw_only=True):
    """The ward of one run."""

    subnet: str
    """Its first three numbers, `10.4.7`; always a /24."""
    clinic: str
    """The routed second subnet's first three numbers."""
    prefix6: str
    """`fd..:..:..::`, or empty."""
    hosts: list[Host]
    mqtt_port: int
    tls_port: int
    """0 where the run has no TLS listener."""
    auth_port: int
    """The listener that wants a password."""
    web_port: int
    offloads: bool
    reachable_ms: int
    """`base_reachable_time_ms` of every host: how soon ARP entries go stale."""
    version: int = 1
    """2: a wide ward (`layout_wide`), with bridges for the routed subnet and for roaming."""
    dicom_port: int = 0
    """Where the archive takes images; 0: it does not."""

    def named(self, name: str) -> Host:
        """The host of that name."""
        return next(h for h in self.hosts if h.name == name)

    def port_of(self, name: str) -> str:
        """The bridge port (in the gateway's namespace) that leads to a host."""
        return f"v{[h.name for h in self.hosts if h.name != 'gw'].index(name)}"

    def of(self, *roles: str) -> list[Host]:
        """The hosts of these roles, in order."""
        return [h for h in self.hosts if h.role in roles]


def draw_ward(rng: Random, *, devices: int, offloads: bool, tls: bool, ipv6: bool) -> Ward:
    """A ward with `devices` simulated devices beside its servers, stations and three attackers."""
    a, b, c = rng.randrange(256), rng.randrange(256), rng.randrange(1, 255)
    subnet = rng.choice((f"10.{a}.{c}", f"192.168.{c}", f"172.{16 + a % 16}.{b}"))
    clinic = f"10.{(a + 1 + rng.randrange(200)) % 256}.{rng.randrange(256)}"
    prefix6 = f"fd{rng.randrange(256):02x}:{rng.randrange(65536):x}:{c:x}::" if ipv6 else ""
    numbers = rng.sample(range(2, 254), 60)
    gateway_number = rng.choice((1, 254))
    hosts: list[Host] = []

    def add(
        name: str, role: str, profile: str = "", *, tls: bool = False, v6: bool = False
    ) -> None:
        number = gateway_number if role == "gateway" else numbers.pop()
        hosts.append(
            Host(
                name=name,
                role=role,
                profile=profile,
                mac=draw_mac(rng),
                ip=f"{subnet}.{number}",
                ip6=f"{prefix6}{number:x}" if prefix6 else "",
                tls=tls,
                v6=v6,
            )
        )

    add("gw", "gateway")
    add("broker", "broker")
    add("web", "web", "hl7server")
    for i in range(rng.randint(1, 2)):
        add(f"station{i}", "station", "station")
    kinds = list(DEVICE_KINDS[:devices])
    kinds += [rng.choice(EXTRA_KINDS) for _ in range(devices - len(kinds))]
    for i, kind in enumerate(kinds):
        secure = tls and rng.random() < 0.5
        add(f"{kind}{i}", "device", kind, tls=secure, v6=ipv6 and not secure and rng.random() < 0.5)
    add("nms", "nms", "nms")
    add("archive", "archive")
    for i in range(3):
        add(f"guest{i}", "attacker", "laptop")
    hosts.append(
        Host(
            name="clinic",
            role="clinic",
            mac=draw_mac(rng),
            ip=f"{clinic}.{rng.randrange(2, 250)}",
            routed=True,
        )
    )
    mqtt_port = 1883 if rng.random() < 0.8 else rng.randrange(2000, 20000)
    return Ward(
        subnet=subnet,
        clinic=clinic,
        prefix6=prefix6,
        hosts=hosts,
        mqtt_port=mqtt_port,
        tls_port=8883 if tls else 0,
        auth_port=1884,
        web_port=rng.choice((80, 80, 8080)),
        offloads=offloads,
        reachable_ms=rng.choice((8_000, 15_000, 30_000)),
    )


def draw_mac(rng: Random) -> str:
    """A unicast MAC address, under a vendor's prefix or locally administered."""
    if rng.random() < 0.7:
        head = bytes.fromhex(rng.choice(_OUIS))
    else:
        head = bytes((rng.randrange(256) & 0xFC | 2, rng.randrange(256), rng.randrange(256)))
    tail = bytes(rng.randrange(256) for _ in range(3))
    return (head + tail).hex(":")
