"""Tuning and inventory through the whole pipeline: captures, the command line, a service that runs."""

import json
import signal
from pathlib import Path
from subprocess import DEVNULL

import pytest

from agent.assembly import make_site, make_watch
from agent.config import load_config
from agent.features.schemas import SCHEMAS
from agent.replay import replay_file
from agent.score.baseline import BaselineDetector, Settings
from tests.support.gateways import Process, write_config
from tests.support.netns import Lab, missing_tools, ward
from tests.support.ward_frames import (
    MORNING,
    SECOND,
    Host,
    chat,
    ping_all,
    port_scan,
    write_pcap,
)

SCANNER, PUMP, MONITOR = (
    Host(0x001122000050, "10.0.0.50"),
    Host(0x001122000007, "10.0.0.7"),
    Host(0x001122000009, "10.0.0.9"),
)
GATEWAY, THIEF = Host(0x001122000001, "10.0.0.1"), Host(0x001122000066, "10.0.0.50")
SITE = '[site]\nname = "s"\nward = "w"\ngateway = "g"\nstate_dir = "."\n'
WINDOW = (
    '[[window]]\nname = "morning"\ndays = ["wed"]\nhours = "09:00-10:00"\nzone = "Europe/Paris"\n'
)
ROLE = (
    '[[role]]\nname = "it"\nrole = "scanner"\naddress = "10.0.0.50"\n'
    'mac = ["00:11:22:00:00:50"]\nwindow = "morning"\n'
)


def replayed(folder: Path, settings: str, *parts):
    """(kind, severity) of each finding's last event; the watch; every event."""
    (folder / "agent.toml").write_text(SITE + settings)
    site = make_site(load_config(folder / "agent.toml"), no_model=True)
    watch = make_watch(site, "x")
    alerts: list = []
    path = write_pcap(folder / "x.pcap", *parts)
    replay_file(path, watch, on_alert=alerts.append, on_progress=lambda *_: None, close=True)
    return {(a.kind, a.highest_severity) for a in alerts}, watch, alerts


def uses(watch) -> dict:
    return {key: use.verdicts for key, use in watch.local.tuning.uses().items()}


# -- the scanner


def test_a_scanner_is_low_in_its_window_and_an_attacker_outside(tmp_path: Path):
    inside = port_scan(SCANNER, PUMP, at_s=600)  # 9:10 in Paris
    found, watch, alerts = replayed(tmp_path, WINDOW + ROLE, inside)
    assert found == {("port_scan", "low")}
    assert {a.extra["lowered_by"] for a in alerts} == {"it"}
    assert uses(watch)["role", "it"] == uses(watch)["window", "morning"] > 0
    outside = port_scan(SCANNER, PUMP, at_s=3700)  # 10:01
    found, watch, _ = replayed(tmp_path, WINDOW + ROLE, outside)
    assert found == {("port_scan", "medium")}
    assert uses(watch)["role", "it"] == 0


def test_who_spoofs_the_scanners_address_is_found(tmp_path: Path):
    spoofed = port_scan(THIEF, PUMP, at_s=600)
    found, _, _ = replayed(tmp_path, WINDOW + ROLE, spoofed)
    assert found == {("port_scan", "medium")}
    beside = port_scan(SCANNER, MONITOR, at_s=603)
    found, _, _ = replayed(tmp_path, WINDOW + ROLE, spoofed, beside)
    assert found == {("port_scan", "medium")}


def test_an_expired_role_and_an_expired_suppression_do_nothing(tmp_path: Path):
    past = "expires = 2023-11-15T08:05:00Z\n"
    suppress = (
        '[[suppress]]\nname = "x"\ndetection = "port_scan"\nwhere = "10.0.0.50"\n'
        f'reason = "r"\nauthor = "a"\n{past}'
    )
    found, watch, _ = replayed(
        tmp_path, WINDOW + ROLE + past + suppress, port_scan(SCANNER, PUMP, at_s=600)
    )
    assert found == {("port_scan", "medium")}
    assert set(uses(watch).values()) == {0}
    found, watch, _ = replayed(
        tmp_path, WINDOW + ROLE + past + suppress, port_scan(SCANNER, PUMP, at_s=100)
    )
    assert found == set()
    assert uses(watch)["suppress", "x"] > 0


