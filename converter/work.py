"""What the converter's steps leave for each other in a work folder: npz and JSON, never a pickle.

    train     float.npz  train.json  gate.onnx  kinds.onnx
    quantize  trees.npz  quantised.json  latency.json
    evaluate  metrics.json
    pack      reads them all and writes a bundle

In: a folder. Raises: `BundleError` (not found) naming the step that has to be run first.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from agent.errors import BundleError, BundleReason
from agent.score.integer_trees import IntegerScorer, from_arrays
from converter.forests import FloatForest, forest_from_arrays
from converter.parity import npz_bytes, stored_arrays
from converter.quantize import Quantised

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from agent.records import F32, I64
    from converter.forests import F64


class TrainRecord(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """How a float model came about; part of the manifest."""

    schema_id: str
    schema_digest: str
    gate_threshold: float
    """Margin of the gate from which a row is flagged."""
    kinds_lead: float
    """Lead of a kind's margin over benign's from which it is reported."""
    score_p30: float
    """The displayed score that 30 % of right detections stay below, out of fold."""
    data: dict[str, Any]
    split: str
    settings: dict[str, Any]
    tools: dict[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class FloatModel:
    """Gate and kinds as they were learnt, and their thresholds."""

    gate: FloatForest
    kinds: FloatForest
    benign_median: F32
    golden_rows: F32
    """(k, f) training rows, some of every kind, and none that tells a host."""
    gate_graph: bytes
    kinds_graph: bytes
    record: TrainRecord

    def predict(self, rows: F32) -> NDArray[np.int64]:
        """(n,) class numbers by the float trees: 0 benign, else a place in `kinds.classes`."""
        record = self.record
        return decide(
            self.gate.margins(rows),
            self.kinds.margins(rows),
            record.gate_threshold,
            record.kinds_lead,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantisedModel:
    """The same two models as integers."""

    gate: Quantised
    kinds: Quantised
    gate_threshold: int
    kinds_lead: int
    parity: dict[str, Any]

    def predict(self, rows: F32) -> NDArray[np.int64]:
        """(n,) class numbers by the integers, as the agent decides."""
        gate = IntegerScorer(self.gate.trees).sums(rows)
        kinds = IntegerScorer(self.kinds.trees).sums(rows)
        return decide(gate, kinds, self.gate_threshold, self.kinds_lead)


def decide(
    gate: F64 | I64, kinds: F64 | I64, gate_threshold: float, kinds_lead: float
) -> NDArray[np.int64]:
    """The agent's decision on margins or sums: 0 unless flagged and the best kind leads benign."""
    best = np.argmax(kinds[:, 1:], axis=1) + 1
    lead = kinds[np.arange(len(kinds)), best] - kinds[:, 0]
    return np.where((gate[:, 0] >= gate_threshold) & (lead >= kinds_lead), best, 0)


def save_float(folder: Path, model: FloatModel) -> None:
    """Write what `train` made."""
    folder.mkdir(parents=True, exist_ok=True)
    arrays = {
        **model.gate.arrays("gate."),
        **model.kinds.arrays("kinds."),
        "benign_median": model.benign_median,
        "golden_rows": model.golden_rows,
    }
    (folder / "float.npz").write_bytes(npz_bytes(arrays))
    (folder / "gate.onnx").write_bytes(model.gate_graph)
    (folder / "kinds.onnx").write_bytes(model.kinds_graph)
    _write_json(folder / "train.json", model.record)


def load_float(folder: Path) -> FloatModel:
    """Read what `train` made."""
    _require(folder, "train", ("float.npz", "gate.onnx", "kinds.onnx", "train.json"))
    with np.load(folder / "float.npz", allow_pickle=False) as arrays:
        stored = {name: arrays[name] for name in arrays.files}
    return FloatModel(
        gate=forest_from_arrays(stored, "gate."),
        kinds=forest_from_arrays(stored, "kinds."),
        benign_median=stored["benign_median"],
        golden_rows=stored["golden_rows"],
        gate_graph=(folder / "gate.onnx").read_bytes(),
        kinds_graph=(folder / "kinds.onnx").read_bytes(),
        record=msgspec.json.decode((folder / "train.json").read_bytes(), type=TrainRecord),
    )


def save_quantised(folder: Path, model: QuantisedModel) -> None:
    """Write what `quantize` made."""
    (folder / "trees.npz").write_bytes(trees_bytes(model))
    about = {
        "gate_threshold": model.gate_threshold,
        "kinds_lead": model.kinds_lead,
        "parity": model.parity,
    }
    for name, part in (("gate", model.gate), ("kinds", model.kinds)):
        about[name] = {
            "scale": part.scale,
            "margin_bound": part.margin_bound.tolist(),
            "n_clipped": part.n_clipped,
        }
    _write_json(folder / "quantised.json", about)


def load_quantised(folder: Path) -> QuantisedModel:
    """Read what `quantize` made."""
    _require(folder, "quantize", ("trees.npz", "quantised.json"))
    about = msgspec.json.decode((folder / "quantised.json").read_bytes())
    with np.load(folder / "trees.npz", allow_pickle=False) as arrays:
        stored = {name: arrays[name] for name in arrays.files}
    parts = {
        name: Quantised(
            trees=from_arrays(stored, f"{name}."),
            scale=about[name]["scale"],
            margin_bound=np.array(about[name]["margin_bound"]),
            n_clipped=about[name]["n_clipped"],
        )
        for name in ("gate", "kinds")
    }
    return QuantisedModel(
        gate=parts["gate"],
        kinds=parts["kinds"],
        gate_threshold=about["gate_threshold"],
        kinds_lead=about["kinds_lead"],
        parity=about["parity"],
    )


def save_latency(folder: Path, latency: dict[str, Any]) -> None:
    """Write how long a call took; apart, since it differs from one build to the next."""
    _write_json(folder / "latency.json", latency)


def load_latency(folder: Path) -> dict[str, Any]:
    """Read how long a call took."""
    _require(folder, "quantize", ("latency.json",))
    return dict(msgspec.json.decode((folder / "latency.json").read_bytes()))


def load_metrics(folder: Path) -> dict[str, Any]:
    """Read what `evaluate` measured."""
    _require(folder, "evaluate", ("metrics.json",))
    return dict(msgspec.json.decode((folder / "metrics.json").read_bytes()))


def save_metrics(folder: Path, metrics: dict[str, Any]) -> None:
    """Write what `evaluate` measured."""
    _write_json(folder / "metrics.json", metrics)


def trees_bytes(model: QuantisedModel) -> bytes:
    """`trees.npz` of a bundle."""
    gate, kinds = (
        stored_arrays(part.trees, prefix)
        for part, prefix in ((model.gate, "gate."), (model.kinds, "kinds."))
    )
    return npz_bytes({**gate, **kinds})


def _write_json(path: Path, value: Any) -> None:
    raw = msgspec.json.encode(value, order="sorted")
    path.write_bytes(msgspec.json.format(raw, indent=2) + b"\n")


def _require(folder: Path, step: str, names: tuple[str, ...]) -> None:
    for name in names:
        if not (folder / name).is_file():
            raise BundleError(
                BundleReason.NOT_FOUND,
                f"{folder / name}: missing: run `wardwatch-convert {step}` first",
            )
