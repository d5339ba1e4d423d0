"""More attacks on the broker: over TLS, over IPv6, slow, by other clients. Builders like those of `attacks_mqtt`."""

from random import Random
from typing import Any

from converter.testbed.attacks import Attack, Builder, Command, own
from converter.testbed.layout import Host, Ward


def _where(ward: Ward, *, tls: bool, v6: bool) -> tuple[str, int]:
    broker = ward.named("broker")
    return (broker.ip6 if v6 else broker.ip), (ward.tls_port if tls else ward.mqtt_port)


def _split(n: int, attackers: list[Host]) -> int:
    return max(1, n // len(attackers))


def own_tool(
    what: str,
    *,
    rates: tuple[float, ...],
    seconds: tuple[float, float],
    most: int = 2_500,
    tls: bool = False,
    v6: bool = False,
    auth: bool = False,
    hold_s: float = 0,
    **how: object,
) -> Builder:
    """One of our own tools at one of `rates` for `seconds`; values of `how` that are tuples are drawn from."""

    def build(rng: Random, ward: Ward, attackers: list[Host]) -> Attack:
        dst, port = _where(ward, tls=tls, v6=v6)
        port = ward.auth_port if auth else port
        rate = rng.choice(rates)
        count = int(min(most, max(4, rate * rng.uniform(*seconds))))
        expect_s = count / rate * 1.15 + hold_s + 1.5
        drawn = {k: rng.choice(v) if isinstance(v, tuple) else v for k, v in how.items()}
        commands = [
            own(
                a,
                what,
                expect_s * 2 + 8,
                dst=dst,
                port=port,
                tls=tls,
                rate=rate / len(attackers),
                count=_split(count, attackers),
                messages=_split(count, attackers),
                hold_s=hold_s,
                sources=[a.ip6 if v6 else a.ip],
                seed=rng.randrange(2**31),
                **drawn,
            )
            for a in attackers
        ]
        return Attack(
            commands=commands,
            victims=[dst],
            expect_s=expect_s,
            distributed=len(attackers) > 1,
            ports=[port],
        )

    return build


def connects(
    *,
    rates: tuple[float, ...],
    seconds: tuple[float, float],
    hold: bool = False,
    tls: bool = False,
    v6: bool = False,
    guess: bool = False,
) -> Builder:
    """CONNECT after CONNECT (`hostile.mqtt_connect`); `guess`: with passwords that are refused."""
    return own_tool(
        "mqtt_connect",
        rates=rates,
        seconds=seconds,
        most=1_800,
        tls=tls,
        v6=v6,
        auth=guess,
        hold=hold,
        keep_alive=(0, 10, 60),
        level=(4, 5),
        user=("admin", "ward", "device") if guess else "",
    )


def messages(
    *,
    rates: tuple[float, ...],
    seconds: tuple[float, float] = (5, 9),
    tls: bool = False,
    v6: bool = False,
    most: int = 3_000,
    **how: Any,
) -> Builder:
    """PUBLISHes (`hostile_mqtt.mqtt_messages`)."""
    plain: dict[str, Any] = {
        "qos": 0, "size": (10, 60), "connections": (1, 4, 10), "topics": 1, "retain": False, "release": True,
    }  # fmt: skip
    return own_tool(
        "mqtt_messages", rates=rates, seconds=seconds, most=most, tls=tls, v6=v6, **{**plain, **how}
    )


def broken(
    *how: str, rates: tuple[float, ...], seconds: tuple[float, float] = (6, 11), tls: bool = False,
    v6: bool = False, train: int = 1,
) -> Builder:  # fmt: skip
    """Broken packets (`hostile_mqtt.mqtt_broken`)."""
    return own_tool(
        "mqtt_broken",
        rates=rates,
        seconds=seconds,
        most=1_000,
        tls=tls,
        v6=v6,
        how=list(how),
        train=train,
    )


def client_loop(
    words: str, *, counts: tuple[int, int], each_s: float, auth: bool = False
) -> Builder:
    """A client's command line in a shell loop; `$i` counts, `{dst} {port}` are the broker's."""

    def build(rng: Random, ward: Ward, attackers: list[Host]) -> Attack:
        broker, count = ward.named("broker"), rng.randrange(*counts)
        port = ward.auth_port if auth else ward.mqtt_port
        line = words.format(dst=broker.ip, port=port)
        loop = f"i=0; while [ $i -lt {count} ]; do i=$((i+1)); {line}; done"
        command = Command(
            host=attackers[0].name, argv=["sh", "-c", loop], limit_s=count * each_s * 3
        )
        return Attack(
            commands=[command], victims=[broker.ip], expect_s=count * each_s + 1, ports=[port]
        )

    return build


def lines(rng: Random, ward: Ward, attackers: list[Host]) -> Attack:
    """Debian's mosquitto_pub, a message a line of its input, as fast as it reads them."""
    broker, count, qos = ward.named("broker"), rng.choice((1_500, 3_000)), rng.choice((0, 1))
    feed = f"seq 1 {count} | mosquitto_pub -h {broker.ip} -p {ward.mqtt_port} -t ward/x -q {qos} -l"
    command = Command(host=attackers[0].name, argv=["sh", "-c", f"{feed}; {feed}"], limit_s=20)
    return Attack(commands=[command], victims=[broker.ip], expect_s=6, ports=[ward.mqtt_port])


def ncrack(rng: Random, ward: Ward, attackers: list[Host]) -> Attack:
    """Ncrack guesses passwords, a few at once."""
    broker, tasks = ward.named("broker"), rng.choice((1, 2, 4))
    argv = ["ncrack", "-v", "-T4", "-g", f"cl={tasks},at=1", "--user", "ward", "-P"]
    argv += ["/usr/share/dirb/wordlists/small.txt", f"mqtt://{broker.ip}:{ward.auth_port}"]
    limit_s = rng.uniform(10, 16)
    command = Command(host=attackers[0].name, argv=argv, limit_s=limit_s, stop="KILL")
    return Attack(
        commands=[command], victims=[broker.ip], expect_s=limit_s + 1, ports=[ward.auth_port]
    )
