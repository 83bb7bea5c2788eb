from pathlib import Path

import click
import pytest

from bench.encoders import VOCABULARY
from bench.sequences import DEFAULT, ENOUGH, read_sequences, respelled
from birnn_bundle.smiles import SmilesTokenizer

TOKENIZER = SmilesTokenizer.from_json(VOCABULARY.read_text(encoding="utf-8"))


def test_sequences_are_distinct_readable_and_in_the_same_order_every_time(tmp_path: Path) -> None:
    file = tmp_path / "some.smi"
    file.write_text("".join(f"{'C' * length}O\n" for length in range(1, 40)) + "CO\nnonsense!\n\nCO\n")
    sequences, tokenized = read_sequences(file, TOKENIZER, 1024)
    assert len(sequences) == len(set(sequences)) == len(tokenized.batch)
    assert "nonsense!" not in sequences
    assert {"CO", "C" * 39 + "O"} <= set(sequences)
    assert read_sequences(file, TOKENIZER, 1024)[0] == sequences


def test_the_example_file_is_enough_for_every_load_by_other_spellings() -> None:
    sequences, tokenized = read_sequences(DEFAULT, TOKENIZER, 1024)
    assert len(sequences) == ENOUGH
    assert not tokenized.errors


def test_other_spellings_are_of_the_same_molecules() -> None:
    from rdkit import Chem

    known = [b"CC(=O)Oc1ccccc1C(=O)O", b"CCO"]
    spellings = respelled(known, 50)
    assert spellings[:2] == known
    assert len(set(spellings)) == 50
    molecules = {Chem.MolToSmiles(Chem.MolFromSmiles(spelling.decode())) for spelling in spellings}
    assert molecules == {Chem.MolToSmiles(Chem.MolFromSmiles(smiles.decode())) for smiles in known}


def test_a_file_without_smiles_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "none.smi").write_text("!!!\n")
    with pytest.raises(click.ClickException, match="holds no SMILES"):
        read_sequences(tmp_path / "none.smi", TOKENIZER, 1024)
