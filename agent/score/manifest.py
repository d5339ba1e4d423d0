"""What a bundle says about itself: `manifest.json`, as typed structs.

It never reads a file. Unknown keys are refused: a key that an older agent does not know may change what the
model means. Additions raise `FORMAT`.
"""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec

from agent.errors import BundleError, BundleReason

FORMAT = 1

MODEL_FILES = ("gate.onnx", "golden.npz", "kinds.onnx", "trees.npz")
"""The files that make the model; their digests make the bundle's id."""

FILES = (*MODEL_FILES, "CARD.md")
"""Every file of a bundle beside the manifest and its signature."""


class FileInfo(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One file of the bundle."""

    sha256: str
    n_bytes: int


class GateInfo(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The binary model that sees every row."""

    scale: float
    """Margin (log odds) = integer sum x scale."""
    threshold: int
    """A row is flagged from this sum on."""
    margin_bound: float
    """No row's margin differs from the trainer's by more."""


class KindsInfo(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The model of kinds, which sees only flagged rows."""

    classes: tuple[str, ...]
    """In the order of the outputs; the first is `benign`, its second look at a flagged row."""
    scale: float
    lead: int
    """A kind is reported where its sum leads that of `benign` by at least this."""
    margin_bound: float


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A bundle's manifest."""

    format: int
    id: str
    """`<schema>-<yyyymmdd>-<8 hex digits>`, the digits from the digests of the model's files."""
    version: int
    """Grows with each release of a site's model (anti-rollback)."""
    created: str
    """Date of the training data's newest recording or of the build, yyyy-mm-dd."""
    schema_id: str
    schema_digest: str
    n_features: int
    min_agent_version: str
    gate: GateInfo
    kinds: KindsInfo
    score_p30: float
    """The displayed score that 30 % of right detections stayed below in training; severity asks for it."""
    files: dict[str, FileInfo]
    data: dict[str, Any]
    """Runs used to train, to choose thresholds and to test: digests and counts."""
    split: str
    metrics: dict[str, Any]
    """On held-out runs: `float` and `quantised`."""
    parity: dict[str, Any]
    tools: dict[str, str]


def bundle_id(schema_id: str, created: str, digests: dict[str, str]) -> str:
    """The id that a bundle with these SHA-256 digests by file name must have."""
    text = "".join(f"{name} {digests[name]}\n" for name in MODEL_FILES)
    return f"{schema_id}-{created.replace('-', '')}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def parse_manifest(data: bytes) -> Manifest:
    """Typed manifest of the bytes; says what does not fit."""
    try:
        manifest = msgspec.json.decode(data, type=Manifest)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise BundleError(BundleReason.MALFORMED, f"manifest.json: {error}") from None
    if manifest.format != FORMAT:
        raise BundleError(
            BundleReason.TOO_NEW,
            f"manifest.json: format {manifest.format}, this agent reads {FORMAT}: update the agent",
        )
    if sorted(manifest.files) != sorted(FILES):
        raise BundleError(
            BundleReason.MALFORMED, f"manifest.json: files must be {', '.join(sorted(FILES))}"
        )
    classes = manifest.kinds.classes
    if len(classes) < 2 or classes[0] != "benign" or len(set(classes)) != len(classes):
        raise BundleError(
            BundleReason.MALFORMED, "manifest.json: kinds.classes must be benign and then the kinds"
        )
    if not (manifest.gate.scale > 0 and manifest.kinds.scale > 0):
        raise BundleError(BundleReason.MALFORMED, "manifest.json: a scale must be above 0")
    digests = {name: info.sha256 for name, info in manifest.files.items()}
    if manifest.id != bundle_id(manifest.schema_id, manifest.created, digests):
        raise BundleError(
            BundleReason.TAMPERED, f"manifest.json: {manifest.id} is not its files' id"
        )
    return manifest


def encode_manifest(manifest: Manifest) -> bytes:
    """The bytes to write and to sign: sorted keys, two spaces, a newline at the end."""
    raw = msgspec.json.encode(manifest, order="sorted")
    return msgspec.json.format(raw, indent=2) + b"\n"
