"""Simulated devices of a ward, one process each: `python -m converter.testbed.devices OPTIONS_JSON`.

Real clients (paho, http.client, the system's resolver) with the rhythm of their kind: a monitor streams, a
glucose meter sleeps and speaks once a minute. They send invented figures and never a name of anybody. A
process runs until SIGTERM; an action of `actions.py` (profiles that are no device) ends by itself.
"""

import json
import random
import signal
import socket
import sys
import threading
from collections.abc import Callable
from contextlib import suppress

from converter.testbed import actions, actions_hard, devices_clinical
from converter.testbed.device_kit import (
    MQTT311,
    STOP,
    Options,
    broker,
    http_call,
    nap,
    payload,
    serve,
)


def monitor(o: Options, rng: random.Random) -> None:
    """Bedside monitor: vitals each second at QoS 1, waveforms several times a second at QoS 0."""
    c = broker(o, rng, keep_alive=rng.choice((15, 30, 60)))
    rate, size = rng.choice((2, 4, 8)), rng.choice((120, 400, 900))
    bed, i = rng.randrange(1, 30), 0
    while nap(rng.gauss(1 / rate, 0.02 / rate)):
        i += 1
        c.publish(f"ward/bed{bed}/wave", payload(rng, size), qos=0)
        if i % rate == 0:
            c.publish(f"ward/bed{bed}/vitals", payload(rng, 80), qos=1)
        if rng.random() < 0.002:
            http_call(o, "POST", "/api/events", payload(rng, 60))
    c.disconnect()


def ventilator(o: Options, rng: random.Random) -> None:
    """Ventilator: a reading with each breath phase at QoS 1, an alarm limit check by HTTP now and then."""
    c = broker(o, rng, keep_alive=20)
    breath_s, qos = rng.uniform(0.4, 1.2), rng.choice((1, 1, 2))
    while nap(rng.uniform(0.85, 1.15) * breath_s):
        c.publish("ward/ventilator/breath", payload(rng, rng.randrange(60, 160)), qos=qos)
        if rng.random() < 0.02:
            http_call(o, "GET", "/limits.json")
    c.disconnect()


def pump(o: Options, rng: random.Random) -> None:
    """Infusion pump: state by MQTT every few seconds, status by HTTP."""
    c = broker(o, rng, keep_alive=30)
    c.subscribe("ward/pump/set", qos=1)
    while nap(rng.uniform(2, 7)):
        c.publish("ward/pump/state", payload(rng, 50), qos=1, retain=rng.random() < 0.3)
        if rng.random() < 0.4:
            http_call(o, "POST", "/api/status", payload(rng, 150))
    c.disconnect()


def oximeter(o: Options, rng: random.Random) -> None:
    """Pulse oximeter: connects, sends a burst, disconnects, sleeps, and again."""
    while nap(rng.uniform(2, 9)):
        c = broker(o, rng, keep_alive=10)
        nap(0.2)
        for _ in range(rng.randrange(15, 70)):
            c.publish("ward/oximeter/spo2", payload(rng, 20), qos=0)
            if not nap(rng.choice((0.05, 0.1))):
                break
        c.disconnect()
        c.loop_stop()


def glucose(o: Options, rng: random.Random) -> None:
    """Glucose meter: wakes seldom, looks a name up, posts one reading."""
    while nap(rng.expovariate(1 / 18) + 3):
        with suppress(OSError):
            socket.getaddrinfo(rng.choice(("time.ward.test", "updates.vendor.test")), 443)
        http_call(o, "POST", "/api/glucose", payload(rng, 40))


def bed(o: Options, rng: random.Random) -> None:
    """Smart bed: MQTT 3.1.1, hardly ever a reading, kept alive by PINGREQ."""
    c = broker(o, rng, keep_alive=rng.choice((5, 8, 10)), version=MQTT311)
    while nap(rng.uniform(8, 25)):
        c.publish("ward/bed/position", payload(rng, 30), qos=0)
    c.disconnect()


