"""Other forms of a bundle's graphs, made at load: one direction at a time, and in half precision.

They are made from the graphs whose digests were checked, and not stored beside them: so a bundle keeps one copy of its
weights, and bundles that were written earlier have them too.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from birnn_bundle.cells import OPERATORS

FLOAT, FLOAT16 = onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16
DIRECTIONS = ("forward", "reverse")


@dataclass(frozen=True, slots=True)
class Stage:
    """One layer of an encoder, as two graphs that need nothing of each other; those of the last layer also pool.

    Attributes:
        graphs: Serialized models of both directions, forward first. Their inputs are those of the whole graph.
        further_input: Name of one more input: what the layer below gave, [T, B, 2H] of its H; None for the first one.
        hidden: Hidden size H of the layer.
        output: Name of their output: Y [T, 1, B, H], or of the last layer their half of the encoder's output.
    """

    graphs: tuple[bytes, bytes]
    further_input: str | None
    hidden: int
    output: str


def split_directions(model: onnx.ModelProto) -> list[Stage]:
    """The layers of a bundle's graph, each as a forward and a reverse graph.

    The directions of a layer share their input and nothing else. What follows the last layer, pooling and joining,
    treats each hidden unit by itself, so that half of the units give half of the output.
    """
    nodes = list(model.graph.node)
    layers = [place for place, node in enumerate(nodes) if node.op_type in OPERATORS]
    sizes = {tensor.name: tensor.dims for tensor in model.graph.initializer}
    stages: list[Stage] = []
    for layer, place in enumerate(layers):
        last = place == layers[-1]
        own = nodes[place if layer else 0 : None if last else place + 1]
        # R is [2, G H, H].
        hidden = sizes[nodes[place].input[2]][2]
        inputs = list(model.graph.input)
        if layer:
            inputs.append(
                helper.make_tensor_value_info(nodes[place].input[0], FLOAT, ["T", "B", 2 * stages[-1].hidden])
            )
        output = _half_of(model.graph.output[0])
        if not last:
            output = helper.make_tensor_value_info(nodes[place].output[0], FLOAT, ["T", 1, "B", hidden])
        forward, reverse = (_one_direction(model, own, inputs, output, direction) for direction in (0, 1))
        stages.append(Stage((forward, reverse), inputs[-1].name if layer else None, hidden, output.name))
    return stages


def join_directions(forward: NDArray[np.float32], reverse: NDArray[np.float32], hidden: int) -> NDArray[np.float32]:
    """Both halves [..., k H] of an output as a whole, [..., k 2H]: of each of k poolings forward, then reverse."""
    *rows, width = forward.shape
    whole = np.empty((*rows, width // hidden, 2, hidden), dtype=np.float32)
    whole[..., 0, :] = forward.reshape(*rows, -1, hidden)
    whole[..., 1, :] = reverse.reshape(*rows, -1, hidden)
    return whole.reshape(*rows, 2 * width)


def in_half_precision(model: onnx.ModelProto) -> bytes:
    """The same graph with weights and recurrences in float16, pooling and output in float32.

    Pooling is a small part of the work, and a sum over many steps would lose in float16 what it need not lose.
    """
    initializers = _initializers(model)
    for name in _weights(model):
        half = numpy_helper.to_array(initializers[name]).astype(np.float16)
        initializers[name] = numpy_helper.from_array(half, name)
    nodes = [_copy(node) for node in model.graph.node]
    last = max(place for place, node in enumerate(nodes) if node.op_type in OPERATORS)
    casts = []
    for place, name in enumerate(nodes[last].output):
        if name:
            nodes[last].output[place] = f"{name}_half"
            casts.append(helper.make_node("Cast", [f"{name}_half"], [name], name=f"{name}_cast", to=FLOAT))
    nodes[last + 1 : last + 1] = casts
    first = next(node for node in nodes if node.op_type in OPERATORS)
    if first.input[0] in {one.name for one in model.graph.input}:
        # No embedding, whose rows would be in float16 already.
        nodes.insert(0, helper.make_node("Cast", [first.input[0]], ["inputs_half"], name="inputs_half", to=FLOAT16))
        first.input[0] = "inputs_half"
    return _assemble(model, nodes, initializers, model.graph.input, model.graph.output)


def _half_of(output: onnx.ValueInfoProto) -> onnx.ValueInfoProto:
    """The same, half as wide."""
    half = onnx.ValueInfoProto()
    half.CopyFrom(output)
    half.type.tensor_type.shape.dim[-1].dim_value //= 2
    return half


def _one_direction(
    model: onnx.ModelProto,
    own: list[onnx.NodeProto],
    inputs: list[onnx.ValueInfoProto],
    output: onnx.ValueInfoProto,
    direction: int,
) -> bytes:
    """A graph of the nodes `own`, with one direction of their recurrent one."""
    initializers = _initializers(model)
    nodes = [_copy(node) for node in own]
    for node in nodes:
        if node.op_type in OPERATORS:
            for name in filter(None, node.input[1:4]):
                both = numpy_helper.to_array(initializers[name])
                initializers[name] = numpy_helper.from_array(np.ascontiguousarray(both[direction, None]), name)
            _keep_direction(node, direction)
        elif node.op_type == "Reshape":
            sizes = numpy_helper.to_array(initializers[node.input[1]]).copy()
            sizes[-1] //= 2
            node.input[1] += "_half"
            initializers[node.input[1]] = numpy_helper.from_array(sizes, node.input[1])
    return _assemble(model, nodes, initializers, inputs, [output])


def _keep_direction(node: onnx.NodeProto, direction: int) -> None:
    """Let the attributes of a recurrent node speak of one direction."""
    for attribute in node.attribute:
        if attribute.name == "direction":
            attribute.s = DIRECTIONS[direction].encode()
        elif attribute.name.startswith("activation"):
            # Names, or alpha or beta of those that have one.
            for values in (attribute.strings, attribute.floats):
                each = len(values) // 2
                kept = list(values)[direction * each : (direction + 1) * each]
                del values[:]
                values.extend(kept)


def _assemble(
    model: onnx.ModelProto,
    nodes: list[onnx.NodeProto],
    initializers: Mapping[str, onnx.TensorProto],
    inputs: Iterable[onnx.ValueInfoProto],
    outputs: Iterable[onnx.ValueInfoProto],
) -> bytes:
    """A serialized model like `model`, of these nodes and of the initializers that they use."""
    used = {name for node in nodes for name in node.input}
    tensors = [tensor for name, tensor in initializers.items() if name in used]
    graph = helper.make_graph(nodes, model.graph.name, list(inputs), list(outputs), tensors)
    edited = helper.make_model(graph, opset_imports=list(model.opset_import), ir_version=model.ir_version)
    content: bytes = edited.SerializeToString()
    return content


def _initializers(model: onnx.ModelProto) -> dict[str, onnx.TensorProto]:
    return {tensor.name: tensor for tensor in model.graph.initializer}


def _weights(model: onnx.ModelProto) -> set[str]:
    """Names of the parameters of the embedding and of the recurrent nodes."""
    nodes = model.graph.node
    recurrent = {name for node in nodes if node.op_type in OPERATORS for name in node.input[1:4] if name}
    return recurrent | {node.input[0] for node in nodes if node.op_type == "Gather" and node.input[1] == "ids"}


def _copy(node: onnx.NodeProto) -> onnx.NodeProto:
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    return copy
