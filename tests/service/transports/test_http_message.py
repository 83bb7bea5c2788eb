import pytest

from birnn_service.errors import InvalidRequestError
from birnn_service.transports.http_message import HttpRequest


@pytest.mark.parametrize(("value", "expected"), [("1", 1.0), ("0.25", 0.25), ("60.000", 60.0)])
async def test_a_timeout_is_seconds(value: str, expected: float) -> None:
    assert request_with({"x-request-timeout": value}).timeout == expected
    assert request_with({}).timeout is None


@pytest.mark.parametrize("value", ["0", "-1", "1e3", "inf", "nan", "", "1s", "1_0", "٣"])
async def test_other_timeouts_are_refused(value: str) -> None:
    with pytest.raises(InvalidRequestError, match="X-Request-Timeout"):
        _ = request_with({"x-request-timeout": value}).timeout


def request_with(headers: dict[str, str]) -> HttpRequest:
    async def read(grow: object, caller: str) -> bytes:
        return b""

    return HttpRequest("GET", "/", headers, "ipv4:127.0.0.1", read)
