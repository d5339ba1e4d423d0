"""Float against integers: how long the bundle's sums take, with the same trees as floats beside them.

The float graph is the bundle's own with its leaves multiplied by the scale: the same shape, so what differs is
only what quantising changes. It measures, and proves nothing (`parity` does).

In: a bundle, feature rows. Out: figures of `agent.bench.record`, microseconds (wall) of gate and kinds together.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import numpy_helper

from agent.bench.record import figure
from agent.bench.run import ROWS
from agent.errors import BundleError, BundleReason
from agent.score.bundle import Bundle, load_bundle
from agent.score.onnx_session import start_session

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from agent.records import F32

    Sums = Callable[[F32], object]


def float_bytes(graph: Path, scale: float) -> bytes:
    """A bundle's graph with float32 leaves: each integer times the scale."""
    model = onnx.load(graph)
    for attribute in model.graph.node[0].attribute:
        if attribute.name == "leaf_weights":
            leaves = numpy_helper.to_array(attribute.t) * np.float32(scale)
            attribute.t.CopyFrom(numpy_helper.from_array(leaves.astype(np.float32)))
    return bytes(model.SerializeToString())


def float_scorers(bundle: Bundle) -> tuple[Sums, Sums]:
    """Gate and kinds of a bundle as float graphs in onnxruntime."""
    started = []
    for name, part, scorer in (
        ("gate", bundle.manifest.gate, bundle.gate),
        ("kinds", bundle.manifest.kinds, bundle.kinds),
    ):
        session = start_session(
            float_bytes(bundle.path / f"{name}.onnx", part.scale),
            base=np.zeros(scorer.n_outputs, np.int64),
            n_features=scorer.n_features,
        )
        if isinstance(session, str):
            raise BundleError(BundleReason.MALFORMED, session)
        started.append(session.sums)
    return started[0], started[1]


def bench(rows: F32) -> Iterator[dict[str, Any]]:
    """Sums of gate and kinds over the same rows: float, quantised, and by numpy."""
    onnx_bundle, numpy_bundle = load_bundle(), load_bundle(runtime="numpy")
    scorers: dict[str, tuple[Sums, Sums]] = {
        "float, onnxruntime": float_scorers(onnx_bundle),
        "quantised, onnxruntime": (onnx_bundle.gate.sums, onnx_bundle.kinds.sums),
        "quantised, numpy": (numpy_bundle.gate.sums, numpy_bundle.kinds.sums),
    }
    for n_rows in ROWS:
        some = np.ascontiguousarray(rows[np.arange(n_rows) % len(rows)])
        for name, (gate, kinds) in scorers.items():
            samples = []
            for _ in range(max(30, 2000 // n_rows)):
                start = time.perf_counter_ns()
                gate(some)
                kinds(some)
                samples.append((time.perf_counter_ns() - start) / 1e3)
            yield figure("score", f"sums, {name}", f"{n_rows} rows", "us", samples, batch=n_rows)
