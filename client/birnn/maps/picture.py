"""Writes a map as a .png picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from birnn.maps.colors import Legend, Scale
from birnn_bundle.atomic_file import replacing

GRAY = "#b0b0b0"


def draw_picture(
    path: Path,
    places: NDArray[np.float64],
    axes: tuple[str, str],
    color: str,
    colors: Scale | Legend | None,
    title: str,
) -> None:
    """Write a map as a scatter plot.

    Args:
        path: The .png file to write.
        places: Points, float64 [n, 2].
        axes: Names of the two axes.
        color: Name of the quantity that the colors show.
        colors: Colors of the points. None for a single color.
        title: Title of the plot.
    """
    figure = Figure(figsize=(9, 7.5), layout="constrained")
    plane = figure.subplots()
    x, y = places.T
    size = max(3.0, min(20.0, 30_000 / len(places)))
    if isinstance(colors, Scale):
        values = np.array([np.nan if value is None else value for value in colors.values])
        known = ~np.isnan(values)
        plane.scatter(x[~known], y[~known], size, GRAY, linewidths=0)
        drawn = plane.scatter(
            x[known], y[known], size, values[known], cmap="viridis", vmin=colors.low, vmax=colors.high, linewidths=0
        )
        figure.colorbar(drawn, ax=plane, label=color, extend="both")
    elif isinstance(colors, Legend):
        which = np.array([-1 if value is None else value for value in colors.values])
        plane.scatter(x[which < 0], y[which < 0], size, GRAY, linewidths=0)
        for number, category in enumerate(colors.categories):
            plane.scatter(x[which == number], y[which == number], size, f"C{number}", label=category, linewidths=0)
        plane.legend(title=color, markerscale=2)
    else:
        plane.scatter(x, y, size, linewidths=0)
    plane.set_xlabel(axes[0])
    plane.set_ylabel(axes[1])
    plane.set_title(title, fontsize=11)
    with replacing(path) as file:
        figure.savefig(file, dpi=150, format="png")
