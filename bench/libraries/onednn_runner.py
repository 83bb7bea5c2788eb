"""oneDNN's RNN primitives, through a shared library that is compiled here."""

import ctypes
import hashlib
import shutil
import subprocess
import sys
from ctypes import POINTER, c_char_p, c_float, c_int32, c_int64, c_void_p
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.libraries.parameters import Parameters
from bench.libraries.runner import Precision, RefusedError, Run
from birnn_bundle.ragged import RaggedBatch

SOURCE = Path(__file__).with_name("onednn_encoder.cpp")
FLAGS = ["-O3", "-march=native", "-std=c++17", "-shared", "-fPIC"]
PRECISIONS: dict[Precision, int] = {"float32": 0, "bf16": 1, "int8": 2}
ERROR_BYTES = 500


class OneDnnRunner:
    """An encoder of oneDNN primitives; see `onednn_encoder.cpp` for how lengths are treated."""

    def __init__(self, folder: Path, precision: Precision) -> None:
        """Make the primitives of the encoder in `folder`. Raises `RefusedError` where oneDNN has none such."""
        self._library = load_library()
        parameters = Parameters.read(folder)
        self._width = 2 * parameters.hidden
        embedding, weights = parameters.embedding, flat_weights(parameters)
        error = ctypes.create_string_buffer(ERROR_BYTES)
        self._encoder = self._library.onednn_create(
            int(parameters.lstm),
            PRECISIONS[precision],
            *embedding.shape,
            parameters.hidden,
            len(parameters.layers),
            _pointer(embedding, c_float),
            float(np.abs(embedding).max()),
            _pointer(weights, c_float),
            error,
            ERROR_BYTES,
        )
        if not self._encoder:
            cell = "lstm" if parameters.lstm else "lbr_gru"
            raise RefusedError(f"oneDNN {self.version} has no {cell} in {precision}: {error.value.decode()}")

    @property
    def version(self) -> str:
        """Of libdnnl."""
        text = ctypes.create_string_buffer(100)
        self._library.onednn_version(text, len(text))
        return text.value.decode()

    def prepare(self, batch: RaggedBatch, equal: bool) -> Run:
        """Make what runs a batch; its primitives are made at the first run."""
        ids, offsets = np.ascontiguousarray(batch.ids), np.ascontiguousarray(batch.offsets)
        pooled = np.empty((len(batch), self._width), dtype=np.float32)
        error = ctypes.create_string_buffer(ERROR_BYTES)
        arguments = (
            self._encoder,
            _pointer(ids, c_int32),
            _pointer(offsets, c_int64),
            len(batch),
            int(equal),
            _pointer(pooled, c_float),
            error,
            ERROR_BYTES,
        )
        kept = (ids, offsets)

        def run() -> NDArray[np.float32]:
            assert kept
            if not self._library.onednn_run(*arguments):
                raise RuntimeError(error.value.decode())
            return pooled

        return run


def flat_weights(parameters: Parameters) -> NDArray[np.float32]:
    """All weights in the order and form of `onednn_create`.

    oneDNN's gates of a GRU are update, reset, new, where torch has reset, update, new; its fourth bias is what torch
    adds to the state's part of the new gate. A layer's input and state weights are [inputs, gates, H].
    """
    parts = []
    for layer in parameters.layers:
        for direction in layer:
            order = range(4) if parameters.lstm else (1, 0, 2)
            for matrix in (direction.input, direction.state):
                gates = np.split(matrix, len(order))
                parts.append(np.concatenate([gates[gate].T for gate in order], axis=1).ravel())
            inputs, states = (np.split(bias, len(order)) for bias in (direction.input_bias, direction.state_bias))
            if parameters.lstm:
                parts.append(np.concatenate([one + other for one, other in zip(inputs, states, strict=True)]))
            else:
                parts += [inputs[1] + states[1], inputs[0] + states[0], inputs[2], states[2]]
    return np.ascontiguousarray(np.concatenate(parts), dtype=np.float32)


def load_library() -> Any:
    """The shared library, compiled where its source has changed; it lies in this environment.

    Raises:
        RefusedError: There is no compiler, or it fails.
    """
    place = Path(sys.prefix)
    digest = hashlib.sha256(SOURCE.read_bytes()).hexdigest()[:16]
    program = place / f"libonednn_encoder-{digest}.so"
    if not program.exists():
        compiler = next((path for name in ("c++", "g++", "clang++") if (path := shutil.which(name))), None)
        if compiler is None:
            raise RefusedError("oneDNN's primitives are called from C++, and there is no C++ compiler")
        fresh = program.with_suffix(".new")
        command = [compiler, *FLAGS, str(SOURCE), f"-I{place / 'include'}", f"-L{place / 'lib'}", "-ldnnl"]
        done = subprocess.run(
            [*command, f"-Wl,-rpath,{place / 'lib'}", "-o", str(fresh)], capture_output=True, text=True
        )
        if done.returncode:
            raise RefusedError(f"{SOURCE.name} does not compile: {done.stderr.strip()[-500:]}")
        fresh.replace(program)
    library = ctypes.CDLL(str(program))
    floats, error = POINTER(c_float), (c_char_p, c_int32)
    library.onednn_version.argtypes = error
    library.onednn_create.argtypes = (c_int32, c_int32, *(c_int64,) * 4, floats, c_float, floats, *error)
    library.onednn_create.restype = c_void_p
    library.onednn_run.argtypes = (
        c_void_p,
        POINTER(c_int32),
        POINTER(c_int64),
        c_int64,
        c_int32,
        floats,
        *error,
    )
    return library


def _pointer(array: NDArray[Any], kind: Any) -> Any:
    return array.ctypes.data_as(POINTER(kind))
