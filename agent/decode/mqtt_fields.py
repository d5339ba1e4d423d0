"""The fields of MQTT control packets and what each breaks of the protocol, many packets at once.

It reads at most 128 bytes of a body (`BODY_BYTES`): a topic or filter list longer than that is judged by what
stands there. No topic, client id, user name or password leaves it: only lengths, flags and codes.
The judge is the specification, in the version that the flow's CONNECT named; where versions differ and the level
is not known, what any version allows is allowed. Packets on a flow out of step have no violation.

In: `Packets`, in stream order per flow. Out: `Fields`. Remembers: nothing; `Context` (level, connected) is the
caller's and changed in place. Raises: nothing.

Source, sections of 3.1.1 / 5.0 (3.1 where it differs):
REMAINING_LENGTH 2.2.3 / 1.5.5 · RESERVED_TYPE 2.2.1 / 2.1.2 (AUTH is of 5 only) · FLAGS 2.2.2 / 2.1.3, DUP with
QoS 0 3.3.1.1 (3.1: only QoS 1 of PUBREL, SUBSCRIBE, UNSUBSCRIBE, DUP allowed, 2.1) · QOS 3.3.1.2, 3.8.3 ·
PROTOCOL_NAME 3.1.2.1 · PROTOCOL_LEVEL 3.1.2.2 · CONNECT_FLAGS 3.1.2.3 to 3.1.2.9 (a password without a user name
is allowed in 5) · FIRST_NOT_CONNECT, SECOND_CONNECT 3.1 · TOPIC_WILDCARD 3.3.2.1 · TOPIC_LENGTH 1.5.3 / 1.5.4 ·
EMPTY_TOPIC 4.7.3 (5: allowed with properties, that can hold a topic alias, 3.3.2.3.4) · EMPTY_SUBSCRIBE 3.8.3,
3.10.3 · PACKET_ID_ZERO 2.3.1 / 2.2.1 · BODY_LENGTH: chapter 3 of each type · WRONG_DIRECTION 2.2.1 / 2.1.2
(DISCONNECT by the server is of 5 only) · STRING 1.5.3 / 1.5.4.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from agent.decode.gather import gather, u16
from agent.decode.mqtt_flows import CARRY_BYTES
from agent.decode.mqtt_header import NAMES
from agent.decode.mqtt_text import any_of, bad_text, wildcards
from agent.decode.mqtt_verdicts import judge_first_bytes
from agent.records import MqttType, MqttViolation

if TYPE_CHECKING:
    from agent.records import I16, I32, I64, U8, BoolArray

BODY_BYTES = 128
"""Bytes of a body that are read; `CARRY_BYTES` less the largest fixed header, rounded down."""
_SHORT = 40
"""Bytes of a PUBLISH's body read at first; longer topics take a second, wider look."""
_BLOCK = 2048
"""Bodies read at a time."""
_MAX_FILTERS = 12
"""Filters of a SUBSCRIBE that are looked at."""
_MAX_WIDE = 4096
"""Bodies of a kind that a batch may have read in full width, at about 3 us each: (UN)SUBSCRIBE, SUBACK, long topics,
topics with letters beyond ASCII. Further ones are judged by their headers: no bound that only content reaches."""


@dataclass(slots=True, frozen=True, kw_only=True)
class Packets:
    """Control packets as found, (m,) each."""

    buffer: U8
    headers: U8
    """(k * CARRY_BYTES,) headers put together from parts."""
    pos: I64
    """Absolute offset of the first byte, or -1 - index into `headers`."""
    first: U8
    remaining: I32
    """-1 where the length is malformed."""
    size: I32
    count: I64
    available: I64
    """Bytes that may be read from `pos`."""
    flow: I64
    """Which row of the `Context`."""
    to_server: BoolArray
    synchronised: BoolArray
    start: BoolArray
    """The first packet of its stream."""


