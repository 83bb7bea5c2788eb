"""`birnn encode`: sequences from the command line or a file, encodings to standard output or a file."""

import sys
import time
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import click
from tqdm import tqdm

from birnn.channel import DEFAULT_ADDRESS
from birnn.cli.failed_lines import FailedLines, failed_lines
from birnn.cli.printing import Format, Printer
from birnn.client import Client
from birnn.encodings import EncoderInfo
from birnn.errors import EncodeError
from birnn.vector_files import EncodedLines, VectorFile, VectorFileError, check_format, create
from birnn_bundle.sequences import KINDS, Kind, Line, SequenceFile, SequenceFileError

SOME_FAILED = 1
CALL_FAILED = 3
STANDARD_INPUT = Path("-")


class CallError(click.ClickException):
    """The server could not be asked, or a file not be read or written: nothing was written."""

    exit_code = CALL_FAILED


@dataclass(frozen=True, slots=True)
class Job:
    """What is to be encoded, and how.

    Attributes:
        lines: The sequences.
        file: Where they come from; None for the command line.
        encoder: Which encoder answers.
        tokens: One vector a token rather than a sequence.
        truncate: Cut sequences that are too long.
        timeout: Seconds for each call; None for no limit.
    """

    lines: Iterator[Line]
    file: SequenceFile | None
    encoder: EncoderInfo
    tokens: bool
    truncate: bool
    timeout: float | None

    def parts(self, client: Client) -> Iterator[EncodedLines]:
        """Encode the lines part by part, in order and in bounded memory."""
        pending: deque[Line] = deque()

        def sequences() -> Iterator[bytes]:
            for line in self.lines:
                pending.append(line)
                yield line.sequence

        stream = client.stream_tokens if self.tokens else client.stream
        encoder = self.encoder
        for reply in stream(sequences(), encoder.name, encoder.version, timeout=self.timeout, truncate=self.truncate):
            yield EncodedLines([pending.popleft() for _ in range(len(reply))], reply)


@click.command()
@click.argument("sequences", nargs=-1)
@click.option(
    "--file",
    "path",
    type=click.Path(path_type=Path),
    help="Encode a file: .smi (first column), .txt (lines), .csv or .tsv (--column), each also .gz or .xz; "
    "- reads standard input.",
)
@click.option("--column", help="Column of a .csv or .tsv file that holds the sequences.")
@click.option(
    "--kind",
    type=click.Choice(KINDS),
    help="What the file holds; by default its name tells, and standard input is smi for SMILES encoders, else txt.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="Write a .npy, .npz, .parquet or .csv file (with --tokens .npz or .parquet) instead of standard output.",
)
@click.option(
    "--errors", type=click.Path(path_type=Path), help="List the lines that have no encoding in this .tsv file."
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["text", "json", "csv"]),
    default="text",
    show_default=True,
    help="What goes to standard output: text is abridged for reading; json (an object a line) and csv are complete.",
)
@click.option(
    "--address",
    envvar="BIRNN_ADDRESS",
    default=DEFAULT_ADDRESS,
    show_default=True,
    show_envvar=True,
    help="The server, as HOST:PORT.",
)
@click.option("--encoder", default="smiles", show_default=True, help="Name of the encoder.")
@click.option("--version", help="Version of the encoder; by default the highest.")
@click.option("--tokens", is_flag=True, help="One vector for each token instead of one for each sequence.")
@click.option("--truncate", is_flag=True, help="Cut sequences that are too long instead of failing them.")
@click.option(
    "--half", is_flag=True, help="Let encodings travel as float16: half the bytes, rounded to 11 significant bits."
)
@click.option(
    "--batch-size",
    type=click.IntRange(min=1),
    default=512,
    show_default=True,
    help="Most sequences in one call (with --tokens an eighth of it); a few calls are under way at a time.",
)
@click.option("--timeout", type=click.FloatRange(min=0, min_open=True), help="Seconds to wait for the reply to a call.")
def encode(
    sequences: tuple[str, ...],
    path: Path | None,
    column: str | None,
    kind: Kind | None,
    out: Path | None,
    errors: Path | None,
    form: Format,
    address: str,
    encoder: str,
    version: str | None,
    tokens: bool,
    truncate: bool,
    half: bool,
    batch_size: int,
    timeout: float | None,
) -> None:
    """Encode SEQUENCES, or a file of them, with a birnn server.

    \b
    birnn encode "CCO" "c1ccccc1"
    birnn encode --file molecules.smi --out vectors.npy
    zcat molecules.smi.gz | birnn encode --file - --out vectors.parquet

    Rows of the output are aligned with the lines of the input. A sequence that cannot be encoded does not stop the
    others: its row is NaN in .npy and .npz (with --tokens it has no rows), null in .parquet, empty in .csv; the line
    and the reason go to standard error. The output appears under its name once it is complete.

    Exit status: 0 all were encoded, 1 some were not, 2 wrong usage, 3 the server could not be reached or failed, or a
    file could not be read or written.
    """
    _check_usage(sequences, path, column, kind, out, errors, form, tokens)
    try:
        client = Client(address, batch_size=batch_size, half=half)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--address") from error
    started = time.perf_counter()
    try:
        with ExitStack() as stack:
            stack.enter_context(client)
            info = client.encoder(encoder, version)
            file = None if path is None else stack.enter_context(_open(path, kind, column, info))
            lines = _arguments(sequences) if file is None else iter(file)
            sink = Printer(sys.stdout, form) if out is None else stack.enter_context(create(out, info, tokens))
            failed = stack.enter_context(failed_lines(errors))
            count = _run(Job(lines, file, info, tokens, truncate, timeout), client, sink, failed)
    except (EncodeError, SequenceFileError, VectorFileError) as error:
        raise CallError(str(error)) from error
    except BrokenPipeError:
        raise
    except OSError as error:
        raise CallError(f"{error.filename or out or 'output'}: {error.strerror or error}") from error
    if path is not None:
        _summarize(count, failed.count, time.perf_counter() - started, info, out)
    if failed.count:
        sys.exit(SOME_FAILED)


