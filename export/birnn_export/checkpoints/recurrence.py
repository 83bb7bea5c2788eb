"""What was found in a checkpoint: bidirectional recurrences in one common form, and those that cannot be served."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from birnn_bundle.manifest import Architecture, Nonlinearity
from birnn_export.checkpoints.keras_graph import Layer
from birnn_export.training.checkpoint import CheckpointError

Family = Literal["rnn", "gru", "lstm"]
Array = NDArray[np.float32]

GATES: dict[Family, int] = {"rnn": 1, "gru": 3, "lstm": 4}
FAMILIES: dict[int, Family] = {gates: family for family, gates in GATES.items()}


@dataclass(frozen=True, eq=False)
class Direction:
    """One direction of one layer, in the layout and gate order of torch.nn (GRU r,z,n; LSTM i,f,g,o).

    Attributes:
        W: Input weights [G H, I], with G gates.
        R: Hidden weights [G H, H].
        input_bias: [G H]; None without.
        hidden_bias: [G H]; None without.
    """

    W: Array
    R: Array
    input_bias: Array | None = None
    hidden_bias: Array | None = None


@dataclass(frozen=True)
class Flawed:
    """Recurrent weights that cannot be exported.

    Attributes:
        place: Where they stand in the checkpoint.
        problem: Why not, and what to do.
        tensors: Names of the tensors it is made of.
    """

    place: str
    problem: str
    tensors: frozenset[str] = frozenset()


@dataclass(frozen=True, eq=False)
class Recurrence:
    """A stack of bidirectional recurrent layers of one kind and hidden size.

    Attributes:
        place: Where it stands in the checkpoint: what `--prefix` takes.
        family: Which recurrence.
        layers: Forward and backward direction of each layer.
        tensors: Names of the tensors it is made of.
        scratch: Whether it is a plain RNN written out from the equation.
        nonlinearity: Of an RNN; None where the checkpoint does not say.
        linear_before_reset: Of a GRU (see `EncoderConfig`); None where the checkpoint does not say.
        name: Another name of the place, where it has one.
        layer: Of Keras, what the configuration says of it.
        notes: What was assumed, a line each.
    """

    place: str
    family: Family
    layers: tuple[tuple[Direction, Direction], ...]
    tensors: frozenset[str]
    scratch: bool = False
    nonlinearity: Nonlinearity | None = "tanh"
    linear_before_reset: bool | None = True
    name: str = ""
    layer: Layer | None = None
    notes: tuple[str, ...] = ()

    @property
    def input_size(self) -> int:
        """Width of what the first layer reads."""
        return int(self.layers[0][0].W.shape[1])

    @property
    def hidden_size(self) -> int:
        """Of each direction."""
        return int(self.layers[0][0].R.shape[1])

    @property
    def bias(self) -> bool:
        """Whether any layer has biases."""
        return any(
            side.input_bias is not None or side.hidden_bias is not None for sides in self.layers for side in sides
        )

    @property
    def architecture(self) -> Architecture:
        """The name of the same in a manifest."""
        if self.scratch:
            return "birnn-scratch"
        names: dict[Family, Architecture] = {"rnn": "birnn", "gru": "bigru", "lstm": "bilstm"}
        return names[self.family]

    def __str__(self) -> str:
        layers = "1 layer" if len(self.layers) == 1 else f"{len(self.layers)} layers"
        name = f" ({self.name})" if self.name else ""
        kind = "RNN from scratch" if self.scratch else self.family.upper()
        sizes = f"{self.input_size} -> 2 x {self.hidden_size}"
        return f"{self.place or 'the top level'}{name}: bidirectional {kind}, {layers}, {sizes}"


Found = Recurrence | Flawed


def family_of(R: Array, gates_last: bool = False) -> Family:
    """Which recurrence hidden weights [G H, H] (or [H, G H]) belong to.

    Raises:
        ValueError: To none; the message says what the shape is.
    """
    if R.ndim != 2:
        raise ValueError(f"hidden weights of shape {list(R.shape)} are no matrix")
    rows, columns = R.shape[::-1] if gates_last else R.shape
    if not columns or rows % columns or rows // columns not in FAMILIES:
        raise ValueError(
            f"hidden weights of shape {list(R.shape)} are of no RNN, GRU or LSTM; other cells are not served"
        )
    return FAMILIES[rows // columns]


def stacked(layers: Sequence[tuple[Direction, Direction]], family: Family) -> tuple[tuple[Direction, Direction], ...]:
    """Layers that were checked to be one stack.

    Raises:
        ValueError: A shape does not fit; says which.
    """
    H = layers[0][0].R.shape[1]
    rows = GATES[family] * H
    for number, sides in enumerate(layers):
        inputs = sides[0].W.shape[-1] if number == 0 else 2 * H
        for side, way in zip(sides, ("forward", "backward"), strict=True):
            expected: dict[str, tuple[Array, tuple[int, ...]]] = {
                "input weights": (side.W, (rows, inputs)),
                "hidden weights": (side.R, (rows, H)),
            }
            for what, bias in (("input bias", side.input_bias), ("hidden bias", side.hidden_bias)):
                if bias is not None:
                    expected[what] = (bias, (rows,))
            for what, (found, shape) in expected.items():
                if found.shape != shape:
                    raise ValueError(
                        f"the {what} of layer {number}, {way}, come to {list(found.shape)}, and {list(shape)} fits a "
                        f"bidirectional {family.upper()} with {H} hidden units in every layer and direction"
                    )
    return tuple(layers)


def joined(recurrences: Sequence[Recurrence]) -> Recurrence:
    """Several recurrences, each of which reads the outputs of the one before, as one stack.

    Raises CheckpointError where they do not fit on each other.
    """
    first = recurrences[0]
    if len(recurrences) == 1:
        return first
    places = ", ".join(one.place for one in recurrences)
    for one in recurrences[1:]:
        kinds = [(each.architecture, each.nonlinearity, each.linear_before_reset) for each in (first, one)]
        if kinds[0] != kinds[1]:
            raise CheckpointError(
                f"{first.place} and {one.place} are of different kinds and cannot be one stack; export each "
                "alone with --prefix, the upper one with --embedding none"
            )
    try:
        layers = stacked([sides for one in recurrences for sides in one.layers], first.family)
    except ValueError as error:
        raise CheckpointError(f"{places} cannot be one stack: {error}") from error
    tensors = frozenset().union(*(one.tensors for one in recurrences))
    return Recurrence(
        places,
        first.family,
        layers,
        tensors,
        first.scratch,
        first.nonlinearity,
        first.linear_before_reset,
        layer=recurrences[-1].layer,
        notes=tuple(dict.fromkeys(note for one in recurrences for note in one.notes)),
    )
