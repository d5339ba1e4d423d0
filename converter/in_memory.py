"""A model as the agent's `Bundle` without a folder: so that evaluation runs the agent's own detector on it.

Once with the integers as they will be shipped, once with the float trees: their margins in steps of 2^-32, far finer
than any difference that matters, since the detector wants whole numbers.

In: what `train` and `quantize` made. Out: `Bundle`. It is never trusted by anything but the caller.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from agent.score.bundle import Bundle, Scorer
from agent.score.integer_trees import IntegerScorer
from converter.pack import make_manifest, model_files

if TYPE_CHECKING:
    from agent.records import F32, I64
    from agent.score.manifest import Manifest
    from converter.forests import FloatForest
    from converter.work import FloatModel, QuantisedModel

FLOAT_STEP = 2.0**-32


@dataclass(frozen=True, slots=True)
class _FloatScorer:
    """A float forest's margins as whole steps."""

    forest: FloatForest
    n_features: int
    n_outputs: int

    def sums(self, values: F32) -> I64:
        return np.rint(self.forest.margins(values) / FLOAT_STEP).astype(np.int64)


def quantised_bundle(model: FloatModel, quantised: QuantisedModel) -> Bundle:
    """The model as it will be shipped."""
    return _bundle(
        model,
        quantised,
        IntegerScorer(quantised.gate.trees),
        IntegerScorer(quantised.kinds.trees),
    )


def float_bundle(model: FloatModel, quantised: QuantisedModel) -> Bundle:
    """The model as it was learnt."""
    gate, kinds = (
        _FloatScorer(forest, forest.n_features, forest.n_outputs)
        for forest in (model.gate, model.kinds)
    )
    bundle = _bundle(model, quantised, gate, kinds)
    manifest = msgspec.structs.replace(
        bundle.manifest,
        gate=msgspec.structs.replace(
            bundle.manifest.gate,
            scale=FLOAT_STEP,
            threshold=int(np.ceil(model.record.gate_threshold / FLOAT_STEP)),
        ),
        kinds=msgspec.structs.replace(
            bundle.manifest.kinds,
            scale=FLOAT_STEP,
            lead=int(np.ceil(model.record.kinds_lead / FLOAT_STEP)),
        ),
    )
    return _bundle(model, quantised, gate, kinds, manifest)


def _bundle(
    model: FloatModel,
    quantised: QuantisedModel,
    gate: Scorer,
    kinds: Scorer,
    manifest: Manifest | None = None,
) -> Bundle:
    made = make_manifest(
        model,
        quantised,
        model_files(model, quantised),
        metrics={},
        created="2000-01-01",
        version=0,
    )
    return Bundle(
        path=Path(),
        manifest=made if manifest is None else manifest,
        gate=gate,
        kinds=kinds,
        benign_median=model.benign_median,
        gate_features=np.flatnonzero(quantised.gate.trees.split_count),
        runtime="numpy",
        runtime_problem=None,
        trusted_by="the converter",
    )
