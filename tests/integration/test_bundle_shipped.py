"""The shipped bundle: trusted by its digest, small, exact on committed held-out rows, as good as its page says."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from agent.features.ip import SCHEMA
from agent.score import shipped
from agent.score.bundle import Bundle, load_bundle
from agent.score.integer_trees import from_arrays
from converter.dataset import load_all
from converter.datasets.matrix import KINDS, RunMatrix
from converter.figures import confusion, macro_f1
from converter.parity import MAX_SIZE_RATIO, threshold_rows
from converter.work import decide

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT / "datasets" / "ip-1"


@pytest.fixture(scope="module")
def bundles() -> tuple[Bundle, Bundle]:
    return load_bundle(schema=SCHEMA), load_bundle(schema=SCHEMA, runtime="numpy")


@pytest.fixture(scope="module")
def held_out() -> list[RunMatrix]:
    return [run for run in load_all(DATA) if run.info.plan.startswith("heldout")]


def test_it_is_trusted_by_the_digest_in_the_code_and_scores_with_onnxruntime(
    bundles: tuple[Bundle, Bundle],
) -> None:
    bundle = bundles[0]
    assert bundle.id == shipped.DEFAULT
    assert bundle.trusted_by == "shipped"
    assert (bundle.runtime, bundle.runtime_problem) == ("onnx", None)


def test_it_is_small(bundles: tuple[Bundle, Bundle]) -> None:
    sizes = {path.name: path.stat().st_size for path in bundles[0].path.iterdir()}
    assert sum(sizes.values()) < 3_000_000
    assert sizes["gate.onnx"] + sizes["kinds.onnx"] < 1_000_000
    parity = bundles[0].manifest.parity
    float32_bytes = sum(part["float32_array_bytes"] for part in parity.values())
    assert sizes["trees.npz"] <= MAX_SIZE_RATIO * float32_bytes
    with np.load(bundles[0].path / "trees.npz") as stored:
        arrays = sum(stored[name].nbytes for name in stored.files)
    assert arrays <= MAX_SIZE_RATIO * float32_bytes


def test_onnxruntime_and_numpy_give_equal_sums_on_held_out_rows_and_on_every_threshold(
    bundles: tuple[Bundle, Bundle], held_out: list[RunMatrix]
) -> None:
    rows = np.concatenate([run.matrix.values for run in held_out])[::4]
    with np.load(bundles[0].path / "trees.npz") as stored:
        arrays = {name: stored[name] for name in stored.files}
    for name in ("gate", "kinds"):
        first, second = (getattr(bundle, name) for bundle in bundles)
        beside = threshold_rows(from_arrays(arrays, f"{name}."), rows, seed=3)
        for block in (rows, beside):
            assert np.array_equal(first.sums(block), second.sums(block))


def test_its_page_and_its_manifest_say_what_it_does_on_the_committed_rows(
    bundles: tuple[Bundle, Bundle], held_out: list[RunMatrix]
) -> None:
    bundle = bundles[0]
    manifest = bundle.manifest
    place = np.array([KINDS.index(name) for name in manifest.kinds.classes])
    table = np.zeros((len(KINDS), len(KINDS)), np.int64)
    for run in held_out:
        kept = ~run.edge
        rows = run.matrix.values[kept]
        said = decide(
            bundle.gate.sums(rows),
            bundle.kinds.sums(rows),
            manifest.gate.threshold,
            manifest.kinds.lead,
        )
        table += confusion(run.kind[kept].astype(np.int64), place[said], len(KINDS))
    recorded = json.loads((ROOT / "docs" / "results" / "model.json").read_text())["figures"]
    assert recorded["quantised"]["confusion"] == table.tolist()
    assert macro_f1(table) == pytest.approx(manifest.metrics["quantised"]["macro_f1"], abs=1e-6)
    assert recorded["label_agreement"] >= 0.9995


def test_no_held_out_run_is_among_those_it_was_trained_on(held_out: list[RunMatrix]) -> None:
    others = [run for run in load_all(DATA) if not run.info.plan.startswith("heldout")]
    captures = {run.info.capture_sha256 for run in others}
    assert len(captures) == len(others)
    assert not captures & {run.info.capture_sha256 for run in held_out}


def test_the_committed_matrices_fit_their_budget() -> None:
    assert sum(path.stat().st_size for path in DATA.rglob("*")) < 40_000_000
