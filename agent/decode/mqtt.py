"""MQTT 3.1, 3.1.1 and 5 control packets out of TCP segments: a stream per direction, not packets.

`MqttStreams` remembers, per flow and direction, where the next control packet starts, by TCP sequence number, and
the header bytes already seen of it. In order, flows are exact however they are cut; retransmissions count once;
what is reordered within a batch is put in order; a hole in a body does no harm. A hole where a header should be,
a flow first met in the middle, or an evicted one is out of step (`synchronised` False) until a CONNECT begins a
payload or four plausible headers land exactly at a segment's end: it is counted on by whatever segments read
as whole control packets, and no violation is judged.

A flow is MQTT when one of its ports is configured, or once a valid CONNECT begins one of its payloads. The server is
the side with the configured port, else the one that the CONNECT went to.

How it is fast: every payload of the batch is walked at once as if it began with a control packet
(`mqtt_walk`); where the walks' ends are the next segments' starts, that was right. Only flows where it was not are
followed segment by segment (`mqtt_follow`), within a budget. The cost of a frame is bounded by its length,
that of a batch by its frames and bytes; what a bound cuts off is marked `extrapolated`, or leaves its flow out
of step.

In: columns of a PacketTable, (n,), and the batch's buffer. Out: `MqttTable`, rows ascending. Raises: nothing.
Remembers: at most `max_flows` flows (least recently used out first, counted) and 65,536 half-open connections.

Source: OASIS MQTT 3.1.1, MQTT 5.0; MQTT V3.1 (IBM, Eurotech 2010); RFC 9293 for sequence numbers.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from agent.decode.mqtt_epochs import Epochs, follow_slow, make_epochs
from agent.decode.mqtt_fields import Context, Fields, Packets, read_fields
from agent.decode.mqtt_flows import (
    LEAST_LATER,
    Flows,
    FlowTable,
    Openings,
    SynTable,
    identify,
    make_salt,
    turn,
)
from agent.decode.mqtt_follow import FAR, MAX_AHEAD
from agent.decode.mqtt_groups import Groups, Segments, group
from agent.decode.mqtt_header import opens_with_connect
from agent.decode.mqtt_scan import Purse
from agent.decode.mqtt_segments import Found, collect
from agent.decode.mqtt_walk import Walk, walk
from agent.records import MqttTable

if TYPE_CHECKING:
    from agent.records import I32, I64, U8, U16, U32, U64, BoolArray

FIN, SYN, RST = 1, 2, 4
DEFAULT_PORTS = frozenset({1883})
_WALK = (65_536, 4, 64)
_FOLLOW = (32_768, 2, 32)
"""Headers walked: at most saved up; earned by a segment; by a millisecond of capture. Walking one costs about 0.3 us
and following 1: a frame's share is a few us at any rate, and at low rates a few per cent of a core pay for all."""
_MAX_LEARNED = 256
"""Ports learned from CONNECTs; past this, those of flows still known are kept."""


def empty_table() -> MqttTable:
    """No control packet."""
    return _table(np.zeros(0, np.int64), None, None)


