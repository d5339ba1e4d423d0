"""One run, recorded: the ward is built, its devices live, steps happen when due, tcpdump writes it all down.

In: a `RunSpec`, a folder. Out: `RUN.pcap`, `RUN.labels.jsonl`, and last `RUN.manifest.json`, whose presence says
that the run is finished. Raises `TestbedError`; leaves no process, namespace or half-written manifest behind.
One thread a run: what has to happen is looked up thirty times a second.
"""

import hashlib
import shutil
import subprocess
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import msgspec

from converter.testbed import benign, services
from converter.testbed.attacks import Command
from converter.testbed.benign_hard import POWER_CUT, READDRESS, SCAN
from converter.testbed.layout import Host, Ward
from converter.testbed.namespaces import Namespaces, TestbedError
from converter.testbed.schedule import TAIL_S, RunSpec, Step

_TICK_S = 0.03
_ROLES = {
    "scanner": ("scanner",),
    "nms": ("nms",),
    "dhcp_server": ("gateway",),
    "gateway": ("gateway",),
    "broker": ("broker",),
}
"""Role of the site: roles of the ward's hosts."""

_PATIENCE_S = 13.0
"""After the stop signal: arpspoof takes 10 s to put the truth back."""


class Happened(msgspec.Struct, kw_only=True):
    """A step as it went: what labels are made from."""

    step: Step
    began_ns: int
    """Wall time before its first process, the clock of the capture."""
    ended_ns: int
    """After its last process had ended."""
    statuses: list[int]
    """Exit status of each command; negative: ended by that signal."""
    attackers: list[str]
    """The attackers' IP addresses, aliases included."""
    attacker_macs: list[str]


@dataclass
class _Running:
    """A step under way."""

    step: Step
    began_ns: int
    left: list[tuple[Command, "subprocess.Popen[bytes]"]]
    ends: list[float]
    """Monotonic time at which each of `left` is told to stop."""
    told: list[bool]
    statuses: list[int] = field(default_factory=list)


class InterruptedRunError(TestbedError):
    """Recording was stopped from outside."""


