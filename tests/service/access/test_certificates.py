"""Who may call by a certificate, and by which name."""

from pathlib import Path

import pytest

from birnn_service.access import Access
from birnn_service.errors import ForbiddenError, UnauthenticatedError
from birnn_service.token_file import Grant, Right, digest_of, write_tokens
from tests.service.access.callers import FILE, LAB, Arrived, access_of

CERTIFICATES = write_tokens(
    [
        Grant(name="lab", sha256=digest_of(LAB), rights=(Right.ENCODE,)),
        Grant(name="batch", certificate="spiffe://example.org/batch", rights=(Right.ENCODE,)),
        Grant(name="mesh", certificate="gateway.example", rights=(Right.ENCODE, Right.GATEWAY)),
    ]
)


class Certified(Arrived):
    """A call over a connection with a certificate."""

    def __init__(self, name: str, **headers: str) -> None:
        super().__init__(**headers)
        self.certificate_name = name


def mutual(path: Path | None, **settings: str) -> Access:
    """Access where callers need certificates."""
    return access_of(path, tls_cert="c", tls_key="k", tls_client_ca="a", **settings)


def test_a_certificate_alone_names_its_caller_and_lets_it_encode() -> None:
    access = mutual(None)
    assert access.caller(Certified("spiffe://example.org/lab"), Right.ENCODE) == "name:spiffe://example.org/lab"
    assert access.caller(Certified(""), None) == "ipv4:192.0.2.1"
    for right in (Right.ADMIN, Right.GATEWAY):
        with pytest.raises(ForbiddenError, match=f"the certificate of lab.example lacks the right `{right}`"):
            access.caller(Certified("lab.example"), right)


@pytest.mark.parametrize("name", ["", "Gräfin", "lab a", "lab,b", "lab\n", "x" * 256])
def test_a_certificate_whose_name_cannot_be_used_is_told_what_it_needs(name: str) -> None:
    with pytest.raises(UnauthenticatedError, match="URI or DNS name, or else a common name, of 1 to 255"):
        mutual(None).caller(Certified(name), Right.ENCODE)


def test_with_tokens_a_certificate_counts_where_it_has_a_line(path: Path) -> None:
    path.write_bytes(CERTIFICATES)
    access = mutual(path, caller_header="x-birnn-caller")
    assert access.caller(Certified("spiffe://example.org/batch"), Right.ENCODE) == "name:batch"
    # What a caller sends goes before what its connection says.
    assert (
        access.caller(Certified("spiffe://example.org/batch", authorization=f"Bearer {LAB}"), Right.ENCODE)
        == "name:lab"
    )
    with pytest.raises(UnauthenticatedError):
        access.caller(Certified("spiffe://example.org/batch", authorization="Bearer wrong"), Right.ENCODE)
    for unknown in ("spiffe://example.org/batch2", "SPIFFE://example.org/batch", "batch", "lab", ""):
        with pytest.raises(UnauthenticatedError):
            access.caller(Certified(unknown), Right.ENCODE)
    named = {"x_birnn_caller": "alice"}
    assert access.caller(Certified("gateway.example", **named), Right.ENCODE) == "name:alice"
    assert access.caller(Certified("spiffe://example.org/batch", **named), Right.ENCODE) == "name:batch"
    path.write_bytes(FILE)
    access.reload()
    with pytest.raises(UnauthenticatedError):
        access.caller(Certified("spiffe://example.org/batch"), Right.ENCODE)


def test_where_nobody_asks_for_certificates_none_counts(path: Path) -> None:
    path.write_bytes(CERTIFICATES)
    with pytest.raises(UnauthenticatedError):
        access_of(path).caller(Certified("spiffe://example.org/batch"), Right.ENCODE)
    assert access_of(None).caller(Certified("spiffe://example.org/batch"), Right.ENCODE) == "ipv4:192.0.2.1"
