"""A baseline on disk: one `.npz` a capture source, written whole or not at all; and the export for retraining.

The file holds what was learned, the alarm budget and the sample, with a version and the digest of what gives
its numbers their meaning. It holds addresses (that is what a baseline is about): only its owner may read it; the
export holds none. A file that cannot be read is set aside under another name, never deleted and never half used.

In and out: paths, `BaselineDetector`. Raises: `BaselineError`. Remembers nothing.
"""

from __future__ import annotations

import io
import zipfile
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from agent.errors import BaselineError, BaselineReason
from agent.score.baseline_budget import HIGHEST, LEVELS, LOWEST
from agent.state_files import write_whole

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from agent.score.baseline import BaselineDetector

VERSION = 1


class _Meta(msgspec.Struct, frozen=True, kw_only=True):
    """What the arrays do not say."""

    version: int
    digest: str
    schema_id: str
    schema_digest: str
    frozen: bool
    now_ns: int
    faded_ns: int
    quiet_ns: float
    threshold: int
    classes: list[str]
    n_devices: int
    n_seen: int
    counts: dict[str, int]
    """Evicted, refused and forgotten devices."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A copy of a baseline that another thread may write."""

    arrays: dict[str, NDArray[Any]]

    def write(self, path: Path) -> None:
        """Put the file in place, whole, readable by this user only. Raises `BaselineError`."""
        out = io.BytesIO()
        np.savez_compressed(out, **self.arrays)  # type: ignore[arg-type]  # its stub has no room for names
        put_in_place(path, out.getvalue())


