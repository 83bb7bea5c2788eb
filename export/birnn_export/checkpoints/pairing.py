"""Two modules of one direction each as one bidirectional recurrence.

Where the names of two modules differ in one word only, and that says forward in one and backward in the other (`fwd`
and `bwd`, `lstm_fw` and `lstm_bw`, `forward_cells.0` and `backward_cells.0`), they are taken for a pair; any others can
be named. The forward module reads X_1..X_T and the backward one X_T..X_1; its outputs are put back in the order of the
tokens, so that step t of both speaks of token t, and stand behind those of the forward one.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from birnn_bundle.cells import Family, GateActivation, Nonlinearity
from birnn_bundle.numerals import is_number
from birnn_export.checkpoints.keras_graph import Layer
from birnn_export.checkpoints.recurrence import Direction, Flawed, Found, Recurrence, stacked
from birnn_export.training.checkpoint import CheckpointError

COUNTERPARTS: dict[str, str] = {
    "f": "b",
    "fw": "bw",
    "fwd": "bwd",
    "forward": "backward",
    "forwards": "backwards",
    "l2r": "r2l",
    "ltr": "rtl",
}
FORWARD = {there: here for here, there in COUNTERPARTS.items()}
_WORDS = "|".join(sorted((*COUNTERPARTS, *FORWARD), key=len, reverse=True))
_CAPITALS = "|".join(word.capitalize() for word in _WORDS.split("|"))
# A word of a name: between underscores, or in camelCase.
WAY = re.compile(rf"(?:(?:^|(?<=_))(?:{_WORDS})|(?<=[a-z0-9])(?:{_CAPITALS}))(?=$|_|[0-9]|[A-Z])")


@dataclass(frozen=True, eq=False)
class OneWay:
    """A recurrence that runs in one direction: layers of which each reads the one before.

    Attributes as those of `Recurrence`, and:
        backwards: Whether it reads from the last token by itself, as a Keras layer with go_backwards does; None where
            that is up to the code around it.
        training: How one trains a bidirectional one instead.
    """

    place: str
    family: Family
    layers: tuple[Direction, ...]
    tensors: frozenset[str]
    scratch: bool = False
    nonlinearity: Nonlinearity | None = "tanh"
    gate_activation: GateActivation = "sigmoid"
    linear_before_reset: bool | None = True
    name: str = ""
    layer: Layer | None = None
    backwards: bool | None = None
    training: str = "train with bidirectional=True"


def with_pairs(parts: Iterable[Found | OneWay]) -> list[Found]:
    """The same, with two modules of one direction as one recurrence where their names say so."""
    parts = list(parts)
    found = [part for part in parts if not isinstance(part, OneWay)]
    groups: dict[str, dict[tuple[int, bool], OneWay]] = defaultdict(dict)
    alone = []
    for part in parts:
        if isinstance(part, OneWay):
            if named := _named(part.place):
                group, layer, backward = named
                groups[group][layer, backward] = part
            else:
                alone.append(part)
    for sides in groups.values():
        layers = sorted({layer for layer, _ in sides})
        if layers == list(range(len(layers))) and len(sides) == 2 * len(layers):
            found.append(_evident([(sides[layer, False], sides[layer, True]) for layer in layers]))
        else:
            alone += sides.values()
    return found + [_alone(part, alone) for part in alone]


def pair(forward: OneWay, backward: OneWay) -> Recurrence:
    """Both as one recurrence. Raises ValueError where they do not fit together; says how."""
    kinds = {
        (one.family, one.scratch, one.nonlinearity, one.gate_activation, one.linear_before_reset)
        for one in (forward, backward)
    }
    if len(kinds) > 1:
        raise ValueError("are of different kinds")
    for one, wanted, option in ((forward, False, "--forward"), (backward, True, "--backward")):
        if one.backwards is not None and one.backwards != wanted:
            raise ValueError(f"are not read that way: {one.place} of {option} has go_backwards={one.backwards}")
    if forward.layer is not None and backward.layer is not None and forward.layer.inputs != backward.layer.inputs:
        raise ValueError("read different things in the model")
    layers = side_by_side(forward.layers, backward.layers)
    return Recurrence(
        f"{forward.place} and {backward.place}",
        forward.family,
        stacked(layers, forward.family),
        forward.tensors | backward.tensors,
        forward.scratch,
        nonlinearity=forward.nonlinearity,
        gate_activation=forward.gate_activation,
        linear_before_reset=forward.linear_before_reset,
        layer=forward.layer,
        notes=(_note(forward.place, backward.place),),
    )


def pair_at(parts: Sequence[Found | OneWay], forward: str, backward: str, source: str) -> Recurrence:
    """The modules at two places as one recurrence.

    Raises CheckpointError where there is none of one direction, or they do not fit together; lists what was found.
    """
    modules = [part for part in parts if isinstance(part, OneWay)]
    one_way = {part.name: part for part in modules if part.name} | {part.place: part for part in modules}
    for option, place in (("--forward", forward), ("--backward", backward)):
        if place.rstrip("./") not in one_way:
            listed = ", ".join(one.place or "the top level" for one in modules) or "none"
            raise CheckpointError(
                f"{source}: nothing that runs in one direction is at {option} {place!r}. Such are: {listed}"
            )
    places = forward.rstrip("./"), backward.rstrip("./")
    if places[0] == places[1]:
        raise CheckpointError(f"{source}: --forward and --backward both name {places[0]!r}")
    try:
        return pair(one_way[places[0]], one_way[places[1]])
    except ValueError as error:
        raise CheckpointError(f"{source}: {' and '.join(places)} cannot be one bidirectional layer: {error}") from error


def _evident(pairs: Sequence[tuple[OneWay, OneWay]]) -> Found:
    """Pairs whose names say so, each standing on the one before."""
    tensors = frozenset().union(*(one.tensors for sides in pairs for one in sides))
    places = [" and ".join(one.place for one in sides) for sides in pairs]
    try:
        single = [pair(*sides) for sides in pairs]
        if len(single) == 1:
            return single[0]
        if any(len(one.layers) > 1 for one in single):
            raise ValueError("have several layers each")
        if len({one.kind for one in single}) > 1:
            raise ValueError("are of different kinds")
        layers = stacked([one.layers[0] for one in single], single[0].family)
    except ValueError as error:
        return Flawed(", ".join(places), f"cannot be one bidirectional recurrence: {error}", tensors)
    forward, backward = (_without_number(side.place) for side in pairs[0])
    return replace(
        single[0],
        place=f"{forward} and {backward}",
        layers=layers,
        tensors=tensors,
        # It stands for several layers of a model, and not for the lowest alone.
        layer=None,
        notes=(_note(forward, backward),),
    )


def _note(forward: str, backward: str) -> str:
    """How two modules are understood."""
    return (
        f"{forward} and {backward} are taken for the two directions of one recurrence: {backward} reads each sequence "
        "from its last token, and its outputs are put back in the order of the tokens; --expect proves it"
    )


def _alone(part: OneWay, others: Sequence[OneWay]) -> Flawed:
    """Why a module of one direction cannot be exported, and what to do."""
    fitting = [
        other.place
        for other in others
        if other is not part
        and (other.family, other.scratch, len(other.layers)) == (part.family, part.scratch, len(part.layers))
        and all(a.W.shape == b.W.shape for a, b in zip(part.layers, other.layers, strict=True))
    ]
    advice = part.training
    if fitting:
        advice = (
            f"if it is one direction and {' or '.join(fitting)} the other, say which is which with --forward NAME "
            f"--backward NAME; else {part.training}"
        )
    return Flawed(
        part.place,
        f"runs in one direction only, and only bidirectional encoders are served; {advice}",
        part.tensors,
    )


def side_by_side(forward: Sequence[Direction], backward: Sequence[Direction]) -> list[tuple[Direction, Direction]]:
    """Layers of one direction each, of which each reads the one before, as layers that read both directions.

    The weights of an upper layer for the other direction are zeros. Raises ValueError where layers do not fit.
    """
    if len(forward) != len(backward):
        raise ValueError(f"have {len(forward)} and {len(backward)} layers")
    layers = [(forward[0], backward[0])]
    for below, upper in pairwise(zip(forward, backward, strict=True)):
        H = [side.R.shape[1] for side in below]
        sides = []
        for position, side in enumerate(upper):
            if side.W.shape[-1] != H[position]:
                raise ValueError(f"have an upper layer that reads {side.W.shape[-1]} numbers, {H[position]} expected")
            halves = [np.zeros((len(side.W), size), np.float32) for size in H]
            halves[position] = side.W
            sides.append(replace(side, W=np.concatenate(halves, axis=1)))
        layers.append((sides[0], sides[1]))
    return layers


def _named(place: str) -> tuple[str, int, bool] | None:
    """What both directions are called, the number of the layer, and whether this is the backward one."""
    parts = place.split(".")
    matches = [(at, match) for at, part in enumerate(parts) for match in WAY.finditer(part)]
    if not matches:
        return None
    position, match = matches[-1]
    word = match[0].lower()
    parts[position] = WAY.sub("*", parts[position])
    number = _number_at(parts, position)
    layer = int(parts.pop(number)) if number is not None else 0
    return f"{'.'.join(parts)} {FORWARD.get(word, word)}", layer, word in FORWARD


def _number_at(parts: Sequence[str], position: int) -> int | None:
    """Where the number of a layer stands: behind the direction, or before it if what is before that says so."""
    numbers = [at for at in (position + 1, position - 1) if 0 <= at < len(parts) and is_number(parts[at])]
    # Else that of another model.
    numbers = [at for at in numbers if at > position or (at > 0 and "layer" in parts[at - 1].lower())]
    return numbers[0] if numbers else None


def _without_number(place: str) -> str:
    parts = place.split(".")
    position = max(at for at, part in enumerate(parts) if WAY.search(part))
    number = _number_at(parts, position)
    return ".".join(part for at, part in enumerate(parts) if at != number)
