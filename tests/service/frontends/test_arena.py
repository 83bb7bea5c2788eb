import os
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from birnn_bundle.ragged import RaggedBatch
from birnn_service.errors import InvalidRequestError, OverloadedError
from birnn_service.frontends import arena as module
from birnn_service.frontends.arena import Arena, Blocks, create_memory, pieces

MIB = 1 << 20


def batch_of(*lengths: int) -> RaggedBatch:
    return RaggedBatch.from_lists([np.arange(length, dtype=np.int32) + length for length in lengths])


@pytest.fixture
def memory() -> Iterator[int]:
    descriptor = create_memory(8 * MIB)
    yield descriptor
    os.close(descriptor)


def held(memory: int) -> int:
    """Bytes of the machine's memory that the arena takes."""
    return os.fstat(memory).st_blocks * 512


def test_a_request_written_on_one_side_is_read_on_the_other_and_so_is_its_result(memory: int) -> None:
    ours, theirs = Arena(memory), Arena(memory)
    blocks = Blocks(ours)
    batches = [batch_of(1), batch_of(3, 5, 2), batch_of(*range(1, 200))]
    starts = [blocks.take(batch, len(batch), 16) for batch in batches]
    for batch, start in zip(batches, starts, strict=True):
        found = theirs.read_batch(start, len(batch), batch.tokens)
        assert found.ids.tolist() == batch.ids.tolist()
        assert found.offsets.tolist() == batch.offsets.tolist()
    for number, (batch, start) in enumerate(zip(batches, starts, strict=True)):
        theirs.values(start, len(batch), 16)[:] = number
    for number, (batch, start) in enumerate(zip(batches, starts, strict=True)):
        assert (ours.values(start, len(batch), 16) == number).all()
        blocks.give_back(start)
    assert blocks.used == 0


def test_what_was_read_stays_when_the_block_becomes_another_s(memory: int) -> None:
    arena = Arena(memory)
    blocks = Blocks(arena)
    start = blocks.take(batch_of(4, 4), 2, 8)
    found = arena.read_batch(start, 2, 8)
    blocks.give_back(start)
    assert blocks.take(batch_of(9, 9), 2, 8) == start
    assert found.ids.tolist() == batch_of(4, 4).ids.tolist()


@pytest.mark.parametrize(
    ("start", "sequences", "tokens"),
    [(8 * MIB, 1, 1), (8 * MIB - 16, 1, 1), (0, 1, 1 << 40), (0, 1 << 32, 0), (4, 1, 1)],
)
def test_a_request_outside_the_arena_is_not_read(memory: int, start: int, sequences: int, tokens: int) -> None:
    with pytest.raises(ValueError, match="outside"):
        Arena(memory).read_batch(start, sequences, tokens)
    with pytest.raises(ValueError, match="outside"):
        Arena(memory).values(8 * MIB - 64, 4, 8)


def test_offsets_that_are_none_are_not_read(memory: int) -> None:
    arena = Arena(memory)
    arena.values(0, 1, 64)[:] = 1.0
    with pytest.raises(ValueError, match="offsets"):
        arena.read_batch(0, 3, 5)


def test_a_full_arena_refuses_and_takes_again_once_there_is_room(memory: int) -> None:
    blocks = Blocks(Arena(memory))
    starts = [blocks.take(batch_of(10), 1, MIB // 4) for _ in range(8)]
    with pytest.raises(OverloadedError, match=r"8 of 8 MiB.*--frontend-memory-mib") as caught:
        blocks.take(batch_of(10), 1, MIB // 4)
    assert caught.value.retry_after > 0
    blocks.give_back(starts[3])
    assert blocks.take(batch_of(10), 1, MIB // 4) == starts[3]


def test_what_could_never_fit_is_the_caller_s_to_change(memory: int) -> None:
    with pytest.raises(InvalidRequestError, match="split"):
        Blocks(Arena(memory)).take(batch_of(10), 3, MIB)


@pytest.mark.parametrize("order", [1, -1])
def test_memory_that_is_free_goes_back_to_the_system(memory: int, order: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "KEEP_BYTES", MIB)
    arena = Arena(memory)
    blocks = Blocks(arena)
    # Small blocks, several of which share each page.
    starts = [blocks.take(batch_of(2), 1, 512) for _ in range(3 * MIB // 2048)]
    for start in starts:
        arena.values(start, 1, 512)[:] = 1.0
    assert held(memory) >= 3 * MIB
    for start in starts[::order]:
        blocks.give_back(start)
    assert held(memory) <= MIB


@settings(deadline=None)
@given(st.data())
def test_giving_memory_back_never_touches_a_neighbor(data: st.DataObject) -> None:
    memory = create_memory(MIB)
    try:
        arena = Arena(memory)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(module, "KEEP_BYTES", 0)
            blocks = Blocks(arena)
            live: dict[int, int] = {}
            for number in range(1, 30):
                width = data.draw(st.integers(1, 5000))
                start = blocks.take(batch_of(1), 1, width)
                arena.values(start, 1, width)[:] = number
                live[start] = number
                if data.draw(st.booleans()):
                    freed = data.draw(st.sampled_from(sorted(live)))
                    del live[freed]
                    blocks.give_back(freed)
                assert all(arena.values(start, 1, 1).item() == value for start, value in live.items())
    finally:
        os.close(memory)


def test_neither_side_can_cut_the_memory_off(memory: int) -> None:
    with pytest.raises(PermissionError):
        os.ftruncate(memory, 0)


@settings(deadline=None)
@given(st.integers(0, 100), st.integers(0, 50), st.integers(1, 500))
def test_pieces_cover_every_row_once(rows: int, row_bytes: int, piece_bytes: int) -> None:
    covered = [row for piece in pieces(rows, row_bytes, piece_bytes) for row in range(rows)[piece]]
    assert covered == list(range(rows))


def test_a_request_of_features_is_read_on_the_other_side_too(memory: int) -> None:
    ours, theirs = Arena(memory), Arena(memory)
    batch = RaggedBatch.from_features([np.full((length, 3), length + 0.5, dtype=np.float32) for length in (4, 1)])
    start = Blocks(ours).take(batch, len(batch), 16)
    found = theirs.read_batch(start, 2, 5, 3)
    assert np.array_equal(found.values, batch.values)
    assert found.lengths.tolist() == [4, 1]
    with pytest.raises(ValueError, match="lies outside"):
        theirs.read_batch(start, 2, 5, MIB)
