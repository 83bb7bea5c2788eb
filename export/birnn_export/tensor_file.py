"""The external data of ONNX graphs: one file of raw tensors that several graphs point into."""

from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import onnx
from numpy.typing import NDArray

# A memory page, so that a runtime can map each tensor: https://onnx.ai/onnx/repo-docs/ExternalData.html
ALIGNMENT = 4096


class TensorFile:
    """Writes tensors one after another at aligned offsets, and keeps the initializers that refer to them.

    Attributes:
        initializers: For each tensor added, the TensorProto to put into a graph stored in the same folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.initializers: dict[str, onnx.TensorProto] = {}
        self._file = path.open("wb")

    def add(self, name: str, values: NDArray[Any]) -> None:
        """Append one tensor. Raises ValueError for a name that was added before."""
        if name in self.initializers:
            raise ValueError(f"tensor {name!r} was added twice")
        self._file.write(b"\0" * (-self._file.tell() % ALIGNMENT))
        offset = self._file.tell()
        # The format is little-endian, row-major.
        content = np.ascontiguousarray(values, dtype=values.dtype.newbyteorder("<")).tobytes()
        self._file.write(content)
        tensor = onnx.TensorProto(
            name=name,
            data_type=onnx.helper.np_dtype_to_tensor_dtype(values.dtype),
            dims=values.shape,
            data_location=onnx.TensorProto.EXTERNAL,
        )
        for key, value in (("location", self.path.name), ("offset", offset), ("length", len(content))):
            tensor.external_data.add(key=key, value=str(value))
        self.initializers[name] = tensor

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._file.close()
