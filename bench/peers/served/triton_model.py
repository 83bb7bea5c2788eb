"""The encoder as a model of Triton's Python backend; becomes MODEL/1/model.py of its model repository."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as triton

from bench.peers.served.onnx_encoder import OnnxEncoder


class TritonPythonModel:
    """Runs all requests that Triton's dynamic batcher hands over as one batch."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the bundle that config.pbtxt names."""
        parameters = json.loads(args["model_config"])["parameters"]
        self._encoder = OnnxEncoder(Path(parameters["bundle"]["string_value"]))

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer requests: text BYTES [n, 1] to embedding FP32 [n, D], each."""
        texts = [triton.get_input_tensor_by_name(request, "text").as_numpy().reshape(-1) for request in requests]
        encodings = self._encoder.encode(np.concatenate(texts).tolist())
        parts = np.split(encodings, np.cumsum([len(text) for text in texts])[:-1])
        return [triton.InferenceResponse([triton.Tensor("embedding", part)]) for part in parts]
