"""`wardwatch bench`: each stage and the whole path, on captures that it makes itself, beside peers in the same run.

CPU time of this process unless a unit says otherwise; a figure's samples are repeated runs, its `p50`
the one to quote. Nothing is asserted: what a bar says stands beside the figure, met or missed.

In: number of frames, cases, a bundle. Out: one record a figure (`record.figure`), and a table for people.
"""

from __future__ import annotations

import json
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil
from rich.console import Console
from rich.table import Table

from agent.bench import peers, record, report, traffic
from agent.capture.capture_file import open_capture
from agent.decode.decoder import PacketDecoder
from agent.features.ip import HostWindows
from agent.features.matrices import take
from agent.records import FrameBatch, LinkType

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from agent.records import Detector, FeatureMatrix

PATH_CASES = ("syn", "mixed", "mqtt")
CRAFTED_CASES = ("mqtt_pingreq", "mqtt_small")
ROWS = (1, 64, 1024)
PEER_FRAMES = 200_000
REPEATS = 3


def cpu_s(work: Callable[[Any], object], argument: object) -> float:
    """CPU seconds that `work(argument)` took, those of processes that it started and awaited included."""
    start = _cpu_clock_s()
    work(argument)
    return _cpu_clock_s() - start


def _cpu_clock_s() -> float:
    # os.times() counts in ticks of 10 ms, too coarse for one frame.
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def walk(path: Path) -> list[FrameBatch]:
    """The batches of a capture, their bytes not touched yet."""
    with open_capture(path) as capture:
        return list(capture)


def decode_all(batches: list[FrameBatch]) -> None:
    """Decode batches in order, MQTT streams included."""
    decoder = PacketDecoder()
    for batch in batches:
        decoder.decode(batch)


def extract_all(path: Path) -> list[FeatureMatrix]:
    """The whole path: file, decode with MQTT streams, windows merged, feature matrices."""
    decoder, windows = PacketDecoder(), HostWindows()
    with open_capture(path) as capture:
        out = [windows.add(decoder.decode(batch)) for batch in capture]
    out.append(windows.flush())
    return [matrix for matrix in out if len(matrix)]


