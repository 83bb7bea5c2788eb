"""From weights of any origin to an encoder of this project, which then is exported like every other."""

import re
from dataclasses import dataclass

import torch
from torch import Tensor

from birnn_bundle.cells import Cell
from birnn_bundle.huggingface import HuggingFaceTokenizer
from birnn_bundle.manifest import Pooling
from birnn_bundle.tokenizer import NoTokenizer, Tokenizer
from birnn_bundle.vocabulary import VocabularyTokenizer
from birnn_export.checkpoints.recurrence import Direction, Recurrence
from birnn_export.checkpoints.selection import Choices, Selection, select
from birnn_export.checkpoints.stored_weights import StoredWeights, shortened
from birnn_export.encoders import EncoderConfig, SequenceEncoder
from birnn_export.recurrent_weights import parameter_names
from birnn_export.training.checkpoint import CheckpointError, LoadedCheckpoint

# How tokens are spelled that stand for no text: <pad>, [MASK], _GO, __start__, and that of Keras' padding.
SPECIAL = re.compile(
    r"|<.*>|\[.*\]|__\w+__|_*(?i:pad(?:ding)?|unk(?:nown)?|oov|[bes]os|go|start|end|stop|mask|cls|sep|blank|null?)_*",
    re.DOTALL,
)
# The recurrence itself knows no limit; a server needs one.
MAX_LENGTH = 1024
LISTED_UNUSED = 8


@dataclass(frozen=True, eq=False)
class Adopted:
    """An encoder made from weights of another origin.

    Attributes:
        checkpoint: The encoder and its tokenizer.
        notes: What was taken and what was left, a line each.
    """

    checkpoint: LoadedCheckpoint
    notes: tuple[str, ...]


def adopt(
    stored: StoredWeights, tokenizer: Tokenizer | None, choices: Choices, max_length: int = MAX_LENGTH
) -> Adopted:
    """Make an encoder of what a checkpoint holds.

    Args:
        stored: The checkpoint.
        tokenizer: Whose ids are the rows of the embedding; None for float features.
        choices: What the weights do not say.
        max_length: Longest sequence that will be accepted, in tokens.

    Raises CheckpointError where something is missing, wrong or ambiguous; the message lists what was found.
    """
    selection = select(stored, choices)
    pooling = choices.pooling
    if pooling is None:
        raise CheckpointError(
            f"{stored.source}: holds {selection.recurrence}; how one vector is made of a sequence does not show in "
            "weights: add --pooling final, mean, max or mean+max"
        )
    _check_tokenizer(stored.source, selection, tokenizer)
    encoder = _encoder(selection, pooling)
    training = {
        "data": [],
        "recipe": f"weights from {stored.source}: {selection.recurrence}; embedding: {selection.embedding_name}",
        "objective": "",
        "sequences": 0,
        "metrics": {},
    }
    checkpoint = LoadedCheckpoint(encoder, encoder.config, tokenizer or NoTokenizer(), max_length, training)
    notes = (
        *_notes(selection, encoder.config.cell),
        *_masked_token(selection, tokenizer),
        *_unusual(stored.source, tokenizer),
    )
    return Adopted(checkpoint, notes)


def _check_tokenizer(source: str, selection: Selection, tokenizer: Tokenizer | None) -> None:
    """Every id of the tokenizer must be a row of the embedding."""
    embedding, name = selection.embedding, selection.embedding_name
    if embedding is None:
        if tokenizer is not None:
            raise CheckpointError(
                f"{source}: {selection.recurrence} has no embedding that fits, so it reads float features and needs no "
                "tokenizer; name the embedding with --embedding NAME, or one-hot"
            )
        return
    if tokenizer is None:
        raise CheckpointError(
            f"{source}: embedding {name} has {len(embedding)} rows, and which tokens they belong to does not show in "
            "weights; add --tokenizer FILE (or, to serve float features without it, --embedding none)"
        )
    if tokenizer.vocab_size > len(embedding):
        raise CheckpointError(
            f"{source}: the tokenizer has ids up to {tokenizer.vocab_size - 1}, and embedding {name} has rows 0 to "
            f"{len(embedding) - 1}; they are not of the same model, or ids are to be counted from another first one"
        )


