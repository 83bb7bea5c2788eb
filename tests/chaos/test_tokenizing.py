"""Large texts of callers who are gone, or who stay, delay nobody else's small ones."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import grpc
import pytest

from birnn.v1 import encoder_pb2 as pb
from birnn.v1.encoder_pb2_grpc import EncoderServiceStub
from birnn_bundle.bundle import Bundle
from tests.chaos.outcomes import Outcomes, attack
from tests.e2e.server_process import MODELS, ServerProcess, running

TEXT = Bundle.load(MODELS / "text" / "2").manifest
SENTENCE = b"A man is playing a large flute beside the river. "
# 12 MB, for six seconds or more of one core, and nothing to compute, as the sequences are too long; and 9 kB.
LARGE = pb.EncodeRequest(encoder="text", sequences=[SENTENCE * 1_200] * 200)
SMALL = pb.EncodeRequest(encoder="text", sequences=[SENTENCE] * 180)
CALLERS = 12
SMALL_CALLS = 30
# What a small call may take at most, on a machine that is busy with other things; the large ones would take minutes.
PATIENCE_SECONDS = 20


def stub_of(server: ServerProcess, stack: ExitStack) -> EncoderServiceStub:
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_receive_message_length", -1)]
    return EncoderServiceStub(stack.enter_context(grpc.insecure_channel(server.address, options=options)))


@contextmanager
def attackers(work: Callable[[EncoderServiceStub], None], server: ServerProcess) -> Iterator[None]:
    """Many callers who do `work` again and again until the end."""
    ended = threading.Event()

    def repeat(stub: EncoderServiceStub) -> None:
        while not ended.is_set():
            work(stub)

    with ExitStack() as stack:
        threads = [threading.Thread(target=repeat, args=(stub_of(server, stack),)) for _ in range(CALLERS)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            ended.set()
            for thread in threads:
                thread.join()


def call_small(server: ServerProcess, outcomes: Outcomes) -> None:
    """One caller's small calls, one after another."""
    slowest, told = 0.0, ""
    with ExitStack() as stack:
        stub = stub_of(server, stack)
        for _ in range(SMALL_CALLS):
            start = time.monotonic()
            try:
                reply = stub.Encode(SMALL, timeout=PATIENCE_SECONDS)
            except grpc.RpcError as error:
                is_late = getattr(error, "code", lambda: None)() is grpc.StatusCode.DEADLINE_EXCEEDED
                outcomes.count("hung" if is_late else "lost")
                told = f"; {error.details()}"
                continue
            right = reply.shape == [len(SMALL.sequences), TEXT.dimension] and not reply.errors
            outcomes.count("answered" if right else "wrong")
            slowest = max(slowest, time.monotonic() - start)
    outcomes.note = f"slowest {slowest:.2f} s{told}"


def leave_after_a_second(stub: EncoderServiceStub) -> None:
    """Ask for more than a second's work, with a deadline of a second."""
    with pytest.raises(grpc.RpcError):
        stub.Encode(LARGE, timeout=1)


def hang_up(stub: EncoderServiceStub) -> None:
    """Ask without a deadline, and cancel."""
    call = stub.Encode.future(LARGE)
    time.sleep(0.5)
    call.cancel()


def insist(stub: EncoderServiceStub) -> None:
    """Ask without a deadline, and take the answer or the refusal."""
    try:
        stub.Encode(LARGE, timeout=PATIENCE_SECONDS)
    except grpc.RpcError:
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("work", "front_ends"),
    [(leave_after_a_second, 0), (leave_after_a_second, 1), (hang_up, 0), (insist, 0), (insist, 1)],
)
def test_small_calls_are_answered_beside_large_ones(
    work: Callable[[EncoderServiceStub], None], front_ends: int
) -> None:
    name = f"{CALLERS} callers {work.__name__} with 12 MB of text, {front_ends} front-ends: another's 9 kB"
    with attack(name) as outcomes, running(MODELS, "--frontends", str(front_ends)) as server:
        with attackers(work, server):
            call_small(server, outcomes)
        # Callers who are gone leave nothing behind.
        with ExitStack() as stack:
            assert len(stub_of(server, stack).Encode(SMALL, timeout=PATIENCE_SECONDS).lengths) == len(SMALL.sequences)
    outcomes.assert_unharmed()
    assert outcomes.answered == SMALL_CALLS
