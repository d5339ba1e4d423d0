"""The book of devices: who gets in, who does not, what is known, and that it outlives a restart."""

import json
from pathlib import Path

import numpy as np
import pytest

from agent.inventory.devices import DeviceTable, Known
from agent.inventory.sightings import Sightings
from agent.inventory.vendors import FOLDER, LOCAL, Vendors
from agent.inventory_file import InventoryFile, tree_of
from agent.records import MAC_HI, Endpoint, TlsRecord
from tests.support.packet_tables import ACK, SYN, Packet, S, arp, cut, halves, table_of, tcp, udp

PUMP, BROKER, ROUTER = 0x000A37000007, 0x00A037000001, 0x3C5AB4000001
GROUP = 0x01005E0000FB
PUMP_IP, BROKER_IP = "10.0.0.7", "10.0.0.1"


def talk(second: float, *, mac: int = PUMP, ip: str = PUMP_IP, **more):
    """A packet to the broker and its answer."""
    ts = round(second * S)
    return [
        tcp(ts, ip, BROKER_IP, 40_000, 1883, src_mac=mac, dst_mac=BROKER, **more),
        tcp(ts + 1000, BROKER_IP, ip, 1883, 40_000, src_mac=BROKER, dst_mac=mac),
    ]


def seen(*batches, sightings: Sightings | None = None) -> Sightings:
    sightings = sightings or Sightings()
    for batch in batches:
        sightings.add(table_of(sorted(batch, key=lambda p: p.ts)))
    return sightings


def devices(sightings: Sightings) -> dict[str, dict]:
    return {row["device"]: row for row in tree_of(sightings, wall_offset_ns=0)["devices"]}


PUMP_NAME, BROKER_NAME = "00:0a:37:00:00:07", "00:a0:37:00:00:01"


def test_a_device_counts_once_it_goes_on_being_answered():
    sightings = seen(talk(0), talk(1), talk(5))
    assert devices(sightings) == {}
    seen(talk(12), talk(25), sightings=sightings)
    assert set(devices(sightings)) == {PUMP_NAME, BROKER_NAME}
    pump = devices(sightings)[PUMP_NAME]
    assert pump["first_seen_ms"] == 0
    assert pump["last_seen_ms"] == 25_000
    assert [held["address"] for held in pump["addresses"]] == [PUMP_IP]


def test_how_batches_are_cut_does_not_matter():
    packets = [p for second in range(0, 60, 3) for p in talk(second)]
    whole = table_of(packets)
    one, many = Sightings(), Sightings()
    one.add(whole)
    for start in range(0, len(packets), 7):
        many.add(cut(whole, start, min(start + 7, len(packets))))
    assert devices(one) == devices(many)
    assert set(devices(one)) == {PUMP_NAME, BROKER_NAME}


def test_a_quiet_device_counts_by_keeping_its_address_for_a_minute():
    def claims(*seconds, mac=PUMP):
        return [arp(s * S, 1, PUMP_IP, mac, BROKER_IP, dst_mac=(1 << 48) - 1) for s in seconds]

    sightings = seen(claims(0, 30, 59))
    assert devices(sightings) == {}
    seen(claims(61), sightings=sightings)
    (only,) = devices(sightings).values()
    assert only["addresses"] == [
        {"address": PUMP_IP, "first_seen_ms": 0, "last_seen_ms": 61_000, "claimed": True}
    ]
    contested = seen(*([*claims(s), *claims(s + 1, mac=ROUTER)] for s in range(0, 200, 20)))
    assert devices(contested) == {}


