"""The recurrent part of a bundle's ONNX graph, its cell and weights, for engines that do not run the graph itself."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from birnn_bundle.cells import CELLS, OPERATORS, Cell
from birnn_native.kernel import Kernel, Layer, obstacle
from birnn_native.library import PRECISIONS, Precision

# Attributes of the operators that change nothing as long as they have these values.
NEUTRAL = {"direction": "bidirectional", "layout": 0, "input_forget": 0}
# X, W, R, B and sequence_lens; initial states and peepholes would come behind them.
USED_INPUTS = 5
# Largest size of the input products of all ids, as a multiple of the size of the weights.
TABLE_SHARE = 2


class UnsupportedGraphError(Exception):
    """The graph holds something that only onnxruntime can run; says what."""


@dataclass(frozen=True, slots=True, eq=False)
class RecurrentGraph:
    """What a graph computes.

    Attributes:
        cell: The recurrence.
        layers: Weights of each layer, in order.
        embedding: Rows of all ids [V, E]; None where the graph reads features.
        bytes: Size of all its weights.
    """

    cell: Cell
    layers: list[Layer]
    embedding: NDArray[np.float32] | None
    bytes: int

    def precisions(self, instruction_set: str | None = None) -> list[Precision]:
        """The precisions in which this machine can run it. Raises what `obstacle` does, where also the reasons are."""
        return [precision for precision in PRECISIONS if obstacle(self.cell, precision, instruction_set) is None]

    def kernel(self, *, precision: Precision = "fp32", instruction_set: str | None = None) -> Kernel:
        """The same, packed to run. Raises what `Kernel` does."""
        table_bytes = TABLE_SHARE * self.bytes
        return Kernel(
            self.cell,
            self.layers,
            self.embedding,
            precision=precision,
            instruction_set=instruction_set,
            most_table_bytes=table_bytes,
        )


def read_graph(model: onnx.ModelProto) -> RecurrentGraph:
    """Read a graph with all its weights.

    Raises:
        UnsupportedGraphError: It is not [Gather ->] recurrent nodes of one kind, bidirectional, in float32.
    """
    graph = model.graph
    tensors = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    nodes = [node for node in graph.node if node.op_type in OPERATORS]
    cells = {_cell(node) for node in nodes}
    if len(cells) != 1:
        raise UnsupportedGraphError(f"its recurrent nodes are of {len(cells)} kinds, one expected")
    layers = [_layer(node, tensors) for node in nodes]
    size = sum(array.nbytes for array in tensors.values())
    return RecurrentGraph(cells.pop(), layers, _embedding(graph, nodes[0], tensors), size)


def _cell(node: Any) -> Cell:
    attributes = {attribute.name: _value(attribute) for attribute in node.attribute}
    for name, value in NEUTRAL.items():
        if attributes.pop(name, value if name != "direction" else "forward") != value:
            raise UnsupportedGraphError(f"{node.name}: {name} is not {value!r}")
    attributes.pop("hidden_size", None)
    # ONNX's default, and a question to a GRU alone.
    linear_before_reset = bool(attributes.pop("linear_before_reset", node.op_type != "GRU"))
    cells = [cell for cell in CELLS if cell.operator == node.op_type]
    default = [activation.name for activation in cells[0].onnx_activations] * 2
    activations = attributes.pop("activations", default)
    for cell in cells:
        # Those with a kernel have neither alpha nor beta.
        names = [activation.name for activation in cell.onnx_activations] * 2
        if names == activations and cell.linear_before_reset == linear_before_reset:
            break
    else:
        raise UnsupportedGraphError(f"{node.name}: no kernel has the activations {', '.join(activations)}")
    if attributes:
        raise UnsupportedGraphError(f"{node.name}: attributes {', '.join(sorted(attributes))}")
    return cell


def _value(attribute: Any) -> Any:
    value = onnx.helper.get_attribute_value(attribute)
    if isinstance(value, bytes):
        return value.decode()
    return [item.decode() if isinstance(item, bytes) else item for item in value] if isinstance(value, list) else value


def _layer(node: Any, tensors: Mapping[str, NDArray[Any]]) -> Layer:
    inputs = [*node.input, *[""] * USED_INPUTS]
    if any(inputs[USED_INPUTS:]):
        raise UnsupportedGraphError(f"{node.name}: initial states or peepholes")
    if not inputs[4]:
        raise UnsupportedGraphError(f"{node.name}: no sequence lengths")
    W, R = (_weights(node, tensors, inputs[position]) for position in (1, 2))
    return Layer(W, R, _weights(node, tensors, inputs[3]) if inputs[3] else None)


def _weights(node: Any, tensors: Mapping[str, NDArray[Any]], name: str) -> NDArray[np.float32]:
    values = tensors.get(name)
    if values is None or values.dtype != np.float32:
        raise UnsupportedGraphError(f"{node.name}: {name} is no float32 constant")
    return values


def _embedding(graph: Any, first: Any, tensors: Mapping[str, NDArray[Any]]) -> NDArray[np.float32] | None:
    """Rows of the Gather node that feeds the first layer; None where the graph's own input does."""
    x = first.input[0]
    if x in {value.name for value in graph.input}:
        return None
    for node in graph.node:
        if node.op_type == "Gather" and x in node.output:
            return _weights(node, tensors, node.input[0])
    raise UnsupportedGraphError(f"{first.name}: its input comes from neither an embedding nor the outside")
