"""Loads a model bundle, and refuses every one that cannot be trusted or does not replay exactly.

A bundle is a folder: `manifest.json`, `manifest.sig` (Ed25519 over the manifest's bytes, 64 raw bytes; absent in
the shipped one), `gate.onnx`, `kinds.onnx`, `trees.npz` (the same integers, for the numpy scorer), `golden.npz`
(rows with their exact sums), `CARD.md`. Order of the checks: sizes, trust of the manifest, manifest, digests of
the files, trees, graphs, golden rows. Nothing of a file is interpreted before its digest is known to be right.

It never writes, never fetches, and never scores with anything but whole numbers.

In: a folder, or None for the shipped bundle. Out: `Bundle`. Raises: `BundleError` with its reason.
"""

from __future__ import annotations

import hashlib
import io
import zipfile
import zlib
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np

from agent import __version__
from agent.errors import BundleError, BundleReason
from agent.score import shipped
from agent.score.integer_trees import IntegerScorer, IntegerTrees, from_arrays
from agent.score.manifest import FILES, Manifest, parse_manifest
from agent.score.onnx_graph import check_graph
from agent.score.onnx_session import start_session

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from numpy.typing import NDArray

    from agent.features.schema import Schema
    from agent.records import F32, I64

MAX_BUNDLE_BYTES = 3_000_000
"""All files together; the shipped bundle must stay below it too, it travels in the wheel."""

MAX_UNPACKED_BYTES = 64_000_000
"""What an npz of a bundle may unpack to."""

Runtime = Literal["onnx", "numpy"]


class Scorer(Protocol):
    """Exact integer sums of rows."""

    @property
    def n_features(self) -> int:
        """Columns that a row must have."""
        ...

    @property
    def n_outputs(self) -> int:
        """Sums that a row gets."""
        ...

    def sums(self, values: F32) -> I64:
        """(n, n_outputs) int64 for float32 (n, n_features)."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """A bundle that has passed every check."""

    path: Path
    manifest: Manifest
    gate: Scorer
    kinds: Scorer
    benign_median: F32
    """(n_features,) the median benign training row; what `explain` replaces a feature with."""
    gate_features: I64
    """The columns that the gate asks about, ascending: only they can move its sum."""
    runtime: Runtime
    """What scores: `numpy` also where `onnx` was asked for and cannot work."""
    runtime_problem: str | None
    """Why onnxruntime does not score although it was asked to; None: nothing is wrong."""
    trusted_by: str
    """`shipped`, or the key file that verifies the signature."""

    @property
    def id(self) -> str:
        """`<schema>-<yyyymmdd>-<8 hex digits>`."""
        return self.manifest.id


def load_bundle(
    path: Path | None = None,
    *,
    trust: Sequence[Path] = (),
    runtime: Runtime = "onnx",
    schema: Schema | None = None,
) -> Bundle:
    """The bundle in folder `path` (None: the shipped one), checked, with its scorers started.

    `trust`: PEM files of Ed25519 public keys whose signatures are accepted. `schema`: the one that this agent
    computes; where given, a bundle of another is refused (the detector refuses it in any case).
    """
    folder = shipped_bundle_path() if path is None else path
    manifest, trusted_by = read_manifest(folder, trust=trust)
    _check_versions(manifest, schema)
    files = {name: _checked_file(folder, manifest, name) for name in FILES}
    arrays = _load_npz(files["trees.npz"], "trees.npz")
    gate, kinds = from_arrays(arrays, "gate."), from_arrays(arrays, "kinds.")
    _check_shapes(manifest, gate, kinds)
    for name in ("gate.onnx", "kinds.onnx"):
        check_graph(files[name], name)

    golden = _Golden.read(files["golden.npz"], manifest)
    numpy_scorers: tuple[Scorer, Scorer] = (IntegerScorer(gate), IntegerScorer(kinds))
    if not golden.replays(*numpy_scorers):
        raise BundleError(
            BundleReason.GOLDEN, f"{folder}: golden rows do not replay: rebuild the bundle"
        )
    scorers, problem = numpy_scorers, None
    if runtime == "onnx":
        scorers, problem = _onnx_or_numpy(files, gate, kinds, golden, numpy_scorers)
    return Bundle(
        path=folder,
        manifest=manifest,
        gate=scorers[0],
        kinds=scorers[1],
        benign_median=golden.benign_median,
        gate_features=np.flatnonzero(gate.split_count),
        runtime="numpy" if runtime == "numpy" or problem else "onnx",
        runtime_problem=problem,
        trusted_by=trusted_by,
    )


def shipped_bundle_path() -> Path:
    """Where the shipped bundle stands: inside the installed package, or in a checkout's `models`."""
    if not shipped.DEFAULT:
        raise BundleError(
            BundleReason.NOT_FOUND, "this version ships no bundle: name one with --bundle"
        )
    package = Path(str(resources.files("agent")))
    for folder in (
        package / "_models" / shipped.DEFAULT,
        package.parent / "models" / shipped.DEFAULT,
    ):
        if (folder / "manifest.json").is_file():
            return folder
    raise BundleError(
        BundleReason.NOT_FOUND,
        f"the shipped bundle {shipped.DEFAULT} is missing: install wardwatch anew",
    )


