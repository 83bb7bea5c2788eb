"""The options that select the encoders, sequences and batch sizes of the calls."""

from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import click

from birnn.cli.file_options import Reading
from birnn_bundle.numerals import counted
from birnn_bundle.quoting import printable
from birnn_bundle.sequences import SequenceFileError
from birnn_loadtest.arrivals import MOST_BATCH, Trace
from birnn_loadtest.durations import read_number
from birnn_loadtest.schedule import Mix, Part

LARGEST_POPULATION = 1_000_000
MOST_ENCODERS = 32


def read_batches(text: str) -> list[tuple[int, float]]:
    """Parse batch sizes with their weights, for example "8" or "1=90,32=10".

    Raises:
        ValueError: The text has another form, or a size or weight is out of range.
    """
    sizes = []
    for item in text.split(","):
        size, _, weight = item.partition("=")
        if not (size.isascii() and size.isdecimal() and 1 <= int(size) <= MOST_BATCH):
            raise ValueError(f"{item!r} is not a size from 1 to {MOST_BATCH}; write 8, or 1=90,32=10")
        sizes.append((int(size), _weight(item, weight)))
    return sizes


def read_mix(
    encoders: Sequence[str],
    files: Sequence[str],
    reading: Reading,
    batches: list[tuple[int, float]],
    trace: Trace | None,
) -> tuple[Mix, list[str]]:
    """Read the mix of calls.

    Args:
        encoders: The encoders, each as NAME[@VERSION][=WEIGHT].
        files: One FILE for all encoders, or ENCODER=FILE for each.
        reading: How to read the files.
        batches: Batch sizes with their weights.
        trace: The trace to replay. The encoders that it names must be in `encoders`.

    Returns:
        The mix, and a description of each file with its number of sequences.

    Raises:
        ValueError: The options do not match, or a file cannot be read.
    """
    if len(encoders) > MOST_ENCODERS:
        raise ValueError(f"there are more than {MOST_ENCODERS} encoders")
    wanted = [_encoder(text) for text in encoders]
    names = [name for name, _, _ in wanted]
    if trace is not None and (unknown := sorted(set(trace.encoders or ()) - set(names))):
        raise ValueError(f"{trace.name}: calls {unknown[0]!r}, which no --encoder names")
    paths = _paths(files, names)
    read = {path: _sequences(path, reading) for path in dict.fromkeys(paths.values())}
    mix = Mix([Part(name, version, weight, read[paths[name]]) for name, version, weight in wanted], batches)
    return mix, [f"{path} ({counted(len(sequences), 'sequence')})" for path, sequences in read.items()]


def _encoder(text: str) -> tuple[str, str | None, float]:
    name, _, weight = text.partition("=")
    name, at, version = name.partition("@")
    if not name or (at and not version):
        raise ValueError(f"{text!r} is not an encoder; write NAME, NAME@VERSION or NAME=WEIGHT")
    return name, version or None, _weight(text, weight)


def _paths(files: Sequence[str], names: list[str]) -> dict[str, Path]:
    """Return the file of each encoder."""
    if len(set(names)) < len(names):
        raise ValueError("each encoder can be named once")
    paths: dict[str, Path] = {}
    for text in files:
        name, equals, path = text.partition("=")
        if equals and name in names:
            paths[name] = Path(path)
        elif len(files) == 1:
            paths = dict.fromkeys(names, Path(text))
        else:
            raise ValueError(
                f"--file {text}: write ENCODER=FILE for each of several files; encoders: {', '.join(names)}"
            )
    if missing := [name for name in names if name not in paths]:
        raise ValueError(f"there is no file for encoder {missing[0]!r}: add --file {missing[0]}=FILE")
    return paths


def _weight(item: str, text: str) -> float:
    if not text:
        if "=" in item:
            raise ValueError(f"{item!r}: the weight is missing")
        return 1.0
    weight = read_number(text)
    if weight <= 0:
        raise ValueError(f"{item!r}: the weight must be above 0")
    return weight


def _sequences(path: Path, reading: Reading) -> list[bytes]:
    try:
        with reading.open(path) as file:
            lines = list(islice((line for line in file if line.sequence or line.problem), LARGEST_POPULATION))
    except SequenceFileError as error:
        raise ValueError(str(error)) from error
    malformed = [line for line in lines if line.problem is not None]
    if malformed:
        first = f"line {malformed[0].number}: {malformed[0].problem}"
        click.echo(printable(f"{path}: left out {counted(len(malformed), 'malformed record')}: {first}"), err=True)
    sequences = [line.sequence for line in lines if line.problem is None]
    if not sequences:
        raise ValueError(f"{path}: holds no sequence")
    return sequences
