"""Benign events that look bad and the attacks that look like them, as small captures through the whole pipeline."""

import struct

import pytest

from agent.records import V4_MAPPED_LO, Endpoint
from tests.support.mqtt_packets import connect, publish
from tests.support.replays import Replayed, replayed
from tests.support.ward_frames import (
    MORNING,
    SECOND,
    Host,
    chat,
    ethernet,
    ipv4,
    port_scan,
    write_pcap,
)

ACTIVE, STANDBY = Host(0x02_00_00_00_00_01, "10.1.0.100"), Host(0x02_00_00_00_00_02, "10.1.0.100")
FORGER = Host(0x02_00_00_00_00_66, "10.1.0.66")
BEDS = [Host(0x02_00_00_00_01_00 + i, f"10.1.0.{10 + i}") for i in range(12)]
BROKER = Host(0x02_00_00_00_00_0B, "10.1.0.200")


def at(seconds: float) -> int:
    return MORNING + round(seconds * SECOND)


def asks(who: Host, whom: Host, *, at_s: float) -> list[tuple[int, bytes]]:
    """A request of its address, and the answer to it."""
    answer = whom.arp(2, who.ip, to=who.mac)
    return [(at(at_s), who.arp(1, whom.ip)), (at(at_s) + 300_000, answer)]


def serving(who: Host, *, seconds: range) -> list[tuple[int, bytes]]:
    """A server that asks for each bed and speaks with all of them."""
    out = []
    for i, bed in enumerate(BEDS):
        out += asks(who, bed, at_s=seconds[0] + 0.3 + i * 0.1)
        out += chat(who, bed, seconds=seconds)
    return out


def moves_to(who: Host, *, at_s: float) -> list[tuple[int, bytes]]:
    """Five announcements, a fifth of a second apart, as a cluster's manager sends them."""
    return [(at(at_s + i / 5), who.arp(1, who.ip)) for i in range(5)]


def spoofing(tmp_path, *parts, no_model=True) -> Replayed:
    return replayed(write_pcap(tmp_path / "ward.pcap", *parts), no_model=no_model)


@pytest.mark.parametrize("no_model", [False, True], ids=["model and rules", "rules alone"])
def test_an_address_that_moves_to_another_machine_is_no_attack(tmp_path, no_model):
    moved = (
        serving(ACTIVE, seconds=range(20)),
        moves_to(STANDBY, at_s=21),
        serving(STANDBY, seconds=range(22, 50)),
    )
    assert not spoofing(tmp_path, *moved, no_model=no_model).above_low()


def test_an_address_that_moves_there_and_back_is_no_attack(tmp_path):
    moved = (
        serving(ACTIVE, seconds=range(20)),
        moves_to(STANDBY, at_s=20),
        [(at(20.5), ACTIVE.say(BEDS[0], (6000, 5000)))],  # on its way when the other took over
        serving(STANDBY, seconds=range(21, 40)),
        moves_to(ACTIVE, at_s=40),
        serving(ACTIVE, seconds=range(41, 60)),
    )
    assert "arp_spoofing" not in spoofing(tmp_path, *moved).worst


def test_a_second_holder_beside_a_living_one_is_spoofing(tmp_path):
    """Announcements alone, told to everybody: the address's own machine goes on sending."""
    forged = [(at(21 + i), FORGER.arp(1, ACTIVE.ip, sender=ACTIVE.ip)) for i in range(15)]
    found = spoofing(tmp_path, serving(ACTIVE, seconds=range(40)), forged)
    assert found.worst["arp_spoofing"] == "high"
    first = next(e for e in found.events if e.kind == "arp_spoofing")
    assert first.time_ns <= at(21 + 15)
    assert first.victim == Endpoint(0, V4_MAPPED_LO | 0x0A010064)
    assert first.attacker.lo == FORGER.mac


def test_a_bed_told_again_and_again_unasked_is_spoofing_though_the_holder_is_silent(tmp_path):
    told = [
        (at(21 + i), FORGER.arp(2, BEDS[0].ip, to=BEDS[0].mac, sender=ACTIVE.ip)) for i in range(12)
    ]
    found = spoofing(tmp_path, serving(ACTIVE, seconds=range(20)), told)
    assert found.worst["arp_spoofing"] == "high"
    assert next(e for e in found.events if e.kind == "arp_spoofing").time_ns <= at(21 + 15)


def test_who_puts_caches_right_again_is_not_accused_a_second_time(tmp_path):
    """As arpspoof does when it is stopped: what is unasked, and true."""
    told = [
        (at(21 + i), FORGER.arp(2, BEDS[0].ip, to=BEDS[0].mac, sender=ACTIVE.ip)) for i in range(12)
    ]
    healed = [(at(33 + i), ACTIVE.arp(2, BEDS[0].ip, to=BEDS[0].mac)) for i in range(6)]
    found = spoofing(tmp_path, serving(ACTIVE, seconds=range(20)), told, healed)
    (finding,) = {e.uid: e for e in found.events}.values()
    assert finding.last_ns <= at(33)
    assert finding.attacker.lo == FORGER.mac


def publishes(who: Host, *, at_s: float, n: int, rate: float) -> list[tuple[int, bytes]]:
    """A CONNECT, then so many readings a second, a segment each."""
    out, seq = [], 1000
    for i in range(-1, n):
        data = connect("stored-1") if i < 0 else publish()
        head = struct.pack(">HHIIBBHHH", 40_000, 1883, seq, 1, 5 << 4, 0x18, 0x2000, 0, 0)
        packet = ipv4(who.ip, BROKER.ip, 6, head + data)
        out.append((at(at_s + i / rate), ethernet(who.mac, BROKER.mac, 0x0800, packet)))
        seq += len(data)
    return out


def test_what_a_device_has_stored_is_no_flood(tmp_path):
    stored = publishes(BEDS[0], at_s=5.01, n=1000, rate=1500)
    found = spoofing(tmp_path, chat(BEDS[0], BROKER, seconds=range(10)), stored)
    assert not found.worst


def test_a_client_that_does_not_stop_publishing_is_a_flood(tmp_path):
    flood = publishes(BEDS[0], at_s=5.01, n=3000, rate=500)
    found = spoofing(tmp_path, chat(BEDS[0], BROKER, seconds=range(14)), flood)
    assert found.worst["mqtt_publish_flood"] == "high"
    assert found.events[0].time_ns <= at(5 + 4)


def test_who_talks_to_a_scanned_server_is_not_blamed_for_the_scan(tmp_path):
    """The bed sends the server far more packets in each second than the scanner does."""
    server, scanner, bed = ACTIVE, FORGER, BEDS[0]
    talk = [
        (at(s + i / 100), bed.syn(server, 80) if i % 10 == 0 else bed.say(server, (5000, 6000)))
        for s in range(40)
        for i in range(100)
    ]
    scan = port_scan(scanner, server, at_s=10)
    found = spoofing(tmp_path, talk, scan, no_model=False)
    scans = [e for e in found.events if e.kind.endswith("_scan")]
    assert scans
    assert {e.attacker.lo & 0xFFFFFFFF for e in scans} == {0x0A010042}
    assert found.worst["port_scan"] == "medium"
