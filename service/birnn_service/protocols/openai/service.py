"""OpenAI's embeddings over HTTP."""

import asyncio

from birnn_service.call import Call, Method
from birnn_service.catalog import Encoder, Encoders, address_of
from birnn_service.pipeline import Options, Pipeline
from birnn_service.protocols.json_text import JSON_COST, SMALL_ARRAY_BYTES, read_json, write_json
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
from birnn_service.protocols.openapi import document
from birnn_service.server_version import server_version
from birnn_service.settings import Settings
from birnn_service.transports.http_app import HttpMethods, answering
from birnn_service.transports.http_call import HttpMessage
from birnn_service.transports.http_message import HttpReply, HttpRequest
from birnn_service.transports.http_routes import DOCUMENT


class OpenAIProtocol:
    """Lets clients of OpenAI's embeddings work unmodified."""

    def __init__(self, encoders: Encoders[Encoder], pipeline: Pipeline, settings: Settings) -> None:
        self._encoders = encoders
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
        model = _model_of(call.encoder)

        def written() -> list[bytes]:
            pieces = write_embeddings(model, encoded.values, encoded.lengths, encoded.errors, base64=request.base64)
            return [b"".join(pieces)]

        small = encoded.values.nbytes <= SMALL_ARRAY_BYTES
        return HttpReply(200, written() if small else await asyncio.to_thread(written))

    def _models(self, message: HttpMessage) -> bytes:
        names = dict.fromkeys(encoder.manifest.name for encoder in self._encoders)
        return write_models(map(write_model, [*names, *map(_model_of, self._encoders)]))

    def _model(self, message: HttpMessage) -> bytes:
        name, _, version = message.values["model"].partition("@")
        self._encoders.find(name, version)
        return write_json(write_model(message.values["model"]))

    def _document(self, message: HttpMessage) -> bytes:
        models = list(map(_model_of, self._encoders))
        return write_json(document(server_version(), models, self._settings.max_sequences))


def _model_of(encoder: Encoder) -> str:
    """What OpenAI's clients call an encoder: NAME@VERSION."""
    return "@".join(address_of(encoder))
