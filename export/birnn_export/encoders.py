"""Bidirectional recurrent sequence encoders: from scratch, concise, and the whole encoder around them.

Every recurrent core here has the same face: `core(x, lengths) -> (outputs, final)` with x [B, T, E], lengths int64 [B]
(each 1..T), outputs [B, T, 2H] (zero beyond each length) and final [B, 2H] = [h_forward(T); h_backward(1)], the state
of each direction of the last layer after its whole pass. Lengths are exact: the backward direction starts at a
sequence's own last token, so neither padding nor a neighbor in the batch changes an answer.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Self, get_args

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from birnn_bundle.cells import Architecture, Cell, GateActivation, Nonlinearity, find_cell
from birnn_bundle.manifest import Inputs, Pooling, pooled_dimension, widths_read
from birnn_export.directions import Reader, read_layers, token_mask
from birnn_export.equations import Direction, read


@dataclass(frozen=True)
class EncoderConfig:
    """Everything needed to build a `SequenceEncoder`.

    A `vocab_size` of 0 stands for float features: there is no embedding, and `embedding_size` is their number.

    `hidden_size` is that of the last layer; `hidden_sizes` are those of all, where they differ, and empty where they do
    not.

    `linear_before_reset` is ONNX's name for where a GRU applies its reset gate: to the hidden state's product, bias
    included, as PyTorch does (true), or to the hidden state before the product, as the first GRUs did (false).

    Raises ValueError for sizes below one, a dropout outside [0, 1) and names that do not exist.
    """

    architecture: Architecture
    vocab_size: int
    embedding_size: int
    hidden_size: int
    layers: int = 1
    bias: bool = True
    dropout: float = 0.0
    pooling: Pooling = "final"
    nonlinearity: Nonlinearity = "tanh"
    linear_before_reset: bool = True
    hidden_sizes: tuple[int, ...] = ()
    gate_activation: GateActivation = "sigmoid"

    def __post_init__(self) -> None:
        # JSON has lists.
        object.__setattr__(self, "hidden_sizes", tuple(self.hidden_sizes))
        for name in ("vocab_size", "embedding_size", "hidden_size", "layers"):
            value = getattr(self, name)
            least = 0 if name == "vocab_size" else 1
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise ValueError(f"{name} must be a whole number of at least {least}, not {value!r}")
        sizes = self.hidden_sizes
        if sizes and (len(sizes) != self.layers or sizes[-1] != self.hidden_size or len(set(sizes)) == 1):
            raise ValueError(
                f"hidden_sizes must be one for each of {self.layers} layers, the last one {self.hidden_size}, and not "
                f"all the same, not {sizes}"
            )
        if any(isinstance(size, bool) or not isinstance(size, int) or size < 1 for size in sizes):
            raise ValueError(f"hidden_sizes must be whole numbers of at least 1, not {sizes}")
        for name in ("bias", "linear_before_reset"):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"{name} must be true or false, not {getattr(self, name)!r}")
        if isinstance(self.dropout, bool) or not isinstance(self.dropout, int | float) or not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must be at least 0 and below 1, not {self.dropout!r}")
        choices = {
            "architecture": Architecture,
            "pooling": Pooling,
            "nonlinearity": Nonlinearity,
            "gate_activation": GateActivation,
        }
        for name, allowed in choices.items():
            if getattr(self, name) not in get_args(allowed):
                raise ValueError(f"{name} must be one of {', '.join(get_args(allowed))}, not {getattr(self, name)!r}")
        # Raises where there is no such cell.
        _ = self.cell

    @property
    def cell(self) -> Cell:
        """The recurrence."""
        return find_cell(self.architecture, self.nonlinearity, self.linear_before_reset, self.gate_activation)

    @property
    def layer_sizes(self) -> tuple[int, ...]:
        """Hidden size of each layer."""
        return self.hidden_sizes or (self.hidden_size,) * self.layers

    @property
    def input_sizes(self) -> tuple[int, ...]:
        """Width of what each layer reads."""
        return widths_read(self.embedding_size, self.layer_sizes)

    @property
    def inputs(self) -> Inputs:
        """What the encoder reads."""
        return "ids" if self.vocab_size else "features"

    @property
    def token_dimension(self) -> int:
        """Width of a per-token output: both directions, 2H."""
        return 2 * self.hidden_size

    @property
    def dimension(self) -> int:
        """Width of a pooled encoding: 2H, or 4H for mean+max."""
        return pooled_dimension(self.pooling, self.hidden_size)


class RNNScratch(nn.Module):
    """One direction of one tanh layer: h_t = tanh(x_t W_xh + h_{t-1} W_hh + b_h), h_0 = 0.

    W_xh is [E, H], W_hh is [H, H], b_h is [H] (absent without bias).
    """

    b_h: nn.Parameter | None

    def __init__(self, input_size: int, hidden_size: int, bias: bool = True) -> None:
        super().__init__()
        bound = 1 / math.sqrt(hidden_size)
        self.W_xh = nn.Parameter(torch.empty(input_size, hidden_size).uniform_(-bound, bound))
        self.W_hh = nn.Parameter(torch.empty(hidden_size, hidden_size).uniform_(-bound, bound))
        self.register_parameter("b_h", nn.Parameter(torch.zeros(hidden_size)) if bias else None)

    def forward(self, x: Tensor) -> Tensor:
        """States h_1..h_T, [B, T, H], after reading x [B, T, E] from its first step to its last."""
        x_W = x @ self.W_xh
        if self.b_h is not None:
            x_W = x_W + self.b_h
        h = x_W.new_zeros(x.shape[0], self.W_hh.shape[0])
        states = []
        for x_t_W in x_W.unbind(1):
            h = torch.tanh(x_t_W + h @ self.W_hh)
            states.append(h)
        return torch.stack(states, dim=1)


class BiRNNScratch(nn.Module):
    """Two unidirectional tanh RNNs a layer, from scratch: one reads X_1..X_T, the other X_T..X_1.

    The second one's outputs are flipped back, so that step t of both speaks of token t, and concatenated to the
    first one's. Layer l reads the concatenated outputs of layer l - 1.
    """

    def __init__(
        self, input_size: int, hidden_size: int, layers: int = 1, bias: bool = True, dropout: float = 0.0
    ) -> None:
        super().__init__()
        sizes = [input_size] + [2 * hidden_size] * (layers - 1)
        self.forward_rnns = nn.ModuleList(RNNScratch(size, hidden_size, bias) for size in sizes)
        self.backward_rnns = nn.ModuleList(RNNScratch(size, hidden_size, bias) for size in sizes)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Outputs [B, T, 2H] and final states [B, 2H] of x [B, T, E]; see the module's docstring."""
        layers = zip(self.forward_rnns, self.backward_rnns, strict=True)
        return read_layers(x, lengths.to(x.device), layers, between=self.dropout)

    @classmethod
    def from_concise(cls, concise: BiRNN) -> Self:
        """The same function with the weights of a concise tanh `BiRNN`; its two biases are added up into b_h."""
        rnn = concise.rnn
        if not isinstance(rnn, nn.RNN) or rnn.nonlinearity != "tanh":
            raise ValueError("only a tanh BiRNN can become a BiRNNScratch")
        scratch = cls(rnn.input_size, rnn.hidden_size, rnn.num_layers, rnn.bias, rnn.dropout)
        scratch = scratch.to(next(rnn.parameters()))
        with torch.no_grad():
            for one, suffix in scratch._directions():
                one.W_xh.copy_(getattr(rnn, f"weight_ih_{suffix}").T)
                one.W_hh.copy_(getattr(rnn, f"weight_hh_{suffix}").T)
                if one.b_h is not None:
                    one.b_h.copy_(getattr(rnn, f"bias_ih_{suffix}") + getattr(rnn, f"bias_hh_{suffix}"))
        return scratch.train(concise.training)

    def to_concise(self) -> BiRNN:
        """The same function as a concise `BiRNN`; b_h becomes the input bias and the hidden bias is zero."""
        first = self.forward_rnns[0]
        assert isinstance(first, RNNScratch)
        input_size, hidden_size = first.W_xh.shape
        concise = BiRNN(input_size, hidden_size, len(self.forward_rnns), first.b_h is not None, self.dropout.p)
        concise = concise.to(device=first.W_xh.device, dtype=first.W_xh.dtype)
        with torch.no_grad():
            for one, suffix in self._directions():
                getattr(concise.rnn, f"weight_ih_{suffix}").copy_(one.W_xh.T)
                getattr(concise.rnn, f"weight_hh_{suffix}").copy_(one.W_hh.T)
                if one.b_h is not None:
                    getattr(concise.rnn, f"bias_ih_{suffix}").copy_(one.b_h)
                    getattr(concise.rnn, f"bias_hh_{suffix}").zero_()
        return concise.train(self.training)

    def _directions(self) -> list[tuple[RNNScratch, str]]:
        """Every one-direction layer with the suffix of its parameters in nn.RNN."""
        named = []
        for rnns, direction in ((self.forward_rnns, ""), (self.backward_rnns, "_reverse")):
            for layer, one in enumerate(rnns):
                assert isinstance(one, RNNScratch)
                named.append((one, f"l{layer}{direction}"))
        return named


