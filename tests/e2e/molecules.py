"""Molecules for the tests, made here: substituted rings and chains of many lengths."""

import itertools

CORES = [
    "c1ccc({})cc1",
    "C1CCN({})CC1",
    "c1cc({})c[nH]1",
    "O=C({})NC",
    "CC(C){}",
    "C[C@@H](N){}",
    "{}",
    "N#Cc1ccc({})nc1",
]
GROUPS = ["C", "CO", "C(=O)O", "N(C)C", "CCCCCC", "OC(F)(F)F", "S(=O)(=O)N", "c2ccccc2", "C(=O)NCCc2ccc(Cl)cc2", "Br"]


def molecules(count: int) -> list[str]:
    """`count` SMILES, from 1 token to about 80."""
    chains = ("C" * (number % 41) for number in itertools.count())
    endless = (
        core.format(chain + group)
        for chain, (core, group) in zip(chains, itertools.cycle(itertools.product(CORES, GROUPS)))
    )
    return list(itertools.islice(endless, count))


def chains(count: int, atoms: int) -> list[bytes]:
    """`count` different SMILES of `atoms` atoms each, at least 16: work that cannot be shared."""
    return [f"{number:0{atoms}b}".replace("0", "C").replace("1", "N").encode() for number in range(count)]
