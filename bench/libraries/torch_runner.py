"""PyTorch in fewer bits: bf16, and int8 by its dynamic quantization, whose products are oneDNN's or fbgemm's."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence

from bench.libraries.parameters import NAMES, Parameters
from bench.libraries.runner import Precision, Run
from birnn_bundle.ragged import RaggedBatch


class TorchRunner:
    """torch.nn.GRU or LSTM behind an embedding; rows of several lengths are packed."""

    def __init__(self, folder: Path, precision: Precision) -> None:
        torch.set_num_threads(1)
        parameters = Parameters.read(folder)
        self._embedding = nn.Embedding(*parameters.embedding.shape)
        self._embedding.weight = nn.Parameter(torch.from_numpy(parameters.embedding), requires_grad=False)
        recurrent: nn.Module = recurrence(parameters)
        if precision == "int8":
            with warnings.catch_warnings():
                # It says that it moves to torchao, which has no recurrent layers.
                warnings.simplefilter("ignore", DeprecationWarning)
                quantize: Any = torch.ao.quantization.quantize_dynamic
                wrapped = quantize(nn.Sequential(recurrent), {nn.GRU, nn.LSTM}, dtype=torch.qint8)
            recurrent = wrapped[0]
        elif precision == "bf16":
            recurrent = recurrent.to(torch.bfloat16)
            self._embedding = self._embedding.to(torch.bfloat16)
        self._recurrent = recurrent

    @property
    def version(self) -> str:
        """Of torch, and what computes its products in int8."""
        return f"{torch.__version__}, {torch.backends.quantized.engine}"

    def prepare(self, batch: RaggedBatch, equal: bool) -> Run:
        """Make what runs a batch; where all rows have one length, they are not packed."""
        ids = torch.from_numpy(batch.padded().astype(np.int64))
        lengths = torch.from_numpy(batch.lengths)
        packed = int(lengths.min()) != len(ids)

        def run() -> NDArray[np.float32]:
            with torch.inference_mode():
                embedded = self._embedding(ids)
                if packed:
                    embedded = pack_padded_sequence(embedded, lengths, enforce_sorted=False)
                states = self._recurrent(embedded)[1]
                final: Tensor = states[0] if isinstance(states, tuple) else states
                return torch.cat([final[-2], final[-1]], dim=1).float().numpy()

        return run


def recurrence(parameters: Parameters) -> nn.RNNBase:
    """The torch.nn module with these weights, time first."""
    kind = nn.LSTM if parameters.lstm else nn.GRU
    width = parameters.embedding.shape[1]
    made = kind(width, parameters.hidden, len(parameters.layers), bidirectional=True).eval()
    with torch.no_grad():
        for number, layer in enumerate(parameters.layers):
            for suffix, direction in zip(("", "_reverse"), layer, strict=True):
                values = (direction.input, direction.state, direction.input_bias, direction.state_bias)
                for name, value in zip(NAMES, values, strict=True):
                    getattr(made, f"{name}_l{number}{suffix}").copy_(torch.from_numpy(value))
    return made
