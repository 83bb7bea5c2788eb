"""ONNX graphs of bidirectional recurrent encoders, built node by node from the weights.

    ids [T, B] -> Gather -> GRU | LSTM | RNN, bidirectional, one a layer -> pooled [B, D] or tokens [T, B, 2H]

PyTorch's exporter is not used: it cannot follow packed sequences, and it freezes the time axis. The operators used here
compute the same functions as torch.nn's, with the gates stored in another order: see `birnn_bundle.cells`.

ONNX keeps the parameters of both directions in one tensor each, forward first: W [2, G H, I], R [2, G H, H] and
B [2, 2 G H] = [input biases; hidden biases], with G gates. `sequence_lens` starts the backward direction at each row's
last token and makes Y zero beyond it.

What onnxruntime's CUDA provider would send to the CPU is left out: clip, and layout = 1, which no provider implements.
linear_before_reset = 0 and activations other than the default are written for weights that were trained with them, and
such an encoder is served on the CPU only (but for a relu RNN).
"""

from collections.abc import Mapping
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from birnn_bundle.cells import first_of
from birnn_export.encoders import EncoderConfig
from birnn_export.recurrent_weights import Weights, recurrent_layers, weight, without_embedding
from birnn_export.tensor_file import TensorFile

OPSET = 17
# The newest format that onnxruntime 1.20, the oldest release supported, reads.
IR_VERSION = 10
POOLED_FILE = "pooled.onnx"
TOKENS_FILE = "tokens.onnx"
WEIGHTS_FILE = "weights.bin"


def write_graphs(config: EncoderConfig, weights: Weights, folder: Path, name: str, version: int) -> None:
    """Write `pooled.onnx`, `tokens.onnx` and the `weights.bin` that both share into an existing folder.

    With a vocabulary smaller than the embedding, the graphs embed ids as one-hot rows, and the first layer's weights
    are those of the product (see `without_embedding`).

    Inputs of both graphs: `ids` int32 [T, B], time-major, with any ids of the vocabulary beyond a length (or, without a
    vocabulary, `features` float32 [T, B, F] with any finite numbers there); `lengths` int32 [B]. Output: `pooled`
    float32 [B, D], or `tokens` float32 [T, B, 2H] with zeros beyond each length. A row of length 0, with which an
    engine may fill a batch, gives zeros.

    Args:
        config: The encoder's architecture and sizes.
        weights: Its state_dict as numpy arrays.
        folder: Where to write.
        name: Name of the encoder, for the graphs' metadata.
        version: Its version, likewise.

    Raises:
        WeightsError: A weight is missing, has another shape than `config` says, or is not finite.
        onnx.checker.ValidationError: A graph does not conform to the ONNX standard.
    """
    with TensorFile(folder / WEIGHTS_FILE) as tensors:
        layers = list(recurrent_layers(config, weights))
        if config.inputs == "ids":
            embedding = weight(weights, "embedding.weight", (config.vocab_size, config.embedding_size))
            if config.vocab_size < config.embedding_size:
                W, R, B = layers[0]
                embedding, W = without_embedding(embedding, W)
                layers[0] = W, R, B
            tensors.add("embedding", embedding)
        for layer, (W, R, B) in enumerate(layers):
            tensors.add(f"W{layer}", W)
            tensors.add(f"R{layer}", R)
            if B is not None:
                tensors.add(f"B{layer}", B)
    for file, output in ((POOLED_FILE, "pooled"), (TOKENS_FILE, "tokens")):
        graph = EncoderGraph(config)
        if output == "pooled":
            graph.add_pooled()
        else:
            graph.add_tokens()
        path = folder / file
        path.write_bytes(graph.model(output, tensors.initializers, name, version).SerializeToString(deterministic=True))
        # Checked as a file, because only then does the checker see weights.bin.
        onnx.checker.check_model(str(path), full_check=True)


