"""Many requests over one stream, each a call by itself."""

import itertools
from collections.abc import Callable, Iterator
from queue import SimpleQueue
from typing import Any

import grpc
import numpy as np
import pytest

from birnn.v1 import encoder_pb2 as pb
from birnn.v1.encoder_pb2_grpc import EncoderServiceStub
from tests.e2e.molecules import molecules
from tests.e2e.server_process import PATIENCE_SECONDS, SMILES_ALONE, ServerProcess, running

Request = pb.EncodeStreamRequest


def request(number: int, *sequences: str, timeout: float = 0, **options: Any) -> Request:
    encode = pb.EncodeRequest(sequences=[text.encode() for text in sequences], **{"encoder": "smiles", **options})
    return Request(id=number, timeout=timeout, encode=encode)


class Conversation:
    """A stream that sends what it is given, and ends when told to."""

    def __init__(self, stub: EncoderServiceStub) -> None:
        self._requests: SimpleQueue[Request | None] = SimpleQueue()
        sent: Iterator[Request] = iter(self._requests.get, None)
        self.replies = stub.EncodeStream(sent, timeout=PATIENCE_SECONDS)

    def send(self, *requests: Request) -> None:
        for one in requests:
            self._requests.put(one)

    def end(self) -> None:
        self._requests.put(None)

    def all(self, *requests: Request) -> dict[int, pb.EncodeStreamResponse]:
        """Replies to requests, by id, once all of them have come."""
        self.send(*requests)
        self.end()
        replies = list(self.replies)
        assert len(replies) == len({reply.id for reply in replies})
        return {reply.id: reply for reply in replies}


@pytest.fixture
def conversation(stub: EncoderServiceStub) -> Conversation:
    return Conversation(stub)


def test_every_request_gets_what_a_call_would_get(stub: EncoderServiceStub, conversation: Conversation) -> None:
    strings = molecules(400)
    replies = conversation.all(
        *(request(number, *strings[number : number + number % 5 + 1]) for number in range(0, 300, 1))
    )
    assert sorted(replies) == list(range(300))
    together = stub.Encode(pb.EncodeRequest(encoder="smiles", sequences=[s.encode() for s in strings]))
    expected = np.frombuffer(together.embeddings, "<f4").reshape(together.shape)
    for number, reply in replies.items():
        assert reply.WhichOneof("outcome") == "response"
        found = np.frombuffer(reply.response.embeddings, "<f4").reshape(reply.response.shape)
        assert np.abs(found - expected[number : number + number % 5 + 1]).max() < 1e-5
        assert reply.response.version == together.version


def test_a_request_that_fails_ends_nothing(conversation: Conversation) -> None:
    replies = conversation.all(
        request(1, "CCO"),
        request(2, "CCO", encoder="nothing"),
        Request(id=3),
        request(4, "CCO", timeout=-1),
        request(5),
        request(6, "", "CC"),
        request(7, "CCC", timeout=PATIENCE_SECONDS),
    )
    # A message that is neither a request nor a cancellation has no id.
    codes = {number: reply.failure.code for number, reply in replies.items() if reply.HasField("failure")}
    assert codes == {0: 3, 2: 5, 4: 3, 5: 3}
    assert "served are: " in replies[2].failure.message
    assert "neither a request nor a cancellation" in replies[0].failure.message
    assert [error.index for error in replies[6].response.errors] == [0]
    assert replies[7].response.lengths == [3]


@pytest.mark.parametrize("raw", [b"\xff\xff", b"\x1a\x05\x0a\x7fsmi", b"\x0a\x01"])
def test_bytes_that_are_no_request_fail_alone(server: ServerProcess, raw: bytes) -> None:
    with grpc.insecure_channel(server.address) as channel:
        call: Callable[..., Any] = channel.stream_stream("/birnn.v1.EncoderService/EncodeStream")
        replies = call(iter([raw, request(1, "CCO").SerializeToString()]), timeout=PATIENCE_SECONDS)
        found = {reply.id: reply for reply in map(pb.EncodeStreamResponse.FromString, replies)}
    assert found[0].failure.code == 3
    assert "is no EncodeStream message" in found[0].failure.message
    assert found[1].response.lengths == [3]


def large(number: int) -> Request:
    """A request that takes a while: longer than it takes a message behind it to arrive."""
    return request(number, *("C" * 900 + text for text in molecules(12)), truncate=True, encoder="smiles")


def test_a_cancelled_request_is_answered_with_that(conversation: Conversation) -> None:
    replies = conversation.all(large(1), large(2), large(3), Request(id=3, cancel=pb.Cancel()), request(4, "CCO"))
    assert sorted(replies) == [1, 2, 3, 4]
    assert replies[3].failure.code == grpc.StatusCode.CANCELLED.value[0]
    assert [replies[number].WhichOneof("outcome") for number in (1, 2, 4)] == ["response"] * 3


def test_no_two_requests_under_way_have_the_same_id(conversation: Conversation) -> None:
    conversation.send(large(1), request(1, "CCO"))
    first = next(conversation.replies)
    assert (first.id, first.failure.code) == (1, 3)
    assert "a request of id 1 is under way" in first.failure.message
    assert next(conversation.replies).WhichOneof("outcome") == "response"
    # Once it has been answered its id is free.
    conversation.send(request(1, "CCO"))
    assert next(conversation.replies).response.lengths == [3]


def test_a_timeout_is_that_of_one_request(conversation: Conversation) -> None:
    conversation.send(large(1), request(2, "CCO", timeout=1e-6))
    first = next(conversation.replies)
    assert (first.id, first.failure.code) == (2, grpc.StatusCode.DEADLINE_EXCEEDED.value[0])
    assert next(conversation.replies).WhichOneof("outcome") == "response"


def test_a_sender_that_reads_nothing_is_not_read_from() -> None:
    """It may have so many requests under way, and the server takes no more from it."""
    with running(SMILES_ALONE, "--stream-window", "4") as server, grpc.insecure_channel(server.address) as channel:
        taken = itertools.count()
        sent: list[int] = []

        def requests() -> Iterator[Request]:
            for number in taken:
                sent.append(number)
                yield request(number, *molecules(64), output=pb.OUTPUT_TOKENS)

        replies = EncoderServiceStub(channel).EncodeStream(requests(), timeout=PATIENCE_SECONDS)
        other = EncoderServiceStub(channel)
        for _ in range(50):
            other.Encode(pb.EncodeRequest(encoder="smiles", sequences=[b"CCO"]), timeout=PATIENCE_SECONDS)
        # What is beyond the window waits in buffers of gRPC's, which hold a few replies of half a megabyte.
        assert server.metric("birnn_requests_total", encoder="smiles", method="EncodeStream", code="OK") < 40
        replies.cancel()


@pytest.mark.parametrize("frontends", ["0", "2"])
def test_a_shutdown_answers_what_was_read_and_says_so(frontends: str) -> None:
    with running(SMILES_ALONE, "--frontends", frontends) as server, grpc.insecure_channel(server.address) as channel:
        conversation = Conversation(EncoderServiceStub(channel))
        conversation.send(request(1, "CCO"))
        assert next(conversation.replies).response.lengths == [3]
        conversation.send(*map(large, range(2, 6)), request(6, "CC"))
        assert next(conversation.replies).id in range(2, 7)
        server.terminate()
        with pytest.raises(grpc.RpcError) as caught:
            list(conversation.replies)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert "shutting down" in caught.value.details()