def record_run(
    spec: RunSpec, out: Path, *, number: int, stop: threading.Event
) -> dict[str, object]:
    """Record one run into `out`; the manifest without the labels' part."""
    pcap = out / f"{spec.run}.pcap"
    load = any(s.lane == "load" for s in spec.steps)
    with tempfile.TemporaryDirectory(prefix="ward-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        with Namespaces(spec.ward, number=number, folder=folder, load=load) as ns:
            play = _Play(spec, ns, stop)
            counts = play.whole(folder / "ward.pcap")
        if counts["dropped"]:
            raise TestbedError(
                f"{spec.run}: the kernel dropped {counts['dropped']} frames of the capture; "
                "record it again with fewer --jobs"
            )
        shutil.move(folder / "ward.pcap", pcap)
    return {
        "run": spec.run,
        "plan": spec.plan,
        "seed": spec.seed,
        "spec_digest": spec.digest,
        "placement": "bridge",
        "duration_s": spec.duration_s,
        "frames": counts["captured"],
        "dropped": counts["dropped"],
        "sha256": _sha256(pcap),
        "offloads": spec.ward.offloads,
        "background_load": load,
        "cold_start": spec.cold_start,
        "active_attackers": spec.active_attackers,
        "ward": spec.ward,
        "roles": roles(spec.ward, play.happened),
        "happened": play.happened,
    }


def roles(ward: Ward, happened: list[Happened]) -> dict[str, list[dict[str, object]]]:
    """What the site would say of its own hosts: role to hosts; a scanner's with its windows [ns, wall time]."""
    windows = [[h.began_ns, h.ended_ns] for h in happened if h.step.name == SCAN]
    out: dict[str, list[dict[str, object]]] = {}
    for role, names in _ROLES.items():
        for h in ward.of(*names):
            entry: dict[str, object] = {"host": h.name, "ip": h.ip, "mac": h.mac}
            out.setdefault(role, []).append(
                entry | ({"windows": windows} if role == "scanner" else {})
            )
    return out


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class _Play:
    """Drives the steps of one run."""

    def __init__(self, spec: RunSpec, ns: Namespaces, stop: threading.Event) -> None:
        self.spec = spec
        self.ns = ns
        self.stop = stop
        self.devices: dict[str, subprocess.Popen[bytes]] = {}
        self.happened: list[Happened] = []
        self.running: list[_Running] = []
        self.rng = Random(f"{spec.seed}/{spec.run}/devices")
        self.start = 0.0
        self.powered_off: list[tuple[float, int, Step, list[Host]]] = []
        """When power comes back (monotonic), when it went (wall, ns), whose it is."""
        self.broker: subprocess.Popen[bytes] | None = None
        self.dns: subprocess.Popen[bytes] | None = None
        self.moved: dict[str, str] = {}
        """MAC to the address that a host has taken since."""

    def whole(self, pcap: Path) -> dict[str, int]:
        """From servers to the end of the capture; tcpdump's counts."""
        self.broker = services.start_broker(self.ns)
        services.start_web(self.ns, self.rng)
        self.dns = services.start_dns(self.ns)
        if not self.spec.cold_start:
            self._start_devices()
            self._wait(4)
        capture = services.start_capture(self.ns, pcap)
        self.start = time.monotonic()
        if self.spec.cold_start:
            self._start_devices()
        self._steps()
        return services.stop_capture(self.ns, capture)

    def _wait(self, seconds: float) -> None:
        if self.stop.wait(seconds):
            raise InterruptedRunError(f"{self.spec.run}: stopped; its recording is not kept")

    def _start_devices(self) -> None:
        for h in self.spec.ward.hosts:
            if h.profile and (h.role != "attacker" or self.spec.active_attackers):
                self._start_device(h)

    def _start_device(self, h: Host, *, stagger_s: float = 2.5, dhcp: bool = False) -> None:
        ward = self.spec.ward
        broker = ward.named("broker")
        options = {
            "profile": h.profile,
            "seed": self.rng.randrange(2**31),
            "stagger_s": stagger_s,
            "dhcp": h.mac if dhcp else "",
            "snmp": h.snmp,
            "dicom_port": ward.dicom_port,
            "agents": [x.ip for x in ward.hosts if x.snmp],
            "tls": h.tls,
            "v6": h.v6,
            "broker": "broker.ward.test",
            "broker6": broker.ip6,
            "port": ward.mqtt_port,
            "tls_port": ward.tls_port,
            "ca": str(self.ns.folder / "ca.pem"),
            "web": "web.ward.test",
            "web_port": ward.web_port,
            "archive": ward.named("archive").ip,
            "gateway": ward.named("gw").ip,
            "hosts": [
                x.ip for x in ward.hosts if x.role not in {"nms", "attacker", "clinic", "scanner"}
            ],
        }
        argv = [
            "{python}",
            "-m",
            "converter.testbed.devices",
            msgspec.json.encode(options).decode(),
        ]
        self.devices[h.name] = self.ns.start(h.name, argv)

    def _steps(self) -> None:
        """Begin what is due, look after what runs, until the time and the attacks are over."""
        waiting = list(self.spec.steps)
        end_s = self.spec.duration_s
        attack_free_s = 0.0
        while True:
            now = time.monotonic() - self.start
            self._power_back()
            for r in [r for r in self.running if self._over(r)]:
                self._finish(r)
                if r.step.lane == "attack":
                    ended = time.monotonic() - self.start
                    attack_free_s, end_s = ended + 1.5, max(end_s, ended + TAIL_S)
            busy = any(r.step.lane == "attack" for r in self.running)
            for step in _due(waiting, now, attack=not busy and now >= attack_free_s):
                waiting.remove(step)
                self._begin(step)
            if now >= end_s and not busy and not any(s.lane == "attack" for s in waiting):
                break
            if now > self.spec.duration_s * 1.5 + 60:
                raise TestbedError(
                    f"{self.spec.run}: took far longer than planned; the machine is too busy"
                )
            self._wait(_TICK_S)
        for r in list(self.running):
            for command, process in r.left:
                self.ns.end(process, stop=command.stop)
                r.statuses.append(process.returncode)
            r.left.clear()
            self._finish(r)

    def _begin(self, step: Step) -> None:
        """Quiet the attackers' ordinary life, then start every command of the step."""
        special = _SPECIAL.get(step.commands[0].argv[0]) if step.commands else None
        if special is not None:
            special(self, step)
            return
        for name in step.attackers:
            if name in self.devices:
                self.ns.end(self.devices.pop(name))
        if step.attackers:
            self._wait(0.4)
        for command in step.commands:
            if command.forward is not None:
                self.ns.run(
                    command.host, f"echo {int(command.forward)} > /proc/sys/net/ipv4/ip_forward"
                )
            for alias in command.aliases:
                self.ns.run(command.host, f"ip addr add {alias}/32 dev eth0")
        began_ns, now = time.time_ns(), time.monotonic()
        left = [(c, self.ns.start(c.host, c.argv)) for c in step.commands]
        self.running.append(
            _Running(
                step, began_ns, left, [now + c.limit_s for c in step.commands], [False] * len(left)
            )
        )

    def _over(self, r: _Running) -> bool:
        """Whether every command has ended; those past their limit are told to."""
        now = time.monotonic()
        for i in range(len(r.left) - 1, -1, -1):
            command, process = r.left[i]
            if process.poll() is None and now >= r.ends[i] and not r.told[i]:
                r.told[i] = True
                r.ends[i] = now + _PATIENCE_S
                self.ns.tell(process, command.stop)
            if process.poll() is None and not (r.told[i] and now >= r.ends[i]):
                continue
            self.ns.end(process, stop="KILL")
            r.statuses.append(process.returncode)
            del r.left[i], r.ends[i], r.told[i]
        return not r.left

    def _finish(self, r: _Running) -> None:
        """Note how the step went, and put its hosts back as they were."""
        self.running.remove(r)
        ward, step = self.spec.ward, r.step
        hosts = [ward.named(name) for name in step.attackers]
        aliases = [a for c in step.commands for a in c.aliases]
        v6 = any(":" in victim for victim in step.victims)
        self.happened.append(
            Happened(
                step=step,
                began_ns=r.began_ns,
                ended_ns=time.time_ns(),
                statuses=r.statuses,
                attackers=[h.ip6 if v6 else h.ip for h in hosts] + aliases,
                attacker_macs=[h.mac for h in hosts],
            )
        )
        for command in step.commands:
            if command.forward:
                self.ns.run(command.host, "echo 0 > /proc/sys/net/ipv4/ip_forward")
            for alias in command.aliases:
                self.ns.run(command.host, f"ip addr del {alias}/32 dev eth0")
        if self.spec.active_attackers:
            for h in hosts:
                self._start_device(h)

    def _note(self, step: Step, began_ns: int) -> None:
        """What the recorder itself did."""
        self.happened.append(
            Happened(
                step=step,
                began_ns=began_ns,
                ended_ns=time.time_ns(),
                statuses=[0],
                attackers=[],
                attacker_macs=[],
            )
        )

    def _restart_broker(self, step: Step) -> None:
        began_ns = time.time_ns()
        if self.broker is not None:
            self.ns.end(self.broker)
        self.broker = services.start_broker(self.ns)
        self._note(step, began_ns)

    def _power_cut(self, step: Step) -> None:
        """Devices and stations die where they stand; `_power_back` wakes them."""
        hosts = [h for h in self.spec.ward.of("device", "station") if h.name in self.devices]
        began_ns = time.time_ns()
        for h in hosts:
            self.ns.tell(self.devices[h.name], "KILL")
        for h in hosts:
            self.ns.end(self.devices.pop(h.name), stop="KILL")
        off_s = float(step.commands[0].argv[1])
        self.powered_off.append((time.monotonic() + off_s, began_ns, step, hosts))

    def _power_back(self) -> None:
        """Those whose power is back start together, knowing no neighbour and asking for their address."""
        for entry in [e for e in self.powered_off if e[0] <= time.monotonic()]:
            self.powered_off.remove(entry)
            _, began_ns, step, hosts = entry
            for h in hosts:
                self.ns.run(h.name, "ip neigh flush dev eth0")
                self._start_device(h, stagger_s=0.5, dhcp=not h.routed)
            self._note(step, began_ns)

    def _readdress(self, step: Step) -> None:
        """A device stops, takes another address of the subnet, says so by ARP, and starts again."""
        (command,) = step.commands
        host, new = self.spec.ward.named(command.host), command.argv[1]
        began_ns = time.time_ns()
        if host.name in self.devices:
            self.ns.end(self.devices.pop(host.name))
        gateway = self.spec.ward.named("gw").ip
        self.moved[host.mac] = new
        if self.dns is not None:
            services.move_lease(self.ns, self.dns, self.moved)
        told = msgspec.json.encode(
            {"profile": "hello", "wait": 0, "address": new, "mac": host.mac, "times": 2}
        ).decode()
        self.ns.run(
            host.name,
            f"ip -4 addr flush dev eth0; ip addr add {new}/24 dev eth0; "
            f"ip route add default via {gateway}",
        )
        self.ns.start(host.name, ["{python}", "-m", "converter.testbed.devices", told])
        self._start_device(host, stagger_s=0.5)
        self._note(step, began_ns)


_SPECIAL = {
    benign.RESTART_BROKER: _Play._restart_broker,  # noqa: SLF001  its own table
    POWER_CUT: _Play._power_cut,  # noqa: SLF001
    READDRESS: _Play._readdress,  # noqa: SLF001
}
"""Events that are no command: what the recorder does for them."""


def _due(waiting: list[Step], now: float, *, attack: bool) -> list[Step]:
    """Steps whose time has come; of the attacks the first, and only if one may begin."""
    due = [s for s in waiting if s.start_s <= now]
    attacks = [s for s in due if s.lane == "attack"][: int(attack)]
    return attacks + [s for s in due if s.lane != "attack"]