def test_made_up_senders_do_not_get_in_and_have_a_bound():
    rng = np.random.default_rng(1)
    sightings = Sightings()
    seen(*(talk(s) for s in range(0, 40, 5)), sightings=sightings)
    for second in range(40, 60):
        flood = [
            tcp(second * S + i, f"10.9.{i >> 8}.{i & 255}", BROKER_IP, 1, 80, SYN,
                src_mac=int(m) & ~(1 << 40), dst_mac=BROKER)
            for i, m in enumerate(rng.integers(1, 1 << 47, 3000))
        ]  # fmt: skip
        seen([*flood, *talk(second)], sightings=sightings)
    assert set(devices(sightings)) == {PUMP_NAME, BROKER_NAME}
    assert devices(sightings)[PUMP_NAME]["last_seen_ms"] >= 50_000
    counters = sightings.counters()
    assert counters["candidates"] <= sightings.table.max_candidates
    assert counters["evicted_candidates"] + counters["left_out_sightings"] > 10_000


def test_a_full_book_keeps_those_that_it_knows_longest():
    table = DeviceTable(max_devices=3, max_candidates=8)

    def known(number: int, *seconds: int) -> None:
        key = Endpoint(MAC_HI, number)
        for second in seconds:
            table.sent(key, Endpoint(0, 0xFFFF_0A00_0000 | number), second * S, 1)
            table.got(key, second * S)

    known(1, 0, 500, 1000)
    known(2, 0, 900)
    for crowd in range(10, 20):
        known(crowd, 1000 + crowd, 1010 + crowd)
    assert {key.lo for key in table.devices} >= {1, 2}
    assert len(table.devices) == 3
    assert table.n_evicted_devices == 9
    assert table.holder(Endpoint(0, 0xFFFF_0A00_0000 | 10)) is None


def test_those_of_an_earlier_run_are_the_older_ones():
    table = DeviceTable(max_devices=2, max_candidates=8)
    for number in (1, 2):
        key = Endpoint(MAC_HI, number)
        table.restore(Known(key, 0, 0, first_ms=1000, last_ms=2000))
    for crowd in range(10, 14):
        for second in (0, 10):
            table.sent(Endpoint(MAC_HI, crowd), Endpoint(0, crowd), second * S, 1)
            table.got(Endpoint(MAC_HI, crowd), second * S)
    assert len(table.devices) == 2
    assert Endpoint(MAC_HI, 2) in table.devices


def test_candidates_are_forgotten_by_how_long_they_are_silent():
    table = DeviceTable(max_candidates=2)
    for number in (1, 2, 1, 3):
        table.sent(Endpoint(MAC_HI, number), Endpoint(0, number), number, 1)
    assert {key.lo for key in table.candidates} == {1, 3}
    assert table.n_evicted_candidates == 1


def test_protocols_are_what_the_decoder_saw_and_ports_what_was_accepted():
    connect = {"packet_type": 1, "to_server": True}
    connack = {"packet_type": 2, "to_server": False}
    batches = []
    for second in (0, 12, 24):
        ts = second * S
        batches.append(
            [
                tcp(ts, PUMP_IP, BROKER_IP, 40_000, 1883, SYN, src_mac=PUMP, dst_mac=BROKER),
                tcp(ts + 1, BROKER_IP, PUMP_IP, 1883, 40_000, SYN | ACK, src_mac=BROKER, dst_mac=PUMP),
                tcp(ts + 2, PUMP_IP, BROKER_IP, 40_000, 1883, mqtt=[connect], src_mac=PUMP, dst_mac=BROKER),
                tcp(ts + 3, BROKER_IP, PUMP_IP, 1883, 40_000, mqtt=[connack], src_mac=BROKER, dst_mac=PUMP),
                tcp(ts + 4, PUMP_IP, BROKER_IP, 4, 443, tls=TlsRecord.CLIENT_HELLO, src_mac=PUMP, dst_mac=BROKER),
                udp(ts + 5, PUMP_IP, "224.0.0.251", 5353, 5353, dns={"response": False}, src_mac=PUMP, dst_mac=GROUP),
                udp(ts + 6, PUMP_IP, BROKER_IP, 68, 67, dhcp={"op": 1}, src_mac=PUMP, dst_mac=BROKER),
                arp(ts + 7, 1, PUMP_IP, PUMP, BROKER_IP, dst_mac=BROKER),
            ]
        )  # fmt: skip
    book = devices(seen(*batches))
    assert set(book[PUMP_NAME]["protocols"]) == {
        "arp", "ipv4", "tcp", "udp", "mdns", "dhcp_client", "tls_client", "mqtt_client"
    }  # fmt: skip
    assert set(book[BROKER_NAME]["protocols"]) == {"ipv4", "tcp", "mqtt_broker"}
    assert book[BROKER_NAME]["serves_tcp_ports"] == [1883]
    assert book[PUMP_NAME]["uses_tcp_ports"] == [1883]
    assert "01:00:5e:00:00:fb" not in book


