"""The table of learners: what is read from each is what it computes, and what a bundle cannot say is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier

from agent.errors import BundleError
from converter.cli import main
from converter.estimators import LEARNERS, float_margins, help_text, read
from converter.forests import FloatForest
from tests.support.forests import fitted, rows_and_labels


def walk(forest: FloatForest, row: np.ndarray) -> np.ndarray:
    """The plainest reading of a forest: one row, one node at a time, in float64."""
    margin = forest.base.copy()
    for tree in forest.trees:
        at = 0
        while not tree.is_leaf[at]:
            side = tree.left if float(row[tree.feature[at]]) <= tree.threshold[at] else tree.right
            at = int(side[at])
        margin[tree.output] += tree.leaf[at]
    return margin


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("name", [row.name for row in LEARNERS])
def test_the_trees_read_add_up_to_the_learners_own_margins(name: str, n_classes: int) -> None:
    estimator = fitted(name, n_classes)
    rows, _ = rows_and_labels(60, 5, n_classes)
    walked = np.array([walk(read(estimator), row) for row in rows])
    assert np.allclose(walked, float_margins(estimator, rows), atol=1e-12)


def test_an_estimator_outside_the_table_is_refused_by_name() -> None:
    rows, labels = rows_and_labels(50, 6, 2)
    other = RandomForestClassifier(n_estimators=2, random_state=0).fit(rows, labels)
    with pytest.raises(
        BundleError, match="RandomForestClassifier is not one that can be converted"
    ):
        read(other)


def test_missing_values_in_training_are_refused() -> None:
    rows, labels = rows_and_labels(400, 7, 2)
    gaps = rows.astype(np.float64)
    gaps[labels == 1, :] = np.nan  # only missingness tells the classes apart
    with pytest.raises(BundleError, match="missing values"):
        read(HistGradientBoostingClassifier(max_iter=2).fit(gaps, labels))


def test_categories_are_refused() -> None:
    random = np.random.default_rng(0)
    rows = random.integers(0, 5, (400, 2)).astype(np.float64)
    labels = np.isin(rows[:, 0], (1, 3)).astype(int)
    learner = HistGradientBoostingClassifier(max_iter=2, categorical_features=[0])
    with pytest.raises(BundleError, match="categories"):
        read(learner.fit(rows, labels))


def test_a_learner_that_found_nothing_is_refused() -> None:
    rows = np.zeros((100, 3))
    labels = np.arange(100) % 2
    with pytest.raises(BundleError, match="no split"):
        read(HistGradientBoostingClassifier(max_iter=2).fit(rows, labels))


def test_help_and_docs_name_every_learner() -> None:
    page = (Path(__file__).parents[3] / "docs" / "models.md").read_text()
    help_page = CliRunner().invoke(main, ["train", "--help"]).output
    for row in LEARNERS:
        assert f"{row.name}: {row.estimator.__name__}; {row.notes}" in help_text()
        assert row.name in help_page
        assert f"| `{row.name}` | `{row.estimator.__name__}` | {row.notes} |" in page
