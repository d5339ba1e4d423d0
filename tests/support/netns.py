"""Network namespaces for tests: hosts, veth pairs, bridges; all gone when the `with` ends. Needs root.

    with Lab() as lab:
        gateway, device = lab.namespace("gw"), lab.namespace("dev1")
        lab.veth(gateway, "v-dev1", device, "eth0")
        lab.bridge(gateway, "br0", ["v-dev1"], address="10.77.0.1/24")
        device.address("eth0", "10.77.0.11/24")
        device.run("ping", "-c", "1", "10.77.0.1")

Names of namespaces carry the process id, so labs of several test runs stand side by side; interface
names are short and the same everywhere. IPv6 is off unless asked for, or the kernel talks by itself.
Offloads are off unless asked for, or frames are larger than the MTU and checksums are not there yet.
Processes are ended by id.
"""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

RUN_SECONDS_MAX = 60
_number = itertools.count()

NEEDED = ("ip", "ethtool", "sysctl")


def missing_tools(*more: str) -> list[str]:
    """Programs that a lab needs and this machine lacks."""
    return [tool for tool in (*NEEDED, *more) if not shutil.which(tool)]


def ip(*words: str) -> str:
    """Run `ip`; its output. An error shows what it said."""
    done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False, timeout=30)
    if done.returncode:
        raise RuntimeError(f"ip {' '.join(words)}: {done.stderr.strip()}")
    return done.stdout


@dataclass
class Namespace:
    """One host."""

    name: str
    processes: list[subprocess.Popen] = field(default_factory=list)

    def argv(self, *words: str | Path) -> list[str]:
        """The command line that runs `words` inside."""
        return ["ip", "netns", "exec", self.name, *map(str, words)]

    def run(
        self, *words: str | Path, check: bool = True, timeout_s: float = RUN_SECONDS_MAX
    ) -> subprocess.CompletedProcess[str]:
        """Run a command inside and wait for it."""
        done = subprocess.run(
            self.argv(*words),
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout_s,
            stdin=subprocess.DEVNULL,
        )
        if check and done.returncode:
            raise RuntimeError(f"{' '.join(map(str, words))}: {done.stderr or done.stdout}")
        return done

    def popen(self, *words: str | Path, **options: Any) -> subprocess.Popen:
        """Start a command inside; it is ended with the lab, if it still runs."""
        options.setdefault("stdin", subprocess.DEVNULL)
        process = subprocess.Popen(self.argv(*words), **options)
        self.processes.append(process)
        return process

    def ip(self, *words: str) -> str:
        """`ip -n THIS words`."""
        return ip("-n", self.name, *words)

    def address(self, interface: str, address: str) -> None:
        """Give an interface an address (`10.77.0.11/24`) and set it up."""
        self.ip("addr", "add", address, "dev", interface)
        self.ip("link", "set", interface, "up")

    def counter(self, interface: str, name: str) -> int:
        """One of /sys/class/net/INTERFACE/statistics."""
        return int(self.run("cat", f"/sys/class/net/{interface}/statistics/{name}").stdout)

    def stop(self, process: subprocess.Popen, *, timeout_s: float = 10) -> int:
        """End a process that `popen` started (TERM, then KILL) and wait; its exit status."""
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(timeout_s)
            except subprocess.TimeoutExpired:
                process.kill()
        status = process.wait()
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream:
                stream.close()
        if process in self.processes:
            self.processes.remove(process)
        return status


class Lab:
    """Namespaces that live as long as the `with`."""

    def __init__(self, *, ipv6: bool = False, offloads: bool = False) -> None:
        self.ipv6 = ipv6
        self.offloads = offloads
        self.namespaces: list[Namespace] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for namespace in self.namespaces:
            for process in list(namespace.processes):
                namespace.stop(process)
        for namespace in self.namespaces:
            with suppress(RuntimeError):
                ip("netns", "del", namespace.name)

    def namespace(self, label: str) -> Namespace:
        """A new host; its loopback is up."""
        namespace = Namespace(f"ww{os.getpid()}-{next(_number)}-{label}")
        ip("netns", "add", namespace.name)
        self.namespaces.append(namespace)
        if not self.ipv6:
            for which in ("all", "default"):
                namespace.run("sysctl", "-qw", f"net.ipv6.conf.{which}.disable_ipv6=1")
        namespace.ip("link", "set", "lo", "up")
        return namespace

    def veth(self, one: Namespace, name: str, other: Namespace, other_name: str) -> None:
        """A cable between two hosts; both ends are up and have no address."""
        ip("link", "add", name, "netns", one.name, "type", "veth",
           "peer", "name", other_name, "netns", other.name)  # fmt: skip
        for namespace, interface in ((one, name), (other, other_name)):
            if not self.offloads:
                off = ("tx", "off", "gro", "off", "gso", "off", "tso", "off")
                namespace.run("ethtool", "-K", interface, *off)
            namespace.ip("link", "set", interface, "up")

    def bridge(
        self, host: Namespace, name: str, ports: list[str], *, address: str | None = None
    ) -> None:
        """A bridge with these ports; it learns at once and does not wait (no spanning tree)."""
        host.ip("link", "add", name, "type", "bridge", "stp_state", "0", "forward_delay", "0")
        for port in ports:
            host.ip("link", "set", port, "master", name)
        host.ip("link", "set", name, "up")
        if address:
            host.address(name, address)


@dataclass
class Ward:
    """A gateway with a bridge `br0`, and devices on it that each have one `eth0`."""

    gateway: Namespace
    devices: list[Namespace]
    gateway_ip: str
    device_ips: list[str]
    ports: list[str]
    """The bridge's ports, in the order of the devices."""


def ward(lab: Lab, *, devices: int = 2, network: str = "10.77.0") -> Ward:
    """Build a ward: `br0` is NETWORK.1, device i is NETWORK.(11 + i)."""
    gateway = lab.namespace("gw")
    hosts, ports = [], []
    for i in range(devices):
        host = lab.namespace(f"dev{i + 1}")
        lab.veth(gateway, f"v-dev{i + 1}", host, "eth0")
        host.address("eth0", f"{network}.{11 + i}/24")
        hosts.append(host)
        ports.append(f"v-dev{i + 1}")
    lab.bridge(gateway, "br0", ports, address=f"{network}.1/24")
    for host in hosts:
        host.ip("route", "add", "default", "via", f"{network}.1")
    return Ward(
        gateway, hosts, f"{network}.1", [f"{network}.{11 + i}" for i in range(devices)], ports
    )
