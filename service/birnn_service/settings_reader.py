"""Reads the settings from flags, variables and a TOML file, and explains what is wrong with them."""

import difflib
import os
import tomllib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from birnn_service.errors import StartupError
from birnn_service.setting_types import ENV_PREFIX
from birnn_service.settings import Settings

# Variables that other parts of birnn read: the `birnn` command and setup.py.
FOREIGN_VARIABLES = {"BIRNN_CONFIG", "BIRNN_ADDRESS", "BIRNN_TOKEN", "BIRNN_KERNELS"}


def load_settings(flags: Mapping[str, Any], config: Path | None = None) -> Settings:
    """Merge flags, BIRNN_* variables and a TOML file, in this order of precedence.

    Raises:
        StartupError: A value is out of range, or a key or variable is unknown; every problem is listed.
    """
    _refuse_unknown_variables()
    from_file = _read_toml(config) if config else {}
    # What a variable sets must win over the file, and pydantic-settings ranks arguments above variables.
    from_file = {key: value for key, value in from_file.items() if ENV_PREFIX + key.upper() not in os.environ}
    try:
        return Settings(**{**from_file, **flags})
    except ValidationError as error:
        raise StartupError("; ".join(_explain(problem) for problem in error.errors())) from None


def _refuse_unknown_variables() -> None:
    fields = [field.upper() for field in Settings.model_fields]
    ours = {name for name in os.environ if name.startswith(ENV_PREFIX)} - FOREIGN_VARIABLES
    names = [name.removeprefix(ENV_PREFIX) for name in sorted(ours)]
    if unknown := [_with_suggestion(name, fields, ENV_PREFIX) for name in names if name not in fields]:
        known = ", ".join(ENV_PREFIX + field for field in sorted(fields))
        raise StartupError(f"unknown variable {', '.join(unknown)}; known are {known}")


def _with_suggestion(name: str, known: Collection[str], prefix: str = "") -> str:
    """The name, with its prefix, and the known one that was probably meant."""
    close = difflib.get_close_matches(name, known, n=1)
    return f"{prefix}{name} (did you mean {prefix}{close[0]}?)" if close else prefix + name


def _explain(problem: Any) -> str:
    message = problem["msg"].removeprefix("Value error, ").removeprefix("Input ")
    if not problem["loc"]:
        return str(message)
    field = ".".join(map(str, problem["loc"]))
    flag = "--" + field.replace("_", "-")
    return f"{flag} ({ENV_PREFIX}{field.upper()}, TOML `{field}`): {problem['input']!r} {message}"


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise StartupError(f"cannot read the configuration file {path}: {error}") from error
    known = Settings.model_fields
    if unknown := [_with_suggestion(key, known) for key in content if key not in known]:
        raise StartupError(f"unknown key {', '.join(unknown)} in {path}; known are {', '.join(sorted(known))}")
    return content
