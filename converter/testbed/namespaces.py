"""Network namespaces of one ward, the bridge between them, and every process in them: made and ended here.

Nothing outside is touched: links are born inside the namespaces, names carry this process's id, and only
processes that were started here are ended, by id. `Namespaces` is a context manager; whatever happens inside,
on leaving it no process, namespace or file of it is left.
Raises `TestbedError` with one line where the kernel or a tool refuses.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from agent.errors import AgentError
from converter.testbed.hostile import MARK
from converter.testbed.layout import Host, Ward

PREFIX = "ww"
_RUN = Path("/run/netns")
_ETC = Path("/etc/netns")
_ROOT = str(Path(__file__).resolve().parents[2])


_MORE_BRIDGES = [
    "link add br1 type bridge stp_state 0 mcast_snooping 0",
    "link add br2 type bridge stp_state 0 mcast_snooping 0",
    "link add u0 type veth peer name u1",
    "link set u0 master br0 up",
    "link set u1 master br2 up",
    "link set br1 up",
    "link set br2 arp off up",
]
"""A wide ward's: `br1` for the routed subnet; `br2`, a second switch behind `br0`, to which devices roam. `br2`
answers no ARP: the kernel would answer there for the gateway's addresses, with another MAC, as a spoofer does."""


class TestbedError(AgentError):
    """The testbed cannot build or run a ward; the message is the one line that a user sees."""

    __test__ = False


def clean_leftovers() -> list[str]:
    """Remove namespaces that a dead testbed process left (kill -9); their processes are ended by id."""
    gone = []
    names = [p.name for p in _RUN.glob(f"{PREFIX}-*")] if _RUN.exists() else []
    for name in names:
        pid = name.split("-")[1]
        if pid.isdigit() and not Path(f"/proc/{pid}").exists():
            _delete(name)
            gone.append(name)
    return gone


def _delete(name: str) -> None:
    """End what still runs in a namespace, and remove it."""
    found = subprocess.run(
        ["ip", "netns", "pids", name], capture_output=True, text=True, check=False
    )
    for pid in found.stdout.split():
        with suppress(ProcessLookupError):
            os.kill(int(pid), signal.SIGKILL)
    subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)
    shutil.rmtree(_ETC / name, ignore_errors=True)


