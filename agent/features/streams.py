"""MQTT control packets and address claims of a piece, added to the open slices.

Streams, not packets: a frame may carry many control packets or none, and claims are judged one by one
against what came before (`agent.features.claims`). All sums are of whole numbers below 2^53.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from agent.features.claims import ANNOUNCEMENT, CONTRADICTION, TWO_WAY, UNASKED, ClaimBook
from agent.features.classes import MQTT_CLASSES
from agent.features.frames import Claims
from agent.features.hosts import HostTable
from agent.features.links import MAC_BITS, MAC_MASK
from agent.features.slices import (
    CLAIM_SUMS,
    MQTT_KINDS,
    MQTT_MAXES,
    MQTT_SUMS,
    Piece,
    add_classes,
)
from agent.features.sums import SLICE_SHIFT, KeyedSums, Rows, edges, sorted_keys
from agent.records import MqttTable, MqttType

if TYPE_CHECKING:
    from agent.records import I64, U8

_KIND = {name: np.uint8(i) for i, name in enumerate(MQTT_CLASSES)}
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
    _MQTT_LUT[_type] = _KIND[_name]

_FLAGS = (UNASKED, CONTRADICTION, TWO_WAY, ANNOUNCEMENT)
"""In the order of CLAIM_SUMS."""


def _keys(piece: Piece, row: I64, max_hosts: int) -> tuple[I64, NDArray[np.intp]]:
    """Keys in the sums for both sides of the frames `row`; and for each, which of them it is."""
    base = piece.base + piece.number[row] << SLICE_SHIFT
    keys, which = [], []
    for side, column in enumerate((piece.src, piece.dst)):
        slot = column[row]
        at = np.flatnonzero(slot < max_hosts)
        keys.append((base | slot << 1 | side)[at])
        which.append(at)
    return np.concatenate(keys), np.concatenate(which)


def _grouped(keys: I64) -> tuple[I64, NDArray[np.intp]]:
    """The keys there are, ascending; and for each of `keys` its place among them."""
    low = int(keys.min())
    here = sorted_keys(keys, low)
    at_key = np.empty(int(here[-1]) - low + 1, np.intp)  # at most 32 slices x 2^14
    at_key[here - low] = np.arange(len(here))
    return here, at_key[keys - low]


def _kinds(mqtt: MqttTable, window: slice) -> U8:
    """Of each control packet its class."""
    kind = _MQTT_LUT[mqtt.packet_type[window]]
    kind[(kind == _KIND["mqtt_connack"]) & (mqtt.code[window] > 0)] = _KIND["mqtt_refused"]
    kind[(kind == _KIND["mqtt_publish"]) & ~mqtt.to_server[window]] = _KIND["mqtt_delivered"]
    kind[(kind == _KIND["mqtt_subscribe"]) & mqtt.wildcard[window]] = _KIND["mqtt_wildcard"]
    return kind


def add_mqtt(piece: Piece, mqtt: MqttTable, hosts: HostTable, sums: KeyedSums) -> None:
    """MQTT control packets, for the host that sent them and the one that received them."""
    a, b = np.searchsorted(mqtt.row, (piece.start, piece.stop))
    if a == b:
        return
    window = slice(int(a), int(b))
    row = mqtt.row[window] - piece.start
    keys, which = _keys(piece, row, hosts.max_hosts)
    if not len(keys):
        return
    here, at = _grouped(keys)
    count = mqtt.count[window].astype(np.int64)
    kind = _kinds(mqtt, window)
    published = count * (kind == _KIND["mqtt_publish"])
    n = len(here)
    part = np.zeros((len(MQTT_SUMS), n + 1), np.int64)
    part_rows = part[:, :n]
    counts = np.bincount(
        kind[which] * np.int64(n) + at, weights=count[which], minlength=n * len(MQTT_CLASSES)
    )
    add_classes(counts.reshape(len(MQTT_CLASSES), n), MQTT_KINDS, part_rows)
    extra = (
        edges(row),
        np.maximum(mqtt.remaining_len[window], 0) * published,
        published * (mqtt.flags[window] & 8 != 0),
        count * (mqtt.violation[window] != 0),
    )
    for i, column in enumerate(extra, start=len(MQTT_KINDS)):
        if column.any():
            part_rows[i] = np.bincount(at, weights=column[which], minlength=n)
    maxes = np.zeros((len(MQTT_MAXES), n + 1), np.int64)
    connects = np.flatnonzero((kind == _KIND["mqtt_connect"])[which])
    np.maximum.at(maxes[0], at[connects], mqtt.keep_alive_s[window][which[connects]])
    sums.add(Rows(here, part, maxes, np.zeros(n, np.uint64)))


class ClaimedSlices:
    """Claims of the open slices: which MACs claimed which host, and which of them are rivals."""

    def __init__(self, max_codes: int) -> None:
        """At most `max_codes` a slice, the first seen stay."""
        self.sums = KeyedSums(len(CLAIM_SUMS), 0)
        self._max_codes = max_codes
        self._claimed: dict[int, set[int]] = {}
        self._rivals: dict[int, dict[int, int]] = {}

    def add(self, numbers: list[int], codes: list[int], rival: list[bool]) -> None:
        """Of each claim, in frame order, its slice, `slot << 48 | MAC`, and whether the MAC is a rival."""
        for number, code, is_rival in zip(numbers, codes, rival, strict=True):
            claimed = self._claimed.setdefault(number, set())
            if len(claimed) < self._max_codes:
                claimed.add(code)
            if is_rival:
                self._rivals.setdefault(number, {})[code >> MAC_BITS] = code & MAC_MASK

    def take(self, slice_no: int) -> tuple[I64, dict[int, int]]:
        """Remove and return what a slice has: its codes (ascending, unique) and rivals."""
        codes = np.array(sorted(self._claimed.pop(slice_no, ())), np.int64)
        return codes, self._rivals.pop(slice_no, {})


def add_claims(
    piece: Piece, claims: Claims, book: ClaimBook, hosts: HostTable, into: ClaimedSlices
) -> None:
    """ARP and ND, frame by frame; left-out frames (no host on either side) teach nothing."""
    a, b = np.searchsorted(claims.row, (piece.start, piece.stop))
    if a == b:
        return
    window = slice(int(a), int(b))
    row = claims.row[window] - piece.start
    src = piece.src[row]
    inside = np.flatnonzero((src != hosts.none) | (piece.dst[row] != hosts.none))
    window_rows = inside + int(a)
    row, src = row[inside], src[inside]
    mac = claims.mac[window_rows]
    flags = np.array(
        book.judge(
            piece.clock[row].tolist(),
            claims.op[window_rows].tolist(),
            mac.tolist(),
            _whole(claims.sender_hi[window_rows], claims.sender_lo[window_rows]),
            _whole(claims.target_hi[window_rows], claims.target_lo[window_rows]),
        ),
        np.int64,
    )
    named = (claims.sender_hi[window_rows] | claims.sender_lo[window_rows]) != 0
    mine = np.flatnonzero(named & (src < hosts.max_hosts))
    into.add(
        (piece.base + piece.number[row[mine]]).tolist(),
        (src[mine] << MAC_BITS | mac[mine].astype(np.int64)).tolist(),
        (flags[mine] & (CONTRADICTION | TWO_WAY) != 0).tolist(),
    )
    flagged = np.flatnonzero(flags)
    if not len(flagged):
        return
    keys, which = _keys(piece, row[flagged], hosts.max_hosts)
    if not len(keys):
        return
    here, at = _grouped(keys)
    n = len(here)
    part = np.zeros((len(CLAIM_SUMS), n + 1), np.int64)
    told = flags[flagged][which]
    for to, flag in zip(part, _FLAGS, strict=True):
        to[:n] = np.bincount(at[told & flag != 0], minlength=n)
    none = np.zeros((0, n + 1), np.int64)
    into.sums.add(Rows(here, part, none, np.zeros(n, np.uint64)))


def _whole(hi: NDArray[np.uint64], lo: NDArray[np.uint64]) -> list[int]:
    """Addresses as 128-bit integers."""
    if not hi.any():
        small: list[int] = lo.tolist()
        return small
    return [h << 64 | low for h, low in zip(hi.tolist(), lo.tolist(), strict=True)]
