"""TCP segments of a batch, sorted by MQTT flow, direction and order of capture.

A flow is MQTT when one of its ports is configured, when it is remembered as such, or when a valid CONNECT begins one
of its payloads. Segments whose flow's hash belongs to another flow are left out and counted: a collision never
merges two flows.

In: columns of segments. Out: `Groups`. Raises: nothing. Remembers: nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from agent.decode.mqtt_flows import Flows, FlowTable, turn
from agent.decode.mqtt_header import opens_with_connack, opens_with_connect

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from agent.records import I64, U8, U64, BoolArray


class Segments(NamedTuple):
    """Segments with a payload, (n,), in the order of capture."""

    row: I64
    """The frame."""
    seq: I64
    """Sequence number of the payload's first byte."""
    offset: I64
    length: I64
    captured: I64


@dataclass(slots=True, frozen=True, kw_only=True)
class Groups:
    """Segments (n,); groups (g,) are directions of flows (f,)."""

    segments: Segments
    """In the order of capture."""
    order: I64
    """(n,) which of `segments` each is."""
    row: I64
    seq: I64
    offset: I64
    length: I64
    captured: I64
    connect: BoolArray
    """(n,) opens with a valid CONNECT."""
    greets: BoolArray
    """(n,) opens with a valid CONNECT or CONNACK, as the two halves of a connection do."""
    new_group: BoolArray
    """(n,) the first of its group."""
    group_of: I64
    """(n,)"""
    first_of_group: I64
    """(g,) its first segment."""
    flows: Flows
    """(g,) who they are."""
    flow_of_group: I64
    direction: I64
    """(g,) 0, or 1 for the reversed direction."""
    first_of_flow: I64
    """(f,) its first group."""
    slot: I64
    """(f,) slot in the flow table, -1 for a new flow; changed in place when it gets one."""

    def clients(self, configured: BoolArray, table: FlowTable) -> I64:
        """Which direction of each flow comes from the client, 0 or 1; (f,).

        The side with the configured port is the server; else what is remembered; else the CONNECT tells.
        """
        from_port, to_port = _ports(self.flows.key[self.first_of_flow])
        way = self.direction[self.first_of_flow]
        said = np.where(self.slot >= 0, table.client[self.slot], -1).astype(np.int64)
        connects = np.full(len(way), -1, np.int64)
        opening = self.group_of[np.flatnonzero(self.connect)][::-1]
        connects[self.flow_of_group[opening]] = self.direction[opening]
        client = np.where(said >= 0, said, np.maximum(connects, 0))
        up, down = configured[to_port], configured[from_port]
        client[up & ~down] = way[up & ~down]
        client[down & ~up] = 1 - way[down & ~up]
        return client


def _ports(key: U64) -> tuple[I64, I64]:
    ports = key[:, 4].astype(np.int64)
    return ports >> 16, ports & 0xFFFF


def _changes(values: NDArray[Any]) -> BoolArray:
    new = np.empty(len(values), bool)
    new[:1] = True
    np.not_equal(values[1:], values[:-1], out=new[1:])
    return new


def group(
    segments: Segments, flows: Flows, table: FlowTable, configured: BoolArray, buffer: U8
) -> Groups | None:
    """Sort the segments, whose flows are `flows` (n,), and leave out what is not MQTT; None where nothing is."""
    n = len(segments.row)
    bits = max(n - 1, 1).bit_length()
    low = np.uint64(bits + 1)
    packed = flows.hash >> low << low
    packed |= flows.reverse.astype(np.uint64) << np.uint64(bits)
    packed |= np.arange(n, dtype=np.uint64)
    packed.sort()
    order = (packed & np.uint64((1 << bits) - 1)).astype(np.int64)
    alike = _changes(packed >> np.uint64(bits))
    keep = _of_one_flow(flows, order, alike, packed >> low)
    if keep is not None:
        table.collisions += n - len(keep)
        return _group_some(np.sort(order[keep]), segments, flows, table, configured, buffer)
    offset, captured = segments.offset.take(order), segments.captured.take(order)
    opening = _first_bytes(buffer, segments.offset, segments.captured).take(order)
    connect = opens_with_connect(buffer, offset, captured, opening)
    first = np.flatnonzero(alike)
    new_flow = _changes(packed[first] >> low)
    first_of_flow = np.flatnonzero(new_flow)
    flow_of_group = np.cumsum(new_flow) - 1
    of_group = flows.take(order[first])
    at_flow = of_group.take(first_of_flow)
    slot = table.find(at_flow.hash, turn(at_flow.key, at_flow.reverse))
    from_port, to_port = _ports(at_flow.key)
    is_mqtt = configured[from_port] | configured[to_port] | (slot >= 0)
    if not is_mqtt.all():
        is_mqtt |= np.logical_or.reduceat(connect, first[first_of_flow])
    if not is_mqtt.all():
        keep = np.flatnonzero(is_mqtt[flow_of_group][np.cumsum(alike) - 1])
        if not len(keep):
            return None
        return _group_some(np.sort(order[keep]), segments, flows, table, configured, buffer)
    return Groups(
        segments=segments,
        order=order,
        row=segments.row.take(order),
        seq=segments.seq.take(order),
        offset=offset,
        length=segments.length.take(order),
        captured=captured,
        connect=connect,
        greets=connect | opens_with_connack(buffer, offset, captured, opening),
        new_group=alike,
        group_of=np.cumsum(alike) - 1,
        first_of_group=first,
        flows=of_group,
        flow_of_group=flow_of_group,
        direction=of_group.reverse.astype(np.int64),
        first_of_flow=first_of_flow,
        slot=slot,
    )


def _group_some(
    rows: I64,
    segments: Segments,
    flows: Flows,
    table: FlowTable,
    configured: BoolArray,
    buffer: U8,
) -> Groups | None:
    """`group` of these segments only."""
    some = Segments(*(c.take(rows) for c in segments))
    return group(some, flows.take(rows), table, configured, buffer)


def _first_bytes(buffer: U8, offset: I64, captured: I64) -> U8:
    """The byte at each offset; 0 where none was captured, which may be past the buffer's end."""
    first: U8 = buffer.take(np.where(captured > 0, offset, 0), mode="clip")
    first[captured == 0] = 0
    return first


def _of_one_flow(flows: Flows, order: I64, alike: BoolArray, hashed: U64) -> I64 | None:
    """Places whose segments are of the flow that comes first under their hash; None where all are, as ever."""
    key = flows.key.take(order, axis=0)
    other = key[1:] != key[:-1]
    differs = other[:, 0] | other[:, 1] | other[:, 2] | other[:, 3] | other[:, 4]
    first = np.flatnonzero(alike)
    both_ways = turn(key[first], flows.reverse[order[first]])
    same_flow = hashed[first][1:] == hashed[first][:-1]
    apart = (both_ways[1:] != both_ways[:-1]).any(axis=1)
    if not (differs & ~alike[1:]).any() and not (apart & same_flow).any():
        return None
    both_ways = turn(key, flows.reverse[order])
    member = np.cumsum(_changes(hashed)) - 1
    leader = np.flatnonzero(_changes(hashed))
    return np.flatnonzero((both_ways == both_ways[leader][member]).all(axis=1))
