"""Of which kind a file is, by its first bytes; its name may say anything."""

import enum
import pickle
import zipfile
from pathlib import Path

import h5py

from birnn_export.training.checkpoint import CheckpointError

KERAS_CONFIG, KERAS_WEIGHTS, KERAS_METADATA = "config.json", "model.weights.h5", "metadata.json"

READ = "a state_dict of PyTorch (torch.save), safetensors, a Keras model (.keras) or HDF5 weights (.h5) can be exported"
FIRST_BYTES = 512
SHOWN_BYTES = 40
SHOWN_FILES = 4

ZIP = b"PK\x03\x04"
# Of protocols 2 to 5; before it wrote ZIP archives, torch.save wrote a pickled number of its own first.
PICKLES = tuple(bytes([0x80, protocol]) for protocol in (2, 3, 4, 5))
TORCH_NUMBER = pickle.dumps(0x1950A86A20F9469CFC6C, protocol=2)[2:]
# safetensors begin with the length of a JSON header, 8 bytes, and that header.
HEADER = slice(8, 9)

# What people have beside weights or in place of them: how it begins, what it is, and what to do.
OTHERS = (
    (b"\x1f\x8b", "is compressed by gzip; unpack it first (gunzip, or tar -xzf for .tar.gz)"),
    (b"BZh", "is compressed by bzip2; unpack it first (bunzip2, or tar -xjf for .tar.bz2)"),
    (b"\xfd7zXZ\0", "is compressed by xz; unpack it first (unxz, or tar -xJf for .tar.xz)"),
    (b"\x28\xb5\x2f\xfd", "is compressed by Zstandard; unpack it first (unzstd)"),
    (b"7z\xbc\xaf\x27\x1c", "is a 7-Zip archive; unpack it first"),
    (b"version https://git-lfs", "is a pointer of Git LFS, not the file itself; fetch that with git lfs pull"),
    (b"\x93NUMPY", "is one NumPy array; save all weights by name: safetensors.numpy.save_file(weights, FILE)"),
    (b"GGUF", "is a GGUF file, which holds no bidirectional recurrence; export the checkpoint it was made of"),
)
PAGES = (b"<!doctype", b"<html", b"<?xml")
TAR = (257, b"ustar")
TFLITE = (4, b"TFL3")


class FileKind(enum.Enum):
    """What can be read."""

    TORCH = enum.auto()
    SAFETENSORS = enum.auto()
    KERAS = enum.auto()
    HDF5 = enum.auto()


def kind_of(path: Path) -> FileKind:
    """The kind of a file. Raises CheckpointError for one of another kind, saying which and what to do."""
    try:
        with path.open("rb") as file:
            begin = file.read(FIRST_BYTES)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror or error}") from error
    if not begin:
        raise CheckpointError(f"{path}: is empty; copy or download the file again")
    if begin.startswith(ZIP):
        return _kind_of_zip(path)
    # Before what HDF5 allows: to begin behind a block of whatever its author likes.
    if begin[HEADER] == b"{" and int.from_bytes(begin[: HEADER.start], "little") < 1 << 32:
        return FileKind.SAFETENSORS
    if begin.startswith(PICKLES):
        if TORCH_NUMBER in begin:
            return FileKind.TORCH
        raise CheckpointError(
            f"{path}: is a pickle that torch.save did not write, and unpickling runs whatever code it names; it is "
            "never done here. In the program that made it: torch.save(model.state_dict(), FILE)"
        )
    if h5py.is_hdf5(path):
        return FileKind.HDF5
    raise CheckpointError(f"{path}: {_what_else(begin)}")


def _kind_of_zip(path: Path) -> FileKind:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError) as error:
        raise CheckpointError(
            f"{path}: is a ZIP archive that is damaged or cut off; copy or download it again ({error})"
        ) from error
    if any(name.rpartition("/")[2] == "data.pkl" for name in names):
        return FileKind.TORCH
    if KERAS_CONFIG in names or KERAS_WEIGHTS in names:
        return FileKind.KERAS
    if names and all(name.endswith(".npy") for name in names):
        raise CheckpointError(
            f"{path}: holds NumPy arrays; save them with safetensors.numpy.save_file(dict(numpy.load(FILE)), OTHER)"
        )
    listed = ", ".join(names[:SHOWN_FILES]) or "nothing"
    raise CheckpointError(f"{path}: is a ZIP archive of {listed}; unpack it first. Of its content, {READ}")


def _what_else(begin: bytes) -> str:
    for first, what in OTHERS:
        if begin.startswith(first):
            return what
    if begin.lstrip().lower().startswith(PAGES):
        return "is a web page, as a download gives that asks for something first; download the file again"
    if begin[TAR[0] :].startswith(TAR[1]):
        return "is a tar archive; unpack it first (tar -xf)"
    if begin[TFLITE[0] :].startswith(TFLITE[1]):
        return "is a TensorFlow Lite model; export the Keras model that it was made of"
    return f"begins with {begin[:SHOWN_BYTES]!r}, as no file of weights does that is known here; {READ}"
