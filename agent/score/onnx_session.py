"""Runs a bundle's graph in onnxruntime: one thread, no spinning, sequential, no telemetry.

The only file that imports onnxruntime, and only when a session is started: a gateway whose runtime is broken
goes on with the numpy scorer, which gives the same integers. `agent/__init__` has set `ORT_DISABLE_TELEMETRY`
by then. The graph emits sums of whole numbers as float32, exact below 2^24; the base is added here, in int64.

In: the bytes of a graph that `onnx_graph` has passed. Out: a scorer, or in words why there is none.
Raises: nothing of onnxruntime's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from agent.records import F32, I64

QUIET = 3
"""onnxruntime logs errors only; what is wrong is told in one line by us."""


class OnnxScorer:
    """Integer sums of rows, by onnxruntime."""

    def __init__(self, session: Any, base: I64, n_features: int) -> None:
        self._session = session
        self._base = base
        self.n_features = n_features
        self.n_outputs = len(base)

    def sums(self, values: F32) -> I64:
        """(n, n_outputs) int64 exact sums of the rows `values`, float32 (n, n_features)."""
        if not len(values):
            return np.empty((0, self.n_outputs), np.int64)
        (sums,) = self._session.run(None, {"rows": np.ascontiguousarray(values)})
        return np.asarray(sums).astype(np.int64) + self._base


def start_session(graph: bytes, *, base: I64, n_features: int) -> OnnxScorer | str:
    """A scorer for the graph; or, where onnxruntime is absent or refuses it, one line that says why."""
    try:
        import onnxruntime as ort  # noqa: PLC0415  imported late on purpose, see above
    except (ImportError, OSError) as error:  # a missing wheel, or one for another processor
        return f"onnxruntime cannot be loaded: {_line(error)}"
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL  # one operator
    options.enable_cpu_mem_arena = False  # 64 rows need no arena, and a Pi's memory is small
    options.log_severity_level = QUIET
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    try:
        session = ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # noqa: BLE001  its exceptions share no base below Exception
        return f"onnxruntime {ort.__version__} refuses the graph: {_line(error)}"
    return OnnxScorer(session, base, n_features)


def _line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
