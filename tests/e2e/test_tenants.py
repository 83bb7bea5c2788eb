"""Tenants of a real server: what one of them does, and what it costs another."""

import itertools
import json
import queue
import shutil
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, cast

import grpc
import pytest

from birnn.v1 import encoder_pb2 as pb
from birnn.v1.encoder_pb2_grpc import EncoderServiceStub
from tests.e2e.molecules import chains
from tests.e2e.server_process import MODELS, PATIENCE_SECONDS, ServerProcess, running, until
from tests.e2e.test_tokens import bearer, change

SMALL = "smiles-small"
EXHAUSTED, INVALID = grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.INVALID_ARGUMENT


class Shared(NamedTuple):
    server: ServerProcess
    path: Path
    tokens: dict[str, str]

    def stub(self) -> EncoderServiceStub:
        """Over a connection of its own."""
        channel = grpc.insecure_channel(self.server.address, [("grpc.use_local_subchannel_pool", 1)])
        return EncoderServiceStub(channel)

    def encode(self, stub: EncoderServiceStub, tenant: str, sequences: list[bytes], **options: Any) -> grpc.StatusCode:
        """How a call ends."""
        request = pb.EncodeRequest(encoder=SMALL, sequences=sequences, **options)
        try:
            stub.Encode(request, metadata=bearer(self.tokens[tenant]), timeout=PATIENCE_SECONDS)
        except grpc.RpcError as error:
            return cast(grpc.Call, error).code()
        return grpc.StatusCode.OK

    def counted(self, name: str, **labels: str) -> float:
        return self.server.metric(f"birnn_tenant_{name}_total", **labels)


@pytest.fixture(scope="module", params=["0", "2"])
def shared(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shared]:
    folder = tmp_path_factory.mktemp("shared")
    shutil.copytree(MODELS / SMALL, folder / "models" / SMALL)
    path = folder / "tokens"
    tokens = {name: change(path, "add", name) for name in ("greedy", "small", "other")}
    tokens["limited"] = change(path, "add", "limited", "--sequences-per-second", "0.001", "--burst", "8")
    scrape = change(path, "add", "prometheus", "--right", "metrics")
    arguments = ("--tokens", str(path), "--http-port", "0", "--cache-mib", "1", "--max-backlog-seconds", "0.2")
    with running(folder / "models", *arguments, "--frontends", request.param, "--memory-mib", "512") as server:
        server.token = scrape
        yield Shared(server, path, tokens)


class Storm:
    """A greedy tenant: everything at once, until the end."""

    def __init__(self, shared: Shared) -> None:
        self._shared = shared
        self._over = threading.Event()
        self._numbers = itertools.count(1)
        shapes: list[Callable[[EncoderServiceStub], object]] = [
            *(4 * [self._large]), *(2 * [self._singles]), self._cached, self._unread, self._gone
        ]  # fmt: skip
        self._threads = [threading.Thread(target=self._run, args=(shape,)) for shape in shapes]

    def _fresh(self, count: int) -> list[bytes]:
        """Sequences that nobody has sent before."""
        numbers = (f"{next(self._numbers):064b}" for _ in range(count))
        return [number.replace("0", "C").replace("1", "N").encode() for number in numbers]

    def _run(self, shape: Callable[[EncoderServiceStub], object]) -> None:
        stub = self._shared.stub()
        while not self._over.is_set():
            shape(stub)

    def _large(self, stub: EncoderServiceStub) -> None:
        self._shared.encode(stub, "greedy", self._fresh(4096))

    def _cached(self, stub: EncoderServiceStub) -> None:
        self._shared.encode(stub, "greedy", self._fresh(300))

    def _gone(self, stub: EncoderServiceStub) -> None:
        """Calls that are given up at once."""
        request = pb.EncodeRequest(encoder=SMALL, sequences=self._fresh(512))
        stub.Encode.future(request, metadata=bearer(self._shared.tokens["greedy"]), timeout=0.01)
        self._over.wait(0.01)

    def _singles(self, stub: EncoderServiceStub) -> None:
        """A stream with as much in flight as the window allows."""
        requests = (
            pb.EncodeStreamRequest(id=number, encode=pb.EncodeRequest(encoder=SMALL, sequences=self._fresh(1)))
            for number in range(2000)
        )
        with suppress(grpc.RpcError):
            for _ in stub.EncodeStream(
                requests, metadata=bearer(self._shared.tokens["greedy"]), timeout=PATIENCE_SECONDS
            ):
                pass

    def _unread(self, stub: EncoderServiceStub) -> None:
        """A stream of large replies of which none is read."""
        outgoing: queue.SimpleQueue[Any] = queue.SimpleQueue()
        for number in range(64):
            request = pb.EncodeRequest(encoder=SMALL, sequences=self._fresh(256), output=pb.OUTPUT_TOKENS)
            outgoing.put(pb.EncodeStreamRequest(id=number, encode=request))
        call = stub.EncodeStream(
            iter(outgoing.get, None), metadata=bearer(self._shared.tokens["greedy"]), timeout=PATIENCE_SECONDS
        )
        self._over.wait()
        call.cancel()
        outgoing.put(None)

    def __enter__(self) -> "Storm":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()


