"""Both directions of an encoder at the same time, on two cores."""

from functools import partial
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from birnn_bundle.onnxruntime import ort
from birnn_service.engine.companion import companion
from birnn_service.engine.graph_edits import DIRECTIONS, join_directions, split_directions
from birnn_service.engine.onnx_session import CPU, open_session

Feeds = dict[str, NDArray[Any]]


class Directions:
    """Runs a graph layer by layer, the two directions of each layer side by side.

    onnxruntime's CPU kernels walk one direction after the other. A direction's arithmetic is the same here, and so is
    the result, to the bit.
    """

    def __init__(self, model: onnx.ModelProto, label: str) -> None:
        """Load a graph with all its weights as two graphs a layer.

        Raises:
            StartupError: One of them cannot be loaded.
        """
        self._layers = []
        for number, stage in enumerate(split_directions(model)):
            forward, reverse = (
                open_session(graph, f"layer {number} of {label}, {direction}", CPU)
                for graph, direction in zip(stage.graphs, DIRECTIONS, strict=True)
            )
            self._layers.append((stage, forward, reverse))

    def run(self, inputs: Feeds) -> NDArray[np.float32]:
        """What the whole graph gives for its inputs, on the calling thread and its companion."""
        values: NDArray[np.float32] = np.empty(0, dtype=np.float32)
        for stage, forward, reverse in self._layers:
            # Y of the layer below came as [T, 1, B, 2H].
            feeds = inputs if stage.further_input is None else {**inputs, stage.further_input: values[:, 0]}
            halves = companion().both(
                partial(_run, forward, stage.output, feeds), partial(_run, reverse, stage.output, feeds)
            )
            values = join_directions(*halves, stage.hidden)
        return values


def _run(session: ort.InferenceSession, output: str, feeds: Feeds) -> NDArray[np.float32]:
    values: NDArray[np.float32] = session.run([output], feeds)[0]
    return values
