"""A ward is recorded with real tools; its labels match what tshark sees; nothing is left behind."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from agent.errors import ConfigError
from converter.datasets.labels import read_labels
from converter.testbed.cli import testbed as cli
from converter.testbed.namespaces import PREFIX, Namespaces, clean_leftovers
from converter.testbed.plan import load_plan
from converter.testbed.schedule import expand
from converter.testbed.tools import missing_tools

ROOT = Path(__file__).parents[2]
SMOKE = ROOT / "converter" / "testbed" / "plans" / "smoke.toml"

pytestmark = pytest.mark.root


def namespaces(pid: int) -> list[str]:
    return [p.name for p in Path("/run/netns").glob(f"{PREFIX}-{pid}-*")]


def ours(mark: str) -> list[str]:
    """Processes whose environment carries the ward's mark."""
    found = []
    for p in Path("/proc").glob("[0-9]*/environ"):
        try:
            if f"WARDWATCH_WARD={mark}".encode() in p.read_bytes():
                found.append(p.parent.name)
        except OSError:  # ended meanwhile
            continue
    return found


def tshark_times(pcap: Path, display_filter: str) -> list[int]:
    done = subprocess.run(
        ["tshark", "-n", "-r", str(pcap), "-Y", display_filter, "-T", "fields", "-e", "frame.time_epoch"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return [int(s.replace(".", "")) for s in done.stdout.split()]


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """The smoke plan, recorded once."""
    assert missing_tools() == []
    out = tmp_path_factory.mktemp("lab")
    done = subprocess.run(
        [sys.executable, "-c", "from converter.testbed.cli import testbed; testbed()", "record",
         "--plan", str(SMOKE), "--out", str(out), "--jobs", "1"],
        capture_output=True, text=True, check=False, cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return out, done


def test_labels_are_what_the_capture_holds(recorded):
    out, _ = recorded
    (run,) = expand(load_plan(SMOKE))
    episodes = read_labels(out / f"{run.run}.labels.jsonl")
    assert [e.kind for e in episodes] == [s.kind for s in run.steps if s.lane == "attack"]
    shapes = {
        "port_scan": "tcp && ip.dst==",
        "tcp_syn_flood": "tcp.flags.syn==1 && tcp.flags.ack==0 && ipv6.dst==",
    }
    assert {e.kind for e in episodes} == set(shapes)
    for e in episodes:
        seen = tshark_times(
            out / f"{run.run}.pcap",
            f"eth.src=={e.attacker_macs[0]} && {shapes[e.kind]}{e.victims[0]}",
        )
        during = [t for t in seen if e.start_ns <= t <= e.end_ns]
        assert len(during) == e.frames >= 100
        assert during[0] == e.start_ns
        assert during[-1] == e.end_ns


def test_the_manifest_says_what_was_recorded_and_that_no_frame_was_lost(recorded):
    out, _ = recorded
    manifest = json.loads((out / "smoke-run00.manifest.json").read_text())
    assert manifest["dropped"] == 0
    assert manifest["unseen"] == []
    assert manifest["frames"] == len(tshark_times(out / "smoke-run00.pcap", "frame"))
    assert manifest["placement"] == "bridge"
    assert {"nmap", "tcpdump", "mosquitto"} <= set(manifest["tools"])


def test_a_ward_speaks_mqtt_dns_http_arp_and_ipv6(recorded):
    out, _ = recorded
    done = subprocess.run(
        ["tshark", "-n", "-r", str(out / "smoke-run00.pcap"), "-T", "fields", "-e", "frame.protocols"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    spoken = {word for line in set(done.stdout.split()) for word in line.split(":")}
    assert {"mqtt", "dns", "http", "json", "arp", "icmpv6", "ipv6", "udp"} <= spoken


def test_recording_again_skips_the_finished_run(recorded):
    out, _ = recorded
    before = (out / "smoke-run00.pcap").stat().st_mtime_ns
    done = CliRunner().invoke(cli, ["record", "--plan", str(SMOKE), "--out", str(out)])
    assert done.exit_code == 0
    assert "0 recorded, 1 already there" in done.output
    assert (out / "smoke-run00.pcap").stat().st_mtime_ns == before


def test_interrupted_in_the_middle_it_leaves_nothing(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", "from converter.testbed.cli import testbed; testbed()", "record",
         "--plan", str(SMOKE), "--out", str(tmp_path)],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, cwd=ROOT,
    )  # fmt: skip
    deadline = time.monotonic() + 30
    while len(ours(f"{PREFIX}-{process.pid}-")) < 12 and time.monotonic() < deadline:
        time.sleep(0.2)
    assert len(ours(f"{PREFIX}-{process.pid}-")) >= 12
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 1
    assert "stopped" in said
    assert "Traceback" not in said
    assert namespaces(process.pid) == []
    assert ours(f"{PREFIX}-{process.pid}-") == []
    assert list(Path("/etc/netns").glob(f"{PREFIX}-{process.pid}-*")) == []
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_recording_leaves_is_removed_by_the_next(tmp_path):
    dead = subprocess.Popen(["true"])
    dead.wait()
    (run,) = expand(load_plan(SMOKE))
    ward = Namespaces(run.ward, number=0, folder=tmp_path)
    ward.prefix = f"{PREFIX}-{dead.pid}-0-"
    with ward:
        left = len(namespaces(dead.pid))
        assert left == len(run.ward.hosts)
        assert sorted(clean_leftovers()) == sorted(n for n in ward.made)
    assert namespaces(dead.pid) == []


@pytest.mark.parametrize("mark", [{}, {"WARDWATCH_WARD": "set by hand"}])
def test_hostile_tools_refuse_to_run_outside_a_ward(mark):
    done = subprocess.run(
        [sys.executable, "-m", "converter.testbed.hostile", "udp_flood", "{}"],
        capture_output=True, text=True, check=False, cwd=ROOT, env={**os.environ, **mark},
    )  # fmt: skip
    assert done.returncode == 1
    assert "only inside a testbed ward" in done.stderr


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--only", "smoke-run99"], "--only: 'smoke-run99' is no run of this plan"),
        (["--seeds", "x"], "--seeds: 'x' is neither"),
        (["--budget", "soon"], "--budget: 'soon' is no duration"),
    ],
)
def test_wrong_options_are_one_line(tmp_path, options, said):
    done = CliRunner().invoke(
        cli, ["record", "--plan", str(SMOKE), "--out", str(tmp_path), *options]
    )
    assert done.exit_code == ConfigError.exit_status
    assert f"error: {said}" in done.output
    assert done.output.count("\n") == 1


def test_a_budget_of_nothing_begins_no_run(tmp_path):
    done = CliRunner().invoke(
        cli, ["record", "--plan", str(SMOKE), "--out", str(tmp_path), "--budget", "0s"]
    )
    assert done.exit_code == 1
    assert "1 left" in done.output
    assert list(tmp_path.iterdir()) == []