def test_a_suppression_keeps_to_a_window(tmp_path: Path):
    suppress = (
        '[[suppress]]\nname = "x"\ndetection = "port_scan"\nwhere = "10.0.0.0/24"\n'
        'window = "morning"\nexpires = 2024-01-01T00:00:00Z\nreason = "r"\nauthor = "a"\n'
    )
    both = port_scan(SCANNER, PUMP, at_s=600), port_scan(SCANNER, PUMP, at_s=4000)
    _, watch, alerts = replayed(tmp_path, WINDOW + suppress, *both)
    (created,) = [a for a in alerts if a.activity == "create"]
    assert created.start_ns >= MORNING + 4000 * SECOND
    assert uses(watch)["suppress", "x"] > 0


# -- the NMS


def test_an_nms_that_polls_what_it_knows_is_no_sweep_and_one_that_looks_around_is(tmp_path: Path):
    nms = Host(0x001122000060, "10.0.0.60")
    role = '[[role]]\nname = "nms"\nrole = "nms"\naddress = "10.0.0.60"\n'
    dead = [f"10.1.0.{i}" for i in range(1, 31)]
    (tmp_path / "devices.csv").write_text(
        "asset_tag,address,class,criticality\n"
        + "".join(f"MON-{i},{ip},monitor,normal\n" for i, ip in enumerate(dead))
    )
    listed = 'devices_file = "devices.csv"\n'
    poll = ping_all(nms, dead, at_s=0, via=GATEWAY.mac)
    found, watch, _ = replayed(tmp_path, listed + role, poll)
    assert found == set()
    assert uses(watch)["role", "nms"] > 0
    assert replayed(tmp_path, listed, poll)[0] == {("ping_sweep", "low")}
    sweep = ping_all(nms, [f"10.2.0.{i}" for i in range(1, 31)], at_s=0, via=GATEWAY.mac)
    found, watch, _ = replayed(tmp_path, listed + role, sweep)
    assert found == {("ping_sweep", "low")}


def test_hosts_that_have_answered_an_nms_are_known(tmp_path: Path):
    nms = Host(0x001122000060, "10.0.0.60")
    role = '[[role]]\nname = "nms"\nrole = "nms"\naddress = "10.0.0.60"\n'
    hosts = [f"10.1.0.{i}" for i in range(1, 31)]
    poll = ping_all(nms, hosts, at_s=0, via=GATEWAY.mac)
    answers = [
        (ts + 1_000_000, Host(GATEWAY.mac, ip).ping(nms.ip, nms.mac, reply=True))
        for ip, (ts, _) in zip(hosts, poll, strict=True)
    ]
    outage = ping_all(nms, hosts, at_s=300, via=GATEWAY.mac)
    assert replayed(tmp_path, role, poll, answers, outage)[0] == set()
    assert replayed(tmp_path, "", poll, answers, outage)[0] == {("ping_sweep", "low")}


# -- DHCP server and gateway


def test_a_dhcp_answer_of_another_machine_is_told_where_the_site_names_its_server(tmp_path: Path):
    rogue = Host(0x001122000070, "10.0.0.70")
    role = '[[role]]\nname = "dhcp"\nrole = "dhcp_server"\naddress = "10.0.0.1"\nmac = ["00:11:22:00:00:01"]\n'
    answers = [(MORNING + SECOND, GATEWAY.dhcp_answer())]
    assert replayed(tmp_path, role, answers)[0] == set()
    false = [(MORNING + 5 * SECOND, rogue.dhcp_answer())]
    found, _, alerts = replayed(tmp_path, role, answers, false)
    assert found == {("device_anomaly", "low")}
    assert alerts[0].facts[0].feature == "dhcp_answers_not_by_server"
    stolen = [(MORNING + 5 * SECOND, Host(rogue.mac, GATEWAY.ip).dhcp_answer())]
    assert replayed(tmp_path, role, stolen)[0] == {("device_anomaly", "low")}
    assert replayed(tmp_path, "", answers, false)[0] == set()


