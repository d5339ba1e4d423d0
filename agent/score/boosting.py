"""The bundle's model as a detector: a gate that sees every row, and kinds that see only what the gate flags.

Decisions are on whole numbers: a row is flagged from the gate's integer threshold on, its kind is the largest of
the kinds' integer sums, and it is reported where that leads the sum of `benign` by the bundle's lead. Sigmoid and
softmax make the displayed score, nothing else. Roles (who attacks whom) come from the row's own figures by a
table, not from the model. It never looks at a frame, and it keeps no state but counts.

In: `FeatureMatrix` of the bundle's schema. Out: `Verdict`s in the matrix's order, at most `MAX_VERDICTS` a slice,
the rest counted. Raises: `BundleError` (schema) on a matrix of another schema.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from agent.records import MAC_HI, NOBODY, Endpoint, Fact, FeatureMatrix, Verdict
from agent.score.bundle import check_schema
from agent.score.explain import MAX_FACTS, Reasons
from agent.score.rules import SPOOFED_SOURCES, prober

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from agent.records import I64, BoolArray
    from agent.score.bundle import Bundle

MAX_VERDICTS = 512
"""A slice: far above what a ward's attack needs (its victims and its sources), far below what would delay."""

MAX_EXPLAINED = 64
"""Verdicts a slice whose reasons can be asked for, at a kilobyte each; the others tell their kind's own figures."""


FLOOD_NOW = 10
"""Packets or messages of its kind in the slice itself from which a flood is still one; a ward's own come in ones."""


class Tell(NamedTuple):
    """How a row of some kind shows whether its host is the victim or the attacker, and that it goes on now."""

    victim: tuple[str, ...]
    """Features whose sum is the hostile count if the host is the victim."""
    attacker: tuple[str, ...]
    many_victims: bool = False
    """A sweep or spoofing tool goes for many: the finding names no single victim."""
    claims: bool = False
    """ARP and ND claims stand in the rows of those who are claimed and who are told; who forges them is a MAC."""
    probed: bool = False
    """A scan's victim is the host on which most ports were addressed, not the one that most packets went to."""
    server: bool = False
    """A broker forwards what it is flooded with: a host that others address as clients is the victim."""
    victim_now: tuple[str, ...] = ()
    """Features of the slice itself, whose sum shows that the victim is attacked in it and not just before."""
    attacker_now: tuple[str, ...] = ()
    at_least_now: int = 1
    at_least_victim_now: int = 3
    """More than for the attacker's row: a ward's own clients, too, come to a victim in ones."""


def _flood(figures: tuple[str, ...], besides: tuple[str, ...] = ()) -> Tell:
    """A flood's own figures on either side, and what else (inside TLS, say) shows that it goes on."""
    victim, attacker = (tuple(f"{side}_{f}" for f in figures) for side in ("in", "out"))
    return Tell(
        victim,
        attacker,
        victim_now=victim + tuple(f"in_{f}" for f in besides),
        attacker_now=attacker + tuple(f"out_{f}" for f in besides),
        at_least_now=FLOOD_NOW,
        at_least_victim_now=FLOOD_NOW,
    )


