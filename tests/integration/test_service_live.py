"""`wardwatch run` on a ward in network namespaces: real nmap, hping3, mosquitto with TLS, tcpdump."""

import json
import signal
import time
from pathlib import Path

import pytest

from tests.support.certs import Authority
from tests.support.gateways import Process, detections, tls_broker, viewer, write_config
from tests.support.netns import Lab, Namespace, missing_tools, ward
from tests.support.schemas import check_event

TOOLS = missing_tools("nmap", "hping3", "mosquitto", "tcpdump", "dnsmasq")
pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(bool(TOOLS), reason=f"needs Debian's {', '.join(TOOLS)}"),
]
BROKER = "10.77.0.12"
URL = f"mqtts://{BROKER}"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


def scan(attacker: Namespace, target: str) -> None:
    attacker.run("nmap", "-n", "-Pn", "-sS", "-p1-1000", target)


def flood(attacker: Namespace, target: str) -> None:
    attacker.run(
        "hping3", "-q", "-S", "-p", "1883", "-i", "u500", "-c", "3000", target, check=False
    )


def test_gateway_finds_the_attacks_closes_them_and_says_nothing_of_itself(
    tmp_path: Path, authority: Authority
):
    """The broker stands in the ward: every alert crosses the interface that is watched."""
    with Lab() as lab:
        place = ward(lab, devices=3)
        attacker, host, _ = place.devices
        broker = tls_broker(tmp_path / "broker", host, BROKER, authority)
        broker.start()
        try:
            view = viewer(host, tmp_path, URL, authority)
            config = write_config(
                tmp_path, interface="br0", placement="gateway", url=URL, authority=authority
            )
            agent = Process(place.gateway, tmp_path, "run", "run", "--config", config)
            agent.wait_for(lambda: "listening on br0 by ring" in agent.said())
            view.wait_for(lambda: "SUBACK to wardwatch-alerts" in broker.log())
            scan(attacker, place.device_ips[2])
            flood(attacker, place.device_ips[2])
            agent.wait_for(lambda: len(set(detections(view.lines()))) >= 2)
            agent.wait_for(lambda: len(detections(view.lines(), "Close")) >= 2, timeout_s=40)
            assert agent.stop() == 0, agent.said()
            view.stop()
        finally:
            broker.stop()
    events = view.lines()
    assert set(detections(events)) == {"port_scan", "tcp_syn_flood"}
    assert sorted(detections(events, "Close")) == sorted(detections(events))
    sequences = [event["metadata"]["sequence"] for event in events]
    assert sorted(sequences) == list(range(1, len(events) + 1))
    for event in events:
        text = json.dumps(event)
        assert "10.77.0" not in text  # pseudonyms only
        check_event(event)
        assert event["metadata"]["transmit_time"] >= event["metadata"]["logged_time"]
        assert event["unmapped"]["wardwatch"]["traffic"]["dropped_frames"] == 0
    assert "gap" not in view.said()
    assert "Traceback" not in agent.said()


def test_tap_finds_the_scan_with_the_broker_away_and_sends_no_frame(
    tmp_path: Path, authority: Authority
):
    """A mirror port: no address, nothing sent. The broker is reached by another cable, and comes late."""
    with Lab() as lab:
        place = ward(lab, devices=2)
        place.gateway.ip("link", "set", "br0", "type", "bridge", "ageing_time", "0")  # a hub
        sensor, hospital = lab.namespace("tap"), lab.namespace("hospital")
        lab.veth(place.gateway, "v-tap", sensor, "tap0")
        place.gateway.ip("link", "set", "v-tap", "master", "br0")
        lab.veth(hospital, "eth0", sensor, "up0")
        sensor.address("up0", "10.78.0.2/24")
        hospital.address("eth0", "10.78.0.1/24")
        url = "mqtts://10.78.0.1"
        broker = tls_broker(tmp_path / "broker", hospital, "10.78.0.1", authority)
        config = write_config(
            tmp_path, interface="tap0", placement="tap", url=url, authority=authority, quiet_s=300
        )
        agent = Process(sensor, tmp_path, "run", "run", "--config", config)
        agent.wait_for(lambda: "listening on tap0" in agent.said())
        agent.wait_for(lambda: "Connection refused" in agent.said())
        scan(place.devices[0], place.device_ips[1])
        agent.wait_for(lambda: "create medium port_scan" in agent.said())
        agent.popen.send_signal(signal.SIGSTOP)  # so that the subscriber is there first
        broker.start()
        try:
            view = viewer(hospital, tmp_path, url, authority, "--topic", "wardwatch/#")
            view.wait_for(lambda: "SUBACK to wardwatch-alerts" in broker.log())
            agent.popen.send_signal(signal.SIGCONT)
            agent.wait_for(lambda: detections(view.lines()), timeout_s=60)
            assert agent.stop() == 0
            agent_events = [line for line in agent.said().splitlines() if "finding " in line]
            deadline_s = time.monotonic() + 10
            while len(view.lines()) < len(agent_events) and time.monotonic() < deadline_s:
                time.sleep(0.1)
            view.stop()
        finally:
            broker.stop()
        assert sensor.counter("tap0", "rx_packets") > 2000
        assert sensor.counter("tap0", "tx_packets") == 0
    events = view.lines()
    assert detections(events) == ["port_scan"]
    assert [event["metadata"]["sequence"] for event in events] == list(range(1, len(events) + 1))


