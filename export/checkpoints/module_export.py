"""Export from Python: a torch module that holds a bidirectional recurrence, as it stands in memory."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from torch import nn

from bundle.bundle import Bundle
from bundle.manifest import Pooling
from bundle.tokenizer import Tokenizer
from export.bundle_writer import write_bundle
from export.checkpoints.adoption import MAX_LENGTH, adopt
from export.checkpoints.selection import Choices, select
from export.checkpoints.stored_weights import StoredWeights, from_state_dict
from export.training.checkpoint import CheckpointError
from export.verification import TOLERANCE


def export_encoder(
    module: nn.Module,
    tokenizer: Tokenizer | None,
    path: str | Path,
    *,
    pooling: Pooling,
    prefix: str | Sequence[str] = (),
    embedding: str | None = None,
    max_length: int = MAX_LENGTH,
    description: str | None = None,
    card: str = "",
    metrics: Mapping[str, float] | None = None,
    sequences: Sequence[str] = (),
    tolerance: float = TOLERANCE,
    force: bool = False,
) -> Bundle:
    """Export the bidirectional recurrence inside `module`, with its embedding, as a bundle that a server can load.

    Only weights are read: what `module` does before, between or after its embedding and its recurrence (normalization,
    a projection, a residual) is not exported. Compare a few vectors with your own afterwards.

    Args:
        module: Holds a bidirectional nn.GRU, nn.LSTM or nn.RNN, or RNNs from scratch, at any depth. Not changed.
        tokenizer: Its ids are the rows of the embedding: a `bundle.vocabulary.VocabularyTokenizer`, or whatever
            `export.checkpoints.tokenizer_file.read_tokenizer` reads. None for float features.
        path: Bundle folder to create, `models/NAME/VERSION`.
        pooling: How one vector is made of a sequence.
        prefix: Name of the recurrent module, where there are several; several names are the layers of one stack.
        embedding: Name of the embedding's tensor, where there are several; "one-hot" for one-hot tokens, "none" for
            float features.
        max_length: Longest sequence that will be accepted, in tokens.
        description, card, metrics, sequences, tolerance, force: As in `export.bundle_writer.write_bundle`.

    Raises:
        CheckpointError: Something is missing, wrong or ambiguous; the message lists what was found.
        ExportError, WeightsError, VerificationError, BundleError, OSError: As in `write_bundle`.
    """
    stored = StoredWeights(type(module).__name__, from_state_dict(module.state_dict()))
    choices = Choices(
        pooling=pooling, prefixes=(prefix,) if isinstance(prefix, str) else tuple(prefix), embedding=embedding
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
        force=force,
    )


def _with_nonlinearity(module: nn.Module, stored: StoredWeights, choices: Choices) -> Choices:
    """What the weights of an nn.RNN do not say, the module does."""
    # Any nonlinearity will do to find out which recurrence is meant.
    try:
        places = select(stored, replace(choices, nonlinearity="tanh")).recurrence.place.split(", ")
    except CheckpointError:
        return choices
    found = [module.get_submodule(place) for place in places if place]
    names = {rnn.nonlinearity for rnn in found or [module] if isinstance(rnn, nn.RNN)}
    return replace(choices, nonlinearity=names.pop()) if len(names) == 1 else choices
