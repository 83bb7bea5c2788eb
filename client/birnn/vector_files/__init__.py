"""Writes files of encodings part by part: .npy, .npz, .parquet and .csv."""

from pathlib import Path

from birnn.encodings import EncoderInfo
from birnn.vector_files.csv_file import CsvFile
from birnn.vector_files.npy_file import NpyFile
from birnn.vector_files.npz_file import NpzFile
from birnn.vector_files.parquet_file import ParquetFile
from birnn.vector_files.vector_file import EncodedLines, VectorFile, VectorFileError

FORMATS: dict[str, type[VectorFile]] = {".npy": NpyFile, ".npz": NpzFile, ".parquet": ParquetFile, ".csv": CsvFile}

__all__ = ["FORMATS", "EncodedLines", "VectorFile", "VectorFileError", "check_format", "create"]


def check_format(path: Path, tokens: bool) -> type[VectorFile]:
    """Return the format of a file, by its suffix.

    Args:
        path: The file.
        tokens: Whether the file will hold one vector per token instead of one per sequence.

    Raises:
        VectorFileError: The format is unknown, or it cannot hold per-token encodings.
    """
    kind = FORMATS.get(path.suffix.lower())
    if kind is None:
        raise VectorFileError(f"{path}: unknown format {path.suffix!r}; use {', '.join(FORMATS)}")
    if tokens and not kind.holds_tokens:
        able = ", ".join(suffix for suffix, other in FORMATS.items() if other.holds_tokens)
        raise VectorFileError(f"{path}: {path.suffix} cannot hold per-token encodings; use {able}")
    return kind


def create(path: Path, info: EncoderInfo, tokens: bool) -> VectorFile:
    """Create a file for the encodings of an encoder, in the format of its suffix.

    Args:
        path: The file. It appears, or replaces an existing file, once everything is written.
        info: The encoder.
        tokens: Whether the file holds one vector per token instead of one per sequence.

    Returns:
        A context manager that completes the file on exit, or discards it after an error.

    Raises:
        VectorFileError: As in `check_format`, or a package that the format needs is missing.
    """
    return check_format(path, tokens)(path, info, tokens)
