"""A small real model on schema ip-1 and bundles of it; keys are made where a test needs them."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from sklearn.ensemble import HistGradientBoostingClassifier

from agent.features.ip_schema import SCHEMA
from agent.records import V4_MAPPED_LO, FeatureMatrix, Subjects
from converter.estimators import read
from converter.export import estimator_bytes
from converter.pack import pack
from converter.prove_model import quantize_model
from converter.work import FloatModel, QuantisedModel, TrainRecord

CLASSES = ("benign", "tcp_syn_flood", "port_scan", "mqtt_publish_flood")
SECOND_NS = 1_000_000_000


def traffic(n: int, seed: int) -> tuple[Any, Any]:
    """(n, f) float32 rows of ip-1 and class numbers; each kind loud in its own features, either side."""
    random = np.random.default_rng(seed)
    rows = np.floor(random.exponential(1.0, (n, len(SCHEMA)))).astype(np.float32)
    labels = random.choice(4, n, p=[0.7, 0.1, 0.1, 0.1])
    for label, stem in ((1, "tcp_syn_1s"), (2, "services_60s"), (3, "mqtt_publishes_1s")):
        for side in ("in", "out"):
            at = np.flatnonzero((labels == label) & (random.random(n) < 0.5))
            rows[at, SCHEMA.index[f"{side}_{stem}"]] += random.integers(60, 900, len(at))
            if label != 1:
                continue
            rows[at, SCHEMA.index[f"{side}_packets_1s"]] += 100
    quiet = labels > 0
    for label, stem in ((1, "tcp_syn_1s"), (2, "services_60s"), (3, "mqtt_publishes_1s")):
        loud = (rows[:, SCHEMA.index[f"in_{stem}"]] > 50) | (
            rows[:, SCHEMA.index[f"out_{stem}"]] > 50
        )
        quiet &= ~((labels == label) & loud)
    labels[quiet] = 0
    labels[random.random(n) < 0.02] = 0  # noise, so that trees grow beyond the obvious
    return rows, labels


@cache
def float_model() -> FloatModel:
    """Gate and kinds fitted on `traffic`, by the converter's own way from learner to graph."""
    rows, labels = traffic(3000, 11)
    gate = HistGradientBoostingClassifier(max_iter=40, max_leaf_nodes=15, random_state=0)
    kinds = HistGradientBoostingClassifier(max_iter=20, max_leaf_nodes=15, random_state=0)
    gate.fit(rows.astype(np.float64), labels > 0)
    kinds.fit(rows.astype(np.float64), labels)
    forest = read(kinds)
    return FloatModel(
        gate=read(gate),
        kinds=type(forest)(
            trees=forest.trees, base=forest.base, n_features=forest.n_features, classes=CLASSES
        ),
        benign_median=np.median(rows[labels == 0], axis=0).astype(np.float32),
        golden_rows=rows[:64],
        gate_graph=estimator_bytes(gate),
        kinds_graph=estimator_bytes(kinds),
        record=TrainRecord(
            schema_id=SCHEMA.id,
            schema_digest=SCHEMA.digest,
            gate_threshold=0.5,
            kinds_lead=0.0,
            score_p30=0.9,
            data={"runs": 1, "rows": len(rows)},
            split="none: a model for tests",
            settings={},
            tools={"wardwatch": "0.1.0"},
        ),
    )


@cache
def quantised_model() -> QuantisedModel:
    return quantize_model(float_model(), traffic(1500, 12)[0])[0]


def signed_bundle(parent: Path, **changes: Any) -> tuple[Path, Path]:
    """(folder, public key file) of a bundle signed by a key made here."""
    key = Ed25519PrivateKey.generate()
    settings: dict[str, Any] = {"metrics": {}, "created": "2026-01-02", "version": 1, **changes}
    folder = pack(parent, float_model(), quantised_model(), key=key, **settings)
    return folder, write_public(key, parent / "site.pub")


def write_public(key: Ed25519PrivateKey, path: Path) -> Path:
    path.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return path


def matrix_of(
    rows: Any, *, schema: Any = SCHEMA, slices: Any = None, **subjects: Any
) -> FeatureMatrix:
    """A matrix of rows about 10.0.0.1, 10.0.0.2 ...; `subjects` sets columns by name."""
    n = len(rows)
    base: dict[str, Any] = {
        name: np.zeros(n, np.uint64)
        for name in ("hi", "lo", "mac", "rival_mac", "probed_hi", "probed_lo")
    }
    for side in ("in", "out"):
        base[f"{side}_peer_hi"] = np.zeros(n, np.uint64)
        base[f"{side}_peer_lo"] = np.full(n, V4_MAPPED_LO | 0x0A0000F0, np.uint64)
        base[f"{side}_peer_packets"] = np.ones(n, np.int64)
        base[f"{side}_port"] = np.full(n, 1883 if side == "in" else 443, np.int32)
    base["in_new_sources"] = np.zeros(n, np.int64)
    base["lo"] = (V4_MAPPED_LO | 0x0A000001) + np.arange(n, dtype=np.uint64)
    base.update({name: np.asarray(value) for name, value in subjects.items()})
    start = (np.zeros(n, np.int64) if slices is None else np.asarray(slices, np.int64)) * SECOND_NS
    return FeatureMatrix(
        schema=schema,
        values=np.asarray(rows, np.float32),
        subjects=Subjects(**base),
        start_ns=start,
        end_ns=start + SECOND_NS,
    )


def loud(**features: float) -> Any:
    """(f,) a row that is zero but for the named features."""
    row = np.zeros(len(SCHEMA), np.float32)
    for name, value in features.items():
        row[SCHEMA.index[name]] = value
    return row
