"""What was found in a checkpoint: bidirectional recurrences in one common form, and those that cannot be served."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from birnn_bundle.cells import CELLS, Architecture, Family, GateActivation, Nonlinearity, architecture_of, first_of
from birnn_bundle.numerals import counted
from birnn_export.checkpoints.keras_graph import Layer
from birnn_export.training.checkpoint import CheckpointError

Array = NDArray[np.float32]

# By number of gates.
_BY_GATES: dict[int, Family] = {len(cell.gates): cell.family for cell in CELLS}


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
    """A stack of bidirectional recurrent layers of one kind.

    Attributes:
        place: Where it stands in the checkpoint: what `--prefix` takes.
        family: Which recurrence.
        layers: Forward and backward direction of each layer.
        tensors: Names of the tensors it is made of.
        scratch: Whether it is a plain RNN written out from the equation.
        nonlinearity: Activation of the states; None where the checkpoint does not say.
        gate_activation: Of a GRU or an LSTM.
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
    gate_activation: GateActivation = "sigmoid"

    @property
    def input_size(self) -> int:
        """Width of what the first layer reads."""
        return int(self.layers[0][0].W.shape[1])

    @property
    def hidden_sizes(self) -> tuple[int, ...]:
        """Of each layer, in each direction."""
        return tuple(int(forward.R.shape[1]) for forward, _ in self.layers)

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
        return architecture_of(self.family)

    @property
    def kind(self) -> tuple[Architecture, Nonlinearity | None, GateActivation, bool | None]:
        """What all layers of one stack have in common."""
        return self.architecture, self.nonlinearity, self.gate_activation, self.linear_before_reset

    def __str__(self) -> str:
        layers = counted(len(self.layers), "layer")
        name = f" ({self.name})" if self.name else ""
        kind = "RNN from scratch" if self.scratch else self.family.upper()
        same = len(set(self.hidden_sizes)) == 1
        hidden = [f"2 x {size}" for size in (self.hidden_sizes[:1] if same else self.hidden_sizes)]
        sizes = " -> ".join([str(self.input_size), *hidden])
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
    if not columns or rows % columns or rows // columns not in _BY_GATES:
        raise ValueError(
            f"hidden weights of shape {list(R.shape)} are of no RNN, GRU or LSTM; other cells are not served"
        )
    return _BY_GATES[rows // columns]


def stacked(layers: Sequence[tuple[Direction, Direction]], family: Family) -> tuple[tuple[Direction, Direction], ...]:
    """Layers that were checked to be one stack.

    Raises:
        ValueError: A shape does not fit; says which.
    """
    inputs = layers[0][0].W.shape[-1]
    for number, sides in enumerate(layers):
        H = sides[0].R.shape[-1]
        rows = len(first_of(family).gates) * H
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
                        f"bidirectional {family.upper()} with {H} hidden units in each direction"
                    )
        inputs = 2 * H
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
        if one.kind != first.kind:
            raise CheckpointError(
                f"{first.place} and {one.place} are of different kinds and cannot be one stack; export each "
                "alone with --prefix, the upper one with --embedding none"
            )
    try:
        layers = stacked([sides for one in recurrences for sides in one.layers], first.family)
    except ValueError as error:
        raise CheckpointError(f"{places} cannot be one stack: {error}") from error
    tensors = frozenset().union(*(one.tensors for one in recurrences))
    return replace(
        first,
        place=places,
        layers=layers,
        tensors=tensors,
        name="",
        layer=recurrences[-1].layer,
        notes=tuple(dict.fromkeys(note for one in recurrences for note in one.notes)),
    )
