"""The wide ward (`ward = 2`): ten kinds of devices and more, some behind the router, a scanner, an image archive.

In: a `random.Random`, the group's shares. Out: a `Ward` of version 2. Remembers nothing. As in `layout`, whatever
could tell an attack from a benign frame is drawn per run.
"""

from random import Random

from converter.testbed.layout import Host, Ward, draw_mac

WIDE_KINDS = (
    "monitor",
    "ventilator",
    "pump",
    "oximeter",
    "glucose",
    "ecg",
    "bed",
    "call",
    "modality",
    "mllp",
)
"""The kinds that a ward with ten devices or more has one of each; a smaller one has some of them."""

_EXTRA_KINDS = (*WIDE_KINDS, "camera", "laptop", "monitor", "pump", "ecg", "bed", "call")
_MQTT_KINDS = {"monitor", "ventilator", "pump", "oximeter", "ecg", "bed", "call"}


def draw_wide_ward(rng: Random, *, devices: int, offloads: bool, tls: bool, ipv6: bool) -> Ward:
    """A ward with `devices` simulated devices; one or two of them stand on the routed second subnet."""
    a, b, c = rng.randrange(256), rng.randrange(256), rng.randrange(1, 255)
    subnet = rng.choice((f"10.{a}.{c}", f"192.168.{c}", f"172.{16 + a % 16}.{b}"))
    clinic = f"10.{(a + 1 + rng.randrange(200)) % 256}.{rng.randrange(256)}"
    prefix6 = f"fd{rng.randrange(256):02x}:{rng.randrange(65536):x}:{c:x}::" if ipv6 else ""
    near, far = rng.sample(range(2, 254), 70), rng.sample(range(2, 254), 10)
    hosts: list[Host] = []

    def add(name: str, role: str, profile: str = "", *, routed: bool = False) -> None:
        number = far.pop() if routed else near.pop()
        if role == "gateway":
            number = rng.choice((1, 254))
        talks = profile in _MQTT_KINDS
        secure = talks and tls and rng.random() < 0.5
        v6 = talks and bool(prefix6) and not (secure or routed) and rng.random() < 0.5
        hosts.append(
            Host(
                name=name,
                role=role,
                profile=profile,
                mac=draw_mac(rng),
                ip=f"{clinic if routed else subnet}.{number}",
                ip6=f"{prefix6}{number:x}" if prefix6 and not routed else "",
                routed=routed,
                tls=secure,
                v6=v6,
                snmp=role in {"web", "archive", "device"} and rng.random() < 0.6,
            )
        )

    add("gw", "gateway")
    add("broker", "broker")
    add("web", "web", "mllpserver")
    for i in range(rng.randint(1, 2)):
        add(f"station{i}", "station", "station")
    kinds = rng.sample(WIDE_KINDS, min(devices, len(WIDE_KINDS)))
    kinds += [rng.choice(_EXTRA_KINDS) for _ in range(devices - len(kinds))]
    beyond = (
        rng.sample(range(1, devices), min(devices - 1, rng.randint(1, 2))) if devices > 3 else []
    )
    for i, kind in enumerate(kinds):
        routed = i in beyond and kind != "laptop"
        add(f"{kind}{i}", "remote" if routed else "device", kind, routed=routed)
    add("nms", "nms", "manager")
    add("scanner", "scanner")
    add("archive", "archive", "pacs")
    for i in range(3):
        add(f"guest{i}", "attacker", "laptop")
    add("clinic", "clinic", routed=True)
    return Ward(
        subnet=subnet,
        clinic=clinic,
        prefix6=prefix6,
        hosts=hosts,
        mqtt_port=1883 if rng.random() < 0.8 else rng.randrange(2000, 20000),
        tls_port=8883 if tls else 0,
        auth_port=1884,
        web_port=rng.choice((80, 80, 8080)),
        offloads=offloads,
        reachable_ms=rng.choice((8_000, 15_000, 30_000)),
        version=2,
        dicom_port=rng.choice((104, 11112)),
    )
