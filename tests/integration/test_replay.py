"""Replay: each file a run of its own; merged files as if they had been one."""

import gzip
from pathlib import Path

import numpy as np
import pytest

from agent.assembly import make_site, make_watch
from agent.capture.capture_file import open_capture
from agent.replay import interleave, replay_file, replay_merged
from tests.support.pcap_writer import pcap


def silent(_frames: int, _share: float) -> None:
    """No progress wanted."""


@pytest.fixture(scope="module")
def frames() -> list[tuple[int, bytes]]:
    """The demo capture, frame by frame."""
    demo = Path(__file__).resolve().parents[2] / "demo" / "ward.pcap.gz"
    out = []
    with open_capture(demo) as capture:
        for batch in capture:
            data = batch.buffer.tobytes()
            for ts, offset, caplen in zip(
                batch.ts_ns.tolist(), batch.offset.tolist(), batch.caplen.tolist(), strict=True
            ):
                out.append((ts, data[offset : offset + caplen]))
    return out


@pytest.fixture(scope="module")
def site():
    return make_site(None, no_model=True)


def write(path: Path, frames: list[tuple[int, bytes]], **options: int) -> Path:
    path.write_bytes(pcap(frames, ns=True, **options))
    return path


def facts(alerts: list) -> list[tuple]:
    return [
        (a.activity, a.kind, a.severity, a.attacker, a.victim, a.count, a.time_ns) for a in alerts
    ]


def test_merged_halves_are_found_like_the_whole(tmp_path: Path, frames, site):
    whole = write(tmp_path / "whole.pcap", frames)
    parts = [write(tmp_path / f"{i}.pcap", frames[i::3]) for i in range(3)]
    expected: list = []
    replay_file(whole, make_watch(site, "x"), on_alert=expected.append, on_progress=silent)
    merged: list = []
    report = replay_merged(parts, make_watch(site, "x"), on_alert=merged.append, on_progress=silent)
    assert report.n_frames == len(frames)
    assert expected
    assert facts(merged) == facts(expected)


def test_interleaving_keeps_every_frame_and_the_order_of_time(tmp_path: Path, frames):
    some = frames[:5000]
    parts = [
        write(tmp_path / "a.pcap", some[::2]),
        write(tmp_path / "b.pcap", some[1::2][:700]),
        write(tmp_path / "c.pcap", some[1::2][700:]),
    ]
    captures = [open_capture(part, batch_frames=333) for part in parts]
    seen = []
    for batch in interleave([iter(capture) for capture in captures]):
        data = batch.buffer.tobytes()
        seen += [
            (t, data[o : o + n])
            for t, o, n in zip(
                batch.ts_ns.tolist(), batch.offset.tolist(), batch.caplen.tolist(), strict=True
            )
        ]
    for capture in captures:
        capture.close()
    assert sorted(seen) == sorted(some)
    times = np.array([t for t, _ in seen])
    assert (np.diff(times) >= 0).all()


def test_captures_of_different_links_are_merged_in_runs(tmp_path: Path, frames):
    ethernet = frames[:40:2]
    raw = [(t, frame[14:]) for t, frame in frames[1:40:2]]
    parts = [write(tmp_path / "a.pcap", ethernet), write(tmp_path / "b.pcap", raw, link_type=101)]
    captures = [open_capture(part) for part in parts]
    batches = list(interleave([iter(capture) for capture in captures]))
    for capture in captures:
        capture.close()
    assert {batch.link_type for batch in batches} == {1, 101}
    times = np.concatenate([batch.ts_ns for batch in batches])
    assert times.tolist() == sorted(t for t, _ in frames[:40])


def test_a_file_knows_nothing_of_the_one_before(tmp_path: Path, frames, site):
    """The same watch is never used twice: the second run finds what the first found."""
    path = write(tmp_path / "x.pcap", frames)
    runs = []
    for _ in range(2):
        alerts: list = []
        replay_file(path, make_watch(site, "x"), on_alert=alerts.append, on_progress=silent)
        runs.append([a.uid for a in alerts])
    assert runs[0] == runs[1]


def test_findings_are_closed_at_the_end_only_where_asked_for(tmp_path: Path, frames, site):
    path = tmp_path / "x.pcap.gz"
    path.write_bytes(gzip.compress(pcap(frames, ns=True), 1))
    activities = []
    for close in (False, True):
        alerts: list = []
        replay_file(
            path, make_watch(site, "x"), on_alert=alerts.append, on_progress=silent, close=close
        )
        activities.append([a.activity for a in alerts])
    assert "close" not in activities[0]
    assert activities[1].count("close") == activities[1].count("create")
