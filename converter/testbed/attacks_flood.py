"""More floods: low ones, IPv6, random flags, reflected answers, fragments; by nping, fping, t50, ping and our own.

Builders like those of `attacks`, with the same bounds. A low flood is just above what a ward's busiest host sends.
"""

from random import Random

import msgspec

from converter.testbed.attacks import MAX_FRAMES, Attack, Builder, Command, flood_pace, own, server
from converter.testbed.layout import Host, Ward

SYN, FIN, PSH, ACK, URG, RST = 2, 1, 8, 16, 32, 4


def low_pace(rng: Random) -> tuple[float, int, float]:
    """Frames a second, frames, seconds: 25 to 100 a second for 9 to 14 s."""
    rate = rng.choice((25.0, 40.0, 60.0, 100.0))
    count = int(rate * rng.uniform(9, 14))
    return rate, count, count / rate + 0.5


def _v6_server(rng: Random, ward: Ward) -> tuple[Host, int]:
    """A server or device that has an IPv6 address."""
    victim, port = server(rng, ward)
    return (victim, port) if victim.ip6 else (ward.named("broker"), ward.mqtt_port)


def _paced(rng: Random, *, low: bool) -> tuple[float, int, float]:
    if low:
        return low_pace(rng)
    gap_us, count, seconds = flood_pace(rng)
    return 1e6 / gap_us, count, seconds


def _flood(
    commands: list[Command], victim: str, port: int, seconds: float, *, spoofed: bool = False
) -> Attack:
    return Attack(
        commands=commands,
        victims=[victim],
        expect_s=seconds,
        spoofed=spoofed,
        distributed=len(commands) > 1,
        ports=[port] if port else [],
    )


def tool_flood(
    words: str, *, low: bool = False, port: bool = True, most: int = 5_000, seconds: float = 0
) -> Builder:
    """A tool's command line, of about `seconds` where it keeps no rate.

    `{rate} {count} {gap_us} {gap_s} {port} {size} {dst} {mine}` are filled in.
    """

    def build(rng: Random, ward: Ward, attackers: list[Host]) -> Attack:
        victim, to_port = server(rng, ward)
        rate, count, paced_s = _paced(rng, low=low)
        count = min(most, count) // len(attackers)
        figures = {
            "rate": int(rate),
            "count": count,
            "gap_us": int(1e6 / rate),
            "gap_s": f"{max(0.002, 1 / rate):.3f}",
            "port": to_port,
            "size": rng.choice((16, 64, 200)),
            "dst": victim.ip,
        }
        commands = [
            Command(
                host=a.name,
                argv=[w.format(mine=a.ip, **figures) for w in words.split()],
                limit_s=max(paced_s * 2 + 4, 20),
            )
            for a in attackers
        ]
        return _flood(commands, victim.ip, to_port if port else 0, seconds or paced_s)

    return build


def v6_ping(rng: Random, ward: Ward, attackers: list[Host]) -> Attack:
    """Ping of iputils over IPv6, as fast as it is told to."""
    victim, _ = _v6_server(rng, ward)
    count = rng.randrange(1_500, 4_000)
    argv = ["ping", "-6", "-q", "-n", "-i", "0.002", "-c", str(count), "-s", "120", victim.ip6]
    seconds = count * 0.0027
    commands = [Command(host=a.name, argv=argv, limit_s=seconds * 2 + 4) for a in attackers]
    return _flood(commands, victim.ip6, 0, seconds)


def raw(
    protocol: str,
    *,
    v6: bool = False,
    low: bool = False,
    spoof: str = "",
    ports: bool = True,
    **how: object,
) -> Builder:
    """Our own packets (`hostile_raw.raw_flood`); `ports` False: a random port each; `how` goes over as it is."""

    def build(rng: Random, ward: Ward, attackers: list[Host]) -> Attack:
        victim, port = _v6_server(rng, ward) if v6 else server(rng, ward)
        dst = victim.ip6 if v6 else victim.ip
        rate, count, seconds = _paced(rng, low=low)
        count = min(count, 4_000 if how.get("shape") else MAX_FRAMES)
        name = "icmp6" if v6 and protocol == "icmp" else protocol
        to_port = port if ports and protocol != "icmp" else 0
        commands = [
            own(
                a,
                "raw_flood",
                seconds * 2 + 4,
                dst=dst,
                protocol=name,
                port=to_port,
                spoof=spoof,
                rate=rate / len(attackers),
                count=count // len(attackers),
                seed=rng.randrange(2**31),
                **how,
            )
            for a in attackers
        ]
        attack = _flood(commands, dst, to_port, seconds, spoofed=bool(spoof))
        many = attack.distributed or spoof.isdigit()  # reflected by that many servers
        return msgspec.structs.replace(attack, distributed=many)

    return build


def reflected(shape: str, sport: int) -> Builder:
    """Answers of many servers that the victim never asked: sources are servers, source port the service's."""

    def build(rng: Random, ward: Ward, attackers: list[Host]) -> Attack:
        victim, _ = server(rng, ward)
        gap_us, count, seconds = flood_pace(rng)
        count = min(count, 3_000)
        command = own(
            attackers[0],
            "raw_flood",
            seconds * 2 + 4,
            dst=victim.ip,
            protocol="udp",
            shape=shape,
            sport=sport,
            port=rng.choice((0, rng.randrange(1024, 60000))),
            spoof=str(rng.choice((8, 40, 300))),
            rate=1e6 / gap_us,
            count=count,
            seed=rng.randrange(2**31),
        )
        return Attack(
            commands=[command],
            victims=[victim.ip],
            expect_s=seconds,
            spoofed=True,
            distributed=True,
        )

    return build


def big_datagrams(rng: Random, ward: Ward, attackers: list[Host]) -> Attack:
    """Datagrams above the MTU, so that most frames are later fragments."""
    victim, port = server(rng, ward)
    rate = rng.choice((60.0, 150.0, 400.0))
    count = int(min(1_400, rate * rng.uniform(5, 9)))
    command = own(
        attackers[0],
        "big_datagrams",
        30,
        dst=victim.ip,
        port=port,
        size=rng.choice((3_000, 5_000)),
        rate=rate,
        count=count,
    )
    return _flood([command], victim.ip, port, count / rate + 1)


def tcp_data(rng: Random, ward: Ward, attackers: list[Host]) -> Attack:
    """Small segments over a few proper connections to a server that does not want them."""
    victim = ward.named("web")
    gap_us, count, seconds = flood_pace(rng)
    command = own(
        attackers[0],
        "tcp_data",
        seconds * 2 + 4,
        dst=victim.ip,
        port=ward.web_port,
        size=rng.choice((1, 16, 100)),
        connections=rng.choice((1, 4, 16)),
        rate=1e6 / gap_us,
        count=count,
    )
    return _flood([command], victim.ip, ward.web_port, seconds)
