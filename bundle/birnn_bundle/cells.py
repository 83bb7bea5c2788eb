"""The recurrent cells: the one table that export, engines, kernels, tests and benches read.

With x the input, h and c the state, * the product by elements, and a letter for each gate (GRU: z update, r reset, h
candidate; LSTM: i input, o output, f forget, c candidate):

GRU (https://onnx.ai/onnx/operators/onnx__GRU.html, linear_before_reset = 1; torch.nn.GRU):
    z, r = sigmoid(W_. x + b_. + R_. h + d_.)
    n = tanh(W_h x + b_h + r * (R_h h + d_h))              d_h is reset too: it cannot join b_h
    h' = (1 - z) * n + z * h
    or, with linear_before_reset = 0:                      n = tanh(W_h x + b_h + R_h (r * h) + d_h)
LSTM (https://onnx.ai/onnx/operators/onnx__LSTM.html; torch.nn.LSTM):
    i, o, f = sigmoid(W_. x + b_. + R_. h + d_.)           g = tanh(W_c x + b_c + R_c h + d_c)
    c' = f * c + i * g                                      h' = o * tanh(c')
RNN (https://onnx.ai/onnx/operators/onnx__RNN.html; torch.nn.RNN):
    h' = tanh(W x + b + R h + d)

In place of tanh there may be relu, and in place of sigmoid one of two functions that Keras has called hard_sigmoid:
that of Keras 3 and torch.nn.Hardsigmoid, clip(x / 6 + 0.5, 0, 1), or that of Keras 1 and 2, clip(x / 5 + 0.5, 0, 1).
"""

from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

Family = Literal["rnn", "gru", "lstm"]
Architecture = Literal["bigru", "bilstm", "birnn", "birnn-scratch"]
Nonlinearity = Literal["tanh", "relu"]
GateActivation = Literal["sigmoid", "hard_sigmoid", "hard_sigmoid_keras2"]

FAMILIES: dict[Architecture, Family] = {"bigru": "gru", "bilstm": "lstm", "birnn": "rnn", "birnn-scratch": "rnn"}


class OnnxActivation(NamedTuple):
    """An activation as ONNX writes it; alpha and beta are its slope and its value at 0, where it has them."""

    name: str
    alpha: float | None = None
    beta: float | None = None


ACTIVATIONS: dict[Nonlinearity | GateActivation, OnnxActivation] = {
    "sigmoid": OnnxActivation("Sigmoid"),
    "hard_sigmoid": OnnxActivation("HardSigmoid", 1 / 6, 0.5),
    "hard_sigmoid_keras2": OnnxActivation("HardSigmoid", 0.2, 0.5),
    "tanh": OnnxActivation("Tanh"),
    "relu": OnnxActivation("Relu"),
}


@dataclass(frozen=True, slots=True)
class Cell:
    """One recurrence; its equations stand at the head of this file.

    Attributes:
        name: What people call it.
        family: Which weights it has.
        operator: ONNX's name of it, which is torch.nn's, too.
        keras: Name of its class in Keras.
        gates: A letter for each gate, in ONNX's order.
        torch_gates: The same in torch.nn's order.
        keras_gates: The same in Keras' order.
        roles: For each activation that ONNX lists, whether it is a gate's or a state's.
        nonlinearity: Activation of the states.
        gate_activation: Activation of the gates, where there are gates.
        linear_before_reset: Of a GRU: whether it resets the product, and not what is multiplied.
        torch: Whether a module of torch.nn computes it.
        kernel: Its number in `native/include/birnn.h`; None where onnxruntime alone serves it.
        cuda: Whether onnxruntime's CUDA provider runs it.
    """

    name: str
    family: Family
    operator: str
    keras: str
    gates: str
    torch_gates: str
    keras_gates: str
    roles: tuple[Literal["gate", "state"], ...]
    nonlinearity: Nonlinearity = "tanh"
    gate_activation: GateActivation = "sigmoid"
    linear_before_reset: bool = True
    torch: bool = True
    kernel: int | None = None
    cuda: bool = True

    @property
    def onnx_activations(self) -> list[OnnxActivation]:
        """Activations of one direction, in ONNX's order."""
        return [ACTIVATIONS[self.gate_activation if role == "gate" else self.nonlinearity] for role in self.roles]

    @property
    def onnx_from_torch(self) -> tuple[int, ...]:
        """For each gate in ONNX's order its position in torch.nn's."""
        return tuple(self.torch_gates.index(gate) for gate in self.gates)

    @property
    def torch_from_keras(self) -> tuple[int, ...]:
        """For each gate in torch.nn's order its position in Keras'."""
        return tuple(self.keras_gates.index(gate) for gate in self.torch_gates)


GRU = Cell("GRU", "gru", "GRU", "GRU", "zrh", "rzh", "zrh", ("gate", "state"), kernel=0)
GRU_RESET_FIRST = replace(
    GRU, name="GRU, reset before the product", linear_before_reset=False, torch=False, kernel=1, cuda=False
)
LSTM = Cell("LSTM", "lstm", "LSTM", "LSTM", "iofc", "ifco", "ifco", ("gate", "state", "state"), kernel=2)
RNN_TANH = Cell("RNN, tanh", "rnn", "RNN", "SimpleRNN", "h", "h", "h", ("state",), kernel=3)
RNN_RELU = replace(RNN_TANH, name="RNN, relu", nonlinearity="relu", kernel=4)

CELLS = (RNN_TANH, RNN_RELU, GRU, GRU_RESET_FIRST, LSTM)
OPERATORS = frozenset(cell.operator for cell in CELLS)
"""The recurrent operators of ONNX."""


def find_cell(
    architecture: Architecture,
    nonlinearity: Nonlinearity | None = None,
    linear_before_reset: bool = True,
    gate_activation: GateActivation = "sigmoid",
) -> Cell:
    """The cell of an encoder: a row of the table, or one with other activations, which onnxruntime serves on CPUs.

    Args:
        architecture: Which weights it has.
        nonlinearity: Activation of the states; None for tanh.
        linear_before_reset: False for a GRU that resets before the product.
        gate_activation: Activation of the gates.

    Raises:
        ValueError: There is none.
    """
    family, state = FAMILIES[architecture], nonlinearity or "tanh"
    if not linear_before_reset and family != "gru":
        raise ValueError(f"linear_before_reset false exists for bigru only, not for {architecture}")
    if architecture == "birnn-scratch" and state != "tanh":
        raise ValueError(f"birnn-scratch has the nonlinearity tanh only, not {state}")
    rows = [cell for cell in CELLS if (cell.family, cell.linear_before_reset) == (family, linear_before_reset)]
    if gate_activation != "sigmoid" and "gate" not in rows[0].roles:
        raise ValueError(f"{architecture} has no gates, and so no gate_activation {gate_activation}")
    for cell in rows:
        if (cell.nonlinearity, cell.gate_activation) == (state, gate_activation):
            return cell
    names = [rows[0].name, *([state] if state != "tanh" else [])]
    names += [f"{gate_activation} gates"] if gate_activation != "sigmoid" else []
    return replace(
        rows[0],
        name=", ".join(names),
        nonlinearity=state,
        gate_activation=gate_activation,
        torch=False,
        kernel=None,
        cuda=False,
    )


def architecture_of(family: Family) -> Architecture:
    """The name of a family's encoders in a manifest, but for those from scratch."""
    return next(architecture for architecture, known in FAMILIES.items() if known == family)


def first_of(family: Family) -> Cell:
    """The cell of a family whose weights say no more than that."""
    return next(cell for cell in CELLS if cell.family == family)
