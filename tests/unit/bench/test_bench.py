"""Benchmarks: their traffic is what it says, their page hides no miss."""

import json
from collections import Counter

import pytest

from agent.bench import peers, record, report, run, traffic
from agent.decode.decoder import PacketDecoder
from agent.records import MqttType, Reason


@pytest.mark.parametrize("case", traffic.CASES)
def test_the_same_case_is_the_same_bytes(tmp_path, case):
    for name in ("a", "b"):
        traffic.write_capture(tmp_path / name, case, 500)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert sum(len(batch) for batch in run.walk(tmp_path / "a")) == 500


def test_mqtt_traffic_is_in_step_and_without_a_violation(tmp_path):
    traffic.write_capture(tmp_path / "mqtt", "mqtt", 2_000)
    decoder, seen = PacketDecoder(), Counter()
    for batch in run.walk(tmp_path / "mqtt"):
        table = decoder.decode(batch)
        assert (table.reason == Reason.OK).all()
        assert not table.mqtt.violation.any()
        seen.update(table.mqtt.packet_type.tolist())
    assert seen[MqttType.PUBLISH] > 1_000


@pytest.mark.parametrize("name", ["struct loop", "dpkt"])
@pytest.mark.parametrize("case", ["mixed", "mqtt", "syn"])
def test_peers_count_every_frame(tmp_path, name, case):
    traffic.write_capture(tmp_path / case, case, 300)
    assert peers.PEERS[name](tmp_path / case) == 300


def test_peers_do_the_same_work(tmp_path):
    traffic.write_capture(tmp_path / "mixed", "mixed", 3_000)
    seen = peers.Groups(), peers.Groups()
    peers.struct_loop(tmp_path / "mixed", seen[0])
    peers.dpkt_loop(tmp_path / "mixed", seen[1])
    for group in ("sources", "destinations"):
        assert getattr(seen[0], group).keys() == getattr(seen[1], group).keys()
    columns = {0: "packets", 3: "SYN", 7: "CONNECT", 8: "PUBLISH", 9: "other MQTT"}
    totals = [{c: sum(r[c] for r in g.sources.values()) for c in columns} for g in seen]
    assert totals[0] == totals[1]
    assert totals[0][8] > 0


def page(value: float) -> str:
    figure = record.figure("speed", "decode", "syn", "Mpps", [value], batch=16_384)
    row = {**figure, "machine": record.machine_facts(), "git": "abc", "bundle": "none"}
    assert json.loads(json.dumps(row)) == row
    return report.markdown([row], "wardwatch bench")


def test_a_missed_bar_is_written_as_missed_and_an_absent_one_as_absent():
    assert "met (≥ 4)" in page(4.0)
    assert "MISSED (≥ 4)" in page(3.9)
    assert page(4.0).count("ABSENT") == len(report.BARS) - 1


def test_one_crafted_frame_is_counted_to_its_last_packet():
    table = PacketDecoder().decode(run.crafted_frame())
    assert (
        int(table.mqtt.count[table.mqtt.packet_type == MqttType.PINGREQ].sum())
        == (65_000 - 16) // 2
    )
