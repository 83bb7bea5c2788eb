"""`python -m bench.quality.similarity_command`: frozen vectors of sentences beside bags of words and chance."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import click
import torch
from threadpoolctl import threadpool_limits
from tqdm import tqdm

from bench.quality.encoders import encode, open_encoder, untrained
from bench.quality.sentence_pairs import DEV, TRAIN, Vectorize, bags_of_words, read_sentence_pairs
from bench.quality.similarity import REGRESSIONS, judge
from bench.quality.similarity_report import write
from birnn_bundle.errors import BundleError
from birnn_bundle.sequences import SequenceFileError
from birnn_export.training.checkpoint import CheckpointError
from birnn_service.errors import StartupError


@click.command()
@click.argument("encoders", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--data", type=click.Path(path_type=Path), required=True, help="Folder with text/stsb-{train,dev}.tsv.")
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="Folder for the results.")
@click.option(
    "--regression",
    "regressions",
    multiple=True,
    type=click.Choice(REGRESSIONS),
    default=("ridge",),
    show_default=True,
    help="On frozen vectors; repeatable.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Of untrained encoders.")
def similarity(encoders: tuple[Path, ...], data: Path, output: Path, regressions: tuple[str, ...], seed: int) -> None:
    """Judge how ENCODERS of text, folders of bundles or of training runs, tell similar sentences.

    Cosines and regressions on frozen vectors are compared with the scores of the STS benchmark's development set,
    beside those of an untrained encoder of each shape and of bags of words. Regressions, and the rarity of words, come
    from its training file. Results go to OUTPUT as CSV, Markdown and a plot.
    """
    torch.set_num_threads(1)
    try:
        train, dev = (read_sentence_pairs(data, entry) for entry in (TRAIN, DEV))
        opened = [open_encoder(path) for path in encoders]
    except (SequenceFileError, BundleError, StartupError, CheckpointError) as error:
        raise click.ClickException(str(error)) from error
    if wrong := [one.name for one in opened if one.tokenizer.kind == "smiles"]:
        raise click.UsageError(f"{', '.join(wrong)}: reads molecules, not text")
    ways: dict[str, Vectorize] = {one.name: partial(encode, one) for one in opened}
    for random in (untrained(one, seed) for one in opened):
        ways[random.name] = partial(encode, random)
    ways |= bags_of_words([*train.sentences, *dev.sentences], train.sentences)
    with threadpool_limits(1):
        results = [
            result
            for name, vectorize in tqdm(ways.items(), unit="vectors")
            for result in judge(name, vectorize, train, dev, tuple(dict.fromkeys(regressions)))
        ]
    click.echo(write(output, results))
    click.echo(output / "similarity.png", err=True)


if __name__ == "__main__":
    similarity(prog_name="python -m bench.quality.similarity_command")
