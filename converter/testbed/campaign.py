"""A whole plan, recorded: several wards at once, what is finished skipped, one line of progress a run.

In: `RunSpec`s and a folder. Out: per run a capture, labels and a manifest; a `Report`. A run that fails is
reported and does not end the others; Ctrl-C and SIGTERM end all of them, and nothing is left behind.
"""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from agent.errors import AgentError
from converter.datasets.labels import write_labels
from converter.testbed.labelling import label_capture
from converter.testbed.namespaces import clean_leftovers
from converter.testbed.record import Happened, InterruptedRunError, record_run
from converter.testbed.schedule import RunSpec

_STAGGER_S = 4.0
"""Between the starts of two wards: building one is the busiest moment."""


@dataclass
class Report:
    """How a recording went."""

    recorded: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    """Finished before."""
    failed: dict[str, str] = field(default_factory=dict)
    """Run and reason."""
    left: list[str] = field(default_factory=list)
    """Not begun: the budget was used up, or it was stopped."""


def manifest_path(out: Path, run: str) -> Path:
    """Where a run's manifest stands; it exists only for finished runs."""
    return out / f"{run}.manifest.json"


def is_finished(out: Path, spec: RunSpec) -> bool:
    """Whether this very run (same digest) was recorded to its end."""
    path = manifest_path(out, spec.run)
    try:
        raw = msgspec.json.decode(path.read_bytes())
    except (OSError, msgspec.DecodeError):
        return False
    whole = (out / f"{spec.run}.pcap").exists() and (out / f"{spec.run}.labels.jsonl").exists()
    return whole and isinstance(raw, dict) and raw.get("spec_digest") == spec.digest


def label_run(
    out: Path, manifest: dict[str, object], happened: list[Happened]
) -> dict[str, object]:
    """Write the labels of a recorded run; the manifest with their counts."""
    run = str(manifest["run"])
    episodes, unseen = label_capture(out / f"{run}.pcap", happened, run=run)
    write_labels(out / f"{run}.labels.jsonl", episodes)
    return {
        **manifest,
        "episodes": len(episodes),
        "unseen": unseen,
        "hostile_frames": sum(e.frames for e in episodes),
    }


def relabel(out: Path) -> list[str]:
    """Label every recorded run of a folder again (the rule or the decoder has changed)."""
    done = []
    for path in sorted(out.glob("*.manifest.json")):
        raw = msgspec.json.decode(path.read_bytes())
        happened = msgspec.convert(raw["happened"], list[Happened])
        _write_json(path, label_run(out, raw, happened))
        done.append(raw["run"])
    return done


def record_all(
    specs: list[RunSpec],
    out: Path,
    *,
    jobs: int,
    budget_s: float | None,
    tools: dict[str, str],
    say: Callable[[str], None],
) -> Report:
    """Record what is not finished; `say` gets one line a run."""
    out.mkdir(parents=True, exist_ok=True)
    for name in clean_leftovers():
        say(f"removed namespace {name} of a recording that had died")
    report, stop, began = Report(), threading.Event(), time.monotonic()
    todo = []
    for spec in specs:
        if is_finished(out, spec):
            report.skipped.append(spec.run)
        else:
            todo.append(spec)
    total, number = len(todo), 0
    with _stopped_by_signals(stop), ThreadPoolExecutor(jobs, thread_name_prefix="ward") as pool:
        under_way: dict[Future[dict[str, object]], RunSpec] = {}
        while todo or under_way:
            late = budget_s is not None and time.monotonic() - began > budget_s
            if stop.is_set() or late:
                report.left += [s.run for s in todo]
                todo.clear()
            while todo and len(under_way) < jobs:
                spec = todo.pop(0)
                under_way[pool.submit(_one, spec, out, number, stop, tools)] = spec
                number += 1
                stop.wait(_STAGGER_S if todo and len(under_way) < jobs else 0)
            for future in wait(under_way, timeout=0.5, return_when=FIRST_COMPLETED).done:
                spec = under_way.pop(future)
                done = len(report.recorded) + len(report.failed) + 1
                say(
                    f"[{done}/{total}, {time.monotonic() - began:.0f} s] {_outcome(spec, future, report)}"
                )
    return report


def _outcome(spec: RunSpec, future: "Future[dict[str, object]]", report: Report) -> str:
    """One line on a run that has ended; an error that is not ours is a bug and is raised."""
    try:
        manifest = future.result()
    except InterruptedRunError:
        report.left.append(spec.run)
        return f"{spec.run}: stopped"
    except AgentError as e:
        report.failed[spec.run] = str(e)
        return f"{spec.run}: failed: {e}"
    report.recorded.append(spec.run)
    unseen = f", unseen: {manifest['unseen']}" if manifest["unseen"] else ""
    return f"{spec.run}: {manifest['frames']} frames, {manifest['episodes']} episodes, 0 dropped{unseen}"


def _one(
    spec: RunSpec, out: Path, number: int, stop: threading.Event, tools: dict[str, str]
) -> dict[str, object]:
    """Record and label one run; what an earlier attempt left is removed first."""
    for end in ("pcap", "labels.jsonl", "manifest.json"):
        (out / f"{spec.run}.{end}").unlink(missing_ok=True)
    manifest = record_run(spec, out, number=number, stop=stop)
    happened = manifest["happened"]
    assert isinstance(happened, list)
    manifest = {**label_run(out, manifest, happened), "tools": tools}
    _write_json(manifest_path(out, spec.run), manifest)
    return manifest


def _write_json(path: Path, value: object) -> None:
    temporary = path.with_suffix(".part")
    temporary.write_bytes(msgspec.json.format(msgspec.json.encode(value), indent=1) + b"\n")
    temporary.rename(path)


@contextmanager
def _stopped_by_signals(stop: threading.Event) -> Iterator[None]:
    """SIGINT and SIGTERM set the event while this lasts (in the main thread only)."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {s: signal.signal(s, lambda *_: stop.set()) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for s, handler in before.items():
            signal.signal(s, handler)


def default_jobs() -> int:
    """Wards at once: a ward wants most of a core while it is under attack."""
    return max(1, min(3, os.cpu_count() or 1))
