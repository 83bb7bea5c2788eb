"""RNNs written out from the equations, in the naming of "Dive into Deep Learning" (https://d2l.ai, chapters 9 and 10).

A module of one direction holds, with x [B, I] and h [B, H] as rows:
    RNN    h' = tanh(x W_xh + h W_hh + b_h)
    GRU    r, z = sigmoid(x W_x. + h W_h. + b_.)      n = tanh(x W_xh + (r * h) W_hh + b_h)    h' = z * h + (1 - z) * n
    LSTM   i, f, o = sigmoid(x W_x. + h W_h. + b_.)   g = tanh(x W_xc + h W_hc + b_c)          c' = f * c + i * g
Its GRU resets before the product (linear_before_reset = 0).
"""

import re
from collections import defaultdict

import numpy as np

from birnn_bundle.cells import Family, first_of
from birnn_export.checkpoints.pairing import OneWay
from birnn_export.checkpoints.recurrence import Array, Direction, Flawed
from birnn_export.checkpoints.stored_weights import Tensors

PARAMETER = re.compile(r"(?:(?P<module>.*)\.)?(?P<parameter>W_[xhc][hrzifco]|b_[hrzifco])")
PEEPHOLE = re.compile(r"W_c[ifo]")

# The parameters of a module: their names in it, and in the checkpoint.
Names = dict[str, str]


def find_scratch_modules(tensors: Tensors) -> list[OneWay | Flawed]:
    """Every recurrent module from scratch among `tensors`, whether it can be exported or not."""
    modules: dict[str, Names] = defaultdict(dict)
    for name in tensors:
        if match := PARAMETER.fullmatch(name):
            modules[match["module"] or ""][match["parameter"]] = name
    return [_module(place, names, tensors) for place, names in modules.items()]


def _module(place: str, names: Names, tensors: Tensors) -> OneWay | Flawed:
    family: Family = "gru" if "W_xz" in names else "lstm" if "W_xi" in names else "rnn"
    try:
        if peepholes := [name for parameter, name in names.items() if PEEPHOLE.fullmatch(parameter)]:
            raise ValueError(f"has peepholes ({', '.join(peepholes[:3])}), which are not served; train an LSTM without")
        direction, used = _direction(names, family, tensors)
    except ValueError as error:
        return Flawed(place, str(error), frozenset(names.values()))
    return OneWay(
        place, family, (direction,), frozenset(used), scratch=family == "rnn", linear_before_reset=family != "gru"
    )


def _direction(names: Names, family: Family, tensors: Tensors) -> tuple[Direction, list[str]]:
    """A direction in the layout of torch.nn, and the tensors it is made of.

    Raises ValueError for parameters that are missing or do not fit.
    """
    gates = first_of(family).torch_gates
    bias = any(f"b_{gate}" in names for gate in gates)
    # A module may hold what makes its outputs of its states, too.
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
    return Direction(gathered("W_x"), gathered("W_h"), biases), [names[parameter] for parameter in needed]
