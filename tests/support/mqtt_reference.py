"""A slow MQTT parser of whole byte streams, one packet after the other: the oracle of the fast one.

It shares no code with the decoder. It reads one direction of a connection from its first byte and gives, per control
packet, the columns of `MqttTable` that depend on bytes alone.
"""

from agent.records import MqttType as T
from agent.records import MqttViolation as V

CLIENT_ONLY = {T.CONNECT, T.SUBSCRIBE, T.UNSUBSCRIBE, T.PINGREQ}
SERVER_ONLY = {T.CONNACK, T.SUBACK, T.UNSUBACK, T.PINGRESP}


class Reference:
    """One direction; `level` is the flow's (0 unknown), which a CONNECT read here sets."""

    def __init__(self, *, to_server: bool, level: int = 0) -> None:
        self.to_server = to_server
        self.level = level
        self.connected = False
        self.first = True

    def parse(self, data: bytes) -> list[dict]:
        """Every whole packet of the stream, up to a malformed length."""
        out, at = [], 0
        while at < len(data):
            remaining, size = _length(data, at)
            if size == 0:
                break
            if remaining < 0:
                out.append(self._row(data[at], -1, violation=V.REMAINING_LENGTH))
                break
            body = data[at + size : at + size + remaining]
            if len(body) < remaining:
                break
            out.append(self._packet(data[at], body))
            self.first = False
            at += size + remaining
        return out

    def _row(self, first: int, remaining: int, **more) -> dict:
        row = {
            "packet_type": first >> 4,
            "flags": first & 15,
            "remaining_len": remaining,
            "to_server": self.to_server,
            "level": self.level,
            "connect_flags": 0,
            "keep_alive_s": -1,
            "code": -1,
            "topic_len": -1,
            "wildcard": False,
            "violation": V.NONE,
        }
        return row | more

    def _packet(self, first: int, body: bytes) -> dict:
        kind = first >> 4
        again = kind == T.CONNECT and self.connected and not self.first
        found: list[V] = []
        fields: dict = {}
        if kind == T.CONNECT:
            fields, inner = _connect(body)
            flow_level = fields.pop("flow_level")
            if self.to_server and (flow_level or self.first):
                self.level = flow_level
                self.connected = True
            level = fields["level"]
        else:
            if self.first and self.to_server:
                self.level = 0
            level = self.level
            fields, inner = _body(kind, first & 15, body, level)
        old = 0 < level < 5
        if kind == 0 or (kind == T.AUTH and old):
            found.append(V.RESERVED_TYPE)
        if kind == T.PUBLISH and first & 6 == 6:
            found.append(V.QOS)
        if _wrong_flags(kind, first & 15, level):
            found.append(V.FLAGS)
        backward = SERVER_ONLY if self.to_server else CLIENT_ONLY
        if kind in backward or (kind == T.DISCONNECT and not self.to_server and old):
            found.append(V.WRONG_DIRECTION)
        if self.first and self.to_server and kind != T.CONNECT:
            found.append(V.FIRST_NOT_CONNECT)
        if again:
            found.append(V.SECOND_CONNECT)
        found += inner
        row = self._row(first, len(body), **fields)
        row["violation"] = found[0] if found else V.NONE
        return row


