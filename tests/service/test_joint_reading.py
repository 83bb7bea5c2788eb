"""Requests that arrive together, and are read together."""

import asyncio
from collections.abc import Sequence

import pytest

from birnn_bundle.smiles import SmilesTokenizer
from birnn_bundle.tokenizer import Tokenized
from birnn_service.joint_reading import MOST_BYTES, JointReading
from birnn_service.reading import StringReader, Strings
from birnn_service.tokenizing import Tokenizing
from birnn_service.tokenizing_rate import LEAST_BYTES


class Recording(SmilesTokenizer):
    """Remembers what it was asked for, and fails on a sequence that is not legal."""

    def __init__(self) -> None:
        super().__init__(["C", "N", "O"])
        self.asked: list[list[bytes | str]] = []

    def tokenize(self, sequences: Sequence[bytes | str], max_length: int, truncate: bool = False) -> Tokenized:
        self.asked.append(list(sequences))
        if b"fails" in sequences:
            raise RuntimeError("the tokenizer failed")
        return super().tokenize(sequences, max_length, truncate)


@pytest.fixture
def tokenizer() -> Recording:
    return Recording()


def reader_of(tokenizer: Recording, max_length: int = 100) -> StringReader:
    return StringReader(tokenizer, tokenizer.vocab_size, max_length, max_bytes=1000, truncate=False)


async def test_requests_of_one_iteration_are_read_in_one_go(tokenizer: Recording) -> None:
    reading = JointReading()
    requests = [[b"CCO"], [b"N", b"?x", b"CC"], [b""], [b"OO"]]
    found = await asyncio.gather(*(reading.read(Strings(reader_of(tokenizer), request)) for request in requests))
    assert tokenizer.asked == [[b"CCO", b"N", b"?x", b"CC", b"", b"OO"]]
    assert [one.batch.lengths.tolist() for one in found] == [[3], [1, 2], [], [2]]
    assert [[error.index for error in one.errors] for one in found] == [[], [1], [0], []]
    await reading.read(Strings(reader_of(tokenizer), [b"C"]))
    assert tokenizer.asked[1:] == [[b"C"]]


async def test_requests_that_are_read_otherwise_are_read_apart(tokenizer: Recording) -> None:
    reading = JointReading()
    short, long = reader_of(tokenizer, max_length=2), reader_of(tokenizer)
    found = await asyncio.gather(*(reading.read(Strings(reader, [b"CCC"])) for reader in (short, long, short)))
    assert tokenizer.asked == [[b"CCC", b"CCC"], [b"CCC"]]
    assert [len(one.errors) for one in found] == [1, 0, 1]


async def test_a_tokenizer_that_fails_on_one_request_fails_it_alone(tokenizer: Recording) -> None:
    reading = JointReading()
    requests = [[b"CCO"], [b"fails"], [b"N"]]
    good, bad, last = await asyncio.gather(
        *(reading.read(Strings(reader_of(tokenizer), request)) for request in requests), return_exceptions=True
    )
    assert isinstance(good, Tokenized)
    assert isinstance(bad, RuntimeError)
    assert isinstance(last, Tokenized)
    assert len(last.batch) == 1


async def test_a_request_whose_caller_leaves_does_not_hold_up_the_others(tokenizer: Recording) -> None:
    reading = JointReading()
    tasks = [asyncio.create_task(reading.read(Strings(reader_of(tokenizer), [text]))) for text in (b"C", b"N", b"O")]
    await asyncio.sleep(0)
    tasks[1].cancel()
    found = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(found[1], asyncio.CancelledError)
    assert [len(one.batch) for one in found if isinstance(one, Tokenized)] == [1, 1]


async def test_a_group_has_a_largest_size(tokenizer: Recording) -> None:
    reading, text = JointReading(), b"C" * 500
    count = 3 * MOST_BYTES // len(text)
    reader = reader_of(tokenizer, max_length=1000)
    found = await asyncio.gather(*(reading.read(Strings(reader, [text])) for _ in range(count)))
    assert [one.batch.tokens for one in found] == [len(text)] * count
    sizes = [sum(map(len, asked)) for asked in tokenizer.asked]
    assert len(sizes) >= 3
    assert max(sizes) < MOST_BYTES + len(text)


async def test_only_short_requests_are_read_together(tokenizer: Recording) -> None:
    tokenizing, reader = Tokenizing(30.0, workers=1), reader_of(tokenizer)
    try:
        long = [b"C" * 900] * (LEAST_BYTES // 900 + 1)

        async def run(sequences: list[bytes]) -> Tokenized:
            def read(start: int, end: int) -> Tokenized:
                return reader.read(sequences[start:end])

            return await tokenizing.run("x", list(map(len, sequences)), read, joint=Strings(reader, sequences))

        await asyncio.gather(run([b"C"]), run(long), run([b"N"]))
        # The long one is read on a thread, whenever that is.
        assert sorted(tokenizer.asked, key=len) == [[b"C", b"N"], long]
    finally:
        tokenizing.close()
