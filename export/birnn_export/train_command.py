"""`birnn train`: from files of sequences to a checkpoint folder."""

from __future__ import annotations

import shlex
import signal
import sys
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, get_args

import click
from click.core import ParameterSource

from birnn_bundle.cells import Architecture, Nonlinearity
from birnn_bundle.corpus import read_entry, read_pairs, split_sentences
from birnn_bundle.manifest import Pooling
from birnn_bundle.numerals import counted
from birnn_bundle.sequences import SequenceFileError
from birnn_bundle.tokenizer import SPECIAL_TOKENS
from birnn_export.encoders import EncoderConfig
from birnn_export.training import checkpoint
from birnn_export.training.bag_start import start_as_bag
from birnn_export.training.checkpoint import CheckpointError, LoadedCheckpoint, load_encoder, read_training
from birnn_export.training.dataset import TOKENIZER_KINDS, Dataset, DatasetSettings, add_pairs, prepare
from birnn_export.training.device import resolve_device
from birnn_export.training.errors import TrainingError
from birnn_export.training.interrupts import collected_interrupts
from birnn_export.training.recipe import launcher, name_of, recipe
from birnn_export.training.replicas import Replicas, launched
from birnn_export.training.settings import OBJECTIVE_NAMES, Precision, Schedule, TrainingSettings, parse_objectives
from birnn_export.training.trainer import Outcome, Trainer
from birnn_export.training.warm_start import start_from, take_heads

# What may differ between the parts of a resumed run, and what is no setting at all.
_CHANGEABLE = frozenset({"device", "patience", "max_steps", "max_minutes", "workers", "cache"})

_OUTCOMES: dict[Outcome, str] = {
    "finished": "all epochs or steps done",
    "early": "stopped early: the validation loss got no better",
    "time": "the minutes are over",
}


