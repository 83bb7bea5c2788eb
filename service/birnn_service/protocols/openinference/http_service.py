"""The Open Inference Protocol over HTTP, with Triton's extensions; all that it means stands in `service`."""

import asyncio
from collections.abc import Awaitable, Callable, Collection
from functools import partial
from typing import Any

from birnn.openinference import inference_pb2 as pb
from birnn_bundle.quoting import shown
from birnn_service.call import Call, Method
from birnn_service.catalog import address_of
from birnn_service.errors import InvalidRequestError, ServiceError, UnknownEncoderError
from birnn_service.protocols.json_text import JSON_COST, SMALL_ARRAY_BYTES, SMALL_BYTES, parse_json, write_json
from birnn_service.protocols.message_json import plain
from birnn_service.protocols.openinference.http_reply import write_infer
from birnn_service.protocols.openinference.http_request import HEADER_LENGTH, InferRequest, read_infer
from birnn_service.protocols.openinference.service import ENGINE, EXTENSIONS, INDEX, InferenceProtocol
from birnn_service.settings import Settings
from birnn_service.state import ServingState
from birnn_service.token_file import Right, Rights
from birnn_service.transports.http_app import HttpMethods, answering
from birnn_service.transports.http_call import HttpMessage
from birnn_service.transports.http_message import HttpReply, HttpRequest

# Values in the body of a request for the index: a flag.
INDEX_VALUES = 16
# In that of an order: parameters.
ORDER_VALUES = 64


class InferenceOverHttp:
    """Lets tritonclient.http, KServe's client and curl work."""

    def __init__(self, protocol: InferenceProtocol, state: ServingState, settings: Settings) -> None:
        self._protocol = protocol
        self._state = state
        self._settings = settings

    def methods(self) -> HttpMethods:
        """All methods."""
        methods = {
            ("GET", "/v2"): _simple("GET /v2", self._server),
            ("GET", "/v2/health/live"): _probe("GET /v2/health/live", "live", lambda _: self._state.live),
            ("GET", "/v2/health/ready"): _probe("GET /v2/health/ready", "ready", lambda _: self._state.ready),
            ("GET", "/v2/models/stats"): _simple("GET /v2/models/stats", self._statistics),
            ("POST", "/v2/repository/index"): _simple("POST /v2/repository/index", self._index, INDEX),
            ("POST", "/v2/repository/models/{model}/load"): _order("load", self._protocol.load),
            ("POST", "/v2/repository/models/{model}/unload"): _order("unload", self._protocol.unload),
        }
        for path in ("/v2/models/{model}", "/v2/models/{model}/versions/{version}"):
            # Versions are one method: a version is not what metrics tell apart here.
            name = "/v2/models/{model}"
            methods |= {
                ("GET", path): _simple(f"GET {name}", self._metadata),
                ("GET", f"{path}/ready"): _probe(f"GET {name}/ready", "ready", self._ready),
                ("GET", f"{path}/config"): _simple(f"GET {name}/config", self._config),
                ("GET", f"{path}/stats"): _simple(f"GET {name}/stats", self._statistics),
                ("POST", f"{path}/infer"): Method(
                    f"POST {name}/infer",
                    self._read,
                    self._infer,
                    lambda asked: (asked[1].message.model_name, asked[1].message.model_version),
                ),
            }
        return HttpMethods("/v2", methods, write_error)

    def _server(self, asked: HttpMessage) -> dict[str, Any]:
        found = self._protocol.server_metadata(pb.ServerMetadataRequest())
        return {"name": found.name, "version": found.version, "extensions": [*EXTENSIONS, "binary_tensor_data"]}

    def _ready(self, asked: HttpMessage) -> bool:
        # gRPC has but one word for an unknown one and one that is not ready. Who asks needs no token, and so hears
        # neither what else there is nor what is broken.
        try:
            self._metadata(asked)
        except UnknownEncoderError:
            raise UnknownEncoderError("there is no such encoder") from None
        except ServiceError:
            return False
        return self._protocol.model_ready(pb.ModelReadyRequest(**_place(asked))).ready

    def _metadata(self, asked: HttpMessage) -> dict[str, Any]:
        return plain(self._protocol.model_metadata(pb.ModelMetadataRequest(**_place(asked))))

    def _config(self, asked: HttpMessage) -> dict[str, Any]:
        return plain(self._protocol.model_config(pb.ModelConfigRequest(**_place(asked))).config)

    def _statistics(self, asked: HttpMessage) -> dict[str, Any]:
        return plain(self._protocol.model_statistics(pb.ModelStatisticsRequest(**_place(asked))))

    def _index(self, asked: HttpMessage) -> list[dict[str, Any]]:
        wanted = parse_json(asked.body, INDEX_VALUES) if asked.body else {}
        ready = isinstance(wanted, dict) and wanted.get("ready") is True
        models = self._protocol.repository_index(pb.RepositoryIndexRequest(ready=ready)).models
        return [plain(model) for model in models]

    async def _read(self, asked: HttpMessage) -> tuple[HttpRequest, InferRequest]:
        place = _place(asked)
        read = partial(
            read_infer,
            asked.body,
            asked.request.headers.get(HEADER_LENGTH),
            place["name"],
            place.get("version", ""),
            self._settings.max_sequences,
        )
        return asked.request, read() if len(asked.body) <= SMALL_BYTES else await asyncio.to_thread(read)

    async def _infer(self, asked: tuple[HttpRequest, InferRequest], call: Call) -> HttpReply:
        head, request = asked
        tensors = await self._protocol.tensors(request.message, call, head.timeout)
        assert call.encoder is not None
        as_text = sum(tensor.nbytes for output, tensor in tensors.items() if not request.as_bytes(output))
        call.memory.take(JSON_COST * as_text)
        write = partial(
            write_infer,
            *address_of(call.encoder),
            tensors,
            request.as_bytes,
            request_id=request.message.id,
            parameters={ENGINE: call.encoder.info.label},
        )
        return write() if as_text <= SMALL_ARRAY_BYTES else await asyncio.to_thread(write)


