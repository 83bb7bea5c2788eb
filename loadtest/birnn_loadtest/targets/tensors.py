"""The tensors of an Open Inference model that encodes text: which they are, and how strings become bytes."""

import struct
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from birnn import EncodeError
from birnn_loadtest.targets.target import TensorNames

FLOATS = {"FP32": "<f4", "FP16": "<f2", "FP64": "<f8"}


@dataclass(frozen=True, slots=True)
class Tensor:
    """A tensor as a model's metadata describe it."""

    name: str
    datatype: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class TextModel:
    """Which tensors a model takes and gives.

    Attributes:
        input: Of strings.
        output: Of vectors.
    """

    input: Tensor
    output: Tensor

    @classmethod
    def found(cls, model: str, inputs: Sequence[Tensor], outputs: Sequence[Tensor], names: TensorNames) -> "TextModel":
        """The tensors that were named; of those not named the first of strings and the first of floats.

        Raises:
            EncodeError: There are none; lists what there is.
        """
        return cls(
            _one(model, "input", inputs, names.input, ("BYTES",)), _one(model, "output", outputs, names.output, FLOATS)
        )

    def shape(self, count: int) -> list[int]:
        """The shape of the input that holds so many strings."""
        return [count, *(1 for _ in self.input.shape[1:])]


def _one(
    model: str, what: str, tensors: Sequence[Tensor], name: str | None, datatypes: Sequence[str] | dict[str, str]
) -> Tensor:
    for tensor in tensors:
        if tensor.datatype in datatypes and name in (None, tensor.name):
            return tensor
    listed = ", ".join(f"{tensor.name} {tensor.datatype} {list(tensor.shape)}" for tensor in tensors) or "none"
    wanted = f"no {what} of {' or '.join(datatypes)}" + (f" named {name!r}" if name else "")
    raise EncodeError(f"model {model!r} has {wanted}; it has: {listed} (--{what} names one)")


def packed(sequences: Sequence[bytes]) -> bytes:
    """Strings as the bytes of a tensor of BYTES: each a little-endian uint32 length and its bytes."""
    return b"".join(struct.pack("<I", len(sequence)) + sequence for sequence in sequences)


def vectors(content: bytes | Sequence[float], datatype: str, shape: Sequence[int]) -> NDArray[np.float32]:
    """The vectors of an output: float32 [n, dimension].

    Raises:
        ValueError: The content does not fit.
    """
    if isinstance(content, bytes):
        if datatype not in FLOATS:
            raise ValueError(f"the output is {datatype} and not floats")
        values = np.frombuffer(content, FLOATS[datatype])
    else:
        values = np.array(content)
    return values.astype(np.float32).reshape(shape[0] if shape else 0, -1)
