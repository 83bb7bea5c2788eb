"""Between the HTTP server and the endpoint: which method answers at which path, and how errors are written."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace

from birnn_bundle.quoting import shown
from birnn_service.call import Call, Method
from birnn_service.endpoint import Endpoint
from birnn_service.errors import ForbiddenError, ServiceError
from birnn_service.protocols.http_errors import headers_of, status_of
from birnn_service.token_file import Right, Rights
from birnn_service.transports.cors import Cors
from birnn_service.transports.http_call import REQUEST_ID, HttpCall, HttpMessage
from birnn_service.transports.http_message import HttpReply, HttpRequest
from birnn_service.transports.http_routes import Routes, WrongMethodError

WriteError = Callable[[ServiceError], bytes]


@dataclass(frozen=True, slots=True, eq=False)
class HttpMethods:
    """The methods of a protocol over HTTP.

    Attributes:
        prefix: What its paths begin with; one protocol has an empty prefix, and writes the errors of unknown paths.
        methods: By HTTP method and path; see `Routes`.
        write_error: An error, in the bytes of the protocol.
    """

    prefix: str
    methods: Mapping[tuple[str, str], Method]
    write_error: WriteError


def answering(name: str, answer: Callable[[HttpMessage], bytes], right: Rights | None = Right.ENCODE) -> Method:
    """A method that answers at once with JSON."""

    async def reply(asked: HttpMessage, call: Call) -> HttpReply:
        return HttpReply(200, [answer(asked)])

    return Method(name, lambda asked: asked, reply, right=right)


class HttpApp:
    """Finds the method that a request is for, and has the endpoint answer it."""

    def __init__(self, endpoint: Endpoint, *protocols: HttpMethods, cors_origins: Collection[str] = ()) -> None:
        """Answer for `protocols`; of those whose prefix fits a path, the first one counts.

        Args:
            endpoint: Answers.
            protocols: What can be called.
            cors_origins: Web pages that may give orders, by origin.
        """
        self._endpoint = endpoint
        self._cors = Cors(cors_origins)
        self._routes = Routes({path: method for one in protocols for path, method in one.methods.items()})
        self._errors = [(one.prefix, one.write_error) for one in protocols]

    async def answer(self, request: HttpRequest) -> HttpReply:
        """Answer a request."""
        try:
            method, values = self._routes.find(request.method, request.path)
            if method.right is Right.ADMIN:
                self._check_origin(request)
            reply: HttpReply = await self._endpoint.answer(method, HttpCall(request, values))
        except ServiceError as error:
            reply = self._failure(request.path, error)
        if request_id := request.headers.get(REQUEST_ID):
            return replace(reply, headers=[*reply.headers, (REQUEST_ID, request_id)])
        return reply

    def _check_origin(self, request: HttpRequest) -> None:
        """Refuse orders that a web page has a browser send, unless it may call.

        Any page can have its visitors' browsers send requests without a body to a server on their own machines, where
        orders may need no token. Browsers name the page; other clients name none.
        """
        origin = request.headers.get("origin")
        if origin is not None and not self._cors.allows(origin):
            raise ForbiddenError(
                f"web pages of {shown(origin)} may not give orders to load and unload; allow them by --cors-origins"
            )

    def _failure(self, path: str, error: ServiceError) -> HttpReply:
        write = next(write for prefix, write in self._errors if path.startswith(prefix))
        headers = headers_of(error)
        if isinstance(error, WrongMethodError):
            headers.append(("allow", error.allow))
        return HttpReply(status_of(error), [write(error)], headers=headers)
