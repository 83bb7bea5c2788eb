"""Prints encodings: abridged as text for people, complete as JSON lines or csv for programs."""

import csv
import io
import json
from typing import Literal, TextIO

import click
import numpy as np
from numpy.typing import NDArray

from birnn.encodings import Encodings
from birnn.vector_files.csv_file import digits, header, records
from birnn.vector_files.vector_file import EncodedLines, readable
from birnn_bundle.quoting import printable

Format = Literal["text", "json", "csv"]
_SHOWN_FLOATS = 4


class Printer:
    """Writes encodings to a stream in one of the formats.

    Args:
        stream: The stream to write to.
        form: "text" (one line per encoded sequence), "json" (one object per line for each sequence) or "csv" (with a
            header).
    """

    def __init__(self, stream: TextIO, form: Format) -> None:
        self._stream = stream
        self._form = form
        self._begun = False

    def write(self, part: EncodedLines) -> None:
        """Write the next lines."""
        match self._form:
            case "text":
                self._write_text(part)
            case "json":
                self._write_json(part)
            case "csv":
                self._write_csv(part)
        self._stream.flush()

    def _write_text(self, part: EncodedLines) -> None:
        for line, array, reason in zip(part.lines, _arrays(part), part.reasons(), strict=True):
            if reason is None:
                shape = " x ".join(map(str, array.shape))
                first = array.ravel()
                shown = " ".join(f"{value:.4f}" for value in first[:_SHOWN_FLOATS])
                more = " ..." if len(first) > _SHOWN_FLOATS else ""
                click.echo(f"{printable(readable(line.sequence))}\t[{shape}]\t{shown}{more}", self._stream)

    def _write_json(self, part: EncodedLines) -> None:
        counts = np.stack(part.noticed_tokens(), axis=1).tolist()
        for line, array, error, noticed in zip(part.lines, _arrays(part), _errors(part), counts, strict=True):
            start: dict[str, object] = {"line": line.number, "sequence": readable(line.sequence)}
            if error is not None:
                click.echo(json.dumps({**start, "error": error}), self._stream)
                continue
            start["unknown_tokens"], start["truncated_tokens"] = noticed
            # json would write each float32 with the digits of a float64, and most of these digits mean nothing.
            opening = json.dumps(start)[:-1]
            click.echo(f'{opening}, "embedding": {_json_array(array)}}}', self._stream)

    def _write_csv(self, part: EncodedLines) -> None:
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        if not self._begun:
            writer.writerow(header(part.vectors.shape[1]))
            self._begun = True
        writer.writerows(records(part))
        # A program gets the text unchanged. A terminal must not interpret control characters in it.
        self._stream.write(printable(text.getvalue()) if self._stream.isatty() else text.getvalue())


def _arrays(part: EncodedLines) -> list[NDArray[np.float32]]:
    return list(part.vectors) if isinstance(part.reply, Encodings) else part.tokens


def _errors(part: EncodedLines) -> list[dict[str, str] | None]:
    errors: list[dict[str, str] | None] = [None] * len(part.lines)
    for failure in part.failures():
        errors[failure.index] = {"code": failure.code, "reason": failure.reason}
    return errors


def _json_array(array: NDArray[np.float32]) -> str:
    rows = [_json_array(row) for row in array] if array.ndim == 2 else digits(array)
    return f"[{', '.join(rows)}]"