def write_error(error: ServiceError) -> bytes:
    """An error, in the form of the protocol."""
    return write_json({"error": error.message})


def _place(asked: HttpMessage) -> dict[str, str]:
    """Name and version of the model in a path."""
    names = {"name": "model", "version": "version"}
    return {field: asked.values[value] for field, value in names.items() if value in asked.values}


def _simple(name: str, answer: Callable[[HttpMessage], Any], right: Rights = Right.ENCODE) -> Method:
    """A method that answers at once with what it returns."""
    return answering(name, lambda asked: write_json(answer(asked)), right)


def _order(action: str, carry_out: Callable[[str, Collection[str]], Awaitable[None]]) -> Method:
    """A method by which operators load or unload; its answer is KServe's, and Triton's client wants none."""

    async def reply(asked: HttpMessage, call: Call) -> HttpReply:
        model, body = asked.values["model"], parse_json(asked.body, ORDER_VALUES) if asked.body else {}
        if not isinstance(body, dict) or not isinstance(parameters := body.get("parameters", {}), dict):
            raise InvalidRequestError("an order's body is empty, or an object with `parameters`, which is an object")
        if unknown := body.keys() - {"parameters"}:
            raise InvalidRequestError(f"unknown field {shown(min(unknown))}; an order has `parameters` only")
        await carry_out(model, parameters.keys())
        return HttpReply(200, [write_json({"name": model, action: True})])

    return Method(f"POST /v2/repository/models/{{model}}/{action}", lambda asked: asked, reply, right=Right.ADMIN)


def _probe(name: str, field: str, answer: Callable[[HttpMessage], bool]) -> Method:
    """A method whose answer is its status and, for KServe's client, a field; it needs no token."""

    async def reply(asked: HttpMessage, call: Call) -> HttpReply:
        well = answer(asked)
        model = {"name": asked.values["model"]} if "model" in asked.values else {}
        return HttpReply(200 if well else 503, [write_json({**model, field: well})])

    return Method(name, lambda asked: asked, reply, right=None)
