"""Where the results of `python -m bench` go: NAME.json for programs, NAME.md for reading."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from bench.machine import ROOT, describe_machine
from birnn_bundle.atomic_file import replace_text

OUT = click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    default=ROOT / "build" / "bench",
    show_default="build/bench",
    help="Folder for the results.",
)
QUICK = click.option("--quick", is_flag=True, help="A short look, to see that everything runs.")


def write_result(out: Path, name: str, result: dict[str, Any], render: Callable[[dict[str, Any]], str]) -> None:
    """Write a result with what it ran on, as JSON and as rendered Markdown, and print the latter."""
    out.mkdir(parents=True, exist_ok=True)
    complete = {"machine": describe_machine(), **result}
    replace_text(out / f"{name}.json", json.dumps(complete, indent=1) + "\n")
    machine = complete["machine"]
    text = (
        f"{render(complete)}\n\n{machine['cpu']}, {machine['cores']} cores, Python {machine['python']}, commit "
        f"{machine['commit']}, {machine['started']}; "
        + ", ".join(f"{package} {version}" for package, version in machine["packages"].items())
        + "\n"
    )
    replace_text(out / f"{name}.md", text)
    click.echo(text)
