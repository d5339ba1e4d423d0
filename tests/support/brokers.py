"""A real mosquitto for tests: on a free port, with TLS, users and ACLs where asked for, ended by its id."""

import json
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from agent.uplink.mqtt import Broker, Connection

MOSQUITTO = shutil.which("mosquitto", path="/usr/sbin:/usr/bin:/sbin:/bin:/usr/local/sbin")


@dataclass
class Mosquitto:
    """One broker; `start` and `stop` as often as a test likes, always on the same port."""

    folder: Path
    host: str = "127.0.0.1"
    port: int = 0
    ca: Path | None = None
    """With `cert` and `key`: TLS."""
    cert: Path | None = None
    key: Path | None = None
    require_certificate: bool = False
    users: dict[str, str] = field(default_factory=dict)
    acl: str = ""
    netns: str = ""
    """Run it in this network namespace."""
    _process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until it listens."""
        assert MOSQUITTO, "mosquitto is not installed"
        self.port = self.port or free_port()
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "mosquitto.conf").write_text(self._config())
        command = [MOSQUITTO, "-c", str(self.folder / "mosquitto.conf")]
        if self.netns:
            command = ["ip", "netns", "exec", self.netns, *command]
        with (self.folder / "mosquitto.log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        for _ in range(200):
            if self._listens():
                return
            assert self._process.poll() is None, self.log()
            time.sleep(0.02)
        raise AssertionError(f"mosquitto does not listen: {self.log()}")

    def stop(self) -> None:
        """End it by its id; sessions and retained messages are gone."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(timeout=10)
            self._process = None

    def log(self) -> str:
        """What it has said."""
        return (self.folder / "mosquitto.log").read_text(errors="replace")

    def _listens(self) -> bool:
        if self.netns:
            command = ["ip", "netns", "exec", self.netns, "ss", "-Hltn", f"sport = :{self.port}"]
            return bool(subprocess.run(command, capture_output=True, check=True).stdout.strip())
        with socket.socket() as probe:
            return probe.connect_ex((self.host, self.port)) == 0

    def _config(self) -> str:
        # Options of a listener stand after it: `max_connections` before it opens a second one.
        lines = ["per_listener_settings false", "persistence false", "log_type all", "user root"]
        if self.users:
            passwords = self.folder / "passwords"
            passwords.write_text("".join(f"{user}:{word}\n" for user, word in self.users.items()))
            passwords.chmod(0o600)
            subprocess.run(["mosquitto_passwd", "-U", passwords], check=True, capture_output=True)
            lines += ["allow_anonymous false", f"password_file {passwords}"]
        else:
            lines += ["allow_anonymous true"]
        if self.acl:
            (self.folder / "acl").write_text(self.acl)
            (self.folder / "acl").chmod(0o600)
            lines += [f"acl_file {self.folder / 'acl'}"]
        lines += [f"listener {self.port} {self.host}"]
        if self.cert:
            lines += [f"cafile {self.ca}", f"certfile {self.cert}", f"keyfile {self.key}"]
            lines += [f"require_certificate {str(self.require_certificate).lower()}"]
        return "\n".join(lines) + "\n"


@contextmanager
def running(broker: Mosquitto) -> Iterator[Mosquitto]:
    """The broker, running, and ended whatever happens."""
    broker.start()
    try:
        yield broker
    finally:
        broker.stop()


def free_port() -> int:
    """A TCP port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Subscriber:
    """Reads what arrives at a broker, through a connection of its own."""

    def __init__(self, broker: Broker, topic_filter: str = "#") -> None:
        self._connection = Connection(broker)
        self._connection.open()
        self._connection.subscribe(topic_filter)
        self.messages: list[tuple[str, bytes]] = []
        self.read(0.2)

    def read(self, for_s: float) -> None:
        """Take in what arrives within `for_s`."""
        until_s = time.monotonic() + for_s
        while time.monotonic() < until_s:
            self._connection.turn(0.02)
            while self._connection.messages:
                self.messages.append(self._connection.messages.popleft())

    def wait_for(self, n: int, *, topic: str = "", timeout_s: float = 15.0) -> list[bytes]:
        """The payloads whose topic contains `topic`, once there are at least `n` (or the time is over)."""
        until_s = time.monotonic() + timeout_s
        while True:
            found = [payload for t, payload in self.messages if topic in t]
            if len(found) >= n or time.monotonic() > until_s:
                return found
            self.read(0.05)

    def json(self, topic: str) -> list[dict]:
        """The payloads so far whose topic contains `topic`."""
        return [json.loads(payload) for t, payload in self.messages if topic in t and payload]

    def close(self) -> None:
        """End the connection."""
        self._connection.close()