def test_one_claim_to_the_gateways_address_is_enough_where_the_site_names_it(tmp_path: Path):
    macs = '["00:11:22:00:00:01", "00:11:22:00:00:02"]'
    role = f'[[role]]\nname = "gw"\nrole = "gateway"\naddress = "10.0.0.1"\nmac = {macs}\n'
    ordinary = chat(PUMP, GATEWAY, seconds=range(5))
    spare = Host(0x001122000002, GATEWAY.ip)
    failover = [(MORNING + 6 * SECOND, spare.arp(1, GATEWAY.ip))]
    assert replayed(tmp_path, role, ordinary, failover)[0] == set()
    thief = Host(0x001122000066, GATEWAY.ip)
    claim = [(MORNING + 6 * SECOND, thief.arp(2, PUMP.ip, to=PUMP.mac))]
    found, _, alerts = replayed(tmp_path, role, ordinary, claim)
    assert found == {("arp_spoofing", "high")}
    assert alerts[0].facts[0].feature == "claims_to_gateway"


# -- new devices


def test_a_new_device_is_a_low_finding_only_where_the_site_wants_it(tmp_path: Path):
    talk = chat(PUMP, MONITOR, seconds=range(0, 60, 5))
    late = chat(SCANNER, MONITOR, seconds=range(7200, 7260, 5))
    wanted = "[inventory]\nnew_device_finding = true\nsettle_h = 1\n"
    assert replayed(tmp_path, "", talk, late)[0] == set()
    found, _, alerts = replayed(tmp_path, wanted, talk, late)
    assert found == {("device_anomaly", "low")}
    (created,) = [a for a in alerts if a.activity == "create"]
    assert created.attacker.lo == SCANNER.mac
    assert created.facts[0].feature == "new_device"
    (tmp_path / "devices.csv").write_text(
        "asset_tag,address,class,criticality\nSCAN-1,00:11:22:00:00:50,scanner,low\n"
    )
    listed = 'devices_file = "devices.csv"\n' + wanted
    assert replayed(tmp_path, listed, talk, late)[0] == set()


# -- approvals, with a baseline that has learned


@pytest.mark.parametrize(
    ("approval", "told"),
    [
        ("", True),
        ('peer = "10.0.0.50"\nport = [443]\n', False),
        ('peer = "10.0.0.50"\n', False),
        ('peer = "10.0.0.51"\n', True),
        ('peer = "10.0.0.50"\nport = [80]\n', True),
    ],
)
def test_a_peer_that_is_approved_is_no_anomaly(tmp_path: Path, approval: str, *, told: bool):
    settings = SITE
    if approval:
        settings += (
            '[[approve]]\nname = "update"\ndevice = "10.0.0.7"\nreason = "r"\nauthor = "a"\n'
            + approval
        )
    (tmp_path / "agent.toml").write_text(settings)
    site = make_site(load_config(tmp_path / "agent.toml"), no_model=True)
    baseline = BaselineDetector(SCHEMAS["ip-1"], Settings().compressed(150))
    watch = make_watch(site, "x", baseline=baseline)
    updates = [
        (MORNING + s * SECOND + 300_000_000, PUMP.say(SCANNER, (5001, 443)))
        for s in range(250, 280)
    ]
    path = write_pcap(tmp_path / "x.pcap", chat(PUMP, MONITOR, seconds=range(300)), updates)
    alerts: list = []
    replay_file(path, watch, on_alert=alerts.append, on_progress=lambda *_: None)
    about_pump = [a for a in alerts if a.kind == "device_anomaly" and a.victim.lo & 0xFF == 7]
    assert bool(about_pump) is told
    assert (uses(watch).get(("approve", "update"), 0) > 0) is not told


