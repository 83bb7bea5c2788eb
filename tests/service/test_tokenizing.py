"""The stage that tokenizes, with tokenizers that can be held up, and with real ones."""

import asyncio
import itertools
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from birnn_bundle.ragged import RaggedBatch
from birnn_bundle.smiles import SmilesTokenizer
from birnn_bundle.text import TextTokenizer
from birnn_bundle.tokenizer import Tokenized, Tokenizer
from birnn_service.errors import DeadlineError, OverloadedError
from birnn_service.reading import StringReader, read_features, tokenize
from birnn_service.tokenizing import SLICE_SECONDS, Read, Tokenizing
from birnn_service.tokenizing_rate import FIRST_RATE, LEAST_BYTES, Rate

TOKENIZERS: list[Tokenizer] = [SmilesTokenizer(["C", "N", "O"]), TextTokenizer.train(["CCNO. "] * 5, vocab_size=300)]
# Of one sequence: what is predicted to take a slice, a hundredth of a second, before anything was measured.
SLICE = round(SLICE_SECONDS / FIRST_RATE)
HOUR = 3600


class Held:
    """Tokenizers that share a log of what they did, and stop at a gate in every slice."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.entered = threading.Semaphore(0)
        self.gate = threading.Semaphore(0)

    def read(self, name: str) -> Read:
        def read(start: int, end: int) -> Tokenized:
            self.log.append(name)
            self.entered.release()
            self.gate.acquire()
            return TOKENIZERS[0].tokenize([b"C"] * (end - start), 10)

        return read

    def free(self) -> None:
        """Let everything pass."""
        self.gate.release(100_000)

    async def until_entered(self) -> None:
        """Wait until another slice is under way."""
        assert await asyncio.to_thread(self.entered.acquire, timeout=60)


@pytest.fixture
def held() -> Held:
    return Held()


@asynccontextmanager
async def stage(held: Held, bound: float = HOUR, clock: Callable[[], float] = lambda: 0.0) -> AsyncIterator[Tokenizing]:
    tokenizing = Tokenizing(bound, workers=1, clock=clock)
    try:
        async with asyncio.timeout(60):
            yield tokenizing
    finally:
        held.free()
        tokenizing.close()


async def settle() -> None:
    """Let tasks that have been made begin."""
    for _ in range(3):
        await asyncio.sleep(0)


async def test_a_small_request_is_tokenized_on_the_event_loop_at_once(held: Held) -> None:
    threads = []

    def read(start: int, end: int) -> Tokenized:
        threads.append(threading.current_thread())
        return TOKENIZERS[0].tokenize([b"C"] * (end - start), 10)

    async with stage(held) as tokenizing:
        large = asyncio.create_task(tokenizing.run("x", [SLICE] * 4, held.read("large")))
        await held.until_entered()
        small = tokenizing.run("x", [100] * 5, read)
        assert len((await small).batch) == 5
        assert threads == [threading.current_thread()]
        held.free()
        assert len((await large).batch) == 4


async def test_a_smaller_request_passes_between_the_slices_of_a_large_one(held: Held) -> None:
    async with stage(held) as tokenizing:
        large = asyncio.create_task(tokenizing.run("x", [SLICE] * 100, held.read("large")))
        await held.until_entered()
        small = asyncio.create_task(tokenizing.run("x", [SLICE], held.read("small")))
        await settle()
        held.free()
        assert len((await large).batch) == 100
        assert len((await small).batch) == 1
        assert held.log[:3] == ["large", "small", "large"]


async def test_a_large_request_has_a_turn_after_some_slices_of_small_ones(held: Held) -> None:
    async with stage(held) as tokenizing:
        first = asyncio.create_task(tokenizing.run("x", [SLICE], held.read("first")))
        await held.until_entered()
        large = asyncio.create_task(tokenizing.run("x", [SLICE] * 100, held.read("large")))
        # Two slices each; with an encoder of its own none is faster for what another has measured.
        small = [
            asyncio.create_task(tokenizing.run(f"y{number}", [SLICE] * 5, held.read("small"))) for number in range(10)
        ]
        await settle()
        held.free()
        await asyncio.gather(first, large, *small)
        beside_small = held.log[1 : len(held.log) - held.log[::-1].index("small")]
        turns = "".join(name[0] for name in beside_small)
        assert turns.count("s") == 20
        assert "sssss" not in turns
        assert "ll" not in turns


async def test_a_caller_who_asks_much_waits_behind_one_who_asks_little(held: Held) -> None:
    async with stage(held) as tokenizing:
        much = [
            asyncio.create_task(tokenizing.run("x", [SLICE], held.read(f"much {number}"), caller="much"))
            for number in range(5)
        ]
        await held.until_entered()
        little = asyncio.create_task(tokenizing.run("x", [SLICE], held.read("little"), caller="little"))
        await settle()
        held.free()
        await asyncio.gather(*much, little)
        assert held.log == ["much 0", "little", *(f"much {number}" for number in range(1, 5))]


async def test_a_cancelled_request_costs_no_slice_more_and_gives_its_thread_back(held: Held) -> None:
    async with stage(held) as tokenizing:
        gone = asyncio.create_task(tokenizing.run("x", [SLICE] * 100, held.read("gone")))
        await held.until_entered()
        queued = asyncio.create_task(tokenizing.run("x", [SLICE] * 100, held.read("queued")))
        stays = asyncio.create_task(tokenizing.run("x", [SLICE] * 100, held.read("stays")))
        await settle()
        for task in (gone, queued):
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        # The thread is taken until the slice ends.
        assert held.log == ["gone"]
        held.free()
        await stays
        assert "queued" not in held.log
        assert held.log.count("gone") == 1
        assert tokenizing.backlog_seconds == 0


async def test_a_deadline_that_passes_ends_a_request_between_two_slices(held: Held) -> None:
    now = [0.0]
    async with stage(held, clock=lambda: now[0]) as tokenizing:
        late = asyncio.create_task(tokenizing.run("x", [SLICE] * 10, held.read("late"), deadline=1.0))
        await held.until_entered()
        now[0] = 1.0
        held.free()
        with pytest.raises(DeadlineError, match="deadline passed"):
            await late
        assert held.log == ["late"]
        assert len((await tokenizing.run("x", [SLICE] * 10, held.read("next"))).batch) == 10


async def test_what_cannot_be_done_in_time_is_refused_before_anything_is_tokenized(held: Held) -> None:
    async with stage(held) as tokenizing:
        with pytest.raises(DeadlineError, match=r"takes about 10.* s and 1 s are left; send fewer in a call"):
            await tokenizing.run("x", [SLICE] * 1000, held.read("late"), deadline=1.0)
        first = asyncio.create_task(tokenizing.run("x", [SLICE] * 100, held.read("first")))
        await held.until_entered()
        with pytest.raises(OverloadedError, match=r"s of tokenizing are ahead .* 1.2 s are left") as caught:
            await tokenizing.run("x", [SLICE] * 200, held.read("behind"), deadline=1.2)
        assert caught.value.retry_after > 0
        assert held.log == ["first"]
        first.cancel()


async def test_more_than_the_bound_waits_only_for_those_who_ask_little(held: Held) -> None:
    async with stage(held, bound=3.0) as tokenizing:
        # One of any size where nothing waits.
        first = asyncio.create_task(tokenizing.run("x", [SLICE] * 400, held.read("first"), caller="much"))
        await held.until_entered()
        with pytest.raises(OverloadedError, match=r"the limit is 3 s \(--max-backlog-seconds\)"):
            await tokenizing.run("x", [SLICE] * 50, held.read("more"), caller="other")
        with pytest.raises(OverloadedError):
            await tokenizing.run("x", [SLICE] * 50, held.read("more"), caller="much")
        little = [
            asyncio.create_task(tokenizing.run("x", [SLICE], held.read("little"), caller=caller))
            for caller in ("other", "much")
        ]
        await settle()
        held.free()
        await asyncio.gather(*little)
        assert held.log[:3] == ["first", "little", "little"]
        await first


async def test_small_requests_are_refused_where_as_many_wait_as_the_bound_allows(held: Held) -> None:
    async with stage(held, bound=1.0) as tokenizing:
        small = [
            asyncio.create_task(tokenizing.run("x", [SLICE - 64], held.read("small"), caller=str(number)))
            for number in range(110)
        ]
        await held.until_entered()
        held.free()
        outcomes = await asyncio.gather(*small, return_exceptions=True)
        refused = [isinstance(outcome, OverloadedError) for outcome in outcomes]
        assert refused == sorted(refused)
        # Each of them is a hundredth of the bound.
        assert 5 <= sum(refused) <= 10


async def test_a_tokenizer_that_fails_fails_its_request_alone(held: Held) -> None:
    def broken(start: int, end: int) -> Tokenized:
        raise RuntimeError("no such table")

    async with stage(held) as tokenizing:
        with pytest.raises(RuntimeError, match="no such table"):
            await tokenizing.run("x", [SLICE] * 10, broken)
        held.free()
        assert len((await tokenizing.run("x", [SLICE] * 10, held.read("next"))).batch) == 10


def test_the_rate_follows_what_runs_take_but_not_a_pause_of_the_machine() -> None:
    rate = Rate()
    for _ in range(100):
        rate.learn(100_000, 100_000 * 1e-8)
    assert rate.seconds == pytest.approx(1e-8, rel=0.1)
    rate.learn(100_000, 1000.0)
    assert rate.seconds < 2e-8
    rate.learn(LEAST_BYTES - 1, 1000.0)
    assert rate.seconds < 2e-8


async def test_a_rate_that_is_too_high_refuses_nobody_for_good(held: Held) -> None:
    held.free()
    async with stage(held) as tokenizing:
        for attempt in range(1000):
            try:
                found = await tokenizing.run("x", [SLICE] * 1000, held.read("fast"), deadline=1.0)
            except DeadlineError:
                continue
            assert attempt > 0
            assert len(found.batch) == 1000
            return
    pytest.fail("refused every time")


@pytest.mark.parametrize("tokenizer", TOKENIZERS, ids=lambda tokenizer: tokenizer.kind)
@given(
    request=st.lists(st.one_of(st.binary(max_size=20), st.text("CNOx", max_size=20).map(str.encode)), min_size=1),
    cuts=st.sets(st.integers(1, 100)),
    truncate=st.booleans(),
)
def test_slices_together_are_the_whole(
    tokenizer: Tokenizer, request: list[bytes], cuts: set[int], truncate: bool
) -> None:
    def read(start: int, end: int) -> Tokenized:
        return tokenize(tokenizer, request[start:end], max_length=8, max_bytes=15, truncate=truncate)

    same(Tokenized.concatenate([read(*ends) for ends in slices(len(request), cuts)]), read(0, len(request)))


@given(lengths=st.lists(st.integers(0, 6), min_size=1), cuts=st.sets(st.integers(1, 100)), truncate=st.booleans())
def test_slices_of_features_together_are_the_whole(lengths: list[int], cuts: set[int], truncate: bool) -> None:
    random = np.random.default_rng(len(lengths))
    batch = RaggedBatch.from_features([random.standard_normal((length, 3), dtype=np.float32) for length in lengths])
    batch.values[::7] = np.nan

    def read(start: int, end: int) -> Tokenized:
        return read_features(batch.between(start, end), max_length=4, truncate=truncate)

    same(Tokenized.concatenate([read(*ends) for ends in slices(len(batch), cuts)]), read(0, len(batch)))


@pytest.mark.parametrize("tokenizer", TOKENIZERS, ids=lambda tokenizer: tokenizer.kind)
@given(
    requests=st.lists(
        st.lists(
            st.one_of(st.binary(max_size=20), st.text("CNOx", max_size=20).map(str.encode)), min_size=1, max_size=4
        ),
        min_size=1,
    ),
    truncate=st.booleans(),
)
def test_requests_read_together_are_those_read_alone(
    tokenizer: Tokenizer, requests: list[list[bytes]], truncate: bool
) -> None:
    reader = StringReader(tokenizer, tokenizer.vocab_size, max_length=8, max_bytes=15, truncate=truncate)
    together = reader.read([sequence for request in requests for sequence in request])
    for found, request in zip(together.divided(list(map(len, requests))), requests, strict=True):
        same(found, reader.read(request))


def slices(count: int, cuts: set[int]) -> list[tuple[int, int]]:
    ends = [0, *sorted(cut for cut in cuts if cut < count), count]
    return list(itertools.pairwise(ends))


def same(found: Tokenized, expected: Tokenized) -> None:
    assert found.batch.values.dtype == expected.batch.values.dtype
    assert np.array_equal(found.batch.values, expected.batch.values)
    for name in ("rows", "unknown", "truncated"):
        assert getattr(found, name).tolist() == getattr(expected, name).tolist()
    assert found.batch.lengths.tolist() == expected.batch.lengths.tolist()
    assert found.errors == expected.errors
