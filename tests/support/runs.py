"""Recorded runs made up from a seed: matrices with episodes, for the steps of the converter."""

from __future__ import annotations

from typing import Any

import numpy as np

from agent.features.ip_schema import SCHEMA
from agent.records import V4_MAPPED_LO
from converter.datasets.labels import Episode
from converter.datasets.matrix import KINDS, SLICE_NS, RunInfo, RunMatrix
from tests.support.bundles import matrix_of

LOUD = {
    "tcp_syn_flood": ("in_tcp_syn_1s", "out_tcp_syn_1s"),
    "icmp_flood": ("in_echo_requests_1s", "out_echo_requests_1s"),
    "mqtt_publish_flood": ("in_mqtt_publishes_1s", "out_mqtt_publishes_1s"),
}
N_HOSTS, N_SLICES, ATTACK_SLICES = 6, 70, 8
VICTIM, ATTACKER = 1, 2


def address(host: int) -> str:
    return f"10.0.0.{host}"


def made_up_run(name: str, plan: str, seed: int, kinds: tuple[str, ...]) -> RunMatrix:
    """Six hosts for 70 s; each kind's attack lasts 8 s between the same two hosts, 20 s apart."""
    random = np.random.default_rng(seed)
    slices = np.repeat(np.arange(1000, 1000 + N_SLICES), N_HOSTS)
    hosts = np.tile(np.arange(1, N_HOSTS + 1), N_SLICES)
    rows = np.floor(random.exponential(1.0, (len(hosts), len(SCHEMA)))).astype(np.float32)
    kind, episode = np.zeros(len(rows), np.int8), np.full(len(rows), -1, np.int16)
    episodes = []
    for number, of_kind in enumerate(kinds):
        first = 1005 + 20 * number
        under_attack = (slices >= first) & (slices < first + ATTACK_SLICES)
        for host, feature in zip((VICTIM, ATTACKER), LOUD[of_kind], strict=True):
            at = under_attack & (hosts == host)
            rows[at, SCHEMA.index[feature]] += random.integers(80, 900, int(at.sum()))
            kind[at], episode[at] = KINDS.index(of_kind), number
        episodes.append(
            Episode(
                run=name,
                kind=of_kind,
                variant=f"loud-{of_kind}",
                tool="none",
                start_ns=first * SLICE_NS + 1,
                end_ns=(first + ATTACK_SLICES) * SLICE_NS - 1,
                attackers=[address(ATTACKER)],
                victims=[address(VICTIM)],
            )
        )
    low: Any = (V4_MAPPED_LO | 0x0A000000) + hosts.astype(np.uint64)
    peer = np.where(hosts == VICTIM, ATTACKER, VICTIM).astype(np.uint64)
    peers: Any = (V4_MAPPED_LO | 0x0A000000) + peer
    info = RunInfo(
        run=name,
        plan=plan,
        schema_id=SCHEMA.id,
        schema_digest=SCHEMA.digest,
        capture_sha256=f"{seed:064x}",
        frames=len(rows),
        duration_s=float(N_SLICES),
        offloads=False,
        background_load=False,
        episodes=episodes,
    )
    return RunMatrix(
        info=info,
        matrix=matrix_of(rows, slices=slices, lo=low, in_peer_lo=peers, out_peer_lo=peers),
        kind=kind,
        episode=episode,
        edge=np.zeros(len(rows), np.bool_),
    )


def made_up_runs() -> list[RunMatrix]:
    """Six runs to train on, one of them benign, and two held out."""
    kinds = tuple(LOUD)
    training = [made_up_run(f"first-a{k}", "first", k, kinds) for k in range(5)]
    training.append(made_up_run("first-b0", "first", 50, ()))
    return [
        *training,
        made_up_run("heldout-a0", "heldout", 90, kinds),
        made_up_run("heldout-b0", "heldout", 91, ()),
    ]
