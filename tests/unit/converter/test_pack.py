"""Packing: the agent takes what was packed, the same model gives the same bytes, what fails is not left behind."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from agent.errors import BundleError, BundleReason
from agent.score.bundle import MAX_BUNDLE_BYTES, load_bundle
from converter.pack import pack, read_private_key, shipped_source
from tests.support.bundles import float_model, quantised_model, signed_bundle, write_public


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_same_model_and_key_give_the_same_bytes(tmp_path: Path) -> None:
    key = Ed25519PrivateKey.generate()
    first, second = (
        pack(
            tmp_path / name,
            float_model(),
            quantised_model(),
            metrics={"float": {"macro_f1": 0.5}},
            created="2026-03-04",
            version=3,
            key=key,
        )
        for name in ("one", "two")
    )
    assert first.name == second.name
    assert first.name.startswith("ip-1-20260304-")
    assert bytes_of(first) == bytes_of(second)
    loaded = load_bundle(first, trust=[write_public(key, tmp_path / "key.pub")])
    assert (loaded.manifest.version, loaded.manifest.metrics) == (3, {"float": {"macro_f1": 0.5}})


def test_an_unsigned_bundle_is_trusted_only_by_a_digest_in_the_code(tmp_path: Path) -> None:
    folder = pack(
        tmp_path, float_model(), quantised_model(), metrics={}, created="2026-03-04", version=1
    )
    with pytest.raises(BundleError) as caught:
        load_bundle(folder)
    assert caught.value.reason is BundleReason.UNTRUSTED
    names: dict[str, object] = {}
    exec(shipped_source(folder), names)
    digest = hashlib.sha256((folder / "manifest.json").read_bytes()).hexdigest()
    assert names["DEFAULT"] == folder.name
    assert names["MANIFEST_SHA256"] == {folder.name: digest}


def test_a_graph_of_other_trees_is_not_packed(tmp_path: Path) -> None:
    wrong = replace(float_model(), gate_graph=float_model().kinds_graph)
    with pytest.raises(BundleError):
        pack(tmp_path, wrong, quantised_model(), metrics={}, created="2026-03-04", version=1)
    assert list(tmp_path.iterdir()) == []


def test_too_large_a_bundle_is_not_packed(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).random((MAX_BUNDLE_BYTES // 400, 163)).astype(np.float32)
    with pytest.raises(BundleError) as caught:
        pack(
            tmp_path,
            replace(
                float_model(),
                golden_rows=np.resize(rows, (len(rows), float_model().gate.n_features)),
            ),
            quantised_model(),
            metrics={},
            created="2026-03-04",
            version=1,
        )
    assert caught.value.reason is BundleReason.TOO_LARGE
    assert list(tmp_path.iterdir()) == []


def test_the_private_key_is_read_and_nowhere_written(tmp_path: Path) -> None:
    key = Ed25519PrivateKey.generate()
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (tmp_path / "site.key").write_bytes(pem)
    assert read_private_key(tmp_path / "site.key").private_bytes_raw() == key.private_bytes_raw()
    folder, _ = signed_bundle(tmp_path / "models")
    assert all(b"PRIVATE" not in data for data in bytes_of(folder).values())
    (tmp_path / "site.key").write_text("nothing")
    with pytest.raises(BundleError, match="not an unencrypted Ed25519 private key"):
        read_private_key(tmp_path / "site.key")


def test_the_card_says_what_the_manifest_says(tmp_path: Path) -> None:
    folder, _ = signed_bundle(tmp_path, metrics={"quantised": {"macro_f1": 0.875}})
    card = (folder / "CARD.md").read_text()
    assert folder.name in card
    assert "| quantised.macro_f1 | 0.875 |" in card
    assert "`port_scan`" in card
