"""Finds the recurrence and the embedding of a checkpoint that are meant; asks if that is ambiguous."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from birnn_bundle.cells import Nonlinearity
from birnn_bundle.manifest import Pooling
from birnn_export.checkpoints.embedding import NONE, ONE_HOT, choose_embedding
from birnn_export.checkpoints.keras_graph import INPUT, KerasGraph, Layer
from birnn_export.checkpoints.keras_layers import find_keras_layers
from birnn_export.checkpoints.keras_wiring import check_inputs, check_stack, in_order, masks_zero, pooling_of
from birnn_export.checkpoints.pairing import OneWay, pair_at, with_pairs
from birnn_export.checkpoints.recurrence import Array, Flawed, Found, Recurrence, joined
from birnn_export.checkpoints.scratch_modules import find_scratch_modules
from birnn_export.checkpoints.stored_weights import StoredWeights
from birnn_export.checkpoints.torch_modules import find_torch_modules
from birnn_export.training.checkpoint import CheckpointError

Reset = Literal["after", "before"]

# Beside a recurrence: h0, lstm_c0, init_hidden, initial_state, learned_h ...
_INITIAL_STATE = re.compile(
    r"(?:.*\.)?(?:\w+_)?(?:[hc]_?0|(?:init|initial|learned|start)_?(?:state|hidden|cell|[hc])s?(?:_?\w)?)"
)


@dataclass(frozen=True)
class Choices:
    """What the weights of an encoder do not say, or not always.

    Attributes:
        pooling: How one vector is made of a sequence; never shows in weights.
        nonlinearity: Of a plain RNN.
        reset: Whether a Keras GRU resets after or before the product; shows in its biases.
        prefixes: Which recurrence; several are the layers of one stack, in this order.
        pairs: Forward and backward module of one recurrence where each is a module of its own; several are the layers
            of one stack, in this order. Not together with `prefixes`.
        embedding: Name of the embedding's tensor, `none` for float features, `one-hot` for tokens that are fed to the
            recurrence as unit vectors; None for the only one there is.
    """

    pooling: Pooling | None = None
    nonlinearity: Nonlinearity | None = None
    reset: Reset | None = None
    prefixes: tuple[str, ...] = ()
    pairs: tuple[tuple[str, str], ...] = ()
    embedding: str | None = None


@dataclass(frozen=True, eq=False)
class Selection:
    """What is to be exported.

    Attributes:
        recurrence: With everything known about it.
        embedding: [vocabulary, input size]; None for float features.
        embedding_name: Its name; `none` or `one-hot`.
        unused: Names of all other tensors.
        notes: What was assumed, and what the model itself does in another way; a line each.
        masks_zero: Whether the model skips tokens of id 0.
    """

    recurrence: Recurrence
    embedding: Array | None
    embedding_name: str
    unused: tuple[str, ...]
    notes: tuple[str, ...] = ()
    masks_zero: bool = False


def select(stored: StoredWeights, choices: Choices) -> Selection:
    """Find the recurrence and the embedding to export.

    Raises CheckpointError where there is none, where something is wrong with it, or where a choice is missing or
    contradicts the weights; the message lists what was found.
    """
    graph = KerasGraph(stored.keras_config)
    parts = find_recurrences(stored, graph)
    found = with_pairs(parts)
    if choices.pairs:
        stack = [pair_at(parts, forward, backward, stored.source) for forward, backward in choices.pairs]
    else:
        stack = _choose(found, choices.prefixes, stored)
    check_stack(stored.source, graph, stack)
    recurrence = _complete(joined(stack), choices, stored.source)
    notes = [*recurrence.notes, *_other_inputs(stored, graph, stack[0], choices.embedding)]
    choice = choices.embedding or _own_embedding(stored, graph, stack[0])
    name, embedding = choose_embedding(stored, found, recurrence, choice)
    unused = stored.tensors.keys() - recurrence.tensors - {name}
    for used in sorted(recurrence.tensors | ({name} & stored.tensors.keys())):
        values = stored.tensors[used]
        if not np.isfinite(values).all():
            place = tuple(int(axis) for axis in np.argwhere(~np.isfinite(values))[0])
            raise CheckpointError(
                f"{stored.source}: {used} is not finite: {values[place]} at {list(place)}; export an earlier "
                "checkpoint, or train again with a lower learning rate"
            )
    if states := [one for one in sorted(unused) if _INITIAL_STATE.fullmatch(one)]:
        notes.append(
            f"{', '.join(states)} may be learned initial states, which are left out: here sequences start from zeros"
        )
    notes.extend(_other_pooling(graph, recurrence, choices))
    if recurrence.layer is not None and graph.masks:
        notes.append("the model has a Masking layer, which skips steps; here every step that is sent counts")
    zero = stack[0].layer is not None and embedding is not None and masks_zero(graph, stack[0].layer)
    return Selection(recurrence, embedding, name, tuple(sorted(unused)), tuple(notes), zero)


def _other_inputs(stored: StoredWeights, graph: KerasGraph, lowest: Recurrence, choice: str | None) -> list[str]:
    """A note where the model reads more than the embedding that was named."""
    if choice in (NONE, ONE_HOT):
        return []
    named = None if choice is None else _layer_of(stored, graph, choice)
    return check_inputs(stored.source, graph, lowest, named, by_hand=choice is not None)


def _own_embedding(stored: StoredWeights, graph: KerasGraph, lowest: Recurrence) -> str | None:
    """Which tensor is the embedding that a recurrence reads, or `none`; None where the model does not say."""
    if lowest.layer is None:
        return None
    if lowest.layer.inputs == {INPUT}:
        return NONE
    layers = [layer for value in lowest.layer.inputs if (layer := graph.embedding(value)) is not None]
    names = [
        name
        for name, values in stored.tensors.items()
        if values.ndim == 2 and values.shape[1] == lowest.input_size and _layer_of(stored, graph, name) in layers
    ]
    return names[0] if len(names) == 1 else None


def _layer_of(stored: StoredWeights, graph: KerasGraph, tensor: str) -> Layer | None:
    """The layer that a tensor belongs to."""
    return graph.find(re.sub(r"(?:/vars/\d+|/[^/]+)$", "", tensor), stored.keras_names)


def _other_pooling(graph: KerasGraph, recurrence: Recurrence, choices: Choices) -> list[str]:
    """A note where the model makes its vectors in another way than was asked for."""
    own = pooling_of(graph, recurrence.layer) if recurrence.layer is not None else None
    if own is None or choices.pooling in (None, own):
        return []
    return [f"the model itself makes its vectors as --pooling {own} does, not {choices.pooling}"]


def find_recurrences(stored: StoredWeights, graph: KerasGraph) -> list[Found | OneWay]:
    """All recurrent weights of a file, in any naming."""
    tensors = stored.tensors
    return [*find_torch_modules(tensors), *find_scratch_modules(tensors), *find_keras_layers(stored, graph)]


def _choose(found: Sequence[Found], prefixes: Sequence[str], stored: StoredWeights) -> list[Recurrence]:
    """The recurrences to export as one stack, the lowest first."""
    if not found:
        raise CheckpointError(
            f"{stored.source}: holds no recurrent weights that are known here, as those of nn.GRU, nn.LSTM, nn.RNN and "
            "their cells, RNNs from scratch (W_xh, W_hh) and Keras' Bidirectional are. If a module of your own "
            f"computes the same, save its weights under the names of one of these; {stored.listed()}"
        )
    if prefixes:
        chosen = [_at(found, prefix, stored.source) for prefix in prefixes]
        places = [one.place for one in chosen]
        if twice := [place for place in places if places.count(place) > 1]:
            raise CheckpointError(f"{stored.source}: --prefix names {twice[0]} more than once; name each layer once")
        return chosen
    usable = [one for one in found if isinstance(one, Recurrence)]
    if not usable:
        raise CheckpointError(f"{stored.source} cannot be exported: {_problems(found)}")
    stack = usable if len(usable) == 1 else in_order(usable)
    if stack is None:
        raise CheckpointError(
            f"{stored.source}: holds several recurrences; choose one with --prefix, or name several in the order in "
            f"which they stand on each other. Found: {_places(found)}"
        )
    return stack


def _at(found: Sequence[Found], prefix: str, source: str) -> Recurrence:
    wanted = prefix.rstrip("./")
    ways = (
        lambda one: wanted in (one.place, getattr(one, "name", None), *one.place.split(" and ")),
        lambda one: one.place.endswith(f"/{wanted}"),
        lambda one: one.place.startswith((f"{wanted}.", f"{wanted}/")),
    )
    matches = next(filter(None, ([one for one in found if fits(one)] for fits in ways)), [])
    if len(matches) != 1:
        problem = "several recurrences are" if matches else "no recurrence is"
        raise CheckpointError(f"{source}: {problem} at --prefix {prefix!r}. Found: {_places(matches or found)}")
    if isinstance(matches[0], Flawed):
        raise CheckpointError(f"{source} cannot be exported: {_problems(matches)}")
    return matches[0]


def _complete(recurrence: Recurrence, choices: Choices, source: str) -> Recurrence:
    """The recurrence with what its weights do not say, and nothing that contradicts them."""
    if choices.nonlinearity is not None:
        if recurrence.nonlinearity not in (None, choices.nonlinearity):
            raise CheckpointError(
                f"{source}: --nonlinearity {choices.nonlinearity} does not fit {recurrence}; leave it out"
            )
        recurrence = replace(recurrence, nonlinearity=choices.nonlinearity)
    if recurrence.nonlinearity is None:
        raise CheckpointError(
            f"{source}: {recurrence}: the weights do not say whether it is a tanh or a relu RNN; add "
            "--nonlinearity tanh or --nonlinearity relu"
        )
    if choices.reset is not None:
        after = choices.reset == "after"
        if recurrence.family != "gru" or recurrence.linear_before_reset not in (None, after):
            raise CheckpointError(f"{source}: --reset {choices.reset} does not fit {recurrence}; leave it out")
        recurrence = replace(recurrence, linear_before_reset=after)
    if recurrence.linear_before_reset is None:
        raise CheckpointError(
            f"{source}: {recurrence}: a GRU without biases, so the weights do not say whether it was trained with "
            "reset_after=True or False; add --reset after or --reset before"
        )
    return recurrence


def _places(found: Iterable[Found]) -> str:
    return "; ".join(
        str(one)
        if isinstance(one, Recurrence)
        else f"{one.place or 'the top level'} (cannot be exported: {one.problem})"
        for one in found
    )


def _problems(found: Iterable[Found]) -> str:
    return "; ".join(f"{one.place or 'the top level'} {one.problem}" for one in found if isinstance(one, Flawed))
