"""The page at / of the HTTP port, and what its charts need.

The page itself is the same for everyone and needs no token. What it shows it asks for as any other client does, with
the token that its user types.
"""

import asyncio
import gzip
import re
from collections.abc import Callable

from prometheus_client import CONTENT_TYPE_LATEST

from birnn_service.call import Call, Method
from birnn_service.errors import ForbiddenError
from birnn_service.observe.metrics_text import MetricsText
from birnn_service.protocols.json_text import write_json
from birnn_service.protocols.openai.messages import write_error
from birnn_service.protocols.page.files import HEADERS, PageFile, read_files
from birnn_service.settings import Settings
from birnn_service.token_file import Right
from birnn_service.transports.http_app import HttpMethods, answering
from birnn_service.transports.http_call import HttpMessage
from birnn_service.transports.http_message import HttpReply

# The weight of a coding that a caller does not take (RFC 9110, 12.4.2).
NEVER = re.compile(r"q=0(\.0{0,3})?")


class PageProtocol:
    """Gives browsers the page and its charts the metrics."""

    def __init__(self, text: MetricsText, settings: Settings, grpc_port: Callable[[], int]) -> None:
        """Read the files of the page.

        Args:
            text: The metrics.
            settings: Of which the page shows how to call over gRPC.
            grpc_port: Where gRPC listens, once it does.
        """
        self._text = text
        self._settings = settings
        self._grpc_port = grpc_port
        self._files = read_files()

    def methods(self) -> HttpMethods:
        """All methods."""
        methods = {("GET", file.path): _file(file) for file in self._files}
        methods["GET", "/page/server"] = answering("GET /page/server", self._server, None)
        methods["GET", "/metrics"] = Method("GET /metrics", lambda asked: asked, self._metrics, right=Right.METRICS)
        return HttpMethods("/page", methods, write_error)

    def _server(self, asked: HttpMessage) -> bytes:
        """What the page must know before it has a token, and how others call this server; no version."""
        settings = self._settings
        return write_json(
            {
                "grpc_port": self._grpc_port(),
                "tls": settings.tls_cert is not None,
                "client_certificates": settings.tls_client_ca is not None,
                "tokens": settings.asks_for_tokens,
                "describes": settings.describes,
            }
        )

    async def _metrics(self, asked: HttpMessage, call: Call) -> HttpReply:
        settings = self._settings
        if not (settings.asks_for_tokens or settings.describes):
            # Unlike the metrics port, this one is there for callers.
            raise ForbiddenError(
                "this port shows metrics to others than this machine only if they have a token (--tokens, --jwks), or "
                f"with --describe true; the metrics port ({settings.metrics_port}) has them, too"
            )
        packed = await self._text.packed()
        headers = [("cache-control", "no-store"), ("vary", "accept-encoding")]
        if _takes_gzip(asked.request.headers.get("accept-encoding", "")):
            return HttpReply(200, [packed], CONTENT_TYPE_LATEST, [*headers, ("content-encoding", "gzip")])
        return HttpReply(200, [await asyncio.to_thread(gzip.decompress, packed)], CONTENT_TYPE_LATEST, headers)


def _takes_gzip(accept_encoding: str) -> bool:
    codings = (coding.partition(";") for coding in accept_encoding.split(","))
    return any(name.strip() == "gzip" and not NEVER.fullmatch(weight.strip()) for name, _, weight in codings)


def _file(file: PageFile) -> Method:
    """A method that gives a file, to anyone."""

    async def reply(asked: HttpMessage, call: Call) -> HttpReply:
        headers = [*HEADERS, ("etag", file.tag)]
        if file.is_known_to(asked.request.headers.get("if-none-match", "")):
            return HttpReply(304, (), headers=headers)
        return HttpReply(200, [file.content], file.media_type, headers)

    return Method("GET /page", lambda asked: asked, reply, right=None)
