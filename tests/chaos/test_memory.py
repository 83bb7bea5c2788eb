"""Calls that take as much memory as a call can: the server stays within what it may take, and others are served."""

from collections.abc import Callable

import grpc
import pytest
from grpc_health.v1 import health_pb2
from grpc_health.v1.health_pb2_grpc import HealthStub

from birnn.v1 import encoder_pb2 as pb
from birnn.v1.encoder_pb2_grpc import EncoderServiceStub
from tests.chaos.outcomes import Outcomes, attack
from tests.chaos.probes import probing
from tests.chaos.processes import peak
from tests.chaos.unread import ENCODER, connected, leave_unread, per_token
from tests.e2e.server_process import MODELS, ServerProcess, running, until

MIB = 1 << 20
# What deploy/kubernetes gives a pod.
SHIPPED = 2048
FRONT_ENDS = pytest.mark.parametrize("front_ends", [(), ("--frontends", "2")], ids=["one process", "front-ends"])


def failure(call: Callable[[], object]) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.RpcError) as caught:
        call()
    assert isinstance(caught.value, grpc.Call)
    return caught.value.code(), caught.value.details() or ""


def count_failed(calls: list[grpc.Call], outcomes: Outcomes) -> None:
    """Count the calls that have ended; none of those that nobody reads can have ended well."""
    for call in calls:
        if call.is_active():
            outcomes.count("answered")
        else:
            refused = call.code() is grpc.StatusCode.RESOURCE_EXHAUSTED and "--memory-mib" in (call.details() or "")
            outcomes.count("refused" if refused else "lost")


@pytest.mark.quick
def test_a_reply_that_is_too_large_is_refused_and_the_limit_named() -> None:
    with running(MODELS, "--max-reply-mib", "1") as server, connected(server) as (_, stub):
        code, details = failure(lambda: stub.Encode(per_token(16, 64)))
        assert code is grpc.StatusCode.INVALID_ARGUMENT
        assert "would hold 2 MiB and this server sends at most 1 (--max-reply-mib); split" in details
        assert list(stub.Encode(per_token(8, 64)).shape) == [512, 512]


@pytest.mark.quick
@FRONT_ENDS
def test_callers_who_do_not_read_are_bounded_and_others_served(front_ends: tuple[str, ...]) -> None:
    # 128 MiB for calls, 96 of them for one caller; a call for 4 MiB takes 12.
    request = per_token(16, 128)
    with (
        running(MODELS, "--memory-mib", "256", *front_ends) as server,
        connected(server) as (channel, _),
        connected(server) as (_, other),
        attack("40 callers who do not read 4 MiB" + " from front-ends" * bool(front_ends)) as outcomes,
    ):
        before = peak(server)
        with probing(server) as probes:
            calls = leave_unread(channel, request, 40)
            until(lambda: sum(not call.is_active() for call in calls) >= 40 - 16)
            until(lambda: _replies(server) == sum(call.is_active() for call in calls))
            assert len(other.Encode(pb.EncodeRequest(**ENCODER, sequences=[b"CCO"])).lengths) == 1
        count_failed(calls, outcomes)
        outcomes.note = f"peak {peak(server):.0f} MiB, {peak(server) - before:.0f} for calls"
        outcomes.assert_unharmed()
        assert peak(server) - before < 128, outcomes
        probes.assert_lively()
        # What they hold is free as soon as they are gone.
        for call in calls:
            call.cancel()
        until(lambda: _is_answered(other, request))


@pytest.mark.quick
def test_who_does_not_take_a_reply_in_time_loses_the_connection() -> None:
    # More than both sides' buffers hold.
    request = per_token(32, 1000)
    with (
        running(MODELS, "--max-reply-seconds", "0.5") as server,
        connected(server) as (channel, _),
        connected(server) as (apart, other),
    ):
        watch = HealthStub(apart).Watch(health_pb2.HealthCheckRequest())
        next(watch)
        (call,) = leave_unread(channel, request, 1)
        until(lambda: any("has not taken a reply within 0.5 s (--max-reply-seconds)" in line for line in server.log))
        assert any("its connection was ended" in line for line in server.log)
        with pytest.raises(grpc.RpcError):
            next(call)
        # On another connection nothing has happened. Replies are bounded by the same half second, but for those that
        # hold no vectors.
        assert other.ListEncoders(pb.ListEncodersRequest()).encoders
        assert watch.is_active()
        watch.cancel()