TELLS: Mapping[str, Tell] = {
    "tcp_syn_flood": _flood(("tcp_syn_1s",)),
    "tcp_flood": _flood(("tcp_ack_1s", "tcp_data_1s", "tcp_odd_1s"), ("packets_1s",)),
    "udp_flood": _flood(("udp_1s",)),
    "icmp_flood": _flood(("echo_requests_1s",)),
    "mqtt_connect_flood": Tell(
        ("in_mqtt_connects_60s",),
        ("out_mqtt_connects_60s",),
        victim_now=("in_mqtt_connects_1s", "in_tls_hellos_1s", "in_tcp_syn_1s"),
        attacker_now=("out_mqtt_connects_1s", "out_tls_hellos_1s", "out_tcp_syn_1s"),
    ),
    "mqtt_publish_flood": _flood(("mqtt_publishes_1s",), ("tls_data_1s",))._replace(server=True),
    "mqtt_malformed": Tell(
        ("in_mqtt_violations_60s",),
        ("out_mqtt_violations_60s",),
        victim_now=("in_mqtt_messages_1s", "in_tls_data_1s"),
        attacker_now=("out_mqtt_messages_1s", "out_tls_data_1s"),
    ),
    "ping_sweep": Tell(
        ("in_echo_requests_60s",),
        ("out_echo_requests_60s", "out_arp_targets_60s"),
        many_victims=True,
        victim_now=("in_echo_requests_1s", "in_arp_requests_1s", "in_tcp_syn_1s"),
        attacker_now=("out_echo_requests_1s", "out_arp_targets_1s", "out_tcp_syn_1s"),
    ),
    "port_scan": Tell(
        ("in_services_60s",),
        ("out_services_60s",),
        probed=True,
        victim_now=("in_new_services_1s",),
        attacker_now=("out_new_services_1s",),
    ),
    "os_scan": Tell(
        ("in_services_60s", "in_tcp_odd_60s"),
        ("out_services_60s", "out_tcp_odd_60s"),
        probed=True,
        victim_now=("in_new_services_1s", "in_tcp_odd_1s"),
        attacker_now=("out_new_services_1s", "out_tcp_odd_1s"),
    ),
    "vulnerability_scan": Tell(
        ("in_services_60s",),
        ("out_services_60s",),
        probed=True,
        victim_now=("in_tcp_syn_1s",),
        attacker_now=("out_tcp_syn_1s",),
    ),
    "arp_spoofing": Tell(
        ("in_arp_unasked_60s", "out_arp_unasked_60s"),
        (),
        claims=True,
        victim_now=("in_arp_unasked_1s", "out_arp_unasked_1s"),
        at_least_victim_now=1,
    ),
}
"""By kind, for schema `ip-1`; a test holds every name against the schema."""

IN_SERVICES = "in_services_60s"


@dataclass(frozen=True, slots=True)
class _Roles:
    """Who does what to whom, by one row."""

    attacker: Endpoint
    victim: Endpoint
    count: int
    count_window_s: int
    is_attacker: bool


