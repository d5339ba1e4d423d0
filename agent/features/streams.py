"""MQTT control packets and address claims of a segment, added to the open slices.

Streams, not packets: a frame may carry many control packets or none, and claims are judged one by one
against what came before (`agent.features.claims`). All sums are of whole numbers below 2^53.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from agent.features.claims import ANNOUNCEMENT, CONTRADICTION, TWO_WAY, UNASKED, ClaimBook
from agent.features.frames import ASK, CLAIM, Claims
from agent.features.hosts import HostTable, Slots
from agent.features.ip_schema import MQTT_CLASSES
from agent.features.links import MAC_BITS
from agent.features.slices import CLAIMS_AT, MQTT_AT, MQTT_SUMS, OpenSlice, Segment, edges
from agent.records import MqttTable, MqttType

if TYPE_CHECKING:
    from agent.records import I64, U8

_MQTT_LUT: U8 = np.zeros(256, np.uint8)
for _type, _name in (
    (MqttType.CONNECT, "mqtt_connect"),
    (MqttType.CONNACK, "mqtt_connack"),
    (MqttType.PUBLISH, "mqtt_publish"),
    (MqttType.SUBSCRIBE, "mqtt_subscribe"),
    (MqttType.PINGREQ, "mqtt_ping"),
    (MqttType.PINGRESP, "mqtt_ping"),
    (MqttType.DISCONNECT, "mqtt_disconnect"),
):
    _MQTT_LUT[_type] = MQTT_CLASSES.index(_name)


def add_mqtt(segment: Segment, mqtt: MqttTable, hosts: HostTable) -> None:
    """MQTT control packets, for the host that sent them and the one that received them."""
    a, b = np.searchsorted(mqtt.row, (segment.start, segment.stop))
    if a == b:
        return
    row = mqtt.row[a:b] - segment.start
    count = mqtt.count[a:b].astype(np.int64)
    kind = _MQTT_LUT[mqtt.packet_type[a:b]]
    code = mqtt.code[a:b]
    refused = (kind == MQTT_CLASSES.index("mqtt_connack")) & (code > 0)
    kind = np.where(refused, np.uint8(MQTT_CLASSES.index("mqtt_refused")), kind)
    delivered = (kind == MQTT_CLASSES.index("mqtt_publish")) & ~mqtt.to_server[a:b]
    kind[delivered] = MQTT_CLASSES.index("mqtt_delivered")
    subscribes = kind == MQTT_CLASSES.index("mqtt_subscribe")
    kind[subscribes & mqtt.wildcard[a:b]] = MQTT_CLASSES.index("mqtt_wildcard")
    publish = kind == MQTT_CLASSES.index("mqtt_publish")
    length = np.maximum(mqtt.remaining_len[a:b], 0)
    extra = np.empty((4, len(row)), np.int64)
    extra[0] = edges(row)
    extra[1] = length * count * publish
    extra[2] = count * (publish & (mqtt.flags[a:b] & 8 != 0))
    extra[3] = count * (mqtt.violation[a:b] != 0)
    connects = np.flatnonzero(kind == MQTT_CLASSES.index("mqtt_connect"))
    keep_alive = np.maximum(mqtt.keep_alive_s[a:b][connects], 0)
    bit = segment.bit[row]
    for side, column in enumerate((segment.src, segment.dst)):
        slot = column[row]
        for number, target in enumerate(segment.slices):
            chosen = (slot < hosts.max_hosts) & (bit == number)
            if not chosen.any():
                continue
            all_chosen = bool(chosen.all())
            pick = slice(None) if all_chosen else chosen
            _add_mqtt(target, side, slot[pick], kind[pick], count[pick], extra[:, pick])
            wanted = chosen[connects]
            np.maximum.at(target.maxes[side, :, 2], slot[connects][wanted], keep_alive[wanted])


def _add_mqtt(
    target: OpenSlice, side: int, slot: Slots, kind: NDArray[np.uint8], count: I64, extra: I64
) -> None:
    """One side, one slice: bincount by host."""
    mark = np.zeros(len(target.active), np.int64)
    mark[slot] = 1
    here = np.flatnonzero(mark)
    mark[here] = np.arange(len(here))
    at = mark[slot]
    n = len(here)
    width = len(MQTT_CLASSES)
    part = np.empty((n, len(MQTT_SUMS)), np.int64)
    part[:, :width] = np.bincount(at * width + kind, weights=count, minlength=n * width).reshape(
        n, width
    )
    for i, column in enumerate(extra):
        part[:, width + i] = np.bincount(at, weights=column, minlength=n) if column.any() else 0
    target.sums[side, here, MQTT_AT : MQTT_AT + len(MQTT_SUMS)] += part


def add_claims(segment: Segment, claims: Claims, book: ClaimBook, hosts: HostTable) -> None:
    """ARP and ND, frame by frame; left-out frames (no host on either side) teach nothing."""
    a, b = np.searchsorted(claims.row, (segment.start, segment.stop))
    if a == b:
        return
    row = claims.row[a:b] - segment.start
    src, dst, bit = segment.src[row], segment.dst[row], segment.bit[row]
    halves = zip(
        segment.clock[row].tolist(),
        claims.op[a:b].tolist(),
        claims.mac[a:b].tolist(),
        claims.sender_hi[a:b].tolist(),
        claims.sender_lo[a:b].tolist(),
        claims.target_hi[a:b].tolist(),
        claims.target_lo[a:b].tolist(),
        ((src == hosts.none) & (dst == hosts.none)).tolist(),
        strict=True,
    )
    see = {ASK: book.ask, CLAIM: book.claim}
    flags = np.array(
        [
            0 if outside else see[op](clock, s_hi << 64 | s_lo, mac, t_hi << 64 | t_lo)
            for clock, op, mac, s_hi, s_lo, t_hi, t_lo, outside in halves
        ]
    )
    sender = (src < hosts.max_hosts) & ((claims.sender_hi[a:b] | claims.sender_lo[a:b]) != 0)
    codes = src << MAC_BITS | claims.mac[a:b].astype(np.int64)
    for number, target in enumerate(segment.slices):
        mine = sender & (bit == number)
        target.claimed += codes[mine].tolist()
        rival = mine & (flags & (CONTRADICTION | TWO_WAY) != 0)
        target.rivals.update(zip(src[rival].tolist(), claims.mac[a:b][rival].tolist(), strict=True))
        for i, flag in enumerate((UNASKED, CONTRADICTION, TWO_WAY, ANNOUNCEMENT)):
            flagged = (flags & flag != 0) & (bit == number)
            if flagged.any():
                for side, slot in enumerate((src[flagged], dst[flagged])):
                    np.add.at(target.sums[side, :, CLAIMS_AT + i], slot[slot < hosts.max_hosts], 1)
