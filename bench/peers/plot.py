"""Throughput against the 99th percentile of latency, over concurrencies."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from bench.peers.records import Record
from birnn_bundle.atomic_file import replacing


def plot_sweep(records: Sequence[Record], folder: Path) -> list[Path]:
    """One PNG for each batch size: a line a server, a point a concurrency; returns what was written."""
    plots = []
    for batch in sorted({record.load.batch for record in records}):
        figure, axes = plt.subplots(figsize=(8, 5), dpi=150)
        for server in dict.fromkeys(record.server for record in records):
            points = {
                record.load.in_flight: (1000 * record.sample.p99, record.sample.sequences_per_second)
                for record in records
                if record.server == server and record.load.batch == batch and record.sample is not None
            }
            if not points:
                continue
            latency, throughput = zip(*(points[number] for number in sorted(points)), strict=True)
            (line,) = axes.plot(latency, throughput, marker="o", markersize=4, label=server)
            for number in sorted(points):
                axes.annotate(
                    str(number),
                    points[number],
                    xytext=(4, 4),
                    textcoords="offset points",
                    fontsize=7,
                    color=line.get_color(),
                )
        axes.set_xscale("log")
        axes.set_xlabel("p99 latency, ms (log scale)")
        axes.set_ylabel("sequences/s")
        axes.set_ylim(bottom=0)
        sequences = "sequence" if batch == 1 else "sequences"
        axes.set_title(f"{batch} {sequences} a call; numbers are calls in flight; up and left is better")
        axes.grid(True, which="both", alpha=0.25)
        axes.legend()
        path = folder / f"throughput-p99-batch-{batch}.png"
        figure.tight_layout()
        with replacing(path) as file:
            figure.savefig(file, format="png")
        plt.close(figure)
        plots.append(path)
    return plots
