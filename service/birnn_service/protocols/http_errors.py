"""From the service's errors to HTTP's statuses and headers, in one place."""

from math import ceil

from birnn_service.errors import Code, ServiceError

STATUSES = {
    Code.INVALID_ARGUMENT: 400,
    Code.UNAUTHENTICATED: 401,
    Code.PERMISSION_DENIED: 403,
    Code.NOT_FOUND: 404,
    Code.RESOURCE_EXHAUSTED: 429,
    Code.UNAVAILABLE: 503,
    Code.DEADLINE_EXCEEDED: 504,
}


def status_of(error: ServiceError) -> int:
    """The status of a reply that reports an error: its own where it has one, as `HttpRequestError` has."""
    own = getattr(error, "status", None)
    return own if isinstance(own, int) else STATUSES.get(error.code, 500)


def headers_of(error: ServiceError) -> list[tuple[str, str]]:
    """How to say who calls; when to try again, for all clients and, in milliseconds or as "never", for OpenAI's."""
    if error.code is Code.UNAUTHENTICATED:
        return [("www-authenticate", "Bearer")]
    if error.retry_after > 0:
        return [
            ("retry-after", str(ceil(error.retry_after))),
            ("retry-after-ms", str(ceil(error.retry_after * 1000))),
        ]
    return [("x-should-retry", "false")] if error.retry_after < 0 else []
