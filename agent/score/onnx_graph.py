"""Reads what an ONNX file asks its runtime to do, before the runtime sees it: one allowed operator, no more.

A walk over the protobuf wire format, without the onnx package (the gateway carries no training stack).
A graph of ours is exactly one `TreeEnsemble` of ai.onnx.ml with its tensors inside the file: no functions, no
initialisers, no training part, nothing read from elsewhere on the disk. Unknown fields are refused, not skipped.

In: bytes. Raises: `BundleError` (malformed). It never loads, runs or changes a model.

Source: onnx/onnx.proto (field numbers); protobuf.dev/programming-guides/encoding.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from agent.errors import BundleError, BundleReason

if TYPE_CHECKING:
    from collections.abc import Iterator

ALLOWED_OPERATOR = ("ai.onnx.ml", "TreeEnsemble")

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5

_MODEL_FIELDS = {1, 2, 3, 4, 5, 7, 8}  # versions, producer, graph, opsets
_GRAPH_FIELDS = {1, 2, 11, 12}  # nodes, name, inputs, outputs
_NODE_FIELDS = {1, 2, 3, 4, 5, 7}  # inputs, outputs, name, operator, attributes, domain
_ATTRIBUTE_FIELDS = {
    1,
    3,
    5,
    8,
    20,
}  # name, int, tensor, ints, type: no graph (6, 11), no reference (21)
_TENSOR_FIELDS = {
    1,
    2,
    4,
    5,
    8,
    9,
}  # dims, type, floats, ints, name, raw: no external data (13, 14)


class _Field(NamedTuple):
    number: int
    wire_type: int
    value: memoryview


def check_graph(data: bytes, name: str) -> None:
    """Refuse a model file `name` that is anything but one allowed operator."""
    graphs = [f.value for f in _message(data, _MODEL_FIELDS, name, "model") if f.number == 7]
    if len(graphs) != 1:
        raise _refused(name, f"{len(graphs)} graphs")
    nodes = [f.value for f in _message(graphs[0], _GRAPH_FIELDS, name, "graph") if f.number == 1]
    if len(nodes) != 1:
        raise _refused(name, f"{len(nodes)} operators, one is allowed")
    fields = list(_message(nodes[0], _NODE_FIELDS, name, "operator"))
    operator = tuple(
        b"".join(bytes(f.value) for f in fields if f.number == number).decode("utf-8", "replace")
        for number in (7, 4)
    )
    if operator != ALLOWED_OPERATOR:
        raise _refused(name, f"operator {'.'.join(operator)!r} is not allowed")
    for attribute in (f.value for f in fields if f.number == 5):
        for field in _message(attribute, _ATTRIBUTE_FIELDS, name, "attribute"):
            if field.number == 5:
                list(_message(field.value, _TENSOR_FIELDS, name, "tensor"))


def _message(data: bytes | memoryview, allowed: set[int], name: str, what: str) -> Iterator[_Field]:
    """The fields of one message; one that is not allowed, or that does not fit, is refused."""
    view = memoryview(data)
    at = 0
    while at < len(view):
        key, at = _varint(view, at, name)
        number, wire_type = key >> 3, key & 7
        if number not in allowed:
            raise _refused(name, f"field {number} in its {what}")
        begin = at
        if wire_type == _VARINT:
            _, at = _varint(view, at, name)
        elif wire_type == _BYTES:
            length, begin = _varint(view, at, name)
            at = begin + length
        elif wire_type in (_FIXED32, _FIXED64):
            at += 4 if wire_type == _FIXED32 else 8
        else:
            raise _refused(name, f"wire type {wire_type}")
        if at > len(view):
            raise _refused(name, "cut short")
        yield _Field(number, wire_type, view[begin:at])


def _varint(view: memoryview, at: int, name: str) -> tuple[int, int]:
    """The number at `at`, and where it ends; at most ten bytes."""
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(view):
            break
        byte = view[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise _refused(name, "a number that does not end")


def _refused(name: str, problem: str) -> BundleError:
    return BundleError(BundleReason.MALFORMED, f"{name}: not a model that we run: {problem}")
