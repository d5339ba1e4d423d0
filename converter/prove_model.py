"""Quantises a model's two forests and proves both: the step `quantize`.

The kinds are proved on the rows that the gate flags as well as on all others: more rows than they will ever see.

In: a float model, held-out rows. Out: its integers, with what was proved. Raises: `BundleError` (parity).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from converter.parity import Parity, check_size, prove
from converter.quantize import quantize
from converter.work import FloatModel, QuantisedModel, trees_bytes

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from agent.records import F32
    from converter.forests import F64


def quantize_model(
    model: FloatModel, rows: F32, *, leaf_bits: int = 16
) -> tuple[QuantisedModel, dict[str, Any]]:
    """The model as integers, proved on `rows`; and the latencies met on the way, in microseconds."""
    gate, kinds = (
        quantize(model.gate, leaf_bits=leaf_bits),
        quantize(model.kinds, leaf_bits=leaf_bits),
    )

    def flagged(margins: F64) -> NDArray[np.int64]:
        return (margins[:, 0] >= model.record.gate_threshold).astype(np.int64)

    def best(margins: F64) -> NDArray[np.int64]:
        return np.asarray(np.argmax(margins, axis=1), np.int64)

    proofs: dict[str, Parity] = {
        "gate": prove(model.gate, gate, model.gate_graph, rows, flagged),
        "kinds": prove(model.kinds, kinds, model.kinds_graph, rows, best),
    }
    quantised = QuantisedModel(
        gate=gate,
        kinds=kinds,
        gate_threshold=math.ceil(model.record.gate_threshold / gate.scale),
        kinds_lead=math.ceil(model.record.kinds_lead / kinds.scale),
        parity={name: proof.as_json() for name, proof in proofs.items()},
    )
    check_size(
        len(trees_bytes(quantised)),
        sum(proof.float32_array_bytes for proof in proofs.values()),
        "trees.npz",
    )
    return quantised, {name: proof.latency_us for name, proof in proofs.items()}


def quantise_only(model: FloatModel) -> QuantisedModel:
    """The model as integers without any proof: for studies that are thrown away, never for a bundle."""
    gate, kinds = quantize(model.gate), quantize(model.kinds)
    return QuantisedModel(
        gate=gate,
        kinds=kinds,
        gate_threshold=math.ceil(model.record.gate_threshold / gate.scale),
        kinds_lead=math.ceil(model.record.kinds_lead / kinds.scale),
        parity={},
    )
