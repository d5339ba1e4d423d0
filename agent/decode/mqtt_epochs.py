"""Which segments' walks are right: segments grouped by flow and direction, cut into epochs, judged all at once.

An epoch is a stretch of one direction of a flow without a new connection or a jump of sequence numbers in it.
Where every segment of an epoch was walked exactly to its end and starts where the one before it ended, and the
first starts where the flow's next control packet does (or nothing is known of that), the walks are right. A
segment whose walk ran out of budget ends its epoch: it is counted, and the stream is out of step after it. Other
epochs are followed one segment after the other (`mqtt_follow`), or left unread where nothing in them reads as MQTT.

In: `Groups` and their `Walk`, the tables of `mqtt_flows`. Out: `Epochs`, with the streams' state after each, and
`Results` of following. Raises: nothing. Remembers: nothing; the tables are read, not changed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from agent.decode.mqtt_flows import CARRY_BYTES, FlowTable, SynTable
from agent.decode.mqtt_follow import (
    CHAIN,
    FAR,
    MAX_AHEAD,
    SEGMENT_STEPS,
    Followed,
    Segment,
    Stream,
    follow,
)
from agent.decode.mqtt_groups import Groups
from agent.decode.mqtt_scan import Purse, Stop
from agent.decode.mqtt_walk import Walk

if TYPE_CHECKING:
    from agent.records import I64, U8, BoolArray


@dataclass(slots=True, kw_only=True)
class Epochs:
    """Epochs (e,) in the order of the segments, and what each leaves of its stream."""

    begin: I64
    end: I64
    """Segments [begin, end)."""
    group: I64
    of_segment: I64
    """(n,)"""
    last_of_group: I64
    """(g,)"""
    opened: I64
    """(g,) the stamp of the newest SYN that the group's segments follow, -1 none."""
    fast: BoolArray
    """The walks are right."""
    slow: BoolArray
    """To be followed."""
    near: BoolArray
    """Goes on from the flow table's state."""
    start: BoolArray
    """Begins a connection: at `boundary` as long as the epoch was not read."""
    fresh: BoolArray
    """The first segment's first byte is its stream's first."""
    segment_synchronised: BoolArray
    """(n,) for the segments of fast epochs."""
    known: BoolArray
    synchronised: BoolArray
    boundary: I64
    chain: I64
    carry_len: I64
    carries: dict[int, bytes] = field(default_factory=dict)
    losses: int = 0
    resyncs: int = 0

    @property
    def n_followed(self) -> int:
        """Segments in epochs to be followed."""
        return int((self.end - self.begin)[self.slow].sum())

    @property
    def n_unread(self) -> int:
        """Segments in epochs that do not read as MQTT."""
        return int((self.end - self.begin)[~(self.slow | self.fast)].sum())


def _signed(difference: I64) -> I64:
    return ((difference + 0x8000_0000) & 0xFFFF_FFFF) - 0x8000_0000


def make_epochs(
    groups: Groups, walked: Walk, table: FlowTable, syns: SynTable, batch: int
) -> Epochs:
    """Cut the groups into epochs, decide about each, and fill in the state after those that are right."""
    n = len(groups.row)
    end_seq = groups.seq + groups.length
    step = np.zeros(n, np.int64)
    step[1:] = _signed(groups.seq[1:] - end_seq[:-1])
    new_epoch = groups.new_group | (np.abs(step) >= FAR)
    spent = (walked.stop == Stop.BUDGET) & (walked.packets >= CHAIN - 1)
    new_epoch[1:] |= spent[:-1]
    begin_at, opened, opens, first_seq = _openings(groups, table, syns, batch)
    new_epoch[begin_at[opens]] = True
    begin = np.flatnonzero(new_epoch)
    end = np.append(begin[1:], n)
    of_segment = np.cumsum(new_epoch) - 1
    group = groups.group_of[begin]
    e = len(begin)
    start = np.zeros(e, bool)
    boundary = groups.seq[begin].copy()
    opening = of_segment[begin_at[opens]]
    close = np.abs(_signed(groups.seq[begin[opening]] - first_seq[opens])) < FAR
    start[opening[close]] = True
    boundary[opening[close]] = first_seq[opens][close]

    slot = groups.slot[groups.flow_of_group[group]]
    way = groups.direction[group]
    near = groups.new_group[begin] & (slot >= 0) & table.known[slot, way] & ~start
    needed = table.boundary[slot, way] + table.carry_len[slot, way]
    ahead = _signed(needed - groups.seq[begin])
    near &= (ahead > -FAR) & (ahead < MAX_AHEAD)
    ready = ~near | ((ahead == 0) & (table.carry_len[slot, way] == 0))
    ready &= ~start | (boundary == groups.seq[begin])

    landed = walked.stop == Stop.LANDED
    clean = np.logical_and.reduceat((landed | spent) & (new_epoch | (step == 0)), begin)
    partly = (walked.stop == Stop.CUT) & (walked.packets >= CHAIN - 1)
    usable = np.logical_or.reduceat(landed | groups.greets | partly | spent, begin)
    fast = clean & ready
    slow = ~fast & (near | start | usable)

    greets = groups.greets[begin] & ~near
    in_step = start | greets
    in_step |= near & table.synchronised[slot, way]
    chain = np.where(near, table.chain[slot, way], 0)
    total = np.cumsum(walked.packets)
    before = total - walked.packets
    in_epoch = before - before[begin][of_segment]
    segment_synchronised = (in_step[of_segment]) | (chain[of_segment] + in_epoch >= CHAIN)
    after = np.minimum(chain + total[end - 1] - before[begin], 1 << 20)
    goes_on = fast & ~spent[end - 1]
    lost = fast & spent[end - 1] & segment_synchronised[end - 1]
    left = groups.new_group[begin] & (slot >= 0) & table.synchronised[slot, way] & ~near & ~start
    return Epochs(
        begin=begin,
        end=end,
        group=group,
        of_segment=of_segment,
        last_of_group=np.append(np.flatnonzero(group[1:] != group[:-1]), e - 1),
        opened=opened,
        fast=fast,
        slow=slow,
        near=near,
        start=start,
        fresh=start | greets,
        segment_synchronised=segment_synchronised,
        known=goes_on,
        synchronised=goes_on & (in_step | (after >= CHAIN)),
        boundary=np.where(fast, end_seq[end - 1] & 0xFFFF_FFFF, boundary),
        chain=np.where(goes_on, after, 0),
        carry_len=np.zeros(e, np.int64),
        losses=int(np.count_nonzero(left) + np.count_nonzero(lost)),
        resyncs=int(np.count_nonzero(greets & fast & ~start)),
    )


