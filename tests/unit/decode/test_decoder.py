"""The decoder as a whole: batches that break their contract, empty ones, counters, MQTT's part."""

from dataclasses import replace

import numpy as np
import pytest

from agent.decode.decoder import PacketDecoder
from agent.errors import DecodeError
from agent.records import LinkType
from tests.support.frames import ETHERNET_FRAMES, batch_of, eth, ip4, tcp
from tests.support.table_rows import NoStreams, assert_dtypes

FRAMES = list(ETHERNET_FRAMES.values())


@pytest.mark.parametrize("link_type", list(LinkType))
def test_an_empty_batch(link_type):
    table = PacketDecoder().decode(batch_of([], link_type))
    assert len(table) == 0
    assert_dtypes(table)
    assert len(table.mqtt.row) == 0


def test_empty_frames():
    table = PacketDecoder().decode(batch_of([b"", b""], wirelen=[60, 0]))
    assert_dtypes(table)
    assert table.wirelen.tolist() == [60, 0]


@pytest.mark.parametrize(
    "broken",
    [
        {"offset": np.array([0, 100_000])},
        {"offset": np.array([-1, 0])},
        {"caplen": np.array([-1, 10], np.int32)},
        {"caplen": np.array([2_000, 10], np.int32)},
        {"wirelen": np.array([3, 10], np.int32)},
        {"offset": np.array([0])},
        {"vlan_tci": np.array([0, 0, 0], np.int32)},
        {"buffer": np.zeros(500, np.uint16)},
        {"buffer": np.zeros(500, np.uint8)[::2]},
    ],
)
def test_a_batch_that_breaks_its_contract_is_our_own_error(broken):
    batch = batch_of([bytes(60), bytes(60)])
    PacketDecoder(streams=NoStreams()).decode(batch)
    with pytest.raises(DecodeError):
        PacketDecoder(streams=NoStreams()).decode(replace(batch, **broken))


def test_counters_add_up():
    decoder = PacketDecoder(streams=NoStreams())
    for _ in range(2):
        table = decoder.decode(batch_of(FRAMES))
    counters = decoder.counters()
    assert counters["frames"] == 2 * len(FRAMES)
    assert counters["reason_ok"] == 2 * int((table.reason == 0).sum())
    assert (
        sum(n for name, n in counters.items() if name.startswith("reason_")) == counters["frames"]
    )


def test_the_share_of_encrypted_mqtt_can_be_told():
    ports = [(40000, 1883), (1883, 40000), (40000, 8883), (40000, 443)]
    frames = [eth(ip4(tcp(b"data", ports=pair), 6)) for pair in ports]
    decoder = PacketDecoder(mqtt_ports=frozenset({1883, 1884}))
    decoder.decode(batch_of([*frames, eth(ip4(tcp(b"", ports=(40000, 8883)), 6))]))
    counters = decoder.counters()
    assert (counters["mqtt_plain_frames"], counters["mqtt_encrypted_frames"]) == (2, 1)


def test_direction_goes_through():
    batch = batch_of(FRAMES[:2])
    assert PacketDecoder().decode(batch).outgoing.tolist() == [False, False]
    outgoing = np.array([True, False])
    assert PacketDecoder().decode(replace(batch, outgoing=outgoing)).outgoing.tolist() == [
        True,
        False,
    ]


def test_mqtt_gets_its_streams():
    """A CONNECT in one segment: its row names the frame, on whatever port it stands."""
    connect = b"\x10\x0f\x00\x04MQTT\x04\x02\x00\x3c\x00\x03abc"
    frames = [eth(b"", 0x88CC), eth(ip4(tcp(connect, ports=(40000, 1884)), 6))]
    table = PacketDecoder().decode(batch_of(frames))
    assert table.mqtt.row.tolist() == [1]
    assert table.mqtt.keep_alive_s.tolist() == [60]


def test_the_buffer_is_never_written():
    batch = batch_of(FRAMES)
    before = batch.buffer.tobytes()
    table = PacketDecoder().decode(batch)
    table.payload_len[:] = 0
    assert batch.buffer.tobytes() == before
