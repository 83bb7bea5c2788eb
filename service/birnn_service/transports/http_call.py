"""A call that came over HTTP."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from birnn_service.transports.http_message import HttpRequest

REQUEST_ID = "x-request-id"


@dataclass(frozen=True, slots=True, eq=False)
class HttpMessage:
    """A request that has been received.

    Attributes:
        request: Its head.
        values: The parts of its path that vary.
        body: Its body, unpacked.
    """

    request: HttpRequest
    values: Mapping[str, str]
    body: bytes

    def __len__(self) -> int:
        return len(self.body)


class HttpCall:
    """An `Incoming` call of the HTTP server's. Its time-out is for protocols to pass on: see `HttpRequest.timeout`."""

    __slots__ = ("_request", "_values", "caller", "deadline", "request_id")

    def __init__(self, request: HttpRequest, values: Mapping[str, str]) -> None:
        self._request = request
        self._values = values
        self.caller = request.caller
        self.deadline = None
        self.request_id = request.headers.get(REQUEST_ID, "")

    @property
    def path(self) -> str:
        """The path of its URL."""
        return self._request.path

    @property
    def traceparent(self) -> str:
        """The header `traceparent`, as it came; empty for none."""
        return self._request.headers.get("traceparent", "")

    def header(self, name: str) -> str:
        """A header by its name."""
        return self._request.headers.get(name, "")

    @property
    def certificate_name(self) -> str:
        """Of the caller, by a certificate that was verified; empty for none."""
        return self._request.certificate_name

    async def read(self, grow: Callable[[int], None]) -> HttpMessage:
        """Receive the request; see `HttpRequest.read`."""
        # By name, where the endpoint knows one by now.
        self._request.caller = self.caller
        return HttpMessage(self._request, self._values, await self._request.read(grow))

    def at_end(self, ended: Callable[[], None]) -> None:
        """Have `ended` called once the reply has been sent, or the caller has gone."""
        self._request.at_end(ended)
