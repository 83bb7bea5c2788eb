"""`birnn encode`: encodes sequences from the command line or a file, and prints the encodings or writes a file."""

import logging
import os
import signal
import sys
import time
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import click
from tqdm import tqdm

from birnn.cli.distinct_files import STANDARD_INPUT, check_distinct
from birnn.cli.file_options import Reading, file_options
from birnn.cli.finite_float_range import FiniteFloatRange
from birnn.cli.printing import Format, Printer
from birnn.cli.server_options import Server, server_options
from birnn.cli.told_lines import ToldLines, told_lines
from birnn.client import Client
from birnn.encode_call import ELEMENT_TYPES
from birnn.encodings import EncoderInfo
from birnn.errors import EncodeError
from birnn.options import ElementType
from birnn.vector_files import EncodedLines, VectorFile, VectorFileError, check_format, create
from birnn.vector_files.vector_file import readable
from birnn_bundle.numerals import counted
from birnn_bundle.quoting import printable
from birnn_bundle.sequences import Line, SequenceFile, SequenceFileError

SOME_FAILED = 1
CALL_FAILED = 3


class CallError(click.ClickException):
    """The server could not be reached or failed, or a file could not be read or written. No output file appears."""

    exit_code = CALL_FAILED


@dataclass(frozen=True, slots=True)
class Job:
    """The input and options of one run.

    Attributes:
        lines: The sequences.
        file: The file they come from. None for the command line.
        encoder: The encoder that answers.
        tokens: Whether to return one vector per token instead of one per sequence.
        truncate: Whether to truncate sequences that are too long.
        timeout: Seconds for each call. None for no limit.
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


class Told:
    """Reports single lines: those that failed, and those with unknown or truncated tokens.

    Args:
        failed: Reports the lines that failed.
        noticed: Reports the lines with unknown or truncated tokens.
    """

    def __init__(self, failed: ToldLines, noticed: ToldLines) -> None:
        self.failed = failed
        self.noticed = noticed
        self._unknown = self._truncated = 0

    def add(self, part: EncodedLines) -> None:
        """Report the next lines."""
        for failure in part.failures():
            line = part.lines[failure.index]
            self.failed.tell(line.number, readable(line.sequence), failure.reason, [failure.code, failure.reason])
        for notice in part.reply.notices:
            line = part.lines[notice.index]
            counts = [notice.unknown_tokens, notice.truncated_tokens]
            words = [counted(notice.unknown_tokens, "unknown token")] if counts[0] else []
            words += [counted(notice.truncated_tokens, "token") + " cut off"] if counts[1] else []
            self.noticed.tell(line.number, readable(line.sequence), ", ".join(words), counts)
            self._unknown += counts[0] > 0
            self._truncated += counts[1] > 0

    def summarize(self) -> None:
        """Print how many sequences had unknown or truncated tokens, and what that means."""
        if self._unknown:
            click.echo(
                f"warning: {counted(self._unknown, 'sequence')} with tokens that the encoder does not know: "
                "sequences that differ only in those have the same encoding",
                err=True,
            )
        if self._truncated:
            click.echo(f"warning: {counted(self._truncated, 'sequence')} too long and cut (--truncate)", err=True)


@click.command()
@click.argument("sequences", nargs=-1)
@click.option(
    "--file",
    "path",
    type=click.Path(path_type=Path),
    help="Encode a file: .smi (first column), .txt (lines), .csv or .tsv (--column), each also .gz, .xz or .zst; "
    "- reads standard input, as .smi for SMILES encoders and else .txt.",
)
@file_options
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="Write a .npy, .npz, .parquet or .csv file (with --tokens .npz or .parquet) instead of standard output.",
)
@click.option(
    "--errors", type=click.Path(path_type=Path), help="List the lines that have no encoding in this .tsv file."
)
@click.option(
    "--notices",
    type=click.Path(path_type=Path),
    help="List the lines with tokens that are unknown to the encoder, or were truncated, in this .tsv file.",
)
@click.option("--strict", is_flag=True, help="Exit with status 1 if --notices would list any line.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["text", "json", "csv"]),
    default="text",
    show_default=True,
    help="Format of standard output: text is shortened for reading; json (an object a line) and csv are complete.",
)
@server_options
@click.option("--encoder", default="smiles", show_default=True, help="Name of the encoder.")
@click.option("--version", help="Version of the encoder; by default the highest.")
@click.option("--tokens", is_flag=True, help="One vector for each token instead of one for each sequence.")
@click.option("--truncate", is_flag=True, help="Truncate sequences that are too long instead of failing them.")
@click.option(
    "--element-type",
    type=click.Choice(list(ELEMENT_TYPES)),
    default="float32",
    show_default=True,
    help="How encodings travel: float16 takes half the bytes, rounded to 11 significant bits; int8 a quarter, rounded "
    "to a 127th of the largest number of each vector.",
)
@click.option(
    "--batch-size",
    type=click.IntRange(min=1),
    default=512,
    show_default=True,
    help="Maximum number of sequences in one call; with --tokens an eighth of it. Several calls are in flight.",
)
@click.option(
    "--timeout",
    type=FiniteFloatRange(min=0, min_open=True),
    help="Seconds to wait for the reply to a call; no limit by default.",
)
@click.option(
    "--retry-for",
    type=FiniteFloatRange(min=0),
    default=300.0,
    show_default=True,
    help="Seconds to keep trying while a server that has answered before is unavailable, for example restarts.",
)
def encode(
    sequences: tuple[str, ...],
    path: Path | None,
    reading: Reading,
    out: Path | None,
    errors: Path | None,
    notices: Path | None,
    strict: bool,
    form: Format,
    server: Server,
    encoder: str,
    version: str | None,
    tokens: bool,
    truncate: bool,
    element_type: ElementType,
    batch_size: int,
    timeout: float | None,
    retry_for: float,
) -> None:
    """Encode SEQUENCES, or a file of them, with a birnn server.

    \b
    birnn encode "CCO" "c1ccccc1"
    birnn encode --file molecules.smi --out vectors.npy
    zcat molecules.smi.gz | birnn encode --file - --out vectors.parquet

    Rows of the output are aligned with the lines of the input. If a sequence cannot be encoded, the others still are.
    Its row is NaN in .npy and .npz (with --tokens it has no rows), null in .parquet, and empty in .csv. The line and
    the reason are printed to standard error. So are lines with tokens missing from the vocabulary, which are encoded as
    unknown. The output file appears once it is complete.

    Exit status: 0 if all sequences were encoded; 1 if some were not, or with --strict if some have unknown or truncated
    tokens; 2 for wrong usage; 3 if the server could not be reached or failed, or a file could not be read or written.
    """
    _check_usage(sequences, path, reading, out, form, tokens)
    _check_files(path, {"--out": out, "--errors": errors, "--notices": notices})
    client = Client(
        server.address, batch_size=batch_size, element_type=element_type, retry_for=retry_for, **server.client_options
    )
    started = time.perf_counter()
    try:
        with ExitStack() as stack:
            stack.enter_context(_dying_of_interrupts())
            stack.enter_context(_waiting_told())
            stack.enter_context(client)
            info = client.encoder(encoder, version)
            file = None if path is None else stack.enter_context(_open(path, reading, info))
            lines = _arguments(sequences) if file is None else iter(file)
            sink = Printer(sys.stdout, form) if out is None else stack.enter_context(create(out, info, tokens))
            told = Told(
                stack.enter_context(told_lines("failed line", errors, "--errors", ["code", "reason"])),
                stack.enter_context(
                    told_lines("noticed line", notices, "--notices", ["unknown_tokens", "truncated_tokens"])
                ),
            )
            count = _run(Job(lines, file, info, tokens, truncate, timeout), client, sink, told)
    except (EncodeError, SequenceFileError, VectorFileError) as error:
        raise CallError(str(error)) from error
    except BrokenPipeError:
        # The reader of the output has closed it. Discard what Python still buffers.
        with suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(CALL_FAILED)
    except OSError as error:
        where = error.filename or "standard output"
        raise CallError(f"{where}: cannot be written ({error.strerror or error})") from error
    told.summarize()
    if path is not None:
        _summarize(count, told.failed.count, time.perf_counter() - started, info, out)
    if told.failed.count or (strict and told.noticed.count):
        sys.exit(SOME_FAILED)


def _check_usage(
    sequences: tuple[str, ...],
    path: Path | None,
    reading: Reading,
    out: Path | None,
    form: Format,
    tokens: bool,
) -> None:
    if bool(sequences) == (path is not None):
        raise click.UsageError("give either SEQUENCES or --file FILE (- for standard input)")
    if path is None and reading.said:
        raise click.UsageError("--column, --header, --delimiter and --kind go with --file")
    if tokens and out is None and form == "csv":
        raise click.UsageError("--tokens does not fit into csv; use --format json, or --out FILE.npz or FILE.parquet")
    if out is not None:
        _check_format(out, tokens)


def _check_files(path: Path | None, outputs: dict[str, Path | None]) -> None:
    for target in outputs.values():
        if target is not None and not target.parent.is_dir():
            raise click.UsageError(f"the folder {target.parent} does not exist")
    check_distinct({"--file": path}, outputs)


def _check_format(out: Path, tokens: bool) -> None:
    try:
        check_format(out, tokens)
    except VectorFileError as error:
        raise click.UsageError(str(error)) from error


def _arguments(sequences: tuple[str, ...]) -> Iterator[Line]:
    # Pass the bytes of the shell unchanged, so that an argument that is not UTF-8 fails only itself.
    for number, sequence in enumerate(sequences, start=1):
        yield Line(number, sequence.encode("utf-8", "surrogateescape"))


def _open(path: Path, reading: Reading, info: EncoderInfo) -> SequenceFile:
    if path != STANDARD_INPUT:
        return reading.open(path)
    return reading.open(None, "smi" if info.tokenizer == "smiles" else "txt")


@contextmanager
def _dying_of_interrupts() -> Iterator[None]:
    """End the process at once on an interrupt, because an exception in the middle of a gRPC call may hang."""
    before = signal.getsignal(signal.SIGINT)
    # A background job ignores interrupts.
    if before is not signal.default_int_handler:
        yield
        return
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def _waiting_told() -> Iterator[None]:
    """Print to standard error when the client waits for a server, and when the server is back."""

    class Teller(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            # tqdm.write does not break the progress bar, unlike click.echo.
            tqdm.write(printable(record.getMessage()), file=sys.stderr)

    logger, teller = logging.getLogger("birnn"), Teller()
    logger.addHandler(teller)
    try:
        yield
    finally:
        logger.removeHandler(teller)


def _run(job: Job, client: Client, sink: Printer | VectorFile, told: Told) -> int:
    """Encode and write all lines. Returns the number of lines."""
    count = 0
    # Show the bar only on a terminal, and not between printed results.
    hidden = True if job.file is None or isinstance(sink, Printer) else None
    with tqdm(unit=" sequences", unit_scale=True, disable=hidden, file=sys.stderr) as bar:
        for part in job.parts(client):
            sink.write(part)
            told.add(part)
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
        printable(
            f"{counted(count, 'sequence')}, {failed:,} failed, {seconds:.1f} s, {rate:,.0f} sequences/s, "
            f"{info.name} version {info.version}{where}"
        ),
        err=True,
    )
