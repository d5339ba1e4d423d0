"""Which bundles load, and which are refused with what reason. Every refusal starts from a bundle that loads."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from onnx import TensorProto, helper

from agent.errors import BundleError, BundleReason
from agent.features.ip_schema import SCHEMA
from agent.features.schema import Schema
from agent.score.bundle import load_bundle, read_public_key
from agent.score.manifest import MODEL_FILES, bundle_id
from tests.support.bundles import CLASSES, signed_bundle, traffic, write_public


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return signed_bundle(tmp_path_factory.mktemp("packed"))


@pytest.fixture
def fresh(packed: tuple[Path, Path], tmp_path: Path) -> tuple[Path, Path]:
    """A copy that a test may break."""
    folder = tmp_path / packed[0].name
    shutil.copytree(packed[0], folder)
    return folder, packed[1]


def resign(folder: Path, edit: Callable[[dict[str, Any]], None] = lambda _: None) -> Path:
    """Digests, id and signature made right again after a change, as an insider would; the new key's file."""
    manifest = json.loads((folder / "manifest.json").read_bytes())
    for name, info in manifest["files"].items():
        data = (folder / name).read_bytes()
        info.update(sha256=hashlib.sha256(data).hexdigest(), n_bytes=len(data))
    edit(manifest)
    digests = {name: manifest["files"][name]["sha256"] for name in MODEL_FILES}
    manifest["id"] = bundle_id(manifest["schema_id"], manifest["created"], digests)
    data = json.dumps(manifest).encode()
    (folder / "manifest.json").write_bytes(data)
    key = Ed25519PrivateKey.generate()
    (folder / "manifest.sig").write_bytes(key.sign(data))
    return write_public(key, folder.parent / "insider.pub")


def refusal(folder: Path, *keys: Path, **options: Any) -> BundleError:
    with pytest.raises(BundleError) as caught:
        load_bundle(folder, trust=keys, **options)
    assert "\n" not in str(caught.value)
    return caught.value


def test_a_signed_bundle_loads_and_both_runtimes_give_equal_sums(packed: tuple[Path, Path]) -> None:
    folder, key = packed
    rows, _ = traffic(500, 3)
    by_onnx = load_bundle(folder, trust=[key], schema=SCHEMA)
    by_numpy = load_bundle(folder, trust=[key], runtime="numpy")
    assert (by_onnx.runtime, by_numpy.runtime) == ("onnx", "numpy")
    assert by_onnx.runtime_problem is by_numpy.runtime_problem is None
    assert np.array_equal(by_onnx.gate.sums(rows), by_numpy.gate.sums(rows))
    assert np.array_equal(by_onnx.kinds.sums(rows), by_numpy.kinds.sums(rows))
    assert by_onnx.id == folder.name
    assert by_onnx.manifest.kinds.classes == CLASSES
    assert by_onnx.trusted_by == str(key)


def test_the_second_of_two_trusted_keys_will_do(packed: tuple[Path, Path], tmp_path: Path) -> None:
    other = write_public(Ed25519PrivateKey.generate(), tmp_path / "other.pub")
    assert load_bundle(packed[0], trust=[other, packed[1]]).trusted_by == str(packed[1])


def test_a_folder_that_is_not_there_or_not_whole(fresh: tuple[Path, Path], tmp_path: Path) -> None:
    assert refusal(tmp_path / "none").reason is BundleReason.NOT_FOUND
    (fresh[0] / "kinds.onnx").unlink()
    error = refusal(*fresh)
    assert error.reason is BundleReason.NOT_FOUND
    assert "kinds.onnx" in str(error)


@pytest.mark.parametrize("name", [*MODEL_FILES, "CARD.md"])
def test_one_changed_bit_in_any_file_is_tampering(fresh: tuple[Path, Path], name: str) -> None:
    path = fresh[0] / name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    error = refusal(*fresh)
    assert error.reason is BundleReason.TAMPERED
    assert name in str(error)


