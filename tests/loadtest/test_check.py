import numpy as np
import pytest

from birnn_loadtest.check import MOST_MESSAGES, Check, Sample
from birnn_loadtest.schedule import Part
from birnn_loadtest.targets.target import Reply
from tests.loadtest.virtual_time import Queue, vectors

PART = Part("smiles", None, 1.0, [b"C"])


def array(*numbers: float) -> "np.ndarray[tuple[int], np.dtype[np.float32]]":
    return np.array(numbers, dtype=np.float32)


def test_the_same_bits_are_equal() -> None:
    check = Check()
    check.compare("a", array(1, 2), array(1, 2), 0.0)
    check.compare("b", array(np.nan, np.nan), array(np.nan, np.nan), 0.0)
    assert (check.compared, check.equal, check.wrong) == (2, 2, 0)


def test_small_differences_are_told_and_large_ones_are_wrong() -> None:
    check = Check()
    check.compare("a", array(1, 10.0001), array(1, 10), 1e-4)
    assert (check.equal, check.wrong) == (0, 0)
    assert check.largest == pytest.approx(1e-5, rel=0.1)
    check.compare("b", array(1, 10.01), array(1, 10), 1e-4)
    assert check.wrong == 1
    assert "b: differs by 0.001 of its largest number" in check.messages[0]


def test_what_cannot_be_compared_is_wrong() -> None:
    check = Check()
    check.compare("a", array(1), array(1, 2), 1)
    check.compare("b", array(np.nan, 1), array(1, 1), 1)
    check.compare("c", array(1, 1), array(np.nan, np.nan), 1)
    check.fail("d")
    assert check.wrong == check.compared == 4


async def test_rows_are_compared_with_the_same_sequences_alone() -> None:
    sample = Sample(100, 0)
    sequences = [b"CC", b"CCO", b"N"]
    sample.offer(PART, sequences, Reply(0, lambda: vectors(sequences)))
    sample.offer(PART, sequences, Reply(0, lambda: vectors(sequences)[[1, 0, 2]]))
    sample.offer(PART, sequences, Reply(0, lambda: vectors(sequences)[:2]))
    check = await sample.check(Queue([0.0]), 1.0, 0.0)
    # One reply is right, one has two rows mixed up, and one lacks a row.
    assert (check.compared, check.equal, check.wrong) == (7, 4, 3)
    assert any("the reply holds 2 vectors" in message for message in check.messages)


async def test_a_sequence_that_has_no_answer_alone_is_wrong() -> None:
    sample = Sample(1, 0)
    sample.offer(PART, [b"C"], Reply(0, lambda: vectors([b"C"])))
    check = await sample.check(Queue([0.0], fail=1), 1.0, 0.0)
    assert check.wrong == 1
    assert "alone it has no answer: UNAVAILABLE" in check.messages[0]


def test_every_reply_is_as_likely_to_be_kept() -> None:
    kept = np.zeros(10)
    for seed in range(2000):
        sample = Sample(3, seed)
        for number in range(10):
            sample.offer(PART, [str(number).encode()], Reply(0, lambda: vectors([])))
        for _, sequences, _ in sample._kept:
            kept[int(sequences[0])] += 1
    np.testing.assert_allclose(kept / 2000, 0.3, atol=0.05)


def test_messages_are_bounded() -> None:
    check = Check()
    for number in range(20):
        check.fail(str(number))
    other = Check()
    other.add(check)
    other.add(check)
    assert len(check.messages) == len(other.messages) == MOST_MESSAGES
    assert other.wrong == 40
