"""Every combination is exact on every engine, and the committed table speaks of all of them."""

from pathlib import Path

import pytest

from birnn_export.verification import TOLERANCE
from birnn_native.library import NativeUnavailableError, instruction_sets
from tests.verification.combinations import COLUMNS, COMBINATIONS, ENGINES, TABLE, Combination, entries, errors

try:
    NATIVE = bool(instruction_sets())
except NativeUnavailableError:
    NATIVE = False


@pytest.mark.parametrize("combination", COMBINATIONS, ids=lambda each: "-".join(each.cells))
def test_engines_give_what_pytorch_gives_in_float64(tmp_path: Path, combination: Combination) -> None:
    engines = combination.engines if NATIVE else ENGINES[:1]
    for engine, found in errors(combination, engines, tmp_path).items():
        assert set(found) == set(COLUMNS)
        # Written so that NaN fails.
        assert all(error <= TOLERANCE for error in found.values()), (engine, found)


def test_the_committed_table_has_every_combination_once_within_the_tolerance() -> None:
    rows = list(entries(TABLE.read_text(encoding="utf-8")))
    assert [row for row, _ in rows] == [
        (engine, *each.cells) for engine in ENGINES for each in COMBINATIONS if engine in each.engines
    ]
    assert all(0 < error <= TOLERANCE for _, row in rows for error in row.values())
