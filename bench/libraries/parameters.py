"""The weights of an encoder as plain arrays, for processes that have no torch."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.libraries.runner import PARAMETERS_FILE

Floats = NDArray[np.float32]
# Names that torch.nn gives the parameters of a direction, in the order of `Direction`.
NAMES = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")


@dataclass(frozen=True, slots=True)
class Direction:
    """One direction of one layer, gates stacked as torch.nn does.

    Attributes:
        input: [gates x H, inputs].
        state: [gates x H, H].
        input_bias, state_bias: [gates x H].
    """

    input: Floats
    state: Floats
    input_bias: Floats
    state_bias: Floats


@dataclass(frozen=True, slots=True)
class Parameters:
    """A bidirectional GRU or LSTM behind an embedding, with final pooling.

    Attributes:
        lstm: Whether it is an LSTM.
        embedding: [vocabulary, E].
        layers: Forward and backward, of each layer.
    """

    lstm: bool
    embedding: Floats
    layers: list[tuple[Direction, Direction]]

    @property
    def hidden(self) -> int:
        """H."""
        return len(self.layers[0][0].state.T)

    def write(self, folder: Path) -> None:
        """Write them into a folder."""
        arrays = {"lstm": np.array(self.lstm), "embedding": self.embedding}
        for number, layer in enumerate(self.layers):
            for suffix, direction in zip(("", "_reverse"), layer, strict=True):
                values = (direction.input, direction.state, direction.input_bias, direction.state_bias)
                arrays |= {f"{name}_l{number}{suffix}": value for name, value in zip(NAMES, values, strict=True)}
        np.savez(folder / PARAMETERS_FILE, **arrays)  # type: ignore[arg-type]

    @classmethod
    def read(cls, folder: Path) -> "Parameters":
        """Read what `write` wrote."""
        with np.load(folder / PARAMETERS_FILE) as stored:
            arrays = dict(stored)
        count = sum(name.startswith("weight_ih_l") for name in arrays) // 2
        layers = [
            (
                Direction(*(arrays[f"{name}_l{number}"] for name in NAMES)),
                Direction(*(arrays[f"{name}_l{number}_reverse"] for name in NAMES)),
            )
            for number in range(count)
        ]
        return cls(bool(arrays["lstm"]), arrays["embedding"], layers)