def test_a_changed_manifest_or_signature_is_not_trusted(fresh: tuple[Path, Path]) -> None:
    manifest = fresh[0] / "manifest.json"
    manifest.write_bytes(manifest.read_bytes().replace(b'"version": 1', b'"version": 9'))
    assert refusal(*fresh).reason is BundleReason.UNTRUSTED
    (fresh[0] / "manifest.sig").write_bytes(b"short")
    assert refusal(*fresh).reason is BundleReason.UNTRUSTED


def test_an_unsigned_bundle_and_one_of_an_unknown_key(fresh: tuple[Path, Path]) -> None:
    assert refusal(fresh[0]).reason is BundleReason.UNTRUSTED
    (fresh[0] / "manifest.sig").unlink()
    error = refusal(*fresh)
    assert error.reason is BundleReason.UNTRUSTED
    assert "signed" in str(error)


def test_a_key_file_that_is_no_key(packed: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "site.pub").write_text("not a key")
    assert refusal(packed[0], tmp_path / "site.pub").reason is BundleReason.UNTRUSTED
    with pytest.raises(BundleError, match="No such file"):
        read_public_key(tmp_path / "absent.pub")


def test_another_schema_is_refused_by_name_and_digest(packed: tuple[Path, Path]) -> None:
    error = refusal(*packed, schema=Schema("ip-1", SCHEMA.features[1:]))
    assert error.reason is BundleReason.SCHEMA
    assert SCHEMA.digest in str(error)


def test_a_bundle_that_needs_a_newer_agent(fresh: tuple[Path, Path]) -> None:
    key = resign(fresh[0], lambda m: m.update(min_agent_version="99.0"))
    error = refusal(fresh[0], key)
    assert error.reason is BundleReason.TOO_NEW
    assert "update the agent" in str(error)


@pytest.mark.parametrize(
    ("edit", "reason"),
    [
        (lambda m: m.update(format=2), BundleReason.TOO_NEW),
        (lambda m: m.update(surprise=1), BundleReason.MALFORMED),
        (lambda m: m.update(n_features=7), BundleReason.MALFORMED),
        (lambda m: m.update(min_agent_version="x"), BundleReason.MALFORMED),
        (lambda m: m["kinds"].update(classes=["port_scan", "benign"]), BundleReason.MALFORMED),
        (lambda m: m["gate"].update(scale=0.0), BundleReason.MALFORMED),
        (lambda m: m["files"].update(extra={"sha256": "", "n_bytes": 0}), BundleReason.MALFORMED),
    ],
)
def test_a_signed_manifest_that_makes_no_sense(
    fresh: tuple[Path, Path], edit: Callable[[dict[str, Any]], None], reason: BundleReason
) -> None:
    assert refusal(fresh[0], resign(fresh[0], edit)).reason is reason


def test_an_id_that_is_not_its_files(fresh: tuple[Path, Path]) -> None:
    manifest = json.loads((fresh[0] / "manifest.json").read_bytes())
    manifest["id"] = "ip-1-20260102-00000000"
    key = Ed25519PrivateKey.generate()
    data = json.dumps(manifest).encode()
    (fresh[0] / "manifest.json").write_bytes(data)
    (fresh[0] / "manifest.sig").write_bytes(key.sign(data))
    public = write_public(key, fresh[0].parent / "k.pub")
    assert refusal(fresh[0], public).reason is BundleReason.TAMPERED


def test_too_large_a_bundle_is_refused_before_it_is_read(fresh: tuple[Path, Path]) -> None:
    with (fresh[0] / "gate.onnx").open("r+b") as file:
        file.truncate(4_000_000)
    assert refusal(*fresh).reason is BundleReason.TOO_LARGE


def test_golden_rows_that_do_not_replay(fresh: tuple[Path, Path]) -> None:
    with np.load(fresh[0] / "golden.npz") as stored:
        arrays = {name: stored[name] for name in stored.files}
    arrays["gate"] = arrays["gate"] + np.arange(len(arrays["gate"]))[:, None] // 63
    np.savez_compressed(fresh[0] / "golden.npz", **arrays)
    assert refusal(fresh[0], resign(fresh[0])).reason is BundleReason.GOLDEN


