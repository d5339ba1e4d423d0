"""Writes a bundle: the folder that the agent loads, signed, or trusted as the shipped one.

A bundle is assembled beside its place, loaded by the agent's own `load_bundle` with both runtimes, and only then
moved there: what the agent would refuse is never left behind. The same model gives the same bytes. The private key
stays where it is; nothing of it is written.

In: a float model, its integers, metrics. Out: the bundle's folder. Raises: `BundleError`.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
)

from agent.errors import BundleError, BundleReason
from agent.score.bundle import MAX_BUNDLE_BYTES, Bundle, load_bundle
from agent.score.integer_trees import IntegerScorer
from agent.score.manifest import (
    FORMAT,
    MODEL_FILES,
    FileInfo,
    GateInfo,
    KindsInfo,
    Manifest,
    bundle_id,
    encode_manifest,
)
from converter.card import card_text
from converter.parity import npz_bytes
from converter.work import trees_bytes

if TYPE_CHECKING:
    from converter.work import FloatModel, QuantisedModel

MIN_AGENT_VERSION = "0.1.0"
"""The oldest agent that computes what a bundle of this converter needs."""

MAX_ONNX_BYTES = 1_000_000
"""Gate and kinds together: what a gateway has to hold and to load."""


def pack(
    parent: Path,
    model: FloatModel,
    quantised: QuantisedModel,
    *,
    metrics: dict[str, Any],
    created: str,
    version: int,
    key: Ed25519PrivateKey | None = None,
) -> Path:
    """Write the bundle as a folder of `parent` named by its id; an equal one that is there is replaced.

    Without `key` it is unsigned: only an agent whose code holds its digest (`shipped_source`) takes it.
    """
    contents = model_files(model, quantised)
    manifest = make_manifest(
        model, quantised, contents, metrics=metrics, created=created, version=version
    )
    contents["manifest.json"] = encode_manifest(manifest)
    contents["CARD.md"] = card_text(manifest).encode()
    if key is not None:
        contents["manifest.sig"] = key.sign(contents["manifest.json"])
    graphs = sum(len(data) for name, data in contents.items() if name.endswith(".onnx"))
    if graphs > MAX_ONNX_BYTES:
        raise BundleError(
            BundleReason.TOO_LARGE,
            f"gate and kinds have {graphs} bytes of ONNX, at most {MAX_ONNX_BYTES} fit: train fewer trees",
        )
    total = sum(map(len, contents.values()))
    if total > MAX_BUNDLE_BYTES:
        raise BundleError(
            BundleReason.TOO_LARGE, f"the bundle has {total} bytes, at most {MAX_BUNDLE_BYTES} fit"
        )

    parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".pack-", dir=parent) as name:
        made = Path(name) / manifest.id
        made.mkdir()
        for file_name, data in contents.items():
            (made / file_name).write_bytes(data)
        _prove_loads(made, contents["manifest.json"])
        place = parent / manifest.id
        if place.exists():
            shutil.rmtree(place)
        made.replace(place)
    return place


def read_private_key(path: Path) -> Ed25519PrivateKey:
    """An unencrypted Ed25519 private key from a PEM file."""
    try:
        key = load_pem_private_key(path.read_bytes(), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    except OSError as error:
        raise BundleError(BundleReason.NOT_FOUND, f"{path}: {error.strerror}") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise BundleError(
            BundleReason.UNTRUSTED, f"{path}: not an unencrypted Ed25519 private key in PEM form"
        )
    return key


def shipped_source(bundle: Path) -> str:
    """The text of `agent/score/shipped.py` that makes `bundle` the shipped one."""
    digest = hashlib.sha256((bundle / "manifest.json").read_bytes()).hexdigest()
    return f'''"""Which bundle is shipped with this version, and the digests that it is trusted by.

Written by `wardwatch-convert pack --shipped`; not edited by hand.
"""

DEFAULT = "{bundle.name}"
"""Folder of the bundle inside `agent/_models` (installed) or `models` (checkout); empty: none is shipped."""

MANIFEST_SHA256: dict[str, str] = {{
    DEFAULT: "{digest}",
}}
"""SHA-256 of `manifest.json` by bundle id."""
'''


def model_files(model: FloatModel, quantised: QuantisedModel) -> dict[str, bytes]:
    """The files that make the model, by name."""
    rows = model.golden_rows
    golden = {
        "rows": rows,
        "gate": IntegerScorer(quantised.gate.trees).sums(rows),
        "kinds": IntegerScorer(quantised.kinds.trees).sums(rows),
        "benign_median": model.benign_median,
    }
    return {
        "gate.onnx": model.gate_graph,
        "kinds.onnx": model.kinds_graph,
        "trees.npz": trees_bytes(quantised),
        "golden.npz": npz_bytes({name: np.asarray(array) for name, array in golden.items()}),
    }


def make_manifest(
    model: FloatModel,
    quantised: QuantisedModel,
    contents: dict[str, bytes],
    *,
    metrics: dict[str, Any],
    created: str,
    version: int,
) -> Manifest:
    """The manifest of a bundle of these files, its card included."""
    record = model.record
    digests = {name: hashlib.sha256(contents[name]).hexdigest() for name in MODEL_FILES}
    manifest = Manifest(
        format=FORMAT,
        id=bundle_id(record.schema_id, created, digests),
        version=version,
        created=created,
        schema_id=record.schema_id,
        schema_digest=record.schema_digest,
        n_features=model.gate.n_features,
        min_agent_version=MIN_AGENT_VERSION,
        gate=GateInfo(
            scale=quantised.gate.scale,
            threshold=quantised.gate_threshold,
            margin_bound=float(quantised.gate.margin_bound.max()),
        ),
        kinds=KindsInfo(
            classes=model.kinds.classes,
            scale=quantised.kinds.scale,
            lead=quantised.kinds_lead,
            margin_bound=float(quantised.kinds.margin_bound.max()),
        ),
        score_p30=record.score_p30,
        files={name: FileInfo(digests[name], len(contents[name])) for name in MODEL_FILES},
        data=record.data,
        split=record.split,
        metrics=metrics,
        parity=quantised.parity,
        tools=record.tools,
    )
    card = card_text(manifest).encode()
    manifest.files["CARD.md"] = FileInfo(hashlib.sha256(card).hexdigest(), len(card))
    return manifest


def _prove_loads(folder: Path, manifest: bytes) -> None:
    """The agent itself takes the bundle, with both runtimes; a throw-away key signs for the trial."""
    trial_key = Ed25519PrivateKey.generate()
    with tempfile.TemporaryDirectory() as name:
        trial = Path(name) / folder.name
        shutil.copytree(folder, trial)
        (trial / "manifest.sig").write_bytes(trial_key.sign(manifest))
        public = Path(name) / "trial.pub"
        public.write_bytes(
            trial_key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        )
        bundles: list[Bundle] = [
            load_bundle(trial, trust=[public], runtime=runtime) for runtime in ("onnx", "numpy")
        ]
    if bundles[0].runtime_problem:
        raise BundleError(BundleReason.PARITY, f"the bundle: {bundles[0].runtime_problem}")
