"""What every simulated device uses: the stop event, a broker's client, an HTTP call, invented readings.

Nothing here names anybody. One process plays one device; `STOP` is set by its SIGTERM.
"""

import http.client
import json
import random
import ssl
import threading
from contextlib import suppress
from typing import Any

from paho.mqtt import client as mqtt
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

Options = dict[str, Any]

STOP = threading.Event()


def nap(seconds: float) -> bool:
    """Sleep; False when the process has been told to end."""
    return not STOP.wait(seconds)


def payload(rng: random.Random, size: int) -> bytes:
    """Made-up readings, about `size` bytes of JSON."""
    values = [rng.randrange(40, 180) for _ in range(max(1, size // 5))]
    return json.dumps({"seq": rng.randrange(10**6), "v": values}).encode()


def broker(
    o: Options,
    rng: random.Random,
    *,
    keep_alive: int = 60,
    version: MQTTProtocolVersion | None = None,
) -> mqtt.Client:
    """A connected client whose network loop runs in a thread; it looks the broker's name up first."""
    protocol = version or rng.choice(
        (MQTTProtocolVersion.MQTTv311, MQTTProtocolVersion.MQTTv311, MQTTProtocolVersion.MQTTv5)
    )
    c = mqtt.Client(
        CallbackAPIVersion.VERSION2,
        client_id=f"{o['profile']}-{rng.randrange(10**6)}",
        protocol=protocol,
    )
    c.reconnect_delay_set(1, 4)
    c.max_queued_messages_set(200)
    if o["tls"]:
        context = ssl.create_default_context(cafile=o["ca"])
        c.tls_set_context(context)
    while not STOP.is_set():
        try:
            c.connect(
                o["broker6"] if o["v6"] else o["broker"],
                o["tls_port"] if o["tls"] else o["port"],
                keep_alive,
            )
            break
        except OSError:
            nap(rng.uniform(0.5, 2))
    c.loop_start()
    return c


def http_call(o: Options, method: str, path: str, body: bytes | None = None) -> None:
    """One request on a connection of its own."""
    connection = http.client.HTTPConnection(o["web"], o["web_port"], timeout=5)
    with suppress(OSError, http.client.HTTPException):
        connection.request(method, path, body, {"Content-Type": "application/json"})
        connection.getresponse().read()
    connection.close()
