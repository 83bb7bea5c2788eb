"""What every library's side of a comparison looks like, inside the process that has the library."""

from collections.abc import Callable
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from birnn_bundle.ragged import RaggedBatch

Precision = Literal["float32", "bf16", "int8"]
# Runs one batch; pooled vectors float32 [n, D].
Run = Callable[[], NDArray[np.float32]]
# In the folder of an encoder: its weights as arrays, and its graph with what the graph names.
PARAMETERS_FILE, GRAPH_FILE = "parameters.npz", "pooled.onnx"


class Runner(Protocol):
    """An encoder that a library runs on one thread."""

    @property
    def version(self) -> str:
        """Of the library."""

    def prepare(self, batch: RaggedBatch, equal: bool) -> Run:
        """Make what runs a batch, inputs laid out beforehand.

        Args:
            batch: Token ids.
            equal: Take the rows to have one length, even if they have not: what a user does who pads and forgets.
                Libraries with only one way to run a batch ignore it.
        """


class RefusedError(Exception):
    """The library cannot run such an encoder; says why."""


# A runner of the encoder in a folder; it raises `RefusedError`.
MakeRunner = Callable[[Path, Precision], Runner]
