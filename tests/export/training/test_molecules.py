"""Descriptors and fingerprints as targets, in one process or several, cached or not."""

from itertools import chain
from pathlib import Path

import numpy as np
from rdkit import Chem
from rdkit.Chem import rdMolDescriptors

from birnn_export.training.descriptors import DESCRIPTOR_NAMES
from birnn_export.training.molecules import FINGERPRINT_BITS, Molecules, canonical_smiles, describe_molecules

SMILES = ["CCO", "not a molecule", "c1ccccc1O", "OCC", "[Na+].[Cl-]"]


def same(one: Molecules, other: Molecules) -> bool:
    arrays = ("usable", "descriptors", "fingerprints")
    return one.excluded == other.excluded and all(
        np.array_equal(getattr(one, name), getattr(other, name)) for name in arrays
    )


def test_known_values_of_ethanol() -> None:
    molecules = describe_molecules(SMILES, workers=1)
    assert molecules.usable.tolist() == [True, False, True, True, True]
    names = chain.from_iterable(DESCRIPTOR_NAMES.values())
    ethanol = dict(zip(names, molecules.descriptors[0], strict=True))
    assert abs(ethanol["exactmw"] - 46.0419) < 1e-3
    assert ethanol["NumHBD"] == 1
    assert abs(ethanol["tpsa"] - 20.23) < 1e-4
    assert ethanol["NumValenceElectrons"] == 20
    without_hydrogens = rdMolDescriptors.CalcLabuteASA(Chem.MolFromSmiles("CCO"), includeHs=False)
    for surface, bins in (("SlogP_VSA", 12), ("SMR_VSA", 10), ("PEOE_VSA", 14), ("EState_VSA", 11)):
        assert abs(sum(ethanol[f"{surface}{1 + one}"] for one in range(bins)) - without_hydrogens) < 0.1, surface
    assert abs(ethanol["MaxPartialCharge"] - 0.0403) < 1e-3
    assert ethanol["MQN12"] == 3  # heavy atoms
    assert ethanol["fr_Al_OH"] == 1
    # The same molecule written backward has the same targets; another one has not.
    assert np.array_equal(molecules.fingerprints[0], molecules.fingerprints[3])
    assert not np.array_equal(molecules.fingerprints[0], molecules.fingerprints[2])
    assert molecules.fingerprints.shape == (5, FINGERPRINT_BITS // 8)


def test_exclusion_is_by_canonical_smiles() -> None:
    molecules = describe_molecules(SMILES, frozenset(canonical_smiles(["C(O)C", "nonsense"])), workers=1)
    assert molecules.usable.tolist() == [False, False, True, False, True]
    assert molecules.excluded == 2


def test_several_processes_give_the_same_in_the_same_order() -> None:
    many = [f"{'C' * (1 + i % 40)}O" for i in range(1001)]
    assert same(describe_molecules(many, workers=2), describe_molecules(many, workers=1))


def test_cache_is_used_for_the_same_molecules_only_and_survives_damage(tmp_path: Path) -> None:
    first = describe_molecules(SMILES, workers=1, cache=tmp_path / "cache")
    (file,) = (tmp_path / "cache").iterdir()
    written = file.stat().st_mtime_ns
    assert same(first, describe_molecules(SMILES, workers=1, cache=tmp_path / "cache"))
    assert file.stat().st_mtime_ns == written
    other = describe_molecules(SMILES[:1], workers=1, cache=tmp_path / "cache")
    assert len(other.usable) == 1
    file.write_bytes(file.read_bytes()[:100])
    assert same(first, describe_molecules(SMILES, workers=1, cache=tmp_path / "cache"))
