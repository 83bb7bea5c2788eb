"""LangChain integration: `Embeddings` that are computed by a birnn server."""

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
    """Embeds texts with an encoder on a birnn server.

    Args:
        address: HOST:PORT, or any gRPC target. See `birnn.Client`.
        encoder: Name of the encoder.
        version: Version of the encoder. None selects the highest. Vectors of different versions are not comparable, so
            set it if you store the vectors.
        timeout: Seconds for each call. None sets no limit.
        truncate: Truncate texts that are too long for the encoder instead of failing them.
        normalize: Scale each vector to length 1, so that a dot product is a cosine.
        on_error: What to do if texts cannot be encoded: "raise" raises one `birnn.SequenceError` that lists them all;
            "nan" fills their vectors with NaN.
        client_options: More options of `birnn.Client`, such as `credentials` and `retry_for`.
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
        """Embed several texts.

        Args:
            texts: The texts.

        Returns:
            One vector per text, in order.

        Raises:
            birnn.EncodeError: The call failed, or a text cannot be encoded.
        """
        return self._served.encode(texts)

    def embed_query(self, text: str) -> list[float]:
        """Embed one text.

        Args:
            text: The text.

        Returns:
            Its vector.

        Raises:
            birnn.EncodeError: The call failed, or the text cannot be encoded.
        """
        return self._served.encode([text])[0]

    async def aembed_documents(self, texts: list[str]) -> list[list[float]]:
        """Embed several texts from asyncio code. See `embed_documents`."""
        return await self._served.encode_async(texts)

    async def aembed_query(self, text: str) -> list[float]:
        """Embed one text from asyncio code. See `embed_query`."""
        return (await self._served.encode_async([text]))[0]
