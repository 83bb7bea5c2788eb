"""Which tensor of a checkpoint is the embedding; asks where that cannot be told."""

import re
from collections.abc import Iterable

import numpy as np

from export.checkpoints.recurrence import Array, Found, Recurrence
from export.checkpoints.stored_weights import StoredWeights
from export.training.checkpoint import CheckpointError

NONE, ONE_HOT = "none", "one-hot"

# What the names of embeddings begin with, after words of the author's; but not "ensemble" and "september".
_EMBEDDING = re.compile(r"(?:^|[._/])(?:word|token|tok|char|src|source|text|smiles|w)?emb", re.IGNORECASE)
_POSITIONS = re.compile(r"(?:^|[._/])pos", re.IGNORECASE)
# What torch keeps of a weight that is computed anew in each forward pass: by torch.nn.utils.parametrize, or by hooks.
_PART = re.compile(r".*(?:\.parametrizations\.\w+\.original\d?|weight_[gv]|weight_orig)")


def choose_embedding(
    stored: StoredWeights, found: Iterable[Found], recurrence: Recurrence, choice: str | None
) -> tuple[str, Array | None]:
    """Name and values [vocabulary, input size] of the embedding below a recurrence.

    Args:
        stored: Everything that the checkpoint holds.
        found: All recurrences there; their weights are no embeddings.
        recurrence: That of the encoder.
        choice: Its name, `none` or `one-hot`; None to find it: the only tensor of the right width, and called so.

    Returns:
        The name and the values; `none` and None for float features, of which nothing in the checkpoint is an embedding.

    Raises CheckpointError where there is a choice, or the one that was made cannot be.
    """
    size = recurrence.input_size
    if choice == NONE:
        return NONE, None
    if choice == ONE_HOT:
        return ONE_HOT, np.eye(size, dtype=np.float32)
    if choice is not None:
        return _named(stored, choice, size)
    recurrent = set().union(*(one.tensors for one in found))
    fitting = [
        name
        for name, values in stored.tensors.items()
        if values.ndim == 2 and values.shape[1] == size and name not in recurrent and not _is_dense(name, stored)
    ]
    if parts := [name for name in fitting if _PART.fullmatch(name)]:
        raise CheckpointError(
            f"{stored.source}: {parts[0]} is a part of a weight that is computed in each forward pass; make it one "
            "tensor (torch.nn.utils.parametrize.remove_parametrizations, or remove_weight_norm, "
            "remove_spectral_norm), and save again"
        )
    if len(fitting) == 1 and _EMBEDDING.search(fitting[0]) and not _POSITIONS.search(fitting[0]):
        return fitting[0], stored.tensors[fitting[0]]
    if not fitting:
        return NONE, None
    listed = "; ".join(f"{name} {list(stored.tensors[name].shape)}" for name in fitting)
    raise CheckpointError(
        f"{stored.source}: which tensor is the embedding, of width {size}? Add --embedding NAME; or --embedding none "
        f"for float features, or one-hot for one-hot tokens. Found: {listed}"
    )


def _is_dense(name: str, stored: StoredWeights) -> bool:
    """Whether a matrix has a bias beside it, which an embedding has not."""
    for ending, bias in ((".weight", ".bias"), ("/kernel", "/bias"), ("/kernel:0", "/bias:0"), ("/vars/0", "/vars/1")):
        beside = stored.tensors.get(name.removesuffix(ending) + bias) if name.endswith(ending) else None
        if beside is not None and beside.ndim == 1:
            return True
    return False


def _named(stored: StoredWeights, name: str, size: int) -> tuple[str, Array]:
    if name not in stored.tensors:
        raise CheckpointError(f"{stored.source}: holds no tensor {name!r} for --embedding; {stored.listed()}")
    values = stored.tensors[name]
    if values.ndim != 2 or values.shape[1] != size:
        raise CheckpointError(
            f"{stored.source}: the embedding {name} has shape {list(values.shape)}, and the recurrence reads "
            f"vectors of {size}: [vocabulary, {size}] expected"
        )
    return name, values