def _openings(
    groups: Groups, table: FlowTable, syns: SynTable, batch: int
) -> tuple[I64, I64, BoolArray, I64]:
    """Where in each group a new connection begins: (g,) segment, stamp of its SYN, whether at all, first number."""
    at = groups.first_of_group
    first_seq, stamp = syns.find(groups.flows)
    slot = groups.slot[groups.flow_of_group]
    used = np.where(slot >= 0, table.opened[slot, groups.direction], -1)
    new = stamp > used
    now = stamp >> 32 == batch
    syn_row = np.where(now, stamp & 0xFFFF_FFFF, -1)
    earlier = np.add.reduceat(groups.row < syn_row[groups.group_of], at)
    size = np.diff(np.append(at, len(groups.row)))
    opens = new & (earlier < size)
    return (
        np.minimum(at + earlier, len(groups.row) - 1),
        np.where(opens, stamp, -1),
        opens,
        first_seq,
    )


@dataclass(slots=True)
class Results:
    """What following found in a batch, and what it could not afford."""

    followed: Followed

    @property
    def losses(self) -> int:
        """Streams that fell out of step."""
        return self.followed.losses

    @property
    def resyncs(self) -> int:
        """Streams that a CONNECT put in step."""
        return self.followed.resyncs

    def header_bytes(self) -> U8:
        """Headers put together from parts, `CARRY_BYTES` each."""
        joined = b"".join(h.ljust(CARRY_BYTES, b"\0") for h in self.followed.headers)
        return np.frombuffer(joined, np.uint8)


def follow_slow(
    groups: Groups, walked: Walk, epochs: Epochs, table: FlowTable, buffer: U8, purse: Purse
) -> Results:
    """Follow the epochs that need it, and note what they leave of their streams."""
    followed = Followed()
    chosen = np.flatnonzero(epochs.slow)
    if not len(chosen):
        return Results(followed)

    def payload(segment: Segment, begin: int, end: int) -> bytes:
        end = min(end, segment.captured)
        return buffer[segment.offset + begin : segment.offset + max(end, begin)].tobytes()

    size = (epochs.end - epochs.begin)[chosen]
    paid = (np.cumsum(size) - size) * SEGMENT_STEPS < purse.steps
    for epoch in chosen[~paid].tolist():
        followed.unpaid += range(epochs.begin[epoch], epochs.end[epoch])
    chosen, size = chosen[paid], size[paid]
    at = np.repeat(epochs.begin[chosen] - np.append(0, np.cumsum(size)[:-1]), size)
    at += np.arange(len(at))
    columns = (
        at,
        groups.row[at],
        groups.seq[at],
        groups.length[at],
        groups.captured[at],
        groups.offset[at],
        walked.stop[at],
        walked.end[at],
        walked.packets[at],
        groups.greets[at],
    )
    segments = list(map(Segment, *(c.tolist() for c in columns)))
    begin = 0
    for epoch, n in zip(chosen.tolist(), size.tolist(), strict=True):
        stream = _stream_before(groups, epochs, table, epoch)
        follow(stream, segments[begin : begin + n], payload, followed, purse)
        begin += n
        epochs.known[epoch] = stream.known
        epochs.synchronised[epoch] = stream.synchronised
        epochs.boundary[epoch] = stream.boundary
        epochs.chain[epoch] = min(stream.chain, 1 << 20)
        epochs.carry_len[epoch] = len(stream.carry)
        if stream.carry:
            epochs.carries[epoch] = stream.carry
    return Results(followed)


def _stream_before(groups: Groups, epochs: Epochs, table: FlowTable, epoch: int) -> Stream:
    if epochs.start[epoch]:
        return Stream(
            known=True, synchronised=True, boundary=int(epochs.boundary[epoch]), fresh=True
        )
    if not epochs.near[epoch]:
        return Stream()
    group = epochs.group[epoch]
    slot, way = groups.slot[groups.flow_of_group[group]], groups.direction[group]
    return Stream(
        known=True,
        synchronised=bool(table.synchronised[slot, way]),
        boundary=int(table.boundary[slot, way]),
        chain=int(table.chain[slot, way]),
        carry=table.carry[slot, way, : table.carry_len[slot, way]].tobytes(),
    )