def bench_stages(folder: Path, n_frames: int) -> Iterator[dict[str, Any]]:
    """The walk of the file, decoding, and the whole path: millions of frames a CPU second."""
    for case in PATH_CASES + CRAFTED_CASES:
        n = n_frames if case in PATH_CASES else max(n_frames // 10, 1)
        path = folder / f"{case}.pcap"
        traffic.write_capture(path, case, n)
        stages: dict[str, tuple[Callable[[Any], object], Any]] = {
            "walk": (walk, path),
            "decode": (decode_all, walk(path)),
            "path": (extract_all, path),
        }
        for stage, (work, argument) in stages.items():
            runs = [n / cpu_s(work, argument) / 1e6 for _ in range(REPEATS)]
            yield record.figure("speed", stage, case, "Mpps", runs, batch=16_384)
        if case in PATH_CASES:
            yield from bench_peers(folder, case)
        path.unlink()


def bench_peers(folder: Path, case: str) -> Iterator[dict[str, Any]]:
    """Ratios against the peers: the same capture, runs alternated."""
    path = folder / f"{case}-peers.pcap"
    traffic.write_capture(path, case, PEER_FRAMES)
    for name, peer in peers.PEERS.items():
        try:
            ratios = []
            for _ in range(REPEATS):
                theirs = cpu_s(peer, path)
                ratios.append(theirs / cpu_s(extract_all, path))
        except ImportError:
            continue
        yield record.figure("peer", f"path / {name}", case, "times faster", ratios)
    path.unlink()


def crafted_frame() -> FrameBatch:
    """One 64 kB frame full of two-byte MQTT control packets, as GRO hands it up."""
    body = (b"\x10\x0e\x00\x04MQTT\x04\x02\x00\x3c\x00\x02ab" + b"\xc0\x00" * 40_000)[:65_000]
    packet = traffic.ipv4(
        6, 0xC0A80164, traffic.BROKER, traffic.tcp(40000, 1883, traffic.PSH_ACK, body)
    )
    frame = np.frombuffer(traffic.ethernet(0x0800, packet), np.uint8)
    return FrameBatch(
        ts_ns=np.array([1_700_000_000_000_000_000], np.int64),
        offset=np.zeros(1, np.int64),
        caplen=np.array([len(frame)], np.int32),
        wirelen=np.array([len(frame)], np.int32),
        buffer=frame,
        link_type=LinkType.ETHERNET,
    )


def decode_one(batch: FrameBatch) -> None:
    """Decode one batch with fresh state."""
    PacketDecoder().decode(batch)


def bench_crafted() -> Iterator[dict[str, Any]]:
    """Milliseconds for one 64 kB frame of two-byte control packets."""
    batch = crafted_frame()
    runs = [cpu_s(decode_one, batch) * 1e3 for _ in range(20)]
    yield record.figure("speed", "decode", "one 64 kB frame", "ms", runs, batch=1)


def bench_score(detectors: dict[str, Detector], matrix: FeatureMatrix) -> Iterator[dict[str, Any]]:
    """Microseconds (wall) of one `judge` call: matrix in, verdicts out, at several numbers of rows."""
    for name, detector in detectors.items():
        for n_rows in ROWS:
            some = take(matrix, np.arange(n_rows) % len(matrix))
            samples = []
            for _ in range(max(30, 2000 // n_rows)):
                start = time.perf_counter_ns()
                detector.judge(some)
                samples.append((time.perf_counter_ns() - start) / 1e3)
            yield record.figure(
                "score", f"judge, {name}", f"{n_rows} rows", "us", samples, batch=n_rows
            )


def bench_memory() -> Iterator[dict[str, Any]]:
    """Resident memory, MB; the live ring is not counted (it is as large as its setting)."""
    rss = psutil.Process().memory_info().rss / 1e6
    yield record.figure("memory", "memory", "model loaded, no traffic", "MB", [rss])


def run(n_frames: int, detectors: dict[str, Detector]) -> Iterator[dict[str, Any]]:
    """Every figure, in order."""
    yield from bench_memory()
    yield from bench_crafted()
    with tempfile.TemporaryDirectory(prefix="wardwatch-bench-") as folder:
        small = Path(folder) / "score.pcap"
        traffic.write_capture(small, "mixed", 20_000)
        matrix = max(extract_all(small), key=len)
        yield from bench_score(detectors, matrix)
        yield from bench_stages(Path(folder), n_frames)


def main(
    *,
    n_frames: int,
    detectors: dict[str, Detector],
    bundle: str,
    json_only: bool,
    page: Path | None,
) -> None:
    """Measure everything and show it."""
    command = f"wardwatch bench --frames {n_frames}"
    show(run(n_frames, detectors), command=command, bundle=bundle, json_only=json_only, page=page)


def show(
    figures: Iterator[dict[str, Any]],
    *,
    command: str,
    bundle: str,
    json_only: bool,
    page: Path | None,
) -> None:
    """Print JSON lines on stdout (`json_only`) or a table there; write `page` in Markdown where one is named."""
    common = {"machine": record.machine_facts(), "git": record.git_commit(), "bundle": bundle}
    rows = []
    for figure in figures:
        rows.append({**figure, **common})
        if json_only:
            print(json.dumps(rows[-1]), flush=True)  # noqa: T201 - the command's output
        else:
            text = f"{figure['stage']}, {figure['case']}: {figure['p50']:.4g} {figure['unit']}"
            print(text, file=sys.stderr)  # noqa: T201 - progress on long work
    if not json_only:
        table = Table("stage", "case", "p50", "p99", "unit", "n", "bar", title=command)
        for row in rows:
            numbers = (f"{row[key]:.4g}" for key in ("p50", "p99"))
            table.add_row(
                row["stage"], row["case"], *numbers, row["unit"], str(row["n"]), report.verdict(row)
            )
        Console().print(table)
    if page is not None:
        page.parent.mkdir(parents=True, exist_ok=True)
        page.write_text(report.markdown(rows, command))
