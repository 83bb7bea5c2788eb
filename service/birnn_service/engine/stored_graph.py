"""The graphs of a bundle, from the bytes whose digests were checked: no engine opens a file of a bundle itself."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import AttributeProto, TensorProto, numpy_helper

from birnn_bundle.bundle import Bundle
from birnn_bundle.cells import OPERATORS
from birnn_bundle.manifest import Manifest
from birnn_bundle.numerals import is_number
from birnn_bundle.quoting import shown
from birnn_service.engine.engine import Output
from birnn_service.errors import StartupError

# What `birnn export` writes: a recurrence, an embedding before it and pooling behind. A graph of anything else is not
# given to onnxruntime, which would run loops without end and allocate what a constant asks for.
POOLING_OPS = {
    "Cast", "Concat", "Div", "Gather", "Less", "Max", "Range", "ReduceMax", "ReduceSum", "Reshape", "Shape",
    "Transpose", "Unsqueeze", "Where",
}  # fmt: skip
ATTRIBUTE_TYPES = {
    AttributeProto.INT, AttributeProto.INTS, AttributeProto.FLOAT, AttributeProto.FLOATS, AttributeProto.STRING,
    AttributeProto.STRINGS,
}  # fmt: skip
# Of a layer there are a recurrence, a transposition and a reshaping; pooling has some twenty nodes.
NODES_A_LAYER, OTHER_NODES = 3, 32
# Axes, shapes and counts; the widest vector of a manifest is smaller.
MOST_CONSTANT = 1 << 20


@dataclass(frozen=True, slots=True, eq=False)
class StoredGraph:
    """One graph of a bundle.

    Attributes:
        label: What to call it in messages: `smiles/1, pooled.onnx`.
        model: The graph, without the weights that are stored beside it.
        weights: These by name, as views of the bundle's bytes.
    """

    label: str
    model: onnx.ModelProto
    weights: Mapping[str, NDArray[Any]]

    def complete(self) -> onnx.ModelProto:
        """The graph with all its weights in it, a copy."""
        model = onnx.ModelProto()
        model.CopyFrom(self.model)
        for tensor in model.graph.initializer:
            if tensor.name in self.weights:
                tensor.CopyFrom(numpy_helper.from_array(self.weights[tensor.name], tensor.name))
        return model


def stored_graphs(bundle: Bundle) -> dict[Output, StoredGraph]:
    """The graph of each output of a bundle.

    Raises:
        StartupError: One cannot be read, or is not of the kind that `birnn export` writes for such a manifest.
    """
    return {output: stored_graph(bundle, output) for output in Output}


def stored_graph(bundle: Bundle, output: Output) -> StoredGraph:
    """One graph of a bundle; see `stored_graphs`."""
    file = bundle.manifest.graphs.pooled if output is Output.POOLED else bundle.manifest.graphs.tokens
    label = f"{bundle.label}, {file}"
    try:
        model = onnx.load_from_string(bundle.files[file])
        _check(model, bundle.manifest, output)
        weights = {
            tensor.name: _stored(tensor, bundle.files)
            for tensor in model.graph.initializer
            if tensor.data_location == TensorProto.EXTERNAL
        }
    except Exception as error:  # onnx and protobuf raise a dozen types of their own
        raise StartupError(f"{label}: cannot read the graph: {error}") from error
    return StoredGraph(label, model, weights)


def _stored(tensor: TensorProto, files: Mapping[str, bytes]) -> NDArray[Any]:
    """A tensor of another file. Raises ValueError where that is not of the bundle or too short."""
    place = {entry.key: entry.value for entry in tensor.external_data}
    location = place.get("location", "")
    if (content := files.get(location)) is None:
        raise ValueError(f"the weights {shown(tensor.name)} are in {shown(location)}, not in the bundle")
    dtype = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type))
    count = math.prod(tensor.dims)
    offset, length = _number(place.get("offset", "0")), _number(place.get("length", str(count * dtype.itemsize)))
    if min(tensor.dims, default=0) < 0 or length != count * dtype.itemsize or not 0 <= offset <= len(content) - length:
        raise ValueError(f"the weights {shown(tensor.name)} do not lie within {shown(location)}")
    return np.frombuffer(content, dtype, count, offset).reshape(tuple(tensor.dims))


def _number(text: str) -> int:
    """Raises ValueError where it is none."""
    if not is_number(text):
        raise ValueError(f"{shown(text)} is no number")
    return int(text)


def _check(model: onnx.ModelProto, manifest: Manifest, output: Output) -> None:
    """Raises ValueError where a graph is not of the kind that `birnn export` writes."""
    graph = model.graph
    if model.functions or graph.sparse_initializer:
        raise ValueError("it has functions or sparse weights")
    if len(graph.node) > NODES_A_LAYER * manifest.layers + OTHER_NODES:
        raise ValueError(f"it has {len(graph.node)} nodes, too many for {manifest.layers} layers")
    for node in graph.node:
        if node.domain not in ("", "ai.onnx") or (node.op_type not in POOLING_OPS and node.op_type not in OPERATORS):
            raise ValueError(f"it has the operator {shown(node.op_type)}, which no encoder of ours has")
        if any(attribute.type not in ATTRIBUTE_TYPES for attribute in node.attribute):
            raise ValueError(f"an attribute of {shown(node.name)} is neither number nor text")
    found = [value.name for value in graph.input], [value.name for value in graph.output]
    if found != ([manifest.inputs, "lengths"], [output.value]):
        raise ValueError(f"its inputs and outputs are {shown(str(found))}")
    shapes = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    for tensor in graph.initializer:
        _check_constant(tensor)
    tables = [shapes.get(node.input[0]) for node in graph.node if node.op_type == "Gather" and "ids" in node.input]
    # With fewer tokens than embedding columns, `birnn export` embeds ids as one-hot rows.
    widths = {manifest.embedding_size, min(manifest.vocab_size, manifest.embedding_size)}
    if manifest.inputs == "ids" and tables not in [[(manifest.vocab_size, width)] for width in widths]:
        raise ValueError(
            f"its embedding has the shape {tables}, the manifest declares {manifest.vocab_size} ids of "
            f"{manifest.embedding_size} numbers"
        )


def _check_constant(tensor: TensorProto) -> None:
    if tensor.data_location == TensorProto.EXTERNAL and tensor.data_type == TensorProto.FLOAT:
        return
    values = numpy_helper.to_array(tensor)
    if tensor.data_type != TensorProto.FLOAT and (values.dtype.kind != "i" or (np.abs(values) > MOST_CONSTANT).any()):
        raise ValueError(f"its constant {shown(tensor.name)} is no float32 and no axis, shape or count")
