"""Captures with labels to matrices, through the agent's own decoder and extractor: the step `dataset`.

What was trained is what runs: nothing here looks at a frame but `PacketDecoder` and `HostWindows`.

In: a folder of `RUN.pcap`, `RUN.labels.jsonl`, `RUN.manifest.json`. Out: a folder of
`RUN.npz` with the labels and manifest beside it.
Raises: `DatasetError`, `CaptureError`. Runs that are already there, of the same capture and schema, are left alone.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from agent.capture.capture_file import open_capture
from agent.decode.decoder import PacketDecoder
from agent.features.ip import SCHEMA, HostWindows
from converter.datasets.labels import DatasetError, read_labels
from converter.datasets.matrix import (
    KINDS,
    HostileCounts,
    RunInfo,
    RunMatrix,
    joined,
    load_run,
    save_run,
)

if TYPE_CHECKING:
    from agent.records import FeatureMatrix

REPLAY_SALT = 0
"""Group keys of a replay are salted with a fixed number, so that it repeats."""


def build_run(capture: Path) -> RunMatrix:
    """The labelled matrix of one recording."""
    episodes = read_labels(_beside(capture, ".labels.jsonl"))
    manifest = _manifest(_beside(capture, ".manifest.json"))
    counts = HostileCounts(episodes)
    parts: list[FeatureMatrix] = []
    decoder, windows = PacketDecoder(), HostWindows(salt=REPLAY_SALT)
    n_frames = 0
    with open_capture(capture) as batches:
        for batch in batches:
            table = decoder.decode(batch)
            n_frames += len(table)
            counts.add(table)
            parts.append(windows.add(table))
    parts.append(windows.flush())
    matrix = joined(parts, SCHEMA)
    kind, episode, edge = counts.label(matrix)
    info = RunInfo(
        run=str(manifest["run"]),
        plan=str(manifest["plan"]),
        schema_id=SCHEMA.id,
        schema_digest=SCHEMA.digest,
        capture_sha256=str(manifest["sha256"]),
        frames=n_frames,
        duration_s=float(manifest["duration_s"]),
        offloads=bool(manifest["offloads"]),
        background_load=bool(manifest["background_load"]),
        episodes=episodes,
    )
    return RunMatrix(info=info, matrix=matrix, kind=kind, episode=episode, edge=edge)


def build_all(captures: Path, out: Path, tell: Callable[[str], None]) -> int:
    """A matrix for every finished recording of a folder; the number of matrices written."""
    out.mkdir(parents=True, exist_ok=True)
    written = 0
    for capture in finished(captures):
        place = out / f"{capture.name.split('.', 1)[0]}.npz"
        if _is_current(place, capture):
            continue
        run = build_run(capture)
        save_run(place, run)
        for ending in (
            ".labels.jsonl",
            ".manifest.json",
        ):  # so that the folder says where it came from
            shutil.copyfile(_beside(capture, ending), _beside(place, ending))
        written += 1
        rows = {name: int((run.kind == k).sum()) for k, name in _present(run)}
        tell(f"{place.name}: {len(run)} rows, {int(run.edge.sum())} edge, {rows}")
    return written


def finished(captures: Path) -> Iterator[Path]:
    """Recordings whose labels and manifest are there, in the order of their names."""
    if not captures.is_dir():
        raise DatasetError(
            f"{captures}: no such folder: record one with `wardwatch-convert testbed record`"
        )
    found = [p for p in sorted(captures.rglob("*.pcap*")) if p.name.endswith((".pcap", ".pcap.gz"))]
    for capture in found:
        if all(_beside(capture, end).is_file() for end in (".labels.jsonl", ".manifest.json")):
            yield capture


def load_all(folder: Path) -> list[RunMatrix]:
    """Every matrix of a folder, in the order of names."""
    runs = [load_run(path, SCHEMA) for path in sorted(folder.glob("*.npz"))]
    if not runs:
        raise DatasetError(f"{folder}: no matrices: make them with `wardwatch-convert dataset`")
    return runs


def folder_digest(folder: Path) -> str:
    """16 hex digits over the names and bytes of a folder's matrices."""
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*.npz")):
        digest.update(f"{path.name} {hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()[:16]


def is_held_out(plan: str, prefixes: Sequence[str]) -> bool:
    """Whether runs of a plan are for `evaluate` only: its name begins with one of these."""
    return plan.startswith(tuple(prefixes))


def _present(run: RunMatrix) -> list[tuple[int, str]]:
    names = {e.kind for e in run.info.episodes}
    return [(0, "benign"), *((k, name) for k, name in enumerate(KINDS) if name in names)]


def _is_current(place: Path, capture: Path) -> bool:
    if not place.is_file():
        return False
    try:
        info = load_run(place, SCHEMA).info
    except DatasetError:
        return False
    wanted = _manifest(_beside(capture, ".manifest.json"))["sha256"]
    return info.capture_sha256 == wanted and info.episodes == read_labels(
        _beside(capture, ".labels.jsonl")
    )


def _beside(capture: Path, ending: str) -> Path:
    return capture.with_name(capture.name.split(".", 1)[0] + ending)


def _manifest(path: Path) -> dict[str, Any]:
    try:
        return dict(msgspec.json.decode(path.read_bytes()))
    except (OSError, msgspec.DecodeError, TypeError) as error:
        raise DatasetError(f"{path}: not a recording's manifest: {error}") from None