def station(o: Options, rng: random.Random) -> None:
    """Nurse station: subscribes to everything, shows dashboards."""
    c = broker(o, rng, keep_alive=60)
    c.on_connect = lambda client, *_: client.subscribe("ward/#", qos=1)
    c.subscribe("ward/#", qos=1)
    while nap(rng.expovariate(1 / 3)):
        for path in rng.sample(
            ("/", "/beds.html", "/trend.json", "/style.css", "/app.js", "/missing.png"),
            rng.randint(1, 5),
        ):
            http_call(o, "GET", path)
    c.disconnect()


def hl7(o: Options, rng: random.Random) -> None:
    """A TCP client in the manner of HL7 over MLLP: a framed message, an acknowledgement."""
    while nap(rng.uniform(3, 8)):
        with suppress(OSError), socket.create_connection((o["web"], 2575), 3) as s:
            for _ in range(rng.randint(1, 4)):
                s.sendall(b"\x0bMSH|^~\\&|DEV|WARD|" + payload(rng, 300) + b"\x1c\r")
                s.recv(512)
                if not nap(rng.uniform(0.1, 0.6)):
                    return


def hl7server(o: Options, rng: random.Random) -> None:
    """The other side of `hl7`."""
    del o, rng
    serve(2575, _acknowledge)


def _acknowledge(s: socket.socket) -> None:
    with s, suppress(OSError):
        s.settimeout(5)
        while s.recv(4096):
            s.sendall(b"\x0bMSH|^~\\&|WARD|DEV|ACK\x1c\r")


def camera(o: Options, rng: random.Random) -> None:
    """A bedside camera or waveform source: datagrams at a steady rate, with pauses."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        gap_s, size = rng.choice((0.02, 0.04, 0.1)), rng.choice((160, 600, 1100))
        while nap(gap_s if rng.random() > 0.003 else rng.uniform(2, 8)):
            with suppress(OSError):
                s.sendto(rng.randbytes(size + rng.randrange(40)), (o["archive"], 5004))


def laptop(o: Options, rng: random.Random) -> None:
    """A staff laptop: pages, names, now and then a short look at MQTT or a ping of the gateway."""
    while nap(rng.expovariate(1 / 2.5)):
        with suppress(OSError):
            socket.getaddrinfo(rng.choice(("web.ward.test", "mail.hospital.test", "news.test")), 80)
        for _ in range(rng.randint(1, 6)):
            http_call(
                o, "GET", rng.choice(("/", "/app.js", "/beds.html", "/trend.json", "/missing.png"))
            )
        if rng.random() < 0.15:
            c = broker(o, rng)
            c.subscribe("ward/bed/#")
            nap(rng.uniform(1, 5))
            c.disconnect()
            c.loop_stop()
        if rng.random() < 0.1:
            actions.echo(o["gateway"], rng.randint(1, 4))


def nms(o: Options, rng: random.Random) -> None:
    """Network management: asks one known host after the other, slowly."""
    while nap(rng.uniform(2, 6)):
        actions.echo(rng.choice(o["hosts"]), 1)
        if rng.random() < 0.2:
            http_call(o, "GET", "/")


PROFILES: dict[str, Callable[[Options, random.Random], None]] = {
    f.__name__: f
    for f in (
        monitor,
        ventilator,
        pump,
        oximeter,
        glucose,
        bed,
        station,
        hl7,
        hl7server,
        camera,
        laptop,
        nms,
        *devices_clinical.PROFILES,
    )
}
"""What `Host.profile` may say."""


ACTIONS = actions.ACTIONS | actions_hard.ACTIONS


def main() -> None:
    """Play one profile."""
    o: Options = json.loads(sys.argv[1])
    signal.signal(signal.SIGTERM, lambda *_: STOP.set())
    signal.signal(signal.SIGINT, lambda *_: STOP.set())
    if o["profile"] in ACTIONS:
        ACTIONS[o["profile"]](o, STOP)
        return
    rng = random.Random(o["seed"])
    nap(rng.uniform(0, o["stagger_s"]))
    if o.get("dhcp"):
        actions.dhcp({"mac": o["dhcp"]}, STOP)
    if o.get("snmp"):
        threading.Thread(target=devices_clinical.snmp_agent, daemon=True).start()
    PROFILES[o["profile"]](o, rng)


if __name__ == "__main__":
    main()
