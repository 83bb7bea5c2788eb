"""The reference of settings, from the fields of `birnn_service.settings`."""

from typing import Any

from pydantic import BaseModel

from birnn_service.engine_settings import EngineSettings
from birnn_service.limit_settings import LimitSettings
from birnn_service.model_settings import ModelSettings
from birnn_service.network_settings import NetworkSettings
from birnn_service.observe_settings import ObserveSettings
from birnn_service.setting_types import ENV_PREFIX
from deploy.documentation.markdown import cell, code, table

GROUPS: dict[str, type[BaseModel]] = {
    "Encoders and versions": ModelSettings,
    "Addresses, TLS and callers": NetworkSettings,
    "Engines and processes": EngineSettings,
    "Limits": LimitSettings,
    "Logs and traces": ObserveSettings,
}
INTRODUCTION = """# Settings

Each setting of `birnn serve` is a flag, an environment variable, and a key of the TOML file that `--config` names. A
flag wins over a variable, and a variable wins over the file. A key is the flag's name with underscores, so
`--grpc-port 8001`, `BIRNN_GRPC_PORT=8001` and `grpc_port = 8001` are the same. An unknown variable or key stops the
server from starting."""


def settings_page() -> str:
    """The page, one table for each group."""
    parts = [INTRODUCTION]
    for title, model in GROUPS.items():
        rows = [
            (f"{code('--' + name.replace('_', '-'))}<br>{code(ENV_PREFIX + name.upper())}", *_described(schema))
            for name, schema in model.model_json_schema()["properties"].items()
        ]
        parts += [f"## {title}", table(("setting", "values", "meaning"), rows)]
    return "\n\n".join(parts) + "\n"


def _described(schema: dict[str, Any]) -> tuple[str, str]:
    kinds = [kind for kind in schema.get("anyOf", [schema]) if kind.get("type") != "null"]
    values = ", ".join(map(_values, kinds))
    default = schema.get("default")
    if default not in (None, ""):
        values += f"<br>default {code(str(default).lower() if isinstance(default, bool) else str(default))}"
    return values, cell(schema["description"])


def _values(kind: dict[str, Any]) -> str:
    """Type and bounds of a value."""
    if "enum" in kind:
        return ", ".join(map(code, kind["enum"]))
    named = {"string": "text", "boolean": "`true`, `false`"}.get(kind["type"], kind["type"])
    bounds = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    return " ".join([named, *(f"{sign} {kind[bound]:,}" for bound, sign in bounds.items() if bound in kind)])
