"""Over HTTP: the Open Inference Protocol with tensors in binary, and embeddings as in OpenAI's API."""

import asyncio
import base64
import json
from abc import abstractmethod
from collections.abc import Sequence
from functools import partial
from typing import Any
from urllib.parse import quote

import aiohttp
import numpy as np
from numpy.typing import NDArray

from birnn import EncodeError
from birnn.cli.server_options import Server
from birnn_bundle.quoting import one_line
from birnn_loadtest.schedule import Part
from birnn_loadtest.targets.target import CallError, Reply, Served, Target, TensorNames
from birnn_loadtest.targets.tensors import Tensor, TextModel, packed, vectors

# Of an error's body, in characters.
SHOWN = 300


class HttpTarget(Target):
    """A server over HTTP/1.1, by a connection for each call under way."""

    def __init__(self, server: Server, connections: int | None, timeout: float, names: TensorNames) -> None:
        self._server = server
        # A call that waits for a connection would look slow: by default there are as many as calls under way.
        self._connections = connections or 0
        self._timeout = timeout
        self._names = names
        self._session: aiohttp.ClientSession | None = None
        self._url = f"{'http' if server.tls is None else 'https'}://{server.address}"

    async def open(self, parts: Sequence[Part]) -> list[Served]:
        """Open a session, and ask for each model."""
        tls = True if self._server.tls is None else self._server.tls.context()
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=self._connections, ssl=tls),
            headers=dict(self._server.metadata),
            # The moments that count are taken by the generator.
            timeout=aiohttp.ClientTimeout(total=None),
        )
        try:
            return [await self._found(part) for part in parts]
        except CallError as error:
            raise EncodeError(f"{self._url}: {error}; is it the HTTP port, and does it serve this?") from error

    async def close(self) -> None:
        """End all connections."""
        if self._session is not None:
            await self._session.close()

    async def server(self) -> str | None:
        """Name and version, where it speaks the Open Inference Protocol."""
        try:
            about = json.loads(await self._get("/v2"))
            return f"{about['name']} {about['version']}"
        except (CallError, ValueError, KeyError, TypeError):
            return None

    async def call(self, part: Part, sequences: Sequence[bytes], timeout: float) -> Reply:  # noqa: ASYNC109
        """Encode sequences by a POST."""
        path, headers, body = self._message(part, sequences)
        reply_headers, content = await self._ask(
            "POST", path, timeout, body, {**headers, "X-Request-Timeout": f"{timeout:g}"}
        )
        return self._reply(part, reply_headers, content)

    @abstractmethod
    async def _found(self, part: Part) -> Served:
        """What the server says of an encoder."""

    @abstractmethod
    def _message(self, part: Part, sequences: Sequence[bytes]) -> tuple[str, dict[str, str], bytes]:
        """Path, headers and body of a call."""

    @abstractmethod
    def _reply(self, part: Part, headers: "dict[str, str]", content: bytes) -> Reply:
        """What a reply is read as."""

    async def _get(self, path: str) -> bytes:
        return (await self._ask("GET", path, self._timeout))[1]

    async def _ask(
        self,
        method: str,
        path: str,
        timeout: float,  # noqa: ASYNC109
        body: bytes | None = None,
        headers: dict[str, str] | None = None,
    ) -> tuple[dict[str, str], bytes]:
        assert self._session is not None
        try:
            async with (
                asyncio.timeout(timeout),
                self._session.request(method, self._url + path, data=body, headers=headers) as reply,
            ):
                content = await reply.read()
                if reply.status != 200:
                    raise CallError(f"HTTP_{reply.status}", one_line(content.decode(errors="replace"), SHOWN))
                return {key.lower(): value for key, value in reply.headers.items()}, content
        except TimeoutError as error:
            raise CallError("DEADLINE_EXCEEDED", f"no reply within {timeout:g} s") from error
        except aiohttp.ClientError as error:
            raise CallError("UNAVAILABLE", one_line(str(error) or type(error).__name__, SHOWN)) from error


