"""One line of a run's metrics for each evaluation, and what is told of it elsewhere."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from birnn_bundle.atomic_file import replace_text


def facts_of(line: dict[str, Any]) -> dict[str, float]:
    """The flat figures of one evaluation for a model card."""
    facts = {"step": float(line["step"]), "epochs": round(line["epoch"], 3), "million_tokens": line["tokens"] / 1e6}
    facts["minutes"] = round(line["seconds"] / 60, 2)
    for name, value in line["validation"].items():
        facts["validation_" + name.replace(" ", "_").replace("-", "_")] = round(value, 5)
    return facts


def summary_of(line: dict[str, Any]) -> str:
    """The losses of one evaluation for somebody who watches."""
    losses = ", ".join(f"{name} {value:.4f}" for name, value in line["validation"].items())
    return f"step {line['step']:,}: validation {losses}"


def cut_after(path: Path, step: int) -> None:
    """Drop lines written after the saved position, which a killed run may have left."""
    if not path.exists():
        return
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    kept = [line for line in lines if line.endswith("\n") and json.loads(line)["step"] <= step]
    replace_text(path, "".join(kept))
