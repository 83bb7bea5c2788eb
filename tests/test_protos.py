"""The stubs in client/birnn are generated from protos/, and the rows of the import table hold."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from google.protobuf import descriptor_pb2
from grpc_tools import protoc

from birnn.openinference import inference_pb2
from birnn.v1 import encoder_pb2

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("module", [encoder_pb2, inference_pb2])
def test_stubs_are_up_to_date_with_their_sources(module: object, tmp_path: Path) -> None:
    descriptor = module.DESCRIPTOR  # type: ignore[attr-defined]
    out = tmp_path / "descriptors"
    source = ROOT / "protos" / descriptor.name
    assert protoc.main(["protoc", f"-I{ROOT / 'protos'}", f"--descriptor_set_out={out}", str(source)]) == 0
    (compiled,) = descriptor_pb2.FileDescriptorSet.FromString(out.read_bytes()).file
    # The compiler adds the JSON names, which follow from the others; generated code leaves them out.
    for message in compiled.message_type:
        clear_json_names(message)
    generated = descriptor_pb2.FileDescriptorProto.FromString(descriptor.serialized_pb)
    assert generated == compiled, "run `make protos`"


def clear_json_names(message: descriptor_pb2.DescriptorProto) -> None:
    for field in message.field:
        field.ClearField("json_name")
    for nested in message.nested_type:
        clear_json_names(nested)


MAY_IMPORT = {
    "client/birnn": {"birnn", "birnn_bundle"},
    "bundle/birnn_bundle": {"birnn_bundle"},
    "export/birnn_export": {"birnn_export", "birnn_bundle", "birnn_native"},
    "native/birnn_native": {"birnn_native", "birnn_bundle"},
    "service/birnn_service": {"birnn_service", "birnn_bundle", "birnn_native", "birnn.v1", "birnn.openinference"},
    "loadtest/birnn_loadtest": {"birnn_loadtest", "birnn", "birnn_bundle"},
    "bulk/birnn_bulk": {"birnn_bulk", "birnn", "birnn_bundle", "birnn_service"},
}


def imports(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
    return names


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_packages_import_only_what_their_row_allows(package: str) -> None:
    own = {Path(folder).name for folder in MAY_IMPORT}
    for path in (ROOT / package).rglob("*.py"):
        for name in imports(path):
            if name.partition(".")[0] in own:
                allowed = any(name == row or name.startswith(row + ".") for row in MAY_IMPORT[package])
                assert allowed, f"{path.relative_to(ROOT)} imports {name}"


@pytest.mark.parametrize(
    ("modules", "without"),
    [
        ("birnn_service.server, birnn_service.commands", {"torch"}),
        ("birnn_service.frontends.process", {"torch", "onnx", "onnxruntime"}),
        ("birnn, birnn_loadtest.command, birnn.cli.encode_command", {"torch", "onnx", "onnxruntime", "pydantic"}),
    ],
)
def test_what_serves_and_what_calls_load_without_heavy_packages(modules: str, without: set[str]) -> None:
    code = f"import sys; sys.modules.update(dict.fromkeys({without})); import {modules}"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("module", ["birnn_bundle.sequences", "birnn_bundle.quoting", "birnn_bundle.atomic_file"])
def test_what_the_client_takes_from_the_bundle_package_needs_the_standard_library_only(module: str) -> None:
    heavy = {"numpy", "pyarrow", "tokenizers", "safetensors", "pydantic"}
    code = f"import sys, {module}; sys.exit(bool({heavy} & set(sys.modules)))"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_importing_the_client_does_not_register_the_open_inference_messages() -> None:
    code = "import sys, birnn; sys.exit('birnn.openinference.inference_pb2' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
