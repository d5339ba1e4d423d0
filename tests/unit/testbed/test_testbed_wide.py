"""The wide ward: old recordings stay valid, events can happen, devices speak their protocols, the ledger adds up."""

import hashlib
import json
import socket
import threading
from pathlib import Path
from random import Random

import msgspec
import pytest

from agent.errors import ConfigError
from converter.testbed import devices, devices_clinical, wire
from converter.testbed.benign import EVENTS, RESTART_BROKER
from converter.testbed.benign_hard import HARD_EVENTS, POWER_CUT, READDRESS, SCAN, WARD2_EVENTS
from converter.testbed.layout_wide import WIDE_KINDS, draw_wide_ward
from converter.testbed.ledger import (
    Findings,
    Line,
    count_run,
    read_ledger,
    site_config,
    summary,
    write_ledger,
)
from converter.testbed.namespaces import TestbedError as LabError
from converter.testbed.plan import load_plan
from converter.testbed.record import Happened, roles
from converter.testbed.schedule import Step, expand

PLANS = Path(__file__).parents[3] / "converter" / "testbed" / "plans"

WIDE = """
name = "wide"
seed = 3

[[group]]
name = "run"
runs = 8
duration_s = [200, 200]
ward = 2
benign_events = [30, 30]
devices = [10, 14]
"""


def wide(tmp_path: Path, change: str = "") -> Path:
    path = tmp_path / "wide.toml"
    path.write_text(WIDE + change, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("plan", "digest"),
    [
        ("first", "21b7bcb92b500483"),
        ("second", "12b0a5f64916218c"),
        ("heldout", "70463b1dd7e8e429"),
    ],
)
def test_what_was_recorded_before_the_wide_ward_is_drawn_as_it_was(plan, digest):
    drawn = "".join(s.digest for s in expand(load_plan(PLANS / f"{plan}.toml")))
    assert hashlib.sha256(drawn.encode()).hexdigest()[:16] == digest


def test_a_wide_ward_has_all_ten_kinds_some_behind_the_router_and_a_scanner(tmp_path):
    seen = set()
    for spec in expand(load_plan(wide(tmp_path))):
        hosts = spec.ward.hosts
        assert len({h.ip for h in hosts}) == len({h.mac for h in hosts}) == len(hosts)
        assert {h.profile for h in hosts if h.role in {"device", "remote"}} >= set(WIDE_KINDS)
        assert len(spec.ward.of("scanner")) == 1
        assert all(h.routed for h in spec.ward.of("remote"))
        assert all(h.profile in devices.PROFILES for h in hosts if h.profile)
        seen |= {len(spec.ward.of("remote"))}
    assert seen & {1, 2}


def test_events_are_dealt_each_before_any_comes_again_and_never_the_scan_unasked(tmp_path):
    for spec in expand(load_plan(wide(tmp_path))):
        names = [s.name for s in spec.steps if s.lane == "benign"]
        assert len(names) == 30
        assert {names.count(e.name) for e in WARD2_EVENTS if e.name != SCAN} <= {1, 2}
        assert SCAN not in names
    asked = load_plan(wide(tmp_path, f'events = ["{SCAN}"]\n'))
    assert {s.name for spec in expand(asked) for s in spec.steps if s.lane == "benign"} == {SCAN}


def test_events_are_for_wide_wards_and_known(tmp_path):
    for change in ('events = ["power-cat"]\n', 'events = ["roaming"]\nward = 1\n'):
        text = WIDE.replace("ward = 2\n", "") if "ward = 1" in change else WIDE
        path = tmp_path / "plan.toml"
        path.write_text(text + change, encoding="utf-8")
        with pytest.raises(ConfigError, match=r"group\[0\]\.events"):
            load_plan(path)


@pytest.mark.parametrize("event", WARD2_EVENTS, ids=lambda e: e.name)
def test_every_event_stands_on_hosts_of_the_ward_and_asks_for_actions_that_exist(event):
    for seed in range(5):
        rng = Random(seed)
        ward = draw_wide_ward(rng, devices=6 + seed, offloads=False, tls=True, ipv6=True)
        commands = event.build(rng, ward)
        assert commands
        for c in commands:
            ward.named(c.host)
            if c.argv[0] == "{python}":
                assert json.loads(c.argv[-1])["profile"] in devices.ACTIONS
            else:
                assert c.argv[0] in {"nmap", "sh", RESTART_BROKER, POWER_CUT, READDRESS}


