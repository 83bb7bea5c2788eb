"""Streams of requests that are mutations of good ones: each is answered or refused, and the stream goes on."""

import random
from collections.abc import Callable, Iterator
from queue import SimpleQueue

import grpc
import pytest

from birnn.openinference import inference_pb2 as oip
from birnn.v1 import encoder_pb2 as pb
from tests.chaos.outcomes import attack
from tests.chaos.probes import probing
from tests.e2e.molecules import molecules
from tests.e2e.server_process import MODELS, PATIENCE_SECONDS, running

ENCODE = "/birnn.v1.EncoderService/EncodeStream"
INFER = "/inference.GRPCInferenceService/ModelStreamInfer"
ROUNDS, IN_ROUND = 30, 200
# By which the end of a round is known.
LAST = 2**63
# What a server of two shipped encoders takes, a few batches more or less.
GROWTH_MIB = 64


def encode_request(source: random.Random, strings: list[str]) -> bytes:
    request = pb.EncodeStreamRequest(id=source.randrange(10**6), timeout=source.choice([0] * 30 + [5, 1e-6]))
    request.encode.encoder = source.choice(["smiles-small"] * 19 + ["nothing"])
    request.encode.sequences.extend(text.encode() for text in source.sample(strings, source.randrange(1, 5)))
    # The highest number of each enumeration and, seldom, one beyond.
    for field, highest in (("output", 2), ("element_type", 3), ("priority", 3)):
        setattr(request.encode, field, source.randrange(highest + 1 + (source.random() < 0.02)))
    request.encode.normalize = source.random() < 0.5
    return request.SerializeToString()


def last_encode(number: int) -> bytes:
    encode = pb.EncodeRequest(encoder="smiles-small", sequences=[b"CCO"])
    return pb.EncodeStreamRequest(id=LAST + number, encode=encode).SerializeToString()


def infer_request(source: random.Random, strings: list[str]) -> bytes:
    chosen = [text.encode() for text in source.sample(strings, source.randrange(1, 5))]
    tensor = oip.ModelInferRequest.InferInputTensor(name="text", datatype="BYTES", shape=[len(chosen), 1])
    tensor.contents.bytes_contents.extend(chosen)
    request = oip.ModelInferRequest(
        model_name=source.choice(["smiles-small"] * 19 + ["nothing"]), id=str(source.randrange(1000)), inputs=[tensor]
    )
    if source.random() < 0.1:
        request.parameters[source.choice(["truncate", "timeout", "priority", "other"])].int64_param = 1
    return request.SerializeToString()


def last_infer(number: int) -> bytes:
    tensor = oip.ModelInferRequest.InferInputTensor(name="text", datatype="BYTES", shape=[1])
    tensor.contents.bytes_contents.append(b"CCO")
    return oip.ModelInferRequest(model_name="smiles-small", id=str(LAST + number), inputs=[tensor]).SerializeToString()


def mutated(source: random.Random, message: bytes) -> bytes:
    """The message as it is, or with some bytes changed, cut, doubled or put elsewhere."""
    kind = source.randrange(8)
    if kind < 4:
        return message
    content = bytearray(message)
    place = source.randrange(len(content))
    if kind == 4:
        content[place] ^= 1 << source.randrange(8)
    elif kind == 5:
        del content[place:]
    elif kind == 6:
        content[place:place] = content[source.randrange(len(content)) :]
    else:
        content[place:place] = source.randbytes(source.randrange(1, 9))
    return bytes(content)


def encode_outcome(reply: bytes) -> tuple[int, int]:
    """Code of a reply, 0 for an encoding, and the number of its round if it is the last one of it, else -1."""
    found = pb.EncodeStreamResponse.FromString(reply)
    return found.failure.code, found.id - LAST if found.id >= LAST else -1


def infer_outcome(reply: bytes) -> tuple[int, int]:
    """The same."""
    found = oip.ModelStreamInferResponse.FromString(reply)
    number = int(found.infer_response.id) if found.infer_response.id.isdigit() else 0
    return 3 if found.error_message else 0, number - LAST if number >= LAST else -1


@pytest.mark.parametrize("frontends", ["0", "1"])
@pytest.mark.parametrize(
    ("method", "make", "last", "outcome"),
    [(ENCODE, encode_request, last_encode, encode_outcome), (INFER, infer_request, last_infer, infer_outcome)],
    ids=["EncodeStream", "ModelStreamInfer"],
)
def test_a_stream_of_mutated_requests_goes_on(
    method: str,
    make: Callable[[random.Random, list[str]], bytes],
    last: Callable[[int], bytes],
    outcome: Callable[[bytes], tuple[int, int]],
    frontends: str,
) -> None:
    source, strings = random.Random(14), molecules(500)
    with (
        running(MODELS, "--frontends", frontends) as server,
        attack(f"mutated requests over {method.rpartition('/')[2]}, {frontends} front-ends") as outcomes,
        probing(server) as probes,
        grpc.insecure_channel(server.address) as channel,
    ):
        queue: SimpleQueue[bytes | None] = SimpleQueue()
        sent: Iterator[bytes] = iter(queue.get, None)
        replies = channel.stream_stream(method)(sent, timeout=PATIENCE_SECONDS)
        sizes = []
        for number in range(ROUNDS):
            for _ in range(IN_ROUND):
                queue.put(mutated(source, make(source, strings)))
            queue.put(last(number))
            for reply in replies:
                code, ended = outcome(reply)
                # The server's own fault, or a code that is none of ours.
                assert code not in (2, 13), reply
                outcomes.count("refused" if code else "answered")
                if ended == number:
                    assert code == 0
                    break
            sizes.append(server.metric("process_resident_memory_bytes") / 2**20)
        queue.put(None)
        # Half are mutated, and of the rest some ask for what there is not.
        assert outcomes.answered >= ROUNDS * IN_ROUND / 3
        assert max(sizes[ROUNDS // 2 :]) - max(sizes[: ROUNDS // 2]) < GROWTH_MIB, sizes
        outcomes.note = f"{ROUNDS * (IN_ROUND + 1)} messages, {sizes[0]:.0f} to {sizes[-1]:.0f} MiB"
    outcomes.assert_unharmed()
    probes.assert_lively()
