"""The encoder as a custom runtime of MLServer."""

from pathlib import Path

from mlserver import MLModel
from mlserver.codecs import NumpyCodec, StringCodec
from mlserver.types import InferenceRequest, InferenceResponse

from bench.peers.served.onnx_encoder import OnnxEncoder


class EncoderRuntime(MLModel):  # type: ignore[misc]
    """Text BYTES [n, 1] to embedding FP32 [n, D]; where batching is on, the requests of a batch come as one."""

    async def load(self) -> bool:
        """Load the bundle that model-settings.json names."""
        assert self.settings.parameters is not None
        assert self.settings.parameters.uri is not None
        self._encoder = OnnxEncoder(Path(self.settings.parameters.uri))
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Encode one request, or one batch of them."""
        texts = StringCodec.decode_input(payload.inputs[0])
        encodings = self._encoder.encode([text.encode() for text in texts])
        return InferenceResponse(
            model_name=self.name, outputs=[NumpyCodec.encode_output("embedding", encodings)], id=payload.id
        )