# -- the command line


@pytest.fixture
def settings(tmp_path: Path) -> Path:
    file = tmp_path / "agent.toml"
    file.write_text(SITE)
    return file


def test_entries_are_added_listed_and_removed(wardwatch, settings: Path):
    def tune(*words):
        status, out, err = wardwatch("tune", *words, "--config", settings)
        assert status == 0, err
        return out

    tune("window", "night", "--days", "sat,sun", "--hours", "22:00-04:00", "--zone", "Europe/Paris")
    tune(
        "role",
        "it",
        "scanner",
        "--address",
        "10.0.0.5",
        "--mac",
        "00:11:22:00:00:05",
        "--window",
        "night",
    )
    tune(
        "approve",
        "ok",
        "--device",
        "PUMP-07",
        "--peer",
        "10.0.0.9",
        "--port",
        "443",
        "--reason",
        "r",
    )
    tune(
        "suppress",
        "x",
        "--detection",
        "ping_sweep",
        "--where",
        "10.0.0.0/8",
        "--for",
        "30d",
        "--reason",
        "r",
    )
    rows = [json.loads(line) for line in tune("list", "--json").splitlines()]
    assert [(row["kind"], row["name"], row["expired"]) for row in rows] == [
        ("suppress", "x", False), ("window", "night", False), ("role", "it", False), ("approve", "ok", False)
    ]  # fmt: skip
    assert all(row["author"] and row["verdicts_total"] == 0 for row in rows)
    assert "sat,sun 22:00-04:00 Europe/Paris" in tune("list")
    site = make_site(load_config(settings), no_model=True)
    assert [role.name for role in site.rules.roles] == ["it"]
    tune("remove", "suppress", "x")
    assert '"name": "x"' not in tune("list", "--json")


