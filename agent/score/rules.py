"""Detections that need no model and go on without one: a table of figures and their limits.

Each rule is a row of `RULES`: a kind, whose row it reads (the attacker's or the victim's), the figure,
its limit, and guards that benign look-alikes do not pass. It never keeps state of its own: what
reaches over a minute is in the features' long horizon. A limit says what it must stay above.

In: a FeatureMatrix of the schema that it was built for. Out: a Verdict for each row and rule that
holds; many attackers of one victim in one slice become one distributed verdict.
Raises: `KeyError` at construction where the schema lacks a rule's feature (our own bug).
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING

import numpy as np

from agent.records import MAC_HI, NOBODY, Endpoint, Fact, FeatureMatrix, Verdict

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agent.features.schema import Schema
    from agent.records import BoolArray

SPOOFED_SOURCES = 16
"""More new sources than this in one slice: made-up addresses. A ward's reconnect storm comes from known hosts."""

DISTRIBUTED_ATTACKERS = 3
"""From this many attackers of one victim in one slice on, they are one distributed attack."""

PROBED_PORTS = 2
"""Ports of one host that one peer addressed from which the rows tell who it was; each client addresses one."""

MAX_VERDICTS = 512
"""A slice; what a flood adds to that says nothing new. Above a ward's number of hosts."""


class Role(StrEnum):
    """Whose row a rule reads."""

    ATTACKER = "attacker"  # victim: the peer that it sent most to
    SCANNER = "scanner"  # victim: the peer on which it addressed the most ports
    SWEEPER = "sweeper"  # the victims are many
    VICTIM = "victim"  # attacker: the peer that sent it most
    IMPERSONATED = "impersonated"  # attacker: the MAC that claims its address


@dataclass(frozen=True)
class Rule:
    """`kind` where `figure` is at least `limit` and every guard holds."""

    kind: str
    role: Role
    figure: str
    limit: float
    at_least: tuple[tuple[str, float], ...] = ()
    at_most: tuple[tuple[str, float], ...] = ()
    count: str | None = None
    """The feature that counts hostile packets; the figure itself where None."""