def test_no_packet_leaves_but_to_the_broker_and_for_its_name(tmp_path: Path, authority: Authority):
    """Captured in the gateway's namespace, with `CI` unset, from before the start to after the stop."""
    with Lab() as lab:
        place = ward(lab, devices=2)
        name_server, host = place.devices
        resolver = Path("/etc/netns") / place.gateway.name
        resolver.mkdir(parents=True)
        try:
            (resolver / "resolv.conf").write_text(f"nameserver {place.device_ips[0]}\n")
            name_server.popen(
                "dnsmasq", "--keep-in-foreground", "--no-resolv", "--no-hosts", "--conf-file=/dev/null",
                f"--address=/broker.ward.test/{BROKER}", f"--pid-file={tmp_path / 'dns.pid'}",
            )  # fmt: skip
            broker = tls_broker(tmp_path / "broker", host, BROKER, authority)
            broker.start()
            wire = tmp_path / "wire.txt"
            with wire.open("wb") as out:
                dump = place.gateway.popen(
                    "tcpdump", "-i", "br0", "-nn", "-l", "-q", "-Q", "out", "not igmp", stdout=out
                )
                config = write_config(
                    tmp_path,
                    interface="br0",
                    placement="gateway",
                    url="mqtts://broker.ward.test",
                    authority=authority,
                )
                time.sleep(1)
                agent = Process(place.gateway, tmp_path, "run", "run", "--config", config)
                view = viewer(
                    host,
                    tmp_path,
                    URL,
                    authority,
                    "--client-id",
                    "h",
                    "--topic",
                    "wardwatch/v1/+/+/+/health",
                )
                agent.wait_for(lambda: "health" in view.said(), timeout_s=30)
                assert agent.stop() == 0, agent.said()
                view.stop()
                time.sleep(0.5)
                place.gateway.stop(dump)
            broker.stop()
        finally:
            (resolver / "resolv.conf").unlink(missing_ok=True)
            resolver.rmdir()
    sent = [line for line in wire.read_text().splitlines() if " IP " in line]
    to_broker = [line for line in sent if f"> {BROKER}.8883: tcp" in line]
    to_dns = [line for line in sent if f"> {place.device_ips[0]}.53: UDP" in line]
    assert to_broker
    assert to_dns
    assert len(sent) == len(to_broker) + len(to_dns), sent


def test_an_interface_that_goes_away_and_comes_back(tmp_path: Path):
    with Lab() as lab:
        place = ward(lab, devices=2)
        config = write_config(tmp_path, interface="v-dev1", placement="tap", quiet_s=300)
        agent = Process(place.gateway, tmp_path, "run", "run", "--config", config, "--no-model")
        agent.wait_for(lambda: "listening on v-dev1" in agent.said())
        place.gateway.ip("link", "del", "v-dev1")
        agent.wait_for(lambda: "waiting for it" in agent.said())
        lab.veth(place.gateway, "v-dev1", place.devices[0], "eth0")
        place.gateway.ip("link", "set", "v-dev1", "master", "br0")
        place.devices[0].address("eth0", "10.77.0.11/24")
        agent.wait_for(lambda: agent.said().count("listening on v-dev1") == 2)
        scan(place.devices[0], place.device_ips[1])
        agent.wait_for(lambda: "create medium port_scan" in agent.said())
        assert agent.stop() == 0
    assert "Port scan" in agent.out.read_text()  # no broker: findings are on the terminal


def test_what_the_spool_kept_through_kill_9_is_sent_once_a_broker_is_configured(
    tmp_path: Path, authority: Authority
):
    with Lab() as lab:
        place = ward(lab, devices=2)
        config = write_config(tmp_path, interface="br0", placement="gateway")
        agent = Process(place.gateway, tmp_path, "run1", "run", "--config", config, "--no-model")
        agent.wait_for(lambda: "listening on br0" in agent.said())
        scan(place.devices[0], place.device_ips[1])
        agent.wait_for(lambda: "create medium port_scan" in agent.said())
        time.sleep(0.5)  # commits are grouped for at most 100 ms
        agent.popen.send_signal(signal.SIGKILL)
        agent.stop()
        broker = tls_broker(tmp_path / "broker", place.devices[1], BROKER, authority)
        broker.start()
        try:
            view = viewer(place.devices[1], tmp_path, URL, authority)
            view.wait_for(lambda: "SUBACK to wardwatch-alerts" in broker.log())
            write_config(
                tmp_path, interface="br0", placement="gateway", url=URL, authority=authority
            )
            agent = Process(
                place.gateway, tmp_path, "run2", "run", "--config", config, "--no-model"
            )
            agent.wait_for(lambda: detections(view.lines()))
            assert agent.stop() == 0
            view.stop()
        finally:
            broker.stop()
    events = view.lines()
    assert detections(events)[0] == "port_scan"
    sequences = [event["metadata"]["sequence"] for event in events]
    assert len(set(sequences)) == len(sequences)  # the numbers went on where they were
