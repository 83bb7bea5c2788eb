"""Callers, and the file of tokens that knows some of them."""

from collections.abc import Callable, Sized
from pathlib import Path

from birnn_service.access import Access
from birnn_service.settings_reader import load_settings
from birnn_service.token_file import Grant, Right, digest_of, write_tokens

LAB, GATEWAY = "birnn_of-the-lab", "birnn_of-the-gateway"


def written(**holders: tuple[str, tuple[Right, ...]]) -> bytes:
    """A file of tokens, by name."""
    return write_tokens(
        Grant(name=name, sha256=digest_of(secret), rights=rights) for name, (secret, rights) in holders.items()
    )


FILE = written(lab=(LAB, (Right.ENCODE,)), gateway=(GATEWAY, (Right.ENCODE, Right.GATEWAY)))


def access_of(path: Path | None, **settings: str) -> Access:
    return Access(load_settings({**settings, **({"tokens": str(path)} if path else {})}))


class Arrived:
    """A call whose request must not be read."""

    caller = "ipv4:192.0.2.1"
    deadline = None
    request_id = ""
    certificate_name = ""
    traceparent = path = ""

    def __init__(self, **headers: str) -> None:
        self._headers = headers

    def header(self, name: str) -> str:
        return self._headers.get(name.replace("-", "_"), "")

    async def read(self, grow: Callable[[int], None]) -> Sized:
        raise AssertionError("a call that is refused is not read")

    def at_end(self, ended: Callable[[], None]) -> None:
        raise AssertionError("a call that is refused holds nothing")


def bearer(secret: str, **headers: str) -> Arrived:
    return Arrived(authorization=f"Bearer {secret}", **headers)
