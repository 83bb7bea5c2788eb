"""The report of a comparison: report.json, report.md and its plots, all from the folder's records."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from bench.loads import Load, Sample
from bench.markdown import table
from bench.peers.comparison import BARE, FRONT
from bench.peers.costs import costs_table
from bench.peers.ours import is_ours
from bench.peers.plot import plot_sweep
from bench.peers.records import Ratios, Record, best_settings, medians, ratios
from birnn_bundle.atomic_file import replace_text

FACTS_FILE, JSON_FILE, MARKDOWN_FILE = "facts.json", "report.json", "report.md"


@dataclass(frozen=True, slots=True)
class Row:
    """One server under one load by one generator.

    Attributes:
        samples: By round.
        ratios: Of each of our servers over this one, by our server's name; empty for ours.
        facts: Medians over rounds of what else was seen; see `Record`.
    """

    load: Load
    generator: str
    server: str
    samples: dict[int, Sample]
    ratios: dict[str, Ratios]
    facts: dict[str, float]


def rows(records: Sequence[Record]) -> list[Row]:
    """Rows of the comparison, by load and generator, ours first."""
    measured: dict[tuple[Load, str], dict[str, dict[int, Sample]]] = {}
    facts: dict[tuple[Load, str, str], list[dict[str, float]]] = {}
    for record in records:
        if record.phase != "round" or record.sample is None or record.server == BARE:
            continue
        by_server = measured.setdefault((record.load, record.generator), {})
        by_server.setdefault(record.server, {})[record.round] = record.sample
        facts.setdefault((record.load, record.generator, record.server), []).append(record.facts)
    found = []
    for (load, generator), by_server in measured.items():
        ours = {server: samples for server, samples in by_server.items() if is_ours(server)}
        for server, samples in sorted(by_server.items(), key=lambda item: (not is_ours(item[0]), item[0])):
            compared = {} if server in ours else {name: ratios(mine, samples) for name, mine in ours.items()}
            kept = {name: ratio for name, ratio in compared.items() if ratio is not None}
            found.append(Row(load, generator, server, samples, kept, _medians(facts[load, generator, server])))
    return found


def write_report(folder: Path, records: Sequence[Record], facts: dict[str, Any]) -> None:
    """Write report.json, report.md and the plots into the folder."""
    found = rows(records)
    replace_text(folder / JSON_FILE, json.dumps(to_json(found, records, facts), indent=1) + "\n")
    plots = plot_sweep([record for record in records if record.phase == "sweep"], folder)
    replace_text(folder / MARKDOWN_FILE, to_markdown(found, records, facts, plots))


def to_json(found: Sequence[Row], records: Sequence[Record], facts: dict[str, Any]) -> dict[str, Any]:
    """Everything, for programs."""
    return {
        "facts": facts,
        "settings": best_settings(records),
        "bare": _json(_bare(records)),
        "results": [
            {
                "load": asdict(row.load),
                "generator": row.generator,
                "server": row.server,
                "median": _json(medians(row.samples.values())),
                "rounds": {str(number): asdict(sample) for number, sample in sorted(row.samples.items())},
                "ratios": {name: asdict(ratio) for name, ratio in row.ratios.items()},
                "facts": row.facts,
            }
            for row in found
        ],
        "failures": [
            {"phase": record.phase, "server": record.server, "load": asdict(record.load), "error": record.error}
            for record in records
            if record.error
        ],
    }


def to_markdown(found: Sequence[Row], records: Sequence[Record], facts: dict[str, Any], plots: Sequence[Path]) -> str:
    """The report for reading."""
    parts = ["# Servers side by side", _introduction(facts)]
    for load, generator in dict.fromkeys((row.load, row.generator) for row in found):
        parts.append(f"## {'The front end alone: ' if load == FRONT else ''}{load} ({generator})")
        parts.append(_results([row for row in found if (row.load, row.generator) == (load, generator)]))
        if load.in_flight == 1 and (bare := _bare(records)) is not None:
            parts.append(
                f"`session.run` alone, one thread, single sequences: p50 {_ms(bare.p50)} ms, p99 {_ms(bare.p99)} ms."
            )
    if costs := costs_table(found):
        parts += ["## Where the CPU time of our server goes", costs]
    parts += [f"![{plot.stem}]({plot.name})" for plot in plots]
    parts += ["## Settings", _settings(records), "## How it was run", _commands(records, facts)]
    if failures := [record for record in records if record.error]:
        lines = [f"- {record.phase}: {record.server}, {record.load}: {record.error}" for record in failures]
        parts += ["## What failed", "\n".join(lines)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _introduction(facts: dict[str, Any]) -> str:
    machine = facts["machine"]
    return (
        f"{facts['model']}; strings in, vectors out; the same ONNX graph and the same tokenizer in every server. "
        f"{facts['sequences']} sequences of {facts['file']}, {facts['mean_length']:.0f} tokens on average. "
        f"{machine['cpu']}, servers on cores {facts['server_cores']}, load generators on {facts['client_cores']}; "
        f"{machine['system']}; begun {machine['started']} at commit {machine['commit']}. Servers run one at a time, in "
        "turn and every other round in reverse. Figures are medians over rounds; ratios are medians of each round's "
        "ratio, ours over theirs: throughput above 1 and latency below 1 are in our favor. `padding` is the share of "
        "cells computed for nothing and `shared` that of sequences answered by an equal one in flight, from our "
        "metrics; `server us a call` is the CPU time of all processes of the server, and `cores` are CPU seconds a "
        "second: of the server, of the load generators, and of programs that have no part in this. Where clients take "
        "as much as the server, they are a limit, too."
    )


def _results(found: Sequence[Row]) -> str:
    ours = [row.server for row in found if is_ours(row.server)]
    header = ["server", "rounds", "sequences/s", "calls/s", "p50 ms", "p99 ms"]
    for name in ours:
        header += [f"{name}: throughput", "p50", "p99"]
    header += ["padding", "shared", "server us a call", "server cores", "client cores", "other cores"]
    lines = []
    for row in found:
        sample = medians(row.samples.values())
        assert sample is not None
        line = [row.server, str(len(row.samples)), f"{sample.sequences_per_second:,.0f}"]
        line += [f"{sample.calls_per_second:,.1f}", _ms(sample.p50), _ms(sample.p99)]
        for name in ours:
            ratio = row.ratios.get(name)
            line += [f"{ratio.throughput:.2f}x", f"{ratio.p50:.2f}x", f"{ratio.p99:.2f}x"] if ratio else ["", "", ""]
        line += [f"{row.facts[name]:.1%}" if name in row.facts else "" for name in ("padding", "shared")]
        line.append(f"{row.facts['server_us']:,.0f}" if "server_us" in row.facts else "")
        for name in ("server_cores", "client_cores", "other_cores"):
            line.append(f"{row.facts[name]:.2f}" if name in row.facts else "")
        lines.append(line)
    return table(header, lines)


def _settings(records: Sequence[Record]) -> str:
    best = best_settings(records)
    if not best:
        return ""
    names = list(dict.fromkeys(record.load.name for record in records if record.phase == "search"))
    chosen = table(
        ["server", *names],
        [[server, *(_text(loads.get(name, {})) for name in names)] for server, loads in best.items()],
    )
    tried: dict[tuple[str, str], dict[str, str]] = {}
    for record in records:
        if record.phase == "search":
            shown = f"{record.sample.sequences_per_second:,.0f}" if record.sample else "failed"
            tried.setdefault((record.server, _text(record.settings)), {})[record.load.name] = shown
    search = table(
        ["server", "settings", *(f"{name}, sequences/s" for name in names)],
        [[server, text, *(found.get(name, "") for name in names)] for (server, text), found in tried.items()],
    )
    return (
        "Every other server ran each load with the settings that were fastest for that load in a search beforehand; "
        f"ours has none to search.\n\n{chosen}\n\nThe search:\n\n{search}"
    )


def _commands(records: Sequence[Record], facts: dict[str, Any]) -> str:
    lines = [f"    {command}" for command in facts["commands"]]
    started: dict[str, str] = {}
    for record in records:
        if record.command and record.phase == "round":
            started.setdefault(record.server, record.command)
    lines += [f"    # {server}\n    {command}" for server, command in started.items()]
    versions = [f"- {server}: {', '.join(found)}" for server, found in facts["versions"].items()]
    return "\n".join(lines) + "\n\n" + "\n".join(versions)


def _bare(records: Sequence[Record]) -> Sample | None:
    return medians(record.sample for record in records if record.server == BARE and record.sample is not None)


def _medians(dictionaries: Sequence[dict[str, float]]) -> dict[str, float]:
    names = {name for found in dictionaries for name in found}
    return {name: median(found[name] for found in dictionaries if name in found) for name in sorted(names)}


def _json(sample: Sample | None) -> dict[str, Any] | None:
    return asdict(sample) if sample else None


def _ms(seconds: float) -> str:
    return f"{1000 * seconds:.2f}"


def _text(settings: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in settings.items())
