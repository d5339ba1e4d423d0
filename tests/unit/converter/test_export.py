"""The graph: one operator that the agent allows, the same integers as the numpy scorer, the same bytes twice."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from agent.score.integer_trees import IntegerScorer
from agent.score.onnx_graph import check_graph
from agent.score.onnx_session import OnnxScorer, start_session
from converter.estimators import float_margins, read
from converter.export import estimator_bytes, float_graph, graph_bytes, integer_graph
from converter.quantize import quantize
from tests.support.forests import N_FEATURES, fitted, rows_and_labels

LEARNED = [(name, n) for name in ("hist-gradient-boosting", "gradient-boosting") for n in (2, 4)]


@pytest.mark.parametrize(("name", "n_classes"), LEARNED)
def test_onnxruntime_gives_the_numpy_scorers_sums(name: str, n_classes: int) -> None:
    estimator = fitted(name, n_classes)
    trees = quantize(read(estimator)).trees
    session = start_session(estimator_bytes(estimator), base=trees.base, n_features=N_FEATURES)
    assert isinstance(session, OnnxScorer)
    rows, _ = rows_and_labels(2000, 3, n_classes)
    assert np.array_equal(session.sums(rows), IntegerScorer(trees).sums(rows))
    assert session.sums(rows[:0]).shape == (0, trees.n_outputs)


@pytest.mark.parametrize(("name", "n_classes"), LEARNED)
def test_skl2onnx_and_the_arrays_give_the_same_bytes(name: str, n_classes: int) -> None:
    estimator = fitted(name, n_classes)
    direct = graph_bytes(integer_graph(quantize(read(estimator)).trees), N_FEATURES)
    assert estimator_bytes(estimator) == direct == estimator_bytes(estimator)
    check_graph(direct, "gate.onnx")


def test_the_graph_is_one_tree_ensemble_without_doubles() -> None:
    model = onnx.load_from_string(estimator_bytes(fitted("hist-gradient-boosting", 4)))
    (node,) = model.graph.node
    assert (node.domain, node.op_type) == ("ai.onnx.ml", "TreeEnsemble")
    tensors = [a.t for a in node.attribute if a.type == onnx.AttributeProto.TENSOR]
    assert {t.data_type for t in tensors} == {onnx.TensorProto.FLOAT, onnx.TensorProto.UINT8}
    weights = next(a.t for a in node.attribute if a.name == "leaf_weights")
    values = onnx.numpy_helper.to_array(weights)
    assert np.array_equal(values, np.rint(values))


def test_the_float_graph_is_the_learner_itself() -> None:
    estimator = fitted("hist-gradient-boosting", 4)
    forest = read(estimator)
    rows, _ = rows_and_labels(500, 4, 4)
    session = ort.InferenceSession(
        graph_bytes(float_graph(forest), N_FEATURES), providers=["CPUExecutionProvider"]
    )
    (sums,) = session.run(None, {"rows": rows})
    assert np.allclose(sums + forest.base, float_margins(estimator, rows), atol=1e-4)
