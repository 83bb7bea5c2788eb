"""Environments of atoms, found by RDKit and brought to the tokens that write them."""

from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest
import torch
from rdkit import Chem
from rdkit.Chem import rdFingerprintGenerator

from birnn_bundle.smiles import split
from birnn_export.training import environments
from birnn_export.training.dataset import DatasetSettings, prepare
from birnn_export.training.environments import RADII, atom_environments, classify
from birnn_export.training.spellings import random_spellings
from tests.export.training.conftest import MOLECULES

SMILES = [
    "CC(=O)Nc1ccc(O)cc1",
    "C[C@H](N)C(=O)[O-].C[N+](C)(C)C",
    "Clc1ccc2[nH]ccc2c1",
    "FC(F)(F)C%10CC%10",
    "C[Si](C)(C)Br",
]


def counted(smiles: str) -> Counter[tuple[int, ...]]:
    """How often each pair of environments occurs."""
    found = atom_environments([smiles], workers=1)
    return Counter(map(tuple, found[found.any(axis=1)].tolist()))


def test_atoms_have_environments_and_other_tokens_have_none() -> None:
    found = atom_environments(SMILES, workers=1)
    tokens = [token for one in SMILES for token in split(one)]
    is_atom = np.array([token[0].isalpha() or token[0] == "[" for token in tokens])
    assert found.shape == (len(tokens), len(RADII))
    assert found[is_atom].all()
    assert not found[~is_atom].any()


@pytest.mark.parametrize("smiles", SMILES)
def test_spellings_agree(smiles: str) -> None:
    """The same environments as often, whatever the order in which the atoms are written."""
    (spellings,) = random_spellings([smiles], 8, workers=1)
    expected = counted(smiles)
    assert len(set(spellings)) > 1
    for spelling in spellings:
        assert counted(spelling) == expected


def test_they_are_those_of_the_fingerprint() -> None:
    generator = rdFingerprintGenerator.GetMorganGenerator(radius=max(RADII), includeRedundantEnvironments=True)
    for smiles in SMILES:
        counts = generator.GetSparseCountFingerprint(Chem.MolFromSmiles(smiles)).GetNonzeroElements()
        found = atom_environments([smiles], workers=1)
        own = Counter(found[found > 0].tolist())
        assert own == {identifier: counts[identifier] for identifier in own}


def test_the_larger_environment_tells_the_smaller_one() -> None:
    smaller = defaultdict(set)
    for small, large in atom_environments([*SMILES, *MOLECULES], workers=1).tolist():
        smaller[large].add(small)
    assert all(len(one) == 1 for one in smaller.values())


@pytest.mark.parametrize("smiles", ["[H]OC", "C(C", "[Na+]"])
def test_smiles_without_environments_leave_their_tokens_at_zero(smiles: str) -> None:
    """RDKit drops atoms, cannot read them, or they stand alone."""
    found = atom_environments(["CC", smiles, "CO"], workers=1)
    assert found.shape == (4 + len(split(smiles)), len(RADII))
    assert not found[2:-2].any()
    assert found[[0, 1, -2, -1]].all()


def test_frequent_environments_are_numbered_from_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environments, "CLASSES", (2, 9))
    frequent = np.array([[7, 70], [7, 70], [7, 71], [5, 70], [5, 72], [9, 72], [0, 0], [0, 0], [0, 0]], np.uint32)
    numbered = classify(np.array([[5, 71], [7, 70], [9, 72], [0, 0], [8, 99]], np.uint32), frequent)
    assert numbered.tolist() == [[2, 3], [1, 1], [0, 2], [0, 0], [0, 0]]
    assert not classify(frequent, np.zeros((4, 2), np.uint32)).any()


def test_batches_hold_the_environments_of_their_tokens() -> None:
    settings = DatasetSettings(minimum_count=1, validation_share=0.2, spellings=2, max_length=12)
    dataset = prepare(MOLECULES, settings, {"atoms": 1.0}, exclude=["CCO"], workers=1)
    rows = dataset.train[::3]
    batch = dataset.batch(rows, torch.device("cpu"))
    assert batch.environments is not None
    assert batch.environments.shape == (*batch.ids.shape, len(RADII))
    pairs = set()
    for place, row in enumerate(rows):
        smiles = dataset.tokenizer.decode(dataset.sequences.row(row).tolist())
        # With so few molecules every environment is frequent enough for a number, and has one only.
        expected = atom_environments([smiles], workers=1)
        found = batch.environments[place, : len(expected)].numpy()
        assert np.array_equal(found > 0, expected > 0)
        pairs |= {
            (radius, identifier, number)
            for radius in range(len(RADII))
            for identifier, number in zip(expected[:, radius].tolist(), found[:, radius].tolist(), strict=True)
        }
        assert not batch.environments[place, len(expected) :].any()
    assert len(pairs) == len({pair[:2] for pair in pairs}) == len({(pair[0], pair[2]) for pair in pairs})


def test_cache_is_used_for_the_same_request_only_and_survives_damage(tmp_path: Path) -> None:
    first = atom_environments(SMILES, workers=1, cache=tmp_path)
    (file,) = tmp_path.iterdir()
    written = file.stat().st_mtime_ns
    assert np.array_equal(atom_environments(SMILES, workers=1, cache=tmp_path), first)
    assert file.stat().st_mtime_ns == written
    assert len(atom_environments(SMILES[:2], workers=1, cache=tmp_path)) < len(first)
    file.write_bytes(file.read_bytes()[:40])
    assert np.array_equal(atom_environments(SMILES, workers=1, cache=tmp_path), first)