@dataclass(slots=True, frozen=True)
class Context:
    """What is known of each flow of the batch, (f,); changed in place."""

    level: U8
    connected: BoolArray


class Fields:
    """Columns of `records.MqttTable`, (m,)."""

    def __init__(self, m: int) -> None:
        self.level: U8 = np.zeros(m, np.uint8)
        self.connect_flags: U8 = np.zeros(m, np.uint8)
        self.keep_alive_s: I32 = np.full(m, -1, np.int32)
        self.code: I16 = np.full(m, -1, np.int16)
        self.topic_len: I32 = np.full(m, -1, np.int32)
        self.wildcard: BoolArray = np.zeros(m, bool)
        self.violation: U8 = np.zeros(m, np.uint8)

    def blame(self, rows: I64, broken: BoolArray, violation: MqttViolation) -> None:
        """Note a violation where none was found before."""
        if broken.any():
            at = rows[broken]
            self.violation[at[self.violation[at] == 0]] = violation


def read_fields(packets: Packets, context: Context) -> Fields:
    """Fields and violations; `context` then is what it is after these packets."""
    fields = Fields(len(packets.pos))
    kind: U8 = packets.first >> np.uint8(4)
    well_formed = packets.remaining >= 0
    rows: dict[int, I64] = {}
    present = np.bincount(kind, minlength=16)
    for number in np.flatnonzero(present).tolist():
        rows[number] = np.flatnonzero((kind == number) & well_formed)
    connect = rows.get(MqttType.CONNECT, np.zeros(0, np.int64))
    opened = _Connects(packets, fields, connect)
    second = _levels(packets, fields, context, connect, opened.level)
    judged = bool(packets.synchronised.any())
    if judged:
        _judge_headers(packets, fields, second)
        opened.judge(packets, fields)
    for number, where in rows.items():
        reader = _READERS.get(MqttType(number))
        if reader is not None and len(where):
            reader(packets, fields, where)
    if judged:
        fields.violation[~packets.synchronised] = 0
    else:
        fields.violation[:] = 0
    return fields


def _body(packets: Packets, rows: I64, width: int) -> tuple[U8, I64]:
    """The first `width` bytes of these packets' bodies, and how many of them are theirs and were captured."""
    pos = packets.pos.take(rows)
    size = packets.size.take(rows)
    here = np.minimum(packets.available.take(rows) - size, packets.remaining.take(rows))
    np.minimum(here, BODY_BYTES, out=here)
    np.maximum(here, 0, out=here)
    parted = np.flatnonzero(pos < 0) if len(packets.headers) else rows[:0]
    if not len(parted):
        return gather(packets.buffer, pos + size, width), here
    body = gather(packets.buffer, np.maximum(pos, 0) + size, width)
    body[parted] = gather(packets.headers, (-1 - pos[parted]) * CARRY_BYTES + size[parted], width)
    return body, here


def _word(body: U8, at: I64) -> I64:
    """Big-endian 16 bits at column `at` of each row; past the row's end, its last."""
    line = np.arange(len(body))
    at = np.minimum(at, body.shape[1] - 2)
    word: I64 = body[line, at].astype(np.int64) << 8 | body[line, at + 1]
    return word


