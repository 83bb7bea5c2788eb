"""nn.GRU, nn.LSTM and nn.RNN, and their cells (nn.GRUCell ...), in a state_dict, under any prefix.

Names: https://docs.pytorch.org/docs/stable/generated/torch.nn.GRU.html#torch.nn.GRU (Variables), and the same without
_l0 in a cell.
"""

import re
from collections import defaultdict
from collections.abc import Collection

from birnn_bundle.cells import Nonlinearity
from birnn_export.checkpoints.pairing import OneWay
from birnn_export.checkpoints.recurrence import Direction, Flawed, Found, Recurrence, family_of, stacked
from birnn_export.checkpoints.stored_weights import Tensors

# What is made of a parameter by parametrizations and hooks: weight_hh_l0_raw, _v, _orig, _mask, _scale ...
DERIVED = re.compile(r"(?:(?P<place>.*)\.)?(?:weight|bias)_(?:ih|hh|hr)_l\d+(?:_reverse)?_(?!reverse$)\w+")
# Initial states that are learned, and further weights of a subclass.
OWN = re.compile(r"(?:weight|bias)_\w+|[hc]_?0|(?:init|learned|hidden|h|c)_?(?:state|hidden|init|[hc]_?0)\w*")
PARAMETRIZED = re.compile(r"(?:(?P<place>.*)\.)?parametrizations\.(?:weight|bias)_(?:ih|hh|hr)_l\d+(?:_reverse)?\..*")
CELL = re.compile(r"(?:(?P<place>.*)\.)?(?P<parameter>(?:weight|bias)_(?:ih|hh))")
PARAMETER = re.compile(r"(?:(?P<place>.*)\.)?(?P<parameter>(?:weight|bias)_(?:ih|hh|hr)_l(?P<layer>\d+)(?:_reverse)?)")


def find_torch_modules(tensors: Tensors) -> list[Found | OneWay]:
    """Every recurrent module of torch.nn among `tensors`, whether it can be exported or not."""
    modules: dict[str, dict[str, str]] = defaultdict(dict)
    cells: dict[str, dict[str, str]] = defaultdict(dict)
    for name in tensors:
        if match := PARAMETER.fullmatch(name):
            modules[match["place"] or ""][match["parameter"]] = name
        elif match := CELL.fullmatch(name):
            cells[match["place"] or ""][f"{match['parameter']}_l0"] = name
    # Anything may have a weight_ih; a cell has both.
    modules |= {place: names for place, names in cells.items() if {"weight_ih_l0", "weight_hh_l0"} <= names.keys()}
    return [_module(place, names, tensors) for place, names in modules.items()]


def _foreign(place: str, names: Collection[str], tensors: Tensors) -> list[str]:
    """Tensors of a module that torch.nn does not know: a subclass, a parametrization or a hook computes with them."""
    beside = place + "." if place else ""
    found = []
    for name in tensors:
        made = PARAMETRIZED.fullmatch(name) or DERIVED.fullmatch(name)
        own = made and (made["place"] or "") in (place, place.rpartition(".")[0])
        within = name.startswith(beside) and OWN.fullmatch(name.removeprefix(beside))
        if name not in names and (own or within):
            found.append(name)
    return found


def _module(place: str, names: dict[str, str], tensors: Tensors) -> Found | OneWay:
    try:
        return _checked(place, names, tensors)
    except ValueError as error:
        return Flawed(place, str(error), frozenset(names.values()))


def _checked(place: str, names: dict[str, str], tensors: Tensors) -> Recurrence | OneWay:
    """The recurrence of a module's parameters. Raises ValueError that says what is wrong with it and what to do."""
    layers = 1 + max(int(match["layer"]) for match in map(PARAMETER.fullmatch, names) if match)
    if any("_hr_" in parameter for parameter in names):
        raise ValueError(
            "is an LSTM with proj_size, which ONNX does not know; train with proj_size=0 and a smaller hidden_size"
        )
    if foreign := _foreign(place, names.values(), tensors):
        raise ValueError(
            f"holds {', '.join(foreign[:4])} beside what torch.nn knows, and computes something else with it; what a "
            "parametrization or a hook put there, torch.nn.utils.parametrize.remove_parametrizations or "
            "remove_weight_norm takes away; weight_hh_l0_raw, of dropout on weights, is to be saved as weight_hh_l0"
        )
    ways = ("", "_reverse") if any(parameter.endswith("_reverse") for parameter in names) else ("",)
    bias = any(parameter.startswith("bias") for parameter in names)
    kinds = ("weight_ih", "weight_hh", "bias_ih", "bias_hh") if bias else ("weight_ih", "weight_hh")
    needed = [f"{kind}_l{layer}{way}" for layer in range(layers) for way in ways for kind in kinds]
    if missing := [parameter for parameter in needed if parameter not in names]:
        raise ValueError(f"lacks {', '.join(missing)}; has {', '.join(sorted(names))}. Save the whole state_dict again")
    family = family_of(tensors[names["weight_hh_l0"]])
    # Whether an nn.RNN is one of tanh or relu does not show in its weights.
    nonlinearity: Nonlinearity | None = None if family == "rnn" else "tanh"

    def direction(layer: int, way: str) -> Direction:
        return Direction(*(tensors[names[f"{kind}_l{layer}{way}"]] for kind in kinds))

    own = frozenset(names.values())
    if len(ways) == 1:
        return OneWay(
            place, family, tuple(direction(layer, "") for layer in range(layers)), own, nonlinearity=nonlinearity
        )
    stack = stacked([(direction(layer, ""), direction(layer, "_reverse")) for layer in range(layers)], family)
    return Recurrence(place, family, stack, own, nonlinearity=nonlinearity)
