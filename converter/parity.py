"""Proves of one quantised forest that it says what the learner said; a bundle that fails here is not written.

- the margin's error stays within the bound that `quantize` proved;
- labels agree on held-out rows (at least 99.95 %), and on rows placed on every threshold and one ulp beside;
- onnxruntime and the numpy scorer give the same integers on every one of these rows;
- the arrays, and `trees.npz` that holds both forests, take at most 0.35 of the bytes of the same trees as
  float32 arrays;
- a figure of the whole model moves by at most 0.001 (`check_metrics`).

The float32 arrays that it is held against are the usual ones of a tree file, one entry a node: feature (the same
uint8 or uint16 as ours), threshold float32, left and right child uint16, leaf float32. Latency is measured and
reported, never judged.

In: the float forest, its integers, the graph, held-out rows, a rule from margins to labels. Out: `Parity`.
Raises: `BundleError` (parity), saying which bound broke.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from agent.errors import BundleError, BundleReason
from agent.score.integer_trees import IntegerScorer, IntegerTrees, expand
from agent.score.onnx_session import OnnxScorer, start_session
from converter.export import float_graph, graph_bytes

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from agent.records import F32
    from converter.forests import F64, FloatForest
    from converter.quantize import Quantised

    Labels = Callable[[F64], NDArray[np.int64]]

MIN_LABEL_AGREEMENT = 0.9995
MAX_METRIC_SHIFT = 0.001
MAX_SIZE_RATIO = 0.35

LATENCY_ROWS = (1, 64, 256, 1024)
_LATENCY_REPEATS = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Parity:
    """What was proved and measured of one forest."""

    n_trees: int
    n_splits: int
    n_distinct_splits: int
    n_clipped_leaves: int
    margin_bound: float
    margin_error_max: float
    """The largest error met on any row below."""
    n_rows: int
    label_agreement: float
    n_threshold_rows: int
    threshold_label_agreement: float
    n_equal_sums: int
    """Rows on which onnxruntime and numpy gave the same integers: all of them."""
    array_bytes: int
    float32_array_bytes: int
    size_ratio: float
    npz_bytes: int
    float32_npz_bytes: int
    onnx_bytes: int
    float_onnx_bytes: int
    latency_us: dict[str, dict[str, float]]
    """Median of one call, by scorer and number of rows."""

    def as_json(self) -> dict[str, Any]:
        """For the manifest: without the latency, which differs from one build to the next."""
        return {name: value for name, value in asdict(self).items() if name != "latency_us"}


def prove(
    forest: FloatForest,
    quantised: Quantised,
    graph: bytes,
    rows: F32,
    labels: Labels,
    *,
    seed: int = 0,
) -> Parity:
    """Every check of this module's header on one forest. `labels` maps margins (n, outputs) to labels (n,)."""
    trees, n_features = quantised.trees, forest.n_features
    beside = threshold_rows(trees, rows, seed=seed)
    session = _session(graph, trees.base, n_features)
    numpy_scorer = IntegerScorer(trees)
    error_max, agreements = 0.0, []
    for block in (rows, beside):
        sums = numpy_scorer.sums(block)
        if not np.array_equal(session.sums(block), sums):
            raise _broken("onnxruntime and the numpy scorer differ in a sum")
        wanted = forest.margins(block)
        found = np.asarray(sums * quantised.scale, np.float64)
        off = np.abs(found - wanted)
        if np.any(off > quantised.margin_bound + 1e-9 * np.abs(wanted).max(initial=1.0)):
            raise _broken(f"a margin is off by {off.max():.3g}, more than was proved")
        error_max = max(error_max, float(off.max()))
        agreements.append(float(np.mean(labels(wanted) == labels(found))))
    for what, agreement in zip(("held-out rows", "rows on thresholds"), agreements, strict=True):
        if agreement < MIN_LABEL_AGREEMENT:
            raise _broken(
                f"labels agree on {agreement:.4%} of {what}, {MIN_LABEL_AGREEMENT:.2%} are due"
            )

    sizes = _sizes(quantised)
    check_size(sizes["array_bytes"], sizes["float32_array_bytes"], "the arrays")
    float_bytes = graph_bytes(float_graph(forest), n_features)
    scorers: dict[str, Any] = {
        "onnx": session,
        "float_onnx": _session(float_bytes, np.zeros(forest.n_outputs, np.int64), n_features),
        "numpy": numpy_scorer,
    }
    return Parity(
        n_trees=len(trees.tree_inner),
        n_splits=len(trees.feature),
        n_distinct_splits=len(trees.split_value),
        n_clipped_leaves=quantised.n_clipped,
        margin_bound=float(quantised.margin_bound.max()),
        margin_error_max=error_max,
        n_rows=len(rows),
        label_agreement=agreements[0],
        n_threshold_rows=len(beside),
        threshold_label_agreement=agreements[1],
        n_equal_sums=len(rows) + len(beside),
        size_ratio=round(sizes["array_bytes"] / sizes["float32_array_bytes"], 4),
        onnx_bytes=len(graph),
        float_onnx_bytes=len(float_bytes),
        latency_us={name: _latency(scorer, rows) for name, scorer in scorers.items()},
        **sizes,
    )


