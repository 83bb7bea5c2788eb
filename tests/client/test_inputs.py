"""What clients take for sequences, addresses and timeouts, and what they refuse instead of guessing."""

import asyncio
import http.server
import io
import pickle
import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

import grpc
import numpy as np
import pyarrow
import pytest

import birnn
from birnn import AsyncClient, Client
from tests.client.asking import CLIENTS, Kind
from tests.client.fake_service import FakeService, vector

NOT_ROWS = {
    "keys": ({"a": "CCO"}, "iterates its keys; pass list"),
    "counts": (Counter(["CCO"]), "iterates its keys"),
    "table": (pyarrow.table({"smiles": ["CCO"]}), r"iterates its columns; pass one column, for example x\['smiles'\]"),
    "batch": (pyarrow.record_batch({"smiles": ["CCO"]}), "iterates its columns"),
    "set": ({"CCO", "C"}, "in no order"),
    "frozenset": (frozenset({"CCO"}), "in no order"),
    "numbers": (bytearray(b"CCO"), r"as numbers; pass bytes\(x\)"),
    "memory": (memoryview(b"CCO"), "as numbers"),
    "file": (io.StringIO("CCO\nC\n"), r"pass x.read\(\).splitlines\(\)"),
}


@pytest.mark.parametrize(("given", "message"), NOT_ROWS.values(), ids=NOT_ROWS)
def test_what_does_not_iterate_its_rows_is_refused(service: FakeService, given: Any, message: str) -> None:
    with Client(service.address) as client:
        ways: list[Callable[[], Any]] = [
            lambda: client.encode(given),
            lambda: client.encode_tokens(given),
            lambda: client.encode_features(given, "series"),
            lambda: client.encode_feature_tokens(given, "series"),
            lambda: client.call(given),
            lambda: client.call_tokens(given),
            lambda: client.call_features(given, "series"),
            lambda: client.call_feature_tokens(given, "series"),
            lambda: client.stream(given),
            lambda: client.stream_tokens(given),
            lambda: client.stream_features(given, "series"),
            lambda: client.stream_feature_tokens(given, "series"),
        ]
        for way in ways:
            with pytest.raises(TypeError, match=message):
                way()
    assert service.attempts == 0


@pytest.mark.parametrize(("given", "message"), NOT_ROWS.values(), ids=NOT_ROWS)
async def test_the_async_client_refuses_the_same(service: FakeService, given: Any, message: str) -> None:
    async with AsyncClient(service.address) as client:
        for way in (
            client.encode(given),
            client.encode_tokens(given),
            client.encode_features(given, "series"),
            client.encode_feature_tokens(given, "series"),
            client.call(given),
            client.call_tokens(given),
            client.call_features(given, "series"),
            client.call_feature_tokens(given, "series"),
        ):
            with pytest.raises(TypeError, match=message):
                await way
        streams: list[Callable[[], Any]] = [
            lambda: client.stream(given),
            lambda: client.stream_tokens(given),
            lambda: client.stream_features(given, "series"),
            lambda: client.stream_feature_tokens(given, "series"),
        ]
        for stream in streams:
            with pytest.raises(TypeError, match=message):
                stream()
    assert service.attempts == 0


def test_what_iterates_its_rows_is_taken(client: Client) -> None:
    expected = [vector("CCO"), vector("C")]
    values = {"a": "CCO", "b": "C"}.values()
    for given in (["CCO", "C"], ("CCO", b"C"), iter(["CCO", "C"]), values, np.array(["CCO", "C"])):
        np.testing.assert_array_equal(client.encode(given), expected)
    np.testing.assert_array_equal(next(client.stream("CCO")).vectors, [vector("CCO")])


def test_rows_that_are_records_are_told_from_columns(client: Client) -> None:
    with pytest.raises(TypeError, match=r"sequence 0 is .*a dict.*pass one column"):
        client.encode([{"smiles": "CCO"}])  # type: ignore[list-item]


@pytest.mark.parametrize("kind", CLIENTS)
def test_a_pickled_client_connects_by_itself(service: FakeService, kind: Kind) -> None:
    original = kind(service.address, batch_size=7, in_flight=2, element_type="float16", retry_for=1.5)
    copy = pickle.loads(pickle.dumps(original))
    for name in ("address", "_options"):
        assert getattr(copy, name) == getattr(original, name)
    if isinstance(copy, AsyncClient):
        found = asyncio.run(copy.encode(["CCO"]))
    else:
        with copy:
            found = copy.encode(["CCO"])
    np.testing.assert_array_equal(found, [vector("CCO").astype(np.float16)])
    with pytest.raises(TypeError, match="credentials cannot be pickled; give it tls"):
        pickle.dumps(kind(service.address, credentials=grpc.ssl_channel_credentials()))


