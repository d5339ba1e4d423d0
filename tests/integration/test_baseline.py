"""The baseline as people meet it: the command on files, a replay that judges by it, and the running service."""

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from agent.assembly import ensure_site_key, make_site
from agent.baseline_store import file_of
from agent.capture.capture_file import open_capture
from agent.config import load_config
from agent.decode.decoder import PacketDecoder
from agent.features.ip import HostWindows
from agent.features.ip_schema import SCHEMA
from agent.records import V4_MAPPED_LO, Endpoint
from agent.score.baseline import BaselineDetector, Settings
from agent.score.baseline_state import snapshot
from agent.service import Service
from tests.support.baselines import learned
from tests.support.frames import eth, ip4, udp
from tests.support.pcap_writer import pcap
from tests.support.schemas import ROOT, check_event, validator

SECOND_NS = 1_000_000_000
DEVICES = "asset_tag,address,class,criticality\nPUMP-07,10.0.0.7,infusion_pump,normal\n"


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """The settings of a gateway, not running."""
    (tmp_path / "devices.csv").write_text(DEVICES)
    file = tmp_path / "agent.toml"
    file.write_text(
        '[site]\nname = "s"\nward = "w"\ngateway = "g"\nstate_dir = "state"\n'
        'devices_file = "devices.csv"\n[[source]]\nname = "lo"\nkind = "ip"\ninterface = "lo"\n'
    )
    return file


@pytest.fixture
def known(site: Path) -> Path:
    """The same, where a pump and a monitor have been learned."""
    snapshot(learned()).write(file_of(site.parent / "state" / "baseline", "lo"))
    return site


def status(wardwatch, config: Path) -> dict:
    code, out, _ = wardwatch("baseline", "status", "--config", config, "--json")
    assert code == 0
    (line,) = out.splitlines()
    return json.loads(line)


def test_before_anything_is_learned_each_command_says_so(wardwatch, site: Path):
    for command in (["status"], ["freeze"], ["learn"], ["reset", "--yes"], ["export", "x.npz"]):
        code, out, err = wardwatch("baseline", *command, "--config", site)
        assert (code, out) == (1, "")
        assert "nothing is learned yet" in err


def test_status_names_the_devices_on_the_terminal(wardwatch, known: Path):
    _, out, _ = wardwatch("baseline", "status", "--config", known)
    assert "lo: active" in out
    assert "2 of 2 devices learned" in out
    assert "PUMP-07" in out
    assert "10.0.0.9" in out
    shown = status(wardwatch, known)
    assert [d["asset_tag"] for d in shown["devices"]] == ["PUMP-07", None]
    assert shown["devices"][0]["n_peers"] == 1


def test_freeze_learn_reset_and_export(wardwatch, known: Path, tmp_path: Path):
    assert wardwatch("baseline", "freeze", "--config", known)[0] == 0
    assert status(wardwatch, known)["state"] == "frozen"
    assert wardwatch("baseline", "learn", "--config", known)[0] == 0
    assert status(wardwatch, known)["state"] == "active"
    assert wardwatch("baseline", "learn", "PUMP-07", "--config", known)[0] == 0
    assert status(wardwatch, known)["devices"][0]["state"] == "accepting"
    assert wardwatch("baseline", "reset", "10.0.0.9", "--config", known)[0] == 0
    assert len(status(wardwatch, known)["devices"]) == 1
    out = tmp_path / "rows.npz"
    assert wardwatch("baseline", "export", out, "--config", known)[1] == f"{out}: 50 rows\n"
    with np.load(out) as stored:
        assert stored["values"].shape == (50, len(SCHEMA))
    assert wardwatch("baseline", "reset", "--yes", "--config", known)[0] == 0
    assert status(wardwatch, known)["state"] == "learning"


@pytest.mark.parametrize(
    ("command", "problem"),
    [
        (["learn", "10.0.0.200"], "not a device that is known"),
        (["learn", "PUMP-99"], "no asset tag"),
        (["freeze", "--source", "radio"], "no baseline of radio"),
    ],
)
def test_what_is_not_known_is_one_line(wardwatch, known: Path, command: list[str], problem: str):
    code, out, err = wardwatch("baseline", *command, "--config", known)
    assert (code, out) == (1, "")
    assert problem in err
    assert err.count("\n") == 1


# -- replay


def frame(source: int, target: int, size: int) -> bytes:
    """A UDP datagram from 192.168.1.SOURCE to 192.168.1.TARGET."""
    packet = bytearray(eth(ip4(udp(bytes(size), (5000, 6000)), 17)))
    packet[6:12] = b"\x02\x00\x00\x00\x00" + bytes([source])
    packet[26:30] = bytes([192, 168, 1, source])
    packet[30:34] = bytes([192, 168, 1, target])
    return bytes(packet)


def capture(path: Path, begin_s: int, seconds: int, talk) -> Path:
    """`talk(second)` gives the frames of each second."""
    records = []
    for second in range(seconds):
        frames = talk(second)
        for k, one in enumerate(frames):
            at_ns = (begin_s + second) * SECOND_NS + (k + 1) * 900_000_000 // (len(frames) + 1)
            records.append((at_ns, one))
    path.write_bytes(pcap(records, ns=True))
    return path


