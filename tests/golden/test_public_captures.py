"""Every documented detection on a real capture that nobody trained on, and silence on one without an attack.

The captures are others' (see the README beside them): read where they are, never copied.
"""

import pytest

from agent.alert.techniques import DETECTIONS
from tests.support.replays import replayed

EXPECTED = {
    "scans/hs-arpScan.pcap": "ping_sweep",
    "scans/hs-icmpScan.pcapng": "ping_sweep",
    "scans/hs-tcp_synPingSweepRand.pcapng": "ping_sweep",
    "scans/ps-tcp_syn.pcap": "port_scan",
    "scans/ps-udp.pcap": "port_scan",
    "scans/na-arpSpoofing.pcap": "arp_spoofing",
    "mqtt/flood-train.pcap": "mqtt_publish_flood",
    "mqtt/malariados-train.pcap": "mqtt_publish_flood",
    "mqtt/bruteforce-train.pcapng": "mqtt_connect_flood",
    "mqtt/slowite-train.pcap": "mqtt_connect_flood",
    "mqtt/malformed-train.pcap": "mqtt_connect_flood",
}
"""What must be found, by file; in each no finding of another group above low."""

ABSENT = {"scans/ps-tcp_syn.pcap": {"ping_sweep"}, "scans/ps-udp.pcap": {"ping_sweep"}}
"""Of the same group, but not there."""

QUIET = ("mqtt/benign-5mb-train.pcap", "mqtt/mqtt.pcap")


@pytest.mark.parametrize("no_model", [False, True], ids=["model and rules", "rules alone"])
@pytest.mark.parametrize("name", EXPECTED)
def test_an_attack_is_found_and_no_other_group_above_low(captures, name, no_model):
    found = replayed(captures / name, no_model=no_model)
    kind = EXPECTED[name]
    assert kind in found.worst
    others = {k for k in found.above_low() if DETECTIONS[k].group is not DETECTIONS[kind].group}
    assert not others
    assert not ABSENT.get(name, set()) & set(found.worst)


@pytest.mark.parametrize("no_model", [False, True], ids=["model and rules", "rules alone"])
@pytest.mark.parametrize("name", QUIET)
def test_ordinary_mqtt_raises_nothing_above_low(captures, name, no_model):
    assert not replayed(captures / name, no_model=no_model).above_low()
