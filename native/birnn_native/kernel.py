"""A bidirectional recurrent encoder, run by the compiled kernels."""

import ctypes
import enum
import weakref
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from birnn_bundle.cells import Cell
from birnn_native.library import PRECISIONS, Precision, instruction_sets, load_library

Floats = NDArray[np.float32]

ERROR_SIZE = 512


class Pooling(enum.IntEnum):
    """What becomes of the states of a sequence, both directions side by side; numbered as in `include/birnn.h`."""

    FINAL = 0
    MEAN = 1
    MAX = 2
    MEAN_MAX = 3
    TOKENS = 4


POOLINGS = {"final": Pooling.FINAL, "mean": Pooling.MEAN, "max": Pooling.MAX, "mean+max": Pooling.MEAN_MAX}
"""By their names in a manifest."""


NEEDS: dict[Precision, str] = {"bf16": "a processor with AVX-512 BF16"}
"""What a processor must have for a precision that not every one has."""


def obstacle(cell: Cell, precision: Precision, instruction_set: str | None = None) -> str | None:
    """Why a cell cannot be computed here in a precision; None where it can.

    Code that offers a choice of precisions asks here. It does not look at weights: in int8, `Kernel` also refuses those
    that are not finite, or beyond 1e30.

    Args:
        cell: The recurrence.
        precision: Of its products.
        instruction_set: One of `instruction_sets()`; the best by default.

    Raises:
        NativeUnavailableError: There are no kernels here.
    """
    sets = instruction_sets()
    chosen = instruction_set or next(iter(sets))
    if cell.kernel is None:
        return f"there is no kernel for {cell.name}; onnxruntime serves it"
    if chosen not in sets:
        return f"no kernels named {chosen} run here; there are {', '.join(sets)}"
    if precision not in sets[chosen]:
        return f"{precision} needs {NEEDS[precision]}; {chosen} has none"
    if precision == "int8" and cell.nonlinearity != "tanh":
        return (
            f"int8 needs states between -1 and 1, and those of {cell.name} have no bound "
            f"(its activation is {cell.nonlinearity}); use bf16 or fp32"
        )
    return None


@dataclass(frozen=True, slots=True, eq=False)
class Layer:
    """Weights of one layer as ONNX has them: W [2, G H, I], R [2, G H, H], B [2, 2 G H] or None; float32."""

    W: Floats
    R: Floats
    B: Floats | None