def threshold_rows(trees: IntegerTrees, rows: F32, *, seed: int) -> F32:
    """Three rows for every distinct threshold: a held-out row with that feature on it, and one ulp to either side."""
    feature = np.repeat(np.arange(trees.n_features), trees.split_count)
    random = np.random.default_rng(seed)
    result = rows[random.integers(0, len(rows), 3 * len(feature))].copy()
    at = trees.split_value
    placed = (at, np.nextafter(at, np.float32(-np.inf)), np.nextafter(at, np.float32(np.inf)))
    for k, values in enumerate(placed):
        result[np.arange(len(feature)) * 3 + k, feature] = values
    return result


def check_metrics(float_metrics: dict[str, float], quantised_metrics: dict[str, float]) -> None:
    """Refuse a model whose figures moved by more than the stated tolerance."""
    for name, value in float_metrics.items():
        if abs(value - quantised_metrics[name]) > MAX_METRIC_SHIFT:
            raise _broken(f"{name} moved from {value:.4f} to {quantised_metrics[name]:.4f}")


def check_size(n_bytes: int, n_float32_bytes: int, what: str) -> None:
    """Refuse integers that take too much of the bytes of their float32 arrays."""
    if n_bytes > MAX_SIZE_RATIO * n_float32_bytes:
        raise _broken(
            f"{what} take {n_bytes} bytes, at most {MAX_SIZE_RATIO} of {n_float32_bytes} are allowed"
        )


def stored_arrays(trees: IntegerTrees, prefix: str) -> dict[str, NDArray[np.generic]]:
    """A forest's arrays under a prefix, as `trees.npz` holds them."""
    return {prefix + name: array for name, array in trees.arrays().items()}


def npz_bytes(arrays: dict[str, NDArray[np.generic]]) -> bytes:
    """A compressed npz with no date in it: the same arrays give the same bytes."""
    out = io.BytesIO()
    np.savez_compressed(out, **arrays)  # type: ignore[arg-type]  # numpy writes 1980-01-01 itself
    return out.getvalue()


def _sizes(quantised: Quantised) -> dict[str, int]:
    trees = quantised.trees
    flat = expand(trees)
    root = np.repeat(flat.root, 2 * trees.tree_inner.astype(np.int64) + 1)
    left = np.where(flat.is_leaf, 0, flat.left - root).astype(np.uint16)
    reference: dict[str, NDArray[np.generic]] = {
        "feature": flat.feature.astype(trees.feature.dtype),
        "threshold": np.where(flat.is_leaf, np.float32(0), flat.threshold).astype(np.float32),
        "left": left,
        "right": np.where(flat.is_leaf, 0, left + 1).astype(np.uint16),
        "leaf": (flat.leaf * quantised.scale).astype(np.float32),
    }
    ours = trees.arrays()
    return {
        "array_bytes": sum(array.nbytes for array in ours.values()),
        "float32_array_bytes": sum(array.nbytes for array in reference.values()),
        "npz_bytes": len(npz_bytes(ours)),
        "float32_npz_bytes": len(npz_bytes(reference)),
    }


def _session(graph: bytes, base: NDArray[np.int64], n_features: int) -> OnnxScorer:
    session = start_session(graph, base=base, n_features=n_features)
    if isinstance(session, str):
        raise _broken(session)
    return session


def _latency(scorer: Any, rows: F32) -> dict[str, float]:
    result = {}
    for n in LATENCY_ROWS:
        block = np.resize(rows, (n, rows.shape[1]))
        times = []
        for _ in range(_LATENCY_REPEATS):
            begin = time.perf_counter_ns()
            scorer.sums(block)
            times.append(time.perf_counter_ns() - begin)
        result[str(n)] = round(float(np.median(times)) / 1000, 1)
    return result


def _broken(problem: str) -> BundleError:
    return BundleError(BundleReason.PARITY, f"parity: {problem}")