class _Connects:
    """The fields of CONNECT packets, then what they break once the judge is due."""

    def __init__(self, packets: Packets, fields: Fields, rows: I64) -> None:
        self.rows = rows
        self.body, self.here = _body(packets, rows, 20)
        body, here = self.body, self.here
        self.name_len = u16(body, 0).astype(np.int64)
        self.level = np.zeros(len(rows), np.uint8)
        self.right_name = np.zeros(len(rows), bool)
        self.right_level = np.zeros(len(rows), bool)
        if not len(rows):
            return
        line = np.arange(len(rows))
        readable = np.flatnonzero((here >= 6 + self.name_len) & (self.name_len <= 10))
        after = self.name_len[readable] + 2
        raw = body[line[readable], after]
        fields.level[rows[readable]] = raw
        fields.connect_flags[rows[readable]] = body[line[readable], after + 1]
        fields.keep_alive_s[rows[readable]] = _word(body[readable], after + 2)
        for name, levels in NAMES.items():
            same = (body[:, : len(name)] == np.frombuffer(name, np.uint8)).all(axis=1)
            same &= here >= len(name)
            self.right_name |= same
            self.right_level |= same & levels[fields.level[rows]]
            known = same & levels[fields.level[rows] & 0x7F]
            self.level[known] = fields.level[rows[known]] & 0x7F

    def judge(self, packets: Packets, fields: Fields) -> None:
        rows, here, remaining = self.rows, self.here, packets.remaining[self.rows]
        if not len(rows):
            return
        fields.blame(rows, remaining < 2, MqttViolation.BODY_LENGTH)
        fields.blame(rows, self.name_len + 2 > remaining, MqttViolation.TOPIC_LENGTH)
        named = here >= np.minimum(self.name_len + 2, BODY_BYTES)
        fields.blame(rows, named & ~self.right_name, MqttViolation.PROTOCOL_NAME)
        complete = self.right_name & (here >= self.name_len + 6)
        fields.blame(rows, complete & ~self.right_level, MqttViolation.PROTOCOL_LEVEL)
        flags = fields.connect_flags[rows]
        will, user, password = flags & 4 != 0, flags & 128 != 0, flags & 64 != 0
        wrong = ~will & (flags & 0x38 != 0) | (flags & 0x18 == 0x18)
        wrong |= (self.level != 3) & (flags & 1 != 0)
        wrong |= (self.level != 5) & password & ~user
        fields.blame(rows, complete & wrong, MqttViolation.CONNECT_FLAGS)
        fields.blame(rows, remaining < self.name_len + 8, MqttViolation.BODY_LENGTH)
        client_id = _word(self.body, self.name_len + 6)
        known = complete & (self.level != 5) & (here >= self.name_len + 8)
        too_long = known & (self.name_len + 8 + client_id > remaining)
        fields.blame(rows, too_long, MqttViolation.TOPIC_LENGTH)


def _levels(
    packets: Packets, fields: Fields, context: Context, connect: I64, opened: U8
) -> BoolArray:
    """Give every packet its flow's level, and say which CONNECTs are second ones; (m,).

    A CONNECT to the server sets the level from there on; a stream that begins with another packet has none.
    """
    flow = packets.flow
    level = context.level.take(flow)
    is_connect = np.zeros(len(flow), bool)
    is_connect[connect] = True
    second = np.zeros(len(flow), bool)
    second[connect] = context.connected[flow[connect]] & ~packets.start[connect]
    # A CONNECT that names no level there is changes nothing but where it begins a stream.
    upward = packets.to_server[connect] & ((opened > 0) | packets.start[connect])
    new_level = np.zeros(len(flow), np.uint8)
    new_level[connect[upward]] = opened[upward]
    sets = packets.start & packets.to_server
    sets[connect[upward]] = True
    setters = np.flatnonzero(sets)
    changes = (new_level[setters] != level[setters]) | ~context.connected[flow[setters]]
    changes |= ~is_connect[setters]
    if changes.any():
        touched = np.zeros(len(context.level), bool)
        touched[flow[setters[changes]]] = True
        part = np.flatnonzero(touched[flow])
        part = part[np.argsort(flow[part], kind="stable")]
        _spread(packets, context, part, (sets, is_connect, new_level, level, second))
    level[connect] = fields.level[connect]  # as it stands there
    fields.level = level
    return second