class MqttStreams:
    """The control packets of one capture source's MQTT flows.

    `ports`: TCP ports on which every payload is taken for MQTT. `max_flows`: flows remembered.
    `salt`: what makes hashes unforeseeable; random live, fixed in a replay.
    """

    def __init__(
        self,
        *,
        ports: frozenset[int] = DEFAULT_PORTS,
        max_flows: int = 8192,
        salt: int = 0,
    ) -> None:
        self._configured = np.zeros(1 << 16, bool)
        self._configured[list(ports)] = True
        self._watched = self._configured.copy()
        self._n_learned = 0
        self._salt = make_salt(salt)
        self._flows = FlowTable(max_flows)
        self._syns = SynTable()
        self._batch = 0
        self._walk_purse = Purse(*_WALK)
        self._follow_purse = Purse(*_FOLLOW)
        self._counts = dict.fromkeys(
            (
                "packets",
                "extrapolated",
                "flows_created",
                "losses",
                "resyncs",
                "followed_segments",
                "unread_segments",
                "over_budget_segments",
            ),
            0,
        )

    def counters(self) -> dict[str, int]:
        """Running totals; `flows` is how many are remembered now."""
        return {
            "flows": len(self._flows),
            "evictions": self._flows.evictions,
            "collisions": self._flows.collisions,
            **self._counts,
        }

    def decode(  # noqa: PLR0913 - the columns of a PacketTable
        self,
        *,
        ts_ns: I64,
        src_hi: U64,
        src_lo: U64,
        dst_hi: U64,
        dst_lo: U64,
        src_port: U16,
        dst_port: U16,
        tcp_flags: U16,
        tcp_seq: U32,
        payload_off: I64,
        payload_len: I32,
        payload_caplen: I32,
        is_tcp: BoolArray,
        buffer: U8,
    ) -> MqttTable:
        """The control packets of a batch; every argument but the buffer is (n,), a PacketTable's column."""
        self._batch += 1
        watched = self._watch(is_tcp, src_port, dst_port, payload_off, payload_caplen, buffer)
        rows = np.flatnonzero(watched & ((payload_len > 0) | (tcp_flags & (FIN | SYN | RST) != 0)))
        if not len(rows):
            return empty_table()
        flags = tcp_flags.take(rows)
        mostly_syns = len(rows) >= LEAST_LATER and 2 * len(rows) > len(tcp_flags)
        if mostly_syns and not (
            (flags & (FIN | SYN | RST) != SYN).any() or payload_len.take(rows).any()
        ):
            addresses, ports = (src_hi, src_lo, dst_hi, dst_lo), (src_port, dst_port)
            first = self._batch << 32
            self._syns.put_later(Openings(addresses, ports, tcp_seq, rows, self._salt, first))
            return empty_table()
        flows = identify(
            src_hi[rows], src_lo[rows], dst_hi[rows], dst_lo[rows], src_port[rows], dst_port[rows],
            self._salt,
        )  # fmt: skip
        seq = tcp_seq[rows].astype(np.int64) + (flags & SYN != 0)
        seq &= 0xFFFF_FFFF
        opening = np.flatnonzero(flags & SYN)
        if len(opening):
            stamp = (self._batch << 32) + rows[opening]
            self._syns.put(flows.take(opening), seq[opening], stamp)
        filled = np.flatnonzero(payload_len[rows] > 0)
        table = None
        if len(filled):
            at = rows[filled]
            segments = Segments(
                at,
                seq[filled],
                payload_off[at],
                payload_len[at].astype(np.int64),
                payload_caplen[at].astype(np.int64),
            )
            groups = group(segments, flows.take(filled), self._flows, self._configured, buffer)
            if groups is not None:
                newest_ns = int(ts_ns[-1])  # order is the order of capture; times may go backwards
                self._walk_purse.refill(len(groups.row), newest_ns)
                self._follow_purse.refill(len(groups.row), newest_ns)
                table = self._read(groups, buffer)
        closing = np.flatnonzero(flags & (FIN | RST))
        if len(closing) and len(self._flows):
            reset = flags[closing] & RST != 0
            self._close(rows[closing], flows.take(closing), seq[closing], reset)
        return empty_table() if table is None else table

    def _watch(
        self,
        is_tcp: BoolArray,
        src_port: U16,
        dst_port: U16,
        payload_off: I64,
        payload_caplen: I32,
        buffer: U8,
    ) -> BoolArray:
        """Rows whose ports are watched, after learning those to which a CONNECT goes."""
        watched = self._watched[src_port] | self._watched[dst_port]
        watched &= is_tcp
        others = np.flatnonzero(is_tcp & ~watched & (payload_caplen >= 9))
        if len(others):
            at = payload_off[others]
            opens = opens_with_connect(buffer, at, payload_caplen[others], buffer[at])
            others = others[opens]
        if len(others):
            if self._n_learned > _MAX_LEARNED:
                self._relearn()
            self._watched[dst_port[others]] = True
            self._n_learned = int(np.count_nonzero(self._watched & ~self._configured))
            watched = self._watched[src_port] | self._watched[dst_port]
            watched &= is_tcp
        return watched

    def _relearn(self) -> None:
        """Watch the configured ports and those of servers of flows still known."""
        self._watched = self._configured.copy()
        slots = np.fromiter(self._flows.slot_of.values(), np.int64, len(self._flows))
        slots = slots[self._flows.client[slots] >= 0]
        ports = self._flows.key[slots, 4]
        server = np.where(
            self._flows.client[slots] == 0, ports & np.uint64(0xFFFF), ports >> np.uint64(16)
        )
        self._watched[server.astype(np.int64)] = True

    def _read(self, groups: Groups, buffer: U8) -> MqttTable:
        """Walk, decide what of it is right, follow the rest, read the fields, remember."""
        walked = _walk_in_order(buffer, groups, self._walk_purse)
        client = groups.clients(self._configured, self._flows)
        epochs = make_epochs(groups, walked, self._flows, self._syns, self._batch)
        followed = follow_slow(groups, walked, epochs, self._flows, buffer, self._follow_purse)
        found = collect(groups, walked, epochs, followed)
        self._remember(groups, epochs, client)
        slot = groups.slot
        live = slot >= 0
        context = Context(
            np.where(live, self._flows.level[slot], 0).astype(np.uint8),
            live & self._flows.connected[slot],
        )
        group_of = groups.group_of[found.segment]
        packets = Packets(
            buffer=buffer,
            headers=followed.header_bytes(),
            pos=found.pos,
            first=found.first,
            remaining=found.remaining,
            size=found.size,
            count=found.count,
            available=found.available,
            flow=groups.flow_of_group[group_of],
            to_server=(groups.direction == client[groups.flow_of_group])[group_of],
            synchronised=found.synchronised,
            start=found.start,
        )
        fields = read_fields(packets, context)
        self._flows.level[slot[live]] = context.level[live]
        self._flows.connected[slot[live]] = context.connected[live]
        counts = self._counts
        counts["packets"] += int(found.count.sum())
        counts["extrapolated"] += int(found.count[found.extrapolated].sum())
        counts["losses"] += followed.losses + epochs.losses
        counts["resyncs"] += followed.resyncs + epochs.resyncs
        counts["followed_segments"] += epochs.n_followed
        counts["unread_segments"] += epochs.n_unread
        counts["over_budget_segments"] += len(followed.followed.unpaid)
        return _table(found.row, (found, packets.to_server), fields)

    def _remember(self, groups: Groups, epochs: Epochs, client: I64) -> None:
        """Put the streams' state into the table, after making room for flows that are new and were read."""
        flows = self._flows
        last = epochs.last_of_group
        read = epochs.known[last] | epochs.fast[last] | (epochs.opened >= 0)
        worth = np.zeros(len(groups.slot), bool)
        worth[groups.flow_of_group[read]] = True
        new = np.flatnonzero(worth & (groups.slot < 0))
        if len(new):
            at = groups.flows.take(groups.first_of_flow[new])
            self._counts["flows_created"] += len(new)
            groups.slot[new] = flows.insert(at.hash, turn(at.key, at.reverse), self._batch)
        slot = groups.slot
        live = slot >= 0
        flows.used[slot[live]] = self._batch
        flows.client[slot[live]] = client[live]
        of_group = slot[groups.flow_of_group]
        keep = np.flatnonzero(of_group >= 0)
        place = (of_group[keep], groups.direction[keep])
        last = epochs.last_of_group[keep]
        flows.known[place] = epochs.known[last]
        flows.synchronised[place] = epochs.synchronised[last]
        flows.boundary[place] = epochs.boundary[last]
        flows.chain[place] = epochs.chain[last]
        flows.carry_len[place] = epochs.carry_len[last]
        opened = epochs.opened[keep]
        flows.finished[of_group[keep[opened >= 0]]] = False
        flows.opened[place] = np.maximum(opened, flows.opened[place])
        for epoch, carry in epochs.carries.items():
            way = epochs.group[epoch]
            if epochs.last_of_group[way] == epoch and of_group[way] >= 0:
                there = flows.carry[of_group[way], groups.direction[way]]
                there[: len(carry)] = np.frombuffer(carry, np.uint8)
        self._last_row = np.full(flows.max_flows, -1, np.int64)
        first = groups.first_of_group[groups.first_of_flow]
        last_row = np.maximum.reduceat(groups.row, first)
        self._last_row[slot[live]] = last_row[live]

    def _close(self, rows: I64, closing: Flows, seq: I64, reset: BoolArray) -> None:
        """Forget flows that a RST or both directions' FINs in step with them ended, where no payload came after."""
        flows = self._flows
        slot = flows.find(closing.hash, turn(closing.key, closing.reverse))
        hit = np.flatnonzero(slot >= 0)
        if not len(hit):
            return
        slot, direction = slot[hit], closing.reverse[hit].astype(np.int64)
        ahead = seq[hit] - flows.boundary[slot, direction]
        ahead = ((ahead + 0x8000_0000) & 0xFFFF_FFFF) - 0x8000_0000
        near = ((ahead < FAR) & (ahead > -MAX_AHEAD)) | ~flows.known[slot, direction]
        last_row = np.where(flows.used[slot] == self._batch, self._last_row[slot], -1)
        over = np.flatnonzero(near & (rows[hit] >= last_row))
        slot, direction, reset = slot[over], direction[over], reset[hit[over]]
        flows.finished[slot, direction] = True
        flows.free(np.unique(slot[reset | flows.finished[slot].all(axis=1)]))