RULES: tuple[Rule, ...] = (
    # Scans: a client of a ward addresses a handful of services; a scan addresses closed ones.
    Rule(
        "port_scan",
        Role.SCANNER,
        "out_services_one_peer_60s",
        20,
        at_least=(("out_new_services_1s", 1),),
        at_most=(("out_data_per_syn_60s", 0.5),),
        count="out_packets_60s",
    ),
    # Decoys and distributed scans show at the victim only.
    Rule(
        "port_scan",
        Role.VICTIM,
        "in_services_1s",
        40,
        at_least=(("out_refused_services_1s", 10),),
        at_most=(("in_services_one_peer_1s", 20),),
        count="in_packets_1s",
    ),
    # Sweeps: what is asked for and does not answer. A monitoring station's hosts answer.
    Rule(
        "ping_sweep",
        Role.SWEEPER,
        "out_unanswered_peers_60s",
        12,
        at_least=(("out_echo_requests_60s", 8), ("out_echo_requests_1s", 1)),
        count="out_echo_requests_60s",
    ),
    Rule(
        "ping_sweep",
        Role.SWEEPER,
        "out_unanswered_peers_60s",
        12,
        at_least=(("out_tcp_syn_60s", 12), ("out_tcp_syn_1s", 1)),
        at_most=(("out_services_one_peer_60s", 6), ("out_data_per_syn_60s", 0.5)),
        count="out_tcp_syn_60s",
    ),
    Rule(
        "ping_sweep",
        Role.SWEEPER,
        "out_arp_unanswered_60s",
        16,
        at_least=(("out_arp_targets_1s", 1),),
        count="out_arp_targets_60s",
    ),
    # nmap -O sends six probes with flags that no stack sends; a scan by such flags sends many more.
    Rule(
        "os_scan",
        Role.ATTACKER,
        "out_tcp_odd_60s",
        3,
        at_least=(("out_tcp_odd_1s", 1),),
        at_most=(("out_tcp_odd_60s", 40),),
    ),
    # ARP: two-way lies need no knowledge of the ward. That an address has another MAC now does: a failover
    # says so at each announcement and for each host that the new holder asks for, until the old one has been
    # silent for a minute. What it lacks: an old holder that goes on sending (a failover changes the MAC once,
    # with an overlap three times; relayed frames and claims beside a living holder change it for ever), or
    # hosts that are told again and again, unasked.
    Rule(
        "arp_spoofing",
        Role.IMPERSONATED,
        "out_arp_two_way_60s",
        2,
        at_least=(("out_arp_two_way_1s", 1),),
    ),
    Rule(
        "arp_spoofing",
        Role.IMPERSONATED,
        "out_arp_contradictions_60s",
        3,
        at_least=(("out_arp_contradictions_1s", 1), ("mixed_macs_60s", 4)),
    ),
    Rule(
        "arp_spoofing",
        Role.IMPERSONATED,
        "out_arp_contradictions_60s",
        6,
        at_least=(("out_arp_contradictions_1s", 1), ("out_arp_unasked_60s", 6)),
    ),
    # MQTT: a device connects once; a reconnecting one every few seconds.
    Rule("mqtt_connect_flood", Role.ATTACKER, "out_mqtt_connects_1s", 40),
    Rule(
        "mqtt_connect_flood",
        Role.ATTACKER,
        "out_mqtt_connects_60s",
        60,
        at_least=(("out_mqtt_connects_1s", 1),),
        at_most=(("out_mqtt_violations_60s", 2),),
    ),
    Rule(
        "mqtt_connect_flood",
        Role.ATTACKER,
        "in_mqtt_refused_60s",
        20,
        at_least=(("out_mqtt_connects_1s", 1),),
        count="out_mqtt_connects_60s",
    ),
    # What a client sends; what a broker delivers is another figure. A device that was out of reach sends what
    # it has stored in one burst: a reading a second for twenty minutes is 1,200, besides what it sends anyway.
    Rule(
        "mqtt_publish_flood",
        Role.ATTACKER,
        "out_mqtt_publishes_1s",
        400,
        at_least=(("out_mqtt_publishes_60s", 1300),),
    ),
    Rule(
        "mqtt_malformed",
        Role.ATTACKER,
        "out_mqtt_violations_60s",
        3,
        at_least=(("out_mqtt_violations_1s", 1),),
    ),
    # Floods that no ward traffic resembles; the others are the model's.
    Rule(
        "tcp_syn_flood",
        Role.VICTIM,
        "in_tcp_syn_1s",
        200,
        at_most=(("in_services_1s", 16), ("in_data_per_syn_60s", 0.5)),
    ),
    Rule("icmp_flood", Role.VICTIM, "in_echo_requests_1s", 300),
)
"""Every rule. What reaches over a minute also asks that the slice itself shows some of it: so it ends in time."""


class RulesDetector:
    """Judges a feature matrix by `RULES`."""

    name = "rules"

    def __init__(self, schema: Schema, rules: Sequence[Rule] = RULES) -> None:
        self._rules = tuple(rules)
        self._column = schema.index
        for rule in self._rules:
            for name in (
                rule.figure,
                rule.count or rule.figure,
                *dict(rule.at_least),
                *dict(rule.at_most),
            ):
                self._column[name]
        self.n_suppressed = 0

    def judge(self, matrix: FeatureMatrix) -> list[Verdict]:
        """Verdicts in the order of rows, then of rules."""
        found: list[tuple[int, Verdict]] = []
        for rule in self._rules:
            rows = np.nonzero(self._holds(rule, matrix))[0]
            found += [
                (int(row), self._verdict(rule, matrix, int(row))) for row in rows[:MAX_VERDICTS]
            ]
            self.n_suppressed += max(0, len(rows) - MAX_VERDICTS)
        found.sort(key=lambda pair: pair[0])
        return merge_distributed([verdict for _, verdict in found])

    def _holds(self, rule: Rule, matrix: FeatureMatrix) -> BoolArray:
        values = matrix.values
        holds: BoolArray = values[:, self._column[rule.figure]] >= rule.limit
        for name, limit in rule.at_least:
            holds &= values[:, self._column[name]] >= limit
        for name, limit in rule.at_most:
            holds &= values[:, self._column[name]] <= limit
        return holds

    def _verdict(self, rule: Rule, matrix: FeatureMatrix, row: int) -> Verdict:
        def value(name: str) -> float:
            return float(matrix.values[row, self._column[name]])

        attacker, victim, spoofed, port = parties(rule.role, matrix, row)
        figure = value(rule.figure)
        facts = [Fact(feature=rule.figure, value=figure, limit=rule.limit)]
        facts += [Fact(feature=n, value=value(n), limit=x) for n, x in rule.at_least + rule.at_most]
        subjects = matrix.subjects
        return Verdict(
            detector=self.name,
            kind=rule.kind,
            subject=Endpoint(int(subjects.hi[row]), int(subjects.lo[row])),
            attacker=attacker,
            victim=victim,
            spoofed=spoofed,
            distributed=spoofed,
            start_ns=int(matrix.start_ns[row]),
            end_ns=int(matrix.end_ns[row]),
            margin=int(figure),
            threshold=int(rule.limit),
            score=round(1.0 - 0.5 * rule.limit / figure, 4),
            count=max(1, int(value(rule.count or rule.figure))),
            ports=(port,) if port >= 0 else (),
            facts=tuple(facts),
            count_window_s=60 if (rule.count or rule.figure).endswith("_60s") else 1,
        )


