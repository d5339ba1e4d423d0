"""Writes trees as an ONNX graph of one `TreeEnsemble` (ai.onnx.ml 5), through skl2onnx.

skl2onnx cannot convert `HistGradientBoostingClassifier` (nor write this operator), so this file registers
a converter of our own for every learner of the table: quantised trees, a sum per output, no post-transform,
no ZipMap, no scaler, no doubles. The graph emits the sum of integer leaves; base, scale, sigmoid and
thresholds are the agent's. The same forest gives the same bytes.

In: a fitted estimator, or trees in arrays. Out: the bytes of a model, input `rows` float32 (n, f), output
`sums` float32 (n, outputs). Raises: `BundleError` (parity) as `quantize` does.

Source: onnx/docs/Operators-ml.md, ai.onnx.ml.TreeEnsemble-5.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import ModelProto, TensorProto, checker, helper
from skl2onnx import convert_sklearn, update_registered_converter
from skl2onnx.common.data_types import FloatTensorType

from agent.score.integer_trees import IntegerTrees, expand
from converter.estimators import LEARNERS, read
from converter.forests import FloatForest
from converter.quantize import quantize

if TYPE_CHECKING:
    from numpy.typing import NDArray

BRANCH_LEQ = 0
SUM = 1
NO_POST_TRANSFORM = 0

IR_VERSION = 10
"""What onnxruntime 1.22, the oldest that we accept, reads; newer onnx writes newer ones by default."""

TARGET_OPSET = {"": 18, "ai.onnx.ml": 3}
"""What skl2onnx 1.20 may be asked for; the version that our operator needs is written afterwards."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphTrees:
    """Trees as the operator wants them: one entry a node, leaves in a list of their own."""

    feature: NDArray[np.int64]
    threshold: NDArray[np.float32]
    left: NDArray[np.int64]
    right: NDArray[np.int64]
    left_is_leaf: NDArray[np.int64]
    right_is_leaf: NDArray[np.int64]
    root: NDArray[np.int64]
    leaf_weight: NDArray[np.float32]
    leaf_output: NDArray[np.int64]
    n_outputs: int


def integer_graph(trees: IntegerTrees) -> GraphTrees:
    """Integer trees for the operator; equal leaves of one output are written once."""
    flat = expand(trees)
    tree_nodes = 2 * trees.tree_inner.astype(np.int64) + 1
    output = np.repeat(trees.tree_output.astype(np.int64), tree_nodes)
    keys = np.stack((output[flat.is_leaf], flat.leaf[flat.is_leaf].astype(np.int64)), axis=1)
    distinct, leaf_at = np.unique(keys, axis=0, return_inverse=True)
    place = np.cumsum(~flat.is_leaf) - 1
    place[flat.is_leaf] = leaf_at.ravel()
    inner = np.flatnonzero(~flat.is_leaf)
    left = flat.left[inner]
    return GraphTrees(
        feature=flat.feature[inner],
        threshold=flat.threshold[inner],
        left=place[left],
        right=place[left + 1],
        left_is_leaf=flat.is_leaf[left].astype(np.int64),
        right_is_leaf=flat.is_leaf[left + 1].astype(np.int64),
        root=place[flat.root],
        leaf_weight=distinct[:, 1].astype(np.float32),
        leaf_output=distinct[:, 0],
        n_outputs=trees.n_outputs,
    )


def float_graph(forest: FloatForest) -> GraphTrees:
    """The learner's own trees in float32, for comparison only: the same layout, nothing quantised."""
    parts: dict[str, list[NDArray[Any]]] = {
        name: [] for name in GraphTrees.__slots__ if name != "n_outputs"
    }
    n_nodes = n_leaves = 0
    for tree in forest.trees:
        inner = np.flatnonzero(~tree.is_leaf)
        if not len(inner):  # a lone leaf is the operator's blind spot; parity adds it as the base
            continue
        place = np.cumsum(~tree.is_leaf) - 1 + n_nodes
        place[tree.is_leaf] = np.arange(np.count_nonzero(tree.is_leaf)) + n_leaves
        parts["feature"].append(tree.feature[inner])
        parts["threshold"].append(tree.threshold[inner].astype(np.float32))
        for side, child in (("left", tree.left[inner]), ("right", tree.right[inner])):
            parts[side].append(place[child])
            parts[f"{side}_is_leaf"].append(tree.is_leaf[child].astype(np.int64))
        parts["root"].append(place[:1])
        parts["leaf_weight"].append(tree.leaf[tree.is_leaf].astype(np.float32))
        parts["leaf_output"].append(np.full(np.count_nonzero(tree.is_leaf), tree.output))
        n_nodes += len(inner)
        n_leaves += int(np.count_nonzero(tree.is_leaf))
    arrays = {name: np.concatenate(items) for name, items in parts.items()}
    return GraphTrees(n_outputs=forest.n_outputs, **arrays)


