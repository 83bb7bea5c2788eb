"""RNNs written out from the equations, in the naming of "Dive into Deep Learning" (https://d2l.ai, chapters 9 and 10).

A module of one direction holds, with x [B, I] and h [B, H] as rows:
    RNN    h' = tanh(x W_xh + h W_hh + b_h)
    GRU    r, z = sigmoid(x W_x. + h W_h. + b_.)      n = tanh(x W_xh + (r * h) W_hh + b_h)    h' = z * h + (1 - z) * n
    LSTM   i, f, o = sigmoid(x W_x. + h W_h. + b_.)   g = tanh(x W_xc + h W_hc + b_c)          c' = f * c + i * g
Its GRU resets before the product (linear_before_reset = 0). Two such modules whose names say forward and backward
(`f_rnn` and `b_rnn`, `forward_rnns.0` and `backward_rnns.0`, `layers.0.fwd` and `layers.0.bwd`) make a layer.
"""

import re
from collections import defaultdict

import numpy as np

from birnn_bundle.cells import Family, first_of
from birnn_export.checkpoints.recurrence import Array, Direction, Flawed, Found, Recurrence, stacked
from birnn_export.checkpoints.stored_weights import Tensors

PARAMETER = re.compile(r"(?:(?P<module>.*)\.)?(?P<parameter>W_[xhc][hrzifco]|b_[hrzifco])")
PEEPHOLE = re.compile(r"W_c[ifo]")
DIRECTION = re.compile(r"(?P<way>f|fw|fwd|forward|b|bw|bwd|backward)(?P<rest>_\w+)?")
COUNTERPARTS = {"f": "b", "fw": "bw", "fwd": "bwd", "forward": "backward"}

# The parameters of one direction of one layer: their names in the module, and in the checkpoint.
Names = dict[str, str]


def find_scratch_modules(tensors: Tensors) -> list[Found]:
    """Every recurrent module from scratch among `tensors`, whether it can be exported or not."""
    modules: dict[str, Names] = defaultdict(dict)
    for name in tensors:
        if match := PARAMETER.fullmatch(name):
            modules[match["module"] or ""][match["parameter"]] = name
    found: list[Found] = []
    pairs: dict[str, dict[tuple[int, bool], Names]] = defaultdict(dict)
    for module, names in modules.items():
        if place := _place(module):
            forward, layer, backward = place
            pairs[forward][layer, backward] = names
        else:
            found.append(
                Flawed(
                    module,
                    "runs in one direction only, or its name does not say which: two modules named like f_rnn and "
                    "b_rnn make a bidirectional layer",
                    frozenset(names.values()),
                )
            )
    return found + [_pair(place, sides, tensors) for place, sides in pairs.items()]


def _place(module: str) -> tuple[str, int, bool] | None:
    """Name of the forward module without its layer's number, the number, and whether this is the backward one."""
    parts = module.split(".")
    named = [(position, DIRECTION.fullmatch(part)) for position, part in enumerate(parts)]
    position, match = next(((at, match) for at, match in reversed(named) if match), (0, None))
    if match is None:
        return None
    backward = match["way"] in COUNTERPARTS.values()
    forward = {there: here for here, there in COUNTERPARTS.items()}.get(match["way"], match["way"])
    parts[position] = forward + (match["rest"] or "")
    # A number behind the direction is that of a layer; one before it if it says so, else that of another model.
    numbers = [at for at in (position + 1, position - 1) if 0 <= at < len(parts) and parts[at].isdecimal()]
    numbers = [at for at in numbers if at > position or (at > 0 and "layer" in parts[at - 1].lower())]
    layer = int(parts.pop(numbers[0])) if numbers else 0
    return ".".join(parts), layer, backward


def _pair(place: str, sides: dict[tuple[int, bool], Names], tensors: Tensors) -> Found:
    found = _checked(place, sides, tensors)
    if isinstance(found, Recurrence):
        return found
    return Flawed(place, found, frozenset(name for names in sides.values() for name in names.values()))


def _checked(place: str, sides: dict[tuple[int, bool], Names], tensors: Tensors) -> Recurrence | str:
    """The recurrence of these modules, or what is wrong with it."""
    layers = sorted({layer for layer, _ in sides})
    if missing := [f"layer {layer}" for layer in layers if (layer, True) not in sides]:
        return f"has no backward counterpart ({', '.join(missing)}); only bidirectional encoders are served"
    if missing := [f"layer {layer}" for layer in layers if (layer, False) not in sides]:
        return f"is missing beside its backward counterpart ({', '.join(missing)})"
    if layers != list(range(len(layers))):
        return f"has layers {', '.join(map(str, layers))}; they are counted from 0 without gaps"
    first = sides[0, False]
    family: Family = "gru" if "W_xz" in first else "lstm" if "W_xi" in first else "rnn"
    peepholes = [name for names in sides.values() for parameter, name in names.items() if PEEPHOLE.fullmatch(parameter)]
    if peepholes:
        return f"has peepholes ({', '.join(peepholes[:3])}), which are not served"
    gates = first_of(family).torch_gates
    biases = {f"b_{gate}" for gate in gates}
    needed = biases | {f"W_{source}{gate}" for source in "xh" for gate in gates}
    # A module may hold what makes its outputs of its states, too.
    used = {side: {name: names[name] for name in needed & names.keys()} for side, names in sides.items()}
    bias = any(biases & names.keys() for names in used.values())
    try:
        stack = [
            (
                _direction(used[layer, False], family, bias, tensors),
                _direction(used[layer, True], family, bias, tensors),
            )
            for layer in layers
        ]
        checked = stacked(stack, family)
    except ValueError as error:
        return str(error)
    tensor_names = frozenset(name for names in used.values() for name in names.values())
    return Recurrence(
        place, family, checked, tensor_names, scratch=family == "rnn", linear_before_reset=family != "gru"
    )


def _direction(names: Names, family: Family, bias: bool, tensors: Tensors) -> Direction:
    """One direction in the layout of torch.nn. Raises ValueError for parameters that are missing or do not fit."""
    gates = first_of(family).torch_gates
    needed = [f"W_{source}{gate}" for source in "xh" for gate in gates] + [f"b_{gate}" for gate in gates if bias]
    if missing := [parameter for parameter in needed if parameter not in names]:
        raise ValueError(f"lacks {', '.join(missing)}; has {', '.join(sorted(names.values()))}")

    def gathered(kind: str) -> Array:
        parts = [tensors[names[f"{kind}{gate}"]] for gate in gates]
        if any(part.ndim != 2 for part in parts):
            raise ValueError(f"{kind}{gates[0]} has shape {list(parts[0].shape)}, and a matrix was expected")
        # x W there, W x here.
        return np.concatenate([part.T for part in parts])

    biases = np.concatenate([tensors[names[f"b_{gate}"]].reshape(-1) for gate in gates]) if bias else None
    return Direction(gathered("W_x"), gathered("W_h"), biases)