def _spread(
    packets: Packets,
    context: Context,
    part: I64,
    columns: tuple[BoolArray, BoolArray, U8, U8, BoolArray],
) -> None:
    """Carry levels on along each flow; `part` are packets by flow and then in order. Changes the last two columns."""
    sets, is_connect, new_level, level, second = columns
    flow = packets.flow[part]
    line = np.arange(len(part))
    last = np.maximum.accumulate(np.where(sets[part], line, -1))
    own = (last >= 0) & (flow[np.maximum(last, 0)] == flow)
    level[part[own]] = new_level[part[last[own]]]
    before = np.append(-1, last[:-1])
    was = (before >= 0) & (flow[np.maximum(before, 0)] == flow)
    connected = np.where(was, is_connect[part[np.maximum(before, 0)]], context.connected[flow])
    second[part] = is_connect[part] & connected & ~packets.start[part]
    end = np.flatnonzero(np.append(flow[1:] != flow[:-1], True))
    context.level[flow[end]] = level[part[end]]
    end = end[own[end]]
    context.connected[flow[end]] = is_connect[part[last[end]]]


def _judge_headers(packets: Packets, fields: Fields, second: BoolArray) -> None:
    """What a first byte, a length, a direction or the place in the stream breaks."""
    fields.violation = judge_first_bytes(packets.first, fields.level, packets.to_server)
    fields.violation[packets.remaining < 0] = MqttViolation.REMAINING_LENGTH
    early = np.flatnonzero(packets.start & packets.to_server)
    early = early[packets.first[early] >> 4 != MqttType.CONNECT]
    fields.blame(early, np.ones(len(early), bool), MqttViolation.FIRST_NOT_CONNECT)
    again = np.flatnonzero(second)
    fields.blame(again, np.ones(len(again), bool), MqttViolation.SECOND_CONNECT)


def _publish(packets: Packets, fields: Fields, rows: I64) -> None:
    """In blocks of rows, so that what is read of the bodies stays in the processor's cache."""
    step = packets.synchronised.take(rows)
    if not step.all():
        others = rows[~step]
        _topic_len(fields, others, *_body(packets, others, 2))
        rows = rows[step]
    wide, n_suspect = [], 0
    for begin in range(0, len(rows), _BLOCK):
        block = rows[begin : begin + _BLOCK]
        body, here = _body(packets, block, _SHORT)
        long = _topic_len(fields, block, body, here) > _SHORT - 5
        if long.any():
            wide.append(block[long])
            short = np.flatnonzero(~long)
            block, body, here = block[short], body.take(short, axis=0), here[short]
        n_suspect += _judge_publish(packets, fields, block, (body, here), _MAX_WIDE - n_suspect)
    if wide:
        rows = np.concatenate(wide)[:_MAX_WIDE]
        _judge_publish(packets, fields, rows, _body(packets, rows, BODY_BYTES), _MAX_WIDE)


def _topic_len(fields: Fields, rows: I64, body: U8, here: I64) -> I32:
    """Note and return the topics' lengths, -1 where they were not captured."""
    length = u16(body, 0).astype(np.int32)
    length[here < 2] = -1
    fields.topic_len[rows] = length
    return length