def test_an_async_client_connects_anew_in_the_next_event_loop(service: FakeService) -> None:
    client = AsyncClient(service.address)
    for text in ("CCO", "C", "CC"):
        np.testing.assert_array_equal(asyncio.run(client.encode([text])), [vector(text)])

    asyncio.run(client.close())

    async def beside() -> None:
        await client.encode(["CCO"])
        await asyncio.to_thread(asyncio.run, client.encode(["CCO"]))

    with pytest.raises(RuntimeError, match="another event loop that still runs"):
        asyncio.run(beside())


def test_an_infinite_timeout_is_none(service: FakeService, client: Client) -> None:
    infinite = float("inf")
    np.testing.assert_array_equal(client.encode(["CCO"], timeout=infinite), [vector("CCO")])
    assert len(next(client.stream(["CCO"], timeout=infinite))) == 1
    assert client.encoder(timeout=infinite).name == "smiles"

    async def use() -> None:
        async with AsyncClient(service.address) as other:
            await other.encode(["CCO"], timeout=infinite)
            assert len(await anext(other.stream(["CCO"], timeout=infinite))) == 1
            await other.encoders(timeout=infinite)

    asyncio.run(use())


def test_a_timeout_that_is_no_number_is_refused(service: FakeService, client: Client) -> None:
    nan = float("nan")
    for way in (
        lambda: client.encode(["CCO"], timeout=nan),
        lambda: next(client.stream(["CCO"], timeout=nan)),
        lambda: client.encoders(timeout=nan),
    ):
        with pytest.raises(ValueError, match="timeout is nan"):
            way()


ADDRESS = "write HOST:PORT without spaces, PORT in digits, for example 127.0.0.1:8001"
BRACKETS = r"write an IPv6 address in brackets, for example \[::1\]:8001"
PORT = "a port is a number from 1 to 65535, not "
BAD_ADDRESSES = {
    ADDRESS: (
        *("", "localhost", "127.0.0.1:", ":8001", "a b:1", " a:1", "a:1\n", "a: 1", "a:\u0661", "a:+1", "a:1,b:2"),
        *("[::1]", "[a]:1", "dns:///a", "dns:8001", "ipv4:1.2.3.4", "ipv4:1.2.3.4:1,", "unix:"),
    ),
    BRACKETS: ("::1", "::1:8001", "ipv6:::1:8001"),
    PORT: ("127.0.0.1:99999", "localhost:0", "dns:///a:65536", "ipv4:1.2.3.4:1,1.2.3.4:70000", "a:" + "1" * 5000),
    "must be HOST:PORT without http://": ("http://localhost:8001",),
}


@pytest.mark.parametrize(("message", "address"), [(m, a) for m, addresses in BAD_ADDRESSES.items() for a in addresses])
def test_what_is_no_address_is_refused_with_what_to_write(message: str, address: str) -> None:
    for kind in CLIENTS:
        with pytest.raises(ValueError, match=message):
            kind(address)


@pytest.mark.parametrize(
    "address",
    [
        *("localhost:1", "my_host:65535", "[::1]:8001", "[fe80::1%eth0]:1", "unix:/tmp/a b"),
        *("dns:///a.b:8001", "dns://1.1.1.1/a:1", "ipv4:1.2.3.4:1,5.6.7.8:2", "ipv6:[::1]:1,[::2]:1"),
    ],
)
def test_grpc_targets_are_accepted(address: str) -> None:
    Client(address).close()


def test_an_http_port_is_recognized() -> None:
    class Quiet(http.server.BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            with (
                Client(f"127.0.0.1:{server.server_port}") as client,
                pytest.raises(birnn.ServerUnreachableError, match="does not speak gRPC; is it the HTTP port"),
            ):
                client.encode(["CCO"])
        finally:
            server.shutdown()
            thread.join()


def test_the_version_is_that_of_the_distribution() -> None:
    assert birnn.__version__[0].isdigit()
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        birnn.nothing  # noqa: B018
