"""From matrices to a bundle by the commands; and that no row of a held-out run, or of an edge, is ever trained on."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from agent.features.ip_schema import SCHEMA
from agent.score.bundle import load_bundle
from converter.cli import main
from converter.datasets.labels import DatasetError
from converter.datasets.matrix import RunMatrix, save_run
from converter.episodes import run_findings
from converter.evaluate import evaluate
from converter.forests import FloatForest
from converter.learners import Settings
from converter.prove_model import quantize_model
from converter.train import lowest_cut, train
from converter.work import FloatModel
from tests.support.bundles import write_public
from tests.support.runs import LOUD, made_up_run, made_up_runs

OPTIONS = {
    "n_folds": 3,
    "max_iter_gate": 60,
    "max_iter_kinds": 40,
    "min_samples_leaf": 4,
    "patience": 40,
    "max_features": 0.4,
    "max_false_rate": 0.01,
}
QUICK = Settings(**OPTIONS)  # type: ignore[arg-type]


def trained(runs: list[RunMatrix]) -> FloatModel:
    return train(runs, QUICK, data_digest="0" * 16, tell=lambda _: None)


@pytest.fixture(scope="module")
def runs() -> list[RunMatrix]:
    return made_up_runs()


@pytest.fixture(scope="module")
def model(runs: list[RunMatrix]) -> FloatModel:
    return trained(runs)


def same(first: FloatForest, second: FloatForest) -> bool:
    a, b = first.arrays(), second.arrays()
    return all(np.array_equal(a[name], b[name]) for name in a)


def test_held_out_and_edge_rows_do_not_change_the_model(
    runs: list[RunMatrix], model: FloatModel
) -> None:
    others = [r for r in runs if r.info.plan == "first"]
    others.append(made_up_run("heldout-z", "heldout", 777, tuple(LOUD)[:1]))
    poisoned = others[0]
    extra = np.arange(40)
    values = np.concatenate([poisoned.matrix.values, poisoned.matrix.values[extra] * 1000 + 77])
    subjects = {
        name: np.concatenate([column, column[extra]])
        for name in poisoned.matrix.subjects.__slots__
        for column in [getattr(poisoned.matrix.subjects, name)]
    }
    matrix = replace(
        poisoned.matrix,
        values=values,
        subjects=type(poisoned.matrix.subjects)(**subjects),
        start_ns=np.concatenate([poisoned.matrix.start_ns, poisoned.matrix.start_ns[extra]]),
        end_ns=np.concatenate([poisoned.matrix.end_ns, poisoned.matrix.end_ns[extra]]),
    )
    others[0] = replace(
        poisoned,
        matrix=matrix,
        kind=np.concatenate([poisoned.kind, np.zeros(40, np.int8)]),
        episode=np.concatenate([poisoned.episode, np.full(40, -1, np.int16)]),
        edge=np.concatenate([poisoned.edge, np.ones(40, np.bool_)]),
    )
    again = trained(others)
    assert same(again.gate, model.gate)
    assert same(again.kinds, model.kinds)
    assert again.gate_graph == model.gate_graph


def test_withheld_features_are_asked_by_no_tree(model: FloatModel) -> None:
    withheld = {i for i, f in enumerate(SCHEMA.features) if any(n in f.name for n in QUICK.ignored)}
    assert withheld
    for forest in (model.gate, model.kinds):
        for tree in forest.trees:
            assert not withheld & set(tree.feature[~tree.is_leaf].tolist())


def test_classes_are_benign_and_the_kinds_that_occur(model: FloatModel) -> None:
    assert model.kinds.classes == ("benign", "tcp_syn_flood", "icmp_flood", "mqtt_publish_flood")
    assert model.record.data["rows_by_kind"]["icmp_flood"] == 5 * 16
    assert model.record.data["runs_held_out"] == 2


def test_too_few_runs_are_refused(runs: list[RunMatrix]) -> None:
    for too_few in (runs[:2], [r for r in runs if not r.info.episodes] * 4):
        with pytest.raises(DatasetError, match="record more"):
            trained(too_few)


def test_the_lowest_cut_lets_as_many_through_as_allowed() -> None:
    margins = np.arange(1000.0)
    assert np.count_nonzero(margins >= lowest_cut(margins, 0.01)) == 10
    assert np.count_nonzero(margins >= lowest_cut(margins, 0.0)) == 0


def test_loud_attacks_on_a_held_out_run_are_found_and_nothing_else(
    runs: list[RunMatrix], model: FloatModel
) -> None:
    held_out = [r for r in runs if r.info.plan == "heldout"]
    quantised, _ = quantize_model(model, np.concatenate([r.matrix.values for r in held_out]))
    figures = evaluate(model, quantised, held_out, seed=1)
    for side in ("float", "quantised"):
        assert figures[side]["episodes"] == figures[side]["episodes_found"] == 3
        assert figures[side]["false_findings"] == 0
        assert figures[side]["macro_f1"] > 0.9
        assert figures[side]["seconds_to_finding_median"] <= 1.2
    assert figures["label_agreement"] >= 0.9995
    assert figures["quantised"]["benign_rows"] + figures["quantised"]["hostile_rows"] == 840


class Crier:
    """A detector that repeats another's verdicts as of another kind."""

    name = "crier"

    def __init__(self, inner: object, kind: str) -> None:
        self.inner, self.kind = inner, kind

    def judge(self, matrix: object) -> list[object]:
        return [replace(v, kind=self.kind) for v in self.inner.judge(matrix)]  # type: ignore[attr-defined]


