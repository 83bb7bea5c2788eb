"""Writes a map as a self-contained .html page that needs no network and no other file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from birnn.maps.colors import Legend, Scale
from birnn_bundle.atomic_file import replace_text

_PLACEHOLDER = "/*DATA*/"


def draw_page(
    path: Path,
    places: NDArray[np.float64],
    axes: tuple[str, str],
    color: str,
    colors: Scale | Legend | None,
    title: str,
    sequences: Sequence[str],
) -> None:
    """Write a map as an interactive page.

    Args:
        path: The .html file to write.
        places: Points, float64 [n, 2].
        axes: Names of the two axes.
        color: Name of the quantity that the colors show.
        colors: Colors of the points. None for a single color.
        title: Title of the page.
        sequences: The sequence of each point, [n].
    """
    data: dict[str, Any] = {
        "title": title,
        "axes": axes,
        "x": [float(f"{x:.5g}") for x in places[:, 0]],
        "y": [float(f"{y:.5g}") for y in places[:, 1]],
        "radius": max(1.5, min(4.0, 8_000 / len(places))),
        "sequences": list(sequences),
        "color": color,
        "values": None if colors is None else colors.values,
    }
    if isinstance(colors, Scale):
        data |= {"low": colors.low, "high": colors.high}
    elif isinstance(colors, Legend):
        data["categories"] = colors.categories
    template = resources.files("birnn.maps").joinpath("page.html").read_text(encoding="utf-8")
    # A sequence may contain anything, even "</script>".
    text = json.dumps(data, ensure_ascii=True, allow_nan=False).replace("<", "\\u003c")
    replace_text(path, template.replace(_PLACEHOLDER, text))
