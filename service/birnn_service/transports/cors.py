"""Which web pages may call: those of listed origins (fetch.spec.whatwg.org, CORS protocol)."""

from collections.abc import Collection, Mapping

from birnn_service.transports.http_message import HttpReply, HttpRequest

# Of replies, what pages may read beside the body.
EXPOSED = "inference-header-content-length, retry-after, x-request-id"
PREFLIGHT_SECONDS = 600


class Cors:
    """The answers to browsers; without origins there are none."""

    def __init__(self, origins: Collection[str]) -> None:
        """Let pages of `origins` call, such as `https://app.example`; `*` for all."""
        self._origins = frozenset(origins)

    def allows(self, origin: str) -> bool:
        """Whether pages of an origin may call."""
        return "*" in self._origins or origin in self._origins

    def headers(self, request: Mapping[str, str]) -> list[tuple[str, str]]:
        """What a reply says to the page that asked."""
        if not self._origins:
            return []
        origin = request.get("origin", "")
        if not self.allows(origin):
            return [("vary", "origin")]
        allowed = "*" if "*" in self._origins else origin
        return [
            ("access-control-allow-origin", allowed),
            ("access-control-expose-headers", EXPOSED),
            ("vary", "origin"),
        ]

    def preflight(self, request: HttpRequest) -> HttpReply | None:
        """The answer to a browser that asks first; None for every other request."""
        asked = request.headers.get("access-control-request-method")
        if not self._origins or request.method != "OPTIONS" or asked is None or "origin" not in request.headers:
            return None
        headers = [
            ("access-control-allow-methods", "GET, POST"),
            ("access-control-max-age", str(PREFLIGHT_SECONDS)),
        ]
        # Clients add headers of their own, and none of them has a meaning here that a page should not use.
        if wanted := request.headers.get("access-control-request-headers"):
            headers.append(("access-control-allow-headers", wanted))
        return HttpReply(204, (), headers=headers)
