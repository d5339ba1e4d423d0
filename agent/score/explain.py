"""Which few features moved a row's score: what is normal for the device is put in, and the row scored again.

Features that say the same of one thing (both sides of a flow, packets and their gaps, a second and its minute)
stand in one topic and are put back together, so that one thing is said once. The topic whose normal values lower
the gate's sum most comes first; what it leaves is asked again, until the row is no longer hostile or enough is
said. It tells what made the row stand out; it claims no cause, and it never changes a verdict.

In: the gate, one row, what is normal: the device's own benign rows (`DeviceNormals`), or until there are enough of
them the median benign training row; each fact says which. Out: `Fact`s, the most telling first. Ties go to the
earlier topic and the lower column, so the same row gives the same facts everywhere. Raises: nothing.
Cost: some ten calls of the gate with a few dozen rows, and only for an event that is told.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from agent.records import Fact

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from agent.features.schema import Schema
    from agent.records import F32, I64
    from agent.score.bundle import Scorer

MAX_FACTS = 4
AT_LEAST = 2
"""Facts that are told even where the first alone explains the verdict: a figure is read beside another."""

ALIKE = 10
"""From here on two figures that are the same number are one thing under two names; below, it is chance."""

TOPICS: Mapping[str, str] = {
    "connections": "tcp_syn tcp_synack syn_answered data_per_syn",
    "services": "services services_one_peer new_services",
    "refusals": "tcp_rst refused_services",
    "odd": "tcp_odd",
    "icmp": "echo_requests echo_replies echo_answered",
    "udp": "udp dns_queries dns_responses",
    "mqtt_sessions": "mqtt_connects mqtt_refused mqtt_answered mqtt_disconnects mqtt_keep_alive_max_s",
    "mqtt_publishes": "mqtt_messages mqtt_publishes mqtt_deliveries mqtt_publish_bytes mqtt_dup "
    "mqtt_per_packet",
    "mqtt_subscribes": "mqtt_subscribes mqtt_wildcards",
    "mqtt_violations": "mqtt_violations",
    "arp_claims": "arp_replies arp_unasked arp_contradictions arp_two_way arp_announcements arp_macs "
    "arp_mac_addresses mixed_macs",
    "arp_search": "arp_requests arp_targets arp_unanswered",
    "peers": "peers new_peers unanswered_peers folded",
    "tls": "tls_hellos tls_alerts tls_data",
    "tcp": "tcp_ack tcp_data",
    "unreachable": "unreachables",
    "broken": "fragments malformed",
    "volume": "packets bytes gap_mean_us gap_std_us gap_max_us active out_in_packets group_packets",
    "sizes": "size_mean size_std size_max payload_share",
}
"""What is one thing, by names without side and horizon; of equal weight, the earlier is told. A test holds every
feature of `ip-1` to exactly one."""

_TOPIC_OF = {base: topic for topic, bases in TOPICS.items() for base in bases.split()}


def topic_of(feature: str) -> str:
    """The topic of a feature; its own name where no topic knows it."""
    base = feature.removesuffix("_1s").removesuffix("_60s")
    bare = base.removeprefix("out_").removeprefix("in_")
    return _TOPIC_OF.get(base) or _TOPIC_OF.get(bare, base)


@dataclass(slots=True)
class Reasons:
    """The reasons of one verdict of the model (`records.Why`), worked out when they are asked for."""

    schema: Schema
    gate: Scorer
    threshold: int
    """The gate's: from there on a row is hostile."""
    row: F32
    """(n_features,) the row itself; a copy, for the matrix it came from goes away."""
    own: tuple[int, ...]
    """Columns of the kind's own figures: what a reader looks for first."""
    columns: I64
    """The columns that the gate asks about."""
    training: F32
    """(n_features,) the median benign training row."""
    history: F32 | None = None
    """(k, n_features) benign rows of the device itself; None: not enough are known."""
    _facts: tuple[Fact, ...] | None = None

    def facts(self) -> tuple[Fact, ...]:
        """As `records.Why`; worked out once."""
        if self._facts is None:
            self._facts = self._work_out()
        return self._facts

    def _work_out(self) -> tuple[Fact, ...]:
        normal, whose = self._normal()
        by_topic = _columns_by_topic(self.schema)
        own = _first_of_topics(self.schema, [c for c in self.own if self.row[c]])
        told = own + telling_columns(
            self.gate,
            self.row,
            normal,
            {topic: columns[np.isin(columns, self.columns)] for topic, columns in by_topic.items()},
            said={topic_of(self.schema.features[c].name): c for c in own},
            n_most=MAX_FACTS - len(own),
            threshold=self.threshold,
        )
        return tuple(
            Fact(
                feature=self.schema.features[c].name,
                value=float(self.row[c]),
                normal=float(normal[c]),
                normal_of=whose,
            )
            for c in told[:MAX_FACTS]
        )

    def _normal(self) -> tuple[F32, str]:
        """What is normal, and whose it is: the training's where a device's own looks hostile."""
        if self.history is not None:
            own = lower_median(self.history)
            if self.gate.sums(own[None, :])[0, 0] < self.threshold:
                return own, "device"
        return self.training, "training"