def usual(second: int) -> list[bytes]:
    return [frame(7, 250, 100)] * (3 + second % 3) + [frame(250, 7, 40)] * 2


def odd(second: int) -> list[bytes]:
    """From the tenth second on the device sends elsewhere, and much; no rule knows such a thing."""
    return usual(second) + [frame(7, 66, 900)] * (80 if second >= 10 else 0)


@pytest.fixture
def baseline_file(tmp_path: Path) -> Path:
    """What is learned from two minutes of a capture."""
    quiet = capture(tmp_path / "quiet.pcap", 1_700_000_000, 120, usual)
    detector = BaselineDetector(SCHEMA, Settings(max_devices=16).compressed(60.0))
    decoder, windows = PacketDecoder(), HostWindows()
    with open_capture(quiet) as batches:
        for batch in batches:
            detector.learn(windows.add(decoder.decode(batch)))
    detector.learn(windows.flush())
    assert detector.profiles.learned[
        detector.profiles.number_of(Endpoint(0, V4_MAPPED_LO | 0xC0A80107))
    ]
    path = tmp_path / "ward.npz"
    snapshot(detector).write(path)
    return path


def test_a_replay_judges_by_a_baseline_and_leaves_it_alone(
    wardwatch, tmp_path: Path, baseline_file: Path
):
    pcap_file = capture(tmp_path / "odd.pcap", 1_700_100_000, 40, odd)
    before = baseline_file.read_bytes()
    command = ("replay", pcap_file, "--no-model", "--json")
    assert wardwatch(*command)[1] == ""  # the control: nothing else finds it
    first = wardwatch(*command, "--baseline", baseline_file)[1]
    assert wardwatch(*command, "--baseline", baseline_file)[1] == first
    assert baseline_file.read_bytes() == before
    events = [json.loads(line) for line in first.splitlines()]
    for event in events:
        check_event(event)
    creates = [e for e in events if e["activity_name"] == "Create"]
    assert {e["metadata"]["event_code"] for e in events} == {"device_anomaly"}
    assert len(creates) <= 2  # the device, and at most whom it floods
    own = [e["unmapped"]["wardwatch"] for e in events]
    assert {severity for o in own for severity in [o["highest_severity"]]} <= {"info", "low"}
    assert "low" in {o["highest_severity"] for o in own}  # it went on for longer than three slices
    assert not any(o["distributed"] for o in own)
    assert own[0]["detectors"] == ["baseline"]
    said = " ".join(fact["words"] for o in own for fact in o["facts"])
    assert "had not talked with before" in said
    assert "192.168.1" not in first


def test_quiet_traffic_stays_quiet_in_a_replay(wardwatch, tmp_path: Path, baseline_file: Path):
    pcap_file = capture(tmp_path / "calm.pcap", 1_700_100_000, 60, usual)
    command = ("replay", pcap_file, "--no-model", "--json", "--baseline", baseline_file)
    assert wardwatch(*command)[:2] == (0, "")


def test_a_baseline_that_is_none_is_one_line(wardwatch, tmp_path: Path):
    (tmp_path / "not.npz").write_bytes(b"no")
    pcap_file = capture(tmp_path / "calm.pcap", 1_700_100_000, 2, usual)
    for name, problem in (("not.npz", "not a baseline"), ("no.npz", "no baseline there")):
        code, out, err = wardwatch("replay", pcap_file, "--baseline", tmp_path / name)
        assert (code, out) == (1, "")
        assert problem in err
        assert err.count("\n") == 1


# -- the running service


@pytest.mark.root
def test_the_service_learns_keeps_it_and_does_what_it_is_asked(site: Path):
    config = load_config(site)
    config.site.state_dir.mkdir()
    service = Service(
        config,
        make_site(config, no_model=True, site_key=ensure_site_key(config)),
        config_hash="0123456789abcdef",
    )
    stop = threading.Event()
    thread = threading.Thread(target=service.run, args=(stop,))
    thread.start()
    try:
        asked = subprocess.run(
            [sys.executable, "-m", "agent.cli", "baseline", "freeze", "--config", str(site)],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        health = service.health()
        validator(ROOT / "docs" / "schemas" / "health-1.json").validate(health)
    finally:
        stop.set()
        thread.join()
    assert asked.returncode == 0, asked.stderr
    assert "taken up by the running service" in asked.stdout
    (row,) = health["baseline"]
    assert (row["source"], row["state"], row["problem"]) == ("lo", "frozen", None)
    assert file_of(config.site.state_dir / "baseline", "lo").is_file()
    assert time.time() - file_of(config.site.state_dir / "baseline", "lo").stat().st_mtime < 60


def test_it_can_be_switched_off(site: Path, tmp_path: Path):
    site.write_text(site.read_text() + "[baseline]\nenabled = false\n")
    config = load_config(site)
    config.site.state_dir.mkdir()
    service = Service(
        config, make_site(config, no_model=True, site_key=b"k" * 32), config_hash="0" * 16
    )
    assert service.health()["baseline"] == []
    service.spool.close()
