"""TLS, tokens and metadata, as clients and the command send them."""

import asyncio
import pickle
from collections.abc import Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest
from click.testing import CliRunner, Result

from birnn import AsyncClient, Client, ServerUnreachableError, Tls
from birnn.cli.main import main
from tests.certificates import Authority, Pair, openssl
from tests.client.fake_service import FakeService, serving, vector


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def pair(authority: Authority) -> Pair:
    return authority.issue("pair")


@pytest.fixture(params=[False, True], ids=["tls", "mutual"])
def secure(request: pytest.FixtureRequest, authority: Authority, pair: Pair) -> Iterator[FakeService]:
    chain = [(pair.key.read_bytes(), pair.cert.read_bytes())]
    root = authority.cert.read_bytes() if request.param else None
    with serving(grpc.ssl_server_credentials(chain, root, request.param)) as service:
        yield service


@pytest.fixture
def tls(authority: Authority, pair: Pair) -> Tls:
    return Tls(str(authority.cert), pair.cert, pair.key)


def test_a_client_with_tls_can_be_pickled(secure: FakeService, tls: Tls) -> None:
    with pickle.loads(pickle.dumps(Client(secure.address, tls=tls, token="secret"))) as client:
        np.testing.assert_array_equal(client.encode("CCO"), vector("CCO"))
    assert secure.metadata["Encode"]["authorization"] == "Bearer secret"
    found = asyncio.run(pickle.loads(pickle.dumps(AsyncClient(secure.address, tls=tls))).encode("CCO"))
    np.testing.assert_array_equal(found, vector("CCO"))


def test_a_client_in_the_clear_is_told_of_tls(secure: FakeService) -> None:
    with Client(secure.address) as client, pytest.raises(ServerUnreachableError, match=r"pass tls=birnn\.Tls\(\)"):
        client.encoders()


def test_a_client_that_does_not_know_the_authority_is_told_how_to(
    secure: FakeService, pair: Pair, tmp_path: Path
) -> None:
    for tls in (Tls(), Tls(ca=Authority(tmp_path, "other").cert)):
        with Client(secure.address, tls=tls) as client, pytest.raises(ServerUnreachableError, match=r"--tls-ca FILE"):
            client.encoders()


def test_the_authorities_of_the_system_are_trusted(
    secure: FakeService, tls: Tls, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(tls.ca))
    with Client(secure.address, tls=Tls(cert=tls.cert, key=tls.key)) as client:
        assert client.encoders()


def test_a_client_with_tls_is_told_where_there_is_none(service: FakeService, tls: Tls) -> None:
    with Client(service.address, tls=tls) as client, pytest.raises(ServerUnreachableError, match="leave out tls"):
        client.encoders()


def test_every_call_carries_token_and_metadata(service: FakeService) -> None:
    expected = {"authorization": "Bearer secret", "x-team": "a b=c"}

    async def call_all() -> None:
        async with AsyncClient(service.address, token="secret", metadata={"X-Team": "a b=c"}) as client:
            await client.encoders()
            await client.encode(["CCO"])
            async for _ in client.stream(["CCO"]):
                pass

    def check() -> None:
        assert service.metadata.keys() == {"ListEncoders", "Encode", "EncodeStream"}
        for metadata in service.metadata.values():
            assert expected.items() <= metadata.items()
        service.metadata.clear()

    asyncio.run(call_all())
    check()
    with Client(service.address, token="secret", metadata={"X-Team": "a b=c"}) as client:
        client.encoders()
        client.encode(["CCO"])
        list(client.stream(["CCO"]))
    check()


@pytest.mark.parametrize(
    "options",
    [
        {"token": ""},
        {"token": "two words"},
        {"token": "a\n"},
        {"metadata": {"grpc-timeout": "1S"}},
        {"metadata": {"x-bin": "1"}},
        {"metadata": {"": "1"}},
        {"metadata": {"x": "ü"}},
    ],
)
def test_what_grpc_cannot_send_is_refused_at_once(options: dict[str, str | dict[str, str]]) -> None:
    with pytest.raises(ValueError, match=r"metadata|token"):
        Client("127.0.0.1:1", **options)  # type: ignore[arg-type]


def test_files_that_cannot_be_used_are_named_at_once(authority: Authority, pair: Pair, tmp_path: Path) -> None:
    empty, locked = tmp_path / "empty.pem", tmp_path / "locked.key"
    empty.touch()
    openssl("ec", "-in", pair.key, "-aes128", "-passout", "pass:secret", "-out", locked)
    other = authority.issue("other")
    for tls, named in (
        (Tls(ca=tmp_path / "none.pem"), "none.pem"),
        (Tls(ca=empty), "empty.pem"),
        (Tls(cert=pair.cert, key=other.key), "other.key"),
        (Tls(cert=pair.cert, key=locked), "locked.key"),
        (Tls(cert=pair.cert), "together with its key"),
    ):
        with pytest.raises(ValueError, match=named):
            Client("127.0.0.1:1", tls=tls)
    with pytest.raises(ValueError, match="either tls or credentials"):
        Client("127.0.0.1:1", tls=Tls(), credentials=grpc.ssl_channel_credentials())


def encode(*arguments: str | Path, token: str | None = None) -> Result:
    return CliRunner().invoke(main, ["encode", "CCO", *map(str, arguments)], env={"BIRNN_TOKEN": token})


def test_the_command_takes_the_same(secure: FakeService, tls: Tls, authority: Authority, pair: Pair) -> None:
    files = ("--tls-ca", authority.cert, "--tls-cert", pair.cert, "--tls-key", pair.key)
    result = encode("--address", secure.address, *files, "--metadata", "x-a=b=c", "--metadata", "x-d=", token="secret")
    assert result.exit_code == 0, result.output
    expected = {"authorization": "Bearer secret", "x-a": "b=c", "x-d": ""}
    assert expected.items() <= secure.metadata["EncodeStream"].items()
    assert encode("--address", secure.address, *files, "--token", "other", token="secret").exit_code == 0
    assert secure.metadata["EncodeStream"]["authorization"] == "Bearer other"
    assert encode("--address", secure.address, *files, token="").exit_code == 0
    assert "authorization" not in secure.metadata["EncodeStream"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--metadata", "x"], "KEY=VALUE"),
        (["--metadata", "grpc-x=1"], "cannot be sent"),
        (["--token", "two words"], "token"),
        (["--tls-cert", __file__], "together with its key"),
        (["--tls-ca", __file__], "cannot use"),
    ],
)
def test_wrong_options_are_wrong_usage(options: list[str], message: str) -> None:
    result = encode(*options)
    assert result.exit_code == 2
    assert message in result.output
