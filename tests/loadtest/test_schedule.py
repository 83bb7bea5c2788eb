from collections import Counter
from itertools import islice

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from birnn_loadtest.arrivals import Process, Rate, Trace
from birnn_loadtest.schedule import Call, Mix, Part, Schedule

SMILES = [f"C{number}".encode() for number in range(50)]
TEXT = [f"word {number}".encode() for number in range(20)]
MIX = Mix([Part("smiles", None, 3.0, SMILES), Part("text", "1", 1.0, TEXT)], [(1, 9.0), (8, 1.0)])


def schedule(rate: float = 500, seconds: float = 2, seed: int = 0, mix: Mix = MIX) -> Schedule:
    return Schedule(Process(Rate(rate, rate)), mix, 0.5, seconds, seed)


@given(shares=st.integers(1, 7), rate=st.floats(1, 5000), seed=st.integers(0, 100))
def test_processes_share_the_same_calls_whatever_their_number(shares: int, rate: float, seed: int) -> None:
    whole = list(schedule(rate, 1, seed).calls())
    parts = [list(schedule(rate, 1, seed).calls(share, shares)) for share in range(shares)]
    assert sorted((call for part in parts for call in part), key=lambda call: call.number) == whole
    assert [call.number for call in whole] == list(range(len(whole)))
    assert all(call.number % shares == share for share, part in enumerate(parts) for call in part)


def test_calls_carry_encoders_and_sizes_by_weight() -> None:
    calls = list(schedule(seconds=40).calls())
    kinds = Counter((call.part, len(call.sequences)) for call in calls)
    for (part, size), share in {(0, 1): 0.675, (0, 8): 0.075, (1, 1): 0.225, (1, 8): 0.025}.items():
        assert kinds[part, size] / len(calls) == pytest.approx(share, abs=0.02)
    assert all(set(call.sequences) <= set((SMILES, TEXT)[call.part]) for call in calls)
    drawn = Counter(sequence for call in calls if call.part == 0 for sequence in call.sequences)
    assert set(drawn) == set(SMILES)
    assert max(drawn.values()) < 1.5 * min(drawn.values())


def test_what_calls_carry_changes_no_arrivals() -> None:
    other = Mix([Part("text", None, 1.0, TEXT)], [(100, 1.0)])
    assert [call.due for call in schedule().calls()] == [call.due for call in schedule(mix=other).calls()]


def test_large_calls_are_drawn_in_bounded_pieces() -> None:
    mix = Mix([Part("smiles", None, 1.0, SMILES)], [(16_384, 1.0)])
    sizes = [len(call.sequences) for call in islice(schedule(mix=mix).calls(), 20)]
    assert sizes == [16_384] * 20


def test_a_closed_loop_has_calls_without_end() -> None:
    calls = list(islice(Schedule(None, MIX, 0, 1, 0).calls(1, 2), 5000))
    assert [call.number for call in calls] == list(range(1, 10_000, 2))


def test_a_trace_decides_what_it_says_and_the_seed_the_rest() -> None:
    times = np.arange(10_000) / 100
    names = ["text" if number % 3 else "smiles" for number in range(10_000)]
    batches = np.arange(10_000) % 5 + 1
    full = Trace("trace.csv", times, names, batches)
    calls = list(Schedule(full, MIX, 0, 90, 0).calls())
    assert [call.due for call in calls] == times[:9000].tolist()
    assert [MIX.parts[call.part].encoder for call in calls] == names[:9000]
    assert [len(call.sequences) for call in calls] == batches[:9000].tolist()
    bare = list(Schedule(Trace("trace.csv", times, None, None), MIX, 0, 90, 0).calls())
    assert {len(call.sequences) for call in bare} == {1, 8}
    assert isinstance(bare[0], Call)
