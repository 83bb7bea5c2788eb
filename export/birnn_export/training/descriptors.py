"""Descriptors of one molecule that RDKit computes fast, as regression targets in three groups.

| group | what |
|---|---|
| descriptors | the 43 of `rdMolDescriptors.Properties` (which hold five of the seven that CDDD regresses: logP, MR, HBA, HBD, TPSA) and the other two of CDDD's: Balaban's J and the number of valence electrons |
| surfaces | surface areas by logP, refractivity, charge and E-state (SlogP_VSA, SMR_VSA, PEOE_VSA, EState_VSA, VSA_EState) and the extreme partial charges |
| groups | counts: the 42 molecular quantum numbers and RDKit's functional groups (`fr_...`) |
"""  # noqa: E501

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, Literal

from rdkit.Chem import Descriptors, Fragments, GraphDescriptors, rdMolDescriptors
from rdkit.Chem.EState import EState_VSA

DescriptorGroup = Literal["descriptors", "surfaces", "groups"]

_PROPERTIES: tuple[str, ...] = tuple(rdMolDescriptors.Properties.GetAvailableProperties())
_CHARGES = ("MaxPartialCharge", "MinPartialCharge")
_FUNCTIONAL_GROUPS: tuple[str, ...] = tuple(sorted(name for name in dir(Fragments) if name.startswith("fr_")))
_QUANTUM_NUMBERS = 42

# RDKit types these as untyped functions. Each gives one value, or one value a bin.
_balaban_j: Callable[[Any], float] = GraphDescriptors.BalabanJ
_valence_electrons: Callable[[Any], float] = Descriptors.NumValenceElectrons
_SURFACES: dict[str, tuple[int, Callable[[Any], list[float]]]] = {
    "SlogP_VSA": (12, rdMolDescriptors.SlogP_VSA_),
    "SMR_VSA": (10, rdMolDescriptors.SMR_VSA_),
    "PEOE_VSA": (14, rdMolDescriptors.PEOE_VSA_),
    "EState_VSA": (11, EState_VSA.EState_VSA_),
    "VSA_EState": (10, EState_VSA.VSA_EState_),
}

DESCRIPTOR_NAMES: dict[DescriptorGroup, tuple[str, ...]] = {
    "descriptors": (*_PROPERTIES, "BalabanJ", "NumValenceElectrons"),
    "surfaces": (*(f"{name}{1 + one}" for name, (bins, _) in _SURFACES.items() for one in range(bins)), *_CHARGES),
    "groups": (*(f"MQN{1 + one}" for one in range(_QUANTUM_NUMBERS)), *_FUNCTIONAL_GROUPS),
}


def describe(molecule: Any) -> list[float]:
    """All descriptors of an RDKit molecule, the groups one after another in the order of `DESCRIPTOR_NAMES`."""
    values = [*_properties().ComputeProperties(molecule), _balaban_j(molecule), _valence_electrons(molecule)]
    for _, bins in _SURFACES.values():
        values.extend(bins(molecule))
    values.extend(getattr(Descriptors, name)(molecule) for name in _CHARGES)
    values.extend(rdMolDescriptors.MQNs_(molecule))
    values.extend(getattr(Fragments, name)(molecule) for name in _FUNCTIONAL_GROUPS)
    return values


def columns(group: DescriptorGroup) -> slice:
    """Where the descriptors of a group stand among all."""
    start = 0
    for name, members in DESCRIPTOR_NAMES.items():
        if name == group:
            return slice(start, start + len(members))
        start += len(members)
    raise KeyError(group)


@cache
def _properties() -> Any:
    return rdMolDescriptors.Properties()
