"""The fixed header of MQTT control packets: what a first byte allows, and the remaining length of many at once.

It never judges a flow: `plausible` says whether a header may stand where a control packet starts, which is
what a flow out of step is searched with; `mqtt_fields` says what breaks the protocol.

In: first bytes and the four bytes after them. Out: arrays of equal length. Raises: nothing. Remembers: nothing.

Source: MQTT 3.1 (2.1), MQTT 3.1.1 (2.2), MQTT 5.0 (2.1): type in the upper four bits, flags in the lower; the
remaining length in one to four bytes of seven bits each, least significant first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from agent.decode.gather import gather
from agent.records import MqttType

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from agent.records import I32, I64, U8, BoolArray

MAX_REMAINING = (1 << 28) - 1
"""The largest remaining length that four bytes can say."""

_LARGE = 1 << 16
_BODY: dict[MqttType, tuple[int, int]] = {
    # The shortest body that the specification allows in any version, and the longest that is likely.
    MqttType.CONNECT: (12, MAX_REMAINING),
    MqttType.CONNACK: (2, _LARGE),
    MqttType.PUBLISH: (3, MAX_REMAINING),
    MqttType.PUBACK: (2, _LARGE),
    MqttType.PUBREC: (2, _LARGE),
    MqttType.PUBREL: (2, _LARGE),
    MqttType.PUBCOMP: (2, _LARGE),
    MqttType.SUBSCRIBE: (6, MAX_REMAINING),
    MqttType.SUBACK: (3, _LARGE),
    MqttType.UNSUBSCRIBE: (5, MAX_REMAINING),
    MqttType.UNSUBACK: (2, _LARGE),
    MqttType.PINGREQ: (0, 0),
    MqttType.PINGRESP: (0, 0),
    MqttType.DISCONNECT: (0, _LARGE),
    MqttType.AUTH: (0, _LARGE),
}
REQUIRED_FLAGS_2 = (MqttType.PUBREL, MqttType.SUBSCRIBE, MqttType.UNSUBSCRIBE)
"""Types whose flags are 0010 (3.1.1, 2.2.2); MQTT 3.1 calls them QoS 1 and lets DUP be set."""


def _limits() -> tuple[I32, I32]:
    """Per first byte: the least and the greatest plausible remaining length; (1, 0) where none is."""
    least = np.ones(256, np.int32)
    most = np.zeros(256, np.int32)
    for kind, (low, high) in _BODY.items():
        for flags in range(16):
            if kind is MqttType.PUBLISH:
                allowed = flags & 6 != 6
            elif kind in REQUIRED_FLAGS_2:
                allowed = flags & 7 == 2
            else:
                allowed = flags == 0
            if allowed:
                first = kind << 4 | flags
                least[first] = low + (2 if kind is MqttType.PUBLISH and flags & 6 else 0)
                most[first] = high
    return least, most


LEAST_BODY, MOST_BODY = _limits()
LEAST_BODY_LIST: list[int] = LEAST_BODY.tolist()
MOST_BODY_LIST: list[int] = MOST_BODY.tolist()


def plausible(first: U8, remaining: I32) -> BoolArray:
    """Whether a packet with this first byte can have this remaining length; (n,)."""
    index = first.astype(np.intp)
    fits: BoolArray = (LEAST_BODY.take(index) <= remaining) & (remaining <= MOST_BODY.take(index))
    return fits


def read_headers(buffer: U8, pos: I64) -> tuple[U8, I32, I32]:
    """First byte, remaining length and size of the fixed header at each `pos`; size 0: a fifth length byte.

    Reads up to five bytes without regard to what was captured: the caller masks by `pos + size`.
    """
    word = gather(buffer, pos, 8).view("<u8")[:, 0]
    first = word.astype(np.uint8)
    length = (word >> np.uint64(8)).astype(np.uint32)
    stop = ~length & np.uint32(0x80808080)
    stop &= (
        np.uint32(0) - stop
    )  # the lowest byte without a continuation bit; 0 where all four have it
    mask = (stop << np.uint32(1)) - np.uint32(1)
    size = np.bitwise_count(mask) // 8 + 1
    length &= mask
    value = length & np.uint32(0x7F)
    value |= length >> np.uint32(1) & np.uint32(0x3F80)
    value |= length >> np.uint32(2) & np.uint32(0x1F_C000)
    value |= length >> np.uint32(3) & np.uint32(0xFE0_0000)
    header = size.astype(np.int32)
    header[stop == 0] = 0
    return first, value.astype(np.int32), header


def _levels(*levels: int) -> BoolArray:
    table = np.zeros(256, bool)
    table[list(levels)] = True
    return table


NAMES = {b"\x00\x04MQTT": _levels(4, 5), b"\x00\x06MQIsdp": _levels(3)}
"""The protocol names that exist, with their length; and by level, whether it goes with that name."""


def opens_with_connect(
    buffer: U8, offset: I64, captured: NDArray[np.integer], first: U8
) -> BoolArray:
    """Whether `captured[i]` bytes from `offset[i]` open with a CONNECT of a known name and level; (n,).

    `first` are the bytes at `offset`. The level may carry a bridge's private bit (0x80): that is MQTT all the same.
    """
    found = np.zeros(len(offset), bool)
    maybe = np.flatnonzero((first == MqttType.CONNECT << 4) & (captured >= 9))
    if not len(maybe):
        return found
    first, remaining, size = read_headers(buffer, offset[maybe])
    body = gather(buffer, offset[maybe] + size, 9)
    for name, levels in NAMES.items():
        end = len(name)
        fits = (body[:, :end] == np.frombuffer(name, np.uint8)).all(axis=1)
        fits &= levels[body[:, end] & 0x7F]
        fits &= (size > 0) & (captured[maybe] > size + end) & plausible(first, remaining)
        found[maybe] |= fits
    return found


def opens_with_connack(
    buffer: U8, offset: I64, captured: NDArray[np.integer], first: U8
) -> BoolArray:
    """Whether the bytes from `offset[i]` open with a CONNACK: its flags 0 or 1, a code of the version's; (n,).

    So begins the server's half of a connection whose SYN was not seen. `first` are the bytes at `offset`.
    """
    found = np.zeros(len(offset), bool)
    maybe = np.flatnonzero((first == MqttType.CONNACK << 4) & (captured >= 4))
    if not len(maybe):
        return found
    _, remaining, size = read_headers(buffer, offset[maybe])
    body = gather(buffer, offset[maybe] + size, 4)
    old = (remaining == 2) & (body[:, 1] <= 5)
    new = (remaining > 2) & ((body[:, 1] == 0) | (body[:, 1] >= 0x80))
    found[maybe] = (size == 2) & (body[:, 0] <= 1) & (old | new)
    return found