def _check_usage(
    sequences: tuple[str, ...],
    path: Path | None,
    column: str | None,
    kind: Kind | None,
    out: Path | None,
    errors: Path | None,
    form: Format,
    tokens: bool,
) -> None:
    if bool(sequences) == (path is not None):
        raise click.UsageError("give either SEQUENCES or --file FILE (- for standard input)")
    if path is None and (column is not None or kind is not None):
        raise click.UsageError("--column and --kind go with --file")
    if tokens and out is None and form == "csv":
        raise click.UsageError("--tokens does not fit into csv; use --format json, or --out FILE.npz or FILE.parquet")
    for target in (out, errors):
        if target is not None and not target.parent.is_dir():
            raise click.UsageError(f"the folder {target.parent} does not exist")
    if out is not None:
        _check_format(out, tokens)


def _check_format(out: Path, tokens: bool) -> None:
    try:
        check_format(out, tokens)
    except VectorFileError as error:
        raise click.UsageError(str(error)) from error


def _arguments(sequences: tuple[str, ...]) -> Iterator[Line]:
    # The shell's bytes as they are: an argument that is not UTF-8 fails alone.
    for number, sequence in enumerate(sequences, start=1):
        yield Line(number, sequence.encode("utf-8", "surrogateescape"))


def _open(path: Path, kind: Kind | None, column: str | None, info: EncoderInfo) -> SequenceFile:
    if path != STANDARD_INPUT:
        return SequenceFile(path, kind, column)
    return SequenceFile(None, kind or ("smi" if info.tokenizer == "smiles" else "txt"), column)


def _run(job: Job, client: Client, sink: Printer | VectorFile, failed: FailedLines) -> int:
    """Encode all lines and write them; returns their number."""
    count = 0
    # A bar only where it is seen and does not run through printed results.
    hidden = True if job.file is None or isinstance(sink, Printer) else None
    with tqdm(unit=" sequences", unit_scale=True, disable=hidden, file=sys.stderr) as bar:
        for part in job.parts(client):
            sink.write(part)
            failed.add(part)
            count += len(part.lines)
            fraction = job.file.fraction() if job.file is not None else None
            if fraction:
                bar.total = max(count, round(count / fraction))
            bar.update(len(part.lines))
    return count


def _summarize(count: int, failed: int, seconds: float, info: EncoderInfo, out: Path | None) -> None:
    rate = count / seconds if seconds else 0.0
    where = "" if out is None else f" -> {out}"
    click.echo(
        f"{count:,} sequences, {failed:,} failed, {seconds:.1f} s, {rate:,.0f} sequences/s, "
        f"{info.name} version {info.version}{where}",
        err=True,
    )