def _judge_publish(
    packets: Packets, fields: Fields, rows: I64, read: tuple[U8, I64], most: int
) -> int:
    """Blame what is wrong with these bodies; how many topics were looked at letter by letter, at most `most`."""
    body, here = read
    topic = u16(body, 0).astype(np.int64)
    remaining = packets.remaining.take(rows)
    acknowledged = packets.first.take(rows) & np.uint8(6) != 0
    fields.blame(rows, remaining < 2, MqttViolation.BODY_LENGTH)
    end = topic + 2
    whole = here >= 2
    fields.blame(rows, whole & (end > remaining), MqttViolation.TOPIC_LENGTH)
    empty = np.flatnonzero(whole & (topic == 0))
    if len(empty):
        properties = 2 + 2 * acknowledged[empty]
        alias = (here[empty] > properties) & (body[empty, properties] != 0)
        alias |= here[empty] <= properties  # cut short: not to be said
        level = fields.level[rows[empty]]
        wrong = (level > 0) & ((level < 5) | ~alias)
        fields.blame(rows[empty], wrong, MqttViolation.EMPTY_TOPIC)
    seen = np.minimum(end, here)
    suspect = np.flatnonzero(any_of(body, seen))[:most]
    if len(suspect):
        two = np.full(len(suspect), 2, np.int64)
        text = body.take(suspect, axis=0)
        wild, _ = wildcards(text, two, seen[suspect])
        fields.blame(rows[suspect], wild, MqttViolation.TOPIC_WILDCARD)
        whole_topic = (end <= here)[suspect]
        broken = bad_text(text, two, seen[suspect], whole_topic)
        fields.blame(rows[suspect], broken, MqttViolation.STRING)
    numbered = np.flatnonzero(acknowledged)
    least = end
    least[numbered] += 2
    fields.blame(rows, least > remaining, MqttViolation.BODY_LENGTH)
    numbered = numbered[(least <= here)[numbered]]
    if len(numbered):
        at = numbered * body.shape[1] + topic[numbered] + 2
        flat = body.reshape(-1)
        zero = flat.take(at) | flat.take(at + 1) == 0
        fields.blame(rows[numbered], zero, MqttViolation.PACKET_ID_ZERO)
    return len(suspect)


def _packet_id(packets: Packets, fields: Fields, rows: I64, width: int) -> tuple[U8, I64]:
    """A body that begins with a packet id; blames what is wrong with that."""
    body, here = _body(packets, rows, width)
    fields.blame(rows, packets.remaining[rows] < 2, MqttViolation.BODY_LENGTH)
    zero = (here >= 2) & (body[:, 0] == 0) & (body[:, 1] == 0)
    fields.blame(rows, zero, MqttViolation.PACKET_ID_ZERO)
    return body, here


def _after_properties(packets: Packets, fields: Fields, rows: I64, body: U8) -> I64:
    """Where the payload begins that follows a packet id and, in MQTT 5, properties; (n,)."""
    low, high = body[:, 2].astype(np.int64), body[:, 3].astype(np.int64)
    length = np.where(low < 128, 3 + low, 4 + (low & 127) + (high << 7))
    length[(low >= 128) & (high >= 128)] = 1 << 20  # beyond what is read of a body
    return np.where((fields.level[rows] == 5) & (packets.remaining[rows] > 2), length, 2)


def _subscribe(packets: Packets, fields: Fields, rows: I64) -> None:
    """SUBSCRIBE and UNSUBSCRIBE: filters, one by one; UNSUBSCRIBE's have no options byte."""
    rows = rows[:_MAX_WIDE]
    body, here = _packet_id(packets, fields, rows, BODY_BYTES)
    remaining, level = packets.remaining[rows], fields.level[rows]
    options = ((packets.first[rows] >> 4) == MqttType.SUBSCRIBE).astype(np.int64)
    at = _after_properties(packets, fields, rows, body)
    judged = level > 0
    fields.blame(rows, judged & (at >= remaining) & (remaining >= 2), MqttViolation.EMPTY_SUBSCRIBE)
    active = np.flatnonzero(at + 2 <= here)
    for k in range(_MAX_FILTERS):
        if not len(active):
            return
        here_now, begin, rows_now = here[active], at[active] + 2, rows[active]
        length = _word(body[active], at[active])
        end = begin + length
        judge = judged[active]
        if k == 0:
            told = options[active] > 0
            fields.topic_len[rows_now[told]] = length[told]
        fields.blame(rows_now, judge & (end > remaining[active]), MqttViolation.TOPIC_LENGTH)
        fields.blame(rows_now, judge & (length == 0), MqttViolation.EMPTY_TOPIC)
        stop = np.minimum(end, here_now)
        wild, _ = wildcards(body[active], begin, stop)
        fields.wildcard[rows_now] |= wild & (options[active] > 0)
        broken = bad_text(body[active], begin, stop, end <= here_now)
        fields.blame(rows_now, judge & broken, MqttViolation.STRING)
        missing = (options[active] > 0) & (end + 1 > remaining[active])
        fields.blame(rows_now, judge & missing, MqttViolation.BODY_LENGTH)
        seen = (options[active] > 0) & (end < here_now)
        option = body[active, np.minimum(end, BODY_BYTES - 1)]
        fields.blame(rows_now, judge & seen & (option & 3 == 3), MqttViolation.QOS)
        at[active] = end + options[active]
        active = active[at[active] + 2 <= here_now]


