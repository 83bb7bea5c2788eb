"""The command that repeats a run, for its bundle and for people."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from birnn_bundle.corpus import split_file_and_column
from birnn_export.training.replicas import LAUNCHER


def name_of(entry: str) -> str:
    """File name and columns without the folder, which means nothing on another machine."""
    path, column = split_file_and_column(entry)
    return path.name if column is None else f"{path.name}:{column}"


def recipe(options: dict[str, Any], defaults: Mapping[str, Any], processes: int) -> str:
    """The command that repeats this run, with file names instead of paths."""
    words = [*launcher(processes), "birnn", "train", *map(name_of, options["corpus"])]
    for name, value in options.items():
        flag = "--" + name.replace("_", "-")
        if name in ("exclude", "pairs"):
            words += [word for one in value for word in (flag, name_of(one))]
        elif name == "start_from" and value:
            words += [flag, Path(value).name]
        elif value is True:
            words.append(flag)
        elif name not in ("corpus", "workers", "cache") and value not in (None, False) and value != defaults[name]:
            words += [flag, f"{value:g}" if isinstance(value, float) else str(value)]
    return shlex.join(words)


def launcher(processes: int) -> list[str]:
    """What starts several processes."""
    return [*LAUNCHER, "--nproc-per-node", str(processes)] if processes > 1 else []
