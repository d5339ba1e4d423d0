"""The service on the loopback interface: health, status, watchdog, the site's key, a clean stop."""

import json
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from agent.assembly import DeviceBook, ensure_site_key, make_site
from agent.config import Config, load_config
from agent.errors import ConfigError
from agent.features.ip import HostWindows
from agent.notify import Supervisor
from agent.records import MAC_HI, Device, Endpoint
from agent.service import Service
from agent.uplink.mqtt import Broker
from tests.support.brokers import Mosquitto, Subscriber, running
from tests.support.packet_tables import S, halves, table_of, tcp
from tests.support.schemas import ROOT, validator


def settings(folder: Path, url: str = "", more: str = "") -> Config:
    file = folder / "agent.toml"
    file.write_text(
        f'[site]\nname = "s"\nward = "w"\ngateway = "g"\nstate_dir = "{folder}"\n{more}'
        f'[[source]]\nname = "lo"\nkind = "ip"\ninterface = "lo"\n[uplink]\nurl = "{url}"\n'
    )
    return load_config(file)


@pytest.mark.root
def test_health_and_status_are_as_published(tmp_path: Path):
    with running(Mosquitto(tmp_path / "broker")) as mosquitto:
        me = Broker(host="127.0.0.1", port=mosquitto.port, client_id="security", tls=False)
        subscriber = Subscriber(me)
        config = settings(tmp_path, f"mqtt://127.0.0.1:{mosquitto.port}")
        site = make_site(config, no_model=True, site_key=ensure_site_key(config))
        service = Service(config, site, config_hash="0123456789abcdef")
        stop = threading.Event()
        thread = threading.Thread(target=service.run, args=(stop,))
        thread.start()
        subscriber.wait_for(1, topic="health")
        stop.set()
        thread.join()
        subscriber.wait_for(2, topic="status")
        subscriber.close()
    (health,) = subscriber.json("health")
    validator(ROOT / "docs" / "schemas" / "health-1.json").validate(health)
    (source,) = health["sources"]
    assert source["state"] == "running"
    assert source["own_frames_total"] > 0  # the broker is on the loopback interface, too
    assert health["uplink"]["state"] == "connected"
    assert health["tuning"] == {"problem": None, "n_entries": 0, "n_expired": 0, "entries": []}
    assert health["inventory"]["problem"] is None
    for status in subscriber.json("status"):
        validator(ROOT / "docs" / "schemas" / "status-1.json").validate(status)
    assert [status.get("reason") for status in subscriber.json("status")] == [None, "shutdown"]
    for listing in subscriber.json("/open"):
        validator(ROOT / "docs" / "schemas" / "open-1.json").validate(listing)
    assert not any("/alert/" in topic for topic, _ in subscriber.messages)


@pytest.mark.root
def test_systemd_hears_that_it_is_ready_that_it_lives_and_that_it_stops(tmp_path: Path):
    settings(tmp_path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as supervisor:
        supervisor.bind(str(tmp_path / "notify"))
        supervisor.settimeout(20)
        agent = subprocess.Popen(
            [sys.executable, "-m", "agent.cli", "run", "--no-model", "--config", tmp_path / "agent.toml"],
            cwd=ROOT,
            env={**os.environ, "NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "1500000"},
            stderr=subprocess.DEVNULL,
        )  # fmt: skip
        heard = [supervisor.recv(1000).decode() for _ in range(3)]
        agent.terminate()
        assert agent.wait(30) == 0
        heard += [supervisor.recv(1000).decode()]
    assert heard[0].startswith("READY=1\n")
    assert heard[1:3] == ["WATCHDOG=1"] * 2
    assert heard[-1] in {"STOPPING=1", "WATCHDOG=1"}


def test_without_a_supervisor_nothing_is_said_and_nothing_breaks(tmp_path: Path):
    Supervisor("", "").say("READY=1")
    Supervisor(str(tmp_path / "nobody"), "x").say("READY=1")
    assert Supervisor("", "2000000").watchdog_s == 2.0


def test_the_sites_key_is_made_once_and_only_for_us(tmp_path: Path):
    config = settings(tmp_path)
    key = ensure_site_key(config)
    assert len(key) == 32
    assert ensure_site_key(config) == key
    file = tmp_path / "site.key"
    assert file.stat().st_mode & 0o777 == 0o600
    file.chmod(0o644)
    with pytest.raises(ConfigError, match="others can read it"):
        ensure_site_key(config)
    file.chmod(0o600)
    file.write_bytes(b"short")
    with pytest.raises(ConfigError, match="5 bytes, expected 32 or more"):
        ensure_site_key(config)


def test_a_state_folder_that_is_not_there_is_named(tmp_path: Path):
    config = settings(tmp_path / ".", more="")
    nowhere = Config(
        site=type(config.site)(name="s", ward="w", gateway="g", state_dir=tmp_path / "none")
    )
    with pytest.raises(ConfigError, match="make the folder") as caught:
        ensure_site_key(nowhere)
    assert caught.value.path == "site.state_dir"


def test_a_device_listed_by_its_mac_is_known_by_the_addresses_it_uses():
    pump = Device(asset_tag="PUMP-07", device_class="infusion_pump", criticality="critical")
    book = DeviceBook({Endpoint(MAC_HI, 0x020000000007): pump})
    windows = HostWindows()
    pump_frame = tcp(S, "10.0.0.7", "10.0.0.1", 1000, 1883, src_mac=0x020000000007, dst_mac=0x02)
    windows.add(table_of([pump_frame]))
    address = Endpoint(*halves("10.0.0.7"))
    assert book(address) is None
    book.learn(windows.flush())
    assert book(address) == pump
    assert book(Endpoint(*halves("10.0.0.1"))) is None


def test_suppressions_of_the_settings_reach_the_policy(tmp_path: Path):
    config = settings(tmp_path)
    text = (tmp_path / "agent.toml").read_text() + (
        '[[suppress]]\nname = "it-scan"\ndetection = "port_scan"\nwhere = "10.0.0.0/8"\n'
        'expires = 2100-01-01T00:00:00Z\ndaily = "22:00-06:30"\nreason = "r"\nauthor = "a"\n'
    )
    (tmp_path / "agent.toml").write_text(text)
    config = load_config(tmp_path / "agent.toml")
    (row,) = make_site(config, no_model=True).suppressions
    assert row.daily_s == (22 * 3600, 6 * 3600 + 1800)
    assert row.expires_s == 4_102_444_800
    wrong = text.replace("port_scan", "port_skan")
    (tmp_path / "agent.toml").write_text(wrong)
    with pytest.raises(ConfigError, match="port_skan"):
        make_site(load_config(tmp_path / "agent.toml"), no_model=True)


def test_status_payloads_are_json(tmp_path: Path):
    """The Last Will is made when the connection begins: it names that connection."""
    config = settings(tmp_path, "mqtt://127.0.0.1:1")
    service = Service(
        config, make_site(config, no_model=True, site_key=b"k" * 32), config_hash="0123456789abcdef"
    )
    voice = service._voice()
    will = json.loads(voice.lost(7))
    assert (will["online"], will["reason"], will["connect_seq"]) == (False, "lost", 7)
    assert abs(will["ts_ms"] / 1000 - time.time()) < 60
    service.spool.close()
