"""Descriptors and fingerprints as targets, in one process or several, cached or not."""

from pathlib import Path

import numpy as np

from export.training.descriptors import (
    DESCRIPTOR_NAMES,
    FINGERPRINT_BITS,
    Molecules,
    canonical_smiles,
    describe_molecules,
)

SMILES = ["CCO", "not a molecule", "c1ccccc1O", "OCC", "[Na+].[Cl-]"]


def same(one: Molecules, other: Molecules) -> bool:
    arrays = ("usable", "descriptors", "fingerprints")
    return one.excluded == other.excluded and all(
        np.array_equal(getattr(one, name), getattr(other, name)) for name in arrays
    )


def test_known_values_of_ethanol() -> None:
    molecules = describe_molecules(SMILES, workers=1)
    assert molecules.usable.tolist() == [True, False, True, True, True]
    ethanol = dict(zip(DESCRIPTOR_NAMES, molecules.descriptors[0], strict=True))
    assert abs(ethanol["exactmw"] - 46.0419) < 1e-3
    assert ethanol["NumHBD"] == 1
    assert abs(ethanol["tpsa"] - 20.23) < 1e-4
    assert ethanol["NumValenceElectrons"] == 20
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
    file = tmp_path / "run" / "descriptors.npz"
    first = describe_molecules(SMILES, workers=1, cache_file=file)
    written = file.stat().st_mtime_ns
    assert same(first, describe_molecules(SMILES, workers=1, cache_file=file))
    assert file.stat().st_mtime_ns == written
    describe_molecules(SMILES[:1], workers=1, cache_file=file)
    assert file.stat().st_mtime_ns != written
    file.write_bytes(file.read_bytes()[:100])
    assert same(first, describe_molecules(SMILES, workers=1, cache_file=file))