def _walk_in_order(buffer: U8, groups: Groups, purse: Purse) -> Walk:
    """The walk of the groups' segments, done in the order of capture: memory likes to be read in order."""
    segments, order = groups.segments, groups.order
    walked = walk(buffer, segments.offset, segments.length, segments.captured, purse)
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    return replace(
        walked,
        stop=walked.stop.take(order),
        end=walked.end.take(order),
        packets=walked.packets.take(order),
        payload=place.take(walked.payload),
    )


def _table(row: I64, read: tuple[Found, BoolArray] | None, fields: Fields | None) -> MqttTable:
    """The records' columns; equal packets that follow each other in a frame become one row."""
    if read is None or fields is None:
        fields = Fields(0)
        none = np.zeros(0, np.int64)
        flag = np.zeros(0, bool)
        byte = np.zeros(0, np.uint8)
        first, remaining, count = byte, none.astype(np.int32), none
        extrapolated, to_server, synchronised = flag, flag, flag
        at = none
    else:
        found, to_server = read
        first, remaining, count = found.first, found.remaining, found.count
        extrapolated, synchronised = found.extrapolated, found.synchronised
        at, count = _runs(row, found, fields)
    head = first.take(at)
    return MqttTable(
        row=row.take(at),
        packet_type=head >> np.uint8(4),
        flags=head & np.uint8(15),
        remaining_len=remaining.take(at),
        count=np.minimum(count, np.iinfo(np.int32).max).astype(np.int32),
        extrapolated=extrapolated.take(at),
        to_server=to_server.take(at),
        level=fields.level.take(at),
        connect_flags=fields.connect_flags.take(at),
        keep_alive_s=fields.keep_alive_s.take(at),
        code=fields.code.take(at),
        topic_len=fields.topic_len.take(at),
        wildcard=fields.wildcard.take(at),
        violation=fields.violation.take(at),
        synchronised=synchronised.take(at),
    )


def _runs(row: I64, found: Found, fields: Fields) -> tuple[I64, I64]:
    """The first of each run of packets that are equal in every column, and how many packets each run is."""
    m = len(row)
    same = np.zeros(m, bool)
    same[1:] = (row[1:] == row[:-1]) & (found.first[1:] == found.first[:-1])
    same[1:] &= found.remaining[1:] == found.remaining[:-1]
    maybe = np.flatnonzero(same)
    for column in (
        found.extrapolated,
        found.synchronised,
        fields.level,
        fields.connect_flags,
        fields.keep_alive_s,
        fields.code,
        fields.topic_len,
        fields.wildcard,
        fields.violation,
    ):
        if not len(maybe):
            return np.arange(m), found.count
        maybe = maybe[column[maybe] == column[maybe - 1]]
    same[:] = False
    same[maybe] = True
    begin = np.flatnonzero(~same)
    return begin, np.add.reduceat(found.count, begin) if m else found.count