class BoostingDetector:
    """A bundle as one of the pipeline's detectors."""

    name = "boosting"

    def __init__(
        self,
        bundle: Bundle,
        *,
        tells: Mapping[str, Tell] = TELLS,
        max_explained: int = MAX_EXPLAINED,
    ) -> None:
        """`max_explained`: verdicts a slice whose reasons can be asked for."""
        self.bundle = bundle
        self._max_explained = max_explained
        self._tells = tells
        self._classes = bundle.manifest.kinds.classes
        self._counts: Counter[str] = Counter()
        self._judged: FeatureMatrix | None = None
        self._margins = np.zeros(0, np.int64)

    def counters(self) -> Mapping[str, int]:
        """Running totals: rows seen, flagged, taken back by the kinds, lingering, verdicts, verdicts over the limit.

        Lingering: flagged for what the long horizon remembers, while the slice itself shows nothing of the kind.
        """
        return dict(self._counts)

    def judge(self, matrix: FeatureMatrix) -> Sequence[Verdict]:
        """Verdicts for the flagged rows, in the matrix's order."""
        check_schema(self.bundle.manifest, matrix.schema)
        margins = self._margins = self.bundle.gate.sums(matrix.values)[:, 0]
        self._judged = matrix
        rows = np.flatnonzero(margins >= self.bundle.manifest.gate.threshold)
        self._counts["rows"] += len(matrix)
        self._counts["flagged"] += len(rows)
        if not len(rows):
            return []
        kinds = self.bundle.kinds.sums(matrix.values[rows])
        best = np.argmax(kinds[:, 1:], axis=1) + 1  # the first of equal sums
        leads = kinds[np.arange(len(rows)), best] - kinds[:, 0]
        kept = leads >= self.bundle.manifest.kinds.lead
        self._counts["taken_back"] += int(np.count_nonzero(~kept))
        scores = self._scores(margins[rows], kinds, best)
        going_on = np.array(
            [
                self._goes_on(matrix, int(row), self._classes[k])
                for row, k in zip(rows, best, strict=True)
            ]
        )
        self._counts["lingering"] += int(np.count_nonzero(kept & ~going_on))
        kept = self._limited(matrix.end_ns[rows], np.flatnonzero(kept & going_on))
        return self._verdicts(matrix, rows[kept], best[kept], margins[rows][kept], scores[kept])

    def benign(self, matrix: FeatureMatrix) -> BoolArray:
        """(n,) rows that the gate does not flag; of the matrix that was judged last, without scoring it again."""
        if matrix is not self._judged:
            self._margins, self._judged = self.bundle.gate.sums(matrix.values)[:, 0], matrix
        return self._margins < self.bundle.manifest.gate.threshold

    def _goes_on(self, matrix: FeatureMatrix, row: int, kind: str) -> bool:
        """Whether the slice itself shows some of the attack, on either side of the host."""
        tell = self._tells[kind]
        if tell.claims and not self._rival(matrix, row):
            return False  # nobody lies in this slice: what is unasked puts caches right again
        if self._figure(matrix, row, tell.attacker_now) >= tell.at_least_now:
            return True
        suffered = self._figure(matrix, row, tell.victim_now)
        if suffered < tell.at_least_victim_now:
            return False
        return not tell.probed or prober(matrix, row) is not None

    def _limited(self, end_ns: I64, kept: I64) -> I64:
        """The first `MAX_VERDICTS` of each slice."""
        if not len(kept):
            return kept
        ends = end_ns[kept]
        first = np.searchsorted(ends, ends)  # rows are ordered by the end of their slice
        within = np.arange(len(kept)) - first < MAX_VERDICTS
        self._counts["verdicts"] += int(np.count_nonzero(within))
        self._counts["over_limit"] += int(np.count_nonzero(~within))
        return kept[within]

    def _scores(self, margins: I64, kinds: I64, best: I64) -> NDArray[np.float64]:
        """In [0, 1]: how likely hostile, times how likely this kind; for display only."""
        manifest = self.bundle.manifest
        hostile = 1.0 / (1.0 + np.exp(-np.clip(margins * manifest.gate.scale, -50, 50)))
        scaled = (kinds - kinds.max(axis=1, keepdims=True)) * manifest.kinds.scale
        odds = np.exp(scaled)
        share = odds[np.arange(len(best)), best] / odds.sum(axis=1)
        return np.asarray(np.round(hostile * share, 4), np.float64)

    def _verdicts(
        self, matrix: FeatureMatrix, rows: I64, best: I64, margins: I64, scores: NDArray[np.float64]
    ) -> list[Verdict]:
        kinds = [self._classes[k] for k in best]
        roles = [self._roles(matrix, int(row), kind) for row, kind in zip(rows, kinds, strict=True)]
        spoofed = matrix.subjects.in_new_sources[rows] > SPOOFED_SOURCES
        several = self._several_attackers(matrix, rows, kinds, roles)
        verdicts = []
        explained: Counter[int] = Counter()
        for k, (row, kind, role) in enumerate(zip(rows, kinds, roles, strict=True)):
            end_ns = int(matrix.end_ns[row])
            explained[end_ns] += 1
            is_spoofed = bool(spoofed[k]) and not role.is_attacker
            own = self._own_figures(matrix, int(row), kind, role)
            verdicts.append(
                Verdict(
                    detector=self.name,
                    kind=kind,
                    subject=_host(matrix, int(row)),
                    attacker=NOBODY if is_spoofed else role.attacker,
                    victim=role.victim,
                    spoofed=is_spoofed,
                    distributed=is_spoofed or several[k],
                    start_ns=int(matrix.start_ns[row]),
                    end_ns=end_ns,
                    margin=int(margins[k]),
                    threshold=self.bundle.manifest.gate.threshold,
                    score=float(scores[k]),
                    count=role.count,
                    count_window_s=role.count_window_s,
                    ports=_ports(matrix, int(row), is_attacker=role.is_attacker),
                    facts=_facts(matrix, int(row), own),
                    why=self._why(matrix, int(row), own)
                    if explained[end_ns] <= self._max_explained
                    else None,
                )
            )
        return verdicts

    def _roles(self, matrix: FeatureMatrix, row: int, kind: str) -> _Roles:
        """Attacker, victim and hostile count of one row, from its own figures."""
        subjects, tell = matrix.subjects, self._tells[kind]
        host = _host(matrix, row)
        suffered = self._figure(matrix, row, tell.victim)
        done = self._figure(matrix, row, tell.attacker)
        if max(done, suffered) < tell.at_least_now:  # a flood of RST or FIN: no figure of its own
            suffered = self._figure(matrix, row, ("in_packets_1s",))
            done = 0.0 if tell.claims else self._figure(matrix, row, ("out_packets_1s",))
        is_attacker = done > suffered
        if tell.server and suffered and self._figure(matrix, row, (IN_SERVICES,)):
            is_attacker = False
        if is_attacker:
            victim = Endpoint(int(subjects.out_peer_hi[row]), int(subjects.out_peer_lo[row]))
            probed = Endpoint(int(subjects.probed_hi[row]), int(subjects.probed_lo[row]))
            if tell.probed and probed != NOBODY:
                victim = probed
            attacker = host
        else:
            victim = host
            attacker = Endpoint(int(subjects.in_peer_hi[row]), int(subjects.in_peer_lo[row]))
            if tell.probed:
                attacker = prober(matrix, row) or attacker
            if tell.claims:
                rival = self._rival(matrix, row)
                attacker = Endpoint(MAC_HI, rival) if rival else NOBODY
        count = max(1, int(done if is_attacker else suffered))
        figures = tell.attacker if is_attacker else tell.victim
        window_s = 60 if figures[0].endswith("_60s") else 1
        return _Roles(
            attacker, NOBODY if tell.many_victims else victim, count, window_s, is_attacker
        )

    @staticmethod
    def _rival(matrix: FeatureMatrix, row: int) -> int:
        """The MAC that claims addresses of others: the row's own rival, or the only one of its slice; 0 unknown."""
        subjects = matrix.subjects
        if subjects.rival_mac[row]:
            return int(subjects.rival_mac[row])
        of_slice = subjects.rival_mac[matrix.end_ns == matrix.end_ns[row]]
        found = np.unique(of_slice[of_slice != 0])
        return int(found[0]) if len(found) == 1 else 0

    def _several_attackers(
        self, matrix: FeatureMatrix, rows: I64, kinds: Sequence[str], roles: Sequence[_Roles]
    ) -> list[bool]:
        """Whether the row's victim is attacked in its slice in the same way by several hosts.

        By two; where the long horizon tells, by three: one of two may have been there a minute ago.
        """
        keys = [
            (int(matrix.end_ns[row]), kind, role.victim)
            for row, kind, role in zip(rows, kinds, roles, strict=True)
        ]
        attackers = Counter(
            key
            for key, role in zip(keys, roles, strict=True)
            if role.is_attacker and role.victim != NOBODY
        )
        return [attackers[key] > 1 + self._tells[key[1]].probed for key in keys]

    def _own_figures(
        self, matrix: FeatureMatrix, row: int, kind: str, role: _Roles
    ) -> tuple[int, ...]:
        """Columns of the kind's own figures of this role that are not 0."""
        tell = self._tells[kind]
        index = matrix.schema.index
        columns = (index[name] for name in (tell.attacker if role.is_attacker else tell.victim))
        return tuple(c for c in columns if matrix.values[row, c])

    def _why(self, matrix: FeatureMatrix, row: int, own: tuple[int, ...]) -> Reasons:
        """What moved the gate's sum, to be worked out if somebody is told."""
        bundle = self.bundle
        return Reasons(
            schema=matrix.schema,
            gate=bundle.gate,
            threshold=bundle.manifest.gate.threshold,
            row=matrix.values[row].copy(),
            own=own,
            columns=bundle.gate_features,
            training=bundle.benign_median,
        )

    @staticmethod
    def _figure(matrix: FeatureMatrix, row: int, names: tuple[str, ...]) -> float:
        return float(sum(matrix.values[row, matrix.schema.index[name]] for name in names))


def _facts(matrix: FeatureMatrix, row: int, columns: Sequence[int]) -> tuple[Fact, ...]:
    """The row's own figures, without anything beside them."""
    return tuple(
        Fact(feature=matrix.schema.features[c].name, value=float(matrix.values[row, c]))
        for c in columns[:MAX_FACTS]
    )


def _host(matrix: FeatureMatrix, row: int) -> Endpoint:
    return Endpoint(int(matrix.subjects.hi[row]), int(matrix.subjects.lo[row]))


def _ports(matrix: FeatureMatrix, row: int, *, is_attacker: bool) -> tuple[int, ...]:
    """The port most addressed: the victim's own, or the one that the attacker went for."""
    port = int((matrix.subjects.out_port if is_attacker else matrix.subjects.in_port)[row])
    return (port,) if port >= 0 else ()