def parties(role: Role, matrix: FeatureMatrix, row: int) -> tuple[Endpoint, Endpoint, bool, int]:
    """Attacker, victim, whether the sources are spoofed, and the port (-1 none) of a row read in a role."""
    s = matrix.subjects
    host = Endpoint(int(s.hi[row]), int(s.lo[row]))
    if role is Role.ATTACKER:
        return (
            host,
            Endpoint(int(s.out_peer_hi[row]), int(s.out_peer_lo[row])),
            False,
            int(s.out_port[row]),
        )
    if role is Role.SCANNER:
        return host, Endpoint(int(s.probed_hi[row]), int(s.probed_lo[row])), False, -1
    if role is Role.SWEEPER:
        return host, NOBODY, False, -1
    if role is Role.IMPERSONATED:
        mac = int(s.rival_mac[row])
        return (Endpoint(MAC_HI, mac) if mac else NOBODY), host, False, -1
    spoofed = int(s.in_new_sources[row]) > SPOOFED_SOURCES
    peer = Endpoint(int(s.in_peer_hi[row]), int(s.in_peer_lo[row]))
    return (NOBODY if spoofed else peer), host, spoofed, int(s.in_port[row])


def prober(matrix: FeatureMatrix, row: int) -> Endpoint | None:
    """Who scanned the row's host, by the rows of its slice; None: whoever did sends nothing in it.

    The peer that sent most may be a client that happens to talk to a scanned server. Whoever addressed
    `in_services_one_peer_60s` ports of it has at least as many `out_services_one_peer_60s`, which no client has.
    """
    subjects, index = matrix.subjects, matrix.schema.index

    def at(k: int) -> Endpoint:
        return Endpoint(int(subjects.hi[k]), int(subjects.lo[k]))

    peer = Endpoint(int(subjects.in_peer_hi[row]), int(subjects.in_peer_lo[row]))
    most = matrix.values[row, index["in_services_one_peer_60s"]]
    if most < PROBED_PORTS:
        return peer  # decoys, a scan of a single service: anybody can have done that
    begin, end = np.searchsorted(matrix.end_ns, matrix.end_ns[row] + np.array([0, 1]))
    tried = matrix.values[begin:end, index["out_services_one_peer_60s"]]
    could = [int(begin + k) for k in np.flatnonzero(tried >= most) if begin + k != row]
    if not could:
        return None
    host = at(row)

    def likely(k: int) -> tuple[bool, bool, float]:
        probed = Endpoint(int(subjects.probed_hi[k]), int(subjects.probed_lo[k]))
        return probed == host, at(k) == peer, float(tried[k - begin])

    return at(max(could, key=likely))


def merge_distributed(verdicts: list[Verdict]) -> list[Verdict]:
    """Many attackers of one victim, by one kind, in one slice, become one verdict without an attacker."""
    groups: dict[tuple[str, Endpoint, int], list[Verdict]] = defaultdict(list)
    for verdict in verdicts:
        groups[verdict.kind, verdict.victim, verdict.end_ns].append(verdict)
    out = []
    for (_, victim, _), group in groups.items():
        attackers = {v.attacker for v in group if v.attacker.hi != MAC_HI} - {NOBODY}
        if victim == NOBODY or len(attackers) < DISTRIBUTED_ATTACKERS:
            out += group
            continue
        loudest = max(group, key=lambda v: v.count)
        count = sum(v.count for v in group)
        out.append(replace(loudest, attacker=NOBODY, distributed=True, count=count))
    return out
