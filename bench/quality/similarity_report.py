"""Similarity of sentences as CSV for machines, Markdown and a plot for people."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path

from matplotlib.figure import Figure

from bench.quality.similarity import Similarity
from birnn_bundle.atomic_file import replace_text, replacing, replacing_text


def write(folder: Path, results: Sequence[Similarity]) -> str:
    """Write similarity.csv, similarity.md and similarity.png into `folder`; gives the Markdown."""
    folder.mkdir(parents=True, exist_ok=True)
    with replacing_text(folder / "similarity.csv") as file:
        lines = csv.DictWriter(file, [field.name for field in fields(Similarity)], lineterminator="\n")
        lines.writeheader()
        for one in results:
            lines.writerow(asdict(one) | {"pearson": f"{one.pearson:.4f}", "spearman": f"{one.spearman:.4f}"})
    markdown = _markdown(results)
    replace_text(folder / "similarity.md", markdown)
    _plot(folder / "similarity.png", results)
    return markdown


def _markdown(results: Sequence[Similarity]) -> str:
    parts = []
    methods = list(dict.fromkeys(one.method for one in results))
    for pairs, count in dict.fromkeys((one.pairs, one.count) for one in results):
        columns = [f"{method} {metric}" for method in methods for metric in ("Pearson", "Spearman")]
        parts.append(f"### STS benchmark, development set, {pairs}: {count:,} pairs\n")
        parts += [f"| vectors | floats | {' | '.join(columns)} |", "|---" * (2 + len(columns)) + "|"]
        here = [one for one in results if one.pairs == pairs]
        for name in dict.fromkeys(one.vectors for one in here):
            scored = [one for one in here if one.vectors == name]
            cells = [f"{value:.3f}" for one in scored for value in (one.pearson, one.spearman)]
            parts.append(f"| {name} | {scored[0].dimension} | {' | '.join(cells)} |")
        parts.append("")
    return "\n".join(parts)


def _plot(path: Path, results: Sequence[Similarity]) -> None:
    shown = [one for one in results if one.pairs == results[0].pairs]
    vectors, methods = (list(dict.fromkeys(getattr(one, name) for one in shown)) for name in ("vectors", "method"))
    figure = Figure(figsize=(7, 0.5 * len(vectors) + 1.4), layout="constrained")
    axes = figure.subplots()
    height = 0.8 / len(methods)
    for number, method in enumerate(methods):
        places = [row + (number - (len(methods) - 1) / 2) * height for row in range(len(vectors))]
        axes.barh(places, [one.pearson for one in shown if one.method == method], height, label=method)
    axes.set_yticks(range(len(vectors)), vectors)
    axes.invert_yaxis()
    axes.set_title(f"STS benchmark, development set ({shown[0].count:,} pairs)", fontsize=11)
    axes.set_xlabel("Pearson")
    axes.set_xlim(0, 1)
    axes.grid(axis="x", alpha=0.3)
    axes.legend(loc="lower right", fontsize=8)
    with replacing(path) as file:
        figure.savefig(file, dpi=150, format="png")