class _Concise(nn.Module):
    """A bidirectional torch.nn recurrent network with exact lengths; `rnn` is the torch module."""

    def __init__(self, rnn: nn.RNNBase) -> None:
        super().__init__()
        self.rnn = rnn

    def forward(self, x: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Outputs [B, T, 2H] and final states [B, 2H] of x [B, T, E]; see the module's docstring."""
        steps = x.shape[1]
        lengths = lengths.cpu()
        if int(lengths.min()) == steps:
            # Rows of one length need no packing; training batches are built like this.
            outputs, states = self.rnn(x)
        else:
            packed, states = self.rnn(pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False))
            outputs, _ = pad_packed_sequence(packed, batch_first=True, total_length=steps)
        h = states[0] if isinstance(states, tuple) else states
        return outputs, torch.cat([h[-2], h[-1]], dim=1)


class BiGRU(_Concise):
    """Bidirectional GRU: torch.nn.GRU with exact lengths."""

    def __init__(
        self, input_size: int, hidden_size: int, layers: int = 1, bias: bool = True, dropout: float = 0.0
    ) -> None:
        super().__init__(nn.GRU(input_size, hidden_size, layers, **_options(layers, bias, dropout)))


class BiFromEquations(nn.Module):
    """A bidirectional cell that torch.nn cannot compute, written out from its equations (see `birnn_bundle.cells`).

    `rnn` is a module of torch.nn all the same, but only keeps the parameters, by the same names and gates.
    """

    def __init__(
        self, cell: Cell, input_size: int, hidden_size: int, layers: int = 1, bias: bool = True, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.cell = cell
        self.rnn = getattr(nn, cell.operator)(input_size, hidden_size, layers, **_options(layers, bias, dropout))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Outputs [B, T, 2H] and final states [B, 2H] of x [B, T, E]; see the module's docstring."""
        layers = (
            (self._reader(f"l{layer}"), self._reader(f"l{layer}_reverse")) for layer in range(self.rnn.num_layers)
        )
        return read_layers(x, lengths.to(x.device), layers, between=self.dropout)

    def _reader(self, suffix: str) -> Reader:
        return partial(read, self.cell, self._weights(suffix))

    def _weights(self, suffix: str) -> Direction:
        parameters = [getattr(self.rnn, f"weight_{kind}_{suffix}") for kind in ("ih", "hh")]
        if self.rnn.bias:
            parameters += [getattr(self.rnn, f"bias_{kind}_{suffix}") for kind in ("ih", "hh")]
        else:
            parameters += [parameters[0].new_zeros(len(parameters[0]))] * 2
        order = self.cell.onnx_from_torch
        return Direction(*(torch.cat([one.chunk(len(order))[gate] for gate in order]) for one in parameters))


class BiLSTM(_Concise):
    """Bidirectional LSTM: torch.nn.LSTM with exact lengths. Its final states are the hidden ones, not the cells'."""

    def __init__(
        self, input_size: int, hidden_size: int, layers: int = 1, bias: bool = True, dropout: float = 0.0
    ) -> None:
        super().__init__(nn.LSTM(input_size, hidden_size, layers, **_options(layers, bias, dropout)))


class BiRNN(_Concise):
    """Bidirectional plain RNN, tanh or relu: torch.nn.RNN with exact lengths."""

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        layers: int = 1,
        bias: bool = True,
        dropout: float = 0.0,
        nonlinearity: Nonlinearity = "tanh",
    ) -> None:
        super().__init__(
            nn.RNN(input_size, hidden_size, layers, nonlinearity=nonlinearity, **_options(layers, bias, dropout))
        )