def _acknowledge(packets: Packets, fields: Fields, rows: I64) -> None:
    """PUBACK, PUBREC, PUBREL, PUBCOMP: a packet id, and in MQTT 5 perhaps a reason code."""
    body, here = _packet_id(packets, fields, rows, 8)
    level = fields.level[rows]
    coded = (level == 5) & (here > 2)
    fields.code[rows[coded]] = body[coded, 2]
    old = (level > 0) & (level < 5)
    fields.blame(rows, old & (packets.remaining[rows] != 2), MqttViolation.BODY_LENGTH)


def _suback(packets: Packets, fields: Fields, rows: I64) -> None:
    """SUBACK, and UNSUBACK of MQTT 5: the first of its codes."""
    rows = rows[:_MAX_WIDE]
    body, here = _packet_id(packets, fields, rows, BODY_BYTES)
    level, remaining = fields.level[rows], packets.remaining[rows]
    at = _after_properties(packets, fields, rows, body)
    plain = (packets.first[rows] >> 4) == MqttType.UNSUBACK
    coded = np.flatnonzero((at < here) & ~(plain & (level != 5)))
    fields.code[rows[coded]] = body[coded, at[coded]]
    old = (level > 0) & (level < 5)
    wrong = np.where(plain, old & (remaining != 2), remaining < 3)
    fields.blame(rows, wrong, MqttViolation.BODY_LENGTH)


def _connack(packets: Packets, fields: Fields, rows: I64) -> None:
    body, here = _body(packets, rows, 8)
    coded = here >= 2
    fields.code[rows[coded]] = body[coded, 1]
    level, remaining = fields.level[rows], packets.remaining[rows]
    old = (level > 0) & (level < 5)
    fields.blame(rows, (remaining < 2) | (old & (remaining != 2)), MqttViolation.BODY_LENGTH)


def _ping(packets: Packets, fields: Fields, rows: I64) -> None:
    fields.blame(rows, packets.remaining[rows] != 0, MqttViolation.BODY_LENGTH)


def _goodbye(packets: Packets, fields: Fields, rows: I64) -> None:
    """DISCONNECT and AUTH: empty below MQTT 5, where a reason code may come first."""
    level, remaining = fields.level[rows], packets.remaining[rows]
    fields.blame(rows, (level > 0) & (level < 5) & (remaining != 0), MqttViolation.BODY_LENGTH)
    rows = rows[(level == 5) & (remaining > 0)]
    if len(rows):
        body, here = _body(packets, rows, 8)
        fields.code[rows[here > 0]] = body[here > 0, 0]


_READERS = {
    MqttType.CONNACK: _connack,
    MqttType.PUBLISH: _publish,
    MqttType.PUBACK: _acknowledge,
    MqttType.PUBREC: _acknowledge,
    MqttType.PUBREL: _acknowledge,
    MqttType.PUBCOMP: _acknowledge,
    MqttType.SUBSCRIBE: _subscribe,
    MqttType.SUBACK: _suback,
    MqttType.UNSUBSCRIBE: _subscribe,
    MqttType.UNSUBACK: _suback,
    MqttType.PINGREQ: _ping,
    MqttType.PINGRESP: _ping,
    MqttType.DISCONNECT: _goodbye,
    MqttType.AUTH: _goodbye,
}
"""Which function reads a type's body; CONNECT comes before all others."""