def test_arrays_that_are_no_arrays(fresh: tuple[Path, Path]) -> None:
    for data in (b"", b"PK\x03\x04 not a zip"):
        (fresh[0] / "trees.npz").write_bytes(data)
        assert refusal(fresh[0], resign(fresh[0])).reason is BundleReason.MALFORMED


def test_an_npz_that_unpacks_to_too_much(fresh: tuple[Path, Path]) -> None:
    np.savez_compressed(fresh[0] / "golden.npz", rows=np.zeros(20_000_000, np.float32))
    assert refusal(fresh[0], resign(fresh[0])).reason is BundleReason.TOO_LARGE


def test_a_pickle_in_an_npz_is_not_opened(fresh: tuple[Path, Path]) -> None:
    np.savez(fresh[0] / "golden.npz", rows=np.array([{"a": 1}], dtype=object))
    assert refusal(fresh[0], resign(fresh[0])).reason is BundleReason.MALFORMED


def other_operator() -> bytes:
    rows = helper.make_tensor_value_info("rows", TensorProto.FLOAT, [None, len(SCHEMA)])
    sums = helper.make_tensor_value_info("sums", TensorProto.FLOAT, [None, len(SCHEMA)])
    node = helper.make_node("Abs", ["rows"], ["sums"])
    graph = helper.make_graph([node], "g", [rows], [sums])
    return bytes(helper.make_model(graph).SerializeToString())


def edited(folder: Path, edit: Callable[[onnx.ModelProto], None]) -> bytes:
    model = onnx.load(folder / "gate.onnx")
    edit(model)
    return bytes(model.SerializeToString())


def with_external_data(model: onnx.ModelProto) -> None:
    attribute = next(a for a in model.graph.node[0].attribute if a.name == "nodes_splits")
    attribute.t.data_location = TensorProto.EXTERNAL
    attribute.t.external_data.add(key="location", value="../../etc/passwd")


def with_second_operator(model: onnx.ModelProto) -> None:
    model.graph.node.add(op_type="Identity", input=["sums"], output=["again"])


@pytest.mark.parametrize("what", ["operator", "external", "second", "cut", "text", "initializer"])
def test_a_graph_that_asks_for_anything_else(fresh: tuple[Path, Path], what: str) -> None:
    path = fresh[0] / "gate.onnx"
    path.write_bytes(
        {
            "operator": other_operator,
            "external": lambda: edited(fresh[0], with_external_data),
            "second": lambda: edited(fresh[0], with_second_operator),
            "initializer": lambda: edited(fresh[0], lambda m: m.graph.initializer.add(name="x")),
            "cut": lambda: path.read_bytes()[:-9],
            "text": lambda: b"hello, this is not a model",
        }[what]()
    )
    error = refusal(fresh[0], resign(fresh[0]))
    assert error.reason is BundleReason.MALFORMED
    assert "gate.onnx" in str(error)


def test_a_graph_that_onnxruntime_refuses_falls_back_to_numpy_and_says_so(
    fresh: tuple[Path, Path],
) -> None:
    def newer(model: onnx.ModelProto) -> None:
        for opset in model.opset_import:
            opset.version = 999

    (fresh[0] / "gate.onnx").write_bytes(edited(fresh[0], newer))
    bundle = load_bundle(fresh[0], trust=[resign(fresh[0])])
    assert bundle.runtime == "numpy"
    assert bundle.runtime_problem
    assert bundle.runtime_problem.startswith("onnxruntime")


def test_a_graph_of_other_trees_falls_back_to_numpy_and_says_so(fresh: tuple[Path, Path]) -> None:
    def shifted(model: onnx.ModelProto) -> None:
        weights = next(a.t for a in model.graph.node[0].attribute if a.name == "leaf_weights")
        values = onnx.numpy_helper.to_array(weights) + 1
        weights.raw_data = values.astype(np.float32).tobytes()

    (fresh[0] / "gate.onnx").write_bytes(edited(fresh[0], shifted))
    bundle = load_bundle(fresh[0], trust=[resign(fresh[0])])
    assert bundle.runtime == "numpy"
    assert bundle.runtime_problem
    assert "golden" in bundle.runtime_problem
