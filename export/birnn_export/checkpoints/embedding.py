"""Finds the tensor of a checkpoint that is the embedding; asks if that is ambiguous."""

import re
from collections.abc import Iterable

import numpy as np

from birnn_export.checkpoints.recurrence import Array, Found, Recurrence
from birnn_export.checkpoints.stored_weights import StoredWeights
from birnn_export.training.checkpoint import CheckpointError

NONE, ONE_HOT = "none", "one-hot"

# What components of the names of embeddings look like: token_embedding, wordEmb; but not "ensemble" and "september",
_EMBEDDING = re.compile(
    r"(?i:^(?:[a-z0-9]+_)*(?:word|token|tok|char|src|source|text|smiles|atom|input|vocab|aa|w)?emb)|[a-z0-9]Emb"
)
# and not what stands behind an embedding.
_BEHIND = re.compile(r"(?i:proj|linear|dense|highway|norm|conv)")
_POSITIONS = re.compile(r"(?i:(?:^|_)pos(?:ition(?:al)?)?(?:_|$|emb))|[a-z]Pos|[Pp]os\w*Emb")
# What torch keeps of a weight that is computed anew in each forward pass: by torch.nn.utils.parametrize, or by hooks.
_PART = re.compile(r".*\.(?:parametrizations\.\w+\.original\d?|weight_[gv]|weight_orig)")


def choose_embedding(
    stored: StoredWeights, found: Iterable[Found], recurrence: Recurrence, choice: str | None
) -> tuple[str, Array | None]:
    """Name and values [vocabulary, input size] of the embedding below a recurrence.

    Args:
        stored: Everything that the checkpoint holds.
        found: All recurrences there; their weights are no embeddings.
        recurrence: That of the encoder.
        choice: Its name, `none` or `one-hot`; None to find it: the only tensor of the right width that is called so.

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
    parts = [name for name in fitting if _PART.fullmatch(name)]
    if called := [name for name in parts if _is_called_embedding(name)]:
        raise CheckpointError(
            f"{stored.source}: {called[0]} is a part of a weight that is computed in each forward pass; make it one "
            "tensor (torch.nn.utils.parametrize.remove_parametrizations, or remove_weight_norm, "
            "remove_spectral_norm, prune.remove) and save again, or name another one with --embedding"
        )
    fitting = [name for name in fitting if name not in parts]
    likely = [name for name in fitting if _is_called_embedding(name)]
    # One of positions alone is not that of tokens, and beside another one the model adds both.
    if len(likely) == 1 and not any(map(_POSITIONS.search, _components(likely[0]))):
        return likely[0], stored.tensors[likely[0]]
    if not fitting:
        return NONE, None
    listed = "; ".join(f"{name} {list(stored.tensors[name].shape)}" for name in likely or fitting)
    raise CheckpointError(
        f"{stored.source}: which tensor is the embedding, of width {size}? Add --embedding NAME; or --embedding none "
        f"for float features, or one-hot for one-hot tokens. Found: {listed}"
    )


def _is_called_embedding(name: str) -> bool:
    return any(_EMBEDDING.search(part) and not _BEHIND.search(part) for part in _components(name))


def _components(name: str) -> list[str]:
    return [part for part in re.split(r"[./]", name) if "emb" in part.lower()]


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
            f"vectors of {size}: [vocabulary, {size}] expected. Name another one; or, if a layer stands between them, "
            "add --embedding none and send what it computes as float features"
        )
    return name, values
