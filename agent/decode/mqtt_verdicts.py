"""What a control packet's first byte breaks of the protocol, given the version and who sent it: one table.

It never looks at a length, a body or a flow; `mqtt_fields` judges those.

In: first bytes, levels and directions, (n,). Out: `MqttViolation`, (n,). Raises: nothing. Remembers: nothing.

Source: MQTT 3.1.1 2.2.1, 2.2.2, 3.3.1 / MQTT 5.0 2.1.2, 2.1.3, 3.3.1; DUP with QoS 0 3.3.1.1 (3.1: only QoS 1 of
PUBREL, SUBSCRIBE, UNSUBSCRIBE, DUP allowed, 2.1); AUTH and DISCONNECT by the server are of 5 only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from agent.decode.mqtt_header import REQUIRED_FLAGS_2
from agent.records import MqttType, MqttViolation

if TYPE_CHECKING:
    from agent.records import U8, BoolArray

_UNKNOWN, _V3, _V311, _V5 = range(4)
_VERSION = np.full(256, _V5, np.uint16)
"""By protocol level, whose rules hold: what is not 3 and below 5 is judged as 4, what is above 5 as 5."""
_VERSION[:5] = _UNKNOWN, _V311, _V311, _V3, _V311
_CLIENT_ONLY = frozenset(
    (MqttType.CONNECT, MqttType.SUBSCRIBE, MqttType.UNSUBSCRIBE, MqttType.PINGREQ)
)
_SERVER_ONLY = frozenset((MqttType.CONNACK, MqttType.SUBACK, MqttType.UNSUBACK, MqttType.PINGRESP))


def _verdict(version: int, first: int, *, to_server: bool) -> MqttViolation:
    """The first violation; where the version is not known, only what every version forbids."""
    kind, flags = first >> 4, first & 15
    old, strict = version in {_V3, _V311}, version in {_V311, _V5}
    if kind == MqttType.RESERVED or (kind == MqttType.AUTH and old):
        return MqttViolation.RESERVED_TYPE
    if kind == MqttType.PUBLISH:
        if flags & 6 == 6:
            return MqttViolation.QOS
        wrong = strict and flags & 14 == 8
    elif kind in REQUIRED_FLAGS_2:
        wrong = flags != 2 if strict else flags & 6 != 2
    else:
        wrong = strict and flags != 0
    if wrong:
        return MqttViolation.FLAGS
    backward = kind in (_SERVER_ONLY if to_server else _CLIENT_ONLY)
    backward |= kind == MqttType.DISCONNECT and old and not to_server
    return MqttViolation.WRONG_DIRECTION if backward else MqttViolation.NONE


_TABLE = np.array(
    [
        _verdict(version, first, to_server=to_server)
        for to_server in (False, True)
        for version in (_UNKNOWN, _V3, _V311, _V5)
        for first in range(256)
    ],
    np.uint8,
)


def judge_first_bytes(first: U8, level: U8, to_server: BoolArray) -> U8:
    """What the first byte of each packet breaks; `level` 0: not known."""
    index = _VERSION.take(level)
    index |= to_server.view(np.uint8) << np.uint8(2)
    index <<= np.uint16(8)
    index |= first
    verdict: U8 = _TABLE.take(index)
    return verdict
