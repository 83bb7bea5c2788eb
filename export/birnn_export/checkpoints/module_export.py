"""Export from Python: a torch module that holds a bidirectional recurrence, as it stands in memory."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from birnn_bundle.bundle import Bundle
from birnn_bundle.manifest import Pooling
from birnn_bundle.precisions import ReducedPrecision
from birnn_bundle.tokenizer import Tokenizer
from birnn_export.bundle_writer import write_bundle
from birnn_export.checkpoints.adoption import MAX_LENGTH, adopt
from birnn_export.checkpoints.selection import Choices, select
from birnn_export.checkpoints.stored_weights import StoredWeights, from_state_dict
from birnn_export.training.checkpoint import CheckpointError


def export_encoder(
    module: nn.Module,
    tokenizer: Tokenizer | None,
    path: str | Path,
    *,
    pooling: Pooling,
    prefix: str | Sequence[str] = (),
    pairs: Sequence[tuple[str, str]] = (),
    embedding: str | None = None,
    max_length: int = MAX_LENGTH,
    description: str | None = None,
    card: str = "",
    metrics: Mapping[str, float] | None = None,
    sequences: Sequence[str] = (),
    tolerance: float | None = None,
    quality: str | None = None,
    min_cosines: Mapping[ReducedPrecision, float] | None = None,
    force: bool = False,
) -> Bundle:
    """Export the bidirectional recurrence inside `module`, with its embedding, as a bundle that a server can load.

    Only weights are read, and the nonlinearity of an nn.RNN: what `module` does before, between or after its embedding
    and its recurrence (normalization, a projection, a residual) is not exported. Compare a few vectors with your own
    afterwards.

    Args:
        module: Holds a bidirectional nn.GRU, nn.LSTM or nn.RNN, two of one direction each, two nn.GRUCell or the like,
            or RNNs from scratch, at any depth. Not changed.
        tokenizer: Its ids are the rows of the embedding: a `birnn_bundle.vocabulary.VocabularyTokenizer`, or whatever
            `birnn_export.checkpoints.tokenizer_file.read_tokenizer` reads. None for float features.
        path: Bundle folder to create, `models/NAME/VERSION`.
        pooling: How one vector is made of a sequence.
        prefix: Name of the recurrent module, where there are several; several names are the layers of one stack.
        pairs: Names of the forward and the backward module, where each direction is a module of its own and their names
            do not say so; several pairs are the layers of one stack. Not together with `prefix`.
        embedding: Name of the embedding's tensor, where there are several; "one-hot" for one-hot tokens, "none" for
            float features.
        max_length: Longest sequence that will be accepted, in tokens.
        description, card, metrics, sequences, tolerance, quality, min_cosines, force: As in
            `birnn_export.bundle_writer.write_bundle`.

    Raises:
        CheckpointError: Something is missing, wrong or ambiguous; the message lists what was found.
        ExportError, WeightsError, VerificationError, QualityError, BundleError, OSError: As in `write_bundle`.
    """
    source = type(module).__name__
    stored = StoredWeights(source, from_state_dict(module.state_dict(), source))
    choices = Choices(
        pooling=pooling,
        prefixes=(prefix,) if isinstance(prefix, str) else tuple(prefix),
        pairs=tuple(pairs),
        embedding=embedding,
    )
    adopted = adopt(stored, tokenizer, _with_nonlinearity(module, stored, choices), max_length)
    return write_bundle(
        adopted.checkpoint,
        Path(path),
        description=description,
        card=card,
        metrics=metrics,
        sequences=sequences,
        tolerance=tolerance,
        quality=quality,
        min_cosines=min_cosines,
        force=force,
    )


def _with_nonlinearity(module: nn.Module, stored: StoredWeights, choices: Choices) -> Choices:
    """What the weights do not say, the module does. Raises CheckpointError where that is not served."""
    # Any nonlinearity will do to find out which recurrence is meant.
    selection = select(stored, replace(choices, nonlinearity="tanh"))
    table = _submodule(module, selection.embedding_name.removesuffix(".weight"))
    longest = 0.0 if selection.embedding is None else float(np.linalg.norm(selection.embedding, axis=1).max())
    if isinstance(table, nn.Embedding) and table.max_norm is not None and longest > table.max_norm * 1.0001:
        raise CheckpointError(
            f"{stored.source}: {selection.embedding_name} is looked up with max_norm={table.max_norm:g}; look all rows "
            "up once, which shortens them for good: embedding(torch.arange(embedding.num_embeddings))"
        )
    parts = [_submodule(module, name.rpartition(".")[0]) for name in selection.recurrence.tensors]
    names: set[Any] = {part.nonlinearity for part in parts if isinstance(part, nn.RNN | nn.RNNCell)}
    if len(names) > 1:
        raise CheckpointError(f"{stored.source}: {selection.recurrence.place}: one is of tanh, another of relu")
    return replace(choices, nonlinearity=names.pop()) if names else choices


def _submodule(module: nn.Module, place: str) -> nn.Module | None:
    try:
        return module.get_submodule(place)
    except AttributeError:
        return None