def test_a_storm_is_refused_itself_and_costs_another_no_call_and_nothing_of_its_cache(shared: Shared) -> None:
    stub, mine = shared.stub(), chains(16, 40)
    assert shared.encode(stub, "small", mine) is grpc.StatusCode.OK
    with Storm(shared):
        until(lambda: shared.counted("refused", tenant="greedy", reason="queue") > 0)
        before = shared.counted("requests", tenant="greedy")
        for number in range(100):
            assert shared.encode(stub, "small", [b"C" * (number % 40) + b"Br"]) is grpc.StatusCode.OK
        until(lambda: shared.counted("requests", tenant="greedy") > before)
        assert shared.counted("engine_seconds", tenant="greedy") > shared.counted("engine_seconds", tenant="small")
    until(lambda: shared.counted("requests", tenant="small", code="OK") == 101)
    assert shared.counted("requests", tenant="small") == 101
    assert shared.counted("refused", tenant="small") == 0
    found = shared.server.metric("birnn_cache_hits_total")
    assert shared.encode(stub, "small", mine) is grpc.StatusCode.OK
    assert shared.server.metric("birnn_cache_hits_total") == found + 16


def test_what_one_tenant_has_asked_for_another_does_not_find(shared: Shared) -> None:
    stub, asked = shared.stub(), chains(8, 50)
    for tenant, hits in (("small", 0), ("other", 0), ("other", 8), ("small", 8)):
        found = shared.server.metric("birnn_cache_hits_total")
        assert shared.encode(stub, tenant, asked) is grpc.StatusCode.OK
        assert shared.server.metric("birnn_cache_hits_total") - found == hits


def test_a_limit_holds_exactly_over_all_connections_and_for_cached_answers(shared: Shared) -> None:
    sequence = [b"CCO"]
    with ThreadPoolExecutor(12) as threads:
        ends = list(threads.map(lambda _: shared.encode(shared.stub(), "limited", sequence), range(40)))
    assert ends.count(grpc.StatusCode.OK) == 8
    assert ends.count(EXHAUSTED) == 32
    until(lambda: shared.counted("refused", tenant="limited", reason="rate") == 32)
    with pytest.raises(grpc.RpcError, match=r"limited may send 0.001 sequences a second, 8 at once") as caught:
        shared.stub().Encode(
            pb.EncodeRequest(encoder=SMALL, sequences=sequence), metadata=bearer(shared.tokens["limited"])
        )
    trailers = dict(cast(grpc.Call, caught.value).trailing_metadata() or ())
    assert b"google.rpc.RetryInfo" in trailers["grpc-status-details-bin"]
    body = json.dumps({"model": SMALL, "input": "CCO"}).encode()
    headers = {"Content-Type": "application/json", **dict(bearer(shared.tokens["limited"]))}
    request = urllib.request.Request(shared.server.rest + "/v1/embeddings", body, headers)
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request, timeout=PATIENCE_SECONDS)
    assert refused.value.code == 429
    assert int(refused.value.headers["Retry-After"]) > 0
    assert shared.encode(shared.stub(), "limited", 9 * sequence) is INVALID
    # Others have none; and a line that changes counts without a restart.
    assert shared.encode(shared.stub(), "small", 100 * sequence) is grpc.StatusCode.OK
    change(shared.path, "remove", "limited")
    renewed = change(shared.path, "add", "limited", "--sequences-per-second", "1000")
    shared.tokens["limited"] = renewed
    until(lambda: shared.encode(shared.stub(), "limited", 500 * sequence) is grpc.StatusCode.OK)
    # Another front-end may not have read the file yet.
    until(lambda: shared.encode(shared.stub(), "limited", 1001 * sequence) is INVALID)