@click.command()
@click.argument("corpus", nargs=-1)
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="Checkpoint folder to write.")
@click.option("--resume", is_flag=True, help="Continue exactly where the run in the folder stopped.")
@click.option(
    "--start-from",
    type=click.Path(),
    metavar="FOLDER",
    help="Start with the weights of another run of the same architecture and sizes instead of random ones. Layers "
    "above those of the other run stay random. Heads are taken along if corpus and encoder are the same.",
)
@click.option(
    "--start-as-bag",
    is_flag=True,
    help="Start as the mean of token vectors weighted by rarity, instead of with random weights; bigru only.",
)
@click.option(
    "--architecture",
    type=click.Choice(get_args(Architecture)),
    default="bigru",
    show_default=True,
    help="Kind of recurrence.",
)
@click.option(
    "--tokenizer",
    type=click.Choice(TOKENIZER_KINDS),
    default="smiles",
    show_default=True,
    help="How sequences are split.",
)
@click.option("--embedding-size", type=int, default=64, show_default=True, help="Size of token embeddings.")
@click.option("--hidden-size", type=int, default=256, show_default=True, help="Hidden units per direction.")
@click.option("--layers", type=int, default=1, show_default=True, help="Number of layers.")
@click.option("--dropout", type=float, default=0.0, show_default=True, help="Dropout while training.")
@click.option(
    "--pooling",
    type=click.Choice(get_args(Pooling)),
    default="final",
    show_default=True,
    help="How outputs become one vector.",
)
@click.option(
    "--nonlinearity",
    type=click.Choice(get_args(Nonlinearity)),
    default="tanh",
    show_default=True,
    help="Activation of a plain RNN.",
)
@click.option(
    "--objective",
    default=None,
    help="Objectives, each with an optional weight, as in masked,descriptors:2. "
    f"Choose from {', '.join(OBJECTIVE_NAMES)}. "
    "[default: masked,descriptors,fingerprint for smiles; masked,tokens for text]",
)
@click.option(
    "--pairs",
    multiple=True,
    default=(),
    metavar="FILE:SCORE:FIRST:SECOND",
    help="Columns of a .csv or .tsv file with scored pairs of sequences, for the objective similarity; repeatable.",
)
@click.option("--exclude", multiple=True, metavar="FILE[:COLUMN]", help="File of sequences to leave out; repeatable.")
@click.option("--limit", type=click.IntRange(min=1), help="Use the first N sequences of each corpus file.")
@click.option("--sentences", is_flag=True, help="Split each line of the corpus into sentences.")
@click.option("--max-length", type=int, default=256, show_default=True, help="Leave out longer sequences, in tokens.")
@click.option("--vocab-size", type=int, default=8192, show_default=True, help="Vocabulary size of the text tokenizer.")
@click.option("--lowercase", is_flag=True, help="Make the text tokenizer ignore case.")
@click.option(
    "--minimum-count", type=int, default=10, show_default=True, help="SMILES tokens that occur less often are unknown."
)
@click.option(
    "--spellings",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Number of random SMILES of each molecule to train on in addition; epochs become longer accordingly.",
)
@click.option("--validation-share", type=float, default=0.01, show_default=True, help="Share held out for validation.")
@click.option("--epochs", type=int, default=10, show_default=True, help="Number of passes over the corpus.")
@click.option("--max-steps", type=int, help="Finish the schedule after this many steps.")
@click.option("--max-minutes", type=float, help="Finish the schedule within this many minutes.")
@click.option("--batch-tokens", type=int, default=6144, show_default=True, help="Tokens per batch and process.")
@click.option("--learning-rate", type=float, default=2e-3, show_default=True, help="Highest learning rate.")
@click.option(
    "--schedule",
    type=click.Choice(get_args(Schedule)),
    default="cosine",
    show_default=True,
    help="Learning rate schedule: cosine, or stable for four fifths and then falling. A stable run can be continued.",
)
@click.option(
    "--warmup-steps", type=int, default=200, show_default=True, help="Steps in which the learning rate rises."
)
@click.option("--weight-decay", type=float, default=0.01, show_default=True, help="Weight decay of AdamW.")
@click.option("--clip-norm", type=float, default=1.0, show_default=True, help="Maximum norm of the gradient.")
@click.option("--mask-share", type=float, default=0.2, show_default=True, help="Share of tokens that are masked.")
@click.option("--evaluate-every", type=int, default=500, show_default=True, help="Steps between checkpoints.")
@click.option(
    "--patience", type=int, default=10, show_default=True, help="Stop after this many evaluations without gain."
)
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of all random numbers.")
@click.option(
    "--device",
    type=click.Choice(["auto", "cpu", "cuda"]),
    default="auto",
    show_default=True,
    help="Device to train on.",
)
@click.option(
    "--precision",
    type=click.Choice(get_args(Precision)),
    default="fp32",
    show_default=True,
    help="Precision to train in.",
)
@click.option(
    "--workers", type=click.IntRange(min=1), help="Processes that compute descriptors. [default: one per core]"
)
@click.option(
    "--cache",
    type=click.Path(file_okay=False),
    help="Folder that keeps what RDKit computes, to share among runs. [default: OUTPUT]",
)
@click.pass_context
def train(context: click.Context, /, output: Path, resume: bool, **options: Any) -> None:
    """Train a bidirectional recurrent encoder on the sequences of CORPUS files.

    CORPUS is one or more .smi, .txt, .csv:COLUMN or .tsv:COLUMN files, each plain, .gz, .xz or .zst. The folder given
    by -o can be read by `birnn export` from the first evaluation on. Interrupting (Ctrl-C) saves a checkpoint.

    On a CPU, N processes with a core each train faster than one with N threads, on batches N times as large:
    torchrun --standalone --no-python --nproc-per-node N birnn train ...
    """
    try:
        options = _resumed(context, output, options) if resume else _fresh(output, options)
        trainer, dataset, max_length = _build(output, options, resume)
        if resume:
            trainer.resume()
        else:
            trainer.start(max_length)
        _report(trainer, dataset)
        with collected_interrupts() as stopped:
            outcome = trainer.run(stop=lambda: bool(stopped))
    except (SequenceFileError, CheckpointError, TrainingError) as error:
        raise click.ClickException(str(error)) from error
    except RuntimeError as error:
        if launched() == 1:
            raise
        raise click.ClickException(f"another process ended, or this one failed: {error}") from error
    except OSError as error:
        raise click.ClickException(f"{output}: cannot be written ({error})") from error
    if outcome == "stopped":
        _tell(trainer, f"Stopped at step {trainer.position.step:,} and saved. Go on with:")
        command = [*launcher(trainer.replicas.count), "birnn", "train", "-o", str(output), "--resume"]
        _tell(trainer, f"  {shlex.join(command)}")
        # Where one of several processes heard the signal, the others stop with it.
        sys.exit(128 + (stopped[0] if stopped else signal.SIGTERM))
    if not trainer.replicas.first:
        return
    position = trainer.position
    _tell(trainer, f"Finished at step {position.step:,}: {_OUTCOMES[outcome]}.")
    _tell(trainer, f"Best validation loss {position.best_loss:.4f} at step {position.best_step:,}.")
    click.echo(output)