def test_a_port_that_is_only_asked_for_is_no_service():
    probe = [
        tcp(s * S + p, PUMP_IP, BROKER_IP, 1, p, SYN, src_mac=PUMP, dst_mac=BROKER)
        for s in (0, 12, 24)
        for p in range(1, 50)
    ]
    book = devices(seen([*probe, *talk(1), *talk(13), *talk(25)]))
    assert book[BROKER_NAME]["serves_tcp_ports"] == []


def test_addresses_are_kept_with_their_time_and_a_router_is_told_by_what_it_carries():
    moved = [talk(s) for s in (0, 15)] + [talk(s, ip="10.0.0.8") for s in (30, 45)]
    book = devices(seen(*moved))
    assert {h["address"]: (h["first_seen_ms"], h["last_seen_ms"]) for h in book[PUMP_NAME]["addresses"]} == {
        PUMP_IP: (0, 15_000),
        "10.0.0.8": (30_000, 45_000),
    }  # fmt: skip
    behind = [talk(s, mac=ROUTER, ip=f"192.168.{s}.5") for s in range(40)]
    own = [[arp(s * S, 1, "10.0.0.254", ROUTER, BROKER_IP, dst_mac=BROKER)] for s in (0, 39)]
    router = devices(seen(*behind, *own))["3c:5a:b4:00:00:01"]
    assert router["router"]
    assert [held["address"] for held in router["addresses"]] == ["10.0.0.254"]


def test_a_link_without_macs_has_its_hosts_by_address():
    packets = [
        p
        for s in (0, 12, 24)
        for p in (
            tcp(s * S, PUMP_IP, BROKER_IP, 4, 1883),
            tcp(s * S + 1, BROKER_IP, PUMP_IP, 1883, 4),
        )
    ]
    assert set(devices(seen(packets))) == {PUMP_IP, BROKER_IP}


def test_a_clock_that_was_set_back_does_not_stop_it():
    sightings = seen(*(talk(s) for s in (1000, 1015)))
    seen(*(talk(s, mac=ROUTER, ip="10.0.0.9") for s in (0, 15, 30)), sightings=sightings)
    assert "3c:5a:b4:00:00:01" in devices(sightings)


# -- on disk


def test_the_inventory_outlives_a_restart_and_the_clock_that_is_set_meanwhile(tmp_path: Path):
    hour = 3600 * S
    file = InventoryFile(tmp_path)
    first = seen(*(talk(s) for s in (0, 15, 30)))
    seen(*(talk(s, mac=ROUTER, ip="10.0.0.9") for s in (40, 55, 70)), sightings=first)
    file.save(first, wall_offset_ns=1000 * hour)
    again = Sightings()
    file = InventoryFile(tmp_path)
    file.load(again)  # another boot: event time begins anew
    assert file.problem is None
    assert file.began_ms == 1000 * 3_600_000
    seen(*(talk(s, ip="10.0.0.8") for s in (0, 15)), sightings=again)
    file.save(again, wall_offset_ns=3000 * hour)
    tree = json.loads((tmp_path / "inventory.json").read_text())
    pump = next(row for row in tree["devices"] if row["device"] == PUMP_NAME)
    gone = next(row for row in tree["devices"] if row["device"] == "3c:5a:b4:00:00:01")
    assert gone["last_seen_ms"] == gone["addresses"][0]["last_seen_ms"] == 1000 * 3_600_000 + 70_000
    assert pump["first_seen_ms"] == 1000 * 3_600_000
    assert pump["last_seen_ms"] == 3000 * 3_600_000 + 15_000
    assert [held["address"] for held in pump["addresses"]] == [PUMP_IP, "10.0.0.8"]
    assert (tmp_path / "inventory.json").stat().st_mode & 0o777 == 0o600


