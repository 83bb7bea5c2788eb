"""For LangChain: an encoder of a birnn server as `Embeddings`."""

from typing import Any, Literal

from birnn.integrations.served_encoder import ServedEncoder
from birnn.options import Version

try:
    from langchain_core.embeddings import Embeddings
except ModuleNotFoundError as error:
    raise ImportError(
        "birnn.integrations.langchain needs langchain-core: pip install 'birnn-serving[langchain]'"
    ) from error


class BirnnEmbeddings(Embeddings):
    """Embeds texts with an encoder of a birnn server.

    Args:
        address: HOST:PORT, or any gRPC target; see `birnn.Client`.
        encoder: Name of the encoder.
        version: Its version; None for the highest. Vectors of two versions do not go together, so name it where they
            are stored.
        timeout: Seconds for each call; None for no limit.
        truncate: Cut texts that are too long for the encoder instead of failing them.
        normalize: Scale each vector to length 1, so that a dot product is a cosine.
        on_error: What becomes of a text that cannot be encoded: "raise" a `birnn.SequenceError` that names all of them,
            or fill its vector with "nan".
        client_options: Further options of `birnn.Client`, such as `credentials` and `retry_for`.
    """

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
        **client_options: Any,
    ) -> None:
        call = {
            "encoder": encoder,
            "version": version,
            "timeout": timeout,
            "truncate": truncate,
            "normalize": normalize,
            "on_error": on_error,
        }
        self._served = ServedEncoder(address, client_options, call)

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """The vectors of texts, in order.

        Raises:
            birnn.EncodeError: The call failed, or a text cannot be encoded.
        """
        return self._served.encode(texts)

    def embed_query(self, text: str) -> list[float]:
        """The vector of one text."""
        return self._served.encode([text])[0]

    async def aembed_documents(self, texts: list[str]) -> list[list[float]]:
        """As `embed_documents`, for asyncio."""
        return await self._served.encode_async(texts)

    async def aembed_query(self, text: str) -> list[float]:
        """As `embed_query`, for asyncio."""
        return (await self._served.encode_async([text]))[0]
