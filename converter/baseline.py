"""The site's baseline, learned on recordings: for evaluations that judge rows by it alone.

A recording of minutes is too short to learn each device by itself, so it learns what is normal per device class, from
the benign rows of all training wards; the classes are what a site file would say (the testbed's manifests: profile or
role; nothing of attackers). One half of the wards is learned first; the other half, learned after it, gives the alarm
budget: `false_per_hour` of recording. No attack row is ever learned, so every kind of attack is new to it.

In: runs, the folder with their manifests. Out: `Callable[[RunMatrix], BaselineDetector]`: frozen, ready for that run.
Raises: `DatasetError` where a manifest is missing. Remembers: one detector, so use it for one run after the other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np

from agent.features.ip import SCHEMA
from agent.features.matrices import take
from agent.records import Endpoint
from agent.score.baseline import BaselineDetector, Settings
from agent.score.baseline_budget import Budget
from converter.datasets.labels import DatasetError
from converter.datasets.matrix import RunMatrix, host_of

MAX_DEVICES = 512
LEARN_S = 300.0
"""Of recording: each class is seen in several wards by then."""
MIN_SLICES = 200
HOUR_S = 3600.0


def learned_baseline(
    training: Sequence[RunMatrix], folder: Path, *, false_per_hour: float = 1.0
) -> Callable[[RunMatrix], BaselineDetector]:
    """What is normal by the benign rows of `training`; `folder` holds `RUN.manifest.json`."""
    settings = replace(
        Settings(),
        learn_s=LEARN_S,
        min_slices=MIN_SLICES,
        findings_per_day=24 * false_per_hour,
        max_devices=MAX_DEVICES,
        max_sample_rows=0,
    )
    detector = BaselineDetector(SCHEMA, settings)
    for runs in (training[::2], training[1::2]):
        detector.budget = Budget(  # what is unusual while it knows nothing does not count
            MAX_DEVICES,
            per_day=settings.findings_per_day,
            merge_ns=round(settings.merge_s * 1e9),
            enough_ns=LEARN_S * 1e9,
            half_life_ns=settings.half_life_s * 1e9,
        )
        for run in runs:
            detector.new_ward(site_file(folder, run.info.run).get)
            benign = np.flatnonzero((run.kind == 0) & ~run.edge)
            detector.learn(take(run.matrix, benign))
    detector.frozen = True

    def ready(run: RunMatrix) -> BaselineDetector:
        detector.new_ward(site_file(folder, run.info.run).get)
        return detector

    return ready


def site_file(folder: Path, run: str) -> dict[Endpoint, str]:
    """The class of each device and server of a recorded ward, by its addresses."""
    path = folder / f"{run}.manifest.json"
    try:
        hosts = msgspec.json.decode(path.read_bytes())["ward"]["hosts"]
        return {
            Endpoint(*host_of(address)): h["profile"] if h["role"] == "device" else h["role"]
            for h in hosts
            if h["role"] != "attacker"
            for address in (h["ip"], h.get("ip6", ""))
            if address
        }
    except (OSError, KeyError, TypeError, ValueError, msgspec.DecodeError) as error:
        raise DatasetError(f"{path}: not a recording's manifest: {error}") from None
