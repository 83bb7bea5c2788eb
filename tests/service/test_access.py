"""Who may call, by which name, and what becomes of changes of the file."""

import asyncio
import hmac
import logging
import os
import threading
from collections.abc import AsyncIterator, Callable, Sized
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from birnn_bundle.bundle import Bundle
from birnn_service import access as module
from birnn_service.access import Access
from birnn_service.call import Call, Feed, Method
from birnn_service.catalog import Encoders
from birnn_service.endpoint import Endpoint
from birnn_service.engine.engine import EngineInfo
from birnn_service.errors import ForbiddenError, InvalidRequestError, ServiceError, StartupError, UnauthenticatedError
from birnn_service.frontends.setup import RemoteEncoder
from birnn_service.metrics import Metrics
from birnn_service.settings_reader import load_settings
from birnn_service.state import ServingState
from birnn_service.statistics import Statistics
from birnn_service.token_file import Grant, Right, digest_of, write_tokens

MODELS = Path(__file__).parents[2] / "models"
LAB, GATEWAY = "birnn_of-the-lab", "birnn_of-the-gateway"


def written(**holders: tuple[str, tuple[Right, ...]]) -> bytes:
    """A file of tokens, by name."""
    return write_tokens(
        Grant(name=name, sha256=digest_of(secret), rights=rights) for name, (secret, rights) in holders.items()
    )


FILE = written(lab=(LAB, (Right.ENCODE,)), gateway=(GATEWAY, (Right.ENCODE, Right.GATEWAY)))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "tokens"
    path.write_bytes(FILE)
    return path


def access_of(path: Path | None, **settings: str) -> Access:
    return Access(load_settings({**settings, **({"tokens": str(path)} if path else {})}))


class Arrived:
    """A call whose request must not be read."""

    caller = "ipv4:192.0.2.1"
    deadline = None
    request_id = ""
    certificate_name = ""

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


def test_changes_of_the_file_count(path: Path) -> None:
    access = access_of(path)
    path.write_bytes(written(other=("birnn_other", (Right.ENCODE,))))
    access.reload()
    assert access.caller(bearer("birnn_other"), Right.ENCODE) == "name:other"
    with pytest.raises(UnauthenticatedError):
        access.caller(bearer(LAB), Right.ENCODE)


