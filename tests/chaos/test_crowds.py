"""More calls at once than a server takes: each is answered, or refused with a reason and a time to retry."""

import asyncio

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2

from birnn.v1 import encoder_pb2 as pb
from birnn.v1.encoder_pb2_grpc import EncoderServiceStub
from tests.chaos.outcomes import Outcomes, attack
from tests.chaos.probes import probing
from tests.chaos.unread import connected, leave_unread, per_token
from tests.e2e.molecules import chains
from tests.e2e.server_process import MODELS, ServerProcess, running, until


def tells_when_to_retry(error: grpc.aio.AioRpcError) -> bool:
    """Whether an error carries google.rpc.RetryInfo, and the push-back that gRPC's own retries follow."""
    metadata = dict(error.trailing_metadata())
    raw = metadata.get("grpc-status-details-bin", b"")
    assert isinstance(raw, bytes)
    retry = error_details_pb2.RetryInfo()
    return any(detail.Unpack(retry) for detail in status_pb2.Status.FromString(raw).details) and (
        "grpc-retry-pushback-ms" in metadata
    )


async def call_at_once(server: ServerProcess, sequences: list[bytes], outcomes: Outcomes) -> None:
    """One call for each sequence, all of them at once, on one connection."""
    async with grpc.aio.insecure_channel(server.address) as channel:
        stub = EncoderServiceStub(channel)

        async def call(sequence: bytes) -> None:
            request = pb.EncodeRequest(encoder="smiles-small", sequences=[sequence])
            try:
                reply = await stub.Encode(request, timeout=120)
            except grpc.aio.AioRpcError as error:
                refused = error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED and tells_when_to_retry(error)
                outcomes.count("refused" if refused else "lost")
                outcomes.note = outcomes.note or f"{error.code().name}: {error.details()}"
            else:
                outcomes.count("answered" if list(reply.shape) == [1, 512] and not reply.errors else "wrong")

        await asyncio.gather(*map(call, sequences))


@pytest.mark.quick
def test_calls_beyond_the_limit_are_refused_by_us_and_not_dropped() -> None:
    with (
        running(MODELS, "--max-calls", "50") as server,
        attack("1,000 calls at once where 50 are allowed") as outcomes,
        probing(server) as probes,
    ):
        asyncio.run(call_at_once(server, chains(1000, 200), outcomes))
        # Three quarters of the limit are one caller's. More are answered where calls come slower than replies go.
        assert outcomes.answered >= 37
    assert outcomes.refused == 0 or "--max-calls" in outcomes.note
    outcomes.assert_unharmed()
    probes.assert_lively()


@pytest.mark.quick
def test_a_call_whose_reply_is_not_taken_keeps_its_place() -> None:
    with running(MODELS, "--max-calls", "1") as server, connected(server) as (channel, _):
        (unread,) = leave_unread(channel, per_token(32, 1000), 1)
        until(lambda: server.metric("birnn_requests_total", method="Encode", code="OK") == 1)
        outcomes = Outcomes("a call beyond the limit")
        asyncio.run(call_at_once(server, [b"CCO"], outcomes))
        assert (outcomes.refused, outcomes.note) == (
            1,
            "RESOURCE_EXHAUSTED: this server has 1 calls under way, its limit (--max-calls); retry later",
        )
        unread.cancel()
        until(lambda: _is_answered(server))


def _is_answered(server: ServerProcess) -> bool:
    outcomes = Outcomes("a call")
    asyncio.run(call_at_once(server, [b"CCO"], outcomes))
    return outcomes.answered == 1


def test_four_thousand_calls_at_once_are_answered() -> None:
    with running() as server, attack("4,000 calls at once") as outcomes, probing(server) as probes:
        asyncio.run(call_at_once(server, chains(1000, 20) * 4, outcomes))
    outcomes.assert_unharmed()
    assert outcomes.answered == 4000, outcomes
    probes.assert_lively()