def _masked_token(selection: Selection, tokenizer: Tokenizer | None) -> list[str]:
    """A note where a token has the id that the model skips."""
    if tokenizer is None or not selection.masks_zero:
        return []
    token = tokenizer.decode([0])
    # "?" is what has no token.
    if "pad" in token.lower() or SPECIAL.fullmatch(token.strip()) or token == "?":
        return []
    return [
        f"the model skips tokens of id 0 (mask_zero=True), which is {token!r} here: are ids to be counted from another "
        "first one (--first-id 1)?"
    ]


def _unusual(source: str, tokenizer: Tokenizer | None) -> list[str]:
    """What a tokenizer will never do. Raises CheckpointError where it makes none of its tokens."""
    if isinstance(tokenizer, HuggingFaceTokenizer) and tokenizer.cuts_at is not None:
        return [
            f"the tokenizer's file cuts sequences after {tokenizer.cuts_at} tokens; here --max-length is the limit, "
            "and longer ones are refused, or cut where a call asks for it"
        ]
    if not isinstance(tokenizer, VocabularyTokenizer):
        return []
    # Those of padding and the like are not meant to be made.
    never = [token for token in tokenizer.unreachable if not SPECIAL.fullmatch(token)]
    listed = shortened([repr(token) for token in never], LISTED_UNUSED)
    if len(never) > tokenizer.vocab_size / 2:
        raise CheckpointError(
            f"{source}: texts are never cut into most tokens of the vocabulary ({listed}); choose another --split, or "
            "see whether the file holds more than tokens"
        )
    return [f"tokens that no text is cut into: {listed}; is --split the right one?"] if never else []


def _encoder(selection: Selection, pooling: Pooling) -> SequenceEncoder:
    recurrence, embedding = selection.recurrence, selection.embedding
    assert recurrence.nonlinearity is not None
    assert recurrence.linear_before_reset is not None
    sizes = recurrence.hidden_sizes
    config = EncoderConfig(
        architecture=recurrence.architecture,
        vocab_size=0 if embedding is None else len(embedding),
        embedding_size=recurrence.input_size,
        hidden_size=sizes[-1],
        hidden_sizes=sizes if len(set(sizes)) > 1 else (),
        layers=len(recurrence.layers),
        bias=recurrence.bias,
        pooling=pooling,
        nonlinearity=recurrence.nonlinearity,
        linear_before_reset=recurrence.linear_before_reset,
        gate_activation=recurrence.gate_activation,
    )
    state = _state(config, recurrence)
    if embedding is not None:
        state["embedding.weight"] = torch.from_numpy(embedding)
    encoder = SequenceEncoder(config)
    encoder.load_state_dict(state)
    return encoder.eval()


def _state(config: EncoderConfig, recurrence: Recurrence) -> dict[str, Tensor]:
    """The recurrent part of a `SequenceEncoder`'s state_dict."""
    state: dict[str, Tensor] = {}
    for layer, sides in enumerate(recurrence.layers):
        for side, backward in zip(sides, (False, True), strict=True):
            W, R, input_bias, hidden_bias = _tensors(side)
            if recurrence.scratch:
                W, R = W.T, R.T
            names = parameter_names(config, layer, backward)
            state |= dict(zip(names, (W, R, input_bias, hidden_bias), strict=True))
    # Those that do not exist have no name.
    state.pop("", None)
    return state


def _tensors(side: Direction) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """All four parameters; a bias that is not there is zero."""
    W, R = torch.tensor(side.W), torch.tensor(side.R)
    zero = torch.zeros(len(W))
    biases = [zero if bias is None else torch.tensor(bias) for bias in (side.input_bias, side.hidden_bias)]
    return W, R, biases[0], biases[1]


def _notes(selection: Selection, cell: Cell) -> tuple[str, ...]:
    recurrence, embedding = selection.recurrence, selection.embedding
    notes = [str(recurrence)]
    if embedding is None:
        notes.append(f"no embedding: it reads {recurrence.input_size} float features a step")
    else:
        notes.append(f"embedding {selection.embedding_name}: {len(embedding)} rows of {embedding.shape[1]}")
    if not cell.cuda:
        engine = "" if cell.kernel is not None else ", served by onnxruntime, for there is no native kernel of it"
        notes.append(
            f"its cell ({cell.name}) runs on a CPU only{engine}: onnxruntime's CUDA provider cannot run it. To serve "
            "on a GPU, train with tanh, sigmoid and reset_after=True"
        )
    if selection.unused:
        notes.append(f"not used: {shortened(selection.unused, LISTED_UNUSED)}")
    return (*notes, *selection.notes)
