"""Who may call, and by which name."""

import hmac
from pathlib import Path

import pytest

from birnn_service import access as module
from birnn_service.errors import ForbiddenError, InvalidRequestError, UnauthenticatedError
from birnn_service.token_file import Right, digest_of
from tests.service.access.callers import GATEWAY, LAB, Arrived, access_of, bearer


def test_a_token_names_its_caller(path: Path) -> None:
    access = access_of(path)
    assert access.caller(bearer(LAB), Right.ENCODE) == "name:lab"
    assert access.caller(Arrived(authorization=f"bearer  {LAB} "), Right.ENCODE) == "name:lab"
    assert access.caller(Arrived(), None) == "ipv4:192.0.2.1"
    assert access_of(None).caller(bearer("anything"), Right.ADMIN) == "ipv4:192.0.2.1"


@pytest.mark.parametrize(
    "sent",
    ["", "Bearer", "Bearer ", LAB, f"Basic {LAB}", f"Bearer {LAB}x", f"Bearer {LAB}, Bearer {LAB}", "Bearer \xe9"],
)
def test_a_caller_without_a_token_of_ours_is_told_what_to_send(path: Path, sent: str) -> None:
    with pytest.raises(UnauthenticatedError, match="authorization: Bearer TOKEN") as caught:
        access_of(path).authorize(sent, Right.ENCODE)
    assert LAB not in caught.value.message


def test_a_right_that_is_missing_is_named(path: Path) -> None:
    with pytest.raises(ForbiddenError, match="the token of lab lacks the right `metrics`"):
        access_of(path).authorize(f"Bearer {LAB}", Right.METRICS)


def test_of_several_rights_one_is_enough(path: Path) -> None:
    access = access_of(path)
    found = access.authorize(f"Bearer {LAB}", (Right.ADMIN, Right.ENCODE))
    assert found is not None
    assert found.name == "lab"
    with pytest.raises(ForbiddenError, match="lacks the right `admin` or `metrics`"):
        access.authorize(f"Bearer {LAB}", (Right.ADMIN, Right.METRICS))


def test_an_unknown_token_takes_the_same_work_as_a_known_one(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    access, work = access_of(path), []

    def digest(secret: str) -> str:
        work.append("digest")
        return digest_of(secret)

    def compare(one: str, other: str) -> bool:
        work.append(f"compare {len(one)} {len(other)}")
        return one == other

    monkeypatch.setattr(module, "digest_of", digest)
    monkeypatch.setattr(hmac, "compare_digest", compare)
    access.authorize(f"Bearer {LAB}", Right.ENCODE)
    known = work.copy()
    work.clear()
    with pytest.raises(UnauthenticatedError):
        access.authorize("Bearer birnn_of-nobody", Right.ENCODE)
    assert work == known == ["digest", "compare 64 64"]


def test_a_gateway_names_callers_only_where_it_may(path: Path) -> None:
    named = {"x_birnn_caller": "alice@example.org"}
    assert access_of(None).caller(Arrived(**named), Right.ENCODE) == "ipv4:192.0.2.1"
    believing = access_of(None, caller_header="x-birnn-caller")
    assert believing.caller(Arrived(**named), Right.ENCODE) == "name:alice@example.org"
    assert believing.caller(Arrived(), Right.ENCODE) == "ipv4:192.0.2.1"
    both = access_of(path, caller_header="x-birnn-caller")
    assert both.caller(bearer(LAB, **named), Right.ENCODE) == "name:lab"
    assert both.caller(bearer(GATEWAY, **named), Right.ENCODE) == "name:alice@example.org"
    assert both.caller(bearer(GATEWAY), Right.ENCODE) == "name:gateway"
    with pytest.raises(UnauthenticatedError):
        both.caller(Arrived(**named), Right.ENCODE)


@pytest.mark.parametrize("name", ["a, b", "a b", "a\0b", "é", "x" * 65])
def test_a_name_that_a_gateway_cannot_have_meant_is_refused(name: str) -> None:
    with pytest.raises(InvalidRequestError, match="x-birnn-caller must be"):
        access_of(None, caller_header="x-birnn-caller").caller(Arrived(x_birnn_caller=name), Right.ENCODE)
