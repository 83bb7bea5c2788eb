"""Random SMILES of the same molecules."""

from pathlib import Path

from birnn_export.training.molecules import canonical_smiles
from birnn_export.training.spellings import random_spellings

SMILES = ["CC(=O)Nc1ccc(O)cc1", "CC(C)Cc1ccc(C(C)C(=O)O)cc1", "C[C@H](N)C(=O)O.Cl"]


def test_spellings_are_of_the_same_molecule_and_differ() -> None:
    for own, spellings in zip(SMILES, random_spellings(SMILES, 12, workers=1), strict=True):
        assert len(spellings) == 12
        assert canonical_smiles(spellings) == canonical_smiles([own])
        assert len(set(spellings)) > 6


def test_spellings_of_a_molecule_do_not_depend_on_the_others_or_the_processes() -> None:
    many = [f"{'C' * (1 + i % 40)}O" for i in range(600)]
    alone = random_spellings(many[:3], 4, workers=1)
    assert random_spellings(many, 4, workers=2)[:3] == alone


def test_cache_is_used_for_the_same_request_only_and_survives_damage(tmp_path: Path) -> None:
    first = random_spellings(SMILES, 3, workers=1, cache=tmp_path)
    (file,) = tmp_path.iterdir()
    written = file.stat().st_mtime_ns
    assert random_spellings(SMILES, 3, workers=1, cache=tmp_path) == first
    assert file.stat().st_mtime_ns == written
    assert [len(one) for one in random_spellings(SMILES, 2, workers=1, cache=tmp_path)] == [2, 2, 2]
    file.write_bytes(file.read_bytes()[:40])
    assert random_spellings(SMILES, 3, workers=1, cache=tmp_path) == first
