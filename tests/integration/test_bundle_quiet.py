"""Scoring with onnxruntime starts no thread, opens no socket and writes no file, where `CI` does not hush it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.bundles import signed_bundle

ROOT = Path(__file__).resolve().parents[2]

SCORE = """
import os, sys, time
import numpy as np
from pathlib import Path
from agent.score.bundle import load_bundle
bundle = load_bundle(Path(sys.argv[1]), trust=[Path(sys.argv[2])])
assert bundle.runtime == "onnx", bundle.runtime_problem
rows = np.zeros((64, bundle.gate.n_features), np.float32)
for _ in range(15):
    bundle.gate.sums(rows); bundle.kinds.sums(rows); time.sleep(0.2)
print("threads", len(os.listdir("/proc/self/task")))
"""


def environment(home: Path) -> dict[str, str]:
    """As on a gateway: no `CI`, no word about telemetry, a home of its own; numpy's own threads off."""
    kept = {k: v for k, v in os.environ.items() if k not in {"CI", "ORT_DISABLE_TELEMETRY"}}
    return {**kept, "HOME": str(home), "OPENBLAS_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}


def test_a_scoring_process_is_one_thread_without_sockets_or_files(tmp_path: Path) -> None:
    strace = shutil.which("strace")
    if strace is None:
        pytest.skip("strace is not installed")
    folder, key = signed_bundle(tmp_path)
    home = tmp_path / "home"
    home.mkdir()
    trace = tmp_path / "trace"
    command = [strace, "-f", "-qq", "-e", "trace=network,openat,creat,mkdir", "-o", str(trace)]
    done = subprocess.run(
        [*command, sys.executable, "-c", SCORE, str(folder), str(key)],
        env=environment(home),
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["threads", "1"]
    lines = trace.read_text().splitlines()
    assert any("gate.onnx" in line for line in lines), "the trace is empty"
    assert [line for line in lines if "socket(" in line or "connect(" in line] == []
    written = [
        line for line in lines if ("O_CREAT" in line or "mkdir(" in line) and "= -1" not in line
    ]
    assert written == []
    assert list(home.rglob("*")) == []


def test_importing_the_bundle_loader_does_not_import_onnxruntime() -> None:
    code = "import sys, agent.score.bundle; print('onnxruntime' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "False"


def test_without_onnxruntime_the_numpy_scorer_takes_over_and_says_so(tmp_path: Path) -> None:
    """A broken wheel: a module of that name that fails to load stands first on the path."""
    folder, key = signed_bundle(tmp_path)
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "onnxruntime.py").write_text("raise ImportError('illegal wheel')\n")
    code = (
        SCORE.replace('assert bundle.runtime == "onnx", bundle.runtime_problem', "")
        .replace(
            'print("threads"', 'print(bundle.runtime, bundle.runtime_problem); print("threads"'
        )
        .replace("range(15)", "range(1)")
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(folder), str(key)],
        env={**environment(tmp_path), "PYTHONPATH": f"{broken}:{ROOT}"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert done.stdout.startswith("numpy onnxruntime cannot be loaded: illegal wheel")