BROKEN = {
    "not JSON": b"{",
    "binary": b"\xff\x00",
    "a list": b"[]",
    "another schema": b'{"schema": "x", "devices": []}',
    "no times": b'{"schema": "wardwatch.inventory.v1", "began_ms": 1, "devices": [{"device": "02:00:00:00:00:01"}]}',
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_file_that_cannot_be_read_is_set_aside_and_said(tmp_path: Path, name: str):
    (tmp_path / "inventory.json").write_bytes(BROKEN[name])
    sightings, file = Sightings(), InventoryFile(tmp_path)
    file.load(sightings)
    assert "set aside as inventory.json.corrupt-1" in file.problem
    assert "\n" not in file.problem
    assert (tmp_path / "inventory.json.corrupt-1").read_bytes() == BROKEN[name]
    assert devices(sightings) == {}


def test_a_disk_that_takes_nothing_is_said_and_nothing_breaks(tmp_path: Path):
    file = InventoryFile(tmp_path / "none")
    sightings = seen(*(talk(s) for s in (0, 15, 30)))
    file.save_if_due(sightings, now_s=0.0, wall_offset_ns=0)
    assert "cannot be written" in file.problem


def test_it_is_written_soon_after_a_device_came_and_else_seldom(tmp_path: Path):
    path = tmp_path / "inventory.json"
    file, sightings = InventoryFile(tmp_path), seen(*(talk(s) for s in (0, 15, 30)))
    file.save_if_due(sightings, now_s=0.0, wall_offset_ns=0)
    before = path.read_bytes()
    seen(talk(60), sightings=sightings)
    file.save_if_due(sightings, now_s=60.0, wall_offset_ns=0)
    assert path.read_bytes() == before
    seen(*(talk(s, mac=ROUTER, ip="10.0.0.9") for s in (70, 85)), sightings=sightings)
    file.save_if_due(sightings, now_s=80.0, wall_offset_ns=0)
    assert path.read_bytes() != before


# -- vendors


def test_the_smallest_block_that_holds_an_address_names_the_vendor(tmp_path: Path):
    head = "Registry,Assignment,Organization Name,Organization Address\n"
    (tmp_path / "oui.csv").write_text(head + 'MA-L,000A37,"Big, Inc.",x\nMA-L,70B3D5,IEEE,x\n')
    (tmp_path / "oui36.csv").write_text(head + "MA-S,70B3D5F2F,Small Ltd,x\n")
    vendors = Vendors(tmp_path)
    assert vendors.problem is None
    assert vendors.of(PUMP) == "Big, Inc."
    assert vendors.of(0x70B3D5F2F001) == "Small Ltd"
    assert vendors.of(0x70B3D5000001) == "IEEE"
    assert vendors.of(0x020A37000001) == LOCAL
    assert vendors.of(0xFCFFFF000001) == ""


def test_without_the_lists_no_vendor_is_known_and_how_to_get_them_is_said(tmp_path: Path):
    vendors = Vendors(tmp_path)
    assert vendors.of(PUMP) == ""
    assert "apt-get install ieee-data" in vendors.problem


def test_a_machine_that_only_sends_is_not_in_the_book():
    packets = [
        Packet(ts=s * S, src=PUMP_IP, dst=BROKER_IP, src_mac=PUMP, dst_mac=BROKER)
        for s in range(100)
    ]
    assert devices(seen(packets)) == {}
    assert seen(packets).knows(Endpoint(*halves(PUMP_IP))) is False


@pytest.mark.skipif(not FOLDER.is_dir(), reason="needs Debian's ieee-data")
def test_the_lists_that_debian_ships_are_read():
    vendors = Vendors()
    assert vendors.of(0x00000C123456).startswith("Cisco")
    assert vendors.of(0x70B3D5F2F001) not in {"", vendors.of(0x70B3D5000001)}