class EncoderGraph:
    """The nodes of one graph, in the order in which they run."""

    def __init__(self, config: EncoderConfig) -> None:
        self.config = config
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, onnx.TensorProto] = {}

    def add_pooled(self) -> None:
        """Add everything from `ids` to `pooled` [B, D]."""
        match self.config.pooling:
            case "final":
                # Y_h alone: an engine that is not asked for Y need not write or reorder all steps.
                self._join_directions(self._recurrence(last_output="Y_h"), "pooled")
            case "mean":
                self._join_directions(self._mean(self._recurrence(last_output="Y")), "pooled")
            case "max":
                self._join_directions(self._max(self._recurrence(last_output="Y")), "pooled")
            case "mean+max":
                Y = self._recurrence(last_output="Y")
                mean = self._join_directions(self._mean(Y), "mean")
                maximum = self._join_directions(self._max(Y), "max")
                self._node("Concat", [mean, maximum], "pooled", axis=-1)

    def add_tokens(self) -> None:
        """Add everything from `ids` to `tokens` [T, B, 2H]."""
        self._join_steps(self._recurrence(last_output="Y"), "tokens", self.config.token_dimension)

    def model(
        self, output: str, initializers: Mapping[str, onnx.TensorProto], name: str, version: int
    ) -> onnx.ModelProto:
        """The finished model with the one output `output`."""
        config = self.config
        shapes = {"pooled": ["B", config.dimension], "tokens": ["T", "B", config.token_dimension]}
        graph = helper.make_graph(
            self.nodes,
            f"{name}-{version}-{output}",
            inputs=[
                (
                    helper.make_tensor_value_info("ids", TensorProto.INT32, ["T", "B"])
                    if config.inputs == "ids"
                    else helper.make_tensor_value_info("features", TensorProto.FLOAT, ["T", "B", config.embedding_size])
                ),
                helper.make_tensor_value_info("lengths", TensorProto.INT32, ["B"]),
            ],
            outputs=[helper.make_tensor_value_info(output, TensorProto.FLOAT, shapes[output])],
            initializer=[*initializers.values(), *self.constants.values()],
        )
        model = helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", OPSET)],
            ir_version=IR_VERSION,
            producer_name="birnn-serving",
            producer_version=installed_version("birnn-serving"),
            model_version=version,
            doc_string=f"{output} encodings of {name} version {version}",
        )
        facts = {"encoder": name, "architecture": config.architecture, "pooling": config.pooling, "output": output}
        helper.set_model_props(model, facts)
        return model

    def _recurrence(self, last_output: str) -> str:
        """Add the embedding and all layers; of the last one, name and return only `last_output`, "Y" or "Y_h"."""
        config = self.config
        attributes: dict[str, Any] = {"direction": "bidirectional"}
        cell = config.cell
        if cell.family == "gru":
            attributes["linear_before_reset"] = int(cell.linear_before_reset)
        if cell.onnx_activations != first_of(cell.family).onnx_activations:
            both = cell.onnx_activations * 2
            attributes["activations"] = [one.name for one in both]
            # Of those that have any, in their order.
            attributes["activation_alpha"] = [one.alpha for one in both if one.alpha is not None] or None
            attributes["activation_beta"] = [one.beta for one in both if one.beta is not None] or None
        x: str = config.inputs
        if config.inputs == "ids":
            x = self._node("Gather", ["embedding", "ids"], "embedded", axis=0)
        for layer in range(config.layers):
            last = layer == config.layers - 1
            biases = f"B{layer}" if config.bias else ""
            outputs = ["", "Y_h"] if last and last_output == "Y_h" else [f"Y{layer}"]
            self.nodes.append(
                helper.make_node(
                    config.cell.operator,
                    [x, f"W{layer}", f"R{layer}", biases, "lengths"],
                    outputs,
                    name=f"layer{layer}",
                    hidden_size=config.layer_sizes[layer],
                    **attributes,
                )
            )
            x = outputs[-1]
            if not last:
                x = self._join_steps(x, f"outputs{layer}", 2 * config.layer_sizes[layer])
        return x

    def _join_steps(self, Y: str, output: str, width: int) -> str:
        """[T, 2, B, H] -> [T, B, 2H]: both directions of a step side by side."""
        by_row = self._node("Transpose", [Y], f"{output}_by_row", perm=[0, 2, 1, 3])
        return self._node("Reshape", [by_row, self._shape("step_shape", [0, 0], width)], output)

    def _join_directions(self, states: str, output: str) -> str:
        """[2, B, H] -> [B, 2H]: both directions of a row side by side."""
        by_row = self._node("Transpose", [states], f"{output}_by_row", perm=[1, 0, 2])
        return self._node("Reshape", [by_row, self._shape("row_shape", [0], self.config.token_dimension)], output)

    def _mean(self, Y: str) -> str:
        """Mean of Y [T, 2, B, H] over each row's own steps, [2, B, H]: Y is zero beyond them, so the sum is theirs."""
        total = self._node("ReduceSum", [Y, self._constant("time_axis", [0])], "total", keepdims=0)
        count = self._node("Cast", [self._counts()], "count", to=TensorProto.FLOAT)
        count = self._node("Unsqueeze", [count, self._constant("hidden_axis", [1])], "count_column")
        return self._node("Div", [total, count], "mean_states")

    def _max(self, Y: str) -> str:
        """Maximum of Y [T, 2, B, H] over each row's own steps, [2, B, H]: the zeros beyond them must not win."""
        zero, one = self._scalar("zero", 0), self._scalar("one", 1)
        shape = self._node("Shape", [self.config.inputs], f"{self.config.inputs}_shape")
        T = self._node("Gather", [shape, zero], "T", axis=0)
        step = self._node("Range", [zero, T, one], "step")
        step = self._node("Cast", [step], "step_int32", to=TensorProto.INT32)
        step = self._node("Unsqueeze", [step, self._constant("row_axis", [1])], "step_column")
        is_token = self._node("Less", [step, self._counts()], "is_token")
        is_token = self._node("Unsqueeze", [is_token, self._constant("state_axes", [1, 3])], "is_token_state")
        lowest = self._scalar("lowest", -np.inf, np.float32)
        tokens = self._node("Where", [is_token, Y, lowest], "token_states")
        return self._node("ReduceMax", [tokens], "max_states", axes=[0], keepdims=0)

    def _counts(self) -> str:
        """Lengths [B], but 1 for rows of length 0: their one zero step makes them zeros, not NaN or infinite."""
        if not any("counts" in node.output for node in self.nodes):
            self._node("Max", ["lengths", self._scalar("one_token", 1, np.int32)], "counts")
        return "counts"

    def _node(self, operator: str, inputs: list[str], output: str, **attributes: object) -> str:
        self.nodes.append(helper.make_node(operator, inputs, [output], name=output, **attributes))
        return output

    def _shape(self, name: str, kept: list[int], width: int) -> str:
        # 0 keeps an axis as it is.
        return self._constant(name if width == self.config.token_dimension else f"{name}_{width}", [*kept, width])

    def _constant(self, name: str, values: list[int]) -> str:
        return self._tensor(name, np.array(values, dtype=np.int64))

    def _scalar(self, name: str, value: float, dtype: type[np.generic] = np.int64) -> str:
        return self._tensor(name, np.array(value, dtype=dtype))

    def _tensor(self, name: str, values: NDArray[Any]) -> str:
        # Kept inside the graph: shape inference does not read external data.
        self.constants[name] = onnx.numpy_helper.from_array(values, name)
        return name