def attributes(graph: GraphTrees) -> dict[str, Any]:
    """The operator's attributes."""
    n_nodes = len(graph.feature)
    tensor = helper.make_tensor
    return {
        "aggregate_function": SUM,
        "post_transform": NO_POST_TRANSFORM,
        "n_targets": graph.n_outputs,
        "tree_roots": graph.root.tolist(),
        "nodes_featureids": graph.feature.tolist(),
        "nodes_splits": tensor(
            "nodes_splits", TensorProto.FLOAT, [n_nodes], graph.threshold.tobytes(), raw=True
        ),
        "nodes_modes": tensor(
            "nodes_modes", TensorProto.UINT8, [n_nodes], bytes([BRANCH_LEQ]) * n_nodes, raw=True
        ),
        "nodes_truenodeids": graph.left.tolist(),
        "nodes_trueleafs": graph.left_is_leaf.tolist(),
        "nodes_falsenodeids": graph.right.tolist(),
        "nodes_falseleafs": graph.right_is_leaf.tolist(),
        "leaf_targetids": graph.leaf_output.tolist(),
        "leaf_weights": tensor(
            "leaf_weights",
            TensorProto.FLOAT,
            [len(graph.leaf_weight)],
            graph.leaf_weight.tobytes(),
            raw=True,
        ),
    }


def graph_bytes(graph: GraphTrees, n_features: int) -> bytes:
    """A model of one operator, checked by onnx."""
    node = helper.make_node(
        "TreeEnsemble", ["rows"], ["sums"], domain="ai.onnx.ml", **attributes(graph)
    )
    body = helper.make_graph(
        [node],
        "wardwatch",
        [helper.make_tensor_value_info("rows", TensorProto.FLOAT, [None, n_features])],
        [helper.make_tensor_value_info("sums", TensorProto.FLOAT, [None, graph.n_outputs])],
    )
    return _finished(helper.make_model(body))


def estimator_bytes(estimator: Any, *, leaf_bits: int = 16) -> bytes:
    """A fitted learner's quantised model, by skl2onnx with the converter of this file."""
    register()
    model = convert_sklearn(
        estimator,
        name="wardwatch",
        initial_types=[("rows", FloatTensorType([None, int(estimator.n_features_in_)]))],
        target_opset=TARGET_OPSET,
        options={id(estimator): {"leaf_bits": leaf_bits}},
    )
    return _finished(model)


def register() -> None:
    """Tell skl2onnx how to convert the learners of the table; repeating it is harmless."""
    for learner in LEARNERS:
        update_registered_converter(
            learner.estimator,
            f"Wardwatch{learner.estimator.__name__}",
            _shape,
            _convert,
            parser=_parse,
            options={"leaf_bits": [8, 16]},
            overwrite=True,
        )


def _parse(scope: Any, model: Any, inputs: Any, custom_parsers: Any = None) -> Any:  # noqa: ARG001  skl2onnx's signature
    operator = scope.declare_local_operator(f"Wardwatch{type(model).__name__}", model)
    operator.inputs = inputs
    operator.outputs.append(scope.declare_local_variable("sums", FloatTensorType()))
    return operator.outputs


def _shape(operator: Any) -> None:
    operator.outputs[0].type = FloatTensorType([None, read(operator.raw_operator).n_outputs])


def _convert(scope: Any, operator: Any, container: Any) -> None:
    options = container.get_options(operator.raw_operator, {"leaf_bits": 16})
    trees = quantize(read(operator.raw_operator), leaf_bits=options["leaf_bits"]).trees
    container.add_node(
        "TreeEnsemble",
        [operator.inputs[0].full_name],
        [operator.outputs[0].full_name],
        op_domain="ai.onnx.ml",
        op_version=3,
        name=scope.get_unique_operator_name("TreeEnsemble"),
        **attributes(integer_graph(trees)),
    )


def _finished(model: ModelProto) -> bytes:
    """The versions that we promise, nothing that names a machine or a day, and onnx's own check."""
    model.ir_version = IR_VERSION
    del model.opset_import[:]
    model.opset_import.extend([helper.make_opsetid("", 18), helper.make_opsetid("ai.onnx.ml", 5)])
    model.producer_name = "wardwatch"
    for field in ("producer_version", "domain", "doc_string", "model_version"):
        model.ClearField(field)
    for node in model.graph.node:
        node.name = "trees"
        node.ClearField("doc_string")
    model.graph.name = "wardwatch"
    checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString(deterministic=True))