def lower_median(rows: F32) -> F32:
    """By column, the middle value that really occurred (the lower one of two), so that counts stay whole."""
    middle = (len(rows) - 1) // 2
    return np.asarray(np.partition(rows, middle, axis=0)[middle], np.float32)


def telling_columns(
    gate: Scorer,
    row: F32,
    normal: F32,
    topics: Mapping[str, I64],
    *,
    said: Mapping[str, int] | None = None,
    n_most: int = MAX_FACTS,
    threshold: int,
) -> list[int]:
    """At most `n_most` columns, one a topic, whose normal values take the gate's sum of `row` down, in order.

    `row`, `normal`: float32 (n_features,). `topics`: the columns that may be told, by topic. `said`: topics of
    which a column is told already; they are put back first. Ends below `threshold` once `AT_LEAST` are told. A
    figure that is the same number as one told before (all packets are UDP) says nothing new and is passed over.
    """
    said = said or {}
    left = {t: c[row[c] != normal[c]] for t, c in topics.items()}
    state = row.copy()
    for topic in said:
        columns = left.pop(topic, None)
        if columns is not None:
            state[columns] = normal[columns]
    left = {t: c for t, c in left.items() if len(c)}
    told: list[int] = []
    while left and len(told) < n_most:
        names = list(left)
        rows = np.repeat(state[None, :], len(names) + 1, axis=0)  # the last one is the state itself
        for k, name in enumerate(names):
            rows[k, left[name]] = normal[left[name]]
        sums = gate.sums(rows)[:, 0]
        if sums[-1] < threshold and len(told) + len(said) >= AT_LEAST:
            break
        best = int(np.argmin(sums[:-1]))
        if sums[best] >= sums[-1]:
            break
        columns = left.pop(names[best])
        found = _spokesman(gate, state, rows[best], columns)
        if row[found] < ALIKE or not any(row[found] == row[c] for c in (*said.values(), *told)):
            told.append(found)
        state = rows[best]
    return told or ([] if said else _alone(gate, row, normal, left))


def _spokesman(gate: Scorer, before: F32, after: F32, columns: I64) -> int:
    """Of a topic's columns the one that alone brings most of the sum back; of equals, that alone takes most away."""
    n = len(columns)
    rows = np.concatenate([np.repeat(after[None, :], n, 0), np.repeat(before[None, :], n, 0)])
    rows[np.arange(n), columns] = before[columns]
    rows[n + np.arange(n), columns] = after[columns]
    sums = gate.sums(rows)[:, 0]
    return int(columns[np.lexsort((columns, sums[n:], -sums[:n]))[0]])


def _alone(gate: Scorer, row: F32, normal: F32, topics: Mapping[str, I64]) -> list[int]:
    """Where no topic's absence lowers the sum (two say the same): the one that alone raises a normal row most."""
    if not topics:
        return []
    names = list(topics)
    rows = np.repeat(normal[None, :], len(names) + 1, axis=0)
    for k, name in enumerate(names):
        rows[k, topics[name]] = row[topics[name]]
    sums = gate.sums(rows)[:, 0]
    best = int(np.argmax(sums[:-1]))
    if sums[best] <= sums[-1]:
        return []
    return [_spokesman(gate, rows[best], rows[-1], topics[names[best]])]


def _first_of_topics(schema: Schema, columns: Sequence[int]) -> list[int]:
    """Of the columns the first of each topic."""
    first: dict[str, int] = {}
    for column in columns:
        first.setdefault(topic_of(schema.features[column].name), column)
    return list(first.values())


@lru_cache(maxsize=4)
def _columns_by_topic(schema: Schema) -> dict[str, I64]:
    """The columns of each topic, in the order of `TOPICS`."""
    found: dict[str, list[int]] = {topic: [] for topic in TOPICS}
    for column, feature in enumerate(schema.features):
        found.setdefault(topic_of(feature.name), []).append(column)
    return {topic: np.array(columns, np.int64) for topic, columns in found.items() if columns}