def read_manifest(folder: Path, *, trust: Sequence[Path] = ()) -> tuple[Manifest, str]:
    """The manifest of a folder, trusted; and by what it is (`shipped`, or the key file)."""
    if not folder.is_dir():
        raise BundleError(BundleReason.NOT_FOUND, f"{folder}: no such folder")
    names = ["manifest.json", *FILES]
    total = 0
    for name in names:
        if not (folder / name).is_file():
            raise BundleError(
                BundleReason.NOT_FOUND, f"{folder / name}: missing: not a whole bundle"
            )
        total += (folder / name).stat().st_size
    if total > MAX_BUNDLE_BYTES:
        raise BundleError(
            BundleReason.TOO_LARGE, f"{folder}: {total} bytes, at most {MAX_BUNDLE_BYTES} are read"
        )
    data = _read(folder / "manifest.json")
    trusted_by = _trust(folder, data, trust)
    return parse_manifest(data), trusted_by


def read_public_key(path: Path) -> Ed25519PublicKey:
    """An Ed25519 public key from a PEM file."""
    # Some 9 MB that a gateway with the shipped bundle does without.
    from cryptography.exceptions import UnsupportedAlgorithm  # noqa: PLC0415 - heavy
    from cryptography.hazmat.primitives.asymmetric.ed25519 import (  # noqa: PLC0415 - heavy
        Ed25519PublicKey,
    )
    from cryptography.hazmat.primitives.serialization import (  # noqa: PLC0415 - heavy
        load_pem_public_key,
    )

    try:
        key = load_pem_public_key(_read(path))
    except (ValueError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, Ed25519PublicKey):
        raise BundleError(BundleReason.UNTRUSTED, f"{path}: not an Ed25519 public key in PEM form")
    return key


def _trust(folder: Path, data: bytes, trust: Sequence[Path]) -> str:
    if hashlib.sha256(data).hexdigest() in shipped.MANIFEST_SHA256.values():
        return "shipped"
    from cryptography.exceptions import InvalidSignature  # noqa: PLC0415 - heavy

    keys = [(str(path), read_public_key(path)) for path in trust]
    signature_path = folder / "manifest.sig"
    if not signature_path.is_file():
        raise BundleError(
            BundleReason.UNTRUSTED,
            f"{folder}: neither the shipped bundle nor signed: sign it with `wardwatch-convert pack --key`",
        )
    signature = _read(signature_path)
    for name, key in keys:
        try:
            key.verify(signature, data)
        except InvalidSignature:
            continue
        return name
    raise BundleError(
        BundleReason.UNTRUSTED,
        f"{folder}: signed by none of the {len(keys)} trusted keys: `wardwatch bundle trust KEY.pub` adds one",
    )


def _check_versions(manifest: Manifest, schema: Schema | None) -> None:
    if _version(manifest.min_agent_version) > _version(__version__):
        raise BundleError(
            BundleReason.TOO_NEW,
            f"{manifest.id} needs wardwatch {manifest.min_agent_version} or newer, this is {__version__}: "
            "update the agent",
        )
    if schema is not None:
        check_schema(manifest, schema)


