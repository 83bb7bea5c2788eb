"""What no module may import on its own."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("bench", "bulk", "bundle", "client", "export", "loadtest", "native", "service", "tests")
DOOR = ROOT / "bundle" / "birnn_bundle" / "onnxruntime.py"


def sources() -> Iterator[Path]:
    return (path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))


def imported(tree: ast.AST) -> Iterator[str]:
    """Names of all modules that a source imports, wherever it does, by statement or by `import_module`."""
    for node in ast.walk(tree):
        match node:
            case ast.Import():
                yield from (alias.name for alias in node.names)
            case ast.ImportFrom(module=str(module), level=0):
                yield module
            case ast.Call(
                func=ast.Attribute(attr="import_module" | "importorskip") | ast.Name(id="import_module" | "__import__"),
                args=[ast.Constant(value=str(module)), *_],
            ):
                yield module


def test_onnxruntime_comes_through_the_door_that_switches_its_telemetry_off() -> None:
    by_itself = [
        str(path.relative_to(ROOT))
        for path in sources()
        if path != DOOR
        and any(
            name.partition(".")[0] == "onnxruntime" for name in imported(ast.parse(path.read_text(encoding="utf-8")))
        )
    ]
    assert not by_itself, f"write `from birnn_bundle.onnxruntime import ort` in {', '.join(by_itself)}"


def test_a_server_imports_nothing_that_can_ask_the_web() -> None:
    """tokenizers brings huggingface_hub along, and that an HTTP client; neither is ever imported.

    obstore is, but only where `--models` is a URL, and OpenTelemetry, but only where spans are to be exported.
    """
    clients = ("aiohttp", "httpx", "httpx2", "huggingface_hub", "obstore", "opentelemetry", "requests", "urllib3")
    code = f"import sys, birnn_service.commands; print(*sorted(set(sys.modules) & {set(clients)!r}))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "\n"


@pytest.mark.parametrize(
    "source",
    [
        "import onnxruntime",
        "def f():\n    from onnxruntime.capi import x",
        "import importlib\nimportlib.import_module('onnxruntime')",
    ],
)
def test_every_way_to_import_is_seen(source: str) -> None:
    assert any(name.startswith("onnxruntime") for name in imported(ast.parse(source)))
