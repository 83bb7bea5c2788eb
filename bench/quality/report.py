"""Results as CSV for machines, Markdown and a plot for people."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean, stdev

from matplotlib.figure import Figure

from bench.quality.behavior import Invariance
from bench.quality.heads import Result
from birnn_bundle.atomic_file import replace_text, replacing, replacing_text


@dataclass(frozen=True)
class EncoderFacts:
    """What was seen of one encoder beside its scores."""

    name: str
    shape: str
    dimension: int
    invariance: Invariance
    sequences_per_second: float | None
    """None for one without a bundle, which cannot be served."""


def write(folder: Path, results: Sequence[Result], encoders: Sequence[EncoderFacts]) -> str:
    """Write scores.csv, encoders.csv, quality.md and quality.png into `folder`; gives the Markdown."""
    folder.mkdir(parents=True, exist_ok=True)
    _write_scores(folder / "scores.csv", results)
    _write_encoders(folder / "encoders.csv", encoders)
    markdown = _markdown(results, encoders)
    replace_text(folder / "quality.md", markdown)
    _plot(folder / "quality.png", results)
    return markdown


def _main_metric(result: Result) -> list[float]:
    return next(iter(result.metrics.values()))


def _write_scores(path: Path, results: Sequence[Result]) -> None:
    with replacing_text(path) as file:
        lines = csv.writer(file, lineterminator="\n")
        lines.writerow(["table", "task", "vectors", "dimension", "head", "metric", "mean", "std", "folds"])
        for one in results:
            for metric, values in one.metrics.items():
                folds = " ".join(f"{value:.4f}" for value in values)
                kind = [one.table, one.task, one.vectors, one.dimension, one.head, metric]
                lines.writerow([*kind, f"{fmean(values):.4f}", f"{stdev(values):.4f}", folds])


def _write_encoders(path: Path, encoders: Sequence[EncoderFacts]) -> None:
    names = ["same", "same_p5", "different", "found"]
    with replacing_text(path) as file:
        lines = csv.writer(file, lineterminator="\n")
        lines.writerow(["encoder", "shape", "dimension", *names, "sequences_per_second"])
        for one in encoders:
            rate = "" if one.sequences_per_second is None else f"{one.sequences_per_second:.0f}"
            values = asdict(one.invariance)
            lines.writerow([one.name, one.shape, one.dimension, *(f"{values[name]:.4f}" for name in names), rate])


def _markdown(results: Sequence[Result], encoders: Sequence[EncoderFacts]) -> str:
    parts = []
    for table in dict.fromkeys(one.table for one in results):
        here = [one for one in results if one.table == table]
        metrics, heads = list(here[0].metrics), list(dict.fromkeys(one.head for one in here))
        parts.append(f"### {table}\n")
        columns = [f"{head} {metric}" for head in heads for metric in metrics]
        parts += [f"| vectors | floats | {' | '.join(columns)} |", "|---" * (2 + len(columns)) + "|"]
        for vectors in dict.fromkeys(one.vectors for one in here):
            scored = {one.head: one for one in here if one.vectors == vectors}
            cells = [
                f"{fmean(scored[head].metrics[metric]):.3f} +- {stdev(scored[head].metrics[metric]):.3f}"
                for head in heads
                for metric in metrics
            ]
            parts.append(f"| {vectors} | {next(iter(scored.values())).dimension} | {' | '.join(cells)} |")
        parts.append("")
    parts += [
        "### Two random SMILES of one molecule, and cost\n",
        "| encoder | shape | floats | cosine, one molecule | 5th percentile | cosine, two molecules "
        "| other spelling is nearest | sequences/s, one thread |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for facts in encoders:
        same = facts.invariance
        rate = "" if facts.sequences_per_second is None else f"{facts.sequences_per_second:,.0f}"
        parts.append(
            f"| {facts.name} | {facts.shape} | {facts.dimension} | {same.same:.3f} | {same.same_p5:.3f} "
            f"| {same.different:.3f} | {same.found:.1%} | {rate} |"
        )
    return "\n".join(parts) + "\n"


def _plot(path: Path, results: Sequence[Result]) -> None:
    tables = list(dict.fromkeys(one.table for one in results))
    vectors = list(dict.fromkeys(one.vectors for one in results))
    figure = Figure(figsize=(4.2 * len(tables) + 1.5, 0.55 * len(vectors) + 1.6), layout="constrained")
    axes = figure.subplots(1, len(tables), sharey=True, squeeze=False)[0]
    heads = list(dict.fromkeys(one.head for one in results))
    height = 0.8 / len(heads)
    for axis, table in zip(axes, tables, strict=True):
        for number, head in enumerate(heads):
            scored = {one.vectors: one for one in results if one.table == table and one.head == head}
            places = [
                row + (number - (len(heads) - 1) / 2) * height for row, name in enumerate(vectors) if name in scored
            ]
            values = [_main_metric(scored[name]) for name in vectors if name in scored]
            axis.barh(
                places,
                [max(0.0, fmean(one)) for one in values],
                height,
                xerr=[stdev(one) for one in values],
                label=head,
                error_kw={"elinewidth": 0.8},
            )
        axis.set_title(table, fontsize=11)
        axis.set_xlabel(next(iter(next(one for one in results if one.table == table).metrics)))
        axis.set_xlim(0, 1)
        axis.grid(axis="x", alpha=0.3)
    axes[0].set_yticks(range(len(vectors)), vectors)
    axes[0].invert_yaxis()
    axes[-1].legend(loc="lower right", fontsize=8)
    with replacing(path) as file:
        figure.savefig(file, dpi=150, format="png")
