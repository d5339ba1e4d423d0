"""`wardwatch run` and `wardwatch alerts` as processes in network namespaces, and what they said."""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

from tests.support.brokers import Mosquitto
from tests.support.certs import Authority
from tests.support.netns import Namespace

ROOT = Path(__file__).resolve().parents[2]
CLI = (sys.executable, "-m", "agent.cli")


class Process:
    """A command of ours in a namespace; its output goes to files."""

    def __init__(self, host: Namespace, folder: Path, name: str, *arguments: str | Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.host = host
        self.out, self.err = folder / f"{name}.out", folder / f"{name}.err"
        environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "PYTHONPATH": str(ROOT)}
        with self.out.open("wb") as out, self.err.open("wb") as err:
            self.popen = host.popen(*CLI, *arguments, stdout=out, stderr=err, env=environment)

    def said(self) -> str:
        """stderr so far."""
        return self.err.read_text(errors="replace")

    def lines(self) -> list[dict]:
        """stdout so far, each whole line as JSON."""
        return [json.loads(line) for line in self.out.read_text().split("\n")[:-1]]

    def wait_for(self, true: Callable[[], object], *, timeout_s: float = 30.0) -> None:
        """Until something holds; its output is in the failure's message."""
        until_s = time.monotonic() + timeout_s
        while not true():
            assert self.popen.poll() is None, f"ended with {self.popen.returncode}: {self.said()}"
            assert time.monotonic() < until_s, f"nothing in {timeout_s:.0f} s: {self.said()}"
            time.sleep(0.05)

    def stop(self) -> int:
        """SIGTERM; its exit status."""
        return self.host.stop(self.popen, timeout_s=30)


def write_config(
    folder: Path,
    *,
    interface: str,
    placement: str,
    url: str = "",
    authority: Authority | None = None,
    quiet_s: int = 5,
    more: str = "",
) -> Path:
    """The settings of a gateway whose state is in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    uplink = f'url = "{url}"\n'
    if authority is not None:
        cert, key = authority.issue("gw-07")
        uplink += f'ca = "{authority.ca}"\ncert = "{cert}"\nkey = "{key}"\n'
    file = folder / "agent.toml"
    file.write_text(
        f'[site]\nname = "st-luke"\nward = "icu-2"\ngateway = "gw-07"\nstate_dir = "{folder}/state"\n'
        f'[[source]]\nname = "ward"\nkind = "ip"\ninterface = "{interface}"\nplacement = "{placement}"\n'
        f"[uplink]\n{uplink}[alert]\nquiet_s = {quiet_s}\n{more}"
    )
    return file


def tls_broker(folder: Path, host: Namespace, address: str, authority: Authority) -> Mosquitto:
    """A mosquitto in a namespace that wants client certificates."""
    cert, key = authority.issue("broker", hosts=(address, "broker.ward.test"))
    return Mosquitto(
        folder,
        host=address,
        port=8883,
        ca=authority.ca,
        cert=cert,
        key=key,
        require_certificate=True,
        netns=host.name,
    )


def viewer(
    host: Namespace, folder: Path, url: str, authority: Authority, *more: str | Path
) -> Process:
    """`wardwatch alerts --json`, the security team's view."""
    cert, key = authority.issue("security")
    options = ("--ca", authority.ca, "--cert", cert, "--key", key)
    return Process(host, folder, "alerts", "alerts", "--json", "--broker", url, *options, *more)


def detections(events: list[dict], activity: str = "Create") -> list[str]:
    """The detection ids of the events of an activity, in order."""
    return [
        event["finding_info"]["analytic"]["uid"]
        for event in events
        if event["activity_name"] == activity
    ]
