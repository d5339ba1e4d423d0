"""What every simulated device uses: the stop event, a broker's client, an HTTP call, invented readings.

Nothing here names anybody. One process plays one device; `STOP` is set by its SIGTERM. Hundreds of such
processes begin in a run, most of them for one action: what is slow to load is loaded where it is used.
"""

import json
import random
import socket
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from paho.mqtt.client import Client

MQTT311, MQTT5 = 4, 5
"""Protocol levels of CONNECT."""

Options = dict[str, Any]

STOP = threading.Event()


def nap(seconds: float) -> bool:
    """Sleep; False when the process has been told to end."""
    return not STOP.wait(seconds)


def serve(port: int, answer: "Callable[[socket.socket], None]") -> None:
    """Until told to end, a thread with `answer` for each connection to a TCP port."""
    with socket.create_server(("", port)) as server:
        server.settimeout(0.5)
        while nap(0):
            with suppress(TimeoutError):
                s = server.accept()[0]
                threading.Thread(target=answer, args=(s,), daemon=True).start()


def payload(rng: random.Random, size: int) -> bytes:
    """Made-up readings, about `size` bytes of JSON."""
    values = [rng.randrange(40, 180) for _ in range(max(1, size // 5))]
    return json.dumps({"seq": rng.randrange(10**6), "v": values}).encode()


def broker(
    o: Options,
    rng: random.Random,
    *,
    keep_alive: int = 60,
    version: int | None = None,
) -> "Client":
    """A connected client whose network loop runs in a thread; it looks the broker's name up first."""
    from paho.mqtt import client as mqtt  # noqa: PLC0415  see above
    from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion  # noqa: PLC0415

    protocol = MQTTProtocolVersion(version or rng.choice((MQTT311, MQTT311, MQTT5)))
    c = mqtt.Client(
        CallbackAPIVersion.VERSION2,
        client_id=f"{o['profile']}-{rng.randrange(10**6)}",
        protocol=protocol,
    )
    c.reconnect_delay_set(1, 4)
    c.max_queued_messages_set(200)
    if o["tls"]:
        import ssl  # noqa: PLC0415

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
    import http.client  # noqa: PLC0415

    connection = http.client.HTTPConnection(o["web"], o["web_port"], timeout=5)
    with suppress(OSError, http.client.HTTPException):
        connection.request(method, path, body, {"Content-Type": "application/json"})
        connection.getresponse().read()
    connection.close()
