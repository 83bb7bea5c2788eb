"""`python -m bench.quality`: frozen vectors of encoders beside fingerprints, descriptors and chance."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import click
import numpy as np
import torch
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits
from tqdm import tqdm

from bench.quality.baselines import BASELINES, SPARSE
from bench.quality.behavior import invariance, sequences_per_second
from bench.quality.encoders import BundleEncoder, TorchEncoder, encode, open_encoder, untrained
from bench.quality.heads import HEADS, Result, score
from bench.quality.report import EncoderFacts, write
from bench.quality.table import KNOWN, Table, TableError, read_table
from birnn_bundle.errors import BundleError
from birnn_export.training.checkpoint import CheckpointError
from birnn_service.errors import StartupError

SAMPLE = 1000
"""Molecules for invariance and cost, spread over all tables."""

Vectorize = Callable[[Sequence[str]], NDArray[np.float32]]


@click.command()
@click.argument("encoders", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--data", type=click.Path(path_type=Path), help="Folder with quality/cddd_lipo.csv and the other sets.")
@click.option("--table", "tables", multiple=True, metavar="FILE.csv:SMILES:TARGET[:FOLD]", help="Another set.")
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="Folder for the results.")
@click.option("--head", "heads", multiple=True, type=click.Choice(HEADS), help="Only this one; repeatable.")
@click.option("--baselines/--no-baselines", default=True, show_default=True, help="Fingerprints and the like as well.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of random folds and untrained encoders.")
def quality(
    encoders: tuple[Path, ...],
    data: Path | None,
    tables: tuple[str, ...],
    output: Path,
    heads: tuple[str, ...],
    baselines: bool,
    seed: int,
) -> None:
    """Judge the frozen vectors of ENCODERS: folders of bundles or of training runs.

    Each kind of vectors is the input of a ridge regression, a support vector machine and nearest neighbors, on every
    table, over folds. Targets of zeros and ones are classified. Results go to OUTPUT as CSV, Markdown and a plot.
    """
    if data is None and not tables:
        raise click.UsageError("give --data FOLDER, or at least one --table")
    torch.set_num_threads(1)
    try:
        known = [read_table(entry, name, data) for name, entry in KNOWN.items()] if data is not None else []
        sets = known + [read_table(entry) for entry in tables]
        opened = [open_encoder(path) for path in encoders]
    except (TableError, BundleError, StartupError, CheckpointError) as error:
        raise click.ClickException(str(error)) from error
    for table in sets:
        if table.left_out:
            click.echo(f"{table.name}: {table.left_out} rows left out (unreadable, or no number)", err=True)
    # One thread for all: what is compared is not speed, and servers count cores.
    with threadpool_limits(1):
        results = _scores(_vectors(opened, baselines, seed), sets, heads or HEADS, seed)
        facts = _facts(opened, sets)
    click.echo(write(output, results, facts))
    click.echo(output / "quality.png", err=True)


def _vectors(opened: Sequence[BundleEncoder | TorchEncoder], baselines: bool, seed: int) -> dict[str, Vectorize]:
    """Every way to turn SMILES into vectors, by name."""
    judged: list[BundleEncoder | TorchEncoder] = list(opened)
    if baselines:
        # One for each shape, whatever else differs.
        judged += [untrained(one, seed) for one in {one.shape: one for one in reversed(opened)}.values()]
    ways: dict[str, Vectorize] = {one.name: partial(encode, one) for one in judged}
    return ways | BASELINES if baselines else ways


def _scores(ways: dict[str, Vectorize], tables: Sequence[Table], heads: Sequence[str], seed: int) -> list[Result]:
    results = []
    with tqdm(total=len(tables) * len(ways) * len(heads), unit="score") as bar:
        for table in tables:
            for name, vectorize in ways.items():
                values = vectorize(table.smiles)
                for head in heads:
                    bar.set_postfix_str(f"{table.name}, {name}, {head}")
                    results.append(score(name, values, table, head, seed, name not in SPARSE))
                    bar.update()
    return results


def _facts(opened: Sequence[BundleEncoder | TorchEncoder], tables: Sequence[Table]) -> list[EncoderFacts]:
    everything = list(dict.fromkeys(one for table in tables for one in table.smiles))
    sample = everything[:: max(1, len(everything) // SAMPLE)][:SAMPLE]
    return [
        EncoderFacts(
            name=one.name,
            shape=one.shape,
            dimension=encode(one, sample[:1]).shape[1],
            invariance=invariance(one, sample),
            sequences_per_second=sequences_per_second(one, sample) if isinstance(one, BundleEncoder) else None,
        )
        for one in opened
    ]
