import sys
from pathlib import Path

import pytest

from birnn_bundle.bundle import Bundle
from birnn_service.call import Call, Spent
from birnn_service.catalog import Encoders
from birnn_service.engine.engine import EngineInfo
from birnn_service.errors import StartupError
from birnn_service.frontends.setup import RemoteEncoder
from birnn_service.memory_budget import MemoryBudget
from birnn_service.statistics import MOST_ROWS, Part, Statistics, Tally

MODELS = Path(__file__).parents[2] / "models"
INFO = EngineInfo("fake", "cpu", "float32", 1, 8, True)
FIRST, SECOND = ("smiles", "1"), ("smiles", "2")


@pytest.fixture(scope="module")
def encoders() -> Encoders[RemoteEncoder]:
    bundles = [Bundle.load(MODELS / name / version) for name, version in (FIRST, SECOND)]
    return Encoders([RemoteEncoder(bundle.manifest, bundle.tokenizer, INFO) for bundle in bundles], {})


def call(encoder: RemoteEncoder | None, spent: Spent | None = None) -> Call:
    return Call("someone", None, MemoryBudget(1).open("someone"), encoder, spent=spent)


def test_calls_are_counted_by_version_and_outcome(encoders: Encoders[RemoteEncoder]) -> None:
    statistics = Statistics(encoders)
    assert statistics.of(encoders.find(*FIRST).instance).last == 0
    first = encoders.find(*FIRST)
    statistics.count_call(call(first, Spent(3, 0.25, 0.5, 1.0, 0.0)), well=True)
    statistics.count_call(call(first, Spent(2, 0.25, 0.5, 1.0, 0.0)), well=True)
    statistics.count_call(call(first), well=False)
    # Of sequences of a call that failed nothing came of it.
    statistics.count_call(call(first, Spent(7, 1.0, 1.0, 1.0, 0.0)), well=False)
    statistics.count_call(call(None), well=False)
    totals = statistics.of(encoders.find(*FIRST).instance)
    assert totals.sequences == 5
    assert totals.last > 0
    assert [totals.parts[part].count for part in (Part.SUCCESS, Part.FAIL, Part.REPLY)] == [2, 2, 2]
    assert totals.parts[Part.TOKENIZE] == Tally(2, 500_000_000)
    assert totals.parts[Part.QUEUE] == Tally(2, 1_000_000_000)
    assert totals.parts[Part.COMPUTE] == Tally(2, 2_000_000_000)
    other = statistics.of(encoders.find(*SECOND).instance)
    assert (other.last, other.sequences, set(other.parts.values())) == (0, 0, {Tally(0, 0)})


def test_batches_are_counted_by_size(encoders: Encoders[RemoteEncoder]) -> None:
    statistics = Statistics(encoders)
    for sequences in (1, 8, 8):
        statistics.count_batch(encoders.find(*SECOND).instance, sequences, 0.5)
    assert statistics.of(encoders.find(*SECOND).instance).batches == {
        1: Tally(1, 500_000_000),
        8: Tally(2, 1_000_000_000),
    }
    assert not statistics.of(encoders.find(*FIRST).instance).batches
    statistics.count_look_ups(encoders.find(*SECOND).instance, 3, 1, 0.4)
    assert statistics.of(encoders.find(*SECOND).instance).parts[Part.HIT] == Tally(3, 300_000_000)
    assert statistics.of(encoders.find(*SECOND).instance).parts[Part.MISS] == Tally(1, 100_000_000)


@pytest.mark.skipif(sys.platform != "linux", reason="front-ends need Linux")
def test_every_process_knows_what_all_have_counted(encoders: Encoders[RemoteEncoder]) -> None:
    engine = Statistics(encoders, 3)
    one, other = (Statistics(encoders, 3, number, engine.descriptor) for number in (1, 2))
    second = encoders.find(*SECOND)
    one.count_call(call(second, Spent(3, 0.0, 0.0, 0.0, 0.0)), well=True)
    other.count_call(call(second, Spent(4, 0.0, 0.0, 0.0, 0.0)), well=True)
    engine.count_batch(encoders.find(*SECOND).instance, 7, 1.0)
    # One that takes another's place counts on.
    Statistics(encoders, 3, 2, engine.descriptor).count_call(call(second), well=False)
    for statistics in (engine, one, other):
        totals = statistics.of(encoders.find(*SECOND).instance)
        assert totals.sequences == 7
        assert (totals.parts[Part.SUCCESS].count, totals.parts[Part.FAIL].count) == (2, 1)
        assert totals.batches == {7: Tally(1, 1_000_000_000)}


def test_a_row_that_is_free_again_begins_at_zero(encoders: Encoders[RemoteEncoder]) -> None:
    first, second = encoders.find(*FIRST), encoders.find(*SECOND)
    statistics = Statistics([first])
    statistics.count_call(call(first, Spent(3, 0.0, 0.0, 0.0, 0.0)), well=True)
    statistics.count_batch(first.instance, 3, 1.0)
    row = statistics.row(first)
    statistics.remove(first)
    statistics.add(second)
    assert statistics.row(second) == row
    assert (statistics.of(second.instance).sequences, statistics.of(second.instance).batches) == (0, {})


def test_there_are_no_more_rows_than_memory_for_them(encoders: Encoders[RemoteEncoder]) -> None:
    one = encoders.find(*FIRST)
    many = [RemoteEncoder(one.manifest, one.tokenizer, INFO) for _ in range(MOST_ROWS)]
    statistics = Statistics(many)
    with pytest.raises(StartupError, match="unload some"):
        statistics.add(one)
    statistics.remove(many[5])
    statistics.add(one)
    assert statistics.row(one) == 5