def _fresh(output: Path, options: dict[str, Any]) -> dict[str, Any]:
    if not options["corpus"]:
        raise click.UsageError("give at least one CORPUS file, or --resume to go on with an existing run")
    if (output / checkpoint.STATE).exists():
        raise click.UsageError(f"{output} already holds a run: add --resume to go on with it, or choose another folder")
    if options["objective"] is None:
        options["objective"] = "masked,tokens" if options["tokenizer"] == "text" else "masked,descriptors,fingerprint"
    return {name: list(value) if isinstance(value, tuple) else value for name, value in options.items()}


def _resumed(context: click.Context, output: Path, options: dict[str, Any]) -> dict[str, Any]:
    """The options of the run in `output`, with those that may change taken from the command line when given."""
    if not (output / checkpoint.STATE).exists():
        raise CheckpointError(f"{output}: holds no checkpoint to go on from; give a CORPUS and leave --resume out")
    saved = read_training(output).get("options")
    if not isinstance(saved, dict) or not {"corpus", "objective"} <= saved.keys() <= options.keys():
        raise CheckpointError(f"{output / checkpoint.TRAINING}: holds no options of `birnn train`; start a new run")
    # A run begun before an option existed goes on with that option's default, which changes nothing.
    saved = {one.name: one.get_default(context) for one in train.params if one.name in options} | saved
    for name, value in options.items():
        if context.get_parameter_source(name) is not ParameterSource.COMMANDLINE or not value:
            continue
        given = list(value) if isinstance(value, tuple) else value
        if name in _CHANGEABLE:
            saved[name] = given
        elif given != saved[name]:
            raise click.UsageError(
                f"{name.replace('_', '-')} was {saved[name]!r} when this run began and cannot become {given!r}; "
                "leave it out, or start a new run in another folder"
            )
    return saved


