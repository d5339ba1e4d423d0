"""More forged neighbours: ARP by requests, gratuitous, slow, of many hosts; IPv6 neighbour discovery; other tools.

Builders like those of `attacks`. Claims are bounded by rate times seconds, tools by a time limit.
"""

from random import Random

import msgspec

from converter.testbed.attacks import Attack, Builder, Command, own, pair
from converter.testbed.layout import Host, Ward


def _v6_pair(rng: Random, ward: Ward) -> tuple[Host, Host]:
    """Two hosts that speak IPv6 to each other, where there are such."""
    speakers = [h for h in ward.of("device", "station") if h.v6 and not h.routed]
    return rng.choice(speakers or ward.of("station")), ward.named("broker")


def claims(
    manner: str, *, rates: tuple[float, ...], seconds: tuple[float, float], many: int = 2
) -> Builder:
    """Our own ARP claims; `many` above 2: several hosts are told of the broker or the gateway."""

    def build(rng: Random, ward: Ward, attackers: list[Host]) -> Attack:
        a, b = pair(rng, ward)
        pool = [h for h in ward.of("device", "station") if h not in {a, b} and not h.routed]
        told = [a, *rng.sample(pool, min(len(pool), many - 2))]
        pairs = [(h.ip, h.mac, b.ip) for h in told] + [(b.ip, b.mac, a.ip)]
        length = rng.uniform(*seconds)
        command = own(
            attackers[0],
            "arp_claims",
            length * 2,
            manner=manner,
            pairs=pairs,
            rate=rng.choice(rates),
            seconds=length,
        )
        command = msgspec.structs.replace(command, forward=rng.random() < 0.5)
        return Attack(commands=[command], victims=[h.ip for h in (*told, b)], expect_s=length + 1)

    return build


def nd_claims(manner: str, *, rates: tuple[float, ...], seconds: tuple[float, float]) -> Builder:
    """IPv6: advertisements with the override flag, or solicitations, that claim each other's address."""

    def build(rng: Random, ward: Ward, attackers: list[Host]) -> Attack:
        a, b = _v6_pair(rng, ward)
        length = rng.uniform(*seconds)
        command = own(
            attackers[0],
            "nd_claims",
            length * 2,
            manner=manner,
            pairs=[(a.ip6, a.mac, b.ip6), (b.ip6, b.mac, a.ip6)],
            forward=rng.random() < 0.5,
            rate=rng.choice(rates),
            seconds=length,
        )
        return Attack(commands=[command], victims=[a.ip6, b.ip6], expect_s=length + 1)

    return build


def tool(words: str, *, forward: bool, seconds: tuple[float, float]) -> Builder:
    """A spoofing tool; `{a} {a_mac} {b} {b_mac} {mine}` are two hosts and the attacker's MAC; killed at the end."""

    def build(rng: Random, ward: Ward, attackers: list[Host]) -> Attack:
        a, b = pair(rng, ward)
        figures = {"a": a.ip, "a_mac": a.mac, "b": b.ip, "b_mac": b.mac, "mine": attackers[0].mac}
        length = rng.uniform(*seconds)
        argv = words.split(maxsplit=2) if words.startswith("sh -c") else words.split()
        command = Command(
            host=attackers[0].name,
            argv=[w.format(**figures) for w in argv],
            limit_s=length,
            stop="KILL",
            forward=forward,
        )
        return Attack(commands=[command], victims=[a.ip, b.ip], expect_s=length + 1)

    return build
