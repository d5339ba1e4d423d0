"""Reasons of the shipped model on the demo's attacked ward: true, one a topic, and of the device itself."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from agent.assembly import make_site, make_watch
from agent.records import FeatureMatrix, Verdict
from agent.replay import replay_file
from agent.score.explain import MAX_FACTS, Reasons, topic_of
from tests.conftest import ROOT


class Kept:
    """An explainer that keeps the verdicts it has seen."""

    def __init__(self, explainer) -> None:
        self.explainer = explainer
        self.verdicts: list[Verdict] = []

    def explain(self, matrix: FeatureMatrix, verdicts: Sequence[Verdict]) -> list[Verdict]:
        out = self.explainer.explain(matrix, verdicts)
        self.verdicts += out
        return out


@pytest.fixture(scope="module")
def reasons() -> list[Reasons]:
    """Of every verdict of the model."""
    watch = make_watch(make_site(None), "demo")
    assert watch.pipeline.explainer is not None
    kept = Kept(watch.pipeline.explainer)
    watch.pipeline.explainer = kept
    replay_file(
        ROOT / "demo" / "ward.pcap.gz",
        watch,
        on_alert=lambda _alert: None,
        on_progress=lambda _frames, _share: None,
    )
    found = [v.why for v in kept.verdicts if isinstance(v.why, Reasons)]
    assert len(found) > 20
    return found


def test_every_verdict_has_a_few_reasons_each_of_another_topic(reasons):
    for why in reasons:
        topics = [topic_of(fact.feature) for fact in why.facts()]
        assert 1 <= len(topics) <= MAX_FACTS
        assert len(set(topics)) == len(topics)


def test_a_reason_is_a_figure_of_the_row_beside_what_was_put_in(reasons):
    for why in reasons:
        for fact in why.facts():
            column = why.schema.index[fact.feature]
            assert fact.value == why.row[column]
            assert fact.normal is not None
            if fact.normal_of == "training":
                assert fact.normal == why.training[column]
            else:
                assert why.history is not None
                assert fact.normal in why.history[:, column]


def test_with_what_is_normal_put_in_for_the_reasons_the_score_falls(reasons):
    """The topics told, put back together: nearly every row is then less hostile, most not hostile at all."""
    falls, cleared = 0, 0
    for why in reasons:
        _, whose = why._normal()
        normal = why._normal()[0]
        told = {topic_of(fact.feature) for fact in why.facts()}
        columns = [i for i, f in enumerate(why.schema.features) if topic_of(f.name) in told]
        row = why.row.copy()
        row[columns] = normal[columns]
        before, after = why.gate.sums(np.stack([why.row, row]))[:, 0]
        falls += after < before
        cleared += after < why.threshold
        assert {fact.normal_of for fact in why.facts()} == {whose}
    assert falls >= 0.95 * len(reasons)
    assert cleared >= 0.5 * len(reasons)


def test_what_is_normal_is_the_devices_own_where_it_is_known(reasons):
    known = [why for why in reasons if why.history is not None]
    assert known
    own = [why for why in known if {fact.normal_of for fact in why.facts()} == {"device"}]
    assert len(own) >= 0.9 * len(known)


def test_the_same_row_gives_the_same_reasons(reasons):
    for why in reasons[:10]:
        assert replace(why, _facts=None).facts() == why.facts()
