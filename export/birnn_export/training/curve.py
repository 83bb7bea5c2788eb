"""The curve of losses as a picture."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from birnn_bundle.atomic_file import replacing


def draw_curve(metrics_file: Path, picture: Path) -> None:
    """Draw the losses and accuracies of metrics.jsonl, in training and validation, over tokens into a PNG."""
    lines: list[dict[str, Any]] = [json.loads(line) for line in metrics_file.read_text(encoding="utf-8").splitlines()]
    names = ["total", *sorted({name for line in lines for name in line["validation"]} - {"total"})]
    figure = Figure(figsize=(4 * len(names), 3.2), layout="constrained")
    FigureCanvasAgg(figure)
    for column, name in enumerate(names, start=1):
        axes = figure.add_subplot(1, len(names), column)
        for part in ("train", "validation"):
            points = [(line["tokens"] / 1e6, line[part][name]) for line in lines if name in line[part]]
            if points:
                axes.plot([x for x, _ in points], [y for _, y in points], marker=".", label=part)
        axes.set_title(name)
        axes.set_xlabel("tokens / million")
        axes.set_ylabel("share predicted right" if name.endswith("accuracy") else "loss")
        axes.grid(alpha=0.3)
        axes.legend()
    with replacing(picture) as file:
        figure.savefig(file, dpi=110, format="png")