def test_event_names_are_unique():
    names = [e.name for e in (*EVENTS, *HARD_EVENTS)]
    assert len(set(names)) == len(names) == 24


def test_an_mllp_message_is_acknowledged_by_its_control_id_wherever_the_stream_is_cut():
    here, there = socket.socketpair()
    server = threading.Thread(target=devices_clinical._acknowledge, args=(there,))
    server.start()
    frames = devices_clinical._frames(here)
    with here:
        here.settimeout(5)
        for number in (41, 42):
            message = b"\x0b" + devices_clinical._observation(Random(1), number) + b"\x1c\r"
            for part in (message[:7], message[7:-1], message[-1:]):
                here.sendall(part)
            segments = next(frames).split(b"\r")
            assert segments[0].startswith(b"MSH|^~\\&|")
            assert segments[1] == b"MSA|AA|%d" % number
            assert b"PID|1\r" in message  # nobody is named
    server.join(5)
    assert not server.is_alive()


def test_an_image_names_nobody():
    image = devices_clinical._image(Random(1))
    assert [
        str(image[n].value or "") for n in ("PatientName", "PatientID", "PatientBirthDate")
    ] == [""] * 3
    assert len(image.PixelData) == 2 * image.Rows * image.Columns


def test_a_publish_sent_again_has_the_dup_flag_and_nothing_else_changed():
    once = wire.publish("a", b"b", qos=2, packet_id=7)
    again = wire.publish("a", b"b", qos=2, packet_id=7, dup=True)
    assert (once[0], again[0], once[1:]) == (0x34, 0x3C, again[1:])


def manifest(tmp_path: Path) -> dict:
    spec = expand(load_plan(wide(tmp_path)))[0]
    scan = Happened(
        step=Step(start_s=1, lane="benign", name=SCAN, commands=[]), began_ns=10**18,
        ended_ns=10**18 + 5 * 10**9, statuses=[0], attackers=[], attacker_macs=[],
    )  # fmt: skip
    raw = {"run": "r", "episodes": 0, "roles": roles(spec.ward, [scan, scan]), "ward": spec.ward}
    return json.loads(msgspec.json.encode(raw))


def test_the_sites_settings_name_the_scanner_with_each_window(tmp_path):
    m = manifest(tmp_path)
    config = site_config(m)
    scanners = [r for r in config.role if r.role == "scanner"]
    assert {r.role for r in config.role} == {"scanner", "nms", "dhcp_server", "gateway"}
    assert [r.address for r in scanners] == [m["roles"]["scanner"][0]["ip"]] * 2
    windows = {w.name: w for w in config.window}
    for r in scanners:
        assert r.window is not None
        assert windows[r.window].starts.timestamp() < 10**9 < windows[r.window].ends.timestamp()


def test_a_run_with_attacks_is_not_counted(tmp_path):
    with pytest.raises(LabError, match="attacks"):
        count_run(tmp_path, manifest(tmp_path) | {"episodes": 2}, None, bundle=None)


def line(run: str, n_medium: int) -> Line:
    said = Findings(
        bundle="b", config="site", told=[], counts={"low": {"ping_sweep": 2}, "high": {"port_scan": n_medium}}
    )  # fmt: skip
    return Line(
        run=run, plan="quiet", seed=1, plan_digest="d", capture_sha256=run, recorded="2026-01-01T00:00Z",
        hours=12.0, frames=9, devices={"bed": 1}, events={"roaming": 3}, findings=[said],
    )  # fmt: skip


def test_a_ledger_adds_up_over_runs(tmp_path):
    path = tmp_path / "ledger.jsonl"
    assert read_ledger(path) == []
    write_ledger(path, [line("one", 1), line("two", 0)])
    text = "\n".join(summary(read_ledger(path)))
    assert "2 runs, 24.00 gateway-hours, 18 frames" in text
    assert "roaming 6" in text
    assert "medium or above: 1, 1.00 a gateway-day [0.03, 5.57]: port_scan 1" in text
    assert "low: 4, 4.00 a gateway-day" in text
    path.write_text("{}\n")
    with pytest.raises(LabError, match="not a ledger"):
        read_ledger(path)
