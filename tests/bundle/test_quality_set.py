"""Tables of sequences with a quantity, and what a ridge regression explains of it."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from birnn_bundle.quality_set import QualityError, explained, read_quality_set
from birnn_bundle.smiles import SmilesTokenizer

TOKENIZER = SmilesTokenizer.train(["CO"], minimum_count=1)


def table(path: Path, rows: list[str]) -> str:
    path.write_text("\n".join(["smiles,y", *rows]) + "\n")
    return f"{path}:smiles:y"


def test_rows_without_a_number_or_a_readable_sequence_are_left_out_and_long_ones_cut(tmp_path: Path) -> None:
    good = [f"{'C' * (1 + number % 7)},{number / 10}" for number in range(60)]
    entry = table(tmp_path / "t.csv", ["not a molecule,1", "CO,", "CO,many", "CO,nan", ",5", *good, "CO,1,2"])
    found = read_quality_set(entry, TOKENIZER, max_length=4)
    assert (found.name, len(found.batch), found.left_out) == ("t.csv:y", 60, 6)
    assert found.targets.tolist() == [number / 10 for number in range(60)]
    assert found.batch.lengths.max() == 4


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (["CO,1"] * 49, "49 of 49 rows .* 50 at least"),
        (["CO,1"] * 60, "column 'y' are the same"),
    ],
)
def test_a_table_that_says_nothing_is_refused(tmp_path: Path, rows: list[str], message: str) -> None:
    with pytest.raises(QualityError, match=message):
        read_quality_set(table(tmp_path / "t.csv", rows), TOKENIZER, 10)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("t.csv:smiles", "not FILE:COLUMN:TARGET"),
        ("t.smi:smiles:y", "has no columns"),
        ("missing.csv:smiles:y", "No such file"),
        ("t.csv:smiles:z", "no column 'z'"),
    ],
)
def test_what_is_no_such_table_is_named(tmp_path: Path, entry: str, message: str) -> None:
    table(tmp_path / "t.csv", ["CO,1"])
    with pytest.raises(QualityError, match=message):
        read_quality_set(f"{tmp_path}/{entry}", TOKENIZER, 10)


def test_without_scikit_learn_it_says_what_to_install_before_anything_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(QualityError, match=r"pip install 'birnn-serving\[sklearn\]'"):
        read_quality_set("missing.csv:smiles:y", TOKENIZER, 10)


def test_what_is_linear_in_the_vectors_is_explained_and_noise_is_not() -> None:
    random = np.random.default_rng(0)
    vectors = random.standard_normal((200, 5)).astype(np.float32)
    assert explained(vectors, vectors @ np.arange(5.0)) > 0.95
    assert explained(vectors, random.standard_normal(200)) < 0.1
    assert explained(vectors, vectors[:, 0].astype(np.float64)) == explained(vectors, vectors[:, 0].astype(np.float64))
