"""One figure: a JSON line by CONTRACTS.md, and the facts of the machine that it was measured on."""

from __future__ import annotations

import platform
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import psutil


def machine_facts() -> dict[str, Any]:
    """Board, processor, cores, governor, temperature, kernel and versions; a fact that is not there is left out."""
    facts: dict[str, Any] = {
        "arch": platform.machine(),
        "cores": psutil.cpu_count(),
        "memory_bytes": psutil.virtual_memory().total,
        "kernel": platform.release(),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "onnxruntime": version("onnxruntime"),
        "load_1min": round(psutil.getloadavg()[0], 2),
    }
    for name, path in (
        ("board", "/proc/device-tree/model"),
        ("governor", "/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        ("temperature_millic", "/sys/class/thermal/thermal_zone0/temp"),
    ):
        if Path(path).exists():
            facts[name] = Path(path).read_text(errors="replace").strip("\0\n ")
    for line in Path("/proc/cpuinfo").read_text(errors="replace").splitlines():
        if line.startswith(("model name", "Model")):
            facts["cpu"] = line.split(":", 1)[1].strip()
            break
    return facts


def git_commit() -> str | None:
    """The commit of the checkout that this runs from; None for an installed wheel."""
    root = Path(__file__).resolve().parent.parent.parent
    if not (root / ".git").exists():
        return None
    done = subprocess.run(  # noqa: S603 - a fixed command
        ["git", "-C", str(root), "rev-parse", "--short", "HEAD"],  # noqa: S607
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.strip() or None


def figure(
    bench: str, stage: str, case: str, unit: str, samples: list[float], *, batch: int | None = None
) -> dict[str, Any]:
    """A record of `samples` (in `unit`); the common fields are added by `bench.main`."""
    values = np.sort(np.asarray(samples, np.float64))
    return {
        "bench": bench,
        "stage": stage,
        "case": case,
        "batch": batch,
        "unit": unit,
        "p50": float(np.percentile(values, 50)),
        "p99": float(np.percentile(values, 99)),
        "max": float(values[-1]),
        "n": len(values),
    }
