"""Encoders as other people write them, and what they compute by themselves."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from birnn_bundle.bundle import Bundle
from birnn_bundle.ragged import RaggedBatch
from birnn_bundle.vocabulary import VocabularyTokenizer
from tests.export.small_encoders import run_graph, session_of

TOKENS = ["<pad>", "<unk>", "C", "c", "1", "O", "N", "(", ")", "="]
TOKENIZER = VocabularyTokenizer({token: number for number, token in enumerate(TOKENS)}, "smiles", unknown="<unk>")
MOLECULES = ["C", "CCO", "c1ccccc1", "CC(=O)N", "CCCC(C)(C)CCN=C(N)O"]
E, H = 5, 3


class Model(nn.Module):
    """Embedding, recurrence and head under names of their own, batch last."""

    def __init__(self, kind: type[nn.GRU] | type[nn.LSTM] | type[nn.RNN], **options: Any) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.token_embedding = nn.Embedding(len(TOKENS), E)
        self.encoder = nn.ModuleDict({"rnn": kind(E, H, bidirectional=True, **options)})
        self.head = nn.Linear(2 * H, 1)

    def vectors(self, rows: Sequence[NDArray[np.int32]]) -> NDArray[np.float64]:
        """Final states of both directions of each row, alone, in float64."""
        model = self.double().eval()
        found = []
        with torch.inference_mode():
            for row in rows:
                x = model.token_embedding(torch.from_numpy(row.astype(np.int64)))
                _, states = model.encoder["rnn"](x)
                h = states[0] if isinstance(states, tuple) else states
                found.append(torch.cat([h[-2], h[-1]]).numpy())
        return np.stack(found)


def scratch_parameters(gates: str, directions: tuple[str, str], bias: bool = True) -> dict[str, Tensor]:
    """A state_dict in the naming of d2l.ai, one layer."""
    torch.manual_seed(6)
    weights = {"embedding.weight": torch.randn(len(TOKENS), E)}
    for module in directions:
        for gate in gates:
            weights[f"{module}.W_x{gate}"] = torch.randn(E, H) * 0.5
            weights[f"{module}.W_h{gate}"] = torch.randn(H, H) * 0.5
            if bias:
                weights[f"{module}.b_{gate}"] = torch.randn(H) * 0.5
    return weights


def scratch_vector(weights: dict[str, Tensor], gates: str, directions: tuple[str, str], row: Sequence[int]) -> Tensor:
    """Both final states of one sequence, step by step as d2l.ai has it, in float64."""
    states = []
    for module, order in zip(directions, (row, row[::-1]), strict=True):
        P = {name.removeprefix(f"{module}."): values.double() for name, values in weights.items()}
        h = c = torch.zeros(H, dtype=torch.float64)
        for token in order:
            x = P["embedding.weight"][token]
            a = {gate: x @ P[f"W_x{gate}"] + h @ P[f"W_h{gate}"] + P.get(f"b_{gate}", 0) for gate in gates}
            if gates == "h":
                h = torch.tanh(a["h"])
            elif "z" in gates:
                r, z = torch.sigmoid(a["r"]), torch.sigmoid(a["z"])
                candidate = torch.tanh(x @ P["W_xh"] + (r * h) @ P["W_hh"] + P.get("b_h", 0))
                h = z * h + (1 - z) * candidate
            else:
                i, f, o = (torch.sigmoid(a[gate]) for gate in "ifo")
                c = f * c + i * torch.tanh(a["c"])
                h = o * torch.tanh(c)
        states.append(h)
    return torch.cat(states)


def rows_of(batch: RaggedBatch) -> list[NDArray[np.int32]]:
    return [batch.row(row) for row in range(len(batch))]


def bundle_vectors(bundle: Bundle, batch: RaggedBatch) -> NDArray[np.float32]:
    """Pooled encodings of the bundle's graph, all rows in one batch."""
    session = session_of(bundle.path / bundle.manifest.graphs.pooled)
    return run_graph(session, batch.padded(), batch.lengths.tolist())