class InferHttpTarget(HttpTarget):
    """POST /v2/models/NAME/infer with tensors in binary, as tritonclient sends them."""

    def __init__(self, server: Server, connections: int | None, timeout: float, names: TensorNames) -> None:
        super().__init__(server, connections, timeout, names)
        self._models: dict[tuple[str, str | None], TextModel] = {}

    async def _found(self, part: Part) -> Served:
        content = await self._get(_path(part))
        try:
            about = json.loads(content)
            inputs, outputs = (
                [Tensor(tensor["name"], tensor["datatype"], tuple(tensor["shape"])) for tensor in about[which]]
                for which in ("inputs", "outputs")
            )
        except (ValueError, KeyError, TypeError) as error:
            raise CallError("INVALID_REPLY", "the metadata of the model cannot be read") from error
        model = self._models[part.encoder, part.version] = TextModel.found(part.encoder, inputs, outputs, self._names)
        text = f"{about.get('platform') or 'platform unknown'}, {model.input.name} -> {model.output.name}"
        return Served(part.encoder, part.version or "", text)

    def _message(self, part: Part, sequences: Sequence[bytes]) -> tuple[str, dict[str, str], bytes]:
        model, raw = self._models[part.encoder, part.version], packed(sequences)
        given = {
            "name": model.input.name,
            "datatype": "BYTES",
            "shape": model.shape(len(sequences)),
            "parameters": {"binary_data_size": len(raw)},
        }
        wanted = {"name": model.output.name, "parameters": {"binary_data": True}}
        head = json.dumps({"inputs": [given], "outputs": [wanted]}).encode()
        headers = {"Inference-Header-Content-Length": str(len(head)), "Content-Type": "application/octet-stream"}
        return f"{_path(part)}/infer", headers, head + raw

    def _reply(self, part: Part, headers: dict[str, str], content: bytes) -> Reply:
        name = self._models[part.encoder, part.version].output.name
        return Reply(0, partial(_binary_vectors, headers, content, name))


class EmbeddingsTarget(HttpTarget):
    """POST /v1/embeddings, vectors in base64, as OpenAI's clients ask for them."""

    async def _found(self, part: Part) -> Served:
        await self._get(f"/v1/models/{quote(_model(part), safe='@')}")
        return Served(part.encoder, part.version or "", "embeddings as in OpenAI's API")

    def _message(self, part: Part, sequences: Sequence[bytes]) -> tuple[str, dict[str, str], bytes]:
        texts = [sequence.decode(errors="replace") for sequence in sequences]
        body = {"model": _model(part), "input": texts, "encoding_format": "base64"}
        return "/v1/embeddings", {"Content-Type": "application/json"}, json.dumps(body).encode()

    def _reply(self, part: Part, headers: dict[str, str], content: bytes) -> Reply:
        return Reply(0, partial(_embeddings, content))


def _model(part: Part) -> str:
    return part.encoder if part.version is None else f"{part.encoder}@{part.version}"


def _path(part: Part) -> str:
    version = f"/versions/{quote(part.version)}" if part.version is not None else ""
    return f"/v2/models/{quote(part.encoder)}{version}"


def _binary_vectors(headers: dict[str, str], content: bytes, name: str) -> NDArray[np.float32]:
    try:
        length = int(headers.get("inference-header-content-length", len(content)))
        about: Any = json.loads(content[:length])
        at = length
        for output in about["outputs"]:
            size = output.get("parameters", {}).get("binary_data_size", 0)
            if output["name"] == name:
                data = content[at : at + size] if size else output["data"]
                return vectors(data, output["datatype"], output["shape"])
            at += size
    except (KeyError, TypeError) as error:
        raise ValueError("the reply is not one of Open Inference") from error
    raise ValueError(f"the reply has no output {name!r}")


def _embeddings(content: bytes) -> NDArray[np.float32]:
    try:
        rows = sorted(json.loads(content)["data"], key=lambda row: row["index"])
        return np.array([np.frombuffer(base64.b64decode(row["embedding"]), "<f4") for row in rows], dtype=np.float32)
    except (KeyError, TypeError) as error:
        raise ValueError("the reply holds no embeddings") from error