def _length(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for k in range(4):
        if at + 1 + k >= len(data):
            return 0, 0
        byte = data[at + 1 + k]
        value += (byte & 127) * 128**k
        if byte < 128:
            return value, k + 2
    return -1, 1


def _wrong_flags(kind: int, flags: int, level: int) -> bool:
    strict = level not in (0, 3)
    if kind in (T.PUBREL, T.SUBSCRIBE, T.UNSUBSCRIBE):
        return flags != 2 if strict else flags & 6 != 2
    if kind == T.PUBLISH:
        return strict and flags & 8 != 0 and flags & 6 == 0
    return strict and kind != 0 and flags != 0


def _connect(body: bytes) -> tuple[dict, list[V]]:  # noqa: C901 - the specification, in its order
    fields = {"level": 0, "flow_level": 0}
    if len(body) < 2:
        return fields, [V.BODY_LENGTH]
    size = int.from_bytes(body[:2])
    name, rest = body[2 : 2 + size], body[2 + size :]
    if len(rest) >= 4 and size <= 10:
        fields["level"], fields["connect_flags"] = rest[0], rest[1]
        fields["keep_alive_s"] = int.from_bytes(rest[2:4])
    if size + 2 > len(body):
        return fields, [V.TOPIC_LENGTH]
    levels = {b"MQTT": (4, 5), b"MQIsdp": (3,)}.get(name)
    if levels is None:
        return fields, [V.PROTOCOL_NAME]
    found = []
    level = fields["level"]
    if level & 127 in levels:
        fields["flow_level"] = level & 127
    if len(rest) >= 4:
        flags = rest[1]
        if level not in levels:
            found.append(V.PROTOCOL_LEVEL)
        will, flow = flags & 4, fields["flow_level"]
        if (
            (not will and flags & 0x38)
            or flags & 0x18 == 0x18
            or (flow != 3 and flags & 1)
            or (flow != 5 and flags & 0x40 and not flags & 0x80)
        ):
            found.append(V.CONNECT_FLAGS)
    if len(rest) < 6:
        found.append(V.BODY_LENGTH)
    elif fields["flow_level"] != 5 and 6 + int.from_bytes(rest[4:6]) > len(rest):
        found.append(V.TOPIC_LENGTH)
    return fields, found


def _bad(text: bytes) -> bool:
    try:
        return "\0" in text.decode("utf-8")
    except UnicodeDecodeError:
        return True


def _wild(text: bytes) -> bool:
    return b"+" in text or b"#" in text


def _body(  # noqa: C901, PLR0912 - a branch a type
    kind: int, flags: int, body: bytes, level: int
) -> tuple[dict, list[V]]:
    old = 0 < level < 5
    if kind == T.PUBLISH:
        return _publish(flags, body, level)
    if kind in (T.SUBSCRIBE, T.UNSUBSCRIBE):
        return _subscribe(kind, body, level)
    fields: dict = {}
    found = []
    if kind in (T.PUBACK, T.PUBREC, T.PUBREL, T.PUBCOMP, T.SUBACK, T.UNSUBACK):
        if len(body) < 2:
            found.append(V.BODY_LENGTH)
        elif body[:2] == b"\0\0":
            found.append(V.PACKET_ID_ZERO)
    if kind in (T.PUBACK, T.PUBREC, T.PUBREL, T.PUBCOMP):
        if level == 5 and len(body) > 2:
            fields["code"] = body[2]
        if old and len(body) != 2:
            found.append(V.BODY_LENGTH)
    elif kind in (T.SUBACK, T.UNSUBACK):
        at = _skip(body, level)
        if at < len(body) and (kind == T.SUBACK or level == 5):
            fields["code"] = body[at]
        if len(body) < 3 if kind == T.SUBACK else (old and len(body) != 2):
            found.append(V.BODY_LENGTH)
    elif kind == T.CONNACK:
        if len(body) >= 2:
            fields["code"] = body[1]
        if len(body) < 2 or (old and len(body) != 2):
            found.append(V.BODY_LENGTH)
    elif kind in (T.PINGREQ, T.PINGRESP):
        if body:
            found.append(V.BODY_LENGTH)
    elif kind in (T.DISCONNECT, T.AUTH):
        if level == 5 and body:
            fields["code"] = body[0]
        if old and body:
            found.append(V.BODY_LENGTH)
    return fields, found


def _skip(body: bytes, level: int) -> int:
    """Where what follows a packet id and MQTT 5's properties begins."""
    if level != 5 or len(body) <= 2:
        return 2
    value = 0
    for k in range(4):
        if 2 + k >= len(body):
            return 1 << 20
        value += (body[2 + k] & 127) * 128**k
        if body[2 + k] < 128:
            return 3 + k + value
    return 1 << 20


def _publish(flags: int, body: bytes, level: int) -> tuple[dict, list[V]]:
    if len(body) < 2:
        return {}, [V.BODY_LENGTH]
    size = int.from_bytes(body[:2])
    topic, rest = body[2 : 2 + size], body[2 + size :]
    found = []
    if size + 2 > len(body):
        found.append(V.TOPIC_LENGTH)
    numbered = flags & 6 != 0
    if size == 0 and level:
        properties = rest[2:3] if numbered else rest[:1]
        if level < 5 or properties == b"\0":
            found.append(V.EMPTY_TOPIC)
    if _wild(topic):
        found.append(V.TOPIC_WILDCARD)
    if size + 2 <= len(body) and _bad(topic):
        found.append(V.STRING)
    if numbered and len(rest) < 2:
        found.append(V.BODY_LENGTH)
    if numbered and rest[:2] == b"\0\0":
        found.append(V.PACKET_ID_ZERO)
    return {"topic_len": size}, found


def _subscribe(kind: int, body: bytes, level: int) -> tuple[dict, list[V]]:  # noqa: C901 - the specification, in its order
    fields: dict = {}
    if len(body) < 2:
        return fields, [V.BODY_LENGTH]
    found = [V.PACKET_ID_ZERO] if body[:2] == b"\0\0" else []
    at = _skip(body, level)
    if level and at >= len(body):
        found.append(V.EMPTY_SUBSCRIBE)
    options = kind == T.SUBSCRIBE
    first = True
    while at + 2 <= len(body):
        size = int.from_bytes(body[at : at + 2])
        text = body[at + 2 : at + 2 + size]
        end = at + 2 + size
        here = []
        if end > len(body):
            here.append(V.TOPIC_LENGTH)
        if size == 0:
            here.append(V.EMPTY_TOPIC)
        if end <= len(body) and _bad(text):
            here.append(V.STRING)
        if options and end + 1 > len(body):
            here.append(V.BODY_LENGTH)
        if options and end < len(body) and body[end] & 3 == 3:
            here.append(V.QOS)
        if level:
            found += here
        if options:
            fields["wildcard"] = fields.get("wildcard", False) or _wild(text)
            if first:
                fields["topic_len"] = size
        first = False
        at = end + options
    return fields, found
