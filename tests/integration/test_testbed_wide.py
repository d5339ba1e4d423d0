"""A wide ward, recorded for real: tshark takes its protocols for what they are; the manifest names the scan."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from converter.testbed.ledger import read_ledger
from converter.testbed.tools import missing_tools

ROOT = Path(__file__).parents[2]
PLAN = """
name = "wide"
seed = 110

[[group]]
name = "run"
runs = 1
duration_s = [35, 35]
ward = 2
benign_events = [4, 4]
events = ["vulnerability-scan", "readdress", "dhcp-renewals", "qos2-retries"]
devices = [10, 10]
load_share = 0.0
"""

pytestmark = [pytest.mark.root, pytest.mark.slow]


def run(*words: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-c", "from converter.testbed.cli import testbed; testbed()", *words],
        capture_output=True, text=True, check=False, cwd=ROOT,
    )  # fmt: skip


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    assert missing_tools() == []
    lab = tmp_path_factory.mktemp("lab")
    plan = lab / "plan.toml"
    plan.write_text(PLAN)
    done = run("record", "--plan", str(plan), "--out", str(lab), "--jobs", "1")
    assert done.returncode == 0, done.stderr
    return lab


def fields(lab: Path, display_filter: str, *names: str) -> list[list[str]]:
    words = [w for name in names for w in ("-e", name)]
    done = subprocess.run(
        ["tshark", "-n", "-r", str(lab / "wide-run00.pcap"), "-Y", display_filter, "-T", "fields", *words],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return [line.split("\t") for line in done.stdout.splitlines()]


def test_devices_speak_what_they_are_said_to(lab):
    spoken = {
        word for (line,) in fields(lab, "frame", "frame.protocols") for word in line.split(":")
    }
    assert {"mqtt", "hl7", "dicom", "snmp", "dhcp", "http", "arp"} <= spoken
    kinds = {k for (k,) in fields(lab, "hl7", "hl7.message.type")}
    assert kinds == {"ORU", "ACK"}
    assert any(k for (k,) in fields(lab, "mqtt.msgtype == 3 && mqtt.dupflag == 1", "mqtt.qos"))


def test_renewals_are_granted_and_a_moved_address_is_announced(lab):
    kinds = {k for (k,) in fields(lab, "dhcp", "dhcp.option.dhcp")}
    assert {"3", "5"} <= kinds
    assert "6" not in kinds  # no NAK
    assert fields(lab, "arp.isgratuitous == 1", "arp.src.proto_ipv4")


def test_nobody_but_the_gateway_answers_for_its_address(lab):
    manifest = json.loads((lab / "wide-run00.manifest.json").read_text())
    (gateway,) = manifest["roles"]["gateway"]
    said = fields(
        lab, f"arp.opcode == 2 && arp.src.proto_ipv4 == {gateway['ip']}", "arp.src.hw_mac"
    )
    assert {mac for (mac,) in said} == {gateway["mac"]}


def test_the_manifest_names_the_scanner_and_its_window_and_the_ledger_takes_the_run(lab):
    manifest = json.loads((lab / "wide-run00.manifest.json").read_text())
    (scanner,) = manifest["roles"]["scanner"]
    ((begin, end),) = scanner["windows"]
    syns = fields(
        lab,
        f"ip.src == {scanner['ip']} && tcp.flags.syn == 1 && tcp.flags.ack == 0",
        "frame.time_epoch",
    )
    times = [int(t.replace(".", "")) for (t,) in syns]
    assert len(times) > 50
    assert begin <= min(times) <= max(times) <= end
    ledger = lab / "ledger.jsonl"
    for _ in range(2):  # the second time it is known
        assert run("ledger", str(lab), "--ledger", str(ledger)).returncode == 0
    (line,) = read_ledger(ledger)
    assert line.frames == manifest["frames"]
    assert line.events["vulnerability-scan"] == 1
    assert {f.config for f in line.findings} == {"default", "site"}