def _build(output: Path, options: dict[str, Any], resume: bool) -> tuple[Trainer, Dataset, int]:
    settings = _training_settings(options)
    if bool(options["pairs"]) != ("similarity" in settings.objectives):
        raise click.UsageError("--pairs and the objective similarity need each other")
    # All that can be refused is refused here, before the descriptors of a large corpus take their minutes.
    replicas = Replicas.join(resolve_device(settings.device, settings.precision))
    config = _encoder_config(options)
    tokenizer = load_encoder(output).tokenizer if resume else None
    if resume and (before := read_training(output).get("processes", 1)) != replicas.count:
        command = shlex.join([*launcher(before), "birnn", "train", "-o", str(output), "--resume"])
        raise TrainingError(f"this run is one of {before} processes, not {replicas.count}; go on with: {command}")
    data = DatasetSettings(
        options["tokenizer"],
        options["max_length"],
        options["vocab_size"],
        options["minimum_count"],
        options["validation_share"],
        options["spellings"],
        options["lowercase"],
    )
    corpus = [sequence for name in options["corpus"] for sequence in read_entry(name, options["limit"])]
    if options["sentences"]:
        corpus = [sentence for line in corpus for sentence in split_sentences(line)]
    exclude = [sequence for name in options["exclude"] for sequence in read_entry(name)]
    output.mkdir(parents=True, exist_ok=True)
    with replicas.first_goes_ahead():
        dataset = prepare(
            corpus, data, settings.objectives, exclude, options["workers"], Path(options["cache"] or output), tokenizer
        )
    if pairs := [pair for entry in options["pairs"] for pair in read_pairs(entry)]:
        dataset = add_pairs(dataset, pairs, data, alone=settings.objectives.keys() == {"similarity"})
    if resume and read_training(output).get("digest") != dataset.digest:
        raise TrainingError(f"the corpus is not the one that the run in {output} began with; start a new run")
    defaults = {parameter.name: parameter.default for parameter in train.params}
    facts = {
        "data": [name_of(name) for name in (*options["corpus"], *options["pairs"])],
        "recipe": recipe(options, defaults, replicas.count),
        "objective": options["objective"],
        "sequences": len(dataset.train) + len(dataset.validation),
        "left_out": dataset.left_out,
        "digest": dataset.digest,
        "processes": replicas.count,
        "metrics": read_training(output).get("metrics", {}) if resume else {},
        "settings": settings.to_json(),
        "options": options,
    }
    config = replace(config, vocab_size=dataset.tokenizer.vocab_size)
    trainer = Trainer(output, config, dataset, settings, facts, replicas)
    if options["start_from"] and not resume:
        earlier = Path(options["start_from"])
        loaded = load_encoder(earlier)
        known = start_from(trainer.encoder, dataset.tokenizer, loaded)
        heads = checkpoint.read_heads(earlier) if _serves_the_same_heads(loaded, trainer) else {}
        taken = ", ".join(take_heads(trainer.model.heads, heads)) or "none"
        _tell(
            trainer,
            f"Weights of {earlier}, which knew {known} of the {config.vocab_size} tokens; heads taken along: {taken}",
        )
    if options["start_as_bag"] and not resume:
        start_as_bag(trainer.encoder, dataset.tokenizer, dataset.sequences, settings.seed)
    return trainer, dataset, options["max_length"]


def _serves_the_same_heads(earlier: LoadedCheckpoint, trainer: Trainer) -> bool:
    """Whether a head of the earlier run means the same here: it knows a corpus, ids and the vectors it stood on."""
    encoders = [replace(one, dropout=0.0) for one in (earlier.config, trainer.encoder.config)]
    tokenizers = [one.to_json() for one in (earlier.tokenizer, trainer.dataset.tokenizer)]
    digests = [earlier.training.get("digest"), trainer.dataset.digest]
    return all(one == other for one, other in (encoders, tokenizers, digests))


def _encoder_config(options: dict[str, Any]) -> EncoderConfig:
    """The encoder that the options describe, its vocabulary still empty but for the special tokens."""
    names = {field.name for field in fields(EncoderConfig)} & options.keys()
    names.remove("vocab_size")
    try:
        return EncoderConfig(vocab_size=len(SPECIAL_TOKENS), **{name: options[name] for name in names})
    except ValueError as error:
        raise click.UsageError(str(error)) from error


def _training_settings(options: dict[str, Any]) -> TrainingSettings:
    own = set(TrainingSettings.__dataclass_fields__) - {"objectives"}
    chosen = {name: options[name] for name in own}
    return TrainingSettings(objectives=parse_objectives(options["objective"]), **chosen)


def _tell(trainer: Trainer, message: str) -> None:
    if trainer.replicas.first:
        click.echo(message, err=True)


def _report(trainer: Trainer, dataset: Dataset) -> None:
    left_out = ", ".join(f"{count:,} {reason}" for reason, count in dataset.left_out.items())
    parameters = sum(parameter.numel() for parameter in trainer.encoder.parameters())
    _tell(
        trainer,
        f"{counted(len(dataset.train), 'sequence')} to train on, {len(dataset.validation):,} to validate with"
        + (f" (left out: {left_out})" if left_out else "")
        + f"; {dataset.sequences.tokens:,} tokens, vocabulary of {dataset.tokenizer.vocab_size:,}; "
        f"encoder of {parameters:,} parameters; {trainer.steps_per_epoch:,} steps an epoch on {trainer.device}",
    )
