"""Weights as they lie in a file: names and float32 arrays, whatever wrote them.

| kind | what | read by |
|---|---|---|
| torch.save | a state_dict of PyTorch, alone or inside dictionaries | torch.load with weights_only=True |
| safetensors | the same | safetensors |
| ZIP of Keras 3 (.keras) | a model: configuration and weights | zipfile, h5py |
| HDF5 (.h5; a .keras of Keras 2) | weights of Keras 3, weights or a whole model of Keras 2 | h5py |

No code of a file is run: of what a pickle names, only tensors and plain data are made (see `PLAIN_DATA`).
"""

import argparse
import io
import json
import pathlib
import pickle
import re
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import h5py
import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file

from birnn_export.checkpoints.file_kind import KERAS_CONFIG, KERAS_METADATA, KERAS_WEIGHTS, FileKind, kind_of
from birnn_export.training.checkpoint import CheckpointError

# What torch.load may make beside tensors and Python's own collections: things that checkpoints hold beside weights,
# as settings and the best score so far, and that do nothing when they are made.
PLAIN_DATA: list[Any] = [
    argparse.Namespace,
    pathlib.PosixPath,
    np.dtype,
    np.ndarray,
    *(
        (made, f"{module}.multiarray.{name}")
        for name, made in (("scalar", np.float64().__reduce__()[0]), ("_reconstruct", np.empty(0).__reduce__()[0]))
        for module in ("numpy.core", "numpy._core")
    ),
    *(kind for kind in vars(np.dtypes).values() if isinstance(kind, type) and issubclass(kind, np.dtype)),
]

KERAS_OPTIMIZERS = frozenset({"optimizer", "optimizer_weights"})
"""Groups in which Keras keeps the state of an optimizer."""

OPTIMIZER_STATE = re.compile(
    r"(?:.*\.)?state\.\d+\.(?:step|(?:max_)?exp_(?:avg|inf)\w*|momentum_buffer|square_avg|grad_avg|acc_delta|sum|eta|mu|ax)"
)
"""Names of the tensors that the optimizers of torch.optim keep, in files without dictionaries."""

LISTED = 12
"""Tensors that a message names."""

Tensors = Mapping[str, NDArray[np.float32]]


@dataclass(frozen=True, eq=False)
class StoredWeights:
    """What a file holds.

    Attributes:
        source: Name of the file, for messages.
        tensors: Every tensor of floating point numbers but those of an optimizer, as float32, by name. Names of nested
            dictionaries are joined by dots, those of HDF5 groups by slashes.
        keras_names: For groups of a Keras 3 file, the names that the user gave to the layers stored there.
        keras_config: The configuration of a Keras model, where the file holds one.
        keras_version: Of the Keras that wrote it, where it says so.
    """

    source: str
    tensors: Tensors
    keras_names: Mapping[str, str] = field(default_factory=dict)
    keras_config: Mapping[str, Any] | None = None
    keras_version: str = ""

    def listed(self) -> str:
        """The first tensors and their shapes, for a message."""
        names = [f"{name} {list(values.shape)}" for name, values in self.tensors.items()]
        return f"found: {shortened(names, LISTED) or 'no floating point tensor'}"


def shortened(names: Sequence[str], limit: int) -> str:
    """The first names of a list, for a message, and how many more there are."""
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more


def read_weights(path: Path) -> StoredWeights:
    """Read a file of weights, of whichever kind its first bytes show.

    Raises CheckpointError for a file that is missing, cut off, of an unknown kind, or that would have to be unpickled.
    """
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file")
    match kind_of(path):
        case FileKind.TORCH:
            return StoredWeights(path.name, from_state_dict(_read_torch(path), path.name))
        case FileKind.SAFETENSORS:
            return StoredWeights(path.name, from_state_dict(_read_safetensors(path), path.name))
        case FileKind.KERAS:
            return _read_keras(path)
        case FileKind.HDF5:
            return _read_hdf5(path, path.name, None)


def from_state_dict(content: Mapping[Any, Any], source: str = "state_dict") -> dict[str, NDArray[np.float32]]:
    """The floating point tensors of a state_dict, or of dictionaries and lists that hold one.

    Quantized ones come as what they stand for. Raises CheckpointError for a tensor without values, by its name in
    `source`.
    """
    tensors = {}
    for name, tensor in _flattened(content, ""):
        if (tensor.is_floating_point() or tensor.is_quantized) and not OPTIMIZER_STATE.fullmatch(name):
            try:
                tensors[name] = _values(tensor)
            except (RuntimeError, NotImplementedError, TypeError, ValueError) as error:
                raise CheckpointError(f"{source}: {name} is no array of numbers ({_first_line(error)})") from error
    return tensors


def _values(tensor: torch.Tensor) -> NDArray[np.float32]:
    tensor = tensor.detach()
    if tensor.is_quantized:
        tensor = tensor.dequantize()
    if tensor.layout != torch.strided:
        tensor = tensor.to_dense()
    values: NDArray[np.float32] = tensor.to("cpu", torch.float32).numpy()
    return values


