"""Sequences to measure with: a file of SMILES, shuffled by a seed."""

from pathlib import Path

import click
import numpy as np
from rdkit import Chem

from birnn_bundle.sequences import SequenceFile, SequenceFileError
from birnn_bundle.smiles import SmilesTokenizer
from birnn_bundle.tokenizer import Tokenized

SEED = 0
# Distinct sequences that a benchmark wants: no call in flight is to hold what another holds.
ENOUGH = 4096
DEFAULT = Path(__file__).parents[1] / "examples" / "molecules.smi"
OPTION = click.option(
    "--sequences",
    "file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    default=DEFAULT,
    show_default="examples/molecules.smi",
    help="SMILES to measure with: .smi, .txt or .csv, also .gz, .xz and .zst.",
)


def read_sequences(file: Path, tokenizer: SmilesTokenizer, max_length: int) -> tuple[list[str], Tokenized]:
    """Every distinct readable sequence of a file, shuffled, and all of them tokenized.

    A file of less than `ENOUGH` is filled up with other spellings of its molecules, by a seed.

    Raises:
        click.ClickException: The file cannot be read, or holds no SMILES.
    """
    try:
        with SequenceFile(file, None, None) as lines:
            found = [line.sequence for line in lines if line.sequence]
    except SequenceFileError as error:
        raise click.ClickException(str(error)) from error
    distinct = list(dict.fromkeys(found))
    if len(distinct) < ENOUGH:
        distinct = respelled(distinct, ENOUGH)
    readable = [distinct[row] for row in tokenizer.tokenize(distinct, max_length).rows.tolist()]
    if not readable:
        raise click.ClickException(f"{file}: holds no SMILES")
    order = np.random.default_rng(SEED).permutation(len(readable))
    shuffled = [readable[row] for row in order.tolist()]
    return [sequence.decode() for sequence in shuffled], tokenizer.tokenize(shuffled, max_length)


def respelled(smiles: list[bytes], count: int) -> list[bytes]:
    """The given SMILES and random spellings of the same molecules, `count` in all or as many as there are."""
    molecules = [molecule for text in smiles if (molecule := Chem.MolFromSmiles(text.decode(errors="replace")))]
    distinct = dict.fromkeys(smiles)
    # Small molecules have few spellings: more of the others.
    share = count // max(1, len(molecules)) + 1
    for wanted in (share, 4 * share):
        for molecule in molecules:
            if len(distinct) >= count:
                break
            spellings = Chem.MolToRandomSmilesVect(molecule, wanted, randomSeed=SEED + 1)
            distinct.update(dict.fromkeys(spelling.encode() for spelling in spellings))
    return list(distinct)[:count]
