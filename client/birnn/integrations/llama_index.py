"""LlamaIndex integration: a `BaseEmbedding` that is computed by a birnn server."""

from typing import Any, Literal

from birnn.integrations.served_encoder import ServedEncoder
from birnn.options import Version

try:
    from llama_index.core.base.embeddings.base import BaseEmbedding
    from llama_index.core.bridge.pydantic import PrivateAttr
except ModuleNotFoundError as error:
    raise ImportError(
        "birnn.integrations.llama_index needs llama-index-core: pip install 'birnn-serving[llama-index]'"
    ) from error

# LlamaIndex's default of 10 suits services that charge per call.
BATCH = 512


class BirnnEmbedding(BaseEmbedding):
    """Embeds texts with an encoder on a birnn server.

    Args:
        address: HOST:PORT, or any gRPC target. See `birnn.Client`.
        encoder: Name of the encoder.
        version: Version of the encoder. None selects the highest. Vectors of different versions are not comparable, so
            set it if you store the vectors.
        timeout: Seconds for each call. None sets no limit.
        truncate: Truncate texts that are too long for the encoder instead of failing them.
        normalize: Scale each vector to length 1, so that a dot product is a cosine.
        on_error: What to do if texts cannot be encoded: "raise" raises one `birnn.SequenceError` that lists them all by
            their positions in the call; "nan" fills their vectors with NaN.
        client_options: More options of `birnn.Client`, such as `retry_for`.
        options: Options of `BaseEmbedding`, such as `embed_batch_size`, the maximum number of texts per call.
    """

    address: str
    encoder: str
    version: Version
    timeout: float | None
    truncate: bool
    normalize: bool
    on_error: Literal["raise", "nan"]
    client_options: dict[str, Any]
    _served: ServedEncoder = PrivateAttr()

    def __init__(
        self,
        address: str,
        *,
        encoder: str,
        version: Version = None,
        timeout: float | None = None,
        truncate: bool = False,
        normalize: bool = False,
        on_error: Literal["raise", "nan"] = "raise",
        client_options: dict[str, Any] | None = None,
        **options: Any,
    ) -> None:
        call = {
            "encoder": encoder,
            "version": version,
            "timeout": timeout,
            "truncate": truncate,
            "normalize": normalize,
            "on_error": on_error,
        }
        client_options = client_options or {}
        options = {"embed_batch_size": BATCH, "model_name": encoder, **options}
        super().__init__(address=address, client_options=client_options, **call, **options)
        self._served = ServedEncoder(address, client_options, call)

    @classmethod
    def class_name(cls) -> str:
        """Return the class name that LlamaIndex stores for this component."""
        return "BirnnEmbedding"

    def _get_query_embedding(self, query: str) -> list[float]:
        return self._served.encode([query])[0]

    def _get_text_embedding(self, text: str) -> list[float]:
        return self._served.encode([text])[0]

    def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        return self._served.encode(texts)

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return (await self._served.encode_async([query]))[0]

    async def _aget_text_embedding(self, text: str) -> list[float]:
        return (await self._served.encode_async([text]))[0]

    async def _aget_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        return await self._served.encode_async(texts)
