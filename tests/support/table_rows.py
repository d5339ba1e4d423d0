"""A `PacketTable` as one plain dict a frame, in the terms of the reference decoder."""

from dataclasses import fields

import numpy as np

from agent.records import MqttTable, PacketTable
from tests.support.reference_decoder import Frame

SIDES = ("arp", "nd", "dns", "dhcp", "tls_hello")
COLUMNS = [f.name for f in fields(Frame) if f.name not in (*SIDES, "payload")]
DTYPES = {
    "uint8": "reason family proto ttl fragment icmp_type icmp_code tls",
    "uint16": "eth_type src_port dst_port tcp_flags tcp_window",
    "int16": "vlan_id tcp_wscale",
    "uint32": "tcp_seq tcp_ack",
    "int32": "caplen wirelen ip_len tcp_mss payload_len payload_caplen segments",
    "uint64": "src_mac dst_mac src_hi src_lo dst_hi dst_lo",
    "int64": "ts_ns payload_off",
    "bool": "tcp_timestamp outgoing",
}


def rows_of(table: PacketTable, offset) -> list[dict[str, object]]:
    """One dict a frame; `payload_off` counts from the frame's first byte, as the reference has it."""
    columns = {name: getattr(table, name).tolist() for name in COLUMNS}
    rows: list[dict[str, object]] = [
        dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)
    ]
    for row, start in zip(rows, np.asarray(offset).tolist(), strict=True):
        row["payload_off"] -= start if row["payload_off"] else 0
        row.update(dict.fromkeys(SIDES))
    for side in SIDES:
        part = getattr(table, side)
        names = [f.name for f in fields(part) if f.name != "row"]
        values = [getattr(part, name).tolist() for name in names]
        assert part.row.tolist() == sorted(set(part.row.tolist()))
        for i, *of_row in zip(part.row.tolist(), *values, strict=True):
            rows[i][side] = dict(zip(names, of_row, strict=True))
    return rows


def row_of(frame: Frame) -> dict[str, object]:
    """The reference's answer in the same terms."""
    return {name: getattr(frame, name) for name in (*COLUMNS, *SIDES)}


def assert_dtypes(table: PacketTable) -> None:
    """Every column has the dtype and the length that the record says."""
    for dtype, names in DTYPES.items():
        for name in names.split():
            column = getattr(table, name)
            assert column.dtype == np.dtype(dtype), name
            assert column.shape == (len(table),), name


class NoStreams:
    """MQTT's place taken by nobody: for tests of the layers below it."""

    def decode(self, **_columns: object) -> MqttTable:
        empty = dict.fromkeys(MqttTable.__dataclass_fields__, np.empty(0, np.int64))
        return MqttTable(**empty)

    def counters(self) -> dict[str, int]:
        return {}