class Namespaces:
    """The namespaces of one ward, up from `__enter__` to `__exit__`."""

    def __init__(self, ward: Ward, *, number: int, folder: Path, load: bool = False) -> None:
        self.ward = ward
        self.prefix = f"{PREFIX}-{os.getpid()}-{number}-"
        self.folder = folder
        self.load = load
        self.processes: list[subprocess.Popen[bytes]] = []
        self.made: list[str] = []

    def __enter__(self) -> Self:
        try:
            self._build()
        except BaseException:
            self._remove()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._remove()

    def netns(self, host: str) -> str:
        """The namespace's name of a host."""
        return self.prefix + host

    def start(
        self, host: str, argv: list[str], *, log: IO[bytes] | None = None
    ) -> subprocess.Popen[bytes]:
        """Start a process in a host's namespace, in a session of its own."""
        words = [sys.executable if w == "{python}" else w for w in argv]
        env = {"PATH": os.environ.get("PATH", "/usr/sbin:/usr/bin:/sbin:/bin") + ":/usr/sbin:/sbin"}
        env |= {"LC_ALL": "C", MARK: self.prefix, "PYTHONPATH": _ROOT, "HOME": str(self.folder)}
        try:
            process = subprocess.Popen(
                ["ip", "netns", "exec", self.netns(host), "setpriv", "--pdeathsig", "KILL", *words],
                stdin=subprocess.PIPE,
                stdout=log or subprocess.DEVNULL,
                stderr=log or subprocess.DEVNULL,
                env=env,
                cwd=self.folder,
                start_new_session=True,
            )
        except OSError as e:
            raise TestbedError(f"{argv[0]}: cannot be started ({e.strerror})") from e
        self.processes.append(process)
        return process

    def run(self, host: str, script: str) -> None:
        """Run a few shell commands in a host's namespace; any that fails is our own fault."""
        done = subprocess.run(
            ["ip", "netns", "exec", self.netns(host), "sh", "-ec", script],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise TestbedError(
                f"namespace {self.netns(host)}: {done.stderr.strip().splitlines()[-1:]}"
            )

    def tell(self, process: subprocess.Popen[bytes], name: str) -> None:
        """Send a signal (`INT`, `TERM`, `KILL`) to a process's group."""
        with suppress(ProcessLookupError):
            os.killpg(process.pid, getattr(signal, f"SIG{name}"))

    def end(
        self, process: subprocess.Popen[bytes], *, stop: str = "TERM", wait_s: float = 2.0
    ) -> None:
        """End one process: the signal to its group, then SIGKILL."""
        for name, patience in ((stop, wait_s), ("KILL", 5.0)):
            self.tell(process, name)
            with suppress(subprocess.TimeoutExpired):
                process.wait(patience)
                break
        self.tell(process, "KILL")  # children of a shell that ended before them
        if process.stdin is not None:
            with suppress(OSError):
                process.stdin.close()
        if process in self.processes:
            self.processes.remove(process)

    def _build(self) -> None:
        hosts = self.ward.hosts
        for name in [h.name for h in hosts] + (["out0", "out1"] if self.load else []):
            _ip("netns", "add", self.netns(name))
            self.made.append(self.netns(name))
        gateway = self.ward.named("gw")
        lines = [
            "link set lo up",
            f"link add br0 address {gateway.mac} type bridge stp_state 0 mcast_snooping 0",
        ]
        wide = self.ward.version > 1
        lines += _MORE_BRIDGES if wide else []
        lines += [f"addr add {self.ward.clinic}.1/24 dev br1"] if wide else []
        for i, h in enumerate(h for h in hosts if h.name != "gw"):
            lines.append(
                f"link add v{i} type veth peer name eth0 address {h.mac} netns {self.netns(h.name)}"
            )
            lines += [self._port(i, h)]
            if h.routed and not wide:
                lines += [f"addr add {self.ward.clinic}.1/24 dev v{i}"]
        lines += [
            "link set br0 up",
            f"addr add {gateway.ip}/24 dev br0",
            "route add blackhole default",
        ]
        lines += [f"addr add {gateway.ip6}/64 dev br0 nodad"] if gateway.ip6 else []
        self._batch("gw", lines)
        for link in ("br2", "u0", "u1") if wide else ():
            self.run("gw", f"echo 1 > /proc/sys/net/ipv6/conf/{link}/disable_ipv6")
        self.run(
            "gw",
            "echo 1 > /proc/sys/net/ipv4/ip_forward; "
            f"{self._offload_script('br0')}; {self._ageing('br0')}; "
            f"for i in /sys/class/net/v*; do i=${{i##*/}}; {self._offload_script('$i')}; done",
        )
        for h in hosts:
            if h.name != "gw":
                self._host(h, gateway)
        if self.load:
            self._batch(
                "out0",
                [
                    "link set lo up",
                    f"link add e0 type veth peer name e0 netns {self.netns('out1')}",
                    "addr add 203.0.113.1/24 dev e0",
                    "link set e0 up",
                ],
            )
            self._batch(
                "out1", ["link set lo up", "addr add 203.0.113.2/24 dev e0", "link set e0 up"]
            )

    def _port(self, i: int, h: Host) -> str:
        """The command that puts a host's port where it belongs."""
        if not h.routed:
            return f"link set v{i} master br0 up"
        return f"link set v{i} master br1 up" if self.ward.version > 1 else f"link set v{i} up"

    def _host(self, h: Host, gateway: Host) -> None:
        via = f"{self.ward.clinic}.1" if h.routed else gateway.ip
        lines = [
            "link set lo up",
            f"addr add {h.ip}/24 dev eth0",
            "link set eth0 up",
            f"route add default via {via}",
        ]
        lines += [f"addr add {h.ip6}/64 dev eth0 nodad"] if h.ip6 and not h.routed else []
        self._batch(h.name, lines)
        self.run(h.name, f"{self._offload_script('eth0')}; {self._ageing('eth0')}")
        folder = _ETC / self.netns(h.name)
        folder.mkdir(parents=True, exist_ok=True)
        text = f"search ward.test\nnameserver {gateway.ip}\noptions timeout:2 attempts:2\n"
        (folder / "resolv.conf").write_text(text, encoding="ascii")

    def _offload_script(self, link: str) -> str:
        if self.ward.offloads:
            return "true"
        return f"ethtool -K {link} tx off gro off gso off tso off >/dev/null 2>&1 || true"

    def _ageing(self, link: str) -> str:
        base = f"/proc/sys/net/ipv4/neigh/{link}"
        reachable = f"echo {self.ward.reachable_ms} > {base}/base_reachable_time_ms"
        return f"{reachable}; echo 2 > {base}/delay_first_probe_time"

    def _batch(self, host: str, lines: list[str]) -> None:
        done = subprocess.run(
            ["ip", "-n", self.netns(host), "-batch", "-"],
            input="\n".join(lines),
            text=True,
            capture_output=True,
            check=False,
        )
        if done.returncode:
            raise TestbedError(
                f"namespace {self.netns(host)}: {done.stderr.strip().splitlines()[-1:]}"
            )

    def _remove(self) -> None:
        """End every process at once, then each namespace."""
        for process in self.processes:
            self.tell(process, "TERM")
        deadline = time.monotonic() + 2
        for process in list(self.processes):
            with suppress(subprocess.TimeoutExpired):
                process.wait(max(0.0, deadline - time.monotonic()))
            self.end(process, stop="KILL")
        for name in self.made:
            _delete(name)
        self.made.clear()
        with suppress(OSError):
            _ETC.rmdir()  # only where it is empty


def _ip(*words: str) -> None:
    done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise TestbedError(f"ip {' '.join(words)}: {done.stderr.strip()} (the testbed needs root)")