def test_the_file_is_watched_however_busy_other_threads_are(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RELOAD_SECONDS", 0)
    access = access_of(path)
    path.write_bytes(b"")

    async def run() -> None:
        over = threading.Event()
        loop = asyncio.get_running_loop()
        loop.set_default_executor(ThreadPoolExecutor(1))
        loop.run_in_executor(None, over.wait)
        watch = asyncio.create_task(access.watch())
        while True:
            try:
                access.authorize(f"Bearer {LAB}", Right.ENCODE)
            except UnauthenticatedError:
                break
            await asyncio.sleep(0)
        watch.cancel()
        over.set()

    asyncio.run(run())


def test_a_link_may_be_swapped_as_kubernetes_does(tmp_path: Path) -> None:
    for version, content in (("1", FILE), ("2", written(other=("birnn_other", (Right.ENCODE,))))):
        (tmp_path / version).mkdir()
        (tmp_path / version / "tokens").write_bytes(content)
    (tmp_path / "..data").symlink_to("1")
    (tmp_path / "tokens").symlink_to("..data/tokens")
    access = access_of(tmp_path / "tokens")
    (tmp_path / "..next").symlink_to("2")
    os.replace(tmp_path / "..next", tmp_path / "..data")
    access.reload()
    assert access.caller(bearer("birnn_other"), Right.ENCODE) == "name:other"


LINE = FILE.splitlines()[0]
BROKEN = [
    LINE[:-1] + b',"certificate":"x"}',
    LINE[:-1] + b',"weight":0}',
    LINE[:-1] + b',"weight":NaN}',
    LINE[:-1] + b',"weight":1e9}',
    LINE[:-1] + b',"burst":5}',
    LINE[:-1] + b',"sequences_per_second":-1}',
    b'{"name":"lab","rights":["encode"]}',
    b'{"name":"lab","certificate":"a b","rights":["encode"]}',
    b'{"name":"lab","certificate":"a","rights":[]}\n{"name":"b","certificate":"a","rights":[]}',
    b"{",
    b"[]",
    FILE + FILE,
    FILE.replace(b'"rights"', b'"right"'),
    FILE.replace(b'"encode"', b'"everything"'),
    FILE.replace(b'"lab"', b'"the lab"'),
    FILE.replace(digest_of(LAB).encode(), LAB.encode()),
    FILE.replace(b'"lab"', b'"gateway"'),
    b"\xff\xfe",
    b"[" * 100_000,
]


@pytest.mark.parametrize("content", BROKEN)
def test_a_broken_file_changes_nothing_and_is_logged_once(
    path: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    access = access_of(path)
    path.write_bytes(content)
    with caplog.at_level(logging.INFO):
        access.reload()
        access.reload()
    (record,) = caplog.records
    assert "the tokens read earlier stay valid" in record.message
    assert LAB not in record.message
    assert len(record.message) < 1000
    assert access.caller(bearer(LAB), Right.ENCODE) == "name:lab"
    path.unlink()
    access.reload()
    assert access.caller(bearer(LAB), Right.ENCODE) == "name:lab"
    path.write_bytes(b"")
    access.reload()
    with pytest.raises(UnauthenticatedError):
        access.caller(bearer(LAB), Right.ENCODE)


def test_a_server_does_not_start_without_the_tokens_it_was_told_of(path: Path) -> None:
    path.write_bytes(b"{")
    with pytest.raises(StartupError, match="line 1"):
        access_of(path)
    path.unlink()
    with pytest.raises(StartupError, match="birnn tokens add"):
        access_of(path)


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


@pytest.mark.parametrize(
    "edit",
    [lambda file: b"\xef\xbb\xbf" + file, lambda file: file.replace(b"\n", b"\r\n"), lambda file: b"\n \n" + file],
)
def test_what_editors_do_to_a_file_changes_nothing(path: Path, edit: Callable[[bytes], bytes]) -> None:
    path.write_bytes(edit(FILE))
    assert access_of(path).caller(bearer(LAB), Right.ENCODE) == "name:lab"


@pytest.mark.parametrize(
    ("mode", "warned"), [(0o600, False), (0o644, False), (0o660, True), (0o666, True), (0o602, True)]
)
def test_a_file_that_others_may_change_is_warned_of(
    path: Path, mode: int, warned: bool, caplog: pytest.LogCaptureFixture
) -> None:
    path.chmod(mode)
    access = access_of(path)
    access.reload()
    assert caplog.text.count("chmod go-w") == warned


def test_a_line_sets_the_weight_of_its_name(path: Path) -> None:
    path.write_bytes(write_tokens([Grant(name="lab", rights=(), weight=4)]))
    access = access_of(path)
    assert [access.weight_of(caller) for caller in ("name:lab", "name:other", "lab", "ipv4:192.0.2.1")] == [4, 1, 1, 1]
    path.write_bytes(b"")
    access.reload()
    assert access.weight_of("name:lab") == 1


def endpoint_of(path: Path) -> tuple[Endpoint, Metrics]:
    bundle = Bundle.load(MODELS / "smiles" / "1")
    info = EngineInfo("fake", "cpu", "float32", 1, 1, True)
    metrics, encoders = Metrics(), Encoders([RemoteEncoder(bundle.manifest, bundle.tokenizer, info)], {})
    endpoint = Endpoint(encoders, ServingState(), load_settings({}), metrics, Statistics(encoders), access_of(path))
    return endpoint, metrics


def test_a_call_that_is_refused_is_not_read_and_is_counted(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    endpoint, metrics = endpoint_of(path)

    async def answer(request: Any, call: Call) -> bytes:
        raise AssertionError("not read, not answered")

    async def replies(request: Any) -> AsyncIterator[bytes]:
        raise AssertionError("not read, not answered")
        yield b""

    async def follow(incoming: Arrived) -> None:
        async for _ in endpoint.feed(Feed("Follow", bytes, replies, Right.ADMIN), incoming):
            pass

    async def refused(incoming: Arrived) -> list[type[ServiceError]]:
        method = Method("Unload", bytes, answer, lambda asked: ("", ""), right=Right.ADMIN)
        errors = []
        for call in (endpoint.answer(method, incoming), follow(incoming)):
            with pytest.raises(ServiceError) as caught:
                await call
            errors.append(caught.type)
        return errors

    with caplog.at_level(logging.DEBUG, logger="birnn_service"):
        assert asyncio.run(refused(Arrived())) == [UnauthenticatedError] * 2
        assert asyncio.run(refused(bearer(GATEWAY))) == [ForbiddenError] * 2
    for code in ("UNAUTHENTICATED", "PERMISSION_DENIED"):
        labels = {"encoder": "", "method": "Unload", "code": code}
        assert metrics.registry.get_sample_value("birnn_requests_total", labels) == 1
    assert "Unload of ipv4:192.0.2.1 failed" in caplog.text
    assert GATEWAY not in caplog.text


@pytest.mark.parametrize(
    ("settings", "described"),
    [
        ({}, True),
        ({"host": "127.0.0.2"}, True),
        ({"host": "localhost"}, True),
        ({"host": "::1"}, True),
        ({"host": "0.0.0.0"}, False),
        ({"host": "::"}, False),
        ({"host": "192.0.2.1"}, False),
        ({"host": "birnn.example"}, False),
        ({"host": "0.0.0.0", "describe": "true"}, True),
        ({"describe": "false"}, False),
    ],
)
def test_only_this_machine_is_told_what_can_be_called_unless_the_settings_say_so(
    settings: dict[str, str], described: bool
) -> None:
    assert load_settings({**settings, "insecure": True}).describes is described


def test_a_call_is_its_holders_wherever_it_comes_from(path: Path) -> None:
    class Readable(Arrived):
        async def read(self, grow: Callable[[int], None]) -> Sized:
            assert self.caller == "name:lab"
            return b""

    endpoint, _ = endpoint_of(path)

    async def answer(request: Any, call: Call) -> str:
        return call.caller

    incoming = Readable(authorization=f"Bearer {LAB}")
    assert asyncio.run(endpoint.answer(Method("Name", bytes, answer), incoming)) == "name:lab"