def test_wrong_names_and_findings_without_an_attack_are_told_apart(
    runs: list[RunMatrix], model: FloatModel
) -> None:
    from agent.score.boosting import BoostingDetector
    from converter.in_memory import quantised_bundle

    held_out = next(r for r in runs if r.info.run == "heldout-a0")
    quantised, _ = quantize_model(model, held_out.matrix.values)
    detector = BoostingDetector(quantised_bundle(model, quantised))
    wrong = run_findings(held_out, [Crier(detector, "port_scan")])
    assert not any(item.found for item in wrong.episodes)
    assert wrong.false == []
    assert wrong.misnamed
    assert wrong.n_misnamed_group == len(wrong.misnamed)
    innocent = replace(held_out, info=replace_episodes(held_out))
    alone = run_findings(innocent, [detector])
    assert len(alone.false) == alone.n_findings > 0


def replace_episodes(run: RunMatrix) -> object:
    import msgspec

    return msgspec.structs.replace(run.info, episodes=[])


def call(*words: str) -> Result:
    return CliRunner().invoke(main, list(words))


def test_the_commands_lead_from_matrices_to_a_bundle_that_loads(
    runs: list[RunMatrix], tmp_path: Path
) -> None:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    data, work = tmp_path / "data", str(tmp_path / "work")
    data.mkdir()
    for run in runs:
        save_run(data / f"{run.info.run}.npz", run)
    settings = tmp_path / "settings.json"
    settings.write_text(json.dumps(OPTIONS))
    key = Ed25519PrivateKey.generate()
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (tmp_path / "site.key").write_bytes(pem)

    too_early = call("evaluate", str(data), "--work", work)
    assert too_early.exit_code == 1
    assert "run `wardwatch-convert train` first" in too_early.output
    for words in (
        ("train", str(data), "--work", work, "--settings", str(settings)),
        ("quantize", str(data), "--work", work),
        ("evaluate", str(data), "--work", work, "--results", str(tmp_path / "results")),
    ):
        done = call(*words)
        assert done.exit_code == 0, done.output
    packed = call(
        "pack", "--work", work, "--out", str(tmp_path / "models"),
        "--created", "2026-05-06", "--key", str(tmp_path / "site.key"),
    )  # fmt: skip
    assert packed.exit_code == 0, packed.output
    folder = Path(packed.output.strip().splitlines()[-1])
    bundle = load_bundle(folder, trust=[write_public(key, tmp_path / "k.pub")], schema=SCHEMA)
    assert bundle.runtime == "onnx"
    assert bundle.manifest.metrics["quantised"]["episodes_found"] == 3
    report = (tmp_path / "results" / "model.md").read_text()
    assert "| episodes | 3 | 3 | 3 |" in report
    assert "macro-F1 over the kinds at least 0.95" in report
    assert "## What its features could have learnt instead" in (folder / "CARD.md").read_text()
    assert bundle.manifest.data["leaks"]["control_at_chance"] is True
    pages = []
    for place in (tmp_path / "page", tmp_path / "again"):
        words = ("report", str(tmp_path / "results"), "--bundle", str(folder), "--out", str(place))
        done = call(*words)
        assert done.exit_code == 0, done.output
        pages.append((place / "report.html").read_text())
        assert (place / "CARD.md").read_bytes() == (folder / "CARD.md").read_bytes()
    page = pages[0]
    assert pages[1] == page
    assert page.count("<svg") == page.count("</svg>") == 6
    assert not re.search(r"<(script|link|img|iframe)|@import|url\(http|src=", page)
    assert "macro-F1 over the five groups at least 0.97" in page
    curves = json.loads((tmp_path / "results" / "model.json").read_bytes())["figures"]["curves"]
    assert set(curves["float"]["by_kind"]) == set(LOUD)
    recall = curves["quantised"]["hostile"]["recall"]
    assert recall == sorted(recall, reverse=True)
    assert len(recall) > 1


def test_what_the_commands_cannot_use_is_one_line_and_status_1(tmp_path: Path) -> None:
    for words in (
        ("train", str(tmp_path)),
        ("dataset", str(tmp_path / "none"), str(tmp_path / "out")),
        ("report", str(tmp_path), "--out", str(tmp_path / "out")),
        ("pack", "--work", str(tmp_path), "--created", "2026-01-01"),
    ):
        done = call(*words)
        assert done.exit_code == 1
        assert len(done.output.strip().splitlines()) == 1
        assert done.output.startswith("wardwatch-convert: ")