def put_in_place(path: Path, content: bytes) -> None:
    """Write a file whole or not at all, in a folder made where it is missing. Raises `BaselineError`."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_whole(path, content)
    except OSError as error:
        problem = f"{path}: the baseline cannot be written: {error.strerror}"
        raise BaselineError(BaselineReason.UNWRITABLE, problem) from error


def snapshot(detector: BaselineDetector) -> Snapshot:
    """A copy of what a detector has learned; what it still holds is left out."""
    profiles, budget, sample = detector.profiles, detector.budget, detector.sample
    used = profiles.used()
    meta = _Meta(
        version=VERSION,
        digest=detector.selection.digest,
        schema_id=detector.schema.id,
        schema_digest=detector.schema.digest,
        frozen=detector.frozen,
        now_ns=detector.now_ns,
        faded_ns=detector.faded_ns,
        quiet_ns=budget.quiet_ns,
        threshold=budget.threshold,
        classes=list(profiles.classes),
        n_devices=len(profiles),
        n_seen=sample.n_seen,
        counts={
            "evicted": profiles.n_evicted,
            "refused": profiles.n_refused,
            "forgotten": profiles.n_forgotten,
        },
    )
    kept = sample.filled()
    arrays: dict[str, NDArray[Any]] = {
        "meta": np.frombuffer(msgspec.json.encode(meta), np.uint8),
        "episodes": budget.episodes.copy(),
        "sample_values": sample.values[kept],
        "sample_priority": sample.priority[kept],
    }
    arrays |= {f"profile_{name}": table[used] for name, table in profiles.tables().items()}
    return Snapshot(arrays)


def restore(path: Path, detector: BaselineDetector) -> None:
    """Fill a detector from a file; it stays as it was where the file is refused. Raises `BaselineError`."""
    meta, arrays = _read(path)
    if meta.version > VERSION:
        raise BaselineError(
            BaselineReason.VERSION,
            f"{path}: of version {meta.version}, this wardwatch reads {VERSION}: it is too new",
        )
    if meta.digest != detector.selection.digest:
        raise BaselineError(
            BaselineReason.SCHEMA,
            f"{path}: learned on other features ({meta.schema_id} {meta.schema_digest}): learn anew",
        )
    problem = _misfit(meta, arrays, detector)
    if problem:
        raise _malformed(path, problem)
    detector.reset()
    detector.frozen = meta.frozen
    detector.now_ns, detector.faded_ns = meta.now_ns, meta.faded_ns
    profiles, budget, sample = detector.profiles, detector.budget, detector.sample
    profiles.classes = list(meta.classes)
    devices = np.arange(meta.n_devices)
    classes = profiles.max_devices + np.arange(len(meta.classes))
    into = np.concatenate([devices, classes, [profiles.ward]])
    for name, table in profiles.tables().items():
        table[into] = arrays[f"profile_{name}"]
    profiles.put_back(devices)
    profiles.n_evicted = meta.counts.get("evicted", 0)
    profiles.n_refused = meta.counts.get("refused", 0)
    profiles.n_forgotten = meta.counts.get("forgotten", 0)
    budget.episodes[:] = arrays["episodes"]
    budget.quiet_ns = meta.quiet_ns
    budget.threshold = min(max(meta.threshold, LOWEST), HIGHEST)
    n = min(len(arrays["sample_values"]), len(sample.values))
    sample.values[:n] = arrays["sample_values"][:n]
    sample.priority[:n] = arrays["sample_priority"][:n]
    sample.n_seen = meta.n_seen


def export(detector: BaselineDetector, path: Path) -> int:
    """Write the sample of quiet rows for retraining, without any address or time; the number of rows.

    Arrays: `values` (n, n_features) float32, `schema_id`, `schema_digest`, `n_seen` (rows it is a sample of).
    """
    rows = detector.sample.rows
    out = io.BytesIO()
    np.savez_compressed(
        out,
        values=rows,
        schema_id=np.array(detector.schema.id),
        schema_digest=np.array(detector.schema.digest),
        n_seen=np.array(detector.sample.n_seen),
    )
    put_in_place(path, out.getvalue())
    return len(rows)


def _read(path: Path) -> tuple[_Meta, dict[str, NDArray[Any]]]:
    try:
        content = io.BytesIO(path.read_bytes())  # numpy leaves a file open where it is corrupt
        with np.load(content, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
        return msgspec.json.decode(arrays["meta"].tobytes(), type=_Meta), arrays
    except FileNotFoundError:
        raise BaselineError(BaselineReason.NOT_FOUND, f"{path}: no baseline there yet") from None
    except (
        OSError,
        ValueError,
        KeyError,
        EOFError,
        TypeError,
        NotImplementedError,
        AttributeError,
        zipfile.BadZipFile,
        zlib.error,
        msgspec.DecodeError,
    ) as error:
        raise _malformed(path, str(error)) from None


def _misfit(meta: _Meta, arrays: dict[str, NDArray[Any]], detector: BaselineDetector) -> str | None:
    """Why the arrays are not those of this version; None: they are."""
    profiles = detector.profiles
    n = meta.n_devices + len(meta.classes) + 1
    if not 0 <= meta.n_devices <= profiles.max_devices:
        return f"{meta.n_devices} devices, at most {profiles.max_devices} are allowed here"
    if len(meta.classes) > profiles.ward - profiles.max_devices:
        return f"{len(meta.classes)} classes"
    wanted: dict[str, tuple[tuple[int, ...], np.dtype[Any]]] = {
        f"profile_{name}": ((n, *table.shape[1:]), table.dtype)
        for name, table in profiles.tables().items()
    }
    rows = len(arrays.get("sample_priority", ()))
    wanted["episodes"] = ((LEVELS,), np.dtype(np.float64))
    wanted["sample_priority"] = ((rows,), np.dtype(np.uint64))
    wanted["sample_values"] = ((rows, len(detector.schema)), np.dtype(np.float32))
    for name, (shape, dtype) in wanted.items():
        found = arrays.get(name)
        if found is None or found.shape != shape or found.dtype != dtype:
            return f"{name} is not what it should be"
    floats = (a for a in arrays.values() if a.dtype.kind == "f")
    return None if all(np.isfinite(a).all() for a in floats) else "a figure is not finite"


def _malformed(path: Path, problem: str) -> BaselineError:
    return BaselineError(BaselineReason.MALFORMED, f"{path}: not a baseline: {problem}"[:300])