GOOD = ["--detection", "ping_sweep", "--where", "10.0.0.0/8", "--reason", "r"]


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["suppress", "x", *GOOD], 1, "suppress.x.expires: missing"),
        (["suppress", "x", *GOOD, "--for", "soon"], 2, "expected 30m, 12h, 30d or 4w"),
        (["suppress", "x", *GOOD, "--for", "1d", "--expires", "2100-01-01T00:00:00Z"], 2, "give one"),
        (["suppress", "x", *GOOD, "--expires", "2020-01-01T00:00:00Z"], 1, "suppress.x.expires: is past"),
        (["suppress", "x", *GOOD, "--expires", "tomorrow"], 1, "suppress.x.expires: "),
        (["suppress", "a b", *GOOD, "--for", "1d"], 1, "suppress.a b.name: expected letters"),
        (["suppress", "x", "--detection", "prot", *GOOD[2:], "--for", "1d"], 1, "suppress.x.detection: no such"),
        (["suppress", "x", *GOOD, "--for", "1d", "--window", "w"], 1, 'suppress.x.window: no such window: "w"'),
        (["role", "r", "scanner", "--address", "10.0.0.5"], 1, "role.r.window: missing"),
        (["role", "r", "gateway", "--address", "10.0.0.5"], 1, "role.r.mac: missing"),
        (["role", "r", "king", "--address", "10.0.0.5"], 2, "king"),
        (["role", "r", "nms", "--address", "pump"], 1, 'role.r.address: "pump" is no IP address'),
        (["role", "r", "nms", "--address", "10.0.0.5", "--mac", "x"], 1, 'role.r.mac[0]: "x" is no MAC'),
        (["window", "w"], 1, "window.w: says no time"),
        (["window", "w", "--days", "son"], 1, 'window.w.days[0]: expected one of "mon"'),
        (["window", "w", "--days", "sun", "--zone", "Mars/Base"], 1, "window.w.zone: "),
        (["window", "w", "--starts", "2100-01-01T00:00:00Z"], 1, "window.w.ends: missing"),
        (["window", "w", "--hours", "25:00-26:00"], 1, "window.w.hours: expected two times of day"),
        (["approve", "a", "--device", "P", "--reason", "r"], 1, "approve.a.peer: set a peer or a port"),
        (["approve", "a", "--device", "P", "--port", "0", "--reason", "r"], 1, "approve.a.port[0]: "),
        (["remove", "role", "none"], 1, "role.none: no such entry"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_one_line_with_its_path_and_changes_nothing(
    wardwatch, settings: Path, words, status, said
):
    code, out, err = wardwatch("tune", *words, "--config", settings)
    assert (code, out) == (status, "")
    assert said in err.splitlines()[-1]
    assert not (settings.parent / "tuning.json").exists()


def test_what_stands_in_the_settings_is_taken_out_there(wardwatch, settings: Path):
    settings.write_text(SITE + WINDOW + ROLE)
    for kind, name in (("role", "it"), ("window", "morning")):
        status, _, err = wardwatch("tune", "remove", kind, name, "--config", settings)
        assert status == 1
        assert "take it out there" in err
    status, _, err = wardwatch("tune", "window", "morning", "--days", "mon", "--config", settings)
    assert (status, err.startswith("wardwatch: window.morning.name: ")) == (1, True)


def test_a_broken_file_of_commands_silences_nothing_and_is_said(wardwatch, settings: Path):
    (settings.parent / "tuning.json").write_text('{"role": [{"name": "x"}]}')
    site = make_site(load_config(settings), no_model=True)
    assert "role[0].role: missing" in site.tuning.problem
    assert site.rules.roles == ()
    listen = '[[source]]\nname = "a"\nkind = "ip"\ninterface = "lo"\n'
    settings.write_text(SITE + listen)
    for command in (["tune", "list"], ["run", "--check", "--no-model"]):
        status, _, err = wardwatch(*command, "--config", settings)
        assert status == 1
        assert err.count("\n") == 1
        assert "role[0].role: missing" in err
    path = write_pcap(settings.parent / "x.pcap", port_scan(SCANNER, PUMP, at_s=0))
    status, out, err = wardwatch("replay", "--no-model", "--config", settings, path)
    assert (status, "port_scan" in out) == (0, True)
    assert "what commands have tuned is left out" in err


def test_a_role_is_bound_to_the_mac_that_the_inventory_knows(wardwatch, settings: Path):
    talk = write_pcap(settings.parent / "x.pcap", chat(PUMP, MONITOR, seconds=range(0, 30, 3)), [
        (MORNING + s * SECOND, PUMP.arp(1, MONITOR.ip)) for s in (1, 20)
    ])  # fmt: skip
    status, out, _ = wardwatch("devices", talk, "--json")
    assert status == 0
    rows = [json.loads(line) for line in out.splitlines()]
    tree = {"schema": "wardwatch.inventory.v1", "began_ms": 1, "devices": rows}
    (settings.parent / "inventory.json").write_text(json.dumps(tree))
    status, _, err = wardwatch(
        "tune", "role", "n", "nms", "--address", PUMP.ip, "--config", settings
    )
    assert (status, "bound to 00:11:22:00:00:07" in err) == (0, True)
    (role,) = make_site(load_config(settings), no_model=True).rules.roles
    assert role.macs == {PUMP.mac}


def test_devices_say_what_the_site_knows_of_them(wardwatch, settings: Path, tmp_path: Path):
    (tmp_path / "devices.csv").write_text(
        "asset_tag,address,class,criticality\nPUMP-07,00:11:22:00:00:07,infusion_pump,critical\n"
        "MON-1,10.0.0.9,patient_monitor,normal\n"
    )
    settings.write_text(SITE + 'devices_file = "devices.csv"\n')
    local = Host(0x021122000008, "10.0.0.8")
    path = write_pcap(
        tmp_path / "x.pcap",
        chat(PUMP, MONITOR, seconds=range(0, 30, 3)),
        chat(local, MONITOR, seconds=range(0, 30, 3)),
    )
    status, out, _ = wardwatch("devices", path, "--config", settings, "--json")
    assert status == 0
    rows = {row["device"]: row for row in map(json.loads, out.splitlines())}
    assert rows["00:11:22:00:00:07"]["asset_tag"] == "PUMP-07"
    assert rows["00:11:22:00:00:09"]["class"] == "patient_monitor"
    assert rows["02:11:22:00:00:08"]["vendor"] == "(locally administered)"
    assert rows["02:11:22:00:00:08"]["locally_administered"] is True
    assert rows["02:11:22:00:00:08"]["asset_tag"] is None
    _, out, _ = wardwatch("devices", path, "--config", settings)
    assert "PUMP-07" in out
    status, _, err = wardwatch("devices", "--config", settings)
    assert (status, "no inventory yet" in err) == (1, True)
    assert wardwatch("devices")[0] == 2


# -- a service that runs


@pytest.mark.root
@pytest.mark.skipif(bool(missing_tools("nmap")), reason="needs Debian's nmap")
def test_a_running_service_takes_changes_up_and_keeps_its_inventory(tmp_path: Path, wardwatch):
    with Lab() as lab:
        place = ward(lab, devices=2)
        attacker, _ = place.devices
        config = write_config(tmp_path, interface="br0", placement="gateway")
        run = ("run", "--no-model", "--config", config)
        agent = Process(place.gateway, tmp_path, "run", *run)
        agent.wait_for(lambda: "listening on br0" in agent.said())
        pings = attacker.popen("ping", "-q", "-c", "14", place.device_ips[1], stdout=DEVNULL)
        status, _, err = wardwatch(
            "tune", "suppress", "lab", "--detection", "*", "--where", "10.77.0.0/24", "--for", "1h",
            "--reason", "lab", "--config", config,
        )  # fmt: skip
        assert status == 0, err
        agent.wait_for(lambda: "tuning: 1 entries in force" in agent.said())
        assert "tuning: suppress lab is in force: lab (" in agent.said()
        attacker.run("nmap", "-n", "-Pn", "-sS", "-p1-300", place.device_ips[1])
        assert pings.wait(30) == 0
        assert "finding " not in agent.said()
        config.write_text(config.read_text() + "[[rol]]\n")
        agent.popen.send_signal(signal.SIGHUP)
        agent.wait_for(lambda: "rol: unknown key" in agent.said())
        assert wardwatch("tune", "remove", "suppress", "lab", "--config", config)[0] == 1
        config.write_text(config.read_text().replace("[[rol]]\n", ""))
        uses_before = agent.said()
        agent.popen.send_signal(signal.SIGHUP)
        agent.wait_for(lambda: agent.said().count("in force") > uses_before.count("in force"))
        assert agent.stop() == 0
        _, out, _ = wardwatch("tune", "list", "--json", "--config", config)
        (row,) = map(json.loads, out.splitlines())
        assert row["verdicts_total"] > 0
        assert row["findings_total"] > 0
        assert row["last_used_ms"]
        status, out, _ = wardwatch("devices", "--json", "--config", config)
        assert status == 0
        addresses = {
            h["address"] for line in out.splitlines() for h in json.loads(line)["addresses"]
        }
        assert set(place.device_ips) <= addresses
        assert wardwatch("tune", "remove", "suppress", "lab", "--config", config)[0] == 0
        agent = Process(place.gateway, tmp_path / "again", "run", *run)
        agent.wait_for(lambda: "listening on br0" in agent.said())
        attacker.run("nmap", "-n", "-Pn", "-sS", "-p1-300", place.device_ips[1])
        agent.wait_for(lambda: "create medium port_scan" in agent.said())
        assert agent.stop() == 0
        again = [
            json.loads(line)
            for line in wardwatch("devices", "--json", "--config", config)[1].splitlines()
        ]
        first = {row["device"]: row["first_seen_ms"] for row in map(json.loads, out.splitlines())}
        assert {row["device"]: row["first_seen_ms"] for row in again}.items() >= first.items()