def _is_answered(stub: EncoderServiceStub, request: pb.EncodeRequest) -> bool:
    try:
        stub.Encode(request)
    except grpc.RpcError:
        return False
    return True


def _replies(server: ServerProcess) -> float:
    return server.metric("birnn_requests_total", method="Encode", code="OK")


@pytest.mark.parametrize(
    ("sequences", "length", "fits"), [(16_384, 32, False), (500, 1000, False), (128, 511, True)], ids=str
)
def test_the_largest_call_leaves_a_pod_alive(sequences: int, length: int, fits: bool) -> None:
    request = per_token(sequences, length)
    with (
        running(MODELS, "--memory-mib", str(SHIPPED)) as server,
        connected(server) as (_, stub),
        attack(f"{sequences} sequences of {length} tokens, a vector each") as outcomes,
        probing(server) as probes,
    ):
        if fits:
            shape = list(stub.Encode(request, timeout=300).shape)
            outcomes.count("answered" if shape == [sequences * length, 512] else "wrong")
        else:
            code, details = failure(lambda: stub.Encode(request, timeout=300))
            refused = code is grpc.StatusCode.INVALID_ARGUMENT and "--max-reply-mib" in details
            outcomes.count("refused" if refused else "lost")
        outcomes.note = f"peak {peak(server):.0f} of {SHIPPED} MiB, slowest probe {probes.slowest:.2f} s"
        outcomes.assert_unharmed()
        assert peak(server) < SHIPPED / 2, outcomes
    probes.assert_lively()


@FRONT_ENDS
def test_forty_callers_who_do_not_read_leave_a_pod_alive(front_ends: tuple[str, ...]) -> None:
    request = per_token(64, 511)
    with (
        running(MODELS, "--memory-mib", str(SHIPPED), *front_ends) as server,
        connected(server) as (channel, _),
        attack("40 callers who do not read 64 MiB" + " from front-ends" * bool(front_ends)) as outcomes,
    ):
        with probing(server) as probes:
            calls = leave_unread(channel, request, 40)
            # All that can be, is refused; what is left has been computed, and its replies are on their way.
            until(lambda: sum(not call.is_active() for call in calls) >= 40 - 16)
            until(lambda: _replies(server) == sum(call.is_active() for call in calls))
        count_failed(calls, outcomes)
        outcomes.note = f"peak {peak(server):.0f} of {SHIPPED} MiB, slowest probe {probes.slowest:.2f} s"
        outcomes.assert_unharmed()
        assert peak(server) < SHIPPED, outcomes
        probes.assert_lively()
        for call in calls:
            call.cancel()


def test_large_requests_that_come_together_leave_a_pod_alive() -> None:
    count = 60
    sequences = [b"a b c d e f g h " * 62] * 15_000
    request = pb.EncodeRequest(encoder="text", sequences=sequences, truncate=True).SerializeToString()
    with (
        running(MODELS, "--memory-mib", str(SHIPPED)) as server,
        connected(server) as (channel, _),
        attack(f"{count} requests of {len(request) >> 20} MiB at once") as outcomes,
    ):
        with probing(server) as probes:
            call = channel.unary_unary("/birnn.v1.EncoderService/Encode")
            calls = [call.future(request) for _ in range(count)]
            for future in calls:
                refused = future.code() is grpc.StatusCode.RESOURCE_EXHAUSTED and "--memory-mib" in future.details()
                outcomes.count("refused" if refused else "answered" if future.exception() is None else "lost")
        outcomes.note = f"peak {peak(server):.0f} of {SHIPPED} MiB, slowest probe {probes.slowest:.2f} s"
        outcomes.assert_unharmed()
        assert outcomes.answered > 0
        assert peak(server) < SHIPPED, outcomes
        probes.assert_lively()
