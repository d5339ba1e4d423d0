"""Which rows are of a kind, which are edge, which are benign; and that a matrix survives its file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agent.features.ip_schema import SCHEMA
from agent.features.matrices import take
from agent.features.schema import Schema
from agent.records import V4_MAPPED_LO, FeatureMatrix
from converter.datasets.labels import DatasetError, Episode
from converter.datasets.matrix import (
    KINDS,
    HostileCounts,
    RunInfo,
    RunMatrix,
    host_of,
    joined,
    load_run,
    save_run,
)
from tests.support.bundles import matrix_of
from tests.support.tables import arp_reply, table_of, tcp_syn

ATTACKER, VICTIM, OTHER, DECOY = "10.0.0.9", "10.0.0.1", "10.0.0.2", "10.0.0.3"


def episode(**changes: Any) -> Episode:
    settings: dict[str, Any] = {
        "run": "r",
        "kind": "tcp_syn_flood",
        "variant": "v",
        "tool": "t",
        "start_ns": 0,
        "end_ns": 200 * 10**9,
        "attackers": [ATTACKER],
        "victims": [VICTIM],
        "attacker_macs": ["02:00:00:00:00:09"],
        **changes,
    }
    return Episode(**settings)


def rows_of(*wanted: tuple[str, int]) -> FeatureMatrix:
    """A row for each (address, slice)."""
    lows = [V4_MAPPED_LO | int.from_bytes(bytes(map(int, a.split("."))), "big") for a, _ in wanted]
    values = np.zeros((len(wanted), len(SCHEMA)), np.float32)
    return matrix_of(values, slices=[s for _, s in wanted], lo=np.array(lows, np.uint64))


def labelled(
    frames: list[tuple[float, bytes]], matrix: FeatureMatrix, *episodes: Episode
) -> list[str]:
    """For each row its kind, `edge` or `benign`; tables in two parts, as batches come."""
    counts = HostileCounts(episodes)
    for part in (frames[: len(frames) // 2], frames[len(frames) // 2 :]):
        counts.add(table_of(part))
    kind, number, edge = counts.label(matrix)
    assert np.array_equal(kind > 0, number >= 0)
    return ["edge" if e else KINDS[k] for k, e in zip(kind, edge, strict=True)]


def syn(at: float, dst: str = VICTIM, src: str = ATTACKER) -> tuple[float, bytes]:
    return at, tcp_syn(src, dst, 9, 1)


def test_a_row_needs_a_hostile_frame_in_its_slice_and_three_in_its_horizon() -> None:
    frames = [syn(10.1), syn(12.2), syn(12.9), syn(14.5)]
    found = labelled(
        frames, rows_of(*[(VICTIM, s) for s in (9, 10, 11, 12, 13, 14, 73, 74)]), episode()
    )
    assert found == [
        "benign",  # before the first
        "edge",  # one so far
        "edge",  # none in this slice
        "tcp_syn_flood",
        "edge",
        "tcp_syn_flood",
        "edge",  # slice 14 is the first of its horizon
        "benign",
    ]


def test_the_attackers_row_is_of_the_kind_too_and_a_bystanders_is_not() -> None:
    frames = [syn(10 + k / 10) for k in range(5)]
    assert labelled(frames, rows_of((ATTACKER, 10), (OTHER, 10)), episode()) == [
        "tcp_syn_flood",
        "benign",
    ]


def test_an_attackers_row_that_cannot_show_its_spoofed_frames_is_edge() -> None:
    frames = [syn(10 + k / 10, src=f"172.16.0.{k}") for k in range(1, 6)]
    matrix = rows_of((ATTACKER, 10), (VICTIM, 10), ("172.16.0.3", 10))
    assert labelled(frames, matrix, episode(spoofed=True)) == ["edge", "tcp_syn_flood", "edge"]


def test_a_decoy_is_edge_not_benign() -> None:
    frames = [syn(10 + k / 10, src=DECOY) for k in range(5)] + [syn(10.7), syn(10.8), syn(10.9)]
    assert labelled(frames, rows_of((DECOY, 10), (ATTACKER, 10)), episode()) == [
        "edge",
        "tcp_syn_flood",
    ]


def test_a_forged_claim_stands_in_the_rows_of_who_is_claimed_and_who_is_told() -> None:
    frames = [(10 + k / 10, arp_reply(OTHER, VICTIM, 9, 1)) for k in range(4)]
    spoofing = episode(kind="arp_spoofing", victims=[VICTIM, OTHER])
    matrix = rows_of((VICTIM, 10), (OTHER, 10), (ATTACKER, 10), (DECOY, 10))
    assert labelled(frames, matrix, spoofing) == [
        "arp_spoofing",
        "arp_spoofing",
        "edge",  # the forger: its own row shows nothing of it
        "benign",
    ]


def test_the_louder_of_two_episodes_in_a_slice_names_the_row() -> None:
    frames = [syn(10 + k / 100) for k in range(4)] + [syn(10.5 + k / 100) for k in range(9)]
    scan = episode(kind="port_scan", start_ns=10_400_000_000)
    flood = episode(end_ns=10_300_000_000)
    for order in ((flood, scan), (scan, flood)):
        assert labelled(frames, rows_of((VICTIM, 10)), *order) == ["port_scan"]


def a_run() -> RunMatrix:
    matrix = rows_of((VICTIM, 5), (OTHER, 5), (VICTIM, 6))
    values = np.random.default_rng(0).normal(size=(3, len(SCHEMA))).astype(np.float32)
    info = RunInfo(
        run="r",
        plan="first",
        schema_id=SCHEMA.id,
        schema_digest=SCHEMA.digest,
        capture_sha256="0" * 64,
        frames=9,
        duration_s=2.0,
        offloads=False,
        background_load=True,
        episodes=[episode()],
    )
    return RunMatrix(
        info=info,
        matrix=matrix_of(values, slices=[5, 5, 6], lo=matrix.subjects.lo),
        kind=np.array([1, 0, 0], np.int8),
        episode=np.array([0, -1, -1], np.int16),
        edge=np.array([False, False, True]),
    )


def test_a_matrix_comes_back_from_its_file_and_equal_rows_give_equal_bytes(tmp_path: Path) -> None:
    run = a_run()
    save_run(tmp_path / "a.npz", run)
    save_run(tmp_path / "b.npz", run)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    back = load_run(tmp_path / "a.npz", SCHEMA)
    assert back.info == run.info
    assert np.array_equal(back.matrix.values, run.matrix.values)
    assert np.array_equal(back.matrix.subjects.lo, run.matrix.subjects.lo)
    assert back.matrix.end_ns.tolist() == run.matrix.end_ns.tolist()
    assert (back.kind.tolist(), back.edge.tolist()) == ([1, 0, 0], [False, False, True])


def test_a_matrix_of_another_schema_or_a_foreign_file_is_refused(tmp_path: Path) -> None:
    save_run(tmp_path / "a.npz", a_run())
    with pytest.raises(DatasetError, match="make it again"):
        load_run(tmp_path / "a.npz", Schema("ip-1", SCHEMA.features[1:]))
    (tmp_path / "b.npz").write_bytes(b"no")
    with pytest.raises(DatasetError, match="not a run's matrix"):
        load_run(tmp_path / "b.npz", SCHEMA)


def test_taking_and_joining_rows() -> None:
    matrix = a_run().matrix
    halves = [take(matrix, np.array([0])), take(matrix, np.array([False, True, True]))]
    back = joined(halves, SCHEMA)
    assert np.array_equal(back.values, matrix.values)
    assert np.array_equal(back.subjects.lo, matrix.subjects.lo)


def test_hosts_in_text() -> None:
    assert host_of("10.0.0.1") == (0, V4_MAPPED_LO | 0x0A000001)
    assert host_of("fe80::1") == (0xFE80 << 48, 1)