class Kernel:
    """One encoder, its weights packed for one instruction set and precision; safe to call from several threads.

    A row's encoding is the same to the bit whatever the batch, its neighbors and the number of threads.
    """

    def __init__(
        self,
        cell: Cell,
        layers: Sequence[Layer],
        embedding: Floats | None,
        *,
        precision: Precision = "fp32",
        instruction_set: str | None = None,
        most_table_bytes: int = 1 << 26,
    ) -> None:
        """Pack the weights.

        Args:
            cell: The recurrence.
            layers: Weights of each layer; the first one reads the embedding or features, the others the 2H states
                of the one below. Layers may have different hidden sizes.
            embedding: Rows of all ids [V, E]; None where the first layer reads features.
            precision: How to multiply. bf16: in bf16, added in float32. int8: weights and states in 8 bits, added
                exactly, but what the first layer reads in float32; the same bits on every instruction set. States,
                gates and pooling are float32 in any case.
            instruction_set: One of `instruction_sets()`; the best by default.
            most_table_bytes: Memory that the first layer's input products of all ids may take; where they need more,
                they are computed in each run.

        Raises:
            NativeUnavailableError: There are no kernels here.
            ValueError: Shapes do not belong together, or there is an `obstacle`.
        """
        if reason := obstacle(cell, precision, instruction_set):
            raise ValueError(reason)
        name = instruction_set or next(iter(instruction_sets()))
        self.instruction_set = name
        sizes = _checked(cell, layers, embedding)
        self.hidden_size = sizes[-1]
        self._library = load_library()
        self._features = 0 if embedding is not None else layers[0].W.shape[2]
        arrays = [[_contiguous(array) for array in (layer.W, layer.R, layer.B)] for layer in layers]
        table = _contiguous(embedding)
        hidden = (ctypes.c_int64 * len(sizes))(*sizes)
        error = ctypes.create_string_buffer(ERROR_SIZE)
        handle = self._library.birnn_create(
            name.encode(), PRECISIONS.index(precision), cell.kernel, len(layers), hidden, layers[0].W.shape[2],
            0 if embedding is None else len(embedding), _address(table),
            *(_addresses([layer[part] for layer in arrays]) for part in range(3)),
            most_table_bytes, error, len(error),
        )  # fmt: skip
        if not handle:
            raise ValueError(f"the native kernels cannot run this encoder: {error.value.decode()}")
        self._handle = handle
        self._destroy = weakref.finalize(self, self._library.birnn_destroy, handle)
        # A run that hangs may outlive the interpreter, and the process gives the memory back in any case.
        self._destroy.atexit = False

    def close(self) -> None:
        """Free the weights; the kernel cannot be run any more."""
        self._destroy()

    @property
    def bytes(self) -> int:
        """Memory of the packed weights and tables."""
        return int(self._library.birnn_bytes(self._handle))

    def width(self, pooling: Pooling) -> int:
        """Floats of a row of the result."""
        return self.hidden_size * (4 if pooling is Pooling.MEAN_MAX else 2)

    def run(
        self, inputs: NDArray[np.int32] | Floats, offsets: NDArray[np.int64], pooling: Pooling, threads: int = 1
    ) -> Floats:
        """Encode a ragged batch.

        Args:
            inputs: Ids int32 [tokens], or features float32 [tokens, F].
            offsets: Where each sequence begins, and at last where the final one ends, int64 [n + 1].
            pooling: What is wanted.
            threads: 2 to walk both directions at the same time.

        Returns:
            With the hidden size H of the last layer, pooled: float32 [n, 2H], [n, 4H] for MEAN_MAX. TOKENS: float32
            [tokens, 2H].

        Raises:
            ValueError: The batch is not as described, an id lies outside the vocabulary, or the kernel was closed.
        """
        if not self._destroy.alive:
            raise ValueError("the kernel has been closed")
        dtype, axes = (np.float32, 2) if self._features else (np.int32, 1)
        if inputs.ndim != axes or (self._features and inputs.shape[1] != self._features) or offsets.ndim != 1:
            raise ValueError(f"inputs of shape {inputs.shape} and offsets of shape {offsets.shape} are no batch")
        for array, wanted in ((inputs, dtype), (offsets, np.int64)):
            # A conversion that can lose something would make other ids of those that are out of range.
            if not np.can_cast(array.dtype, wanted):
                raise ValueError(f"a batch holds {array.dtype}, {np.dtype(wanted)} expected")
        values = np.ascontiguousarray(inputs, dtype=dtype)
        offsets = np.ascontiguousarray(offsets, dtype=np.int64)
        tokens, rows = len(values), len(offsets) - 1
        out = np.empty((tokens if pooling is Pooling.TOKENS else max(rows, 0), self.width(pooling)), dtype=np.float32)
        address = values.ctypes.data
        error = ctypes.create_string_buffer(ERROR_SIZE)
        done = self._library.birnn_run(
            self._handle, None if self._features else address, address if self._features else None, tokens,
            offsets.ctypes.data, rows, pooling, threads, out.ctypes.data, out.size, error, len(error),
        )  # fmt: skip
        if not done:
            raise ValueError(error.value.decode())
        return out


def _checked(cell: Cell, layers: Sequence[Layer], embedding: Floats | None) -> list[int]:
    """The hidden size H of each layer, where all shapes belong together."""
    if not layers:
        raise ValueError("an encoder has at least one layer")
    if embedding is not None and embedding.ndim != 2:
        raise ValueError(f"the embedding has shape {embedding.shape}, [V, E] expected")
    inputs = layers[0].W.shape[-1] if embedding is None else embedding.shape[1]
    sizes = []
    for number, layer in enumerate(layers):
        hidden = int(layer.R.shape[-1])
        rows = len(cell.gates) * hidden
        expected = {"W": (2, rows, inputs), "R": (2, rows, hidden), "B": (2, 2 * rows)}
        for name, shape in expected.items():
            values = getattr(layer, name)
            if values is not None and values.shape != shape:
                raise ValueError(f"{name} of layer {number} has shape {values.shape}, {shape} expected")
        inputs = 2 * hidden
        sizes.append(hidden)
    return sizes


def _contiguous(array: Floats | None) -> Floats | None:
    return None if array is None else np.ascontiguousarray(array, dtype=np.float32)


def _address(array: Floats | None) -> int | None:
    return None if array is None else array.ctypes.data


def _addresses(arrays: Sequence[Floats | None]) -> "ctypes.Array[ctypes.c_void_p]":
    return (ctypes.c_void_p * len(arrays))(*map(_address, arrays))
