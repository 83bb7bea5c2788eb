import asyncio
import random
import threading
from collections.abc import AsyncIterator

import grpc
import numpy as np
import pytest

import birnn
from birnn import AsyncClient
from tests.client.fake_service import DIMENSION, MAX_LENGTH, Failure, FakeService, matrix, serving, vector


def many(count: int) -> list[str]:
    return [f"C{number}" for number in range(count)]


async def test_large_inputs_come_back_in_order(service: FakeService) -> None:
    service.delays = random.Random(1)
    sequences = many(300)
    async with AsyncClient(service.address, batch_size=16) as client:
        np.testing.assert_array_equal(await client.encode(sequences), [vector(sequence) for sequence in sequences])
    assert len(service.requests) == 19


async def test_many_inputs_at_a_time_do_not_mix(service: FakeService) -> None:
    service.delays = random.Random(2)
    inputs = [[f"{number}-{item}" for item in range(40)] for number in range(10)]
    async with AsyncClient(service.address, batch_size=16) as client:
        answers = await asyncio.gather(*(client.encode(sequences) for sequences in inputs))
    for answer, sequences in zip(answers, inputs, strict=True):
        np.testing.assert_array_equal(answer, [vector(sequence) for sequence in sequences])


async def test_tokens_single_sequences_and_empty_inputs(service: FakeService) -> None:
    async with AsyncClient(service.address) as client:
        np.testing.assert_array_equal(await client.encode("CCO"), vector("CCO"))
        np.testing.assert_array_equal(await client.encode_tokens("CCO"), matrix("CCO"))
        assert [len(rows) for rows in await client.encode_tokens(["C", "!", "CC"], on_error="empty")] == [1, 0, 2]
        assert (await client.encode([])).shape == (0, DIMENSION)
        assert (await client.encoder("smiles")).version == "10"


async def test_half_rounds_what_travels(service: FakeService) -> None:
    async with AsyncClient(service.address, element_type="float16") as client:
        rounded = vector("CCO").astype(np.float16).astype(np.float32)
        np.testing.assert_array_equal(await client.encode("CCO"), rounded)
        np.testing.assert_array_equal([part.vectors[0] async for part in client.stream("CCO")], [rounded])


async def test_failed_sequences_are_raised_or_rows_of_nan(service: FakeService) -> None:
    async with AsyncClient(service.address) as client:
        with pytest.raises(birnn.SequenceError, match="sequence 1: the sequence is empty"):
            await client.encode(["C", ""])
        vectors = await client.encode(["C", "", b"\xff"], on_error="nan")
        answer = await client.call(["C" * (MAX_LENGTH + 1)])
        tokens = await client.call_tokens(["CC"])
    assert np.isnan(vectors).all(axis=1).tolist() == [False, True, True]
    assert answer.errors[0].code is birnn.ItemErrorCode.TOO_LONG
    assert tokens.lengths.tolist() == [2]


async def test_a_stream_takes_async_and_plain_iterables(service: FakeService) -> None:
    async def source() -> AsyncIterator[str]:
        for sequence in many(25):
            await asyncio.sleep(0)
            yield sequence

    async with AsyncClient(service.address, batch_size=10) as client:
        parts = [part async for part in client.stream(source())]
        plain = [part async for part in client.stream(iter(many(25)))]
        tokens = [len(part) async for part in client.stream_tokens(["CC"] * 3)]
    assert [len(part) for part in parts] == [10, 10, 5]
    np.testing.assert_array_equal(np.concatenate([part.vectors for part in parts]), [vector(s) for s in many(25)])
    np.testing.assert_array_equal(parts[2].vectors, plain[2].vectors)
    assert tokens == [1, 1, 1]


async def test_cancelling_reaches_the_server(service: FakeService) -> None:
    service.hold = threading.Event()
    async with AsyncClient(service.address) as client:
        task = asyncio.create_task(client.encode(["CCO"]))
        assert await asyncio.to_thread(service.held.wait, 60)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert await asyncio.to_thread(service.cancelled.wait, 60)


async def test_closing_the_client_ends_its_calls_with_an_error(service: FakeService) -> None:
    service.hold = threading.Event()
    client = AsyncClient(service.address)
    task = asyncio.create_task(client.encode(["CCO"]))
    assert await asyncio.to_thread(service.held.wait, 60)
    await client.close()
    with pytest.raises(birnn.EncodeError) as caught:
        await task
    assert caught.value.code is grpc.StatusCode.CANCELLED


async def test_calls_are_repeated_and_overload_is_raised_in_the_end(service: FakeService) -> None:
    service.failures.extend([Failure(grpc.StatusCode.RESOURCE_EXHAUSTED, pushback=0.01)] * 8)
    async with AsyncClient(service.address) as client:
        with pytest.raises(birnn.OverloadedError, match=r"try again in 0.01 s"):
            await client.encode(["CCO"])
        np.testing.assert_array_equal(await client.encode(["CCO"]), [vector("CCO")])
    assert service.attempts == 9


async def test_the_timeout_is_the_deadline_of_the_whole_input(service: FakeService) -> None:
    service.hold = threading.Event()
    async with AsyncClient(service.address, batch_size=16) as client:
        with pytest.raises(birnn.DeadlineError, match=r"timeout of 0.2 s"):
            await client.encode(many(200), timeout=0.2)


async def test_an_unreachable_server_is_named() -> None:
    async with AsyncClient("127.0.0.1:1") as client:
        with pytest.raises(birnn.ServerUnreachableError, match="birnn serve"):
            await client.encode(["CCO"])


def test_a_client_may_be_made_before_its_event_loop(service: FakeService) -> None:
    client = AsyncClient(service.address)

    async def encode() -> int:
        async with client:
            return len(await client.encode(["CCO"]))

    assert asyncio.run(encode()) == 1


async def test_credentials_are_used() -> None:
    with serving(grpc.local_server_credentials()) as service:
        async with AsyncClient(service.address, credentials=grpc.local_channel_credentials()) as client:
            np.testing.assert_array_equal(await client.encode("CCO"), vector("CCO"))
