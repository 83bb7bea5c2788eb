"""OpenAI's embeddings over HTTP."""

import asyncio
from functools import partial
from typing import Any

from birnn_service.call import Call, Method
from birnn_service.catalog import Encoder, Encoders, address_of
from birnn_service.encoded import Encoded
from birnn_service.errors import InvalidRequestError
from birnn_service.memory_budget import mib
from birnn_service.pipeline import Options, Pipeline
from birnn_service.protocols.description import description_of
from birnn_service.protocols.json_text import JSON_COST, SMALL_ARRAY_BYTES, read_json, write_json
from birnn_service.protocols.message_json import plain
from birnn_service.protocols.openai.messages import (
    OTHER_VALUES,
    EmbeddingsRequest,
    check_dimensions,
    read_embeddings,
    refuse_failed,
    write_embeddings,
    write_error,
    write_model,
    write_models,
)
from birnn_service.protocols.openai.token_texts import TokenTexts
from birnn_service.protocols.openapi import document
from birnn_service.server_version import server_version
from birnn_service.settings import Settings
from birnn_service.state import ServingState
from birnn_service.transports.http_app import HttpMethods, answering
from birnn_service.transports.http_call import HttpMessage
from birnn_service.transports.http_message import HttpReply, HttpRequest
from birnn_service.transports.http_routes import DOCUMENT

# Most tokens that are looked up on the event loop: switching threads would cost more.
SMALL_TOKENS = 1 << 12
# Memory of a text of the reply for each of its bytes: in pieces, and joined.
TEXT_COST = 2


class OpenAIProtocol:
    """Lets clients of OpenAI's embeddings work unmodified."""

    def __init__(
        self, encoders: Encoders[Encoder], state: ServingState, pipeline: Pipeline, settings: Settings
    ) -> None:
        self._encoders = encoders
        self._state = state
        self._pipeline = pipeline
        self._settings = settings

    def methods(self) -> HttpMethods:
        """All methods, and the description of all that there is over HTTP."""
        methods = {
            ("POST", "/v1/embeddings"): Method(
                "POST /v1/embeddings", self._read, self._embed, lambda asked: (asked[1].name, asked[1].version)
            ),
            ("GET", "/v1/models"): answering("GET /v1/models", self._models),
            ("GET", "/v1/models/{model}"): answering("GET /v1/models/{model}", self._model),
        }
        if self._settings.describes:
            methods["GET", DOCUMENT] = answering(f"GET {DOCUMENT}", self._document)
        return HttpMethods("", methods, write_error)

    async def _read(self, message: HttpMessage) -> tuple[HttpRequest, EmbeddingsRequest]:
        most = self._settings.max_sequences
        return message.request, read_embeddings(await read_json(message.body, most + OTHER_VALUES), most)

    async def _embed(self, asked: tuple[HttpRequest, EmbeddingsRequest], call: Call) -> HttpReply:
        head, request = asked
        assert call.encoder is not None
        check_dimensions(request.dimensions, call.encoder.manifest.dimension)
        options = Options(truncate=request.truncate, timeout=head.timeout)
        encoded = await self._pipeline.encode(call, request.texts, options)
        if not request.nulls:
            refuse_failed(encoded.errors)
        call.memory.take(JSON_COST * encoded.values.nbytes)
        tokens = await self._tokens(encoded, call) if request.tokens else None
        model = _model_of(call.encoder)

        def written() -> list[bytes]:
            pieces = write_embeddings(
                model,
                encoded.values,
                encoded.lengths,
                encoded.errors,
                base64=request.base64,
                tokens=tokens,
                notices=encoded.notices,
            )
            return [b"".join(pieces)]

        small = encoded.values.nbytes + (tokens.size if tokens else 0) <= SMALL_ARRAY_BYTES
        return HttpReply(200, written() if small else await asyncio.to_thread(written))

    async def _tokens(self, encoded: Encoded, call: Call) -> TokenTexts | None:
        """What the strings of a request were cut into, if there is room for that in the reply."""
        if not encoded.batch.holds_ids:
            return None
        make = partial(TokenTexts, encoded.batch, encoded.encoder.tokenizer.decode)
        tokens = make() if encoded.batch.tokens <= SMALL_TOKENS else await asyncio.to_thread(make)
        if tokens.size > self._settings.max_reply_bytes:
            raise InvalidRequestError(
                f"the tokens of the reply would take {mib(tokens.size)} MiB and this server sends at most "
                f"{mib(self._settings.max_reply_bytes)} (--max-reply-mib); split the request"
            )
        call.memory.take(TEXT_COST * tokens.size)
        return tokens

    def _models(self, message: HttpMessage) -> bytes:
        names = dict.fromkeys(encoder.manifest.name for encoder in self._encoders)
        return write_models([*map(write_model, names), *map(self._described, self._encoders)])

    def _model(self, message: HttpMessage) -> bytes:
        name, _, version = message.values["model"].partition("@")
        encoder = self._encoders.find(name, version)
        return write_json({**self._described(encoder), "id": message.values["model"]})

    def _described(self, encoder: Encoder) -> dict[str, Any]:
        """A version in OpenAI's form, and, under `encoder`, what `ListEncoders` says of it."""
        told = plain(description_of(encoder, self._encoders, self._state))
        return write_model(_model_of(encoder), encoder=told)

    def _document(self, message: HttpMessage) -> bytes:
        models = list(map(_model_of, self._encoders))
        return write_json(document(server_version(), models, self._settings.max_sequences))


def _model_of(encoder: Encoder) -> str:
    """What OpenAI's clients call an encoder: NAME@VERSION."""
    return "@".join(address_of(encoder))
