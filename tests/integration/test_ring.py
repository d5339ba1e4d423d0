"""Live capture in network namespaces, with real traffic: ring, recv and tcpdump see the same frames.

Each reader is a process of its own inside the namespace (`tests/support/live_reader.py`).
"""

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

import pytest

from agent.capture.capture_file import open_capture
from tests.support.netns import Lab, Namespace, missing_tools, ward
from tests.support.pcap_writer import frames_of

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(
        bool(missing_tools("tcpdump", "ping", "hping3")),
        reason="tcpdump, ping or hping3 is missing",
    ),
]
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def small_ward():
    with Lab() as lab:
        yield ward(lab)


class Reader:
    """A live capture in another process."""

    def __init__(
        self, host: Namespace, interface: str, path: Path, *before: str, **options
    ) -> None:
        self.host, self.path = host, path
        self.process = host.popen(
            *before, sys.executable, "-m", "tests.support.live_reader", interface, path,
            json.dumps(options), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        self.first_line = self.process.stdout.readline()
        self.told = {}

    def finish(self) -> dict:
        """Let it read what is still there; what it tells."""
        if self.first_line != "ready\n":
            self.told = json.loads(self.first_line)
        else:
            self.process.stdin.close()
            self.told = json.loads(self.process.stdout.read() or "{}")
        self.process.wait(30)
        assert self.host.stop(self.process) == 0
        return self.told

    def frames(self) -> list:
        """[(ts_ns, bytes, wirelen)], VLAN tags in place."""
        with open_capture(self.path) as capture:
            return frames_of(capture)


@contextmanager
def tcpdump(host: Namespace, interface: str, path: Path, *words: str):
    """tcpdump beside the reader."""
    # Its slots are as long as its largest frame: 64 MiB hold 256 of them, 2 MiB hold 8.
    argv = (
        *("tcpdump", "-i", interface, "-w", path, "-U", "-Z", "root"),
        *("--immediate-mode", "-s", "65535", "-B", "65536"),
    )
    process = host.popen(*argv, *words, stderr=subprocess.PIPE, text=True)
    for line in process.stderr:
        if "listening on" in line:
            break
    yield
    # It stops only after what it has taken was written.
    host.run("sleep", "0.3")
    process.send_signal(signal.SIGINT)
    said = process.stderr.read()
    assert host.stop(process) == 0
    assert "\n0 packets dropped by kernel" in said, said


def while_both_ran(ours, theirs):
    """Our frames less those before tcpdump's first and after its last: our reader starts earlier, ends later."""
    clocks_ns = 1_000_000
    first, last = min(theirs)[0] - clocks_ns, max(theirs)[0] + clocks_ns
    return [frame for frame in ours if first <= frame[0] <= last]


def content(frames):
    """What was on the wire, times apart: two sockets may differ in the order of simultaneous frames."""
    return Counter((frame, wirelen) for _, frame, wirelen in frames)


def chatter(lab_ward):
    """Pings of two sizes, a burst of SYN, UDP of a few sizes, between two devices; bounded."""
    device, peer = lab_ward.devices[0], lab_ward.device_ips[1]
    device.run("ping", "-q", "-c", "5", "-i", "0.02", peer)
    device.run("ping", "-q", "-c", "3", "-i", "0.02", "-s", "1472", peer)
    device.run("hping3", "-q", "-S", "-p", "1883", "-i", "u200", "-c", "1500", peer, check=False)
    device.run(
        "hping3",
        "-q",
        "--udp",
        "-p",
        "53",
        "-d",
        "700",
        "-i",
        "u500",
        "-c",
        "200",
        peer,
        check=False,
    )


@pytest.mark.parametrize("method", ["ring", "recv"])
def test_it_sees_what_tcpdump_sees(small_ward, tmp_path, method):
    gateway = small_ward.gateway
    reader = Reader(gateway, "br0", tmp_path / "ours.pcap", method=method)
    with tcpdump(
        gateway, "br0", tmp_path / "theirs.pcap", "-Q", "in", "--time-stamp-precision=nano"
    ):
        chatter(small_ward)
    told = reader.finish()
    assert (told["error"], told["method"], told["fallback"]) == (None, method, None)
    ours = reader.frames()
    with open_capture(tmp_path / "theirs.pcap") as capture:
        theirs = frames_of(capture)
    assert len(theirs) > 3000
    both = while_both_ran(ours, theirs)
    assert content(both) == content(theirs)
    stats = told["stats"]
    assert stats["frames"] == stats["kernel_packets"] == len(ours)
    assert stats["kernel_drops"] == stats["interface_drops"] == stats["truncated"] == 0
    # The same time stamps, but for the samples of the two clocks.
    apart = [abs(a[0] - b[0]) for a, b in zip(sorted(both), sorted(theirs), strict=True)]
    assert max(apart) < 1_000_000
    assert told["directed"] == 0, "on a tap the direction is unknown"


@pytest.mark.parametrize("method", ["ring", "recv"])
def test_gateway_placement_marks_what_the_gateway_sends(small_ward, tmp_path, method):
    gateway = small_ward.gateway
    reader = Reader(gateway, "br0", tmp_path / "ours.pcap", method=method, placement="gateway")
    with tcpdump(gateway, "br0", tmp_path / "theirs.pcap"):
        small_ward.devices[0].run("ping", "-q", "-c", "7", "-i", "0.02", small_ward.gateway_ip)
        small_ward.devices[0].run("ping", "-q", "-c", "5", "-i", "0.02", small_ward.device_ips[1])
    told = reader.finish()
    ours = reader.frames()
    with open_capture(tmp_path / "theirs.pcap") as capture:
        theirs = frames_of(capture)
    assert content(while_both_ran(ours, theirs)) == content(theirs)
    mac = bytes.fromhex(gateway.run("cat", "/sys/class/net/br0/address").stdout.replace(":", ""))
    from_gateway = sum(frame[6:12] == mac for _, frame, _ in ours)
    assert told["directed"] == len(ours)
    assert told["outgoing"] == from_gateway >= 7


TAGGED = [
    bytes.fromhex("0200000000030200000000028100" + tag + "88b5") + bytes(range(50))
    for tag in ("0000", "0007", "efa0", "000581000009")  # a priority tag; one; with priority; two
]
SEND = """
import socket, sys
with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as sock:
    sock.bind(("eth0", 0))
    for frame in sys.argv[1:]:
        sock.send(bytes.fromhex(frame))
"""


@pytest.mark.parametrize("method", ["ring", "recv"])
def test_vlan_tags_are_restored(tmp_path, method):
    """The kernel takes the outer tag out of the frame; 0 is a tag too, and no tag is none."""
    with Lab() as lab:
        gateway, device = lab.namespace("gw"), lab.namespace("dev")
        lab.veth(gateway, "tap0", device, "eth0")
        plain = TAGGED[1][:12] + TAGGED[1][16:]
        frames = [*TAGGED, plain]
        reader = Reader(gateway, "tap0", tmp_path / "ours.pcap", method=method)
        with tcpdump(gateway, "tap0", tmp_path / "theirs.pcap"):
            device.run(sys.executable, "-c", SEND, *(frame.hex() for frame in frames))
        assert reader.finish()["error"] is None
        ours = reader.frames()
        assert [frame for _, frame, _ in ours] == frames
        with open_capture(tmp_path / "theirs.pcap") as capture:
            assert content(ours) == content(frames_of(capture))


@pytest.mark.parametrize("method", ["ring", "recv"])
def test_no_frame_leaves_on_a_tap(tmp_path, method):
    """From before the capture is opened, through traffic, until after it is closed: nothing is sent."""
    with Lab() as lab:
        gateway, device = lab.namespace("gw"), lab.namespace("dev")
        lab.veth(gateway, "tap0", device, "eth0")
        device.address("eth0", "10.77.1.2/24")
        device.ip("neigh", "add", "10.77.1.9", "lladdr", "02:00:00:00:00:09", "dev", "eth0")
        gateway.run("true")
        sent = gateway.counter("tap0", "tx_packets")
        seen = device.counter("eth0", "rx_packets")
        with tcpdump(device, "eth0", tmp_path / "theirs.pcap", "-Q", "in"):
            reader = Reader(gateway, "tap0", tmp_path / "ours.pcap", method=method)
            device.run("ping", "-q", "-c", "3", "-i", "0.02", "-W", "0.1", "10.77.1.3", check=False)
            device.run(
                "hping3",
                "-q",
                "-S",
                "-p",
                "1883",
                "-i",
                "u500",
                "-c",
                "300",
                "10.77.1.9",
                check=False,
            )
            told = reader.finish()
        assert told["stats"]["frames"] >= 300
        with open_capture(tmp_path / "theirs.pcap") as capture:
            assert frames_of(capture) == []
        assert gateway.counter("tap0", "tx_packets") == sent
        assert device.counter("eth0", "rx_packets") == seen


@pytest.mark.parametrize("method", ["ring", "recv"])
def test_frames_larger_than_a_slot_come_whole(tmp_path, method):
    """Segments merged by the offloads of both ends are up to 64 KiB; slots hold 2 KiB."""
    with Lab(offloads=True) as lab:
        gateway, device = lab.namespace("gw"), lab.namespace("dev")
        lab.veth(gateway, "eth0", device, "eth0")
        gateway.address("eth0", "10.77.1.1/24")
        device.address("eth0", "10.77.1.2/24")
        reader = Reader(gateway, "eth0", tmp_path / "ours.pcap", method=method, placement="gateway")
        with tcpdump(gateway, "eth0", tmp_path / "theirs.pcap"):
            server = gateway.popen(
                sys.executable, "-c",
                "import socket; s = socket.create_server(('10.77.1.1', 4000)); print('up', flush=True)\n"
                "c = s.accept()[0]\nwhile c.recv(1 << 16): pass",
                stdout=subprocess.PIPE, text=True,
            )  # fmt: skip
            server.stdout.readline()
            device.run(
                sys.executable, "-c",
                "import socket; s = socket.create_connection(('10.77.1.1', 4000))\n"
                "s.sendall(bytes(range(256)) * 2000)",
            )  # fmt: skip
            assert server.wait(20) == 0  # it ends by itself, once it has read everything
            gateway.stop(server)
        told = reader.finish()
        ours = reader.frames()
        with open_capture(tmp_path / "theirs.pcap") as capture:
            theirs = frames_of(capture)
        assert content(while_both_ran(ours, theirs)) == content(theirs)
        assert max(len(frame) for _, frame, _ in ours) > 10_000
        assert told["stats"]["truncated"] == 0


def test_what_a_small_ring_loses_is_counted(small_ward, tmp_path):
    """The reader is stopped while 2,000 frames come; its ring has 512 slots."""
    gateway, device = small_ward.gateway, small_ward.devices[0]
    reader = Reader(gateway, "v-dev1", tmp_path / "ours.pcap", ring_mib=1)
    reader.process.send_signal(signal.SIGSTOP)
    device.run(
        "hping3",
        "-q",
        "--udp",
        "-p",
        "9",
        "-i",
        "u100",
        "-c",
        "2000",
        small_ward.device_ips[1],
        check=False,
    )
    reader.process.send_signal(signal.SIGCONT)
    told = reader.finish()
    stats = told["stats"]
    assert told["ring_bytes"] == 1 << 20
    assert stats["kernel_packets"] >= 2000
    assert stats["kernel_packets"] == stats["frames"] + stats["kernel_drops"]
    assert stats["kernel_drops"] >= 2000 - 512


def test_frames_longer_than_their_slot_may_be_cut_and_are_counted(small_ward, tmp_path):
    """A receive buffer that is full takes no copies: the reader is stopped while they come."""
    gateway, device = small_ward.gateway, small_ward.devices[0]
    reader = Reader(gateway, "v-dev1", tmp_path / "ours.pcap", slot_bytes=256, ring_mib=4)
    reader.process.send_signal(signal.SIGSTOP)
    device.run(
        "hping3",
        "-q",
        "--udp",
        "-p",
        "9",
        "-d",
        "1400",
        "-i",
        "u100",
        "-c",
        "6000",
        small_ward.device_ips[1],
        check=False,
    )
    reader.process.send_signal(signal.SIGCONT)
    told = reader.finish()
    ours = reader.frames()
    short = [frame for _, frame, wirelen in ours if len(frame) < wirelen]
    whole = [frame for _, frame, wirelen in ours if len(frame) == wirelen == 1442]
    assert told["stats"]["truncated"] == len(short) > 0
    assert len(whole) > 0
    assert {len(frame) for frame in short} == {256 - 66}


@pytest.mark.parametrize("method", ["ring", "recv"])
def test_an_interface_that_goes_down_or_away(tmp_path, method):
    with Lab() as lab:
        gateway, device = lab.namespace("gw"), lab.namespace("dev")
        for i, (words, reason) in enumerate(
            ((("set", "tap{}", "down"), "interface_down"), (("del", "tap{}"), "no_interface"))
        ):
            lab.veth(gateway, f"tap{i}", device, f"eth{i}")
            device.address(f"eth{i}", f"10.77.{i}.2/24")
            reader = Reader(gateway, f"tap{i}", tmp_path / "ours.pcap", method=method)
            device.run(
                "ping", "-q", "-c", "2", "-i", "0.02", "-W", "0.1", f"10.77.{i}.3", check=False
            )
            gateway.ip("link", *(word.format(i) for word in words))
            told = reader.finish()
            assert told["reason"] == reason, told
            assert told["retriable"] is True
            assert told["error"].startswith(f"tap{i}: the interface is ")
            assert told["stats"]["frames"] == len(reader.frames()) >= 1


def test_an_interface_that_is_down_at_first(tmp_path):
    with Lab() as lab:
        gateway = lab.namespace("gw")
        gateway.ip("link", "add", "br0", "type", "bridge")
        told = Reader(gateway, "br0", tmp_path / "ours.pcap").finish()
        assert told["reason"] == "interface_down"
        assert told["error"] == "br0: the interface is down: `ip link set br0 up`"


def test_no_permission_for_raw_sockets(small_ward, tmp_path):
    nobody = ("setpriv", "--bounding-set=-net_raw,-net_admin", "--")
    told = Reader(small_ward.gateway, "br0", tmp_path / "ours.pcap", *nobody).finish()
    assert told["reason"] == "permission"
    assert f"`sudo setcap cap_net_raw+ep {os.path.realpath(sys.executable)}`" in told["error"]
    assert "AmbientCapabilities=CAP_NET_RAW" in told["error"]
    assert "\n" not in told["error"]


def test_recv_where_the_ring_is_refused_and_it_says_so(small_ward, tmp_path):
    """The kernel wants slots aligned to 16 bytes."""
    gateway = small_ward.gateway
    reader = Reader(gateway, "br0", tmp_path / "ours.pcap", slot_bytes=1000)
    small_ward.devices[0].run("ping", "-q", "-c", "2", "-i", "0.02", small_ward.device_ips[1])
    told = reader.finish()
    assert (told["method"], told["fallback"]) == ("recv", "Invalid argument")
    assert told["stats"]["frames"] >= 4
    told = Reader(gateway, "br0", tmp_path / "ours.pcap", slot_bytes=1000, method="ring").finish()
    assert told["reason"] == "ring_refused"
    assert told["error"] == "br0: no packet ring from this system: Invalid argument"


def test_two_ports_of_one_bridge_count_a_frame_once(small_ward, tmp_path):
    gateway = small_ward.gateway
    readers = [
        Reader(gateway, port, tmp_path / f"{port}.pcap", placement="gateway", ignore_outgoing=True)
        for port in small_ward.ports
    ]
    small_ward.devices[0].run("ping", "-q", "-c", "20", "-i", "0.02", small_ward.device_ips[1])
    told = [reader.finish() for reader in readers]
    assert [t["bridge"] for t in told] == ["br0", "br0"]
    echoes = [
        f
        for reader in readers
        for _, f, _ in reader.frames()
        if f[23:24] == b"\x01" and f[12:14] == b"\x08\0"
    ]
    assert len(echoes) == len(set(echoes)) == 40


def test_a_frame_on_the_loopback_counts_once(small_ward, tmp_path):
    gateway = small_ward.gateway
    for placement in ("tap", "gateway"):
        reader = Reader(gateway, "lo", tmp_path / "ours.pcap", placement=placement)
        gateway.run("ping", "-q", "-c", "3", "-i", "0.02", "127.0.0.1")
        reader.finish()
        assert len(reader.frames()) == 6