class BiStack(nn.Module):
    """Cores of one layer each, of hidden sizes of their own, on top of each other."""

    def __init__(self, layers: Sequence[nn.Module], dropout: float = 0.0) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Outputs [B, T, 2H] and final states [B, 2H] of x [B, T, E], with the last layer's H."""
        outputs, final = self.layers[0](x, lengths)
        for layer in self.layers[1:]:
            outputs, final = layer(self.dropout(outputs), lengths)
        return outputs, final


def _options(layers: int, bias: bool, dropout: float) -> dict[str, Any]:
    # torch applies dropout between layers and warns when there is only one.
    return {"bias": bias, "batch_first": True, "bidirectional": True, "dropout": dropout if layers > 1 else 0.0}


class SequenceEncoder(nn.Module):
    """Embedding + bidirectional recurrent core + pooling: token ids in, one vector a sequence (or a token) out.

    Where the configuration has no vocabulary, features [B, T, E] stand in for ids [B, T], and there is no embedding.

    Dropout acts on the embeddings and between layers, in training only.
    """

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.config = config
        if config.inputs == "ids":
            self.embedding = nn.Embedding(config.vocab_size, config.embedding_size, padding_idx=0)
        self.dropout = nn.Dropout(config.dropout)
        self.core = _core(config)

    def forward(self, ids: Tensor, lengths: Tensor) -> Tensor:
        """Encodings [B, D] of ids int64 [B, T] with lengths int64 [B]. Raises ValueError for a length outside 1..T."""
        outputs, final = self.run(ids, lengths)
        return self.pool(outputs, final, lengths)

    def tokens(self, ids: Tensor, lengths: Tensor) -> Tensor:
        """Per-token outputs [B, T, 2H], zero beyond each length. Raises ValueError for a length outside 1..T."""
        return self.run(ids, lengths)[0]

    def run(self, ids: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Per-token outputs [B, T, 2H] and final states [B, 2H]. Raises ValueError for a length outside 1..T."""
        if int(lengths.min()) < 1 or int(lengths.max()) > ids.shape[1]:
            raise ValueError(f"lengths must be between 1 and {ids.shape[1]}, the steps of this batch")
        embedded = self.dropout(self.embedding(ids) if self.config.inputs == "ids" else ids)
        result: tuple[Tensor, Tensor] = self.core(embedded, lengths)
        return result

    def pool(self, outputs: Tensor, final: Tensor, lengths: Tensor) -> Tensor:
        """One vector [B, D] a sequence from what `run` returned."""
        if self.config.pooling == "final":
            return final
        lengths = lengths.to(outputs.device)
        pooled = []
        if self.config.pooling in ("mean", "mean+max"):
            pooled.append(outputs.sum(dim=1) / lengths[:, None])
        if self.config.pooling in ("max", "mean+max"):
            padding = ~token_mask(lengths, outputs.shape[1])[:, :, None]
            pooled.append(outputs.masked_fill(padding, -torch.inf).amax(dim=1))
        return torch.cat(pooled, dim=1)


def _core(config: EncoderConfig) -> nn.Module:
    if not config.hidden_sizes:
        return _uniform_core(config, config.embedding_size, config.hidden_size, config.layers)
    sizes = zip(config.input_sizes, config.layer_sizes, strict=True)
    return BiStack([_uniform_core(config, inputs, hidden, layers=1) for inputs, hidden in sizes], config.dropout)


def _uniform_core(
    config: EncoderConfig, input_size: int, hidden_size: int, layers: int
) -> BiRNNScratch | BiGRU | BiFromEquations | BiLSTM | BiRNN:
    sizes = (input_size, hidden_size, layers, config.bias, config.dropout)
    if not config.cell.torch:
        return BiFromEquations(config.cell, *sizes)
    match config.architecture:
        case "bigru":
            return BiGRU(*sizes)
        case "bilstm":
            return BiLSTM(*sizes)
        case "birnn":
            return BiRNN(*sizes, nonlinearity=config.nonlinearity)
        case "birnn-scratch":
            return BiRNNScratch(*sizes)