def check_schema(manifest: Manifest, schema: Schema) -> None:
    """Refuse a bundle that was trained on other features than `schema`'s."""
    if (manifest.schema_id, manifest.schema_digest) != (schema.id, schema.digest):
        raise BundleError(
            BundleReason.SCHEMA,
            f"{manifest.id} was trained on schema {manifest.schema_id} {manifest.schema_digest}, this agent has "
            f"{schema.id} {schema.digest}: take a bundle for this version",
        )


def _version(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split("."))
    except ValueError:
        raise BundleError(
            BundleReason.MALFORMED, f"manifest.json: {text!r} is not a version"
        ) from None


def _checked_file(folder: Path, manifest: Manifest, name: str) -> bytes:
    data = _read(folder / name)
    if hashlib.sha256(data).hexdigest() != manifest.files[name].sha256:
        raise BundleError(
            BundleReason.TAMPERED, f"{folder / name}: changed since it was packed: install it anew"
        )
    return data


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise BundleError(BundleReason.NOT_FOUND, f"{path}: {error.strerror}") from None


def _load_npz(data: bytes, name: str) -> dict[str, NDArray[np.generic]]:
    """Arrays of an npz; no pickles, and no more memory than a bundle may take."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            if sum(item.file_size for item in archive.infolist()) > MAX_UNPACKED_BYTES:
                raise BundleError(BundleReason.TOO_LARGE, f"{name}: unpacks to too much")
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            return {key: arrays[key] for key in arrays.files}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise BundleError(BundleReason.MALFORMED, f"{name}: {error}") from None


def _check_shapes(manifest: Manifest, gate: IntegerTrees, kinds: IntegerTrees) -> None:
    wanted = (manifest.n_features, 1, manifest.n_features, len(manifest.kinds.classes))
    found = (gate.n_features, gate.n_outputs, kinds.n_features, kinds.n_outputs)
    if found != wanted:
        raise BundleError(
            BundleReason.MALFORMED, f"trees.npz has shapes {found}, the manifest {wanted}"
        )


@dataclass(frozen=True, slots=True)
class _Golden:
    """Rows and the sums that they had on the machine that trained."""

    rows: F32
    gate: I64
    kinds: I64
    benign_median: F32

    @classmethod
    def read(cls, data: bytes, manifest: Manifest) -> _Golden:
        arrays = _load_npz(data, "golden.npz")
        n, f, k = len(arrays.get("rows", ())), manifest.n_features, len(manifest.kinds.classes)
        wanted = {
            "rows": ((n, f), "float32"),
            "gate": ((n, 1), "int64"),
            "kinds": ((n, k), "int64"),
            "benign_median": ((f,), "float32"),
        }
        for name, (shape, dtype) in wanted.items():
            array = arrays.get(name)
            if not n or array is None or array.shape != shape or array.dtype.name != dtype:
                raise BundleError(
                    BundleReason.MALFORMED, f"golden.npz: {name} must be {dtype} {shape}"
                )
        return cls(*(arrays[name] for name in wanted))  # type: ignore[arg-type]

    def replays(self, gate: Scorer, kinds: Scorer) -> bool:
        return np.array_equal(gate.sums(self.rows), self.gate) and np.array_equal(
            kinds.sums(self.rows), self.kinds
        )


def _onnx_or_numpy(
    files: dict[str, bytes],
    gate: IntegerTrees,
    kinds: IntegerTrees,
    golden: _Golden,
    numpy_scorers: tuple[Scorer, Scorer],
) -> tuple[tuple[Scorer, Scorer], str | None]:
    """The scorers of onnxruntime where they replay the golden rows; else numpy's, and why."""
    started: list[Scorer] = []
    for name, trees in (("gate.onnx", gate), ("kinds.onnx", kinds)):
        session = start_session(files[name], base=trees.base, n_features=trees.n_features)
        if isinstance(session, str):
            return numpy_scorers, session
        started.append(session)
    if not golden.replays(started[0], started[1]):
        # The numpy scorer has replayed them, so the runtime is wrong (1.26.0 was), not the bundle.
        return numpy_scorers, "onnxruntime does not replay the golden rows"
    return (started[0], started[1]), None
