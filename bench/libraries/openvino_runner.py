"""OpenVINO's CPU plugin on the bundle's own graph, the one that onnxruntime runs."""

import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.libraries.runner import GRAPH_FILE, Precision, Run
from birnn_bundle.ragged import RaggedBatch

# Its package sends telemetry when it is imported, unless it cannot find what sends it.
sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
import openvino  # noqa: E402

TYPES: dict[Precision, openvino.Type] = {"float32": openvino.Type.f32, "bf16": openvino.Type.bf16}


class OpenVinoRunner:
    """A compiled graph; lengths go in as the graph's input of that name."""

    version = openvino.__version__

    def __init__(self, folder: Path, precision: Precision) -> None:
        core = openvino.Core()
        hints = {"INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1, "INFERENCE_PRECISION_HINT": TYPES[precision]}
        self._request = core.compile_model(core.read_model(folder / GRAPH_FILE), "CPU", hints).create_infer_request()

    def prepare(self, batch: RaggedBatch, equal: bool) -> Run:
        """Make what runs a batch, padded to its longest row."""
        feed = {"ids": batch.padded(), "lengths": batch.lengths.astype(np.int32)}

        def run() -> NDArray[np.float32]:
            found: NDArray[np.float32] = self._request.infer(feed)["pooled"]
            return found

        return run
