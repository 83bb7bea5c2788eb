"""Files of encodings, written part by part: .npy, .npz, .parquet and .csv."""

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
    """The format that a file's name says.

    Args:
        path: The file.
        tokens: Whether it is for one vector a token rather than a sequence.

    Raises:
        VectorFileError: The format is unknown, or cannot hold per-token encodings.
    """
    kind = FORMATS.get(path.suffix.lower())
    if kind is None:
        raise VectorFileError(f"{path}: unknown format {path.suffix!r}; use {', '.join(FORMATS)}")
    if tokens and not kind.holds_tokens:
        able = ", ".join(suffix for suffix, other in FORMATS.items() if other.holds_tokens)
        raise VectorFileError(f"{path}: {path.suffix} cannot hold per-token encodings; use {able}")
    return kind


def create(path: Path, info: EncoderInfo, tokens: bool) -> VectorFile:
    """A file for the encodings of `info`, in the format its name says; a context manager.

    Args:
        path: Where it will be once all is written; replaced if it exists.
        info: The encoder.
        tokens: One vector a token rather than a sequence.

    Raises:
        VectorFileError: As `check_format`; or the format needs a package that is missing.
    """
    return check_format(path, tokens)(path, info, tokens)