def _flattened(content: Mapping[Any, Any] | Sequence[Any], prefix: str) -> Iterator[tuple[str, torch.Tensor]]:
    for key, value in content.items() if isinstance(content, Mapping) else enumerate(content):
        if isinstance(value, torch.Tensor):
            yield f"{prefix}{key}", value
        elif isinstance(value, Mapping | list | tuple) and not _is_optimizer(value):
            yield from _flattened(value, f"{prefix}{key}.")


def _is_optimizer(content: Mapping[Any, Any] | Sequence[Any]) -> bool:
    """Whether this is what `torch.optim.Optimizer.state_dict` gives; its tensors are no weights."""
    return isinstance(content, Mapping) and {"state", "param_groups"} <= content.keys()


def _read_torch(path: Path) -> Mapping[Any, Any]:
    try:
        # Opened here, for torch.load goes by the name of a file, too.
        with path.open("rb") as file, torch.serialization.safe_globals(PLAIN_DATA):
            content = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if found := re.search(r"GLOBAL ([\w.]+)", str(error)):
            if found[1].endswith("ScriptObject"):
                raise CheckpointError(
                    f"{path}: holds packed weights of a quantized module; save those from before quantization"
                ) from error
            raise CheckpointError(
                f"{path}: holds pickled Python objects ({found[1]}), and unpickling runs whatever code they name; it "
                "is never done here. Save the weights alone: torch.save(model.state_dict(), FILE)"
            ) from error
        # The first lines advise to load it unsafely.
        reason = str(error).partition("WeightsUnpickler error:")[2].strip().partition("\n")[0]
        if "Unsupported operand" in reason:
            raise CheckpointError(
                f"{path}: was pickled by another protocol than torch.save takes by itself, or is damaged; save it "
                "again with torch.save(model.state_dict(), FILE) and no pickle_protocol"
            ) from error
        raise _damaged(path, reason or error) from error
    except Exception as error:  # torch raises whatever it stumbles over in a damaged file
        if "TorchScript" in str(error):
            raise CheckpointError(
                f"{path}: is a TorchScript archive; save its weights: torch.save(torch.jit.load(A).state_dict(), B)"
            ) from error
        raise _damaged(path, error) from error
    if not isinstance(content, Mapping):
        raise CheckpointError(
            f"{path}: holds a {type(content).__name__}, no dictionary of weights; "
            "save one: torch.save(model.state_dict(), FILE)"
        )
    return content


def _read_safetensors(path: Path) -> Mapping[Any, Any]:
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise _damaged(path, error) from error


def _read_keras(path: Path) -> StoredWeights:
    try:
        with zipfile.ZipFile(path) as archive:
            config = json.loads(archive.read(KERAS_CONFIG))
            weights = io.BytesIO(archive.read(KERAS_WEIGHTS))
            metadata = json.loads(archive.read(KERAS_METADATA)) if KERAS_METADATA in archive.namelist() else {}
    except KeyError as error:
        raise CheckpointError(f"{path}: is no Keras 3 model: {error.args[0]}") from error
    except (zipfile.BadZipFile, zlib.error, OSError, ValueError, EOFError, RecursionError) as error:
        raise _damaged(path, error) from error
    version = metadata.get("keras_version") if isinstance(metadata, dict) else None
    return _read_hdf5(weights, path.name, config, str(version or ""))


def _read_hdf5(
    file: Path | BinaryIO, source: str, config: Mapping[str, Any] | None, version: str = ""
) -> StoredWeights:
    tensors: dict[str, NDArray[np.float32]] = {}
    names: dict[str, str] = {}

    def visit(name: str, item: h5py.Group | h5py.Dataset) -> None:
        if isinstance(item, h5py.Group):
            if name.endswith("/vars") and "name" in item.attrs:
                names[name.removesuffix("/vars")] = str(item.attrs["name"])
        elif item.shape is not None and not KERAS_OPTIMIZERS & set(name.split("/")):
            if item.dtype.kind == "f":
                tensors[name] = item[()].astype(np.float32)
            elif str(item.attrs.get("dtype")) == "bfloat16":
                # Keras keeps its bits.
                tensors[name] = (item[()].view(np.uint16).astype(np.uint32) << 16).view(np.float32)

    try:
        with h5py.File(file, "r") as opened:
            # Links to other files are not followed.
            opened.visititems(visit)
            if config is None and "model_config" in opened.attrs:
                config = json.loads(opened.attrs["model_config"])
            if isinstance(written := opened.attrs.get("keras_version"), bytes | str):
                version = version or (written.decode() if isinstance(written, bytes) else written)
    except (OSError, ValueError, KeyError, RuntimeError, TypeError) as error:
        raise _damaged(Path(source), error) from error
    return StoredWeights(source, tensors, names, config, version)


def _damaged(path: Path, error: Exception | str) -> CheckpointError:
    return CheckpointError(f"{path}: is damaged or cut off; copy or download it again ({_first_line(error)})")


def _first_line(error: Exception | str) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
